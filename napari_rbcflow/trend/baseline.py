"""A patient's own baseline, mean and two standard deviations, and which runs are below it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from scipy.special import ndtr, stdtrit

LEAST_DAYS = 4
"""Fewest days of a baseline: the limit of fewer would be little more than chance."""
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Day:
    """What was measured on one day: the fraction, in [0, 1], of `n` counted cells."""

    estimate: float
    n: int

    @classmethod
    def of(cls, runs: Sequence[Measured]) -> Day:
        """Combine the runs of a day, weighted by their cells.

        A day that was measured three times is not three days: a baseline is about the spread between days.
        """
        n = sum(run.n for run in runs)
        return cls(sum(run.estimate * run.n for run in runs) / n, n)


@dataclass(frozen=True)
class Baseline:
    """Mean and standard deviation over days, each day with the same weight, as in the paper.

    Attributes
    ----------
    mean, sd : float
        Of the fraction; `sd` with n - 1 degrees of freedom.
    days : int
    counting_sd : float
        The standard deviation that counting so many cells alone would give.
    """

    mean: float
    sd: float
    days: int
    counting_sd: float = 0.0

    @classmethod
    def of(cls, days: Sequence[Day]) -> Baseline | None:
        """Return the baseline of these days; None for fewer than `LEAST_DAYS`."""
        if len(days) < LEAST_DAYS:
            return None
        estimates = np.array([day.estimate for day in days])
        return cls(
            mean=float(estimates.mean()),
            sd=float(estimates.std(ddof=1)),
            days=len(days),
            counting_sd=counting_sd(days),
        )

    @property
    def low(self) -> float:
        """Mean less two standard deviations, at least 0: what a live run can be compared with."""
        return max(0.0, self.mean - DEVIATIONS * self.sd)

    @property
    def high(self) -> float:
        """Mean and two standard deviations, at most 1."""
        return min(1.0, self.mean + DEVIATIONS * self.sd)

    @property
    def limit(self) -> float:
        """As `low`, but with a standard deviation no smaller than counting alone gives.

        Otherwise days that happen to be closer together than counting allows would make an ordinary day look
        low.
        """
        return max(0.0, self.mean - DEVIATIONS * max(self.sd, self.counting_sd))

    @property
    def sure_low(self) -> float:
        """The limit that allows for a baseline of few days; at least 0, and never above `low`.

        A steady patient's next run falls below it as rarely as below two standard deviations of a baseline of
        infinitely many days (one in 44): the prediction limit for one more value from a normal sample. The
        standard deviation is no smaller than counting alone gives.

        References
        ----------
        Hahn, G. J., Meeker, W. Q. (1991). Statistical Intervals. Wiley, section 4.7.
        """
        return max(0.0, self.mean - few_days_factor(self.days) * max(self.sd, self.counting_sd))

    @property
    def sure_high(self) -> float:
        """The same on the other side."""
        return min(1.0, self.mean + few_days_factor(self.days) * max(self.sd, self.counting_sd))


def counting_sd(days: Sequence[Day]) -> float:
    """Return the standard deviation between days that counting so many cells alone gives."""
    n = np.array([day.n for day in days], np.float64)
    # Two cells of each kind are added: no flipping cell of 200 does not mean that none ever flips.
    p = (np.array([day.estimate for day in days]) * n + 2) / (n + 4)
    return math.sqrt(float(np.mean(p * (1 - p) / n)))


@cache
def few_days_factor(days: int) -> float:
    """Return the standard deviations of few days that equal two of infinitely many: 3.7 for four days."""
    return float(stdtrit(days - 1, ndtr(DEVIATIONS))) * math.sqrt(1 + 1 / days)


IN_A_ROW = 3  # two days of so many in a row confirm each other


class Below(StrEnum):
    """Whether a run is below the patient's baseline."""

    YES = "yes"
    PERHAPS = "perhaps"
    NO = "no"
    UNKNOWN = ""
    """Too few other days, or the run's number must not be acted on."""


@dataclass(frozen=True)
class Measured:
    """One run's fraction, all in [0, 1], of `n` cells."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """One run compared with the baseline."""

    below: Below
    against: Baseline | None = None  # of the other days
    limit: float | None = None  # a fraction under it is at least perhaps below
    in_a_row: bool = False  # below because another day close to it is low, too
    above: bool = False  # as clearly above as others are below


DayRuns = Sequence[Measured]


def left_out(days: Sequence[DayRuns], candidates: Collection[int]) -> set[int]:
    """Return the places of the days that are below the baseline that the other `candidates` make.

    `days` are in the order of time, each with one run or more; `candidates` are places of the days that may
    make the baseline.
    """
    found: set[int] = set()
    most = min(len(candidates) - LEAST_DAYS, (len(candidates) - 1) // 2)
    # Low in two senses: a low number from few cells has a high upper end.
    keys: tuple[Callable[[int], float], ...] = (
        lambda d: min(run.high for run in days[d]),
        lambda d: min(run.estimate for run in days[d]),
    )
    for key in keys:
        order = sorted(candidates, key=key)
        for together in range(most, len(found), -1):
            low = set(order[:together])
            if _all_below(days, low, set(candidates) - low):
                found = low
                break
    # Among the rest, a day may stand out only now.
    while len(found) < most:
        rest = set(candidates) - found
        compared = judge(days, rest)
        out = [d for d in rest if any(run.below is Below.YES for run in compared[d])]
        if not out:
            break
        found.add(min(out, key=keys[0]))
    return found


def judge(days: Sequence[DayRuns], made_from: Collection[int]) -> list[list[Comparison]]:
    """Compare each run of each day with the baseline of the days at the places `made_from`."""
    whole = Baseline.of([Day.of(days[d]) for d in sorted(made_from)])
    against = [
        Baseline.of([Day.of(days[d]) for d in sorted(made_from) if d != place])
        if place in made_from
        else whole
        for place in range(len(days))
    ]
    deep = [_any_deep(runs, base) for runs, base in zip(days, against, strict=True)]
    return [
        [_compare(run, base, whole, confirmed=_near(place, deep)) for run in runs]
        for place, (runs, base) in enumerate(zip(days, against, strict=True))
    ]


def _all_below(days: Sequence[DayRuns], low: set[int], rest: set[int]) -> bool:
    base = Baseline.of([Day.of(days[d]) for d in sorted(rest)])
    deep = [place in low and _any_deep(runs, base) for place, runs in enumerate(days)]
    return all(
        any(_compare(run, base, base, confirmed=_near(d, deep)).below is Below.YES for run in days[d])
        for d in low
    )


def _compare(run: Measured, base: Baseline | None, whole: Baseline | None, *, confirmed: bool) -> Comparison:
    if base is None or whole is None:
        return Comparison(Below.UNKNOWN)
    # A run under the baseline that is shown is never called fine.
    limit = max(base.limit, whole.low)
    if _deep(run, base):
        if run.high < base.low:
            return Comparison(Below.YES, base, limit)
        if confirmed:
            return Comparison(Below.YES, base, limit, in_a_row=True)
    if run.estimate < limit:
        return Comparison(Below.PERHAPS, base, limit)
    return Comparison(Below.NO, base, limit, above=run.estimate > base.sure_high and run.low > base.high)


def _deep(run: Measured, base: Baseline) -> bool:
    """Whether the fraction is below what chance in a baseline of few days explains."""
    return run.estimate < base.sure_low


def _any_deep(runs: DayRuns, base: Baseline | None) -> bool:
    return base is not None and any(_deep(run, base) for run in runs)


def _near(place: int, deep: Sequence[bool]) -> bool:
    """Whether another day within `IN_A_ROW` days in a row is deep, too."""
    first = max(0, place - IN_A_ROW + 1)
    return any(deep[d] for d in range(first, min(len(deep), place + IN_A_ROW)) if d != place)
