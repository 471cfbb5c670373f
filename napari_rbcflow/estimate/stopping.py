"""When there are enough cells, and how far a run is from that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import intervals
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.intervals import cells_to_leave
from napari_rbcflow.sentences import say
from napari_rbcflow.types import StopReason

USUAL_RELIABLE = 200
"""Default number of cells: about what one acquisition of Darrin et al. 2023 holds (120 to 270)."""


@dataclass(frozen=True)
class StopRules:
    """(At least `reliable` cells and a half-width of at most `halfwidth`), or any of the other three.

    A rule that is None asks for nothing; without any, the source's end or a person stops the run.

    The half-width is that of the interval that will be reported: the fixed-width one or, if a baseline may
    stop the run too, the anytime one, as then no other is valid (see `reported`).

    Attributes
    ----------
    reliable : int or None
        Cells counted.
    halfwidth : float or None
        In (0, 0.5).
    seconds : float or None
        Camera time.
    tracks : int or None
        Tracks finished, counted or not.
    baseline : float or None
        In (0, 1): stops when the whole anytime interval is below or above it.

    Raises
    ------
    BadInput
        For a rule that can never be met, or is met before it began.
    """

    reliable: int | None = None
    halfwidth: float | None = None
    seconds: float | None = None
    tracks: int | None = None
    baseline: float | None = None

    def __post_init__(self) -> None:
        for setting, count in (("stop_reliable", self.reliable), ("stop_tracks", self.tracks)):
            if count is not None and count < 1:
                raise BadInput("estimate.must-be-one", setting=setting, value=count)
        if self.halfwidth is not None and not 0 < self.halfwidth < 0.5:
            raise BadInput("estimate.stop-halfwidth-outside", value=self.halfwidth)
        if self.seconds is not None and not self.seconds > 0:
            raise BadInput("estimate.must-be-positive", setting="stop_seconds", value=self.seconds)
        if self.baseline is not None and not 0 < self.baseline < 1:
            raise BadInput("estimate.stop-baseline-outside", value=self.baseline)

    def prepare(self, level: float = 0.95) -> None:
        """Calculate what takes up to a few seconds before the run, not in it."""
        if self.width_matters(level) and self.baseline is None:
            self.critical_value(level)

    def width_matters(self, level: float) -> bool:
        """Whether the half-width matters: not if `reliable` cells make every interval that narrow."""
        if self.halfwidth is None:
            return False
        if self.reliable is None or self.baseline is not None:
            return True
        z = intervals.critical_value(self.halfwidth, level)
        return self.reliable < intervals.most_cells(self.halfwidth, z)

    def critical_value(self, level: float) -> float:
        """Return the z of the fixed-width rule; slow the first time (see `prepare`)."""
        assert self.halfwidth is not None
        return intervals.critical_value(self.halfwidth, level, self.reliable or 1)

    def half_width(self, fraction: RunningFraction) -> float:
        """Return the half-width that is compared with `halfwidth`; 0.5 if nothing was counted."""
        if self.baseline is not None:
            low, high = fraction.anytime_interval()
            return (high - low) / 2
        return intervals.half_width(fraction.tank_treading, fraction.n, self.critical_value(fraction.level))

    def side(self, fraction: RunningFraction) -> str | None:
        """Return ``below`` or ``above`` if the anytime interval excludes the baseline, else None."""
        if self.baseline is None:
            return None
        low, high = fraction.anytime_interval()
        return "below" if high < self.baseline else "above" if low > self.baseline else None

    def met_by(self, fraction: RunningFraction, tracks: int = 0) -> StopReason | None:
        """Return the rule that is met, named as in ``run.json``, else None; for the time, see `out_of_time`.

        If the same track meets two, cells go before the baseline, and that before tracks.
        """
        if reason := self._cells_met(fraction):
            return reason
        if self.side(fraction):
            return StopReason.BASELINE
        return StopReason.TRACKS if self.tracks is not None and tracks >= self.tracks else None

    def _cells_met(self, fraction: RunningFraction) -> StopReason | None:
        """If cells and width are asked for, both must be met, and the one met last is named."""
        if self.reliable is not None and fraction.n < self.reliable:
            return None
        if not self.width_matters(fraction.level):
            return StopReason.RELIABLE if self.reliable is not None else None
        assert self.halfwidth is not None
        if not fraction.n or self.half_width(fraction) > self.halfwidth:
            return None
        # The count rises by one a cell: if it is just N, the width was reached before.
        return StopReason.RELIABLE if fraction.n == self.reliable else StopReason.HALF_WIDTH

    def out_of_time(self, seconds: float) -> bool:
        """Whether the camera has run long enough."""
        return self.seconds is not None and seconds >= self.seconds


_TOGETHER = (StopReason.RELIABLE, StopReason.HALF_WIDTH)
"""Both of these must be met; of all others, one is enough."""
_FEW = 5  # cells before which the fraction does not tell how many more are needed


@dataclass(frozen=True)
class Rates:
    """Reliable cells, finished tracks and camera seconds in a recent second of wall time; None if unknown."""

    cells: float | None = None
    tracks: float | None = None
    camera_s: float | None = None


@dataclass(frozen=True)
class RuleProgress:
    """How far it is to one stop rule.

    Attributes
    ----------
    name : StopReason
    missing : str
        In a few words, what is still missing; empty if it is met.
    share : float
        0 to 1, of the cells, tracks or seconds that it takes in all.
    seconds_left : float or None
        At the present rate and fraction; None if unknown.
    """

    name: StopReason
    missing: str
    share: float
    seconds_left: float | None


def to_go(
    rules: StopRules, fraction: RunningFraction, *, tracks: int, seconds: float, rates: Rates = Rates()
) -> tuple[RuleProgress, ...]:
    """Return how far it is to each rule in force, after so many finished `tracks` and camera `seconds`."""
    progress = []
    if rules.reliable is not None:
        left = rules.reliable - fraction.n
        words = say("estimate.missing-cells", cells=left) if left > 0 else ""
        progress.append(_entry(StopReason.RELIABLE, words, fraction.n, rules.reliable, rates.cells))
    if rules.halfwidth is not None and rules.width_matters(fraction.level):
        half, words = rules.half_width(fraction), ""
        if not fraction.n or half > rules.halfwidth:
            words = say("estimate.missing-half-width", now=100 * half, wanted=100 * rules.halfwidth)
        needed = _cells_for_width(rules, fraction)
        progress.append(_entry(StopReason.HALF_WIDTH, words, fraction.n, needed, rates.cells))
    if rules.seconds is not None:
        words = say("estimate.missing-seconds", seconds=max(0.0, rules.seconds - seconds))
        progress.append(_entry(StopReason.SECONDS, words, seconds, rules.seconds, rates.camera_s))
    if rules.tracks is not None:
        left = max(0, rules.tracks - tracks)
        words = say("estimate.missing-tracks", tracks=left) if left else ""
        progress.append(_entry(StopReason.TRACKS, words, tracks, rules.tracks, rates.tracks))
    if rules.baseline is not None:
        words = ""
        if rules.side(fraction) is None:
            words = say("estimate.missing-baseline", limit=100 * rules.baseline)
        needed = _cells_for_baseline(rules.baseline, fraction)
        progress.append(_entry(StopReason.BASELINE, words, fraction.n, needed, rates.cells))
    return tuple(progress)


def _entry(
    name: StopReason, missing: str, have: float, needed: float | None, rate: float | None
) -> RuleProgress:
    if not missing:
        return RuleProgress(name, "", 1.0, 0.0)
    if needed is None:
        return RuleProgress(name, missing, 0.0, None)
    left = max(0.0, needed - have)
    return RuleProgress(name, missing, min(1.0, have / needed), left / rate if rate else None)


def _cells_for_width(rules: StopRules, fraction: RunningFraction) -> float | None:
    """Return the cells at which the half-width is reached if the fraction stays the same."""
    assert rules.halfwidth is not None
    n = fraction.n
    if n < _FEW:
        return None
    if rules.baseline is not None:  # a width shrinks as one over the root of the cells
        return n * (rules.half_width(fraction) / rules.halfwidth) ** 2
    z, p = rules.critical_value(fraction.level), fraction.estimate
    low, high = n, max(n, intervals.most_cells(rules.halfwidth, z))
    while low < high:
        at = (low + high) // 2
        if intervals.half_width(p * at, at, z) <= rules.halfwidth:
            high = at
        else:
            low = at + 1
    return float(max(low, n + 1))


def _cells_for_baseline(baseline: float, fraction: RunningFraction) -> float | None:
    if fraction.n < _FEW:
        return None
    needed = cells_to_leave(baseline, fraction.estimate, fraction.level)
    return None if needed is None else max(needed, fraction.n + 1)


def missing(rules: Iterable[RuleProgress]) -> str:
    """Say in a few words what is still missing until a run stops."""
    rules = list(rules)
    if not rules:
        return say("estimate.missing-source-end")
    together = [r.missing for r in rules if r.name in _TOGETHER and r.missing]
    if len(together) == 2:
        together = [say("estimate.missing-both", one=together[0], other=together[1])]
    alone = [r.missing for r in rules if r.name not in _TOGETHER and r.missing]
    parts = [*together, *alone]
    return reduce(lambda one, other: say("estimate.missing-either", one=one, other=other), parts or [""])


def nearest(rules: Sequence[RuleProgress]) -> tuple[float | None, float | None]:
    """Return how far it is to the stop, 0 to 1, and the seconds left, by the rule that is nearest."""
    if not rules:
        return None, None
    together = [r for r in rules if r.name in _TOGETHER]
    alone = [r for r in rules if r.name not in _TOGETHER]
    shares = [r.share for r in alone]
    left = [r.seconds_left for r in alone]
    if together:
        shares.append(min(r.share for r in together))
        both = [math.inf if r.seconds_left is None else r.seconds_left for r in together]
        left.append(None if math.inf in both else max(both))
    known = [s for s in left if s is not None]
    return max(shares), min(known) if known else None


def time_words(seconds: float) -> str:
    """Return roughly how long something takes, with its unit."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
