"""Between the camera's pixels and the flow's own coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class FlowAxes:
    """Reference pixels with x along the flow, mirrored where it goes right to left.

    Parameters
    ----------
    width : int
        Of a frame, camera pixels.
    scale : float
        Reference pixels a camera pixel.
    mirrored : bool
    """

    def __init__(self, width: int, scale: float, *, mirrored: bool) -> None:
        self.length = width * scale
        self._scale, self._mirrored = scale, mirrored

    def to_flow(self, y_px: NDArray[np.float32], x_px: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Camera pixels to y and x along the flow."""
        return y_px.astype(np.float64) * self._scale, self._turned(x_px.astype(np.float64) * self._scale)

    def exactly_to_camera(self, y: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Y and x along the flow to camera pixels."""
        return y / self._scale, self._turned(x) / self._scale

    def to_camera(self, y: Floats, x: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same, in the precision that tracks have."""
        y_px, x_px = self.exactly_to_camera(y, x)
        return y_px.astype(np.float32), x_px.astype(np.float32)

    def _turned(self, x: Floats) -> Floats:
        return self.length - self._scale - x if self._mirrored else x
