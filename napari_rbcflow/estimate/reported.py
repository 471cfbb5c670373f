"""Which interval is reported: the one that is valid for how a run ended; and how it ended, in words."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.intervals import FIXED_N, FixedN
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.sentences import say

_ENDS = ("reliable", "half-width", "seconds", "tracks", "baseline", "source-ended", "user")


def end_sentence(reason: str, n: int, found: str = "") -> str:
    """Say why a run that did not fail ended.

    Parameters
    ----------
    reason : str
        As ``stop_reason`` in ``run.json``.
    n : int
        Cells counted.
    found : str
        ``stop_sentence`` of ``run.json``.
    """
    key = f"estimate.ended-{reason if reason in _ENDS else 'otherwise'}"
    return f"{say(key, cells=n, reason=reason)} {found}".rstrip()


FIXED_WIDTH, ANYTIME = "fixed-width", "anytime"
_METHODS = (*FIXED_N, FIXED_WIDTH, ANYTIME)
_WHATEVER_THE_LABELS = ("reliable", "seconds", "tracks", "source-ended")


@dataclass(frozen=True)
class ReportedInterval:
    """An interval and its name, as in ``run.json``."""

    low: float
    high: float
    method: str

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


def reported_interval(
    fraction: RunningFraction, rules: StopRules, status: str, reason: str, fixed_n: FixedN = "wilson"
) -> ReportedInterval:
    """Return the interval that is valid for how a run ended, or for a run that still goes on.

    Parameters
    ----------
    fraction : RunningFraction
        Updated cell by cell, in the order in which they were counted: the anytime interval depends on it.
    rules : StopRules
        In force.
    status, reason : str
        As in ``run.json``.
    fixed_n : {"wilson", "jeffreys", "clopper-pearson"}
        Which one, if the number of cells did not depend on their labels.
    """
    method = method_of(rules, status, reason, fixed_n, fraction.level)
    if method == ANYTIME:
        return ReportedInterval(*fraction.anytime_interval(), method)
    if method == FIXED_WIDTH:
        assert rules.halfwidth is not None
        return ReportedInterval(*fraction.fixed_width_interval(rules.halfwidth, rules.reliable or 1), method)
    return ReportedInterval(*fraction.interval(method), method)


def method_of(
    rules: StopRules, status: str, reason: str, fixed_n: FixedN = "wilson", level: float = 0.95
) -> str:
    """Return the name of that interval; parameters as `reported_interval`."""
    if status != "finished" or rules.baseline is not None:
        return ANYTIME
    if rules.width_matters(level):
        return FIXED_WIDTH if reason in ("half-width", "reliable") else ANYTIME
    return fixed_n if reason in _WHATEVER_THE_LABELS else ANYTIME


def method_words(method: str) -> str:
    """Say what an interval is, by its name in ``run.json``."""
    return say(f"estimate.interval-{method}") if method in _METHODS else method


def method_help(method: str) -> str:
    """Say when an interval is valid, for a tooltip; empty for an unknown one."""
    if method in FIXED_N:
        return say("estimate.valid-fixed-n")
    return say(f"estimate.valid-{method}") if method in _METHODS else ""


def fraction_text(
    estimate: float, interval: tuple[float, float], n: int, level: float = 0.95, method: str = ""
) -> str:
    """Say the fraction, never without its interval, and when that is valid."""
    if not n:
        return say("estimate.fraction-none")
    low, high = (100 * end for end in interval)
    text = say("estimate.fraction", estimate=100 * estimate, level=100 * level, low=low, high=high, cells=n)
    return f"{text}\n{method_words(method)}" if method else text


def stop_sentence(reason: str, rules: StopRules, fraction: RunningFraction) -> str:
    """Say on which side of the limit the fraction is, if one was set and the anytime interval excludes it.

    Empty while the run goes on (no `reason`).
    """
    side = rules.side(fraction) if reason else None
    if side is None:
        return ""
    return say(f"estimate.limit-{side}", limit=100 * (rules.baseline or 0))
