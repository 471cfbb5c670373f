"""Places of a camera's frames on its own clock, and what was lost between them.

No one sign is enough (measured, see docs/decisions/sources.md): the image number counts only what
reached Micro-Manager, so frames lost in the camera or on its cable show in the time alone; a buffer
that was cleared shows in the number; an overflow in the flag.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import Frame

_LATE = 0.5  # periods by which an interval may be longer than the image numbers explain
_LONGEST_HOLD = 4  # frames held back to see whether one was only late; 67 ms at 60 frames/s
# Image numbers that jump farther than the time allows, by this factor and so many frames, began anew.
_AHEAD, _AHEAD_FRAMES = 1.1, 10
# How fast the period follows the intervals, and how far from its first value it may go.
_LEARN, _LEARN_LIMIT = 0.02, 0.1


class _Held(NamedTuple):
    steps: int
    time_ms: float
    image: NDArray[np.uint8]


class LossLedger:
    """Give every frame its place; count what is missing between, by reason.

    A late frame is held back until those after it tell: if they come close behind, it was only late;
    if they keep the new distance, frames were lost before it. A camera slowed by half a period or less
    lost nothing. The measured `period_ms` is followed slowly, within a tenth of it.
    """

    def __init__(self, period_ms: float) -> None:
        self.missed: dict[str, int] = {}
        self._nominal_ms = self._period_ms = period_ms
        self._index, self._number, self._time_ms = -1, -1, 0.0
        self._began_ms: float | None = None
        self._reason: str | None = None
        self._held: list[_Held] = []

    def take(self, number: int, time_ms: float, image: NDArray[np.uint8]) -> list[Frame]:
        """Take the next frame with Micro-Manager's ImageNumber and the run's time; return those placed."""
        if self._began_ms is None:
            self._began_ms = time_ms
            self._number, self._time_ms = number, time_ms
            return [self._place(_Held(1, time_ms, image))]
        step, interval = number - self._number, time_ms - self._latest_ms()
        self._number = number
        if self._reason is not None or step <= 0 or self._ahead_of_time(step, time_ms):
            # Numbering began anew: only time tells how many went.
            reason, self._reason = self._reason or "image-number", None
            done = self._settle()
            step = max(1, round(interval / self._period_ms))
            self._count(reason, step - 1)
            return [*done, self._place(_Held(step, time_ms, image))]
        self._count("image-number", step - 1)
        late = interval > (step + _LATE) * self._period_ms
        done = self._settle() if late and self._held else []
        if late:
            self._held.append(_Held(step, time_ms, image))
        elif self._held:
            self._held.append(_Held(step, time_ms, image))
            if interval > (step - 0.3) * self._period_ms or len(self._held) >= _LONGEST_HOLD:
                done = self._settle()
        else:
            self._follow(interval / step)
            done = [self._place(_Held(step, time_ms, image))]
        return done

    def restarted(self, reason: str) -> list[Frame]:
        """Note that the camera was started again: what is missing until its next frame has this reason."""
        self._reason = reason
        return self._settle()

    def finish(self) -> list[Frame]:
        """Return what is still held back."""
        return self._settle()

    def _ahead_of_time(self, step: int, time_ms: float) -> bool:
        """Tell whether the image number jumped farther than the time allows."""
        steps = step + sum(one.steps for one in self._held)
        most = _AHEAD * (time_ms - self._time_ms) / self._period_ms + _AHEAD_FRAMES
        return step > 1 and steps > most

    def _latest_ms(self) -> float:
        return self._held[-1].time_ms if self._held else self._time_ms

    def _settle(self) -> list[Frame]:
        if not self._held:
            return []
        held, self._held = self._held, []
        steps = sum(one.steps for one in held)
        lost = max(0, round((held[-1].time_ms - self._time_ms) / self._period_ms) - steps)
        self._count("time-gap", lost)
        return [self._place(one._replace(steps=one.steps + (0 if k else lost))) for k, one in enumerate(held)]

    def _place(self, one: _Held) -> Frame:
        self._index += one.steps
        self._time_ms = one.time_ms
        return Frame(self._index, (one.time_ms - (self._began_ms or 0.0)) / 1000, one.image)

    def _follow(self, interval_ms: float) -> None:
        period = self._period_ms + _LEARN * (interval_ms - self._period_ms)
        low, high = (1 - _LEARN_LIMIT) * self._nominal_ms, (1 + _LEARN_LIMIT) * self._nominal_ms
        self._period_ms = min(high, max(low, period))

    def _count(self, reason: str, n: int) -> None:
        if n > 0:
            self.missed[reason] = self.missed.get(reason, 0) + n


class CoreClock:
    """One time across restarts: the tags' time since the sequence began, bridged by the core's clock."""

    def __init__(self) -> None:
        self._offset_ms: float | None = 0.0
        self._last_ms = self._last_wall_ms = 0.0

    def restarted(self) -> None:
        """Note that the next frame comes from a new sequence."""
        self._offset_ms = None

    def read(self, tags: Mapping[str, str]) -> tuple[int, float]:
        """Return image number and time in ms."""
        now = time.time() * 1000
        with contextlib.suppress(KeyError, ValueError):
            now = datetime.fromisoformat(tags["TimeReceivedByCore"]).timestamp() * 1000
        own = float(tags["ElapsedTime-ms"]) if "ElapsedTime-ms" in tags else now
        if self._offset_ms is None:
            self._offset_ms = self._last_ms + (now - self._last_wall_ms) - own
        self._last_ms, self._last_wall_ms = own + self._offset_ms, now
        return int(tags["ImageNumber"]), self._last_ms
