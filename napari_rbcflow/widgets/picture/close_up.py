"""The view, taken close to one cell and back to where it was."""

from __future__ import annotations

from typing import Any

ACROSS_UM = 180.0
"""What is seen around a cell, across the shorter side of the window."""


class CloseUp:
    """Moves a viewer's camera to a cell, and puts it back.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._before: tuple[Any, float] | None = None

    def go(self, y_px: float, x_px: float, pixel_size_um: float) -> None:
        """Look at a place from near; nearer already, only move."""
        camera = self._viewer.scene.camera
        if self._before is None:
            self._before = (camera.center, camera.zoom)
        camera.center = (0.0, float(y_px), float(x_px))
        camera.zoom = max(self._before[1], min(self._viewer.canvas.size) * pixel_size_um / ACROSS_UM)

    def back(self) -> None:
        """Look again from where one looked before the first `go`."""
        if self._before is not None:
            camera = self._viewer.scene.camera
            camera.center, camera.zoom = self._before
            self._before = None
