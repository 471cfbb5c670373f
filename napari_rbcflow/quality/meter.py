"""Measures the quality of a run as it goes, in a few microseconds a frame and constant memory."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.quality.drift import FractionChange
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, Judgement, Label, Track

SLOWEST_UM_PER_S, SPEED_STEP, SPEED_BINS = 5.0, 0.02, 500
"""Speeds are counted in steps of two per cent, from 5 um/s to 0.1 m/s."""
RADIUS_STEP_UM, RADIUS_BINS = 0.05, 200
LEAST_CONTRAST, CONTRAST_STEP, CONTRAST_BINS = 0.01, 0.02, 300
"""Contrasts of rims are counted in steps of two per cent, from 0.01 to 3.8."""
GREYS = 256
WAYS = ("right", "left", "down", "up")


def _zeros(n: int) -> NDArray[np.int64]:
    return np.zeros(n, np.int64)


@dataclass(slots=True, eq=False)
class Sums:
    """Sums over some seconds of a run; those of two spans add up to those of both."""

    frames: int = 0
    tracked_frames: int = 0  # with cells searched for
    open_tracks: int = 0  # cells followed, summed over `tracked_frames`
    detected: int = 0  # what stood out as cells do, in the frames that could be analysed
    followed: int = 0  # cells followed in those frames
    stepping: int = 0  # detected, in those of them in which it was looked which way cells move
    steps: NDArray[np.int64] = field(default_factory=lambda: _zeros(4))  # to the right, left, down and up
    greys: NDArray[np.int64] = field(default_factory=lambda: _zeros(GREYS))  # sampled pixels by grey
    changes: NDArray[np.int64] = field(default_factory=lambda: _zeros(GREYS))  # of a pixel to the next frame
    flicker: float = 0.0  # squares of the relative change of light from frame to frame
    flicker_frames: int = 0
    judged: int = 0  # tracks that stage 1 judged
    reliable: int = 0  # those of them that it let pass
    tracks: int = 0
    too_short: int = 0  # tracks lost within a few frames
    positions: int = 0  # of judged tracks
    intruded: int = 0  # those of them with another cell in the crop
    speeds: NDArray[np.int64] = field(default_factory=lambda: _zeros(SPEED_BINS))  # reliable tracks
    counted_speeds: NDArray[np.int64] = field(default_factory=lambda: _zeros(SPEED_BINS))  # counted ones
    radii: NDArray[np.int64] = field(default_factory=lambda: _zeros(RADIUS_BINS))  # reliable tracks, by rim
    contrasts: NDArray[np.int64] = field(default_factory=lambda: _zeros(CONTRAST_BINS))  # of the same rims
    other_radii: NDArray[np.int64] = field(default_factory=lambda: _zeros(RADIUS_BINS))  # some of the others

    def add(self, other: Sums) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def speed_bin(speed_um_per_s: float) -> int:
    """Return the bin of a speed; one below the slowest goes with the slowest."""
    if not speed_um_per_s > SLOWEST_UM_PER_S:
        return 0
    return min(SPEED_BINS - 1, int(np.log(speed_um_per_s / SLOWEST_UM_PER_S) / np.log1p(SPEED_STEP)))


def median_speed(speeds: NDArray[np.int64]) -> float | None:
    """Return the median of counted speeds, um/s; None if there are none."""
    at = quantile_bin(speeds, 0.5)
    return None if at is None else float(SLOWEST_UM_PER_S * (1 + SPEED_STEP) ** at)


def contrast_bin(contrast: float) -> int:
    """Return the bin of a rim's contrast."""
    at = np.log(max(contrast, LEAST_CONTRAST) / LEAST_CONTRAST) / np.log1p(CONTRAST_STEP)
    return min(CONTRAST_BINS - 1, int(at))


def noise_grey(changes: NDArray[np.int64]) -> float | None:
    """Return the standard deviation of a pixel's noise; None if nothing was counted.

    From the changes, in grey levels, of pixels from one frame to the next, of which 68 % are smaller than
    root two standard deviations. Most pixels show no cell.
    """
    total = int(changes.sum())
    if not total:
        return None
    ends = np.concatenate([[0.0], np.arange(len(changes)) + 0.5])
    at = np.interp(0.6827, np.concatenate([[0.0], np.cumsum(changes) / total]), ends)
    return float(at) / math.sqrt(2)


def radius_at(radii: NDArray[np.int64], share: float) -> float | None:
    """Return the radius below which a share of the counted ones is, um; None if there are none."""
    at = quantile_bin(radii, share)
    return None if at is None else at * RADIUS_STEP_UM


def quantile_bin(counts: NDArray[np.int64], share: float) -> float | None:
    """Return the (fractional) bin below which a share of the counts is; None if there are none."""
    total = int(counts.sum())
    if not total:
        return None
    below = np.cumsum(counts)
    at = int(np.searchsorted(below, share * total))
    return at + float((share * total - (below[at] - counts[at])) / counts[at])


_AVERAGED = 5
_HALF = CROP_SIDE // 2
_Y, _X = np.mgrid[-_HALF : _HALF + 1, -_HALF : _HALF + 1]
_R2 = (_X * _X + _Y * _Y).astype(np.float32)
_INSIDE = _R2 <= (_HALF - 0.5) ** 2
_CHI2_MEDIAN = 2 * np.log(2) / 2
"""Median over mean of the square of a gradient's two components in pure noise."""


def rim_of(track: Track) -> tuple[float, float] | None:
    """Return radius in um and contrast of a cell's rim; None if nothing rises above the noise.

    The radius is the root mean square distance from the crop's centre, weighted by the squared gradient of
    the mean of up to five frames without another cell and away from the field's edge. A cell in focus has its
    dark rim there. The contrast is the root of the sum of these squares, as a share of the light: it falls
    with the focus.
    """
    alone = np.flatnonzero(~track.intruded & ~track.edge)
    if not len(alone):
        return None
    chosen = alone[np.linspace(0, len(alone) - 1, min(len(alone), _AVERAGED)).astype(np.int64)]
    mean = track.crops[chosen].mean(axis=0, dtype=np.float32)
    squared = _squared_gradient(mean)
    noise = float(np.median(squared[~_INSIDE])) / _CHI2_MEDIAN
    weight = np.where(_INSIDE, squared - noise, 0.0)
    total = float(weight.sum())
    moment = float((weight * _R2).sum())
    # In pure noise the weights cancel and their mean is meaningless.
    if total < 2 * noise * np.sqrt(_INSIDE.sum()) or moment <= 0:
        return None
    light = max(float(np.median(mean)), 1.0)
    return CROP_PIXEL_SIZE_UM * float(np.sqrt(moment / total)), float(np.sqrt(total)) / light


def _squared_gradient(image: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.zeros_like(image)
    out[1:-1] += (image[2:] - image[:-2]) ** 2
    out[:, 1:-1] += (image[:, 2:] - image[:, :-2]) ** 2
    return out


MEDIUM_INDEX = 1.35
"""Refractive index of the dextran solution: a focus that the objective's travel puts at 60 um is 1.35 times
as high in it (docs/decisions/simulation.md). That the published 60 um are such travel is inferred from the
speed of the published cells."""
ABOVE_FOCUS_UM = 6.5
"""Height above the plane in focus of the cells that an expert judges, 2 to 11 um: the fit of the simulated
chamber to the published crops (docs/decisions/simulation.md)."""


@dataclass(frozen=True)
class SetFlow:
    """The flow as it was set, after Darrin et al. 2023.

    Attributes
    ----------
    shear_rate_per_s : float
        At the wall.
    focus_height_um : float
        From the wall to where the focus is set, taken as the objective's own travel: the paper says "60 um
        from the bottom wall" and not how that was measured, but its cells move as if it were.
    chamber_height_um : float

    Raises
    ------
    BadInput
        For values that no chamber can have.
    """

    shear_rate_per_s: float = 10.0
    focus_height_um: float = 60.0
    chamber_height_um: float = 1000.0

    def __post_init__(self) -> None:
        for setting, most in (("shear_rate_per_s", 10_000.0), ("focus_height_um", 300.0)):
            value = getattr(self, setting)
            if not (math.isfinite(value) and 0 < value <= most):
                raise BadInput("quality.flow-setting-outside", setting=setting, most=most, value=value)
        if not self.chamber_height_um > 2 * self.height_um:
            raise BadInput("quality.focus-in-upper-half")

    @property
    def height_um(self) -> float:
        """Assumed height above the wall of the cells that are judged reliable."""
        return MEDIUM_INDEX * self.focus_height_um + ABOVE_FOCUS_UM

    @property
    def expected_speed_um_per_s(self) -> float:
        """Speed of the cells that are judged reliable: shear z (1 - z / H), plane Poiseuille flow."""
        return self.shear_rate_per_s * self._speed_per_shear_um

    def shear_rate_of(self, speed_um_per_s: float) -> float:
        """Return the wall shear rate that follows from a speed of the reliable cells, 1/s."""
        return speed_um_per_s / self._speed_per_shear_um

    @property
    def _speed_per_shear_um(self) -> float:
        return self.height_um * (1.0 - self.height_um / self.chamber_height_um)


PAPERS_FIELD_UM2 = 830.0 * 655.0  # field of Darrin et al. 2023, which holds 100 to 250 cells
INTRUSION_UM = (CROP_SIDE / 2 + 3) * CROP_PIXEL_SIZE_UM
"""Distance along both axes below which the tracker marks another cell as intruding into the crop."""
_LEAST_RADII = 20


SHEAR_RANGE = 0.75, 1.4
"""Cells in focus move at this much of the expected speed. Those of the published crops move 20 to 30 px a
frame, where 22 are expected: 0.9 to 1.4. Beyond, they are not in focus, or the flow or the height of the
focus is not what was set."""


def figures_of(
    sums: Sums, *, field_um2: float, flow: SetFlow, focus: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the measures of some seconds of a run, named as ``quality`` in ``run.json``; None if unknown.

    `focus` is ``focus_speed`` of ``run.json``: what it sets aside is not counted.
    """
    sampled = int(sums.greys.sum())
    a_frame = _share(sums.open_tracks, sums.tracked_frames)
    speed = median_speed(sums.speeds)
    counted = _still_counted(sums.counted_speeds, focus or {})
    at_others = int(counted[~_in_focus(flow)].sum())
    return {
        "frames": sums.frames,
        "tracks": sums.tracks,
        "tracks_judged": sums.judged,
        "tracks_reliable": sums.reliable,
        "reliable_share": _share(sums.reliable, sums.judged),
        "too_short_share": _share(sums.too_short, sums.tracks),
        "objects_detected": sums.detected,
        "followed_share": _share(sums.followed, sums.detected),
        "steps": {way: _share(int(n), sums.stepping) for way, n in zip(WAYS, sums.steps, strict=True)},
        "counted_with_speed": int(counted.sum()),
        "counted_at_other_speeds_share": _share(at_others, int(counted.sum())),
        "cells_per_frame": a_frame,
        "cells_per_papers_field": None if a_frame is None else a_frame * PAPERS_FIELD_UM2 / field_um2,
        "neighbour_share": _share(sums.intruded, sums.positions),
        "neighbour_share_by_chance": None if a_frame is None else by_chance(a_frame / field_um2),
        "light_grey": float(sums.greys @ np.arange(256)) / sampled if sampled else None,
        "saturated_share": _share(int(sums.greys[255]), sampled),
        "black_share": _share(int(sums.greys[0]), sampled),
        "noise_grey": noise_grey(sums.changes),
        "flicker_share": (sums.flicker / sums.flicker_frames / 2) ** 0.5 if sums.flicker_frames else None,
        "speed_um_per_s": speed,
        "speed_expected_um_per_s": flow.expected_speed_um_per_s,
        "shear_rate_per_s": None if speed is None else flow.shear_rate_of(speed),
        "shear_rate_set_per_s": flow.shear_rate_per_s,
        "focus_height_um": flow.focus_height_um,
        "rim_radius_um": _radius(sums.radii, 0.5),
        "rim_contrast": _contrast(sums.contrasts),
        "rim_radius_of_all_um": _radius(sums.radii + sums.other_radii, 0.1),
    }


def _bin_ends() -> NDArray[np.float64]:
    return np.asarray(SLOWEST_UM_PER_S * (1 + SPEED_STEP) ** np.arange(SPEED_BINS + 1))


def _in_focus(flow: SetFlow) -> NDArray[np.bool_]:
    """Return which bins hold speeds that cells in focus can have, at the flow as it was set."""
    low, high = (flow.expected_speed_um_per_s * share for share in SHEAR_RANGE)
    ends = _bin_ends()
    return (ends[1:] > low) & (ends[:-1] < high)


def _still_counted(speeds: NDArray[np.int64], focus: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the counted speeds without those set aside after they were added."""
    low, high = number(focus, "low_um_per_s"), number(focus, "high_um_per_s")
    if not focus.get("said") or low is None or high is None:
        return speeds
    ends = _bin_ends()
    return np.where((ends[1:] > low) & (ends[:-1] < high), speeds, 0)


def over_time(meter: Meter, change: FractionChange | None) -> dict[str, Any]:
    """Return the measures that compare times of a run."""
    least, most = meter.block_speeds or (None, None)
    darkest, brightest = meter.light or (None, None)
    return {
        "speed_least_um_per_s": least,
        "speed_most_um_per_s": most,
        "light_least_grey": darkest,
        "light_most_grey": brightest,
        "light_change_in_a_second_share": meter.light_change,
        "fraction_change": None
        if change is None
        else {
            "p_value": change.p_value,
            "at_cell": change.at_cell,
            "before": change.before,
            "after": change.after,
        },
    }


def by_chance(cells_per_um2: float) -> float:
    """Return the share of crops that hold another cell if cells are placed at random (Poisson)."""
    return float(-np.expm1(-cells_per_um2 * (2 * INTRUSION_UM) ** 2))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _radius(radii: NDArray[np.int64], share: float) -> float | None:
    return radius_at(radii, share) if int(radii.sum()) >= _LEAST_RADII else None


def _contrast(contrasts: NDArray[np.int64]) -> float | None:
    at = quantile_bin(contrasts, 0.5) if int(contrasts.sum()) >= _LEAST_RADII else None
    return None if at is None else float(LEAST_CONTRAST * (1 + CONTRAST_STEP) ** at)


def number(figures: Mapping[str, Any], name: str) -> float | None:
    """Return a measure if it is a number, else None; an older session has fewer."""
    value = figures.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


RECENT_S = 15  # seconds of camera time in "now": 1,500 tracks at the paper's load, 50 of them reliable
_SAMPLED_PX = 6000
_RADIUS_OF_EVERY = 8  # every so many-th unreliable track is measured, and every reliable one
_BLOCK_TRACKS = 40  # reliable tracks in a row whose median speed is compared with other times of the run
_GREYS = np.arange(256, dtype=np.float64)
_COUNTED = (Label.TANK_TREADING, Label.FLIPPING)


class Meter:
    """Adds up the measures of a run. Frames come from one thread, tracks from another; any may read."""

    def __init__(self, *, fps: float, pixel_size_um: float) -> None:
        self._um_per_s_of_px = fps * pixel_size_um
        self.stored = StoredPicture()
        self._lock = threading.Lock()
        self._before = Sums()  # all but the seconds in `_recent` and the current one
        self._recent: deque[Sums] = deque()
        self._now = Sums()
        self._second = 0
        self._level: float | None = None
        self._sampled: NDArray[np.uint8] | None = None
        self.falloff: float | None = None
        """Of the light over the field, as the tracker sees it."""
        self._levels = 0.0, 0
        self._last_second: float | None = None
        self._block: list[float] = []
        self._unreliable = 0
        # Least and greatest: median speed of `_BLOCK_TRACKS` reliable tracks, um/s; mean grey of a second.
        self.block_speeds: tuple[float, float] | None = None
        self.light: tuple[float, float] | None = None
        # Greatest relative change of light from one second to the next.
        self.light_change = 0.0

    def add_frame(
        self,
        image: NDArray[np.uint8],
        time_s: float,
        open_tracks: int | None,
        detected: int | None = None,
        steps: NDArray[np.int64] | None = None,
    ) -> None:
        """Add a tracked frame, uint8, with the cells followed, what was detected in it and where that moved.

        `open_tracks` is None before the background is known, `detected` if the frame could not be analysed.
        """
        self.stored.add(image)
        step = max(1, int(np.sqrt(image.size / _SAMPLED_PX)))
        pixels = image[::step, ::step].ravel()
        sampled = np.bincount(pixels, minlength=256)
        before, self._sampled = self._sampled, pixels.copy()
        changes = None
        if before is not None and len(before) == len(pixels):
            changes = np.bincount(np.maximum(pixels, before) - np.minimum(pixels, before), minlength=256)
        level = float(sampled @ _GREYS) / float(sampled.sum())
        with self._lock:
            if int(time_s) != self._second:
                self._begin_second(int(time_s))
            now = self._now
            now.frames += 1
            if open_tracks is not None:
                now.tracked_frames += 1
                now.open_tracks += open_tracks
                if detected is not None:
                    now.detected += detected
                    now.followed += open_tracks
                if detected is not None and steps is not None:
                    now.stepping += detected
                    now.steps += steps
            now.greys += sampled
            if changes is not None:
                now.changes += changes
            if self._level:
                now.flicker += (level / self._level - 1.0) ** 2
                now.flicker_frames += 1
            self._level = level
            self._levels = self._levels[0] + level, self._levels[1] + 1

    def _begin_second(self, second: int) -> None:
        self._second = second
        self._recent.append(self._now)
        self._now = Sums()
        while len(self._recent) > RECENT_S:
            self._before.add(self._recent.popleft())
        total, n = self._levels
        self._levels = 0.0, 0
        if not n:
            return
        mean = total / n
        least, most = self.light or (mean, mean)
        self.light = min(least, mean), max(most, mean)
        if self._last_second:
            self.light_change = max(self.light_change, abs(mean / self._last_second - 1.0))
        self._last_second = mean

    def add_tracks(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        """Add tracks that were judged, or left uncounted."""
        for track, judgement in pairs:
            judged = judgement.p_reliable is not None
            # Stage 2 is asked, too, of a cell that stage 1 then discards.
            reliable = judgement.p_tank_treading is not None and judgement.reason != "stage-1"
            speed = abs(track.speed_px_per_frame()) * self._um_per_s_of_px
            rim = None
            if judged:
                self._unreliable += not reliable
                if reliable or self._unreliable % _RADIUS_OF_EVERY == 0:
                    rim = rim_of(track)
            with self._lock:
                now = self._now
                now.tracks += 1
                now.too_short += track.too_short
                if not judged:
                    continue
                now.judged += 1
                now.positions += len(track)
                now.intruded += int(np.count_nonzero(track.intruded))
                if rim is not None:
                    place = min(RADIUS_BINS - 1, int(rim[0] / RADIUS_STEP_UM))
                    (now.radii if reliable else now.other_radii)[place] += 1
                    if reliable:
                        now.contrasts[contrast_bin(rim[1])] += 1
                if reliable:
                    now.reliable += 1
                    now.speeds[speed_bin(speed)] += 1
                    now.counted_speeds[speed_bin(speed)] += judgement.label in _COUNTED
                    self._add_to_block(speed)

    def _add_to_block(self, speed: float) -> None:
        self._block.append(speed)
        if len(self._block) < _BLOCK_TRACKS:
            return
        median = float(np.median(self._block))
        self._block.clear()
        least, most = self.block_speeds or (median, median)
        self.block_speeds = min(least, median), max(most, median)

    def sums(self, *, recent: bool = False) -> Sums:
        """Return the sums over the whole run or its last `RECENT_S` seconds."""
        total = Sums()
        with self._lock:
            if not recent:
                total.add(self._before)
            for second in (*self._recent, self._now):
                total.add(second)
        return total


_BLOCK = 8
_FIRST, _EVERY, _LATER = 64, 8, 600  # frames: looked at often in the first ones, then every ten seconds
_SHARP = 0.42
"""Of what repeats with the blocks the second largest wave is so much of the largest: 0.48 and more in what
was compressed, 0.39 at most in a picture enlarged by 8/7 or the like, where a wave repeats with them, too."""
_SAMPLES = 40_000  # differences a look, of each place within a block
_LINES = 8  # one of so many columns or rows shows whether the frame was woven


class StoredPicture:
    """Looks at a frame now and then, for 5 ms (figures: benchmarks/stored_pictures.py)."""

    def __init__(self) -> None:
        self._frames = 0
        self._before: NDArray[np.uint8] | None = None
        self._edges = np.zeros((2, _BLOCK))  # differences of neighbours, by place within a block
        self._counts = np.zeros((2, _BLOCK))
        self._looks = 0
        self._near, self._far = np.zeros(2), np.zeros(2)

    def add(self, image: NDArray[np.uint8]) -> None:
        """Add the next frame."""
        before, self._before = self._before, image
        self._frames += 1
        every = _EVERY if self._frames <= _FIRST else _LATER
        if (
            self._frames % every
            or before is None
            or before.shape != image.shape
            or min(image.shape) < 3 * _BLOCK
        ):
            return
        for axis, (now, last) in enumerate(((image.T, before.T), (image, before))):
            step = max(1, now.size // _BLOCK // _SAMPLES)
            across = np.abs(np.diff(now[::step].astype(np.int16), axis=1)).sum(axis=0)
            blocks = len(across) // _BLOCK
            self._edges[axis] += across[: blocks * _BLOCK].reshape(blocks, _BLOCK).sum(axis=0)
            self._counts[axis] += blocks * len(now[::step])
            moved = now[::_LINES].astype(np.float32) - last[::_LINES]
            self._near[axis] += _bend(moved, 1)
            self._far[axis] += _bend(moved, 2)
        self._looks += 1  # last: another thread may ask for the figures in the middle of the first look

    @property
    def figures(self) -> dict[str, Any]:
        """``block_edges`` and ``woven_rows`` of ``quality`` in ``run.json``; None before the first look."""
        if not self._looks:
            return {"block_edges": None, "woven_rows": None}
        mean = np.sort(self._edges / self._counts, axis=1)
        rest = mean[:, :-1].mean(axis=1)
        edges = (mean[:, -1] - mean[:, -2]) / np.where(rest > 0, rest, 1.0)
        waves = np.sort(np.abs(np.fft.rfft(self._edges / self._counts, axis=1)[:, 1:]), axis=1)
        edges *= waves[:, -2] >= _SHARP * waves[:, -1]
        # Less what chance does to so few pixels. A sensor's columns may have a pattern, but not its rows too.
        chance = 2.5 / np.sqrt(self._counts.min() / self._looks)
        woven = self._near / np.where(self._far > 0, self._far, np.inf)
        return {"block_edges": max(0.0, float(edges.min() - chance)), "woven_rows": float(woven.max())}


def _bend(lines: NDArray[np.float32], step: int) -> float:
    """Return how far pixels differ from the mean of those `step` before and behind."""
    middle = lines[:, 2:-2]
    bend = 2 * middle - lines[:, 2 - step : -2 - step] - lines[:, 2 + step : lines.shape[1] - 2 + step]
    return float(np.einsum("ij,ij->", bend, bend))
