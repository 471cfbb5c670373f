"""Intervals of a fraction: for a fixed number of cells, a fixed width, and every look at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import lgamma
from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

FixedN = Literal["wilson", "jeffreys", "clopper-pearson"]
"""Their names, as ``--interval`` takes them and ``run.json`` gives them."""
FIXED_N: tuple[FixedN, ...] = get_args(FixedN)


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


_BITS = 30
_POLYNOMIALS = (
    (0, (1,)),
    (1, (1, 3)),
    (1, (1, 3, 1)),
    (2, (1, 1, 1)),
    (1, (1, 1, 3, 3)),
    (4, (1, 3, 5, 13)),
    (2, (1, 1, 5, 5, 17)),
    (4, (1, 1, 5, 5, 5)),
    (7, (1, 1, 7, 11, 19)),
    (11, (1, 1, 5, 1, 1)),
)
"""Of the second dimension on: the polynomial, its inner coefficients as bits, and the first directions."""
MOST_DIMENSIONS = len(_POLYNOMIALS) + 1


def sobol(dimensions: int, n: int) -> NDArray[np.float64]:
    """Return the first `n` points of the sequence, not scrambled.

    Parameters
    ----------
    dimensions : int
        At most `MOST_DIMENSIONS`.
    n : int

    Returns
    -------
    ndarray of float64, shape (dimensions, n)
        In [0, 1); the first point is 0.

    Raises
    ------
    ValueError
        For too many dimensions.
    """
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"this Sobol sequence has 1 to {MOST_DIMENSIONS} dimensions, not {dimensions}")
    k = np.arange(n, dtype=np.int64)
    gray = k ^ (k >> 1)
    out = np.zeros((dimensions, n), np.int64)
    for row, direction in zip(out, [_first(), *map(_directions, _POLYNOMIALS)], strict=False):
        for bit in range(int(n).bit_length()):
            row ^= ((gray >> bit) & 1) * (direction[bit] << (_BITS - 1 - bit))
    return out / 2.0**_BITS


def _first() -> list[int]:
    return [1] * _BITS


def _directions(polynomial: tuple[int, tuple[int, ...]]) -> list[int]:
    """Direction numbers, continued by the polynomial's recurrence."""
    inner, first = polynomial
    m, degree = list(first), len(first)
    for i in range(degree, _BITS):
        following = m[i - degree] ^ (m[i - degree] << degree)
        for j in range(1, degree):
            if inner >> (degree - 1 - j) & 1:
                following ^= m[i - j] << j
        m.append(following)
    return m


_CELLS = 400.0
_STEPS = 60
_MOST_CELLS = 1e6


class ConfidenceSequence:
    """The interval after every cell so far, and what all the looks before left of it.

    Lifecycle: `update` with the counts after each cell or batch -> `interval`. Looking changes nothing.

    Parameters
    ----------
    level : float
        In (0, 1).
    """

    def __init__(self, level: float) -> None:
        self._bound = -math.log1p(-level)
        self._low, self._high = 0.0, 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """What is left of 0 to 1: low, high."""
        return self._low, self._high

    def update(self, k: int, n: int) -> None:
        """Take in that there are `n` cells now, `k` of them tank-treading.

        What is cut off stays cut off (running intersection): each look's interval holds with all others, so
        their common part does. Where nothing were left, which has the chance of an error, the
        newest look's interval stands.
        """
        m = n - k
        if not n:
            return
        peak = k / n
        low = high = None
        # Most cells move neither end: two weighings, and no search.
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
    """Return how many cells with a fraction of `estimate` it takes until the interval leaves `p`.

    None where that is more than a million, as where the two are the same.
    """
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
    """Logarithm of the mixture's likelihood over that of `p`."""
    if p <= 0.0:
        return math.inf if k else 0.0
    if p >= 1.0:
        return math.inf if m else 0.0
    cells = max(_CELLS * p * (1 - p), 1.0)
    a, b = cells * p, cells * (1 - p)
    mixture = lgamma(k + a) - lgamma(a) + lgamma(m + b) - lgamma(b) + lgamma(cells) - lgamma(cells + k + m)
    return mixture - k * math.log(p) - m * math.log1p(-p)


def _edge(bound: float, k: int, m: int, out: float, inside: float) -> float:
    """Bisect for the edge of the interval, and return the side that is outside: never too narrow."""
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
