"""A patient's own baseline: mean and two standard deviations, and which runs lie below it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from scipy.special import ndtr, stdtrit

LEAST_DAYS = 4
"""From fewer days no baseline is said: its limit would be little more than chance."""
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Day:
    """What was measured on one day, as it enters the baseline.

    Attributes
    ----------
    estimate : float
        The fraction, in [0, 1].
    n : int
        Cells counted.
    """

    estimate: float
    n: int

    @classmethod
    def of(cls, runs: Sequence[tuple[float, int]]) -> Day:
        """Take the runs of a day together, each (estimate, n) weighing as many cells as it counted.

        A day that was measured three times is no three days: the spread between days is what a
        baseline is made of.
        """
        n = sum(cells for _, cells in runs)
        return cls(sum(estimate * cells for estimate, cells in runs) / n, n)


@dataclass(frozen=True)
class Baseline:
    """Mean and standard deviation over days, each day weighing the same, as in the paper.

    Attributes
    ----------
    mean, sd : float
        Of the fraction; `sd` with one degree of freedom taken off.
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
        """Return the baseline of these days; None of fewer than `LEAST_DAYS`."""
        if len(days) < LEAST_DAYS:
            return None
        estimates = np.array([day.estimate for day in days])
        n = np.array([day.n for day in days], np.float64)
        # Two cells of each kind added, as none flipping of 200 does not mean that none ever flips.
        p = (estimates * n + 2) / (n + 4)
        return cls(
            mean=float(estimates.mean()),
            sd=float(estimates.std(ddof=1)),
            days=len(days),
            counting_sd=math.sqrt(float(np.mean(p * (1 - p) / n))),
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
        """As `low`, but with no standard deviation below what counting alone makes.

        Days that happen to lie closer together than counting so many cells lets them would else make an
        ordinary day look low.
        """
        return max(0.0, self.mean - DEVIATIONS * max(self.sd, self.counting_sd))

    @property
    def sure_low(self) -> float:
        """The limit that also a baseline of so few days carries; at least 0, and never above `low`.

        A steady patient's next run falls below it as rarely as below two standard deviations of a baseline
        from ever so many days (one in 44): the prediction limit for one more value from a normal sample. No
        standard deviation below what counting alone makes is believed.

        References
        ----------
        Hahn, G. J., Meeker, W. Q. (1991). Statistical Intervals. Wiley, section 4.7.
        """
        return max(0.0, self.mean - few_days_factor(self.days) * max(self.sd, self.counting_sd))

    @property
    def sure_high(self) -> float:
        """The same on the other side."""
        return min(1.0, self.mean + few_days_factor(self.days) * max(self.sd, self.counting_sd))


@cache
def few_days_factor(days: int) -> float:
    """Return how many standard deviations of so few days stand for two of ever so many: 3.7 for four days."""
    return float(stdtrit(days - 1, ndtr(DEVIATIONS))) * math.sqrt(1 + 1 / days)


IN_A_ROW = 3
"""Two days of so many in a row confirm each other."""


class Below(StrEnum):
    """Whether a run lies below the patient's baseline."""

    YES = "yes"
    PERHAPS = "perhaps"
    NO = "no"
    UNKNOWN = ""
    """There are too few other days, or its number must not be acted on."""


@dataclass(frozen=True)
class Measured:
    """One run's fraction, all in [0, 1], of `n` cells."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """What is said of one run.

    Attributes
    ----------
    below : Below
    against : Baseline or None
        That of the other days.
    limit : float or None
        Under it, a fraction lies at least perhaps below.
    in_a_row : bool
        It lies below for the sake of another day close to it.
    above : bool
        It lies as clearly above as others lie below.
    """

    below: Below
    against: Baseline | None = None
    limit: float | None = None
    in_a_row: bool = False
    above: bool = False


DayRuns = Sequence[Measured]


def left_out(days: Sequence[DayRuns], candidates: Collection[int]) -> set[int]:
    """Return the places of the days that lie below the baseline which the other candidates make.

    Parameters
    ----------
    days : sequence of sequence of Measured
        In the order of time, each with one run or more.
    candidates : collection of int
        Places of the days that may make the baseline.
    """
    found: set[int] = set()
    most = min(len(candidates) - LEAST_DAYS, (len(candidates) - 1) // 2)
    # Low in two senses, as a low number from few cells has a high upper end.
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
    # What is left may hold a day that only now stands out.
    while len(found) < most:
        rest = set(candidates) - found
        said = judge(days, rest)
        out = [d for d in rest if any(verdict.below is Below.YES for verdict in said[d])]
        if not out:
            break
        found.add(min(out, key=keys[0]))
    return found


def judge(days: Sequence[DayRuns], made_from: Collection[int]) -> list[list[Verdict]]:
    """Return the verdict on each run of each day.

    Parameters
    ----------
    days : sequence of sequence of Measured
        In the order of time.
    made_from : collection of int
        Places of the days that make the baseline.
    """
    whole = Baseline.of([_day(days[d]) for d in sorted(made_from)])
    against = [
        Baseline.of([_day(days[d]) for d in sorted(made_from) if d != place]) if place in made_from else whole
        for place in range(len(days))
    ]
    deep = [_any_deep(runs, base) for runs, base in zip(days, against, strict=True)]
    return [
        [_verdict(run, base, whole, confirmed=_near(place, deep)) for run in runs]
        for place, (runs, base) in enumerate(zip(days, against, strict=True))
    ]


def _all_below(days: Sequence[DayRuns], low: set[int], rest: set[int]) -> bool:
    base = Baseline.of([_day(days[d]) for d in sorted(rest)])
    deep = [place in low and _any_deep(runs, base) for place, runs in enumerate(days)]
    return all(
        any(_verdict(run, base, base, confirmed=_near(d, deep)).below is Below.YES for run in days[d])
        for d in low
    )


def _verdict(run: Measured, base: Baseline | None, whole: Baseline | None, *, confirmed: bool) -> Verdict:
    if base is None or whole is None:
        return Verdict(Below.UNKNOWN)
    # What lies under the baseline that is shown is never called fine.
    limit = max(base.limit, whole.low)
    if _deep(run, base):
        if run.high < base.low:
            return Verdict(Below.YES, base, limit)
        if confirmed:
            return Verdict(Below.YES, base, limit, in_a_row=True)
    if run.estimate < limit:
        return Verdict(Below.PERHAPS, base, limit)
    return Verdict(Below.NO, base, limit, above=run.estimate > base.sure_high and run.low > base.high)


def _deep(run: Measured, base: Baseline) -> bool:
    """Whether the fraction lies below what chance in a baseline from few days explains."""
    return run.estimate < base.sure_low


def _any_deep(runs: DayRuns, base: Baseline | None) -> bool:
    return base is not None and any(_deep(run, base) for run in runs)


def _near(place: int, deep: Sequence[bool]) -> bool:
    """Whether another day, so near that both are among `IN_A_ROW` in a row, lies deep too."""
    first = max(0, place - IN_A_ROW + 1)
    return any(deep[d] for d in range(first, min(len(deep), place + IN_A_ROW)) if d != place)


def _day(runs: DayRuns) -> Day:
    return Day.of([(run.estimate, run.n) for run in runs])
