"""The tank-treading fraction and how well it is known."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from scipy.special import betaln, ndtri


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for `k` of `n`, for an `n` fixed beforehand.

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


class RunningFraction:
    """Tank-treading / (tank-treading + flipping), updated as cells are labelled.

    Parameters
    ----------
    level : float
        Confidence level of every interval, in (0, 1).

    Raises
    ------
    ValueError
        For a level outside (0, 1), or counts that are negative or no whole numbers.
    """

    def __init__(self, level: float = 0.95) -> None:
        if not 0 < level < 1:
            raise ValueError(f"the confidence level must lie between 0 and 1, not {level}")
        self.level = float(level)
        self.tank_treading = 0
        self.flipping = 0

    def update(self, *, tank_treading: int = 0, flipping: int = 0) -> None:
        """Count more cells."""
        try:
            k, m = operator.index(tank_treading), operator.index(flipping)
        except TypeError:
            raise ValueError(f"counts are whole numbers, not {tank_treading!r} and {flipping!r}") from None
        if k < 0 or m < 0:
            raise ValueError(f"counts cannot be negative: {k} and {m}")
        self.tank_treading += k
        self.flipping += m

    @property
    def n(self) -> int:
        """Cells counted."""
        return self.tank_treading + self.flipping

    @property
    def estimate(self) -> float:
        """The fraction; NaN where nothing was counted."""
        return self.tank_treading / self.n if self.n else math.nan

    def interval(self) -> tuple[float, float]:
        """Return Wilson's interval, for a number of cells that was fixed beforehand."""
        return wilson(self.tank_treading, self.n, self.level)

    @property
    def half_width(self) -> float:
        """Half of the width of `interval`; 0.5 where nothing was counted."""
        low, high = self.interval()
        return (high - low) / 2

    def anytime_interval(self) -> tuple[float, float]:
        """Return an interval that holds at every look at once, whatever rule stops the run.

        Robbins' mixture: under the true p the Beta(1/2, 1/2) mixture likelihood ratio is a
        nonnegative martingale of mean 1, so that it ever exceeds 1 / (1 - level) with a probability
        of at most 1 - level (Ville). The interval is the set of p for which it does not now: what was
        said at earlier looks is not needed, and so does not depend on how often one looked.

        References
        ----------
        Robbins, H. (1970). Statistical methods related to the law of the iterated logarithm.
        Annals of Mathematical Statistics 41, 1397-1409.
        """
        k, m = self.tank_treading, self.flipping
        if not k + m:
            return 0.0, 1.0
        bound = betaln(k + 0.5, m + 0.5) - betaln(0.5, 0.5) + math.log(1 - self.level)

        def outside(p: float) -> bool:
            likelihood = (k * math.log(p) if k else 0.0) + (m * math.log1p(-p) if m else 0.0)
            return bool(likelihood < bound)

        peak = k / (k + m)
        low = 0.0 if k == 0 else _edge(outside, 0.0, peak)
        high = 1.0 if m == 0 else _edge(outside, 1.0, peak)
        return low, high

    def fixed_width_interval(self, half_width: float) -> tuple[float, float]:
        """Return an interval that holds for a run that stops when its half-width reaches `half_width`.

        For now `anytime_interval`, which holds for that rule as for any other but is wider than
        a rule made for it would be.
        """
        if not 0 < half_width < 0.5:
            raise ValueError(f"a half-width lies between 0 and 0.5, not {half_width}")
        return self.anytime_interval()


def _edge(outside: Callable[[float], bool], out: float, inside: float) -> float:
    """Bisect for the edge of the interval, and return the side that is outside: never too narrow."""
    for _ in range(60):
        middle = (out + inside) / 2
        if middle in (out, inside):
            break
        if outside(middle):
            out = middle
        else:
            inside = middle
    return out


def fraction_text(estimate: float, interval: tuple[float, float], n: int, level: float = 0.95) -> str:
    """Say the fraction, never without its interval."""
    if math.isnan(estimate):
        return "no fraction: no reliable cell"
    low, high = interval
    cells = "1 reliable cell" if n == 1 else f"{n} reliable cells"
    return (
        f"tank-treading {100 * estimate:.1f} % "
        f"({100 * level:.0f} % interval {100 * low:.1f} to {100 * high:.1f} %, {cells})"
    )
