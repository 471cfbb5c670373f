"""The fraction corrected for flips that nobody saw, because the cell was not watched long enough.

A cell that flips is called flipping with a chance c that grows with the length of its track. Of cells of
which a share phi flips, a track of length L is then called flipping with probability
phi c(L) + (1 - phi) f, with f the chance that a tank-treading cell is called so (0 unless it is given).
The likelihood of all counted cells, each with its own length, gives phi. What is not known of c and f, as
they were estimated from counts themselves, is integrated out; the interval holds the middle of what the
posterior gives under Jeffreys' prior for phi.

What c is, is an assumption, and two are offered (`seen_flips`). `MEASURED` is what the shipped networks do
with the simulated chamber's cells: those whose turn they see they tell, of the others two in five by their
form. `TURNS_ONLY` is theory: a cell is told only by a turn whose middle was seen. What of this holds for real
cells is discussed in docs/decisions/unseen-flips.md.

References
----------
Rogan, W. J., Gladen, B. (1978). Estimating prevalence from the results of a screening test. American Journal
of Epidemiology 107, 71-76: the same for one sensitivity.
Brown, L. D., Cai, T. T., DasGupta, A. (2001). Interval estimation for a binomial proportion. Statistical
Science 16, 101-133: how well the interval of Jeffreys' prior covers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.corrected import share_of_cells
from napari_rbcflow.estimate.seen_flips import SeenFlips
from napari_rbcflow.estimate.turning import repeat_frames
from napari_rbcflow.types import Label

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

FEW_CELLS = 30
LEAST_SEEN = 0.3
"""Where flips are seen less often than that, in the mean over the counted cells, the correction is most of
the number."""
WIDEST = 0.3
"""Of an interval that still says something."""
TOO_FEW, TOO_SHORT, TOO_WIDE, OTHER_NETWORKS = (
    "too-few-cells",
    "tracks-too-short",
    "too-uncertain",
    "other-networks",
)
_SENTENCES = {
    TOO_FEW: f"fewer than {FEW_CELLS} cells were counted",
    TOO_SHORT: "the tracks are so short that most flips would go unseen",
    TOO_WIDE: "the interval would span most of what the fraction could be",
    OTHER_NETWORKS: "how often flips are seen was measured with other networks",
}
_STEPS = 600
_F_NODES = 9


@dataclass(frozen=True)
class UnseenFlips:
    """The tank-treading fraction corrected for unseen flips.

    Attributes
    ----------
    estimate, low, high : float or None
        None where the correction is meaningless; `reason` says why.
    level : float
    method : str
        Name of the curve.
    n : int
        Cells counted.
    seen : float or None
        Chance that a flipping cell is called so, in the mean over the counted cells' lengths. None where no
        cell was counted, or the curve was measured with other networks.
    reason : str
        Empty, ``too-few-cells``, ``tracks-too-short``, ``too-uncertain`` or ``other-networks``.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    n: int
    seen: float | None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``run.json`` holds it."""
        return asdict(self)

    def why_not(self) -> str:
        """Say why there is no corrected fraction; empty where there is one."""
        return _SENTENCES.get(self.reason, self.reason)


def correct_unseen_flips(
    cells: pd.DataFrame,
    curve: SeenFlips,
    *,
    shear_rate_per_s: float = 10.0,
    fps: float = 60.0,
    level: float = 0.95,
    false_flips: tuple[int, int] | None = None,
    stage2: str = "",
    raw: tuple[float, float] | None = None,
) -> UnseenFlips:
    """Return the tank-treading fraction corrected for flips that were not seen.

    Parameters
    ----------
    cells : DataFrame
        ``cells.csv``: columns ``frames`` and ``label``; what does not count is left out.
    curve : SeenFlips
        `MEASURED` or `TURNS_ONLY`, or one of your own.
    shear_rate_per_s, fps : float, optional
        Of the run: the curve is one of turns, not of frames.
    level : float, optional
        In (0, 1).
    false_flips : (int, int), optional
        Tank-treading cells called flipping, of how many, as counted where the truth is known: then these
        errors are corrected for too. None: only for unseen flips.
    stage2 : str, optional
        Hash of the run's own stage 2: a curve that was measured with another says nothing of it.
    raw : (float, float), optional
        An interval of the raw fraction at the same level that holds for how the run was stopped. Where it is
        wider than Wilson's, each cell weighs less (`corrected.share_of_cells`), and the interval is wider.

    Returns
    -------
    UnseenFlips

    Raises
    ------
    BadInput
        For a level or rates that cannot be, counts that are none, or a table without these columns.
    """
    if not 0 < level < 1:
        raise BadInput(f"the confidence level must lie between 0 and 1, not {level}")
    if missing := {"frames", "label"} - set(cells.columns):
        raise BadInput(f"a table of cells needs the column {sorted(missing)[0]}: give that of cells.csv")
    if false_flips is not None and not 0 <= false_flips[0] <= false_flips[1]:
        raise BadInput(f"of {false_flips[1]} tank-treading cells {false_flips[0]} cannot be called flipping")
    counted = cells[cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])]
    lengths, which = np.unique(counted["frames"].to_numpy(np.int64), return_inverse=True)
    repeats = lengths / repeat_frames(shear_rate_per_s, fps)
    flips = (counted["label"] == Label.FLIPPING).to_numpy()
    of: Floats = np.bincount(which, minlength=len(lengths)).astype(np.float64)
    flipping: Floats = np.bincount(which[flips], minlength=len(lengths)).astype(np.float64)
    n = int(of.sum())
    seen = float(curve.chance(repeats) @ of / n) if n else None

    def none(reason: str) -> UnseenFlips:
        return UnseenFlips(None, None, None, level, curve.name, n, seen, reason)

    if curve.stage2 and stage2 and not stage2.startswith(curve.stage2):
        # The curve is none of these networks': neither is the share that it says would be seen.
        return UnseenFlips(None, None, None, level, curve.name, n, None, OTHER_NETWORKS)
    if n < FEW_CELLS or seen is None:
        return none(TOO_FEW)
    if seen < LEAST_SEEN:
        return none(TOO_SHORT)
    weight = share_of_cells(n - int(flipping.sum()), n, level, raw)
    treading = of - flipping
    phi, low, high = _share(weight * flipping, weight * treading, repeats, curve, level, false_flips)
    if high - low > WIDEST:
        return none(TOO_WIDE)
    return UnseenFlips(1 - phi, 1 - high, 1 - low, level, curve.name, n, seen)


def _share(
    flipping: Floats,
    treading: Floats,
    repeats: Floats,
    curve: SeenFlips,
    level: float,
    false_flips: tuple[int, int] | None,
) -> tuple[float, float, float]:
    """Return the share of flipping cells, likeliest, low and high, from (weighed) counts by length."""
    chances, weights = curve.possible(repeats)
    wrong, wrong_weights = np.zeros(1), np.ones(1)
    if false_flips is not None:
        k, n = false_flips
        # Middles of parts of equal probability.
        quantiles = (np.arange(_F_NODES) + 0.5) / _F_NODES
        wrong = betaincinv(k + 0.5, n - k + 0.5, quantiles)
        wrong_weights = np.full(_F_NODES, 1 / _F_NODES)
    # Jeffreys' prior of a share is even in the angle whose squared sine it is.
    phi = np.sin((np.arange(_STEPS) + 0.5) / _STEPS * np.pi / 2) ** 2
    likelihoods, weight = [], []
    for chance, a in zip(chances, weights, strict=True):
        for false, b in zip(wrong, wrong_weights, strict=True):
            called = np.clip(phi[:, None] * chance + (1 - phi[:, None]) * false, 1e-12, 1 - 1e-12)
            likelihoods.append(np.log(called) @ flipping + np.log1p(-called) @ treading)
            weight.append(a * b)
    logs = np.array(likelihoods)
    likelihood = np.array(weight) @ np.exp(logs - logs.max())
    best = _peak(likelihood)
    below = np.cumsum(likelihood) - likelihood / 2
    low, high = np.interp([(1 - level) / 2, (1 + level) / 2], below / likelihood.sum(), phi)
    # As for a plain share: where no cell flipped, none at all is possible.
    if not flipping.any():
        best = low = 0.0
    if not treading.any():
        best = high = 1.0
    return best, float(min(low, best)), float(max(high, best))


def _peak(likelihood: Floats) -> float:
    """Return the share at which the likelihood is greatest: the top of a parabola through its logarithms."""
    at = int(np.clip(likelihood.argmax(), 1, len(likelihood) - 2))
    before, here, after = np.log(np.maximum(likelihood[at - 1 : at + 2], 1e-300))
    bend = before - 2 * here + after
    away = float(np.clip((before - after) / (2 * bend), -1.0, 1.0)) if bend < 0 else 0.0
    return float(np.sin((at + 0.5 + away) / len(likelihood) * np.pi / 2) ** 2)
