"""Where stage 1 draws its line: the thresholds of least error of the fraction, in blood.

In blood 3.4 % of the tracks are reliable (Darrin et al. 2023, Table 2). Four to seven such cells come a
second, so one that is missed costs a moment of measuring, while an unreliable track that passes is a wrong
vote. And a threshold that finds more of one kind than of the other moves the fraction itself. So there are
two thresholds, one for tracks that stage 2 calls tank-treading and one for those that it calls flipping, such
that as many are found of either kind; how many is chosen for the least error of the fraction on patients whom
the networks have not seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification.published import FLIPPING, TANK_TREADING, UNRELIABLE, Sequence31

REAL_LIFE = 0.034
"""Share of reliable sequences in the paper's acquisitions (Table 2)."""
TRACKS = 6000
"""Of an acquisition (Darrin et al. 2023, Table 5 and the length of its movies)."""
LEAST_FOUND = 0.6
"""Of either kind: with fewer, the cells found are the odd ones, and a run takes too long."""
_MOST_FOUND = 0.95
_FRACTIONS = (0.6, 0.7, 0.8, 0.9, 0.95)
"""True fractions over which the error is averaged: those of patients and of healthy people."""
_CALLED = (0.2, 0.5, 0.8)
"""Share of what passes wrongly that is called tank-treading: 0.1 to 0.9 on two patients, so it is open."""


class Thresholds(NamedTuple):
    """Least probabilities of being reliable, to four decimals.

    Attributes
    ----------
    tank_treading, flipping : float
        For tracks that stage 2 calls so.
    found : float
        Share found of either kind that they were chosen for.
    error : float
        Root mean square error of the fraction in blood that is expected of them, on the patients held back.
    """

    tank_treading: float
    flipping: float
    found: float
    error: float


def cell_weights(sequences: Sequence[Sequence31]) -> NDArray[np.float64]:
    """Weigh tracks so that every cell counts once, however often it flowed in composed movies; shape (n,)."""
    cells = [s.name.split("~")[0] for s in sequences]
    times: dict[str, int] = defaultdict(int)
    for cell in cells:
        times[cell] += 1
    return np.asarray([1 / times[cell] for cell in cells])


def choose_thresholds(sequences: Sequence[Sequence31], p: NDArray[np.float64]) -> Thresholds | None:
    """Choose both thresholds from held-back judgements; None where a label is missing.

    Parameters
    ----------
    sequences : sequence of Sequence31
        As our tracker cuts them, of as many patients as there are.
    p : ndarray of float64, shape (n,)
        Probability of being reliable, from networks that have not seen the patient.
    """
    labels = np.asarray([s.label for s in sequences])
    patients = np.asarray([s.patient for s in sequences])
    if not all((labels == label).any() for label in (TANK_TREADING, FLIPPING, UNRELIABLE)):
        return None
    weights = cell_weights(sequences)
    every = sorted(set(patients.tolist()))
    held = {g: {label for label in range(3) if ((patients == g) & (labels == label)).any()} for g in every}
    # Patients without unreliable tracks say nothing of what passes, but as much as others of what is found.
    of_both = [g for g in every if {TANK_TREADING, FLIPPING} <= held[g]]
    of_all = [g for g in of_both if UNRELIABLE in held[g]]
    if not of_all:
        return None
    best: Thresholds | None = None
    for found in np.arange(LEAST_FOUND, _MOST_FOUND + 1e-9, 0.01):
        line = [
            _threshold_for(p, weights, labels == kind, patients, of_both, float(found))
            for kind in (TANK_TREADING, FLIPPING)
        ]
        errors = [_squared_error(p, weights, labels, patients == group, line[0], line[1]) for group in of_all]
        error = float(np.sqrt(np.mean(errors)))
        if best is None or error < best.error:
            best = Thresholds(line[0], line[1], float(found), error)
    return best


def _threshold_for(
    p: NDArray[np.float64],
    weights: NDArray[np.float64],
    of_kind: NDArray[np.bool_],
    patients: NDArray[np.str_],
    groups: Sequence[str],
    found: float,
) -> float:
    """The greatest threshold at which, in the mean of the patients, so much is found of a kind."""
    values = np.unique(np.round(p[of_kind], 4))[::-1]
    shares = np.zeros(len(values))
    for group in groups:
        chosen = of_kind & (patients == group)
        order = np.argsort(-p[chosen])
        gathered = np.cumsum(weights[chosen][order]) / weights[chosen].sum()
        at = np.searchsorted(-p[chosen][order], -values + 5e-5, "right")
        shares += np.where(at > 0, gathered[np.maximum(at - 1, 0)], 0) / len(groups)
    enough = np.flatnonzero(shares >= found)
    return float(values[enough[0]]) if len(enough) else float(values[-1])


def _squared_error(
    p: NDArray[np.float64],
    weights: NDArray[np.float64],
    labels: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    of_tank: float,
    of_flip: float,
) -> float:
    """Mean squared error of the fraction on one patient: its bias, and the counting of an acquisition."""

    def passed(label: int, threshold: float, prior: float = 0.0) -> float:
        at = chosen & (labels == label)
        total = float(weights[at].sum())
        return (float(weights[at & (p >= threshold)].sum()) + prior) / (total + 2 * prior)

    tank, flip = passed(TANK_TREADING, of_tank), passed(FLIPPING, of_flip)
    # A leak of none among few is not a leak of none.
    as_tank, as_flip = (passed(UNRELIABLE, t, 0.25) for t in (of_tank, of_flip))
    errors = []
    for true in _FRACTIONS:
        for called in _CALLED:
            tanks = REAL_LIFE * true * tank + (1 - REAL_LIFE) * called * as_tank
            flips = REAL_LIFE * (1 - true) * flip + (1 - REAL_LIFE) * (1 - called) * as_flip
            said = tanks / (tanks + flips)
            errors.append((said - true) ** 2 + said * (1 - said) / (TRACKS * (tanks + flips)))
    return float(np.mean(errors))
