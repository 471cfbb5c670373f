"""Runs and the networks' rates played many times: what the corrected interval covers. See coverage.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from coverage_raw import Edges, played, wilson_ends
from numpy.typing import NDArray
from scipy.special import gammaincinv

from napari_rbcflow.estimate import intervals
from napari_rbcflow.estimate.error_correction import (
    JEFFREYS,
    LAPLACE,
    LEAST_POSSIBLE,
    MOST_WIDTH,
    TOLD_OF_LET_THROUGH,
    Draws,
    interval_of,
    points,
    quantiles,
    share_of_cells,
)
from napari_rbcflow.estimate.intervals import FEW_CELLS

DRAWS = 512
"""A sixteenth of those of a real run, where the ends move by some thousandths."""
CHUNK = 500

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Ends = tuple[Floats, Floats, Floats, Floats]
"""Of many runs: estimate, low and high end, and the share of possible draws."""


@dataclass(frozen=True)
class Corner:
    """What is true in one corner of the grid.

    Attributes
    ----------
    p : float
        Tank-treading among the reliable.
    leak, tank_right, flip_right : float
        Of stage 1, and stage 2's specificity and sensitivity.
    labelled : int
        Sequences on which each rate was counted: so many tank-treading, flipping, and unreliable ones.
    tank_of_leak : float
        Share of tank-treading labels among the unreliable that are let through and told.
    """

    p: float
    leak: float
    tank_right: float
    flip_right: float
    labelled: int
    tank_of_leak: float
    reliable: float = 0.034
    tank_found: float = 0.93
    flip_found: float = 0.80
    told: float = 0.955
    leak_told: float = 0.8

    @property
    def seen(self) -> tuple[float, float]:
        """Share of tracks that are counted, and of tank-treading labels among these."""
        tank, flip = self.reliable * self.p, self.reliable * (1 - self.p)
        tank, flip = tank * self.tank_found * self.told, flip * self.flip_found * self.told
        leak = (1 - self.reliable) * self.leak * self.leak_told
        as_tank = tank * self.tank_right + flip * (1 - self.flip_right) + leak * self.tank_of_leak
        return tank + flip + leak, as_tank / (tank + flip + leak)


@dataclass(frozen=True)
class Played:
    """Many runs of one corner, and for each the rates that were counted anew; arrays of shape (runs,)."""

    corner: Corner
    k: Ints
    n: Ints
    tracks: Ints
    tank_found: Ints
    flip_found: Ints
    let_through: Ints
    tank_told: Ints
    flip_told: Ints
    tank_right: Ints
    flip_right: Ints
    leak_told: Ints
    leak_tank: Ints
    cells: Floats
    """Share of the cells that count for the width, 1 but where the anytime interval is handed over."""


def play(corner: Corner, stop: str, runs: int, rng: np.random.Generator) -> Played:
    """Play runs that stop by `stop`: ``0.05`` or another half-width, ``200 cells``, or by `_shown`."""
    counted, raw = corner.seen
    cells = np.ones(runs)
    if stop.endswith("cells"):
        n = np.full(runs, int(stop.split()[0]))
        k = rng.binomial(n, raw)
    elif stop in ("baseline", "person"):
        k, n, cells = _shown(raw, runs, int(rng.integers(1 << 30)), person=stop == "person")
    else:
        stops = intervals.stops(float(stop), intervals.critical_value(float(stop)))
        chances = stops.chances(raw)
        at = rng.choice(len(chances), runs, p=chances / chances.sum())
        k, n = stops.k[at], stops.n[at]

    def found(share: float, of: int | Ints = corner.labelled) -> Ints:
        return rng.binomial(of, share, runs)

    let_through, tank_told, flip_told = found(corner.leak), found(corner.told), found(corner.told)
    leak_told = found(corner.leak_told, let_through)
    return Played(
        corner,
        k,
        n,
        n + rng.negative_binomial(n, counted),
        found(corner.tank_found),
        found(corner.flip_found),
        let_through,
        tank_told,
        flip_told,
        found(corner.tank_right, tank_told),
        found(corner.flip_right, flip_told),
        leak_told,
        found(corner.tank_of_leak, leak_told),
        cells,
    )


def _shown(
    raw: float, runs: int, seed: int, *, person: bool, above: float = 0.08
) -> tuple[Ints, Ints, Floats]:
    """Stop by what is shown, at 2,000 cells at the latest.

    The rule: when the anytime interval lies below a baseline that is `above` the truth. A person: when
    Wilson's interval excludes the truth itself, her patient's baseline.
    """
    edges, ks, ns, cells = Edges(), [], [], []
    n = np.arange(1, 2001)
    for k in played(raw, runs, 2000, seed):
        low, high = edges.sequence(k)
        if person:
            below, over = wilson_ends(k, n)
            met = (over < raw) | (below > raw)
        else:
            met = high < min(raw + above, 0.995)
        met &= n >= FEW_CELLS
        stop = np.where(met.any(axis=1), met.argmax(axis=1), 1999)
        rows = np.arange(len(k))
        ks.append(k[rows, stop])
        ns.append(stop + 1)
        cells += [
            share_of_cells(int(k[i, s]), int(s + 1), 0.95, (float(low[i, s]), float(high[i, s])))
            for i, s in enumerate(stop)
        ]
    return np.concatenate(ks), np.concatenate(ns), np.array(cells)


class Tables:
    """Draws of each rate, kept by its counts: the few that come up come up again and again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, int, tuple[float, float]], Floats] = {}

    def rate(self, row: int, hits: Ints, of: Ints | int, prior: tuple[float, float] = JEFFREYS) -> Floats:
        """Return draws, shape (runs, draws); hits and misses to a tenth."""
        ten = np.round(10 * np.stack(np.broadcast_arrays(hits, np.asarray(of) - hits), axis=1)).astype(
            np.int64
        )
        pairs, back = np.unique(ten, axis=0, return_inverse=True)
        out = np.empty((len(pairs), DRAWS))
        for i, (a, b) in enumerate(pairs.tolist()):
            key = (row, a, b, prior)
            if key not in self._kept:
                self._kept[key] = _proper(points(DRAWS)[row], a / 10, b / 10, prior)
            out[i] = self._kept[key]
        return out[back.ravel()]

    def draws(self, of: Played, priors: Priors, *, flat: bool = False) -> Draws:
        """Return the draws of every run, shape (runs, draws), as `corrected.draw` does of one."""
        n = of.corner.labelled
        counts, back = np.unique(of.n, return_inverse=True)
        # Of thousands of tracks a few hundred are counted: a gamma variate over the tracks.
        counted = np.stack([gammaincinv(c + 0.5, points(DRAWS)[0]) for c in counts.tolist()])[back.ravel()]
        cells = of.cells if not flat else np.ones(len(of.k))
        good, bad = priors.falling, priors.rising
        return Draws(
            counted / of.tracks[:, None],
            self.rate(1, cells * of.k, cells * of.n, bad),
            self.rate(2, of.tank_found, n, good),
            self.rate(3, of.flip_found, n, bad),
            self.rate(4, of.let_through, n, priors.leak),
            self.rate(5, of.tank_told, n, good),
            self.rate(6, of.flip_told, n, bad),
            self.rate(7, of.tank_right, of.tank_told, good),
            self.rate(8, of.flip_right, of.flip_told, bad),
            self.rate(9, of.leak_told, of.let_through, priors.leak_told),
            self.rate(10, of.leak_tank, of.leak_told, good),
        )


@dataclass(frozen=True)
class Priors:
    """Pseudo-counts: of rates with which the corrected fraction rises or falls, and of the leak."""

    rising: tuple[float, float] = JEFFREYS
    falling: tuple[float, float] = JEFFREYS
    leak: tuple[float, float] = LAPLACE
    leak_told: tuple[float, float] = TOLD_OF_LET_THROUGH


def _proper(u: Floats, hits: float, misses: float, prior: tuple[float, float]) -> Floats:
    a, b = hits + prior[0], misses + prior[1]
    if a == 0:
        return np.zeros_like(u)
    return np.ones_like(u) if b == 0 else quantiles(u, hits, misses, prior)


@dataclass(frozen=True)
class Result:
    """What came of one corner."""

    corner: Corner
    runs: int
    coverage: float
    width: float
    bias: float
    shown: float
    coverage_shown: float
    cells: float

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of `coverage`."""
        share = min(max(self.coverage, 0.5 / self.runs), 1 - 0.5 / self.runs)
        return math.sqrt(share * (1 - share) / self.runs)


def ours(of: Played, tables: Tables, *, flat: bool = False) -> Ends:
    """Return what `corrected_fraction` says before it decides whether to say it."""
    return interval_of(tables.draws(of, Priors(), flat=flat))


Method = Callable[[Played, Tables], Ends]


def study(corner: Corner, stop: str, runs: int, seed: int, tables: Tables, method: Method = ours) -> Result:
    """Play one corner and count how often the interval held the true fraction."""
    rng = np.random.default_rng([seed, hash_of(corner), len(stop)])
    parts = []
    for first in range(0, runs, CHUNK):
        of = play(corner, stop, min(CHUNK, runs - first), rng)
        parts.append((*method(of, tables), of.n))
    estimate, low, high, possible, n = (np.concatenate(part) for part in zip(*parts, strict=True))
    held = (low <= corner.p) & (corner.p <= high)
    shown = (n >= FEW_CELLS) & (possible >= LEAST_POSSIBLE) & (high - low <= MOST_WIDTH)
    return Result(
        corner,
        runs,
        float(held.mean()),
        float((high - low).mean()),
        float(np.nanmean(estimate) - corner.p),
        float(shown.mean()),
        float(held[shown].mean()) if shown.any() else math.nan,
        float(n.mean()),
    )


def hash_of(corner: Corner) -> int:
    """Return a number of the corner that is the same in every process."""
    return int(np.dot(np.array(list(vars(corner).values())) * 1e4, 7919.0 ** np.arange(11) % 1e6)) % (1 << 31)


def grid(labelled: tuple[int, ...], fractions: tuple[float, ...], leaks: tuple[float, ...]) -> list[Corner]:
    """Return the corners of the issue's grid, with two ways of labelling what is let through."""
    first = Corner(0.5, 0.0, 0.0, 0.0, 0, 0.0)
    return [
        replace(first, p=p, leak=leak, tank_right=t, flip_right=f, labelled=of, tank_of_leak=c)
        for of in labelled
        for leak in leaks
        for t in (0.94, 0.99)
        for f in (0.94, 0.99)
        for c in (0.3, 0.8)
        for p in fractions
    ]
