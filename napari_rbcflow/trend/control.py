"""Control samples: is the instrument in order? Westgard's rules on each lot's runs, and their repeatability.

A control's run carries the lot of the sample in its record, `control_lot`. The machine's number is charted,
not one that a person corrected: the control is to show what the instrument, its light and the networks do.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import gammaincinv

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    is_being_written,
    is_simulated,
    locked,
    read_run,
    read_signatures,
    write_report_again,
    write_run,
)
from napari_rbcflow.trend.baseline import Day, counting_sd
from napari_rbcflow.trend.judge import day_words, number_words
from napari_rbcflow.trend.records import (
    Gathered,
    Record,
    must_be_measured_alike,
    one_line,
    read_record,
    without_copies,
)
from napari_rbcflow.types import RunStatus

FIRST_RUNS = 20
"""Accepted runs that make a target, as laboratories usually take."""
LEAST_FIRST_RUNS = 5
_ROUNDING = 1e-9


class Rule(StrEnum):
    """One of Westgard's rules; all but the first reject a run."""

    R12S = "1-2s"
    R13S = "1-3s"
    R22S = "2-2s"
    R4S = "R-4s"
    R41S = "4-1s"
    R10X = "10x"

    @property
    def words(self) -> str:
        """What it says."""
        return say(f"trend.rule-{self.lower()}")


REJECTS = tuple(rule for rule in Rule if rule is not Rule.R12S)
# So many in a row, all beyond so many standard deviations on one side.
_IN_A_ROW = {Rule.R13S: (1, 3.0), Rule.R22S: (2, 2.0), Rule.R41S: (4, 1.0), Rule.R10X: (10, 0.0)}


def rules_broken(z: Sequence[float]) -> list[tuple[Rule, ...]]:
    """Return which rules each measurement breaks, with those before it.

    One level of control, one measurement a run: R-4s looks at two measurements in a row.

    Parameters
    ----------
    z : sequence of float
        Each measurement's distance from the target in standard deviations, in the order of time.

    References
    ----------
    Westgard, J. O., Barry, P. L., Hunt, M. R., Groth, T. (1981). A multi-rule Shewhart chart for quality
    control in clinical chemistry. Clinical Chemistry 27, 493-501.
    """
    found: list[tuple[Rule, ...]] = []
    for k in range(len(z)):
        broken = {Rule.R12S: abs(z[k]) > 2 + _ROUNDING}
        for rule, (n, beyond) in _IN_A_ROW.items():
            last = z[max(0, k + 1 - n) : k + 1]
            same_side = min(last) > beyond + _ROUNDING or max(last) < -beyond - _ROUNDING
            broken[rule] = len(last) == n and same_side
        pair = sorted(z[max(0, k - 1) : k + 1])
        broken[Rule.R4S] = len(pair) == 2 and pair[0] < -2 - _ROUNDING and pair[1] > 2 + _ROUNDING
        found.append(tuple(rule for rule in Rule if broken[rule]))
    return found


class State(StrEnum):
    """What became of a control's run."""

    IN_ORDER = "in-order"
    WARNING = "warning"
    REJECTED = "rejected"
    NO_NUMBER = "no-number"
    """It failed or has a grave warning: the number says nothing of the instrument."""
    NO_TARGET = "no-target"

    @property
    def word(self) -> str:
        """The state in a word or two."""
        return say(f"trend.control-state-{self}")


@dataclass(frozen=True)
class Target:
    """What a control should measure; a fraction, in [0, 1].

    Attributes
    ----------
    mean, sd : float
        `sd` is never smaller than counting alone gives, unless a person gave it.
    runs : int
        Of how many runs; 0 where a person gave it.
    counting_sd : float
    by_counting : bool
        Whether `sd` is that of counting.
    """

    mean: float
    sd: float
    runs: int = 0
    counting_sd: float = 0.0
    by_counting: bool = False

    @classmethod
    def of(cls, runs: Sequence[Day]) -> Target:
        """Return the target that these runs make."""
        estimates = np.array([run.estimate for run in runs])
        sd, least = float(estimates.std(ddof=1)), counting_sd(runs)
        return cls(float(estimates.mean()), max(sd, least), len(runs), least, sd < least)

    @property
    def words(self) -> str:
        """Return it in a sentence."""
        if not self.runs:
            return say("trend.control-target-given", mean=100 * self.mean, sd=100 * self.sd)
        values = {"mean": 100 * self.mean, "sd": 100 * self.sd, "runs": self.runs}
        if self.by_counting:
            return say("trend.control-target-by-counting", **values)
        return say("trend.control-target", counting=100 * self.counting_sd, **values)


@dataclass(frozen=True)
class Precision:
    """Repeatability from repeated runs, as in CLSI EP05 and EP15: one-way analysis of variance on days.

    All are standard deviations of the fraction; intervals are of 95 %.

    Attributes
    ----------
    runs, days : int
    within, between, total : float
        Within a day, between days, and both together (within the laboratory).
    within_interval, total_interval : tuple of float
        From chi-square; the second with Satterthwaite's degrees of freedom, as EP15.
    counting : float
        What counting so many cells alone gives.
    """

    runs: int
    days: int
    within: float
    between: float
    total: float
    within_interval: tuple[float, float]
    total_interval: tuple[float, float]
    counting: float

    @classmethod
    def of(cls, days: Sequence[Sequence[Day]]) -> Precision | None:
        """Return it for the runs of each day; None without two days, one of which has two runs.

        References
        ----------
        CLSI EP05-A3 (2014), EP15-A3 (2014). Days with different numbers of runs weigh as in Searle, S. R.,
        Casella, G., McCulloch, C. E. (1992). Variance Components. Wiley, section 3.6.
        """
        k, n = len(days), sum(len(day) for day in days)
        if k < 2 or n == k:
            return None
        values = [np.array([run.estimate for run in day]) for day in days]
        sizes = np.array([len(day) for day in days], np.float64)
        means = np.array([value.mean() for value in values])
        grand = float(np.concatenate(values).mean())
        ms_within = sum(float(((v - v.mean()) ** 2).sum()) for v in values) / (n - k)
        ms_between = float((sizes * (means - grand) ** 2).sum()) / (k - 1)
        n0 = float(n - (sizes**2).sum() / n) / (k - 1)
        between = max(0.0, (ms_between - ms_within) / n0)
        total = ms_within + between
        # Of the estimate MSB/n0 + (1 - 1/n0) MSW, which `total` is.
        parts = (ms_between / n0, k - 1), ((1 - 1 / n0) * ms_within, n - k)
        spread = sum(part**2 / df for part, df in parts)
        df = total**2 / spread if spread else n - 1.0
        return cls(
            runs=n,
            days=k,
            within=math.sqrt(ms_within),
            between=math.sqrt(between),
            total=math.sqrt(total),
            within_interval=_interval(ms_within, n - k),
            total_interval=_interval(total, df),
            counting=counting_sd([run for day in days for run in day]),
        )

    @property
    def words(self) -> str:
        """Return it in a sentence, in points."""
        return say(
            "trend.control-precision",
            runs=self.runs,
            days=self.days,
            within=100 * self.within,
            within_low=100 * self.within_interval[0],
            within_high=100 * self.within_interval[1],
            between=100 * self.between,
            total=100 * self.total,
            total_low=100 * self.total_interval[0],
            total_high=100 * self.total_interval[1],
            counting=100 * self.counting,
            share_within=100 * self.share_of(self.within),
            share_total=100 * self.share_of(self.total),
        )

    def share_of(self, sd: float) -> float:
        """Return the share of a variance that counting alone explains, at most 1."""
        return min(1.0, (self.counting / sd) ** 2) if sd else 1.0


def _interval(variance: float, df: float) -> tuple[float, float]:
    high, low = (2 * float(gammaincinv(df / 2, tail)) for tail in (0.025, 0.975))  # of chi-square
    return math.sqrt(df * variance / low), math.sqrt(df * variance / high)


@dataclass(frozen=True)
class ControlRun:
    """One run of a control; `z` is None where there is no number or no target."""

    record: Record
    state: State
    z: float | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def day(self) -> date:
        """The day on which it was started, in local time."""
        return self.record.started.date()

    @property
    def telling(self) -> tuple[Rule, ...]:
        """The rules for which it is rejected; where it is not, the warning."""
        return tuple(rule for rule in self.rules if rule in REJECTS) or self.rules

    @property
    def rule_words(self) -> str:
        """The rules that tell, each in words."""
        return "; ".join(rule.words for rule in self.telling)


@dataclass(frozen=True)
class ControlChart:
    """All runs of one lot at one instrument.

    Attributes
    ----------
    lot, instrument : str
        `instrument` is its serial number; empty where the record gives none.
    runs : tuple of ControlRun
        In the order of time.
    target : Target or None
        None while there are too few runs.
    first : int
        Runs that a target needs.
    precision : Precision or None
    notes : tuple of str
    """

    lot: str
    instrument: str
    runs: tuple[ControlRun, ...]
    target: Target | None
    first: int
    precision: Precision | None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Which lot and which instrument."""
        return say("trend.control-chart", lot=self.lot, instrument=instrument_words(self.instrument))

    def summary(self) -> list[str]:
        """Return all sentences about it, the most important first."""
        if self.target is None:
            usable = sum(run.state is not State.NO_NUMBER for run in self.runs)
            target = say("trend.control-target-missing", first=self.first, runs=usable)
        else:
            target = self.target.words
        rejected = [run for run in self.runs[:-1] if run.state is State.REJECTED]
        days = ", ".join(dict.fromkeys(day_words(run.day) for run in rejected))
        earlier = [say("trend.control-earlier-rejected", days=days)] if rejected else []
        precision = self.precision.words if self.precision else say("trend.control-precision-missing")
        return [_last_words(self.runs[-1]), *earlier, target, precision, *self.notes]


def instrument_words(serial: str) -> str:
    """Return how an instrument is called in a sentence."""
    return say("trend.control-instrument", serial=serial) if serial else say("trend.control-no-instrument")


def _last_words(run: ControlRun) -> str:
    values: dict[str, Any] = {"day": day_words(run.day)}
    if run.state is State.NO_NUMBER:
        values["why"] = _why_not(run.record)
    elif run.state is State.NO_TARGET:
        values["number"] = number_words(run.record.figure)
    if run.z is not None and run.state is not State.REJECTED:
        values["z"] = run.z
    if run.state in (State.WARNING, State.REJECTED):
        values["rules"] = run.rule_words
    return say(f"trend.control-last-{run.state}", **values)


def control_charts(
    gathered: Gathered,
    *,
    lot: str | None = None,
    instrument: str | None = None,
    first: int = FIRST_RUNS,
    target_mean: float | None = None,
    target_sd: float | None = None,
) -> list[ControlChart]:
    """Judge the control runs of some sessions, a chart for each lot at each instrument.

    Parameters
    ----------
    gathered : Gathered
    lot, instrument : str, optional
        Only of these.
    first : int
        The first so many accepted runs of a lot make its target.
    target_mean, target_sd : float, optional
        The target instead, as shares.

    Raises
    ------
    BadInput
        If there is no such run, or the target cannot be one.
    """
    if (target_mean is None) != (target_sd is None):
        raise BadInput("trend.control-target-half")
    given = None
    if target_mean is not None and target_sd is not None:
        if not (0 <= target_mean <= 1 and 0 < target_sd < 1):
            raise BadInput("trend.control-target-outside")
        given = Target(target_mean, target_sd)
    if first < LEAST_FIRST_RUNS:
        raise BadInput("trend.control-first-outside", value=first, least=LEAST_FIRST_RUNS)
    if not gathered.controls:
        raise BadInput("trend.no-control")

    def key(record: Record) -> tuple[str, str]:
        return record.control_lot, record.instrument

    wanted = [None if one is None else one_line(one) for one in (lot, instrument)]
    charts = [
        _chart(*names, list(records), first, given)
        for names, records in groupby(sorted(gathered.controls, key=key), key)
        if all(want in (None, name) for want, name in zip(wanted, names, strict=True))
    ]
    if not charts:
        asked = [say("trend.control-any") if want is None else repr(want) for want in wanted]
        there = sorted({f"{record.control_lot} ({record.instrument or '-'})" for record in gathered.controls})
        raise BadInput("trend.no-such-control", lot=asked[0], instrument=asked[1], charts=", ".join(there))
    # The chart with the last run first.
    return sorted(charts, key=lambda chart: chart.runs[-1].record.started, reverse=True)


def _chart(
    lot: str, instrument: str, records: Sequence[Record], first: int, given: Target | None
) -> ControlChart:
    usable = [record for record in records if _why_not(record) == ""]
    target, left = (given, []) if given is not None else _target_of(usable, first)
    z = [] if target is None else [(_day(r).estimate - target.mean) / target.sd for r in usable]
    judged = iter(zip(z, rules_broken(z), strict=True))
    runs = []
    for record in records:
        if _why_not(record):
            runs.append(ControlRun(record, State.NO_NUMBER))
        elif target is None:
            runs.append(ControlRun(record, State.NO_TARGET))
        else:
            at, rules = next(judged)
            state = (
                State.REJECTED if set(rules) & set(REJECTS) else State.WARNING if rules else State.IN_ORDER
            )
            runs.append(ControlRun(record, state, at, rules))
    accepted = [run for run in runs if run.state not in (State.NO_NUMBER, State.REJECTED)]
    by_day = groupby(accepted, lambda run: run.day)
    precision = Precision.of([[_day(run.record) for run in of_day] for _, of_day in by_day])
    notes = tuple(_notes(usable, left))
    return ControlChart(lot, instrument, tuple(runs), target, first, precision, notes)


def _target_of(records: Sequence[Record], first: int) -> tuple[Target | None, list[Record]]:
    """Return the target of the first accepted runs, and those before that were left out as outliers."""
    left: list[Record] = []
    while True:
        chosen = [record for record in records if record not in left][:first]
        if len(chosen) < first:
            return None, left
        target = Target.of([_day(record) for record in chosen])
        odd = max(chosen, key=lambda record: abs(_day(record).estimate - target.mean))
        if abs(_day(odd).estimate - target.mean) <= 3 * target.sd:
            return target, left
        left.append(odd)


def _why_not(record: Record) -> str:
    """Say why a run's number says nothing of the instrument; empty if it does."""
    if record.figure.estimate is None:
        return record.doubt or say("trend.holds-no-number")
    return record.doubt


def _day(record: Record) -> Day:
    assert record.figure.estimate is not None
    return Day(record.figure.estimate, record.figure.n)


def _notes(usable: Sequence[Record], left: Sequence[Record]) -> list[str]:
    notes = []
    if left:
        days = ", ".join(day_words(record.started.date()) for record in left)
        notes.append(say("trend.control-left-out-of-target", runs=len(left), days=days))
    try:
        if usable:
            must_be_measured_alike(usable)
    except BadInput as error:
        notes.append(say("trend.control-other-settings", why=error))
    if other := [record for record in usable if record.networks != usable[0].networks]:
        notes.append(say("trend.control-other-networks", day=f"{other[0].started:%Y-%m-%d}"))
    if any(record.simulated for record in usable):
        notes.append(say("trend.control-simulated"))
    return notes


_WORST_FIRST = (State.REJECTED, State.NO_NUMBER, State.NO_TARGET, State.WARNING, State.IN_ORDER)


def control_of_day(
    charts: Sequence[ControlChart], started: datetime, instrument: str
) -> tuple[State | None, str]:
    """Say whether the control of a patient's run was in order, or why not.

    Of each lot that was measured that day at that instrument, the last run before the patient's counts, else
    the first after it; the worst of the lots speaks. It is told, and never refuses anything.

    Returns
    -------
    state : State or None
        None where no control was measured that day.
    words : str
        Empty where the laboratory measures no controls at all.
    """
    found: list[ControlRun] = []
    for chart in charts:
        of_day = [run for run in chart.runs if run.day == started.date() and chart.instrument == instrument]
        before = [run for run in of_day if run.record.started <= started]
        found += before[-1:] or of_day[:1]
    if not found:
        there = say("trend.control-day-none", instrument=instrument_words(instrument))
        return None, there if charts else ""
    worst = min(found, key=lambda run: _WORST_FIRST.index(run.state))
    told = worst.state in (State.WARNING, State.REJECTED)
    rules = {"rules": worst.rule_words} if told else {}
    return worst.state, say(f"trend.control-day-{worst.state}", **rules)


def keep_control(folder: Path) -> str:
    """Write what `control_beside` says of a new session into its ``run.json`` and report; return it.

    Called by whoever shows the end of a run. A session that was signed stays as it is.
    """
    words = control_beside(folder)
    # Nobody signs between the look at the signatures and the change.
    with suppress(RbcflowError, OSError), locked(folder / "cells.csv"):
        run = read_run(folder)
        ended = run["status"] != RunStatus.RUNNING and not is_being_written(folder)
        if words and ended and not read_signatures(folder) and run.get("control") != words:
            write_run(folder, {**run, "control": words})
            write_report_again(folder)
    return words


def control_beside(folder: Path) -> str:
    """Say of a new session whether the control of its day was in order, by the sessions beside it.

    Of a control's own session, say whether the control is in order. Empty where there are no controls, or
    the session cannot be read: this is told at the end of a run, which must not fail for it.
    """
    try:
        run, mine = read_run(folder), read_record(folder)
        entries = list(folder.absolute().parent.iterdir())
    except Exception:  # damage can do anything
        return ""
    controls = [record for entry in entries if (record := _control(entry, run)) is not None]
    if mine.control_lot:  # what was measured later is no part of what is said of it
        controls = [record for record in controls if record.started <= mine.started]
    controls.sort(key=lambda record: (record.started, str(record.folder)))
    try:
        charts = control_charts(without_copies(controls, ()))
    except BadInput:
        return ""
    if mine.control_lot:
        own = mine.control_lot, mine.instrument
        return next((chart.summary()[0] for chart in charts if (chart.lot, chart.instrument) == own), "")
    return control_of_day(charts, mine.started, mine.instrument)[1]


def _control(folder: Path, beside: Mapping[str, Any]) -> Record | None:
    """Read a session if it is of a control and can be read; `rbcflow control` says of the others why not."""
    try:
        return read_record(folder) if _may_be_control(folder, beside) else None
    except Exception:  # damage can do anything
        return None


def _may_be_control(folder: Path, beside: Mapping[str, Any]) -> bool:
    """Say whether a session is of a control, as real as that beside it; without opening all of it."""
    try:
        run = read_run(folder)
    except (RbcflowError, OSError):
        return False
    lot = (run.get("record") or {}).get("control_lot")
    return bool(lot) and is_simulated(run) == is_simulated(beside)


COLUMNS = (
    *("session", "started", "instrument", "control_lot", "n", "estimate", "low", "high"),
    *("state", "z", "rules", "why", "target_mean", "target_sd", "target_runs"),
    *("within_day_sd", "between_days_sd", "within_laboratory_sd", "counting_sd"),
)


def control_csv(charts: Sequence[ControlChart]) -> bytes:
    """Return a row a run as CSV, in UTF-8 with the byte order mark that spreadsheets need.

    `z` is in standard deviations of the target; all other numbers are shares. The target's and the
    repeatability's columns are the same in all rows of a chart.
    """
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\r\n", restval="")
    writer.writeheader()
    for chart in charts:
        target, precision = chart.target, chart.precision
        same: dict[str, Any] = {}
        if target is not None:
            same |= {"target_mean": target.mean, "target_sd": target.sd, "target_runs": target.runs}
        if precision is not None:
            same |= {"within_day_sd": precision.within, "between_days_sd": precision.between}
            same |= {"within_laboratory_sd": precision.total, "counting_sd": precision.counting}
        for run in chart.runs:
            record, figure = run.record, run.record.figure
            row = {
                "session": str(record.folder),
                "started": f"{record.started:%Y-%m-%d %H:%M:%S}",
                "instrument": chart.instrument,
                "control_lot": chart.lot,
                **{name: getattr(figure, name) for name in ("n", "estimate", "low", "high")},
                "state": run.state.word,
                "z": run.z,
                "rules": " ".join(run.rules),
                "why": _why_not(record),
                **same,
            }
            writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    return file.getvalue().encode("utf-8-sig", errors="backslashreplace")
