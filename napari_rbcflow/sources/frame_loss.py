"""Places of a camera's frames on its own clock, and what was lost between them.

No one sign is enough (measured, see docs/decisions/sources.md): the image number counts only what
reached Micro-Manager, so frames lost in the camera or on its cable show in the time alone; a buffer
that was cleared shows in the number; an overflow in the flag. And no time is believed that the moments at
which the frames came contradict: it may be the computer's, which a person or a time server sets.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.sources.base import FPS_RANGE, is_within, number_in
from napari_rbcflow.types import DEFAULT_FPS, Frame

_LATE = 0.5  # periods by which an interval may be longer than the image numbers explain
_LONGEST_HOLD = 4  # frames held back to see whether one was only late; 67 ms at 60 frames/s
# Image numbers that jump farther than the time allows, by this factor and so many frames, began anew.
_AHEAD, _AHEAD_FRAMES = 1.1, 10
_FORGET = 0.01  # with each frame, of the frames by which the places are ahead of the time
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
        self._lead = -1.0  # frames by which the places are ahead of the time; with the first, 0
        self._reason: str | None = None
        self._held: list[_Held] = []

    def take(self, number: int | None, time_ms: float, image: NDArray[np.uint8]) -> list[Frame]:
        """Take the next frame with Micro-Manager's ImageNumber and the run's time; return those placed.

        Without a number, or with that of the frame before, the time alone tells what was lost.
        """
        if self._began_ms is None:
            self._began_ms = self._time_ms = time_ms if math.isfinite(time_ms) else 0.0
            self._number = number or 0
            return [self._place(_Held(1, self._time_ms, image))]
        if not self._latest_ms() <= time_ms < math.inf:
            time_ms = self._latest_ms()
        step = 1 if number is None else number - self._number or 1
        interval = time_ms - self._latest_ms()
        self._number = self._number + 1 if number is None else number
        if self._reason is not None or step <= 0 or self._ahead_of_time(step, time_ms):
            # Numbering began anew: only time tells how many went.
            reason, self._reason = self._reason or "image-number", None
            done = self._settle()
            step = max(1, round(interval / self._period_ms) - self._early())
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
        return step > 1 and self._lead + steps > most

    def _early(self) -> int:
        """Return how many of the frames that the time misses now have their places already.

        A clock that stood still, or that ticks in long steps, gives several frames the same time.
        """
        return max(0, round(self._lead))

    def _latest_ms(self) -> float:
        return self._held[-1].time_ms if self._held else self._time_ms

    def _settle(self) -> list[Frame]:
        if not self._held:
            return []
        held, self._held = self._held, []
        steps = sum(one.steps for one in held)
        lost = max(0, round((held[-1].time_ms - self._time_ms) / self._period_ms) - steps - self._early())
        self._count("time-gap", lost)
        return [self._place(one._replace(steps=one.steps + (0 if k else lost))) for k, one in enumerate(held)]

    def _place(self, one: _Held) -> Frame:
        self._index += one.steps
        early = one.steps - (one.time_ms - self._time_ms) / self._period_ms
        self._lead = self._lead + early if abs(early) >= _LATE else (1 - _FORGET) * self._lead
        self._time_ms = one.time_ms
        return Frame(self._index, (one.time_ms - (self._began_ms or 0.0)) / 1000, one.image)

    def _follow(self, interval_ms: float) -> None:
        if interval_ms < (1 - _LATE) * self._period_ms:
            return  # after a late frame, or of a clock that stands still
        period = self._period_ms + _LEARN * (interval_ms - self._period_ms)
        low, high = (1 - _LEARN_LIMIT) * self._nominal_ms, (1 + _LEARN_LIMIT) * self._nominal_ms
        self._period_ms = min(high, max(low, period))

    def _count(self, reason: str, n: int) -> None:
        if n > 0:
            self.missed[reason] = self.missed.get(reason, 0) + n


CORE_TIME = "ElapsedTime-ms"
"""Since the sequence began: the camera's, or where it gives none, the core's. Before October 2022, and still
with some cameras, it is the difference of two times of the day."""
CORE_WALL_TIME = "TimeReceivedByCore"  # the time of the day, by the computer
ARRIVAL = "arrival"  # in a run's record: no tag tells the time
_MAYBE_TIME = re.compile("time|stamp|tick|clock", re.IGNORECASE)
_COUNTER = 2.0**32  # where the counter of many a camera begins anew
_DRIFT = 2e-4  # between the camera's clock and the computer's: twice the worst quartz
_SLACK_MS = 10.0  # by which the way of a frame to this program differs
_STILL_MS, _STILL_FRAMES = 100.0, 3.5  # after which a clock has stopped, not only ticked in long steps
_UNEVEN = 0.15  # of a period: a time that is no better than this is left for a better one
_WRONG = 0.5  # of the first frames, whose time may be wrong or missing


class CoreClock:
    """The time of a run in ms, by a tag of its frames, as far as the moments at which they came allow.

    A frame came after the buffer was last seen empty, and before it was taken out. So no frame can have been
    taken later than it came: a tag that says so jumped. Neither that, nor one that goes back, stands still,
    or is no number is believed: for such a frame the moment at which it came counts, which nobody sets.
    Behind such a jump, and behind `restarted`, the tag goes on from there.

    An empty `tag` is none, so that the moments alone tell the time; its `unit` is in parts of a millisecond,
    1000 for microseconds. `doubted` counts the frames whose tag was not believed.
    """

    def __init__(
        self, tag: str = CORE_TIME, unit: float = 1.0, period_ms: float = 1000 / DEFAULT_FPS
    ) -> None:
        self.tag, self.unit, self.period_ms = tag, unit, period_ms
        self.doubted = 0
        self._time_ms = 0.0
        self._ahead_ms: float | None = None  # of the tag: add it to get the time; None: not yet known
        self._said_ms: float | None = None  # by the tag of a frame before
        self._changed_ms = 0.0  # when the tag was last another one
        self._number: int | None = None
        self._came_ms: float | None = None
        self._popped_ms = 0.0
        self._way_ms = 0.0  # from the time to the moment: of the frame that came soonest

    def anew(self) -> Self:
        """Return the same clock, for another run."""
        return type(self)(self.tag, self.unit, self.period_ms)

    def restarted(self) -> None:
        """Note that the next frame comes from a new sequence."""
        self._number = self._ahead_ms = None

    def read(
        self, tags: Mapping[str, Any], empty_ms: float = -math.inf, popped_ms: float | None = None
    ) -> tuple[int | None, float]:
        """Return a frame's image number, None where it has none, and its time in ms, which never goes back.

        `empty_ms` and `popped_ms`, on a clock that only goes forward, are when the buffer was last seen
        empty and when the frame was taken out of it: now, unless given.
        """
        popped_ms = time.monotonic() * 1000 if popped_ms is None else popped_ms
        number, said_ms = image_number(tags), self._said(tags)
        if self._came_ms is None:
            self._came_ms = self._changed_ms = self._way_ms = self._popped_ms = popped_ms
        else:
            step = 1 if number is None or self._number is None else max(1, number - self._number)
            guess_ms = _within(self._came_ms + step * self.period_ms, empty_ms, popped_ms)
            self._go_on(said_ms, guess_ms, popped_ms)
            still = said_ms is not None and said_ms == self._said_ms
            self._came_ms = guess_ms if still else _within(self._time_ms + self._way_ms, empty_ms, popped_ms)
        if said_ms is not None:
            if self._ahead_ms is None:
                self._ahead_ms = self._time_ms - said_ms
            if said_ms != self._said_ms:
                self._said_ms, self._changed_ms = said_ms, self._came_ms
        self._popped_ms, self._number = popped_ms, number
        return number, self._time_ms

    def _go_on(self, said_ms: float | None, guess_ms: float, popped_ms: float) -> None:
        """Move the time on to a frame that came at `guess_ms`, if its tag does not know better."""
        assert self._came_ms is not None
        self._way_ms += _DRIFT * max(0.0, popped_ms - self._popped_ms)
        if said_ms is not None and self._ahead_ms is not None:
            moved_ms = said_ms + self._ahead_ms - self._time_ms
            if said_ms == self._said_ms:
                moved_ms = 0.0
            elif moved_ms < 0:  # perhaps only as a counter does that is full
                moved_ms += _COUNTER / self.unit
            if self._believes(moved_ms, said_ms, guess_ms, popped_ms):
                self._time_ms += moved_ms
                self._ahead_ms = self._time_ms - said_ms
                self._way_ms = min(self._way_ms, popped_ms - self._time_ms)
                return
            self._ahead_ms = None
        self.doubted += 1
        if said_ms is not None and said_ms == self._said_ms:
            # It stopped a while ago.
            self._time_ms = max(self._time_ms, guess_ms - self._way_ms)
            return
        self._time_ms += max(0.0, guess_ms - self._came_ms)
        self._way_ms = guess_ms - self._time_ms

    def _said(self, tags: Mapping[str, Any]) -> float | None:
        said = moment_in(tags.get(self.tag))
        return None if said is None else said / self.unit

    def _believes(self, moved_ms: float, said_ms: float, guess_ms: float, popped_ms: float) -> bool:
        if said_ms == self._said_ms:
            return guess_ms - self._changed_ms <= max(_STILL_MS, _STILL_FRAMES * self.period_ms)
        too_soon_ms = self._time_ms + moved_ms + self._way_ms - popped_ms
        return moved_ms <= (1 + _LATE) * self.period_ms or too_soon_ms <= _SLACK_MS + _LATE * self.period_ms


def _within(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def image_number(tags: Mapping[str, Any]) -> int | None:
    """Return the image number; None where the frame has none."""
    number = number_in(tags.get("ImageNumber"))
    return None if number is None else int(number)


def moment_in(said: object) -> float | None:
    """Return the number that a tag holds, or the milliseconds of its date and time; None where neither."""
    text = str(said).strip()
    if "-" in text and ":" in text:
        with contextlib.suppress(ValueError, OverflowError):
            when = datetime.fromisoformat(text)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000
    return number_in(text)


class Came(NamedTuple):
    """A frame's tags, when the buffer was last seen empty before it, and when it was taken out."""

    tags: Mapping[str, Any]
    empty_ms: float
    popped_ms: float


def choose_clock(came: Sequence[Came]) -> CoreClock:
    """Return the clock of a camera by what the tags of its first frames do, not by their names.

    That is ``ElapsedTime-ms`` if it goes on as time does, in whatever unit; another tag, perhaps the
    camera's own, if that is more even or the only one that does; else none.
    """
    first, last = came[0], came[-1]
    numbers = [image_number(one.tags) for one in came]
    frames = len(came) - 1
    if numbers[0] is not None and numbers[-1] is not None and frames < numbers[-1] - numbers[0] <= 4 * frames:
        frames = numbers[-1] - numbers[0]
    arrival_ms = max(1e-3, (last.popped_ms - first.popped_ms) / frames)
    least_ms = 0.8 * (last.empty_ms - first.popped_ms) - 3 * _SLACK_MS
    most_ms = 1.1 * (last.popped_ms - first.empty_ms) + 3 * _SLACK_MS
    named = {name for one in came for name in one.tags if _MAYBE_TIME.search(name)}
    good: list[tuple[int, int, CoreClock]] = []
    for place, tag in enumerate(
        sorted(named, key=lambda name: (name != CORE_TIME, name == CORE_WALL_TIME, name))
    ):
        said = [moment_in(one.tags.get(tag)) for one in came]
        moved = np.array([b - a for a, b in pairwise(said) if a is not None and b is not None])
        typical = float(np.median(moved)) if len(moved) else 0.0
        if not 1e-6 < typical / arrival_ms < 1e9:
            continue
        by_pace = 1000.0 ** round(math.log(typical / arrival_ms, 1000))
        for unit in dict.fromkeys((1.0, by_pace)):
            clock = CoreClock(tag, unit, typical / unit)
            times = [clock.read(*one)[1] for one in came]
            if (
                clock.doubted <= _WRONG * len(came)
                and least_ms <= times[-1] - times[0] <= most_ms
                and is_within(1000 / clock.period_ms, FPS_RANGE)
            ):
                uneven = float(np.median(np.abs(moved / typical - 1)))
                good.append((int(uneven / _UNEVEN), place, clock.anew()))
                break
    return min(good)[2] if good else CoreClock("", 1.0, arrival_ms)
