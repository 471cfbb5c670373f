"""What every movie format gives: raw frames in order, some of them by place, and what the file knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import FPS_RANGE, PIXEL_RANGE_UM, is_within
from napari_rbcflow.sources.frame_loss import LossLedger
from napari_rbcflow.sources.grey import ColourOrder, Raw


class RawFrame(NamedTuple):
    """A frame before it is made grey: its place on the recording's clock, its time if recorded."""

    place: int
    time_s: float | None
    image: Raw


class BrokenFrame(Exception):
    """A frame that its format's library could not read, where another was asked for."""

    def __init__(self, place: int, error: Exception) -> None:
        super().__init__(str(error))
        self.place = place


class NoSuchFrame(LookupError):
    """At that place of the recording's clock there is no frame."""


@dataclass
class FileFacts:
    """What a file says of itself; None where it says nothing, or nothing plausible."""

    n_frames: int
    fps: float | None = None
    pixel_size_um: float | None = None
    order: ColourOrder = "rgb"
    inverted: bool = False
    format: str = ""
    details: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    simulated: bool = False  # it says so
    lossy_codec: str = ""  # by its name, where one threw part of the picture away
    n_places: int | None = None  # counted by the recording's clock, where those are more than its frames
    timed: bool = False  # by the frames' own times, before which no interval that was asked for goes
    places: list[int] | None = None  # of every frame on that clock, ascending; None: no gap
    pixel_ratio: float = 1.0  # of a pixel's width to its height

    def take_fps(self, fps: float | None, origin: str) -> None:
        """Take a frame rate that a camera could have."""
        if fps is None or fps == 0:
            return
        if is_within(fps, FPS_RANGE):
            self.fps = float(fps)
        else:
            self.warnings.append(say("sources.fps-implausible", origin=origin, fps=fps))

    def take_interval(self, step: float | None, unit: str, origin: str) -> None:
        """Take the time from frame to frame, unless it is what a program writes that does not know it."""
        seconds = in_s(step, unit) if step else None
        if seconds and self.timed and self.fps:
            if abs(seconds * self.fps - 1) > _SAME_RATE:
                self.warnings.append(
                    say("sources.times-contradict", origin=origin, asked=1 / seconds, fps=self.fps)
                )
        elif seconds and not self._is_default(step, unit, origin):
            self.take_fps(1 / seconds, origin)

    def take_step(
        self, step: float | None, unit: str, origin: str, *, high: float | None = None, high_unit: str = ""
    ) -> None:
        """Take the width of a pixel, unless it is what a program writes that does not know it; its height."""
        size_um = in_um(step, unit) if step else None
        high_um = in_um(high, high_unit or unit) if high else None
        if size_um and high_um:
            self.pixel_ratio = size_um / high_um
        if step and unit and size_um is None:
            self.warnings.append(say("sources.pixel-unit-unknown", origin=origin, unit=unit))
        elif size_um and not self._is_default(step, unit, origin):
            self.take_pixel_size(size_um, origin)

    def _is_default(self, step: float | None, unit: str, origin: str) -> bool:
        if step != 1:
            return False
        self.warnings.append(say("sources.scale-of-one", origin=origin, unit=unit))
        return True

    def take_times(self, times_s: Sequence[float], origin: str, numbers: Sequence[int] | None = None) -> None:
        """Take the frames' own times (and numbers): they go before an interval asked for, and show gaps."""
        if not np.diff(times_s).any():  # a writer that knew none
            return
        clock = read_clock(times_s, numbers)
        if clock is None or not is_within(clock[0], FPS_RANGE):
            self.warnings.append(say("sources.times-uneven", origin=origin))
            return
        self.fps, places = clock
        self.timed = True
        self.take_places(places)

    def take_places(self, places: list[int]) -> None:
        """Take the frames' places on the recording's clock, from 0."""
        self.places, self.n_places = places, places[-1] + 1

    def take_pixel_size(self, size_um: float | None, origin: str) -> None:
        """Take a pixel size that a microscope could have."""
        if size_um is None or size_um == 0:
            return
        if is_within(size_um, PIXEL_RANGE_UM):
            self.pixel_size_um = float(size_um)
        else:
            self.warnings.append(say("sources.pixel-size-implausible", origin=origin, pixel=size_um))


class MovieReader(ABC):
    """One open movie file; its constructor raises BadInput for a bad one.

    Reading may raise whatever the format's library raises, or `BrokenFrame`; `Movie` turns that into
    one sentence.
    """

    facts: FileFacts
    may_be_part = False
    """It may be a part of a recording in several files which do not say so."""

    def frames(self) -> Iterator[RawFrame]:
        """Yield every frame in order. Each image is the receiver's own (no buffer used again)."""
        rows = range(self.facts.n_frames)
        for place, image in zip(self.facts.places or rows, self.at(rows), strict=True):
            yield RawFrame(place, None, image)

    @abstractmethod
    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        """Yield the frames at ascending places, 0 to `facts.n_frames` - 1; does not disturb `frames`."""

    def frame(self, place: int) -> Raw:
        """Return the frame at this place of the recording's clock; NoSuchFrame where there is none."""
        places = self.facts.places or range(self.facts.n_frames)
        row = bisect_left(places, place)
        if row == len(places) or places[row] != place:
            raise NoSuchFrame(place)
        return next(iter(self.at([row])))

    def close(self) -> None:  # noqa: B027 some formats hold nothing open
        """Close the file; more than once is fine."""


_NAMED = 8  # at most, of the movies in a file
_SAME_RATE = 0.05  # by which a rate that was asked for may differ from the true one, without a word
_EVEN = 0.5  # of the intervals between a camera's frames are about as long as the usual one
_HOLES = 3  # in a movie of which more than half is missing; many mean that frames came in batches


def read_clock(
    times_s: Sequence[float], numbers: Sequence[int] | None = None
) -> tuple[float, list[int]] | None:
    """Return the frame rate, and every frame's place, by the frames' own times; None for no camera's times.

    Gaps are no part of the rate: frames are missing there, by the same rules as in a camera's stream.
    """
    times = np.asarray(times_s, np.float64)
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    if not (np.isfinite(times).all() and usual > 0 and (steps >= 0).all()):
        return None
    if np.mean(np.abs(steps / usual - 1) <= 0.5) < _EVEN:
        return None
    ledger, nothing = LossLedger(1000 * usual), np.empty((0, 0), np.uint8)
    placed = [
        frame.index
        for number, time_s in zip(numbers or range(len(times)), (times - times[0]).tolist(), strict=True)
        for frame in ledger.take(number, 1000 * time_s, nothing)
    ] + [frame.index for frame in ledger.finish()]
    if placed[-1] > 2 * len(placed) and np.count_nonzero(np.diff(placed) > 1) > _HOLES:
        return None
    return placed[-1] / float(times[-1] - times[0]), placed


def choose_series(name: str, found: Sequence[str], series: int | None, *, apart: bool = False) -> int:
    """Return which of several movies in one file is meant: positions, series, or streams of a video.

    `found` says in a few words what each is; `apart` that each has a path of its own. BadInput where several
    are there and nobody chose, or where there is no such.
    """
    titles = "; ".join(f"{k}: {title}" for k, title in enumerate(found[:_NAMED]))
    titles += "; ..." if len(found) > _NAMED else ""
    if series is None and len(found) > 1:
        raise BadInput("sources.several-series", name=name, n=len(found), found=titles, apart=apart)
    if not 0 <= (series or 0) < len(found):
        raise BadInput("sources.no-such-series", name=name, series=series, n=len(found), found=titles)
    return series or 0


_UNITS_UM = {
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "inch": 25_400.0, "in": 25_400.0, "angstrom": 1e-4, "å": 1e-4, "pm": 1e-6, "picometer": 1e-6,
}  # fmt: skip
_UNITS_S = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microsecond": 1e-6,
    "ns": 1e-9, "nanosecond": 1e-9,
    "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0,
}  # fmt: skip


def in_um(value: float, unit: str | None) -> float | None:
    """Return a length in µm; None where the unit is not one of length (``pixel``, ``reference frame``)."""
    factor = _UNITS_UM.get((unit or "").strip().lower())
    return None if factor is None else value * factor


def in_s(value: float, unit: str | None) -> float | None:
    """Return a time in seconds; None where the unit is not one of time."""
    factor = _UNITS_S.get((unit or "").strip().lower())
    return None if factor is None else value * factor


def spread(n_wanted: int, n_frames: int) -> list[int]:
    """Return up to `n_wanted` places spread evenly over `n_frames`, first and last among them."""
    if n_wanted >= n_frames:
        return list(range(n_frames))
    if n_wanted == 1:
        return [n_frames // 2]
    return [round(i * (n_frames - 1) / (n_wanted - 1)) for i in range(n_wanted)]
