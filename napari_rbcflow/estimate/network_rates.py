"""How often the networks are right, with the counts behind it, also on a patient who is not in the card."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

STAGE1 = ("tank_treading_found", "flipping_found", "let_through")
STAGE2 = ("tank_treading_told", "flipping_told", "tank_treading_right", "flipping_right")
LET_THROUGH_AS = "let_through_as"
BY_PATIENT = "by_patient"


@dataclass(frozen=True)
class Rate:
    """`hits` of `of` labelled cells.

    Raises
    ------
    ValueError
        For counts that are negative or no whole numbers, or more hits than cells.
    """

    hits: int
    of: int

    def __post_init__(self) -> None:
        hits, of = whole(self.hits), whole(self.of)
        if hits > of:
            raise ValueError(f"a rate cannot be {hits} of {of}: give the hits first, then the cells")
        object.__setattr__(self, "hits", hits)
        object.__setattr__(self, "of", of)

    @property
    def value(self) -> float:
        """Hits over cells; one half where no cell was labelled."""
        return self.hits / self.of if self.of else 0.5


@dataclass(frozen=True)
class NetworkRates:
    """The rates of both stages with the counts behind them, as the weights' cards hold them.

    Attributes
    ----------
    tank_treading_found, flipping_found : Rate
        Reliable cells of either kind that stage 1 lets pass.
    let_through : Rate
        Unreliable cells that stage 1 lets pass: its leak.
    tank_treading_told, flipping_told : Rate
        Reliable cells of either kind that stage 2 can tell; the others are not counted.
    tank_treading_right, flipping_right : Rate
        Of those told, the ones that are told right: specificity and sensitivity.
    let_through_as : (int, int, int)
        Unreliable cells that passed, by what stage 2 said of them: tank-treading, flipping, not told.
        All 0 where nobody counted: then what it says of them is open.
    by_patient : mapping of str to mapping of str to Rate
        Of each patient, the rates of the names above that were counted on his or her cells. Empty where the
        cells were not told apart.

    Raises
    ------
    ValueError
        For impossible counts, patients who have more than all together, and where stage 2's two rates of
        right ones sum to one or less, or stage 1 passes unreliable cells as often as reliable ones: labels
        that say nothing.
    """

    tank_treading_found: Rate
    flipping_found: Rate
    let_through: Rate
    tank_treading_told: Rate
    flipping_told: Rate
    tank_treading_right: Rate
    flipping_right: Rate
    let_through_as: tuple[int, int, int] = (0, 0, 0)
    by_patient: Mapping[str, Mapping[str, Rate]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, LET_THROUGH_AS, tuple(whole(n) for n in self.let_through_as))
        for name in (*STAGE1, *STAGE2):
            if not getattr(self, name).of:
                raise ValueError(f"{name.replace('_', ' ')} is of no cell: a rate needs labelled cells")
        right = self.tank_treading_right.value + self.flipping_right.value
        if right <= 1:
            raise ValueError(
                f"stage 2's two rates of cells told right sum to {right:.2f}: at 1 or less its labels say"
                " nothing, and nothing can be corrected"
            )
        for name in ("tank_treading_found", "flipping_found"):
            if getattr(self, name).value <= self.let_through.value:
                kind = name.removesuffix("_found").replace("_", "-")
                raise ValueError(
                    f"stage 1 passes unreliable cells as often as {kind} ones: its labels say nothing, and"
                    " nothing can be corrected"
                )
        for name in (*STAGE1, *STAGE2):
            self._rest(name)

    def patients(self, *names: str) -> list[tuple[Rate, ...]]:
        """Return these rates of each patient who has any; what belongs to none of them comes last, as one.

        Returns
        -------
        list of tuple of Rate
            ``Rate(0, 0)`` for what a patient lacks. Empty where nothing was counted by patient.
        """
        own = [tuple(of.get(name, Rate(0, 0)) for name in names) for of in self.by_patient.values()]
        own = [rates for rates in own if any(rate.of for rate in rates)]
        rest = tuple(self._rest(name) for name in names)
        return [*own, rest] if own and any(rate.of for rate in rest) else own

    def patients_of(self, name: str) -> list[str]:
        """Return the patients on whose cells this rate was counted, by name; empty where none is told."""
        return sorted(p for p, of in self.by_patient.items() if name in of and of[name].of)

    def _rest(self, name: str) -> Rate:
        """Return what is of no patient."""
        whole_rate: Rate = getattr(self, name)
        own = [of[name] for of in self.by_patient.values() if name in of]
        hits, of = whole_rate.hits - sum(r.hits for r in own), whole_rate.of - sum(r.of for r in own)
        if not 0 <= hits <= of:
            raise ValueError(f"the patients' counts of {name.replace('_', ' ')} do not fit their sum")
        return Rate(hits, of)

    @classmethod
    def of_models(cls, models: Mapping[str, Any]) -> NetworkRates:
        """Take the rates from `models` of ``run.json``.

        Raises
        ------
        ValueError
            With a sentence, where the counts are not there or impossible.
        """
        found: dict[str, Any] = {}
        patients: dict[str, dict[str, Rate]] = {}
        for stage, names in (("stage1", STAGE1), ("stage2", STAGE2)):
            counts = (models.get(stage) or {}).get("counts") or {}
            for name in names:
                if not _pair(counts.get(name), 2):
                    raise ValueError(
                        f"the card of stage {stage[-1]} does not say on how many cells its rates were"
                        " counted: train the weights again, or take the shipped ones"
                    )
                found[name] = Rate(*counts[name])
            if _pair(counts.get(LET_THROUGH_AS), 3):
                found[LET_THROUGH_AS] = tuple(counts[LET_THROUGH_AS])
            by_patient = counts.get(BY_PATIENT) or {}
            if not isinstance(by_patient, Mapping) or not all(
                isinstance(own, Mapping) for own in by_patient.values()
            ):
                raise ValueError(f"the counts by patient of {stage} are damaged: {by_patient!r:.60}")
            for patient, own in by_patient.items():
                rates = {name: Rate(*own[name]) for name in names if _pair(own.get(name), 2)}
                patients.setdefault(patient, {}).update(rates)
        return cls(**found, by_patient=patients)


def whole(count: Any) -> int:
    """Return a count as an int.

    Raises
    ------
    ValueError
        If it is negative or no whole number.
    """
    try:
        number = operator.index(count)
    except TypeError:
        raise ValueError(f"counts are whole numbers, not {count!r}") from None
    if number < 0:
        raise ValueError(f"counts cannot be negative: {number}")
    return number


def _pair(counts: Any, n: int) -> bool:
    return isinstance(counts, Sequence) and not isinstance(counts, str) and len(counts) == n


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
