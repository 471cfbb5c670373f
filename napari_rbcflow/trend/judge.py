"""A patient's runs over time, judged against the patient's own baseline, and in plain sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cached_property

from napari_rbcflow.errors import BadInput
from napari_rbcflow.quality import percent
from napari_rbcflow.session import FractionFigure
from napari_rbcflow.trend.baseline import (
    DEVIATIONS,
    LEAST_DAYS,
    Baseline,
    Below,
    Day,
    Measured,
    Verdict,
    few_days_factor,
    judge,
    left_out,
)
from napari_rbcflow.trend.records import (
    Gathered,
    Record,
    Span,
    must_be_measured_alike,
    notes_on_counting,
    within,
)


class Use(StrEnum):
    """Whether a run makes the baseline, or why not; for a person."""

    BASELINE = "in the baseline"
    CRISIS = "in a crisis that was named"
    BELOW = "left out: that day lies below the others"
    OUTSIDE = "not in the days of the baseline"
    DOUBT = "not used"


@dataclass(frozen=True)
class TrendRun:
    """One run of a trend.

    Attributes
    ----------
    record : Record
    use : Use
    verdict : Verdict
    """

    record: Record
    use: Use
    verdict: Verdict

    @property
    def day(self) -> date:
        """The day on which it was started, by the clock on the wall."""
        return self.record.started.date()

    @property
    def below(self) -> Below:
        """Whether it lies below the baseline."""
        return self.verdict.below


@dataclass(frozen=True)
class Choices:
    """What a person says of the days.

    Attributes
    ----------
    crises : tuple of Span
        Days that make no baseline.
    baseline_days : Span or None
        Only these make it; None: all.
    automatic : bool
        Whether days that lie below all others are left out by themselves.
    """

    crises: tuple[Span, ...] = ()
    baseline_days: Span | None = None
    automatic: bool = True

    @property
    def named(self) -> tuple[Span, ...]:
        """All spans."""
        return self.crises if self.baseline_days is None else (*self.crises, self.baseline_days)

    def allow(self, day: date) -> bool:
        """Say whether a day is one of those that the baseline is to be made of."""
        return self.baseline_days is None or day in self.baseline_days


@dataclass(frozen=True)
class Trend:
    """A patient's runs in the order of time, and the baseline.

    Attributes
    ----------
    patient : str
    runs : tuple of TrendRun
    baseline : Baseline or None
        None where it would be made from fewer than `LEAST_DAYS` days.
    baseline_days : int
        Days that make the baseline, or would.
    choices : Choices
    notes : tuple of str
        What else a person must know.
    """

    patient: str
    runs: tuple[TrendRun, ...]
    baseline: Baseline | None
    baseline_days: int
    choices: Choices
    notes: tuple[str, ...]

    @property
    def days_missing(self) -> int:
        """How many more days outside crises a baseline needs."""
        return max(0, LEAST_DAYS - self.baseline_days)

    @cached_property
    def last(self) -> TrendRun | None:
        """The last run whose number can be used."""
        return next((run for run in reversed(self.runs) if run.use is not Use.DOUBT), None)

    def below(self, verdict: Below) -> list[TrendRun]:
        """Return the runs of which this is said."""
        return [run for run in self.runs if run.below is verdict and run.use is not Use.DOUBT]


def trend_of(gathered: Gathered, *, patient: str | None = None, choices: Choices | None = None) -> Trend:
    """Judge a patient's runs.

    Parameters
    ----------
    gathered : Gathered
    patient : str, optional
        Whose; needed where the sessions are of several patients.
    choices : Choices, optional

    Returns
    -------
    Trend

    Raises
    ------
    BadInput
        Where the sessions are of different patients, of none, or of different pixel sizes, shear rates or
        focus heights.
    """
    choices = choices or Choices()
    records, notes = _of_one_patient(gathered, patient)
    must_be_measured_alike(records)
    used = [record for record in records if not record.doubt]
    days = sorted({record.started.date() for record in used})
    by_day = [[_measured(r) for r in used if r.started.date() == day] for day in days]
    may = {place for place, day in enumerate(days) if choices.allow(day) and not within(day, choices.crises)}
    low = left_out(by_day, may) if choices.automatic else set()
    verdicts = judge(by_day, may - low)
    making = [Day.of([(m.estimate, m.n) for m in by_day[place]]) for place in sorted(may - low)]

    runs, seen = [], Counter[int]()
    for record in records:
        day = record.started.date()
        if record.doubt:
            runs.append(TrendRun(record, Use.DOUBT, Verdict(Below.UNKNOWN)))
            continue
        place = days.index(day)
        verdict = verdicts[place][seen[place]]
        seen[place] += 1
        if within(day, choices.crises):
            use = Use.CRISIS
        elif not choices.allow(day):
            use = Use.OUTSIDE
        else:
            use = Use.BELOW if place in low else Use.BASELINE
        runs.append(TrendRun(record, use, verdict))
    return Trend(
        patient=records[0].patient,
        runs=tuple(runs),
        baseline=Baseline.of(making),
        baseline_days=len(making),
        choices=choices,
        notes=(*notes, *_notes(used, runs, choices.named)),
    )


def _measured(record: Record) -> Measured:
    figure = record.figure
    assert figure.estimate is not None
    assert figure.low is not None
    assert figure.high is not None
    return Measured(figure.estimate, figure.low, figure.high, figure.n)


def _of_one_patient(gathered: Gathered, patient: str | None) -> tuple[list[Record], list[str]]:
    records, notes = list(gathered.records), list(gathered.notes)
    if patient is not None:
        wanted = " ".join(patient.split())
        mine = [record for record in records if record.patient == wanted]
        if not mine:
            there = (
                ", ".join(repr(name) for name in sorted(gathered.patients) if name) or "none that is named"
            )
            raise BadInput(f"No session is of patient {wanted!r}: there are {there}.")
        nameless = sum(not record.patient for record in records)
        others = len(records) - len(mine) - nameless
        if others:
            whose = "another patient" if others == 1 else "other patients"
            notes.append(f"{_sessions(others)} of {whose} left out.")
        if nameless:
            notes.append(f"{_sessions(nameless)} left out, as no patient is named there.")
        records = mine
    counts = Counter(record.patient for record in records)
    if "" in counts:
        nameless_one = next(record for record in records if not record.patient)
        raise BadInput(
            f"{nameless_one.folder} names no patient: leave it out (--patient NAME chooses whose sessions are"
            ' taken), or write the name as "patient" into its run.json.'
        )
    if len(counts) > 1:
        odd = min(reversed(counts), key=lambda name: counts[name])
        where = next(record.folder for record in records if record.patient == odd)
        named = ", ".join(f"{name} ({n})" for name, n in counts.most_common())
        raise BadInput(
            f"The sessions are of different patients, {named}: choose one with --patient NAME, or leave out"
            f" {where}, which is of {odd}."
        )
    return records, notes


def _sessions(n: int) -> str:
    return "One session" if n == 1 else f"{n} sessions"


def _notes(used: Sequence[Record], runs: Sequence[TrendRun], named: Sequence[Span]) -> list[str]:
    notes = [run.record.remark for run in runs if run.record.remark]
    notes += [
        f"No run lies in the days {span} that were named: check the dates."
        for span in named
        if not any(run.day in span for run in runs)
    ]
    if len({record.networks for record in used}) > 1:
        first = next(record for record in used if record.networks != used[0].networks)
        notes.append(
            f"Not all runs were judged by the same networks (others from {first.started:%Y-%m-%d} on): a step"
            " there may be theirs and not the patient's."
        )
    notes += notes_on_counting(used)
    movies = Counter(record.movie for record in used if record.movie)
    if movies:
        n = sum(movies.values())
        stand = (
            "One run was made from a recorded movie: it stands"
            if n == 1
            else (f"{n} runs were made from recorded movies: they stand")
        )
        notes.append(f"{stand} at the day of the analysis, which need not be that of the blood.")
    notes += [
        f"{n} runs were made from the same movie, {file}: each counts." for file, n in movies.items() if n > 1
    ]
    above = [run for run in runs if run.verdict.above]
    if above:
        notes.append(
            f"The run of {above[-1].day} lies clearly above the baseline: if the days of the baseline were"
            " those of a crisis, name them with --crisis FROM:TO."
        )
    return notes


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
