"""A run, watched in napari: the newest frame, a mark on every tracked cell, the fraction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_rbcflow.conventions import Label
from napari_rbcflow.estimate.fraction import fraction_text

if TYPE_CHECKING:
    from napari_rbcflow.run import Run
    from napari_rbcflow.tracking.tracker import OpenTracks

REFRESH_MS = 50
IDLE_MS = 500
CAPACITY = 1024
"""Marks that a layer has room for. Layers are made once: growing them costs, removing them crashes."""
# Okabe and Ito's palette, told apart by the colour-blind; the symbols tell them apart without colour.
MARKS: dict[str, tuple[str, str]] = {
    "not yet": ("#bbbbbb", "disc"),
    Label.UNRELIABLE: ("#000000", "x"),
    Label.TANK_TREADING: ("#56b4e9", "ring"),
    Label.FLIPPING: ("#e69f00", "diamond"),
}


class LiveView:
    """The layers of one viewer, fed from one run by a timer in the interface's own thread.

    Lifecycle: construct in the interface's thread, after `Run.start` -> the timer updates until the
    run has ended -> `close`.
    """

    def __init__(self, viewer: Any, run: Run) -> None:
        from qtpy.QtCore import QTimer

        self.viewer = viewer
        self.run = run
        info = run.info
        black = np.zeros((info.height, info.width), np.uint8)
        self._image = viewer.add_image(black, name=info.name, contrast_limits=(90, 170))
        self._marks = {
            name: viewer.add_points(
                np.zeros((CAPACITY, 2)),
                name=str(name),
                size=8 if name == Label.UNRELIABLE else 22,
                symbol=symbol,
                face_color="transparent" if symbol != "x" else colour,
                border_color=colour,
                border_width=0.12,
                visible=False,
            )
            for name, (colour, symbol) in MARKS.items()
        }
        for layer in self._marks.values():
            layer.selected_data = set()
        viewer.layers.selection = {self._image}
        viewer.text_overlay.visible = True
        viewer.text_overlay.position = "top_left"
        viewer.text_overlay.font_size = 14
        self._shown_frame = -1
        self._timer = QTimer()
        self._timer.timeout.connect(self.update)
        self._timer.start(REFRESH_MS)

    def update(self) -> None:
        """Show how the run stands now."""
        ended = self.run.wait(0)
        positions = self.run.stages.positions
        frame = positions.frame if positions is not None and positions.frame else self.run.stages.newest
        if frame is not None and frame.index != self._shown_frame:
            self._shown_frame = frame.index
            self._image.data = frame.image
            self._mark("not yet", _places(positions))
            for label in (Label.UNRELIABLE, Label.TANK_TREADING, Label.FLIPPING):
                self._mark(label, self._judged_places(label))
        p = self.run.progress()
        state = "ended" if ended else f"to go: {p.missing}"
        said = fraction_text(p.estimate, p.interval, p.n, p.level).replace(" (", "\n(")
        self.viewer.text_overlay.text = f"{said}\n{state}"
        if ended:
            # Slower, but not off: Python hears a signal only while it runs something.
            self._timer.setInterval(IDLE_MS)

    def _judged_places(self, label: str) -> Any:
        """Where the cells judged last were last seen."""
        places = [(t.y_px[-1], t.x_px[-1]) for t, j in self.run.stages.judged if j.label == label]
        return np.array(places, dtype=float).reshape(-1, 2)

    def _mark(self, name: str, places: Any) -> None:
        layer, n = self._marks[name], min(len(places), CAPACITY)
        if n:
            layer.data[:n] = places[:n]
            # napari 0.9.2 draws points that are not `shown` too: they are parked on one that is.
            layer.data[n:] = places[0]
            layer.refresh()
        if layer.visible != bool(n):
            layer.visible = bool(n)

    def close(self) -> None:
        """Stop the timer; the layers stay, since napari may crash where they are removed."""
        self._timer.stop()


def watch(run: Run) -> None:
    """Open napari and show the run; returns when the window is closed, which stops the run."""
    import napari

    viewer = napari.Viewer(title="napari-rbcflow")
    view = LiveView(viewer, run)
    try:
        napari.run()
    finally:
        view.close()
        run.stop()


def close_window() -> None:
    """Close the windows that `watch` waits for; may be called from a signal handler."""
    from qtpy.QtWidgets import QApplication

    QApplication.closeAllWindows()
    QApplication.quit()


def _places(positions: OpenTracks | None) -> Any:
    if positions is None:
        return np.zeros((0, 2))
    return np.column_stack([positions.y_px, positions.x_px])
