"""The fraction corrected for flips that were not seen because the cell was not watched long enough."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtr

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.error_correction import share_of_cells
from napari_rbcflow.estimate.intervals import FEW_CELLS, wilson
from napari_rbcflow.estimate.network_rates import Rate
from napari_rbcflow.sentences import say
from napari_rbcflow.types import LEAST_FRAMES, Label

if TYPE_CHECKING:
    import pandas as pd


ASPECT_RATIO = 0.3  # thickness over diameter of a red cell
TURN_SHARE = 13.0 / 68.0
"""Share of the time after which the picture repeats that the turn itself takes (Jeffery's orbit, the face
going from a flat disc to an edge and back)."""


def repeat_frames(shear_rate_per_s: float = 10.0, fps: float = 60.0) -> float:
    """Return the frames after which the picture of a flipping cell repeats: half of Jeffery's period.

    It is pi (r + 1 / r) / shear rate for the aspect ratio r = 0.3: 68.5 frames at 10 1/s and 60 frames/s
    (Jeffery, Proc. R. Soc. Lond. A 102 (1922) 161).
    """
    for setting, rate in (("shear_rate_per_s", shear_rate_per_s), ("fps", fps)):
        if not (math.isfinite(rate) and rate > 0):
            raise BadInput("estimate.must-be-positive", setting=setting, value=rate)
    return math.pi * (ASPECT_RATIO + 1.0 / ASPECT_RATIO) * fps / shear_rate_per_s


def turn_seen(repeats: ArrayLike, *, reach: float = 0.0) -> NDArray[np.float64]:
    """Return the chance that a track shows a turn, for a cell at any phase.

    `repeats` is the length of the track over the time after which the picture repeats. `reach` is how far the
    turn may reach out of the track: 0 if its middle must be within, 1 if its first or last frame is enough.
    The chance goes from L / 68 to (L + 13) / 68, at most 1, for L frames at 10 1/s and 60 frames/s.
    """
    return np.clip(np.asarray(repeats, np.float64) + reach * TURN_SHARE, 0.0, 1.0)


Floats = NDArray[np.float64]

_NODES = 3  # nodes of Gauss-Hermite quadrature for each rate, over what its counts leave open


@dataclass(frozen=True)
class SeenFlips:
    """How often a flipping cell is called flipping, of those that are counted.

    A number is taken as known; the uncertainty of a rate goes into the interval.
    """

    name: str  # the method in ``run.json``
    middle: Rate | float  # if the track shows the middle of a turn
    part: Rate | float  # some of a turn without its middle
    none: Rate | float  # nothing of a turn
    stage2: str = ""  # first characters of the hash of the stage 2 that was counted; empty for any

    def chance(self, repeats: Floats) -> Floats:
        """Return the chance for each track, shape (n,); `repeats` as in `turn_seen`."""
        rates = [rate.value if isinstance(rate, Rate) else rate for rate in self._rates]
        chance: Floats = _mixed(repeats, np.array([rates]))[0]
        return chance

    def possible(self, repeats: Floats) -> tuple[Floats, Floats]:
        """Return the chances that the counts leave possible, shape (m, n), and their weights, shape (m,)."""
        nodes = [_nodes(rate) for rate in self._rates]
        rates = np.array(list(product(*(values for values, _ in nodes))))
        weights = np.prod(list(product(*(weights for _, weights in nodes))), axis=1)
        return _mixed(repeats, rates), weights

    @property
    def _rates(self) -> tuple[Rate | float, Rate | float, Rate | float]:
        return self.middle, self.part, self.none


def _mixed(repeats: Floats, rates: Floats) -> Floats:
    """Return the chance at each length for each (middle, part, none)."""
    middle, some = turn_seen(repeats), turn_seen(repeats, reach=1.0)
    mixed: Floats = rates @ np.stack([middle, some - middle, 1.0 - some])
    return mixed


def _nodes(rate: Rate | float) -> tuple[Floats, Floats]:
    """Return values that a rate may have, and their weights: normal in the logit, half a cell added."""
    if not isinstance(rate, Rate):
        return np.array([rate]), np.ones(1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    hits, misses = rate.hits + 0.5, rate.of - rate.hits + 0.5
    logit = np.log(hits / misses) + nodes * np.sqrt(1 / hits + 1 / misses)
    return 1 / (1 + np.exp(-logit)), weights / weights.sum()


MEASURED = SeenFlips(
    "chamber",
    middle=Rate(5303, 5307),
    part=Rate(1273, 1386),
    none=Rate(490, 1264),
    stage2="882fa1df43dbdf03",
)
"""The shipped networks on 800 flipping cells in focus of the simulated chamber at each of 13 lengths, 8 to 80
frames, of those that stage 1 let through and stage 2 could tell; made by ``python benchmarks/unseen_flips.py
passages PASSAGES.csv``. The least that can have been missed, if a real stiff cell is recognised by its shape
alone less often than a simulated one."""

TURNS_ONLY = SeenFlips("turns-only", middle=1.0, part=0.0, none=0.0)
"""Theory: a flip is recognised only if the middle of a turn was seen, L / 68. The most that can be missed."""


QUARTERS = (0.25, 0.5, 0.75, 1.0)
"""Ends of the groups of lengths: shares of the time after which a flipping cell's picture repeats."""
LEAST_OF_A_KIND = 5
"""Cells of each kind that a test for a trend needs: with fewer its normal distribution is a guess."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class LengthGroup:
    """The counted cells of some lengths."""

    shortest: int  # frames
    longest: int  # frames; 0 if there is no end
    tank_treading: int
    flipping: int
    estimate: float | None  # tank-treading share; None if the group is empty
    low: float  # Wilson's interval
    high: float

    @property
    def n(self) -> int:
        return self.tank_treading + self.flipping

    @property
    def lengths(self) -> str:
        """The lengths in words: ``18 to 34``."""
        if not self.longest:
            return say("estimate.frames-from", shortest=self.shortest)
        return say("estimate.frames-between", shortest=self.shortest, longest=self.longest)


@dataclass(frozen=True)
class FractionByLength:
    """The fraction by track length, and whether it changes with it.

    Attributes
    ----------
    groups : tuple of LengthGroup
        By length; together they hold every counted cell.
    level : float
        Of the groups' intervals.
    z, p : float or None
        Test for a trend (`cochran_armitage`): z is below 0 if the fraction falls with the chance to see a
        turn, p is two-sided. None if there are too few of a kind, or all tracks can show a turn.
    """

    groups: tuple[LengthGroup, ...]
    level: float
    z: float | None
    p: float | None

    @property
    def falls(self) -> bool:
        """Whether the fraction falls with the length by more than chance does in 1 of 20 runs."""
        return self.z is not None and self.p is not None and self.z < 0 and self.p < SIGNIFICANT

    def sentence(self) -> str:
        """Say what the trend means."""
        if self.z is None or self.p is None:
            return say("estimate.flips-unknown")
        chance = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if self.falls:
            return say("estimate.flips-missed", chance=chance)
        if self.p < SIGNIFICANT:
            return say("estimate.flips-do-not-explain", chance=chance)
        return say("estimate.flips-no-sign", chance=chance)


def fraction_by_length(
    cells: pd.DataFrame, *, shear_rate_per_s: float = 10.0, fps: float = 60.0, level: float = 0.95
) -> FractionByLength:
    """Return the fraction by track length.

    Parameters
    ----------
    cells : DataFrame
        ``cells.csv``: columns ``frames``, ``label`` and ``speed_um_per_s``; what does not count is left out.
        Without a speed the trend is not freed of what goes with it.
    shear_rate_per_s : float, optional
        At the wall. With `fps` it says how many frames a flipping cell takes until its picture repeats
        (`repeat_frames`); the groups end at quarters of that: 17, 34, 51 and 69 frames.
    fps : float, optional
    level : float, optional
        Of the groups' intervals, in (0, 1).

    Returns
    -------
    FractionByLength

    Raises
    ------
    BadInput
        For a level, shear rate or frame rate that cannot be, or a table without these columns.
    """
    counted = _counted(cells, level)
    frames = counted["frames"].to_numpy(np.int64)
    tank = (counted["label"] == Label.TANK_TREADING).to_numpy(np.bool_)
    repeat = repeat_frames(shear_rate_per_s, fps)
    ends = sorted({max(LEAST_FRAMES, round(share * repeat)) for share in QUARTERS})
    groups = []
    for shortest, longest in zip((LEAST_FRAMES, *(end + 1 for end in ends)), (*ends, 0), strict=True):
        inside = (frames >= shortest) & ((frames <= longest) if longest else True)
        k, n = int((tank & inside).sum()), int(inside.sum())
        low, high = wilson(k, n, level)
        groups.append(LengthGroup(shortest, longest, k, n - k, k / n if n else None, low, high))
    speeds = counted.get("speed_um_per_s")
    z, p = cochran_armitage(turn_seen(frames / repeat, reach=1.0), tank, speeds)
    return FractionByLength(tuple(groups), level, z, p)


def _counted(cells: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return the rows of counted cells, after checking the arguments."""
    if not 0 < level < 1:
        raise BadInput("estimate.level-outside", level=level)
    if missing := {"frames", "label"} - set(cells.columns):
        raise BadInput("estimate.column-missing", column=min(missing))
    return cells[cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])]


def cochran_armitage(
    scores: ArrayLike, hits: ArrayLike, beside: ArrayLike | None = None
) -> tuple[float | None, float | None]:
    """Test whether a share rises or falls with a score (Cochran and Armitage), every unit its own score.

    `scores` and `hits` have shape (n,); so has `beside`, what the share may change with as well: it and its
    square are taken out first, by least squares. z is above 0 if the share rises; p is two-sided, by the
    normal distribution. Both are None with fewer than `LEAST_OF_A_KIND` hits or misses, or if all scores are
    alike. z is the correlation of score and hit, times the root of n - 1: Armitage, Biometrics 11 (1955) 375;
    beside other variables: Mantel, J. Am. Stat. Assoc. 58 (1963) 690.
    """
    x: NDArray[np.float64] = np.asarray(scores, np.float64)
    y: NDArray[np.float64] = np.asarray(hits, np.float64)
    n, k = len(y), int(y.sum())
    if min(k, n - k) < LEAST_OF_A_KIND:
        return None, None
    others = np.ones((n, 1))
    if beside is not None:
        known = np.nan_to_num(np.asarray(beside, np.float64))
        if spread := float(known.std()):
            known = (known - known.mean()) / spread
            others = np.stack([np.ones(n), known, known**2], -1)
    x, y = (v - others @ np.linalg.lstsq(others, v, rcond=None)[0] for v in (x, y))
    size = math.sqrt(float(x @ x) * float(y @ y))
    if float(x @ x) < 1e-9 * n or size == 0:
        return None, None
    z = float(x @ y) / size * math.sqrt(n - others.shape[1])
    return z, float(2 * ndtr(-abs(z)))


LEAST_SEEN = 0.3
"""Share of flips seen, mean over the counted cells, below which the correction is most of the number."""
WIDEST = 0.3  # width of the widest interval that still tells something
TOO_FEW, TOO_SHORT, TOO_WIDE, OTHER_NETWORKS = (
    "too-few-cells",
    "tracks-too-short",
    "too-uncertain",
    "other-networks",
)
_STEPS = 600
_F_NODES = 9


@dataclass(frozen=True)
class UnseenFlips:
    """The tank-treading fraction corrected for unseen flips.

    Attributes
    ----------
    estimate, low, high : float or None
        None if the correction is meaningless; `reason` says why.
    level : float
    method : str
        Name of the curve.
    n : int
        Cells counted.
    seen : float or None
        Mean over the counted cells' lengths of the chance that a flipping cell is called flipping. None if no
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
        """Say why there is no corrected fraction; empty if there is one."""
        return say(f"estimate.uncorrected-{self.reason}", least=FEW_CELLS) if self.reason else ""


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
        Of the run: the curve is by turns, not by frames.
    level : float, optional
        In (0, 1).
    false_flips : (int, int), optional
        Tank-treading cells called flipping, and of how many, as counted on cells whose truth is known: then
        these errors are corrected for too. None: only for unseen flips.
    stage2 : str, optional
        Hash of the run's own stage 2: a curve that was measured with another is not used.
    raw : (float, float), optional
        An interval of the raw fraction at the same level that is valid for how the run was stopped. If it is
        wider than Wilson's, each cell weighs less (`share_of_cells`), and the interval is wider.

    Returns
    -------
    UnseenFlips

    Raises
    ------
    BadInput
        For a level or rates that are impossible, or a table without these columns.
    """
    counted = _counted(cells, level)
    if false_flips is not None and not 0 <= false_flips[0] <= false_flips[1]:
        called, of_cells = false_flips
        raise BadInput("estimate.false-flips-impossible", called=called, cells=of_cells)
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
        # The curve is of other networks, and so is the share of flips seen.
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
    """Return the likeliest share of flipping cells, low and high, from weighted counts by length."""
    chances, weights = curve.possible(repeats)
    wrong, wrong_weights = np.zeros(1), np.ones(1)
    if false_flips is not None:
        k, n = false_flips
        # Midpoints of parts of equal probability.
        quantiles = (np.arange(_F_NODES) + 0.5) / _F_NODES
        wrong = betaincinv(k + 0.5, n - k + 0.5, quantiles)
        wrong_weights = np.full(_F_NODES, 1 / _F_NODES)
    # Jeffreys' prior of a share is uniform in the angle whose squared sine it is.
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
    # As for a plain share: if no cell flipped, a share of 0 is possible.
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
