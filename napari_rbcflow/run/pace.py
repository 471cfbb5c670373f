"""How fast a run goes, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque

WINDOW_S = 2.0
LEAST_SHARE = 0.02
"""Before that, an estimate of the time left would be a guess."""


class Pace:
    """Frames a second over the last `WINDOW_S`, told by whoever looks after the run.

    Lifecycle: construct as the run begins -> `look` -> `end`.

    Attributes
    ----------
    frames_per_s : float
        Of the whole run once it has ended.
    """

    def __init__(self) -> None:
        self.frames_per_s = 0.0
        self._began = self._came = time.monotonic()
        self._looks: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._ended = False

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
