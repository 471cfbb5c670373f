"""Which time of a frame is believed, and that no clock that is set, stops or says nonsense loses a frame."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_rbcflow.sources.base import number_in
from napari_rbcflow.sources.camera_settings import CameraSettings, binning_in
from napari_rbcflow.sources.frame_loss import (
    CORE_TIME,
    CORE_WALL_TIME,
    Came,
    CoreClock,
    LossLedger,
    choose_clock,
)
from napari_rbcflow.types import Frame

PICTURE = np.zeros((2, 2), np.uint8)
HOUR_MS = 3_600_000.0
NOON = datetime(2026, 10, 25, 2, 59, 59, 900_000)  # when the hour of summer time ends
Tags = Callable[[int, float], Mapping[str, Any]]
"""Of the frame with this number, taken at this time in ms."""


def came(
    tags: Tags, frames: range, fps: float, *, lost: set[int] = frozenset(), stalls: Mapping[int, float] = {}
) -> Iterator[tuple[int, Came]]:
    """Frames as a camera takes them and a loop pops them, which naps while none waits, and may stall."""
    period_ms, nap_ms = 1000 / fps, min(4.0, 250 / fps)
    now = empty = 1e6 + frames[0] * period_ms
    number = 0
    for k in frames:
        if k in lost:
            continue
        arrives = 1e6 + k * period_ms + 1.5 + 0.7 * math.sin(7.0 * k)
        while now < arrives:
            empty, now = now, now + nap_ms
        yield k, Came({"ImageNumber": str(number), **tags(k, k * period_ms)}, empty, now)
        number += 1
        now += 0.1 + stalls.get(k, 0.0)


def placed(tags: Tags, *, fps: float = 60.0, frames: int = 300, **how: Any) -> tuple[list[Frame], LossLedger]:
    """Choose the clock by the first half second as a camera does, then place the frames."""
    clock = choose_clock([one for _, one in came(tags, range(31), fps)])
    ledger, got = LossLedger(clock.period_ms), []
    assert 1000 / clock.period_ms == pytest.approx(fps, rel=0.02)
    for _, one in came(tags, range(frames), fps, **how):
        number, time_ms = clock.read(*one)
        got += ledger.take(number, time_ms, PICTURE)
    return got + ledger.finish(), ledger


def elapsed(said: Callable[[int, float], object]) -> Tags:
    return lambda k, ms: {CORE_TIME: said(k, ms)}


def stepped(by_ms: float, at: int) -> Callable[[int, float], float]:
    return lambda k, ms: ms + (by_ms if k >= at else 0.0)


TIMES: dict[str, Tags] = {
    "as it should be": elapsed(lambda k, ms: f"{ms:.3f}"),
    "as numbers": elapsed(lambda k, ms: ms),
    "a comma": elapsed(lambda k, ms: f"{ms:.3f}".replace(".", ",")),
    "thousands": elapsed(lambda k, ms: f"{ms:,.3f}"),
    "with its unit": elapsed(lambda k, ms: f"{ms:.3f} [{ms / 1000:.6f} seconds]"),
    "seconds": elapsed(lambda k, ms: ms / 1000),
    "microseconds": elapsed(lambda k, ms: round(ms * 1000)),
    "nanoseconds": elapsed(lambda k, ms: round(ms * 1e6) + 10**15),
    "negative": elapsed(lambda k, ms: ms - 2000),
    "a full counter": elapsed(lambda k, ms: round(2**32 - 2000 + ms) % 2**32),
    "a full counter of 24 bits": elapsed(lambda k, ms: (2**24 - 2000 + ms) % 2**24),
    "a full counter of ns": elapsed(lambda k, ms: round(ms * 1e6) % 2**32),
    "forward an hour": elapsed(stepped(HOUR_MS, 120)),
    "back an hour": elapsed(stepped(-HOUR_MS, 120)),
    "forward a moment": elapsed(stepped(300, 120)),
    "back a moment": elapsed(stepped(-300, 120)),
    "forward, then back": elapsed(lambda k, ms: ms + HOUR_MS * (120 <= k < 200)),
    "in the first half second": elapsed(stepped(HOUR_MS, 12)),
    "missing for some": lambda k, ms: {} if k % 3 == 1 else {CORE_TIME: ms},
    "no number for some": elapsed(lambda k, ms: "nan" if k % 5 == 2 else ms),
    "each said twice": lambda k, ms: {CORE_TIME: ms * (k - k % 2) / max(k, 1), "TimeStamp": ms},
    "stops for good": elapsed(lambda k, ms: min(ms, 2000.0)),
    "stops for a while": elapsed(lambda k, ms: ms if not 100 <= k < 160 else 100000 / 60),
    "a time of the day": lambda k, ms: {CORE_WALL_TIME: str(NOON + timedelta(milliseconds=ms))},
    "a time of the day, with its zone": lambda k, ms: {
        CORE_WALL_TIME: (NOON + timedelta(milliseconds=ms)).astimezone().isoformat()
    },
    "the end of summer": lambda k, ms: {
        CORE_WALL_TIME: str(NOON + timedelta(milliseconds=ms, hours=-int(ms > 1000)))
    },
    "always 0": elapsed(lambda k, ms: 0.0),
    "always 0, a camera's own beside it": lambda k, ms: {CORE_TIME: 0, "Chunk.Timestamp": round(ms * 1e6)},
    "not a number": elapsed(lambda k, ms: "nan"),
    "words": elapsed(lambda k, ms: "soon"),
    "empty": elapsed(lambda k, ms: ""),
    "none": lambda k, ms: {},
    "no tag at all": lambda k, ms: {"ImageNumber": None},
    "always the same number": lambda k, ms: {CORE_TIME: ms, "ImageNumber": "0"},
    "half as fast": elapsed(lambda k, ms: ms / 2),
    "twice as fast": elapsed(lambda k, ms: ms * 2),
    "anything": elapsed(lambda k, ms: hash((k, "x")) % 10**7),
}


@pytest.mark.parametrize("fps", [17.0, 60.0, 143.3])
@pytest.mark.parametrize("said", TIMES)
def test_whatever_a_clock_says_no_frame_is_lost_that_came(said: str, fps: float) -> None:
    """Also where this program stalls for a second, twice: the frames wait in the buffer meanwhile."""
    got, ledger = placed(TIMES[said], fps=fps, stalls={20: 500.0, 220: 1500.0})
    assert ledger.missed == {}
    assert [frame.index for frame in got] == list(range(300))
    times = [frame.time_s for frame in got]
    assert times[0] == 0
    assert all(a <= b for a, b in pairwise(times))
    assert times[-1] == pytest.approx(299 / fps, abs=0.2)


@pytest.mark.parametrize("fps", [17.0, 60.0, 143.3])
@pytest.mark.parametrize("said", [name for name in TIMES if name not in ("anything", "stops for a while")])
def test_whatever_a_clock_says_a_frame_that_the_camera_lost_is_counted(said: str, fps: float) -> None:
    lost = {70, 140, 141, 142, 210}
    if said in ("forward an hour", "stops for good"):
        fps = 60.0
    got, ledger = placed(TIMES[said], fps=fps, lost=lost)
    assert ledger.missed == {"time-gap": len(lost)}
    assert [frame.index for frame in got] == [k for k in range(300) if k not in lost]


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6])
def test_a_counter_that_begins_anew_while_nobody_takes_frames_hides_no_loss(unit: float) -> None:
    """Of 32 bits, in ms, us or ns; what was lost in a stall shows in the camera's own times alone."""
    lost, anew = {141, 142}, 143
    tags = elapsed(lambda k, ms: round(unit * (ms - anew * ms / max(k, 1))) % 2**32 if k else None)
    got, ledger = placed(tags, lost=lost, stalls={138: 400.0})
    assert ledger.missed == {"time-gap": len(lost)}
    assert [frame.index for frame in got] == [k for k in range(300) if k not in lost]


@pytest.mark.parametrize(
    ("tags", "clock", "unit"),
    [
        (TIMES["as it should be"], CORE_TIME, 1.0),
        (TIMES["microseconds"], CORE_TIME, 1e3),
        (TIMES["seconds"], CORE_TIME, 1e-3),
        (TIMES["always 0, a camera's own beside it"], "Chunk.Timestamp", 1e6),
        (TIMES["a time of the day"], CORE_WALL_TIME, 1.0),
        # The driver's thread is uneven, the camera is not.
        (lambda k, ms: {CORE_TIME: ms + 12 * (k % 2), "FrameTick": 1000 * ms}, "FrameTick", 1e3),
        (lambda k, ms: {CORE_TIME: ms + k % 2, "FrameTick": 1000 * ms}, CORE_TIME, 1.0),
        (
            lambda k, ms: {CORE_TIME: ms, "StartTime-ms": 77, "Exposure": 2.2, "FrameTime": 3 * ms},
            CORE_TIME,
            1.0,
        ),
        (TIMES["half as fast"], "", 1.0),
        (TIMES["none"], "", 1.0),
    ],
)
def test_the_clock_is_chosen_by_what_the_tags_do(tags: Tags, clock: str, unit: float) -> None:
    chosen = choose_clock([one for _, one in came(tags, range(31), 60.0)])
    assert (chosen.tag, chosen.unit) == (clock, unit)
    assert 1000 / chosen.period_ms == pytest.approx(60, rel=0.02)


@pytest.mark.parametrize("step_ms", [0.0, HOUR_MS, -HOUR_MS])
@pytest.mark.parametrize("said", ["as it should be", "none", "always 0", "microseconds"])
def test_every_restart_of_the_buffer_counts_what_was_lost_and_not_what_the_clock_was_set(
    said: str, step_ms: float
) -> None:
    """Each sequence numbers and times its frames anew; the computer's clock may be set meanwhile.

    What the camera loses after a restart has its own reason again.
    """
    clock = choose_clock([one for _, one in came(TIMES[said], range(31), 60.0)])
    ledger, got, sequences = LossLedger(clock.period_ms), [], [(0, 100), (160, 260), (470, 500)]
    lost = {200, 485, 486}

    def tags(k: int, ms: float) -> Mapping[str, Any]:
        began = next(first for first, end in sequences if k < end)
        day = NOON + timedelta(milliseconds=ms + step_ms * (began > 0))
        return {**TIMES[said](k - began, ms - began * 1000 / 60), CORE_WALL_TIME: str(day)}

    for first, end in sequences:
        if first:
            got += ledger.restarted("overflow")
            clock.restarted()
        for _, one in came(tags, range(first, end), 60.0, lost=lost):
            got += ledger.take(*clock.read(*one), PICTURE)
    got += ledger.finish()
    assert ledger.missed == {"overflow": 60 + 210, "time-gap": len(lost)}
    there = [k for first, end in sequences for k in range(first, end) if k not in lost]
    assert [frame.index for frame in got] == there


_number = st.one_of(st.none(), st.integers(-5, 200), st.integers(-(2**63), 2**63))
_moment = st.one_of(
    st.floats(), st.floats(0, 1000), st.sampled_from([0.0, HOUR_MS, -HOUR_MS, 2.0**32, math.nan])
)


@settings(max_examples=300)
@given(
    frames=st.lists(st.tuples(_number, _moment, st.booleans()), min_size=1, max_size=60),
    period_ms=st.sampled_from([1.0, 1000 / 60, 58.8, 2000.0]),
)
def test_whatever_numbers_and_times_come_the_account_is_whole(
    frames: list[tuple[int | None, float, bool]], period_ms: float
) -> None:
    """Every frame has a place of its own, and places without one are counted, once."""
    ledger, got = LossLedger(period_ms), []
    for number, time_ms, restarts in frames:
        if restarts:
            got += ledger.restarted("overflow")
        if math.isfinite(time_ms):
            time_ms %= 1e9
        got += ledger.take(number, time_ms, PICTURE)
    got += ledger.finish()
    assert len(got) == len(frames)
    assert got[0].index == 0
    assert all(a.index < b.index and a.time_s <= b.time_s for a, b in pairwise(got))
    assert got[-1].index + 1 == len(got) + sum(ledger.missed.values())
    assert all(n > 0 for n in ledger.missed.values())


_said = st.one_of(
    st.none(),
    st.text(max_size=6),
    st.floats().map(str),
    st.integers(-(10**12), 10**20),
    st.sampled_from(
        ["0", "16,7", "nan", "-1e308", "2026-03-29 02:00:00", "9999-12-31T23:59:59", {"a": 1}, []]
    ),
)


@settings(max_examples=300)
@given(
    frames=st.lists(st.tuples(_said, _said, st.floats(0, 100), st.booleans()), min_size=3, max_size=60),
    known=st.booleans(),
)
def test_whatever_the_tags_say_no_more_is_missed_than_can_have_been_taken_meanwhile(
    frames: list[tuple[object, object, float, bool]], known: bool
) -> None:
    period_ms, now, empty = 1000 / 60, 5e5, 5e5
    clock, ledger, got = CoreClock(CORE_TIME, 1.0, period_ms), LossLedger(period_ms), []
    for number, said, after_ms, drained in frames:
        empty = now if drained else empty
        now += after_ms
        tags = {
            name: one
            for name, one in (("ImageNumber", number), (CORE_TIME, said))
            if known or one is not None
        }
        got += ledger.take(*clock.read(tags, empty, now), PICTURE)
    got += ledger.finish()
    missed = sum(ledger.missed.values())
    assert got[-1].index + 1 == len(got) + missed
    assert missed <= 1.3 * (now - 5e5) / period_ms + 2 * len(frames) + 12
    choose_clock([Came({CORE_TIME: said}, 0.0, 1.0 + k) for k, (_, said, _, _) in enumerate(frames)])


def test_no_time_of_the_day_is_read_where_frames_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> float:
        raise AssertionError("a person or a time server sets this clock")

    monkeypatch.setattr(time, "time", asked)
    clock = CoreClock()
    assert clock.read({CORE_TIME: "3.5", "ImageNumber": "7"}) == (7, 0.0)
    clock.restarted()
    assert clock.read({CORE_TIME: "0"})[0] is None


@pytest.mark.parametrize(
    ("said", "binning"),
    [(2, 2), ("2", 2), ("2x2", 2), ("2X2", 2), ("(2, 2)", 2), (2.0, 2), ("2.0", 2), ("4 x 4", 4), ("16", 16)]
    + [(wrong, None) for wrong in ("0", 0, -2, "2x4", "2.5", "", "two", None, True)],
)
def test_a_binning_is_read_however_it_is_written(said: object, binning: int | None) -> None:
    assert binning_in(said) == binning
    asked = CameraSettings(binning=said)  # type: ignore[arg-type]
    assert asked.binning == (binning or said)


@pytest.mark.parametrize(
    ("said", "number"),
    [("12.5", 12.5), ("12,5", 12.5), ("1,234.5", 1234.5), ("1.234,5", 1234.5), ("1.234.567", 1234567.0)]
    + [(" 7 ms", 7.0), ("-3", -3.0), (".5", 0.5), (4, 4.0), ("1e3", 1000.0)]
    + [(none, None) for none in ("nan", "inf", "", "soon", None, "1e999", "-")],
)
def test_a_number_is_read_however_its_decimals_are_marked(said: object, number: float | None) -> None:
    assert number_in(said) == number
