"""The tank-treading fraction and how well it is known."""

from __future__ import annotations

import math
import operator

from scipy.special import ndtri

from napari_rbcflow.estimate import fixed_width
from napari_rbcflow.estimate.anytime import ConfidenceSequence


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
        self._sequence = ConfidenceSequence(self.level)

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
        self._sequence.update(self.tank_treading, self.n)

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

        See `anytime`: the looks are the calls of `update`; asking changes nothing.
        """
        return self._sequence.interval

    def fixed_width_interval(self, half_width: float) -> tuple[float, float]:
        """Return an interval that holds for a run that stops when its half-width reaches `half_width`.

        See `fixed_width`: at that stop `half_width` to either side of the shrunken estimate (or up to 0 or
        1), before it wider. The first call for a half-width takes a second or less, more for narrow ones.

        Raises
        ------
        ValueError
            For a half-width outside (0, 0.5).
        """
        if not 0 < half_width < 0.5:
            raise ValueError(f"a half-width lies between 0 and 0.5, not {half_width}")
        if not self.n:
            return 0.0, 1.0
        z = fixed_width.critical_value(float(half_width), self.level)
        return fixed_width.interval(self.tank_treading, self.n, half_width, z)


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
