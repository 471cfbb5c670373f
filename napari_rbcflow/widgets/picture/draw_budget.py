"""How much of the interface's time a picture may take: display gives way first."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qtpy.QtCore import QTimer

SHARE = 0.5
LEAST_SHARE = 0.1
"""While the run itself cannot keep up: drawing in software takes the processor from it."""
LONGEST_REST_S = 1.0
LONGEST_WAIT_S = 0.5
"""For a draw that was asked for: a window that is hidden is never drawn."""


class DrawBudget:
    """Measures what updates and the draws after them cost, and says when there is time for the next.

    After each update and each draw the interface is left alone for as long as they took (at a share
    of a half), and no update is begun before the last one was drawn: a slow screen shows fewer
    pictures, and never has any waiting.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    share : float
        Of the interface's time that may go into the picture.
    draws : int
        Counted since the beginning.
    draw_ms : float
        How long the last one took, with what Qt does after it.
    """

    def __init__(self, viewer: Any) -> None:
        self.share = SHARE
        self.draws = 0
        self.draw_ms = 0.0
        self._free_at = 0.0
        self._asked_at: float | None = None
        self._draw_began = 0.0
        # What Qt does after a draw (composing the window, showing it) is the greater part of its cost; this
        # timer is the first thing that the interface comes to after that.
        self._after_draw = QTimer()
        self._after_draw.setSingleShot(True)
        self._after_draw.timeout.connect(self._drawn)
        self._draw_events = _draw_events(viewer)
        if self._draw_events is not None:
            self._draw_events.connect(self._draw, position="first")

    @property
    def free(self) -> bool:
        """Whether there is time for an update now."""
        now = time.perf_counter()
        if self._asked_at is not None and now - self._asked_at < LONGEST_WAIT_S:
            return False
        return now >= self._free_at

    @contextmanager
    def update(self) -> Iterator[None]:
        """Measure an update."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._pay(began)

    def ask_for_draw(self) -> None:
        """Say that the update just made will be drawn."""
        if self._draw_events is not None:
            self._asked_at = time.perf_counter()

    def close(self) -> None:
        """Measure no more."""
        self._after_draw.stop()
        if self._draw_events is not None:
            self._draw_events.disconnect(self._draw)
            self._draw_events = None

    def _draw(self, event: Any = None) -> None:
        self._draw_began = time.perf_counter()
        self._after_draw.start(0)

    def _drawn(self) -> None:
        self.draws += 1
        self._asked_at = None
        self.draw_ms = 1000 * (time.perf_counter() - self._draw_began)
        self._pay(self._draw_began)

    def _pay(self, began: float) -> None:
        now = time.perf_counter()
        due = max(self._free_at, now) + (now - began) * (1 / self.share - 1)
        # One stall of two seconds must not freeze the picture for twenty.
        self._free_at = min(due, now + LONGEST_REST_S)


def _draw_events(viewer: Any) -> Any:
    """Return what napari's canvas emits when it draws; None where there is no window.

    The only private name of napari that the picture uses: 0.9.2 tells of a draw nowhere else. Without
    it, updates alone are measured.
    """
    with warnings.catch_warnings():
        # Opened from a menu, the viewer comes in a proxy that warns of private names; napari would show that.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return viewer.window._qt_viewer.canvas.events.draw
        except (AttributeError, RuntimeError):
            return None
