"""The fraction by how long the cells were watched: a sign of flips that nobody saw.

A stiff cell shows its turn the more surely the longer it is watched. If many turns are missed, the fraction
is higher among the cells that were watched briefly, and falls with the length of the track.

A track that crosses the whole field is the longer the slower the cell, that is the lower it flows, and cells
at another height may be judged otherwise, turns seen or not. So the test for a trend does not look at the
length itself but at the chance that it shows some of a turn, which is 1 from 56 frames on, and takes out what
goes with the speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.fraction import wilson
from napari_rbcflow.estimate.turning import repeat_frames, turn_seen
from napari_rbcflow.types import LEAST_FRAMES, Label

if TYPE_CHECKING:
    import pandas as pd

QUARTERS = (0.25, 0.5, 0.75, 1.0)
"""Where the groups of lengths end: shares of the time after which a flipping cell's picture repeats."""
LEAST_OF_A_KIND = 5
"""Of each kind, for a trend to be tested: with fewer the test's normal distribution is a guess."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class LengthGroup:
    """The counted cells of some lengths.

    Attributes
    ----------
    shortest, longest : int
        Frames; `longest` is 0 where there is no end.
    tank_treading, flipping : int
    estimate : float or None
        Tank-treading share; None where the group is empty.
    low, high : float
        Wilson's interval, for the number of cells as it is.
    """

    shortest: int
    longest: int
    tank_treading: int
    flipping: int
    estimate: float | None
    low: float
    high: float

    @property
    def n(self) -> int:
        """Cells counted."""
        return self.tank_treading + self.flipping

    @property
    def said(self) -> str:
        """The lengths in words: ``18 to 34``."""
        return f"{self.shortest} to {self.longest}" if self.longest else f"{self.shortest} and more"


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
        Test for a trend (`cochran_armitage`): z below 0 where the fraction falls with the chance to see a
        turn, p two-sided. None where it cannot be told: too few of a kind, or every track long enough to
        show a turn.
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
        """Say in plain words what the trend means."""
        if self.z is None or self.p is None:
            return (
                "Whether flips were missed in short tracks cannot be told from these cells: they are too few,"
                " or all were watched long enough to show a turn."
            )
        chance = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if self.falls:
            return (
                f"The fraction is higher among cells that were watched briefly ({chance}): flips were"
                " probably missed in short tracks, and the true fraction is lower. Count longer tracks only."
            )
        if self.p < SIGNIFICANT:
            return (
                f"The fraction is lower among cells that were watched briefly ({chance}): missed flips do not"
                " explain that. Their tracks may be cut by other cells or by the light."
            )
        return f"No sign of missed flips in short tracks ({chance})."


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
        (`turning.repeat_frames`); the groups end at quarters of that: 17, 34, 51 and 69 frames.
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
    if not 0 < level < 1:
        raise BadInput(f"the confidence level must lie between 0 and 1, not {level}")
    if missing := {"frames", "label"} - set(cells.columns):
        raise BadInput(f"a table of cells needs the column {sorted(missing)[0]}: give that of cells.csv")
    counted = cells[cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])]
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


def cochran_armitage(
    scores: ArrayLike, hits: ArrayLike, beside: ArrayLike | None = None
) -> tuple[float | None, float | None]:
    """Test whether a share rises or falls with a score: Cochran and Armitage's, every unit its own score.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
    hits : array_like of bool, shape (n,)
    beside : array_like of float, shape (n,), optional
        What the share may change with as well: it and its square are taken out first, by least squares.

    Returns
    -------
    z, p : float or None
        z above 0 where the share rises; p two-sided, by the normal distribution. None with fewer than
        `LEAST_OF_A_KIND` hits or misses, or where the scores are alike.

    References
    ----------
    Armitage, P. (1955). Tests for linear trends in proportions and frequencies. Biometrics 11, 375-386: z is
    the correlation of score and hit, times the root of n - 1.
    Mantel, N. (1963). Chi-square tests with one degree of freedom; extensions of the Mantel-Haenszel
    procedure. Journal of the American Statistical Association 58, 690-700: the same beside other variables.
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
