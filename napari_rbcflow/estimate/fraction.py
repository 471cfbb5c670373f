"""The tank-treading fraction and how well it is known."""

from __future__ import annotations

import math
import operator

from napari_rbcflow.estimate import intervals
from napari_rbcflow.estimate.intervals import FIXED_N, INTERVALS, ConfidenceSequence


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

    def interval(self, method: str = "wilson") -> tuple[float, float]:
        """Return the interval for a number of cells that was fixed beforehand.

        Parameters
        ----------
        method : {"wilson", "jeffreys", "clopper-pearson"}
            See `intervals`.

        Raises
        ------
        ValueError
            For another method.
        """
        if method not in INTERVALS:
            raise ValueError(f"the interval is {', '.join(FIXED_N[:-1])} or {FIXED_N[-1]}, not {method!r}")
        return INTERVALS[method](self.tank_treading, self.n, self.level)

    def anytime_interval(self) -> tuple[float, float]:
        """Return an interval that holds at every look at once, whatever rule stops the run.

        See `intervals`: the looks are the calls of `update`; asking changes nothing.
        """
        return self._sequence.interval

    def fixed_width_interval(self, half_width: float, at_least: int = 1) -> tuple[float, float]:
        """Return an interval that holds for a run that stops when its half-width reaches `half_width`.

        See `intervals`: at that stop `half_width` to either side of the shrunken estimate (or up to 0 or
        1), before it wider. The first call for a half-width takes a second or less, more for narrow ones.

        Parameters
        ----------
        half_width : float
            In (0, 0.5).
        at_least : int
            Cells before which the run does not stop.

        Raises
        ------
        ValueError
            For a half-width outside (0, 0.5).
        """
        if not 0 < half_width < 0.5:
            raise ValueError(f"a half-width lies between 0 and 0.5, not {half_width}")
        if not self.n:
            return 0.0, 1.0
        z = intervals.critical_value(float(half_width), self.level, at_least)
        return intervals.interval(self.tank_treading, self.n, half_width, z)
