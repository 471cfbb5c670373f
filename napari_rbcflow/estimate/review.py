"""The tank-treading fraction from a person's check of a random sample of the tracks.

The networks judge every track, a person looks at a few: two-phase sampling (Neyman 1938). The machine's
labels and probabilities only sort the tracks into strata, and the program draws tracks at random within each.
In a stratum h of N_h tracks, n_h of them checked, the person's labels give the shares of tank-treading and of
flipping cells, and the sums over the strata give the fraction::

    R = sum_h N_h t_h / sum_h N_h (t_h + f_h)

It is right whatever the networks' errors are: these only make it less precise. How the strata are cut, which
track comes next and what the interval is made of: ``docs/checking.md``, for the statistician. The prior is
worth `PRIOR` checked tracks a stratum; `HIDDEN` more, and one reliable cell in all, are taken to be flipping
for the low end and tank-treading for the high one. `benchmarks/review_coverage.py` shows how often it holds.

References
----------
Neyman, J. (1938). Contribution to the theory of sampling human populations. Journal of the American
Statistical Association 33, 101-116: two-phase sampling, and how many to take from each stratum.
Dalenius, T., Hodges, J. L. (1959). Minimum variance stratification. Journal of the American Statistical
Association 54, 88-101: where to cut the strata.
Angelopoulos, A. N., Bates, S., Fannjiang, C., Jordan, M. I., Zrnic, T. (2023). Prediction-powered inference.
Science 382, 669-674: why labels of a machine may be used without trusting them.
Ericson, W. A. (1969). Subjective Bayesian models in sampling finite populations. Journal of the Royal
Statistical Society B 31, 195-233: the interval, from what the unchecked tracks of each stratum may be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from napari_rbcflow.sentences import say
from napari_rbcflow.types import Floats, Ints, Label

REVIEWED = "reviewed"
KINDS = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
"""What a person may say of a track."""
DRAWS = 4000
COUNTED_STRATA = 2  # strata of the tracks counted as one kind: the less certain ones, and the others
OTHER_STRATA = 5
LEAST_STRATUM = 12  # tracks of a stratum; fewer are not worth one of their own
FLOOR = 0.002
"""Least share of reliable cells that a stratum is cut for: no probability of a network is taken for none."""
PRIOR, HIDDEN = 0.5, 0.2
"""Checked tracks that the smooth curve is worth in each stratum; and, again, its reliable cells of either
kind. Chosen for coverage (docs/decisions/estimate.md)."""
_SLOPE, _SLOPE_SPREAD, _LEVEL_SPREAD = 0.7, 0.5, 3.0
"""What the curve is before anything was checked: the machine's log odds are somewhat too bold."""


@dataclass(frozen=True)
class ReviewedFraction:
    """The fraction of tank-treading cells among those that a person would call reliable.

    Attributes
    ----------
    estimate, low, high : float or None
        In [0, 1]; None before a reliable cell was checked.
    level : float
        Confidence level of the interval.
    n : int
        Tracks checked.
    reliable : float or None
        Reliable cells that the run holds by this estimate, counted or not.
    method : str
        `REVIEWED`.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    reliable: float | None = None
    method: str = REVIEWED


@dataclass(frozen=True, eq=False)
class Stratum:
    """Tracks of which the machine says much the same.

    `name` is the machine's label and a number, `cells` stand in the random order in which they are checked,
    `expected` are the shares of `KINDS` that the machine's probabilities give.
    """

    name: str
    cells: Ints
    expected: Floats


class ReviewPlan:
    """Which tracks a person checks, and what the checks give.

    Parameters
    ----------
    cell : sequence of int, shape (n,)
        The tracks that were judged, each cell once.
    label : sequence of str, shape (n,)
        The machine's: ``tank-treading``, ``flipping`` or ``unreliable``.
    p_reliable, p_tank_treading : sequence of float, shape (n,)
        As in ``cells.csv``; NaN where a stage was not run.
    seed : int
        Of the random order. The same session must always have the same one, so that nobody can choose the
        sample by drawing again.
    """

    def __init__(
        self,
        cell: Sequence[int] | Ints,
        label: Sequence[str],
        p_reliable: Sequence[float] | Floats,
        p_tank_treading: Sequence[float] | Floats,
        seed: int,
    ) -> None:
        cells, labels = np.asarray(cell, np.int64), np.asarray(label, object)
        reliable = np.nan_to_num(np.asarray(p_reliable, np.float64), nan=0.0)
        tank = np.asarray(p_tank_treading, np.float64)
        counted = {kind: int((labels == kind).sum()) for kind in KINDS[:2]}
        # Where stage 2 was not asked, a cell is of either kind as those that were counted.
        usual = (counted[KINDS[0]] + 1) / (sum(counted.values()) + 2)
        tank = np.where(np.isnan(tank), usual, tank)
        # The same order whatever that of the rows.
        order = np.argsort(cells, kind="stable")[np.random.default_rng(seed).permutation(len(cells))]
        cells, labels, reliable, tank = cells[order], labels[order], reliable[order], tank[order]
        strata: list[Stratum] = []
        for kind in KINDS:
            rows = np.flatnonzero(labels == kind)
            if kind is Label.UNRELIABLE:
                unsure = np.minimum(reliable[rows], 0.5)
                parts = _cut(unsure, np.sqrt(np.maximum(unsure, FLOOR)), OTHER_STRATA)
            else:
                sure = reliable[rows] * np.abs(tank[rows] - 0.5)
                parts = _cut(sure, np.ones(len(rows)), COUNTED_STRATA)
            for part in parts:
                at = rows[np.sort(part)]
                share, of_tank = float(reliable[at].mean()), float(tank[at].mean())
                expected = np.array([share * of_tank, share * (1 - of_tank), 1 - share])
                strata.append(Stratum(f"{kind} {len(strata) + 1}", cells[at], expected))
        self.strata = tuple(strata)

    @cached_property
    def sizes(self) -> Ints:
        """Tracks in each stratum."""
        return np.array([len(stratum.cells) for stratum in self.strata], np.int64)

    @cached_property
    def place(self) -> dict[int, tuple[int, int]]:
        """Stratum of each track, and its place in the order there."""
        return {int(c): (h, k) for h, stratum in enumerate(self.strata) for k, c in enumerate(stratum.cells)}

    def next(self, n: int, labels: Mapping[int, Sequence[str]] | None = None) -> list[int]:
        """Return the tracks to check next.

        Parameters
        ----------
        n : int
            How many; fewer are returned where no more are left.
        labels : mapping of int to sequence of str, optional
            What persons said so far: for each checked track a label of each person.

        Returns
        -------
        list of int
            The track that tells most comes first.
        """
        labels = labels or {}
        seen = self._seen(labels)
        shares = self._shares(seen, self._curve(seen))
        spread = self.sizes**2 * _variance(shares, self._fraction(shares))
        taken = np.array([sum(int(c) in labels for c in stratum.cells) for stratum in self.strata], np.int64)
        waiting = [iter([int(c) for c in s.cells if int(c) not in labels]) for s in self.strata]
        chosen: list[int] = []
        for _ in range(min(int(n), int(self.sizes.sum() - taken.sum()))):
            left = taken < self.sizes
            gain = spread / np.maximum(taken, 0.5) / (taken + 1)
            # Two of each stratum come before more of any: of fewer nothing is known.
            gain = np.where(left, gain * np.where(taken < 2, 1e6, 1.0), -1.0)
            h = int(np.argmax(gain))
            chosen.append(next(waiting[h]))
            taken[h] += 1
        return chosen

    def estimate(self, labels: Mapping[int, Sequence[str]], level: float = 0.95) -> ReviewedFraction:
        """Return the fraction that the checks give.

        Parameters
        ----------
        labels : mapping of int to sequence of str
            As in `next`. Where persons differ, each has an equal say.
        level : float
            In (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(say("estimate.level-outside", level=level))
        n = sum(1 for cell in labels if cell in self.place)
        seen = self._seen(labels)
        if not seen[:, :2].any():  # nothing checked, or nothing that is reliable
            return ReviewedFraction(None, None, None, level, n)
        curve = self._curve(seen)
        shares = self._shares(seen, curve)
        low, high = self._interval(seen, level, curve, shares)
        estimate = float(np.clip(self._fraction(shares), low, high))
        reliable = float((self.sizes * shares[:, :2].sum(axis=1)).sum())
        return ReviewedFraction(estimate, low, high, level, n, reliable)

    def prior(self, labels: Mapping[int, Sequence[str]]) -> Floats:
        """Return what is known of the kinds in each stratum beside its own checks, as pseudo-counts.

        Parameters
        ----------
        labels : mapping of int to sequence of str
            As in `next`.

        Returns
        -------
        ndarray of float64, shape (strata, 3)
        """
        return np.asarray(PRIOR * self._curve(self._seen(labels)), np.float64)

    @cached_property
    def _expected(self) -> Floats:
        return np.array([stratum.expected for stratum in self.strata]).reshape(-1, 3)

    def _seen(self, labels: Mapping[int, Sequence[str]]) -> Floats:
        """Return how many checked tracks of each stratum are of each kind, shape (strata, 3)."""
        seen = np.zeros((len(self.strata), 3))
        for cell, said in labels.items():
            if (at := self.place.get(int(cell))) is not None and said:
                for label in said:
                    seen[at[0], KINDS.index(Label(label))] += 1 / len(said)
        return seen

    def _fraction(self, shares: Floats) -> float:
        tank, flip, _ = self.sizes @ shares
        return float(tank / (tank + flip)) if tank + flip > 0 else 0.5

    def _shares(self, seen: Floats, curve: Floats) -> Floats:
        """Return the shares of the kinds in each stratum."""
        return np.asarray((seen + PRIOR * curve) / (seen.sum(axis=1) + PRIOR)[:, None], np.float64)

    def _curve(self, seen: Floats) -> Floats:
        """Return what a smooth curve through all strata gives: reliable by the machine's log odds."""
        checked, hits = seen.sum(axis=1), seen[:, :2].sum(axis=1)
        x = logit(np.clip(self._expected[:, :2].sum(axis=1), FLOOR, 1 - FLOOR))
        level, slope = 0.0, 1.0
        for _ in range(25):  # Newton's steps, none too long
            share = expit(level + slope * x)
            weight = checked * share * (1 - share)
            down = np.array(
                [
                    (hits - checked * share).sum() - level / _LEVEL_SPREAD**2,
                    ((hits - checked * share) * x).sum() - (slope - _SLOPE) / _SLOPE_SPREAD**2,
                ]
            )
            bend = np.array(
                [
                    [weight.sum() + 1 / _LEVEL_SPREAD**2, (weight * x).sum()],
                    [(weight * x).sum(), (weight * x * x).sum() + 1 / _SLOPE_SPREAD**2],
                ]
            )
            step = np.linalg.solve(bend, down)
            step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-9))
            level, slope = level + float(step[0]), max(slope + float(step[1]), 0.05)
        share = expit(level + slope * x)
        return np.stack([share * (tank := self._tank(seen)), share * (1 - tank), 1 - share], axis=1)

    def _tank(self, seen: Floats) -> float:
        """Return the share of tank-treading among the reliable cells seen, shrunk towards one half."""
        weight = self.sizes / np.maximum(seen.sum(axis=1), 1.0)
        tank, flip = weight @ seen[:, 0], weight @ seen[:, 1]
        if tank + flip <= 0:
            return 0.5
        worth = (tank + flip) ** 2 / (weight**2 @ seen[:, :2].sum(axis=1))  # Kish's effective number
        return float((tank / (tank + flip) * worth + 0.5) / (worth + 1))

    def _interval(self, seen: Floats, level: float, curve: Floats, shares: Floats) -> tuple[float, float]:
        rng = np.random.default_rng(0)
        rest = self.sizes - np.rint(seen.sum(axis=1)).astype(np.int64)
        reliable = curve[:, :2].sum(axis=1)
        # One reliable cell in all, each stratum its part: where few are checked, that many are not known.
        holds = self.sizes * shares[:, :2].sum(axis=1)
        hidden = np.maximum(HIDDEN * reliable, holds / max(holds.sum(), 1e-9))
        ends = []
        for tail, kind in (((1 - level) / 2, 1), ((1 + level) / 2, 0)):
            alpha = seen + PRIOR * curve
            alpha[:, kind] += hidden
            alpha[:, 2] += HIDDEN * (1 - reliable)
            gammas = rng.standard_gamma(np.broadcast_to(alpha, (DRAWS, *alpha.shape)))
            total = np.maximum(gammas.sum(axis=2), 1e-300)
            of_tank, of_flip = gammas[..., 0] / total, gammas[..., 1] / total
            tank = rng.binomial(rest, np.clip(of_tank, 0, 1))
            flip = rng.binomial(rest - tank, np.clip(of_flip / np.maximum(1 - of_tank, 1e-12), 0, 1))
            tanks = seen[:, 0].sum() + tank.sum(axis=1)
            flips = seen[:, 1].sum() + flip.sum(axis=1)
            # Both of the patient, as Clopper and Pearson count, and of the very cells in this movie.
            patient = rng.beta(np.maximum(tanks + 1 - kind, 1e-9), np.maximum(flips + kind, 1e-9))
            movie = np.where(tanks + flips > 0, tanks / np.maximum(tanks + flips, 1e-9), float(kind == 0))
            both = [float(np.quantile(drawn, tail)) for drawn in (patient, movie)]
            ends.append(min(both) if kind else max(both))
        return ends[0], ends[1]


def _variance(shares: Floats, fraction: float) -> Floats:
    """Return the variance of one track's part in the ratio's residual, for each stratum."""
    tank, flip = shares[:, 0], shares[:, 1]
    mean = tank * (1 - fraction) - flip * fraction
    return np.asarray(tank * (1 - fraction) ** 2 + flip * fraction**2 - mean**2, np.float64)


def _cut(score: Floats, weight: Floats, parts: int) -> list[NDArray[np.intp]]:
    """Cut rows by their score into parts of equal total weight, none smaller than `LEAST_STRATUM`."""
    if not len(score):
        return []
    parts = max(1, min(parts, len(score) // LEAST_STRATUM))
    order = np.argsort(score, kind="stable")
    total = np.cumsum(weight[order])
    at = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts)
    found = [part for part in np.split(order, at) if len(part)]
    while len(found) > 1 and min(map(len, found)) < LEAST_STRATUM:
        k = int(np.argmin([len(part) for part in found]))
        other = k - 1 if k else 1
        joined = np.concatenate([found[k], found[other]])
        found = [p for i, p in enumerate(found) if i not in (k, other)] + [joined]
    return found
