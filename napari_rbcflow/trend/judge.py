"""A patient's runs over time, compared with the patient's own baseline, and what that means in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cached_property

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure
from napari_rbcflow.trend.baseline import (
    DEVIATIONS,
    LEAST_DAYS,
    Baseline,
    Below,
    Comparison,
    Day,
    Measured,
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
    one_line,
    within,
)


class Use(StrEnum):
    """Whether a run makes the baseline, or why not."""

    BASELINE = "baseline"
    CRISIS = "crisis"
    BELOW = "below"
    OUTSIDE = "outside"
    DOUBT = "doubt"
    PROVISIONAL = "provisional"
    """No result, where results are compared with results."""


@dataclass(frozen=True)
class TrendRun:
    """One run of a trend; `of_results` where that is a trend of results."""

    record: Record
    use: Use
    comparison: Comparison
    of_results: bool = False

    @property
    def day(self) -> date:
        """The day on which it was started, in local time."""
        return self.record.started.date()

    @property
    def figure(self) -> FractionFigure:
        """The number that is compared: in a trend of results the result, else the machine's."""
        return _figure(self.record, of_results=self.of_results)

    @property
    def compared(self) -> bool:
        """Whether its number can be used."""
        return self.use not in (Use.DOUBT, Use.PROVISIONAL)

    @property
    def below(self) -> Below:
        """Whether it is below the baseline."""
        return self.comparison.below


@dataclass(frozen=True)
class Choices:
    """What a person chose about the days.

    Attributes
    ----------
    crises : tuple of Span
        Days that are not in the baseline.
    baseline_days : Span or None
        Only these are in it; None: all.
    automatic : bool
        Whether days that are below the others are left out automatically.
    """

    crises: tuple[Span, ...] = ()
    baseline_days: Span | None = None
    automatic: bool = True

    @property
    def named(self) -> tuple[Span, ...]:
        return self.crises if self.baseline_days is None else (*self.crises, self.baseline_days)

    def allow(self, day: date) -> bool:
        """Whether the baseline may include a day."""
        return self.baseline_days is None or day in self.baseline_days


@dataclass(frozen=True)
class Trend:
    """A patient's runs in the order of time, and the baseline.

    Attributes
    ----------
    patient : str
    runs : tuple of TrendRun
    baseline : Baseline or None
        None if fewer than `LEAST_DAYS` days make it.
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
        return next((run for run in reversed(self.runs) if run.compared), None)

    def below(self, below: Below) -> list[TrendRun]:
        """Return the usable runs with this comparison."""
        return [run for run in self.runs if run.below is below and run.compared]


def trend_of(gathered: Gathered, *, patient: str | None = None, choices: Choices | None = None) -> Trend:
    """Compare a patient's runs with the patient's own baseline.

    Like is compared with like: results with results, once days with a result make a baseline by themselves;
    before, the machine's numbers, of all runs.

    Parameters
    ----------
    gathered : Gathered
    patient : str, optional
        Needed if the sessions are of several patients.
    choices : Choices, optional

    Returns
    -------
    Trend

    Raises
    ------
    BadInput
        If the sessions are of different patients, of none, or of different pixel sizes, shear rates or focus
        heights.
    """
    choices = choices or Choices()
    records, notes = _of_one_patient(gathered, patient)
    must_be_measured_alike(records)
    used = [record for record in records if not record.doubt]
    checked = {record.started.date() for record in used if record.headline is not None}
    checked = {day for day in checked if choices.allow(day) and not within(day, choices.crises)}
    of_results = len(checked) >= LEAST_DAYS
    if of_results:
        used = [record for record in used if record.headline is not None]
    days = sorted({record.started.date() for record in used})
    by_day = [
        [_measured(_figure(r, of_results=of_results)) for r in used if r.started.date() == day]
        for day in days
    ]
    may = {place for place, day in enumerate(days) if choices.allow(day) and not within(day, choices.crises)}
    low = left_out(by_day, may) if choices.automatic else set()
    comparisons = judge(by_day, may - low)
    making = [Day.of(by_day[place]) for place in sorted(may - low)]

    runs, seen = [], Counter[int]()
    for record in records:
        day = record.started.date()
        if record.doubt:
            runs.append(TrendRun(record, Use.DOUBT, Comparison(Below.UNKNOWN), of_results))
            continue
        if of_results and record.headline is None:
            runs.append(TrendRun(record, Use.PROVISIONAL, Comparison(Below.UNKNOWN), of_results))
            continue
        place = days.index(day)
        comparison = comparisons[place][seen[place]]
        seen[place] += 1
        if within(day, choices.crises):
            use = Use.CRISIS
        elif not choices.allow(day):
            use = Use.OUTSIDE
        else:
            use = Use.BELOW if place in low else Use.BASELINE
        runs.append(TrendRun(record, use, comparison, of_results))
    return Trend(
        patient=records[0].patient,
        runs=tuple(runs),
        baseline=Baseline.of(making),
        baseline_days=len(making),
        choices=choices,
        notes=(*notes, *_verdict_notes(runs, len(checked)), *_notes(used, runs, choices.named)),
    )


def _figure(record: Record, *, of_results: bool) -> FractionFigure:
    return record.headline if of_results and record.headline is not None else record.figure


def _measured(figure: FractionFigure) -> Measured:
    assert figure.estimate is not None
    assert figure.low is not None
    assert figure.high is not None
    return Measured(figure.estimate, figure.low, figure.high, figure.n)


def _of_one_patient(gathered: Gathered, patient: str | None) -> tuple[list[Record], list[str]]:
    records, notes = list(gathered.records), list(gathered.notes)
    if not records and gathered.controls:
        raise BadInput("trend.only-controls")
    if patient is not None:
        wanted = one_line(patient)
        mine = [record for record in records if record.patient == wanted]
        if not mine:
            names = ", ".join(repr(name) for name in sorted(gathered.patients) if name)
            if not names:
                raise BadInput("trend.no-patient-named", patient=wanted)
            raise BadInput("trend.no-such-patient", patient=wanted, patients=names)
        nameless = sum(not record.patient for record in records)
        others = len(records) - len(mine) - nameless
        if others:
            notes.append(say("trend.others-left-out", sessions=others))
        if nameless:
            notes.append(say("trend.nameless-left-out", sessions=nameless))
        records = mine
    counts = Counter(record.patient for record in records)
    if "" in counts:
        folder = next(record.folder for record in records if not record.patient)
        raise BadInput("trend.names-no-patient", folder=folder)
    if len(counts) > 1:
        odd = min(reversed(counts), key=lambda name: counts[name])
        folder = next(record.folder for record in records if record.patient == odd)
        patients = ", ".join(
            say("trend.patient-and-sessions", patient=name, sessions=n) for name, n in counts.most_common()
        )
        raise BadInput("trend.different-patients", patients=patients, folder=folder, patient=odd)
    return records, notes


def _verdict_notes(runs: Sequence[TrendRun], checked_days: int) -> list[str]:
    """Say what kind of number is compared, and what was left out for it."""
    left = sum(run.use is Use.PROVISIONAL for run in runs)
    if left:
        return [say("trend.provisional-left-out", runs=left)]
    if any(run.compared and not run.of_results for run in runs):
        return [say("trend.of-machine-numbers", least=LEAST_DAYS, days=checked_days)]
    return []


def _notes(used: Sequence[Record], runs: Sequence[TrendRun], named: Sequence[Span]) -> list[str]:
    notes = [run.record.remark for run in runs if run.record.remark]
    notes += [
        say("trend.no-run-in-days", days=span) for span in named if not any(run.day in span for run in runs)
    ]
    if len({record.networks for record in used}) > 1:
        first = next(record for record in used if record.networks != used[0].networks)
        notes.append(say("trend.other-networks", day=f"{first.started:%Y-%m-%d}"))
    notes += notes_on_counting(used)
    movies = Counter(record.movie for record in used if record.movie)
    if movies:
        notes.append(say("trend.from-movies", runs=sum(movies.values())))
    notes += [say("trend.same-movie", runs=n, movie=file) for file, n in movies.items() if n > 1]
    above = [run for run in runs if run.comparison.above]
    if above:
        notes.append(say("trend.clearly-above", day=above[-1].day))
    return notes


_MANY_DAYS_FACTOR = 2.15
"""From 26 days on a baseline is as good as certain: half a year of weeks, as in the paper."""
MONTHS = tuple(say("trend.months").split())  # not those of the system: a report reads the same everywhere


def day_words(day: date) -> str:
    """Return a day as a person writes it."""
    return say("trend.day", day=day.day, month=MONTHS[day.month - 1], year=day.year)


def number_words(figure: FractionFigure) -> str:
    """Return a fraction, never without its interval and its cells."""
    if figure.estimate is None or figure.low is None or figure.high is None:
        return say("trend.no-number")
    estimate, low, high = 100 * figure.estimate, 100 * figure.low, 100 * figure.high
    return say("trend.number", estimate=estimate, low=low, high=high, cells=figure.n)


def figure_words(run: TrendRun) -> str:
    """Return the number that is compared, and whether it is a result."""
    number = number_words(run.figure)
    if run.figure.estimate is None or run.use is Use.DOUBT:
        return number
    if (result := run.record.headline) is None:
        return say("trend.of-machine", number=number)
    if run.figure is result:
        return say("trend.of-result", number=number)
    return say("trend.of-machine-beside", number=number, result=number_words(result))


def days_of(runs: Sequence[TrendRun]) -> str:
    """Return the days of some runs, each once."""
    return ", ".join(dict.fromkeys(day_words(run.day) for run in runs))


def _baseline_words(trend: Trend) -> str:
    """Say the baseline, or how many days are missing for one."""
    base = trend.baseline
    if base is None:
        missing = {"days": trend.baseline_days, "more": trend.days_missing}
        return say("trend.baseline-missing", least=LEAST_DAYS, **missing)
    return say(
        "trend.baseline",
        mean=100 * base.mean,
        deviations=100 * DEVIATIONS * base.sd,
        days=base.days,
        low=100 * base.low,
        high=100 * base.high,
    )


def _others_words(trend: Trend) -> str:
    """Say why a day's limit may differ from the baseline's; empty before any of its days is compared."""
    base = trend.baseline
    return "" if base is None or base.days == LEAST_DAYS else say("trend.baseline-others")


def _few_days_words(trend: Trend) -> str:
    """Say how certain the baseline itself is; empty without one, or if it is certain."""
    base = trend.baseline
    if base is None or few_days_factor(base.days) < _MANY_DAYS_FACTOR:
        return ""
    if base.days == LEAST_DAYS:
        return say("trend.baseline-new")
    return say("trend.baseline-uncertain", days=base.days, low=100 * base.low, limit=100 * base.sure_low)


def _last_run_words(trend: Trend) -> str:
    """Say how the last usable run compares with the baseline."""
    run = trend.last
    if run is None:
        return say("trend.no-usable-run")
    key = "trend.last-run" if run is trend.runs[-1] else "trend.last-usable-run"
    words = {"day": day_words(run.day), "number": figure_words(run)}
    return say(key, **words, comparison=_comparison_words(run.comparison, trend.baseline))


def _earlier_words(trend: Trend) -> str:
    """Say which earlier runs are below, or perhaps are; empty if none is."""
    words = []
    for below, key in (
        (Below.YES, "trend.earlier-below"),
        (Below.PERHAPS, "trend.earlier-perhaps-below"),
    ):
        if runs := [run for run in trend.below(below) if run is not trend.last]:
            words.append(say(key, days=days_of(runs)))
    return " ".join(words)


def summary(trend: Trend) -> list[str]:
    """Return all sentences about a trend, the most important first."""
    words = (_last_run_words, _earlier_words, _baseline_words, _others_words, _few_days_words)
    return [line for words_of in words if (line := words_of(trend))]


def below_words(run: TrendRun) -> str:
    """Say in a word or two whether a run is below; empty if its number cannot be used."""
    return say(f"trend.below-{run.below or 'unknown'}") if run.compared else ""


def use_words(run: TrendRun) -> str:
    """Say whether a run is in the baseline, or why not."""
    return say(f"trend.use-{run.use}", why=run.record.doubt)


def _comparison_words(run: Comparison, shown: Baseline | None) -> str:
    """Say how a run compares, and with which limit: that of the other days or the one `shown`."""
    base, limit = run.against, run.limit
    if base is None or limit is None or shown is None:
        return say("trend.is-unknown")
    if run.below is Below.YES:
        if run.in_a_row:
            others = base.sure_low != shown.sure_low
            return say("trend.is-below-in-a-row", limit=100 * base.sure_low, others=others)
        return say("trend.is-below", low=100 * base.low, others=base.low != shown.low)
    if run.below is Below.NO and run.above:
        return say("trend.is-above", high=100 * base.high, others=base.high != shown.high)
    key = "trend.is-perhaps-below" if run.below is Below.PERHAPS else "trend.is-not-below"
    return say(key, limit=100 * limit, others=limit != shown.low)
