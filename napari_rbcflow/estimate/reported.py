"""Which interval is reported of a run, the one that is true of how it ended, and how it ended in words."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.intervals import FIXED_N, FixedN
from napari_rbcflow.estimate.stopping import StopRules

__all__ = [
    "ANYTIME",
    "FIXED_N",
    "FIXED_WIDTH",
    "METHOD_WORDS",
    "Said",
    "fraction_text",
    "method_of",
    "method_words",
    "said",
    "stop_sentence",
]


_ENDS = {
    "reliable": "Stopped by itself: enough reliable cells had been counted ({n}).",
    "half-width": "Stopped by itself: the interval was narrow enough ({n} cells).",
    "seconds": "Stopped by itself: the set time was over.",
    "tracks": "Stopped by itself: enough tracks had been seen.",
    "baseline": "Stopped by itself: the interval lay wholly on one side of the limit.",
    "source-ended": "Finished: the movie ended, or the camera's sequence.",
    "user": "Stopped by a person.",
}


def end_sentence(reason: str, n: int, found: str = "") -> str:
    """Say why a run that did not fail ended.

    Parameters
    ----------
    reason : str
        As ``stop_reason`` in ``run.json``.
    n : int
        Cells counted.
    found : str
        ``stop_sentence`` of ``run.json``: what the rules found.
    """
    said = _ENDS.get(reason, f"Ended: {reason}.").format(n=f"{n:,}")
    return f"{said} {found}".rstrip()


FIXED_WIDTH, ANYTIME = "fixed-width", "anytime"
METHOD_WORDS = {
    "wilson": "Wilson's confidence interval",
    "jeffreys": "Jeffreys' confidence interval",
    "clopper-pearson": "Clopper and Pearson's confidence interval",
    FIXED_WIDTH: "fixed-width interval: valid for a run that stops at this width",
    ANYTIME: "anytime interval: valid at any moment, whenever the run is stopped",
}
"""Each interval in plain words."""
_NOT_BY_LABELS = (
    "Valid where what was seen did not decide when to stop: so many cells, a time, a whole movie."
)
METHOD_HELP = {
    "wilson": _NOT_BY_LABELS,
    "jeffreys": _NOT_BY_LABELS,
    "clopper-pearson": _NOT_BY_LABELS,
    FIXED_WIDTH: "Valid for a run that stops as soon as the interval has this width.",
    ANYTIME: "Valid at every look at once, whatever stops the run.",
}
"""When each interval is valid, for a tooltip."""
_WHATEVER_THE_LABELS = ("reliable", "seconds", "tracks", "source-ended")


@dataclass(frozen=True)
class Said:
    """An interval and its name.

    Attributes
    ----------
    low, high : float
    method : str
        A key of `METHOD_WORDS`, as in ``run.json``.
    """

    low: float
    high: float
    method: str

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high."""
        return self.low, self.high


def said(
    fraction: RunningFraction, rules: StopRules, status: str, reason: str, fixed_n: FixedN = "wilson"
) -> Said:
    """Return the interval that belongs to how a run stands or ended.

    Parameters
    ----------
    fraction : RunningFraction
        Updated cell by cell, in the order in which they were counted: the anytime interval depends on it.
    rules : StopRules
        In force.
    status, reason : str
        As in ``run.json``.
    fixed_n : {"wilson", "jeffreys", "clopper-pearson"}
        Which, where the number of cells did not depend on their labels.
    """
    method = method_of(rules, status, reason, fixed_n, fraction.level)
    if method == ANYTIME:
        return Said(*fraction.anytime_interval(), method)
    if method == FIXED_WIDTH:
        assert rules.halfwidth is not None
        return Said(*fraction.fixed_width_interval(rules.halfwidth, rules.reliable or 1), method)
    return Said(*fraction.interval(method), method)


def method_of(
    rules: StopRules, status: str, reason: str, fixed_n: FixedN = "wilson", level: float = 0.95
) -> str:
    """Return the name of that interval; parameters as `said`."""
    if status != "finished" or rules.baseline is not None:
        return ANYTIME
    if rules.width_matters(level):
        return FIXED_WIDTH if reason in ("half-width", "reliable") else ANYTIME
    return fixed_n if reason in _WHATEVER_THE_LABELS else ANYTIME


def method_words(method: str) -> str:
    """Say in plain words what an interval holds for."""
    return METHOD_WORDS.get(method, method)


def fraction_text(
    estimate: float, interval: tuple[float, float], n: int, level: float = 0.95, method: str = ""
) -> str:
    """Say the fraction, never without its interval, and what that holds for."""
    if not n:
        return "no fraction: no reliable cell"
    low, high = interval
    cells = "1 reliable cell" if n == 1 else f"{n} reliable cells"
    return (
        f"tank-treading {100 * estimate:.1f} % "
        f"({100 * level:.0f} % interval {100 * low:.1f} to {100 * high:.1f} %, {cells})"
        + (f"\n{method_words(method)}" if method else "")
    )


def stop_sentence(reason: str, rules: StopRules, fraction: RunningFraction) -> str:
    """Say on which side of the limit the fraction lies, where one was set and the cells tell.

    Whatever ended the run: with a limit the interval that holds at every look is said, and the side by it.
    Empty while the run goes on (no `reason`).
    """
    side = rules.side(fraction) if reason else None
    if side is None:
        return ""
    return f"The fraction lies {side} {100 * (rules.baseline or 0):g} %, the limit that was set."
