"""When there are enough cells, and how far a run is from that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import intervals
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.intervals import cells_to_leave

USUAL_RELIABLE = 200
"""Cells, where nobody says: about what one acquisition of Darrin et al. 2023 holds (120 to 270)."""


@dataclass(frozen=True)
class StopRules:
    """(At least `reliable` cells and a half-width of at most `halfwidth`), or any of the other three.

    A rule that is None asks for nothing; without any, the source's end or a person stops the run.

    The half-width is that of the interval which will be said. For a run that only its width can stop, that
    is the fixed-width one. Where a baseline may stop it too, it is the interval that holds at every look,
    as then no other one does (see `reported`).

    Attributes
    ----------
    reliable : int or None
        Cells counted.
    halfwidth : float or None
        In (0, 0.5).
    seconds : float or None
        Of camera time.
    tracks : int or None
        Tracks finished, counted or not.
    baseline : float or None
        In (0, 1): stops when the interval that holds at every look lies wholly below or above it.

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
        if self.reliable is not None and self.reliable < 1:
            raise BadInput(f"--stop-reliable must be at least 1, not {self.reliable}")
        if self.halfwidth is not None and not 0 < self.halfwidth < 0.5:
            raise BadInput(f"--stop-halfwidth must lie between 0 and 0.5, not {self.halfwidth:g}")
        if self.seconds is not None and not self.seconds > 0:
            raise BadInput(f"--stop-seconds must be above 0, not {self.seconds:g}")
        if self.tracks is not None and self.tracks < 1:
            raise BadInput(f"--stop-tracks must be at least 1, not {self.tracks}")
        if self.baseline is not None and not 0 < self.baseline < 1:
            raise BadInput(f"--stop-baseline must lie between 0 and 1 (0.86 for 86 %), not {self.baseline:g}")

    def prepare(self, level: float = 0.95) -> None:
        """Work out what takes long, up to a second or a few, before the run and not in it."""
        if self.width_matters(level) and self.baseline is None:
            self.critical_value(level)

    def width_matters(self, level: float) -> bool:
        """Whether the half-width asks for anything.

        Not where `reliable` cells make every interval that narrow: then their number is fixed beforehand.
        """
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
        """Return the half-width that is compared with `halfwidth`; 0.5 where nothing was counted."""
        if self.baseline is not None:
            low, high = fraction.anytime_interval()
            return (high - low) / 2
        return intervals.half_width(fraction.tank_treading, fraction.n, self.critical_value(fraction.level))

    def side(self, fraction: RunningFraction) -> str | None:
        """Return ``below`` or ``above`` where the interval at every look leaves the baseline, else None."""
        if self.baseline is None:
            return None
        low, high = fraction.anytime_interval()
        return "below" if high < self.baseline else "above" if low > self.baseline else None

    def met_by(self, fraction: RunningFraction, tracks: int = 0) -> str | None:
        """Return the rule that is met, named as in ``run.json``, else None; the time is `out_of_time`.

        Where two are met by the same track, cells go before the baseline, and that before tracks.
        """
        if reason := self._cells_met(fraction):
            return reason
        if self.side(fraction):
            return "baseline"
        return "tracks" if self.tracks is not None and tracks >= self.tracks else None

    def _cells_met(self, fraction: RunningFraction) -> str | None:
        """Where cells and width are asked for, both must hold, and the one met last is named."""
        if self.reliable is not None and fraction.n < self.reliable:
            return None
        if not self.width_matters(fraction.level):
            return "reliable" if self.reliable is not None else None
        assert self.halfwidth is not None
        if not fraction.n or self.half_width(fraction) > self.halfwidth:
            return None
        # The count rises by one a cell: that it stands just at N means that the width was there before.
        return "reliable" if fraction.n == self.reliable else "half-width"

    def out_of_time(self, seconds: float) -> bool:
        """Whether the camera has run long enough."""
        return self.seconds is not None and seconds >= self.seconds


_TOGETHER = ("reliable", "half-width")
"""Both of these must hold; of all others, one is enough."""
_FEW = 5
"""Cells before which the fraction says nothing of how many more are needed."""
SOURCES_END = "the source's end"


@dataclass(frozen=True)
class Rates:
    """What came in a second of late; None where that cannot be told yet.

    Attributes
    ----------
    cells, tracks, camera_s : float or None
        Reliable cells, finished tracks and seconds of camera time, a second of the clock on the wall.
    """

    cells: float | None = None
    tracks: float | None = None
    camera_s: float | None = None


@dataclass(frozen=True)
class RuleProgress:
    """How far it is to one stop rule.

    Attributes
    ----------
    name : str
        As the stop reason in ``run.json``.
    missing : str
        In a few words, what it still lacks; empty where it is met.
    share : float
        0 to 1, of the cells, tracks or seconds that it takes in all.
    seconds_left : float or None
        At the present rate, by the present fraction; None where that cannot be told.
    """

    name: str
    missing: str
    share: float
    seconds_left: float | None


def to_go(
    rules: StopRules, fraction: RunningFraction, *, tracks: int, seconds: float, rates: Rates = Rates()
) -> tuple[RuleProgress, ...]:
    """Return how far it is to each rule in force; a few microseconds.

    Parameters
    ----------
    rules : StopRules
    fraction : RunningFraction
    tracks : int
        Finished so far.
    seconds : float
        Of camera time so far.
    rates : Rates
    """
    said = []
    if rules.reliable is not None:
        left = rules.reliable - fraction.n
        words = _number_of(left, "cell") if left > 0 else ""
        said.append(_entry("reliable", words, fraction.n, rules.reliable, rates.cells))
    if rules.halfwidth is not None and rules.width_matters(fraction.level):
        half = rules.half_width(fraction)
        wide = not fraction.n or half > rules.halfwidth
        words = f"the interval from ±{100 * half:.1f} down to ±{100 * rules.halfwidth:.1f} %" if wide else ""
        said.append(_entry("half-width", words, fraction.n, _cells_for_width(rules, fraction), rates.cells))
    if rules.seconds is not None:
        left_s = max(0.0, rules.seconds - seconds)
        said.append(_entry("seconds", f"{left_s:.0f} s", seconds, rules.seconds, rates.camera_s))
    if rules.tracks is not None:
        left = max(0, rules.tracks - tracks)
        words = _number_of(left, "track") if left else ""
        said.append(_entry("tracks", words, tracks, rules.tracks, rates.tracks))
    if rules.baseline is not None:
        words = f"the interval clear of {100 * rules.baseline:g} %" if rules.side(fraction) is None else ""
        needed = _cells_for_baseline(rules.baseline, fraction)
        said.append(_entry("baseline", words, fraction.n, needed, rates.cells))
    return tuple(said)


def _number_of(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def _entry(name: str, missing: str, have: float, needed: float | None, rate: float | None) -> RuleProgress:
    if not missing:
        return RuleProgress(name, "", 1.0, 0.0)
    if needed is None:
        return RuleProgress(name, missing, 0.0, None)
    left = max(0.0, needed - have)
    return RuleProgress(name, missing, min(1.0, have / needed), left / rate if rate else None)


def _cells_for_width(rules: StopRules, fraction: RunningFraction) -> float | None:
    """Return the cells at which the half-width is reached if the fraction stays as it is."""
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
    """Say in a few words what is still missing, for the line that a person watches."""
    rules = list(rules)
    if not rules:
        return SOURCES_END
    cells = " and ".join(r.missing for r in rules if r.name in _TOGETHER and r.missing)
    return " or ".join(filter(None, [cells, *(r.missing for r in rules if r.name not in _TOGETHER)]))


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
    """Say how long something will take, roughly."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
