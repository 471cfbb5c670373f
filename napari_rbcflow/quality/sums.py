"""What is added up of frames and tracks: a fixed number of bytes, however long the run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SLOWEST_UM_PER_S, SPEED_STEP, SPEED_BINS = 5.0, 0.02, 500
"""Speeds are counted in steps of two per cent, from 5 um/s to 0.1 m/s."""
RADIUS_STEP_UM, RADIUS_BINS = 0.05, 200
GREYS = 256


def _counts(n: int) -> NDArray[np.int64]:
    return np.zeros(n, np.int64)


@dataclass(slots=True, eq=False)
class Sums:
    """Sums over some seconds of a run; those of two spans add up to those of both.

    Attributes
    ----------
    frames : int
    tracked_frames, open_tracks : int
        Frames in which cells were looked for, and cells followed, summed over these.
    greys : ndarray of int64, shape (256,)
        Sampled pixels by grey.
    flicker : float
        Squares of the change of light from each frame to the next, as a share of the light.
    flicker_frames : int
    judged, reliable : int
        Tracks that stage 1 judged, and those of them that it let pass.
    tracks, too_short : int
        All tracks, and those that were lost within a few frames.
    positions, intruded : int
        Of judged tracks, and those of them with another cell in the crop.
    speeds : ndarray of int64, shape (SPEED_BINS,)
        Reliable tracks by speed.
    radii, other_radii : ndarray of int64, shape (RADIUS_BINS,)
        Reliable tracks, and one in a few of the others, by the radius of their rim.
    """

    frames: int = 0
    tracked_frames: int = 0
    open_tracks: int = 0
    greys: NDArray[np.int64] = field(default_factory=lambda: _counts(GREYS))
    flicker: float = 0.0
    flicker_frames: int = 0
    judged: int = 0
    reliable: int = 0
    tracks: int = 0
    too_short: int = 0
    positions: int = 0
    intruded: int = 0
    speeds: NDArray[np.int64] = field(default_factory=lambda: _counts(SPEED_BINS))
    radii: NDArray[np.int64] = field(default_factory=lambda: _counts(RADIUS_BINS))
    other_radii: NDArray[np.int64] = field(default_factory=lambda: _counts(RADIUS_BINS))

    def add(self, other: Sums) -> None:
        """Add what `other` holds."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def speed_bin(speed_um_per_s: float) -> int:
    """Return where a speed is counted; one below the slowest with the slowest."""
    if not speed_um_per_s > SLOWEST_UM_PER_S:
        return 0
    return min(SPEED_BINS - 1, int(np.log(speed_um_per_s / SLOWEST_UM_PER_S) / np.log1p(SPEED_STEP)))


def median_speed(speeds: NDArray[np.int64]) -> float | None:
    """Return the median of counted speeds, um/s; None where there are none."""
    at = place_at(speeds, 0.5)
    return None if at is None else float(SLOWEST_UM_PER_S * (1 + SPEED_STEP) ** at)


def radius_at(radii: NDArray[np.int64], share: float) -> float | None:
    """Return the radius below which a share of the counted ones lies, um; None where there are none."""
    at = place_at(radii, share)
    return None if at is None else at * RADIUS_STEP_UM


def place_at(counts: NDArray[np.int64], share: float) -> float | None:
    """Return where a share of the counts lies below, within the bin by its part; None of nothing."""
    total = int(counts.sum())
    if not total:
        return None
    below = np.cumsum(counts)
    at = int(np.searchsorted(below, share * total))
    return at + float((share * total - (below[at] - counts[at])) / counts[at])
