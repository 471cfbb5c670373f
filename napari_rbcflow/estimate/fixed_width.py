"""An interval of a width chosen beforehand, for a run that stops as soon as it can say one.

The run stops at the first n at which z sqrt(q (1 - q) / n) is at most the half-width H, with
q = (k + 2) / (n + 4); the interval is q - H to q + H. z is the least for which the interval holds the true
fraction with the wanted probability *at that stop*, whatever the fraction is: the probability of every
point at which the run may stop is summed exactly, for every fraction at which the sum can be least.

References
----------
Frey, J. (2010). Fixed-width sequential confidence intervals for a proportion. The American Statistician
64, 242-249: the rule with a shrunken estimate, and its exact calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri

_SHRINK = 2.0
"""Cells of each kind that are counted beforehand. Of 1 to 6, 2 needs the fewest cells
(docs/decisions/estimate.md), and the same estimate can decide on the stop and stand in the middle."""
_NARROWEST = 0.02
"""Half-width from which on z is that of 0.02, which takes seconds: it falls towards the normal one."""
_Z_STEPS = 12
_AWAY = 1e-9
"""Beside an interval's end, where coverage jumps."""


@dataclass(frozen=True, eq=False)
class Stops:
    """Every point at which a run may stop.

    Attributes
    ----------
    k, n : ndarray of int64, shape (m,)
        Tank-treading cells, and cells in all.
    log_paths : ndarray of float64, shape (m,)
        Logarithm of the number of ways there that do not stop before.
    low, high : ndarray of float64, shape (m,)
        The interval that is said there.
    """

    k: NDArray[np.int64]
    n: NDArray[np.int64]
    log_paths: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def chances(self, p: float) -> NDArray[np.float64]:
        """Probability of stopping at each point where the true fraction is `p`, in (0, 1)."""
        chances: NDArray[np.float64] = np.exp(
            self.log_paths + self.k * math.log(p) + (self.n - self.k) * math.log1p(-p)
        )
        return chances

    def coverage(self, p: float) -> float:
        """Probability that the interval holds the true fraction `p`."""
        return float(self.chances(p)[(self.low <= p) & (p <= self.high)].sum())

    def mean_cells(self, p: float) -> float:
        """Cells counted in the mean where the true fraction is `p`."""
        return float((self.chances(p) * self.n).sum())

    def least_coverage(self) -> tuple[float, float]:
        """Least coverage over all fractions, and the fraction where it is.

        Coverage jumps at the intervals' ends and is smooth between: both sides of each end are tried, and
        a grid between. The rule treats both kinds of cells alike, so that half of the fractions do.
        """
        ends = np.concatenate([self.low, self.high])
        tried = np.concatenate([ends - _AWAY, ends + _AWAY, np.linspace(0.5, 0.9995, 500)])
        tried = np.unique(tried[(tried >= 0.5) & (tried < 1.0 - _AWAY)])
        found = [self.coverage(float(p)) for p in tried]
        worst = int(np.argmin(found))
        return found[worst], float(tried[worst])


def middle(k: float, n: int) -> float:
    """Return the shrunken estimate, the middle of the interval."""
    return (k + _SHRINK) / (n + 2 * _SHRINK)


def half_width(k: float, n: int, z: float) -> float:
    """Return the half-width that `n` cells give, `k` of them tank-treading; 0.5 where that is more."""
    if not n:
        return 0.5
    q = middle(k, n)
    return min(0.5, z * math.sqrt(q * (1 - q) / n))


def interval(k: int, n: int, wanted: float, z: float) -> tuple[float, float]:
    """Return the interval for a run that stops at the half-width `wanted`; wider before it stops."""
    q, half = middle(k, n), max(wanted, half_width(k, n, z))
    return (0.0 if k == 0 else max(0.0, q - half)), (1.0 if k == n else min(1.0, q + half))


def most_cells(wanted: float, z: float) -> int:
    """Return the number of cells with which a run has stopped, whatever they are."""
    return math.ceil((z / wanted) ** 2 / 4)


@lru_cache(maxsize=64)
def critical_value(wanted: float, level: float = 0.95, at_least: int = 1) -> float:
    """Return the least z for which the interval covers at the stop, for whatever fraction.

    Parameters
    ----------
    wanted : float
        Half-width at which the run stops, 0 to 0.5.
    level : float
        Confidence level in (0, 1).
    at_least : int
        Cells before which the run does not stop.

    Returns
    -------
    float
        A little above the normal quantile: 2.000 for 0.05 at 95 %.
    """
    if wanted < _NARROWEST:
        # The least number is of cells at this width: at 0.02 it would mean more than it does.
        wanted, at_least = _NARROWEST, 1
    normal = float(ndtri(0.5 + level / 2))
    low, high = normal, 2 * normal
    while stops(wanted, high, at_least).least_coverage()[0] < level:
        low, high = high, 2 * high
    for _ in range(_Z_STEPS):
        z = (low + high) / 2
        if stops(wanted, z, at_least).least_coverage()[0] >= level:
            high = z
        else:
            low = z
    return high


def stops(wanted: float, z: float, at_least: int = 1) -> Stops:
    """Return every point at which a run may stop, by counting the ways to it."""
    most = max(at_least, most_cells(wanted, z)) + 1
    k, n, log_paths = _stops(wanted, z, _SHRINK, at_least, most)
    q = (k + _SHRINK) / (n + 2 * _SHRINK)
    low, high = np.maximum(0.0, q - wanted), np.minimum(1.0, q + wanted)
    return Stops(k, n, log_paths, np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high))


@njit(cache=True)
def _stops(
    wanted: float, z: float, shrink: float, at_least: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Count the ways to every stop, in logarithms: there are up to 2^most of them."""
    # By k: at most one stop each time that a row is left, and no row is entered again from below.
    room = 4 * (most + 2)
    k_stop, n_stop, ways = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    found = 0
    here = np.full(most + 2, -np.inf)
    here[0] = 0.0
    for n in range(1, most + 1):
        there = np.full(most + 2, -np.inf)
        going = False
        for k in range(n + 1):
            stay = here[k]
            rise = here[k - 1] if k > 0 else -np.inf
            greater = max(stay, rise)
            if greater == -np.inf:
                continue
            total = greater + math.log(math.exp(stay - greater) + math.exp(rise - greater))
            q = (k + shrink) / (n + 2 * shrink)
            if n >= at_least and z * math.sqrt(q * (1 - q) / n) <= wanted:
                if found == room:
                    room *= 2
                    k_stop = np.concatenate((k_stop, np.empty(room - found, np.int64)))
                    n_stop = np.concatenate((n_stop, np.empty(room - found, np.int64)))
                    ways = np.concatenate((ways, np.empty(room - found)))
                k_stop[found], n_stop[found], ways[found] = k, n, total
                found += 1
            else:
                there[k] = total
                going = True
        here = there
        if not going:
            break
    return k_stop[:found], n_stop[:found], ways[:found]
