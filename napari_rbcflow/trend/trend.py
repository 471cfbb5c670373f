"""A patient's runs over time, judged against the patient's own baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cached_property

from napari_rbcflow.errors import BadInput
from napari_rbcflow.trend.alike import must_be_measured_alike, notes_on_counting
from napari_rbcflow.trend.baseline import LEAST_DAYS, Baseline, Day
from napari_rbcflow.trend.gathering import Gathered, Record
from napari_rbcflow.trend.judging import Below, Measured, Verdict, judge, left_out
from napari_rbcflow.trend.spans import Span, within


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
