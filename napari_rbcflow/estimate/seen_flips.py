"""The chance that a flipping cell is called flipping, by how long it was watched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from napari_rbcflow.estimate.turning import repeat_frames, turn_seen

Floats = NDArray[np.float64]

_NODES = 5
"""Of each of the curve's two parameters, for what the counts leave open (Gauss and Hermite's)."""


@dataclass(frozen=True)
class Counts:
    """How often flipping cells were called flipping, of those counted, at one length of the track.

    Attributes
    ----------
    repeats : float
        Length of the tracks over that after which the picture repeats (`turning.repeat_frames`).
    flipping, counted : int
        Cells called flipping, and cells called flipping or tank-treading.
    """

    repeats: float
    flipping: int
    counted: int


@dataclass(frozen=True)
class SeenCurve:
    """The chance that a flipping cell is called flipping, by the length of its track.

    Attributes
    ----------
    name : str
        What stands as the method in ``run.json``.
    counts : tuple of Counts
        What a logistic curve is fitted to; none for the theory of turns alone.
    stage2 : str
        Beginning of the hash of the stage 2 that was counted; empty for any.
    """

    name: str
    counts: tuple[Counts, ...] = ()
    stage2: str = ""

    def chance(self, repeats: Floats) -> Floats:
        """Return the chance at each length, shape (n,)."""
        if not self.counts:
            return turn_seen(repeats)
        (a, b), _ = _fitted(self.counts)
        chance: Floats = expit(a + b * repeats)
        return chance

    def possible(self, repeats: Floats) -> tuple[Floats, Floats]:
        """Return curves that the counts leave possible, shape (m, n), and the weight of each, shape (m,)."""
        if not self.counts:
            return turn_seen(repeats)[None], np.ones(1)
        mean, covariance = _fitted(self.counts)
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        root = np.linalg.cholesky(covariance)
        both = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
        a, b = (mean + both @ root.T).T
        weight = np.outer(weights, weights).ravel()
        return expit(a[:, None] + b[:, None] * repeats), weight / weight.sum()

    def interval(self, repeats: Floats, z: float = 1.96) -> tuple[Floats, Floats]:
        """Return how well the curve is known at each length: `z` standard errors to either side."""
        if not self.counts:
            return turn_seen(repeats), turn_seen(repeats)
        (a, b), covariance = _fitted(self.counts)
        at = np.stack([np.ones_like(repeats), repeats], -1)
        spread = np.sqrt(np.einsum("ni,ij,nj->n", at, covariance, at))
        middle = a + b * repeats
        return expit(middle - z * spread), expit(middle + z * spread)


@lru_cache(maxsize=16)
def _fitted(counts: tuple[Counts, ...]) -> tuple[Floats, Floats]:
    """Return a logistic curve's two parameters by maximum likelihood (Newton), and their covariance."""
    at = np.array([[1.0, c.repeats] for c in counts])
    called = np.array([c.flipping for c in counts], np.float64)
    of = np.array([c.counted for c in counts], np.float64)
    parameters = np.zeros(2)
    for _ in range(50):
        chance = expit(at @ parameters)
        information = (at * (of * chance * (1 - chance))[:, None]).T @ at
        step = np.linalg.solve(information, at.T @ (called - of * chance))
        parameters = parameters + step
        if np.abs(step).max() < 1e-10:
            break
    return parameters, np.linalg.inv(information)


TURNS_ONLY = SeenCurve("turns-only")
"""Theory: a cell is told only by a turn whose middle was seen, L / 68. The most that can have been missed."""

# Frames, cells called flipping, cells counted: of 800 flipping cells a length those that stage 1 let through
# and stage 2 could tell. Made by: python benchmarks/unseen_flips.py passages PASSAGES.csv
_COUNTED = (
    (8, 375, 558),
    (11, 371, 566),
    (15, 444, 598),
    (20, 531, 637),
    (25, 555, 654),
    (30, 614, 691),
    (35, 643, 697),
    (40, 679, 721),
    (45, 668, 699),
    (50, 738, 751),
    (60, 736, 744),
    (70, 739, 742),
    (80, 750, 751),
)
MEASURED = SeenCurve(
    "chamber-curve",
    tuple(Counts(frames / repeat_frames(), flipping, counted) for frames, flipping, counted in _COUNTED),
    stage2="df0108e96b41342a",
)
"""The shipped networks on the simulated chamber's cells in focus, at 10 1/s and 60 frames/s. The least that
can have been missed: a simulated stiff cell is told by its form too, more than a real one may be."""
