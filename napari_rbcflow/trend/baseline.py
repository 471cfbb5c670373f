"""A patient's own baseline: mean and two standard deviations of the fraction, outside crises.

Darrin et al., Scientific Reports 13 (2023) 745, section "Patent description": the fraction at the time of a
crisis "was significantly lower than the range observed out of a crisis obtained from a 6-month weekly
observation of this ratio, i.e. mean value +- twice the standard deviation".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
