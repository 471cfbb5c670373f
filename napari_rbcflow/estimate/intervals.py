"""Intervals of a fraction: for a fixed number of cells, a fixed width, and every look at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import lgamma
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from napari_rbcflow.compiled import njit

FixedN = Literal["wilson", "jeffreys", "clopper-pearson"]
"""Their names, as in ``run.json``."""
FIXED_N: tuple[FixedN, ...] = get_args(FixedN)
FEW_CELLS = 30
"""Counted cells below which the interval spans most of what a patient's fraction could be."""


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for `k` of `n`: covers `level` in the mean over fractions, and is short.

    Parameters
    ----------
    k, n : int
        Successes and trials, ``0 <= k <= n``.
    level : float
        Confidence level in (0, 1).

    Returns
    -------
    low, high : float
        (0, 1) where nothing was counted.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference.
    Journal of the American Statistical Association 22, 209-212.
    """
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + level / 2))
    p = k / n
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the two terms cancel to the last digit only in exact arithmetic.
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return low, high


def jeffreys(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of Jeffreys' prior, Beta(1/2, 1/2), with equal tails; at the ends from 0 or to 1.

    Parameters and returned values as `wilson`.

    References
    ----------
    Brown, L. D., Cai, T. T., DasGupta, A. (2001). Interval estimation for a binomial proportion.
    Statistical Science 16, 101-133: section 4.1.1.
    """
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k + 0.5, n - k + 0.5, tail))
    high = 1.0 if k == n else float(betaincinv(k + 0.5, n - k + 0.5, 1 - tail))
    return low, high


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the exact tests: covers `level` at least for every fraction, and is the widest.

    Parameters and returned values as `wilson`.

    References
    ----------
    Clopper, C. J., Pearson, E. S. (1934). The use of confidence or fiducial limits illustrated in the case
    of the binomial. Biometrika 26, 404-413.
    """
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


INTERVALS: Mapping[str, Callable[[int, int, float], tuple[float, float]]] = {
    "wilson": wilson,
    "jeffreys": jeffreys,
    "clopper-pearson": clopper_pearson,
}


_CELLS = 400.0
_STEPS = 60
_MOST_CELLS = 1e6


class ConfidenceSequence:
    """The anytime interval: the part that all intervals so far, one after each `update`, have in common."""

    def __init__(self, level: float) -> None:
        self._bound = -math.log1p(-level)
        self._low, self._high = 0.0, 1.0

    @property
    def interval(self) -> tuple[float, float]:
        return self._low, self._high

    def update(self, k: int, n: int) -> None:
        """Take in that there are `n` cells now, `k` of them tank-treading.

        All intervals hold at once, so their common part does (running intersection). If that were empty,
        which has the chance of an error, the newest interval alone is kept.
        """
        m = n - k
        if not n:
            return
        peak = k / n
        low = high = None
        # Most cells move neither end: two likelihood ratios, and no search.
        if self._low >= peak or _ratio(self._low, k, m) > self._bound:
            low = _edge(self._bound, k, m, 0.0, peak) if k else 0.0
        if self._high <= peak or _ratio(self._high, k, m) > self._bound:
            high = _edge(self._bound, k, m, 1.0, peak) if m else 1.0
        if low is not None:
            self._low = max(low, self._low)
        if high is not None:
            self._high = min(high, self._high)
        if self._low > self._high:
            self._low = _edge(self._bound, k, m, 0.0, peak) if k else 0.0
            self._high = _edge(self._bound, k, m, 1.0, peak) if m else 1.0


def cells_to_leave(p: float, estimate: float, level: float) -> float | None:
    """Return the cells, at most a million, of a fraction of `estimate` that make the interval exclude `p`."""
    bound = -math.log1p(-level)
    low, high = 0.0, 1.0
    while _ratio(p, estimate * high, (1 - estimate) * high) <= bound:
        low, high = high, 2 * high
        if high > _MOST_CELLS:
            return None
    while high - low > 0.5:
        n = (low + high) / 2
        if _ratio(p, estimate * n, (1 - estimate) * n) > bound:
            high = n
        else:
            low = n
    return high


def _ratio(p: float, k: float, m: float) -> float:
    """Return the logarithm of the mixture's likelihood over that of `p`."""
    if p <= 0.0:
        return math.inf if k else 0.0
    if p >= 1.0:
        return math.inf if m else 0.0
    cells = max(_CELLS * p * (1 - p), 1.0)
    a, b = cells * p, cells * (1 - p)
    mixture = lgamma(k + a) - lgamma(a) + lgamma(m + b) - lgamma(b) + lgamma(cells) - lgamma(cells + k + m)
    return mixture - k * math.log(p) - m * math.log1p(-p)


def _edge(bound: float, k: int, m: int, out: float, inside: float) -> float:
    """Bisect for the end of the interval, and return the side that is outside: never too narrow."""
    for _ in range(_STEPS):
        middle = (out + inside) / 2
        if middle in (out, inside):
            break
        if _ratio(middle, k, m) > bound:
            out = middle
        else:
            inside = middle
    return out


_SHRINK = 2.0
"""Pseudo-counts of each kind. Of 1 to 6, 2 needs the fewest cells (docs/decisions/estimate.md), and the same
estimate can decide on the stop and be the middle of the interval."""
_NARROWEST = 0.02
"""Half-width below which its z is used, as narrower ones take seconds: z falls towards the normal one."""
_Z_STEPS = 12
_AWAY = 1e-9  # from an interval's end, where coverage jumps


@dataclass(frozen=True, eq=False)
class Stops:
    """Every point at which a run may stop: arrays of one shape, (m,)."""

    k: NDArray[np.int64]  # tank-treading cells
    n: NDArray[np.int64]  # cells in all
    log_paths: NDArray[np.float64]  # logarithm of the number of ways there that do not stop before
    low: NDArray[np.float64]  # the interval reported there
    high: NDArray[np.float64]

    def chances(self, p: float) -> NDArray[np.float64]:
        """Return the probability of stopping at each point if the true fraction is `p`, in (0, 1)."""
        chances: NDArray[np.float64] = np.exp(
            self.log_paths + self.k * math.log(p) + (self.n - self.k) * math.log1p(-p)
        )
        return chances

    def coverage(self, p: float) -> float:
        """Return the probability that the interval holds the true fraction `p`."""
        return float(self.chances(p)[(self.low <= p) & (p <= self.high)].sum())

    def least_coverage(self) -> tuple[float, float]:
        """Return the least coverage over all fractions, and the fraction where it is."""
        # Coverage jumps at the intervals' ends and is smooth between. The rule treats both kinds of cells
        # alike, so fractions above one half are enough.
        ends = np.concatenate([self.low, self.high])
        tried = np.concatenate([ends - _AWAY, ends + _AWAY, np.linspace(0.5, 0.9995, 500)])
        tried = np.unique(tried[(tried >= 0.5) & (tried < 1.0 - _AWAY)])
        found = [self.coverage(float(p)) for p in tried]
        worst = int(np.argmin(found))
        return found[worst], float(tried[worst])


def shrunken_estimate(k: float, n: int) -> float:
    """Return the middle of the fixed-width interval: the fraction with two cells of each kind added.

    Parameters
    ----------
    k : float
        Tank-treading cells.
    n : int
        All counted cells.
    """
    return (k + _SHRINK) / (n + 2 * _SHRINK)


def half_width(k: float, n: int, z: float) -> float:
    """Return the half-width that `n` cells give, `k` of them tank-treading; at most 0.5."""
    if not n:
        return 0.5
    q = shrunken_estimate(k, n)
    return min(0.5, z * math.sqrt(q * (1 - q) / n))


def interval(k: int, n: int, wanted: float, z: float) -> tuple[float, float]:
    """Return the interval for a run that stops at the half-width `wanted`; wider before it stops."""
    q, half = shrunken_estimate(k, n), max(wanted, half_width(k, n, z))
    return (0.0 if k == 0 else max(0.0, q - half)), (1.0 if k == n else min(1.0, q + half))


def most_cells(wanted: float, z: float) -> int:
    """Return the number of cells after which a run has stopped, whatever they are."""
    return math.ceil((z / wanted) ** 2 / 4)


@lru_cache(maxsize=64)
def critical_value(wanted: float, level: float = 0.95, at_least: int = 1) -> float:
    """Return the least z for which the interval covers at the stop, whatever the fraction.

    It is a little above the normal quantile: 2.000 for a half-width `wanted` of 0.05 at 95 %. `at_least`
    cells are counted before the run may stop.
    """
    if wanted < _NARROWEST:
        # `at_least` belongs to the narrower width: at 0.02 it would matter more than it does.
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
