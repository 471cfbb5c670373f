"""Which interval is said of a run: the one that is true of how it ended.

An interval at 95 % is a promise about a *rule*: of a hundred runs that are ended so, about 95 hold the true
fraction. So the rule decides which interval may be said. The anytime, the fixed-width, and Clopper and
Pearson's interval keep it whatever the fraction is: 95 or more. Wilson's and Jeffreys' keep it in the mean
over all fractions: where it is near 0 or 100 %, in as few as 84 and 88 of a hundred (Brown, Cai, DasGupta
2001; docs/counted.md).

=============================== ============================================ ======================
the run                         why                                          said
=============================== ============================================ ======================
goes on                         who watches may stop it at any moment        anytime
was stopped by a person         perhaps because of what it showed            anytime
failed                          a fault is nobody's rule                     anytime
ended by ``baseline``           the rule looks at the anytime interval       anytime
ended by ``half-width``         exactly the rule that `fixed_width` counts   fixed-width, of that H,
                                out, with its least number of cells          from N cells on
ended by ``reliable``, with     the same rule, its least number met last     the same
a half-width asked for too
ended by ``reliable`` alone,    when it ended did not depend on what the     Wilson's (or Jeffreys',
``seconds``, ``tracks`` or      cells were found to be                       Clopper and Pearson's)
``source-ended``
ended by ``seconds``,           it went on to there because the labels had   anytime
``tracks`` or ``source-ended``  not stopped it
before a half-width
ended by anything, with a       the baseline might have stopped it on the    anytime
baseline asked for too          strength of the labels; the fixed-width
                                rule does not count that out
=============================== ============================================ ======================

A half-width that N cells give whatever they are asks for nothing: then only N stopped the run.

Two promises meet where a run may end in two ways (a half-width or a time, say): each kind of end then has
its own interval, each of which holds for its own rule alone. How far the whole falls short is worked out in
docs/decisions/estimate.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.estimate.fixed_n import FIXED_N, FixedN
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.stopping import StopRules

FIXED_WIDTH, ANYTIME = "fixed-width", "anytime"
_NOT_BY_LABELS = "interval: holds where what was seen did not decide when to stop"
METHOD_WORDS = {
    "wilson": f"Wilson's {_NOT_BY_LABELS}",
    "jeffreys": f"Jeffreys' {_NOT_BY_LABELS}",
    "clopper-pearson": f"Clopper and Pearson's {_NOT_BY_LABELS}",
    FIXED_WIDTH: "fixed-width interval: holds for a run that stops at this width",
    ANYTIME: "anytime interval: holds at every look, whenever the run is stopped",
}
"""Each interval in plain words."""
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
