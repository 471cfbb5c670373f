"""The networks' rates on a patient who is not in the card, from the counts of those who are.

Two of 138 unreliable cells of one patient pass stage 1, and 7 of 60 of another: rates differ between
patients. So each patient's rate is taken to be drawn from a population, normal on the scale of log odds, of
which neither the mean nor the spread is known; the new patient's rate is another draw from it.

The mean's prior is flat in log odds; the pseudo-counts that a rate has where patients are not told apart are
shared out among the patients by their cells, so that patients who do not differ give what their sum gives.
The spread has a half-normal prior: `SPREAD` for the log odds of a rate, `SPREAD_OF_RATIO` for the log odds
ratio of two, the two weakly informative scales of Roever et al. With one patient the counts say nothing of
the spread, and the prior is all that is known of it. With more patients the counts say more and more.

Two rates that move together (found, told: whoever is harder loses tank-treading and flipping cells alike)
are drawn as a pair, by the mean of their two log odds and by the difference. Mean and difference vary
independently, each by its own spread: what moves the fraction is the difference, and its spread is judged
from the differences that were seen. Leak, shares found, told and right are independent of each other.

All is worked out on grids of log odds, without chance: each patient's likelihood is smoothed by the spread,
the products weigh mean and spread, and the weighed populations make up the new patient's distribution.

References
----------
Roever, C., Bender, R., Dias, S., et al. (2021). On weakly informative prior distributions for the
heterogeneity parameter in Bayesian random-effects meta-analysis. Research Synthesis Methods 12, 448-474.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from napari_rbcflow.estimate.rates import Rate

SPREAD = 1.0
"""Scale of the half-normal prior of a rate's standard deviation between patients, in log odds."""
SPREAD_OF_RATIO = 0.5
"""The same of the log odds ratio of two rates that move together."""
_RATE, _MEAN, _DIFFERENCE = (-12.0, 8.0), (-5.0, 7.0), (-4.5, 4.5)
"""Log odds from and to which the grids go: of one rate; of two, their mean and difference."""
_FINE, _COARSE = 0.05, 0.15
"""Steps of the grids of one rate and of two. No count is taken to be sharper than that."""
_SPREADS = (np.arange(8) + 0.5) * 3 / 8
"""Standard deviations between patients that are weighed, in units of the prior's scale."""

Floats = NDArray[np.float64]


def new_rate(
    patients: Sequence[Rate], u: Floats, prior: tuple[float, float], spread: float = SPREAD
) -> Floats:
    """Return a new patient's rate at probabilities `u`.

    Parameters
    ----------
    patients : sequence of Rate
        One a patient, in any order.
    u : ndarray of float64
        In (0, 1).
    prior : (float, float)
        Pseudo-counts of hits and misses, for the mean of all patients.
    spread : float

    Returns
    -------
    ndarray of float64
        In (0, 1), of the shape of `u`.
    """
    x = _grid(*_RATE, _FINE)
    smooth = _kernels(*_RATE, _FINE, spread)
    weight = np.tile(_of_spreads()[:, None], len(x))
    for ((hits, misses),) in _with_prior([(rate,) for rate in patients], prior):
        weight = weight * (smooth @ _likelihood(x, hits, misses, _FINE))
    density = np.einsum("tm,tmx->x", weight, smooth)
    return np.asarray(expit(_at(u, density, x, _FINE)), np.float64)


def new_pair(
    patients: Sequence[tuple[Rate, Rate]],
    u: Floats,
    prior: tuple[float, float],
    spread: float = SPREAD,
    spread_of_ratio: float = SPREAD_OF_RATIO,
) -> tuple[Floats, Floats]:
    """Return two rates of a new patient that move together.

    Parameters
    ----------
    patients : sequence of (Rate, Rate)
        One pair a patient, in any order; ``Rate(0, 0)`` where a patient has no such cell.
    u : ndarray of float64, shape (2, n)
        In (0, 1): of the mean, and of the difference.
    prior : (float, float)
        Pseudo-counts of hits and misses, for the mean of all patients, of either rate.
    spread, spread_of_ratio : float

    Returns
    -------
    first, second : ndarray of float64, shape (n,)
        In (0, 1).
    """
    mean, difference = _grid(*_MEAN, _COARSE), _grid(*_DIFFERENCE, _COARSE)
    # Rows: each spread, each mean of all patients. Columns: what one patient has.
    of_mean = _kernels(*_MEAN, _COARSE, spread).reshape(-1, len(mean))
    of_difference = _kernels(*_DIFFERENCE, _COARSE, spread_of_ratio).reshape(-1, len(difference))
    first, second = mean[:, None] + difference / 2, mean[:, None] - difference / 2
    weight = np.outer(np.repeat(_of_spreads(), len(mean)), np.repeat(_of_spreads(), len(difference)))
    for a, b in _with_prior(patients, prior):
        seen = _likelihood(first, *a, _COARSE) * _likelihood(second, *b, _COARSE)
        weight *= of_mean @ seen @ of_difference.T
    density = of_mean.T @ (weight @ of_difference)
    at = _at(u[0], density.sum(axis=1), mean, _COARSE)
    row = np.clip(np.rint((at - mean[0]) / _COARSE).astype(np.intp), 0, len(mean) - 1)
    apart = _at(u[1], density, difference, _COARSE, row)
    return np.asarray(expit(at + apart / 2), np.float64), np.asarray(expit(at - apart / 2), np.float64)


def _with_prior(
    patients: Sequence[tuple[Rate, ...]], prior: tuple[float, float]
) -> list[list[tuple[float, float]]]:
    """Hits and misses with each patient's part of the pseudo-counts, in an order that does not matter."""
    cells = [max(sum(r.of for r in rates), 1) for rates in zip(*patients, strict=True)]
    ordered = sorted(patients, key=lambda rates: [(rate.of, rate.hits) for rate in rates])
    return [
        [
            (r.hits + prior[0] * r.of / n, r.of - r.hits + prior[1] * r.of / n)
            for r, n in zip(rates, cells, strict=True)
        ]
        for rates in ordered
    ]


def _likelihood(x: Floats, hits: float, misses: float, step: float) -> Floats:
    """Likelihood of the log odds `x`; where it would fall between two points, as of fewer cells."""
    sharp = hits * misses / max(hits + misses, 1e-9)
    share = min(1.0, 1 / (step * step * max(sharp, 1e-9)))
    log = share * (hits * log_expit(x) + misses * log_expit(-x))
    return np.asarray(np.exp(log - log.max()), np.float64)


def _of_spreads() -> Floats:
    return np.asarray(np.exp(-(_SPREADS**2) / 2), np.float64)


@lru_cache(maxsize=8)
def _grid(least: float, most: float, step: float) -> Floats:
    return np.arange(least, most + step / 2, step)


@lru_cache(maxsize=8)
def _kernels(least: float, most: float, step: float, spread: float) -> Floats:
    """Of each spread between patients, the chance of every log odds (last axis) around every mean."""
    x = _grid(least, most, step)
    z = (x - x[:, None]) / (spread * _SPREADS[:, None, None])
    kernels = np.exp(-(z**2) / 2)
    kernels /= kernels.sum(axis=-1, keepdims=True)
    kernels.flags.writeable = False
    return kernels


def _at(u: Floats, density: Floats, x: Floats, step: float, row: NDArray[np.intp] | None = None) -> Floats:
    """Return the quantiles of a density given at `x`; with `row`, each from its own row of `density`."""
    share = density / np.maximum(density.sum(axis=-1, keepdims=True), 1e-300)
    below = np.concatenate([np.zeros((*share.shape[:-1], 1)), np.cumsum(share, axis=-1)], axis=-1)
    ends = np.concatenate([[x[0] - step / 2], x + step / 2])
    if row is None:
        return np.asarray(np.interp(u, below, ends), np.float64)
    # The rows one after the other: row r rises from r to r + 1.
    behind = (np.minimum(below, 1.0) + np.arange(len(below))[:, None]).ravel()
    return np.asarray(np.interp(row + u, behind, np.tile(ends, len(below))), np.float64)
