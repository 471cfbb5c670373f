"""How fast a run goes, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque

from napari_rbcflow.estimate.stopping import Rates

WINDOW_S = 2.0
RATES_S = 30.0
"""Reliable cells come a few a second: over less, their rate would jump about."""
LEAST_RATES_S = 3.0
_EVERY_S = 0.5
LEAST_SHARE = 0.02
"""Before that, an estimate of the time left would be a guess."""


class Pace:
    """Frames a second over the last `WINDOW_S`, cells and tracks over `RATES_S`; told by whoever looks.

    Lifecycle: construct as the run begins -> `look` and `count` -> `end`.

    Attributes
    ----------
    frames_per_s : float
        Of the whole run once it has ended.
    """

    def __init__(self) -> None:
        self.frames_per_s = 0.0
        self._began = self._came = time.monotonic()
        self._looks: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._counts: deque[tuple[float, int, int, float]] = deque([(self._began, 0, 0, 0.0)])
        self._ended = False

    def count(self, cells: int, tracks: int, camera_s: float) -> None:
        """Take note of the cells counted, the tracks finished and the camera's time up to now."""
        now = time.monotonic()
        if now - self._counts[-1][0] < _EVERY_S:
            return
        self._counts.append((now, cells, tracks, camera_s))
        while now - self._counts[1][0] > RATES_S:
            self._counts.popleft()

    def rates(self) -> Rates:
        """Return what came in a second of late."""
        then, now = self._counts[0], self._counts[-1]
        if self._ended or (seconds := now[0] - then[0]) < LEAST_RATES_S:
            return Rates()
        cells, tracks, camera_s = ((new - old) / seconds for new, old in zip(now[1:], then[1:], strict=True))
        return Rates(cells, tracks, camera_s)

    def look(self, received: int) -> None:
        """Take note of how many frames there are now."""
        now = time.monotonic()
        if received > self._looks[-1][1]:
            self._came = now
        self._looks.append((now, received))
        while len(self._looks) > 2 and now - self._looks[1][0] > WINDOW_S:
            self._looks.popleft()
        then, before = self._looks[0]
        self.frames_per_s = (received - before) / max(now - then, 1e-3)

    def end(self, received: int) -> None:
        """No more frames come."""
        self.look(received)
        self._ended = True
        self.frames_per_s = received / max(self._came - self._began, 1e-3)

    def seconds_left(self, share: float | None) -> float | None:
        """Return how long the rest takes if it goes on as before; None where that cannot be told yet."""
        if share is None or share < LEAST_SHARE or self._ended:
            return None
        return (time.monotonic() - self._began) * (1 - share) / share
