"""How far a run is from each of its stop rules, and how long that will take at the present rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_rbcflow.estimate import fixed_width
from napari_rbcflow.estimate.anytime import cells_to_leave
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.stopping import StopRules

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
    low, high = n, max(n, fixed_width.most_cells(rules.halfwidth, z))
    while low < high:
        at = (low + high) // 2
        if fixed_width.half_width(p * at, at, z) <= rules.halfwidth:
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
