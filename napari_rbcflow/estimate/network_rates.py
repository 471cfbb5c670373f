"""How often the networks are right, with the counts behind it, also on a patient who is not in the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from napari_rbcflow.estimate.fraction import whole
from napari_rbcflow.sentences import say

STAGE1 = ("tank_treading_found", "flipping_found", "let_through")
STAGE2 = ("tank_treading_told", "flipping_told", "tank_treading_right", "flipping_right")
LET_THROUGH_AS = "let_through_as"
BY_PATIENT = "by_patient"
SPREAD = 1.0  # scale of the half-normal prior of a rate's standard deviation between patients, in log odds


@dataclass(frozen=True)
class Rate:
    """`hits` of `of` labelled cells; a ValueError for impossible counts."""

    hits: int
    of: int

    def __post_init__(self) -> None:
        hits, of = whole(self.hits), whole(self.of)
        if hits > of:
            raise ValueError(say("estimate.rate-impossible", hits=hits, cells=of))
        object.__setattr__(self, "hits", hits)
        object.__setattr__(self, "of", of)

    @property
    def value(self) -> float:
        """Hits over cells; one half if no cell was labelled."""
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
        Unreliable cells that passed, by how stage 2 labelled them: tank-treading, flipping, not told. All 0
        if they were not counted: then how it labels them is open.
    by_patient : mapping of str to mapping of str to Rate
        For each patient, the rates of the names above that were counted on his or her cells. Empty if the
        cells were not counted by patient. A laboratory's rates have its days in their place (`laboratory`).
    told_apart : bool
        Whether cells that stage 2 cannot tell were counted apart, as `told`. If not, such cells are among
        those not found and not let through, and `told` is 1.
    spread, leak_spread : float
        Scale of the prior of the standard deviation between patients, in log odds: of the shares found and
        right, and of the leak.

    Raises
    ------
    ValueError
        For impossible counts, patients who have more than the total, and labels that say nothing: stage 2's
        two rates of correct labels sum to 1 or less, or stage 1 lets unreliable cells through as often as
        reliable ones.
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
    told_apart: bool = True
    spread: float = SPREAD
    leak_spread: float = SPREAD

    def __post_init__(self) -> None:
        object.__setattr__(self, LET_THROUGH_AS, tuple(whole(n) for n in self.let_through_as))
        for name in (*STAGE1, *STAGE2):
            if not getattr(self, name).of:
                raise ValueError(say("estimate.rate-of-no-cell", rate=name.replace("_", " ")))
        right = self.tank_treading_right.value + self.flipping_right.value
        if right <= 1:
            raise ValueError(say("estimate.stage2-says-nothing", total=right))
        for name in ("tank_treading_found", "flipping_found"):
            if getattr(self, name).value <= self.let_through.value:
                kind = name.removesuffix("_found").replace("_", "-")
                raise ValueError(say("estimate.stage1-says-nothing", kind=kind))
        for name in (*STAGE1, *STAGE2):
            self._rest(name)

    @property
    def let_through_as_tank(self) -> Rate:
        """Of the unreliable cells that were let through and told, those labelled as tank-treading."""
        tank, flip, _ = self.let_through_as
        return Rate(tank, tank + flip)

    def patients(self, *names: str) -> list[tuple[Rate, ...]]:
        """Return these rates of each patient who has any, and of the cells of no patient last.

        ``Rate(0, 0)`` for what a patient lacks; empty if nothing was counted by patient.
        """
        own = [tuple(of.get(name, Rate(0, 0)) for name in names) for of in self.by_patient.values()]
        own = [rates for rates in own if any(rate.of for rate in rates)]
        rest = tuple(self._rest(name) for name in names)
        return [*own, rest] if own and any(rate.of for rate in rest) else own

    def patients_of(self, name: str) -> list[str]:
        """Return the names of the patients on whose cells this rate was counted."""
        return sorted(p for p, of in self.by_patient.items() if name in of and of[name].of)

    def _rest(self, name: str) -> Rate:
        """Return what was counted on cells of no patient."""
        whole_rate: Rate = getattr(self, name)
        own = [of[name] for of in self.by_patient.values() if name in of]
        hits, of = whole_rate.hits - sum(r.hits for r in own), whole_rate.of - sum(r.of for r in own)
        if not 0 <= hits <= of:
            raise ValueError(say("estimate.patients-do-not-add-up", rate=name.replace("_", " ")))
        return Rate(hits, of)

    @classmethod
    def of_models(cls, models: Mapping[str, Any]) -> NetworkRates:
        """Take the rates from `models` of ``run.json``; a ValueError if they are not there or impossible."""
        found: dict[str, Any] = {}
        patients: dict[str, dict[str, Rate]] = {}
        for stage, names in (("stage1", STAGE1), ("stage2", STAGE2)):
            counts = (models.get(stage) or {}).get("counts") or {}
            for name in names:
                if not _pair(counts.get(name), 2):
                    raise ValueError(say("estimate.card-without-counts", stage=stage[-1]))
                found[name] = Rate(*counts[name])
            if _pair(counts.get(LET_THROUGH_AS), 3):
                found[LET_THROUGH_AS] = tuple(counts[LET_THROUGH_AS])
            by_patient = counts.get(BY_PATIENT) or {}
            if not isinstance(by_patient, Mapping) or not all(
                isinstance(own, Mapping) for own in by_patient.values()
            ):
                raise ValueError(say("estimate.card-patients-damaged", stage=stage[-1], counts=by_patient))
            for patient, own in by_patient.items():
                rates = {name: Rate(*own[name]) for name in names if _pair(own.get(name), 2)}
                patients.setdefault(patient, {}).update(rates)
        return cls(**found, by_patient=patients)


def _pair(counts: Any, n: int) -> bool:
    return isinstance(counts, Sequence) and not isinstance(counts, str) and len(counts) == n


SPREAD_OF_RATIO = 0.5  # the same, as a share of it, of the log odds ratio of two rates that move together
_RATE, _MEAN, _DIFFERENCE = (-12.0, 8.0), (-5.0, 7.0), (-4.5, 4.5)
"""Ranges of the grids of log odds: of one rate; of two, their mean and difference."""
_FINE, _COARSE = 0.05, 0.15
"""Steps of the grids of one rate and of two. No count is taken to be more precise than that."""
_SPREADS = (np.arange(8) + 0.5) * 3 / 8
"""Standard deviations between patients that are tried, in units of the prior's scale."""

Floats = NDArray[np.float64]


def new_rate(
    patients: Sequence[Rate], u: Floats, prior: tuple[float, float], spread: float = SPREAD
) -> Floats:
    """Return a new patient's rate at probabilities `u`, in (0, 1) and of their shape.

    `patients` has one rate a patient, in any order; `prior` the pseudo-counts of hits and misses, for the
    mean of all patients.
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
    """Return two rates of a new patient that move together, shape (n,) each.

    `patients` has one pair a patient, ``Rate(0, 0)`` where a patient has no such cell. `u`, shape (2, n), is
    the probability of the mean and of the difference; `prior` as in `new_rate`, for either rate.
    """
    mean, difference = _grid(*_MEAN, _COARSE), _grid(*_DIFFERENCE, _COARSE)
    # Rows: each spread, each mean of all patients. Columns: one patient.
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
    """Return hits and misses with each patient's part of the pseudo-counts, sorted."""
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
    """Return the likelihood of the log odds `x`; as of fewer cells if it would fall between two points."""
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
    """Return, for each spread, the chance of every log odds (last axis) around every mean."""
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
    # The rows joined end to end: row r rises from r to r + 1.
    behind = (np.minimum(below, 1.0) + np.arange(len(below))[:, None]).ravel()
    return np.asarray(np.interp(row + u, behind, np.tile(ends, len(below))), np.float64)
