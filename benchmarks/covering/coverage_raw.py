"""Runs of cells played many times: what the three intervals of the raw fraction cover. See coverage.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import brentq

from napari_rbcflow.estimate import intervals, wilson

CHUNK = 500
"""Runs that are held in memory at once."""
LEAST_FOR_BASELINE = 30
"""Cells from which on the rule by the baseline looks: the correction's and the report's least."""

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What came of many runs of one rule and interval at one fraction.

    Attributes
    ----------
    rule : str
    p, wanted : float
        The true fraction; the half-width that stops the run, NaN where something else does.
    covered, runs : int
    cells : float
        Counted in the mean.
    needed : float
        With which Wilson's interval would be as narrow, with p known beforehand.
    unreached : float
        Share of runs that came to the most cells without their rule being met.
    """

    rule: str
    p: float
    wanted: float
    covered: int
    runs: int
    cells: float
    needed: float
    unreached: float

    @property
    def coverage(self) -> float:
        """Share of runs whose interval held the true fraction."""
        return self.covered / self.runs

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of `coverage`; of none or all missed, one run's worth."""
        share = min(max(self.coverage, 0.5 / self.runs), 1 - 0.5 / self.runs)
        return math.sqrt(share * (1 - share) / self.runs)


def cells_for_wilson(p: float, wanted: float) -> float:
    """Return the cells, no whole number, with which Wilson's interval about p is as narrow as wanted."""

    def too_wide(n: float) -> float:
        low, high = wilson(p * n, n)  # type: ignore[arg-type]
        return (high - low) / 2 - wanted

    return float(brentq(too_wide, 2.0, 1e5))


def wilson_ends(k: Ints, n: Ints, z: float = 1.959963984540054) -> tuple[Floats, Floats]:
    """Return Wilson's interval at each look, as `wilson` does for one."""
    p, shrink = k / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z / shrink * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def played(p: float, runs: int, most: int, seed: int) -> Iterator[Ints]:
    """Yield tank-treading cells after each cell, shape (chunk, most)."""
    rng = np.random.default_rng([seed, int(1e6 * p)])
    for first in range(0, runs, CHUNK):
        hits = rng.random((min(CHUNK, runs - first), most)) < p
        yield np.cumsum(hits, axis=1, dtype=np.int64)


def outcomes(p: float, widths: tuple[float, ...], runs: int, most: int, seed: int) -> list[Outcome]:
    """Play runs at one fraction and judge every rule on the same cells."""
    n = np.arange(1, most + 1)
    found: dict[tuple[str, float], list[tuple[int, float, int]]] = {}

    def note(rule: str, wanted: float, covered: Bools, met: Bools) -> None:
        """`met` is of each look; `covered` of each run, or of each look."""
        reached = met.any(axis=1)
        stop = np.where(reached, met.argmax(axis=1), most - 1)
        held = covered if covered.ndim == 1 else covered[np.arange(len(stop)), stop]
        part = int(held.sum()), float((stop + 1).sum()), int((~reached).sum())
        found.setdefault((rule, wanted), []).append(part)

    edges: Edges = Edges()
    for k in played(p, runs, most, seed):
        low, high = wilson_ends(k, n)
        inside = (low <= p) & (p <= high)
        later = n >= LEAST_FOR_BASELINE
        note("wilson, stopped by the baseline", math.nan, inside, ~inside & later)
        any_low, any_high = edges.sequence(k)
        always = (any_low[:, -1] <= p) & (p <= any_high[:, -1])
        held = (any_low <= p) & (p <= any_high)
        note("anytime, stopped by the baseline", math.nan, held, ~held & later)
        for wanted in widths:
            note("wilson, stopped by its width", wanted, inside, (high - low) / 2 <= wanted)
            z = intervals.critical_value(wanted)
            q = (k + 2.0) / (n + 4.0)
            half = z * np.sqrt(q * (1 - q) / n)
            ends = np.where(k == 0, 0.0, q - wanted), np.where(k == n, 1.0, q + wanted)
            note("fixed-width", wanted, (ends[0] <= p) & (p <= ends[1]), half <= wanted)
            note("anytime, every look", wanted, always, (any_high - any_low) / 2 <= wanted)
    return [
        Outcome(
            rule,
            p,
            wanted,
            sum(c for c, _, _ in parts),
            runs,
            sum(cells for _, cells, _ in parts) / runs,
            math.nan if math.isnan(wanted) else cells_for_wilson(p, wanted),
            sum(u for _, _, u in parts) / runs,
        )
        for (rule, wanted), parts in found.items()
    ]


# The package's own search for an end, compiled: 10,000 runs of 2,000 cells ask for it a million times.
_ratio = njit(intervals._ratio)
_edge = njit(FunctionType(intervals._edge.__code__, {**vars(intervals), "_ratio": _ratio}))


@njit
def _ends(k: Ints, n: Ints, bound: float) -> tuple[Floats, Floats]:
    low, high = np.zeros(len(k)), np.ones(len(k))
    for i in range(len(k)):
        m, peak = n[i] - k[i], k[i] / n[i]
        if k[i]:
            low[i] = _edge(bound, k[i], m, 0.0, peak)
        if m:
            high[i] = _edge(bound, k[i], m, 1.0, peak)
    return low, high


class Edges:
    """Ends of the anytime interval at every count that came up, each searched for once."""

    def __init__(self, level: float = 0.95) -> None:
        self._bound = -math.log1p(-level)
        self._known: dict[int, tuple[int, Floats, Floats]] = {}

    def sequence(self, k: Ints) -> tuple[Floats, Floats]:
        """Return what `ConfidenceSequence` says after each cell, the looks before taken in, shape of `k`.

        Where nothing is left, low lies above high: the sequence has failed.
        """
        low, high = np.empty(k.shape), np.empty(k.shape)
        for i in range(k.shape[1]):
            first, lows, highs = self._column(i + 1, int(k[:, i].min()), int(k[:, i].max()))
            low[:, i], high[:, i] = lows[k[:, i] - first], highs[k[:, i] - first]
        return np.maximum.accumulate(low, axis=1), np.minimum.accumulate(high, axis=1)

    def _column(self, n: int, least: int, most: int) -> tuple[int, Floats, Floats]:
        first, lows, highs = self._known.get(n, (least, np.empty(0), np.empty(0)))
        last = first + len(lows) - 1
        if least < first:
            before = self._searched(n, least, first - 1)
            first, lows, highs = least, np.append(before[0], lows), np.append(before[1], highs)
        if most > last:
            after = self._searched(n, last + 1, most)
            lows, highs = np.append(lows, after[0]), np.append(highs, after[1])
        self._known[n] = first, lows, highs
        return first, lows, highs

    def _searched(self, n: int, least: int, most: int) -> tuple[Floats, Floats]:
        k = np.arange(least, most + 1)
        ends: tuple[Floats, Floats] = _ends(k, np.full(len(k), n), self._bound)
        return ends


def exact(widths: tuple[float, ...], fractions: tuple[float, ...]) -> list[Exact]:
    """Sum instead of playing: the naive rule and the fixed-width one over all fractions."""
    found = []
    every = np.unique(np.concatenate([np.linspace(0.5, 0.9995, 1000), np.linspace(0.99, 0.9999, 100)]))
    for wanted in widths:
        z = intervals.critical_value(wanted)
        stops = intervals.stops(wanted, z)
        least, where = stops.least_coverage()
        naive = np.array([_naive(float(p), wanted, 1.959963984540054) for p in every])
        cells = [stops.mean_cells(p) / cells_for_wilson(p, wanted) for p in fractions]
        worst = int(np.argmin(naive))
        found.append(Exact(wanted, z, least, where, cells, float(naive[worst]), float(every[worst])))
    return found


@dataclass(frozen=True)
class Exact:
    """What was summed for one half-width: least coverages and where, and mean cells relative to Wilson's."""

    wanted: float
    z: float
    least: float
    least_at: float
    cells: list[float]
    naive_least: float
    naive_least_at: float


@njit
def _naive(p: float, wanted: float, z: float) -> float:
    """Probability that Wilson's interval holds p where a run stops as soon as it is narrow enough."""
    most = int((z / wanted) ** 2 / 4) + 2
    here = np.zeros(most + 2)
    here[0] = 1.0
    covered = 0.0
    for n in range(1, most + 1):
        there = np.zeros(most + 2)
        shrink = 1 + z * z / n
        for k in range(n + 1):
            chance = here[k] * (1 - p) + (here[k - 1] * p if k else 0.0)
            if chance == 0.0:
                continue
            q = k / n
            half = z / shrink * math.sqrt(q * (1 - q) / n + z * z / (4 * n * n))
            if half <= wanted or n == most:
                centre = (q + z * z / (2 * n)) / shrink
                low, high = (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)
                if low <= p <= high:
                    covered += chance
            else:
                there[k] = chance
        here = there
    return covered
