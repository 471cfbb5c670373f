"""The tank-treading fraction and how well it is known."""

from __future__ import annotations

import math
import operator
from typing import Any

from napari_rbcflow.estimate import intervals
from napari_rbcflow.estimate.intervals import INTERVALS, ConfidenceSequence
from napari_rbcflow.sentences import say


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
            raise ValueError(say("estimate.level-outside", level=level))
        self.level = float(level)
        self.tank_treading = 0
        self.flipping = 0
        self._sequence = ConfidenceSequence(self.level)

    def update(self, *, tank_treading: int = 0, flipping: int = 0) -> None:
        """Count more cells."""
        k, m = whole(tank_treading), whole(flipping)
        self.tank_treading += k
        self.flipping += m
        self._sequence.update(self.tank_treading, self.n)

    @property
    def n(self) -> int:
        """Cells counted."""
        return self.tank_treading + self.flipping

    @property
    def estimate(self) -> float:
        """The fraction; NaN if nothing was counted."""
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
            raise ValueError(say("estimate.interval-unknown", method=method))
        return INTERVALS[method](self.tank_treading, self.n, self.level)

    def anytime_interval(self) -> tuple[float, float]:
        """Return the interval that is valid after every `update` at once, whatever rule stops the run."""
        return self._sequence.interval

    def fixed_width_interval(self, half_width: float, at_least: int = 1) -> tuple[float, float]:
        """Return the interval that is valid for a run that stops when its half-width reaches `half_width`.

        At that stop it reaches `half_width` to either side of `shrunken_estimate` (or to 0 or 1); before, it
        is wider. The first call for a half-width takes up to a second, more for narrow ones.

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
            raise ValueError(say("estimate.half-width-outside", half_width=half_width))
        if not self.n:
            return 0.0, 1.0
        z = intervals.critical_value(float(half_width), self.level, at_least)
        return intervals.interval(self.tank_treading, self.n, half_width, z)


def whole(count: Any) -> int:
    """Return a count as an int; a ValueError if it is negative or not a whole number."""
    try:
        number = operator.index(count)
    except TypeError:
        raise ValueError(say("estimate.counts-not-whole", count=count)) from None
    if number < 0:
        raise ValueError(say("estimate.counts-negative", count=number))
    return number
