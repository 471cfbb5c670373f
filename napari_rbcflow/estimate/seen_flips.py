"""The chance that a flipping cell is called flipping, by how long it was watched.

A track shows the middle of a turn, or some of a turn only, or nothing of one: how often each, follows from
Jeffery's period (`turning`). How often a cell is called flipping in each of the three cases was counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.estimate.rates import Rate
from napari_rbcflow.estimate.turning import turn_seen

Floats = NDArray[np.float64]

_NODES = 3
"""Of each rate, for what its counts leave open (Gauss and Hermite's)."""


@dataclass(frozen=True)
class SeenFlips:
    """How often a flipping cell is called flipping, of those that are counted.

    Attributes
    ----------
    name : str
        What stands as the method in ``run.json``.
    middle, part, none : Rate or float
        Where the track shows the middle of a turn, some of a turn without its middle, nothing of one. A
        number is taken as known; the uncertainty of a rate goes into the interval.
    stage2 : str
        Beginning of the hash of the stage 2 that was counted; empty for any.
    """

    name: str
    middle: Rate | float
    part: Rate | float
    none: Rate | float
    stage2: str = ""

    def chance(self, repeats: Floats) -> Floats:
        """Return the chance for each track.

        Parameters
        ----------
        repeats : ndarray of float64, shape (n,)
            Length of each track over that after which a flipping cell's picture repeats.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        rates = [rate.value if isinstance(rate, Rate) else rate for rate in self._rates]
        chance: Floats = _mixed(repeats, np.array([rates]))[0]
        return chance

    def possible(self, repeats: Floats) -> tuple[Floats, Floats]:
        """Return the chances that the counts leave possible, shape (m, n), and their weights, shape (m,)."""
        nodes = [_nodes(rate) for rate in self._rates]
        rates = np.array(list(product(*(values for values, _ in nodes))))
        weights = np.prod(list(product(*(weights for _, weights in nodes))), axis=1)
        return _mixed(repeats, rates), weights

    def interval(self, repeats: Floats) -> tuple[Floats, Floats]:
        """Return how well the chance is known at each length: two standard deviations to either side."""
        chances, weights = self.possible(repeats)
        mean = weights @ chances
        spread = 2 * np.sqrt(np.maximum(weights @ (chances - mean) ** 2, 0.0))
        return np.maximum(mean - spread, 0.0), np.minimum(mean + spread, 1.0)

    @property
    def _rates(self) -> tuple[Rate | float, Rate | float, Rate | float]:
        return self.middle, self.part, self.none


def _mixed(repeats: Floats, rates: Floats) -> Floats:
    """Return the chance at each length for each (middle, part, none)."""
    middle, some = turn_seen(repeats), turn_seen(repeats, reach=1.0)
    mixed: Floats = rates @ np.stack([middle, some - middle, 1.0 - some])
    return mixed


def _nodes(rate: Rate | float) -> tuple[Floats, Floats]:
    """Return values that a rate may have, and their weights: normal in its logit, half a cell added."""
    if not isinstance(rate, Rate):
        return np.array([rate]), np.ones(1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    hits, misses = rate.hits + 0.5, rate.of - rate.hits + 0.5
    logit = np.log(hits / misses) + nodes * np.sqrt(1 / hits + 1 / misses)
    return 1 / (1 + np.exp(-logit)), weights / weights.sum()


MEASURED = SeenFlips(
    "chamber",
    middle=Rate(5726, 5730),
    part=Rate(1524, 1661),
    none=Rate(593, 1418),
    stage2="df0108e96b41342a",
)
"""The shipped networks on 800 flipping cells in focus of the simulated chamber at each of 13 lengths, 8 to 80
frames, those that stage 1 let through and stage 2 could tell; made by ``python benchmarks/unseen_flips.py
passages PASSAGES.csv``. The least that can have been missed, where a real stiff cell is told by its form
alone less often than a simulated one."""

TURNS_ONLY = SeenFlips("turns-only", middle=1.0, part=0.0, none=0.0)
"""Theory: a cell is told only by a turn whose middle was seen, L / 68. The most that can have been missed."""
