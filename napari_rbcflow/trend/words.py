"""A trend in plain sentences."""

from __future__ import annotations

from datetime import date

from napari_rbcflow.quality.rules import percent
from napari_rbcflow.session import FractionFigure
from napari_rbcflow.trend.baseline import DEVIATIONS, LEAST_DAYS, few_days_factor
from napari_rbcflow.trend.judging import Below
from napari_rbcflow.trend.trend import Trend, TrendRun, Use

_MANY_DAYS_FACTOR = 2.15
"""From 26 days on a baseline is as good as certain: half a year of weeks, as in the paper."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""Not the system's own: a report reads the same everywhere."""


def day_words(day: date) -> str:
    """Return a day as a person writes it."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def number_words(figure: FractionFigure) -> str:
    """Return a fraction, never without its interval and its cells."""
    if figure.estimate is None or figure.low is None or figure.high is None:
        return "no number"
    return (
        f"{percent(figure.estimate)} ({100 * figure.low:.1f} to {percent(figure.high)},"
        f" {figure.n:,} {'cell' if figure.n == 1 else 'cells'})"
    )


def baseline_words(trend: Trend) -> str:
    """Say the baseline, or how much is missing for one."""
    base = trend.baseline
    if base is None:
        days = f"{trend.baseline_days} {'day' if trend.baseline_days == 1 else 'days'}"
        return (
            f"No baseline yet: it takes {LEAST_DAYS} days outside crises, and there"
            f" {'is' if trend.baseline_days == 1 else 'are'} {days}; {trend.days_missing} more needed."
        )
    return (
        f"Baseline: {percent(base.mean)} +- {100 * DEVIATIONS * base.sd:.1f} (mean and two standard"
        f" deviations of {base.days} days outside crises): {100 * base.low:.1f} to {percent(base.high)}."
    )


def few_days_words(trend: Trend) -> str:
    """Say how far the baseline itself is to be trusted; empty without one."""
    base = trend.baseline
    if base is None:
        return ""
    if few_days_factor(base.days) < _MANY_DAYS_FACTOR:
        return ""
    if base.days == LEAST_DAYS:
        return "The baseline is new: its own days have not been compared with others yet."
    return (
        f"From {base.days} days the limit is itself uncertain: a steady patient's next run lies below"
        f" {percent(base.sure_low)} once in 44 runs."
    )


def verdict_words(trend: Trend) -> str:
    """Say how the last usable run stands to the baseline."""
    run = trend.last
    if run is None:
        return "No run of this patient holds a number that can be used."
    last = "The last run" if run is trend.runs[-1] else "The last run that can be used"
    return f"{last}, {day_words(run.day)}, {number_words(run.record.figure)}, {_against(run)}."


def others_words(trend: Trend) -> str:
    """Say which earlier runs lie below, or perhaps do; empty where none does."""
    said = []
    for below, words in ((Below.YES, "Below the baseline"), (Below.PERHAPS, "Perhaps below")):
        runs = [run for run in trend.below(below) if run is not trend.last]
        if runs:
            days = ", ".join(dict.fromkeys(day_words(run.day) for run in runs))
            said.append(f"{words} before: {days}.")
    return " ".join(said)


def summary(trend: Trend) -> list[str]:
    """Return all that is to be said, the most important first."""
    return [
        line
        for line in (
            verdict_words(trend),
            others_words(trend),
            baseline_words(trend),
            few_days_words(trend),
        )
        if line
    ]


def below_words(run: TrendRun) -> str:
    """Say in a word or two whether a run lies below; empty where its number cannot be used."""
    if run.use is Use.DOUBT:
        return ""
    return {
        Below.YES: "BELOW the baseline",
        Below.PERHAPS: "perhaps below",
        Below.NO: "not below",
        Below.UNKNOWN: "not compared yet",
    }[run.below]


def use_words(run: TrendRun) -> str:
    """Say what became of a run: used for the baseline, or why not."""
    return f"{run.use}: {run.record.doubt}" if run.use is Use.DOUBT else str(run.use)


def _against(run: TrendRun) -> str:
    base, limit = run.verdict.against, run.verdict.limit
    if base is None or limit is None:
        return "cannot be compared yet: there are too few other days"
    under = f"under the limit of {percent(limit)}"
    if run.below is Below.YES:
        if run.verdict.in_a_row:
            return (
                f"lies below the baseline: {under}, like another of the last three days measured; that seldom"
                " happens by chance"
            )
        return f"lies below the baseline: its whole interval is under {percent(base.low)}"
    if run.below is Below.PERHAPS:
        return (
            f"lies perhaps below the baseline: the number is {under}, but chance may explain it; measure"
            " again, or count more cells"
        )
    if run.verdict.above:
        return f"lies above the baseline, {percent(base.high)}"
    return f"does not lie below the baseline (the limit is {percent(limit)})"
