"""Intervals for a number of cells that was fixed beforehand, or at least did not depend on their labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

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
