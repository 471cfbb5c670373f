"""How open tracks move, what linking is told of a frame, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MEASUREMENT_VARIANCE = 2.6**2
"""Of a detection's x about its cell's steady way: the energy's centre wanders as a cell turns, and more
as another passes. A lone cell's is a tenth of that, but to trust a sight less keeps more cells whole."""
SPEED_WALK_VARIANCE = 0.03**2
"""By which a speed's variance grows a frame; neighbours disturb cells a little."""
_LONGEST_MEMORY = 12.0
"""Frames over which y and energy are averaged."""


@dataclass(slots=True, eq=False)
class Motion:
    """State of the open tracks, one entry each.

    Attributes
    ----------
    slot, cell : ndarray of int64
        Place in the store, and the track's number.
    x, v, y, log_energy : ndarray of float64
        Position along the flow, speed a frame, height, and the logarithm of the energy.
    pxx, pxv, pvv : ndarray of float64
        Covariance of x and v.
    sights : ndarray of float64
        Sights so far.
    hidden : ndarray of int64
        Analysed frames since the last detection of its own.
    misses : ndarray of int64
        Analysed frames since the last sight, of its own or shared with another cell.
    last_seen : ndarray of int64
        Frame index of the last sight.
    first, found : ndarray of int64
        Frame indices of the first and the last detection of its own.
    x_first : ndarray of float64
        Position in frame `first`.
    """

    slot: Ints
    cell: Ints
    x: Floats
    v: Floats
    y: Floats
    log_energy: Floats
    pxx: Floats
    pxv: Floats
    pvv: Floats
    sights: Floats
    hidden: Ints
    misses: Ints
    last_seen: Ints
    first: Ints
    found: Ints
    x_first: Floats

    @classmethod
    def empty(cls) -> Motion:
        """No track."""
        i = np.empty(0, np.int64)
        f = np.empty(0, np.float64)
        return cls(i, i, f, f, f, f, f, f, f, f, i, i, i, i, i, f)

    def __len__(self) -> int:
        return len(self.x)

    def keep(self, mask: Bools) -> None:
        """Drop the tracks where `mask` is False."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name)[mask])

    def extend(self, other: Motion) -> None:
        """Append `other`'s tracks."""
        for f in fields(self):
            setattr(self, f.name, np.concatenate([getattr(self, f.name), getattr(other, f.name)]))

    def predict(self, elapsed: int) -> None:
        """Advance by `elapsed` frames."""
        q = SPEED_WALK_VARIANCE
        self.x = self.x + self.v * elapsed
        self.pxx = self.pxx + 2 * elapsed * self.pxv + elapsed**2 * self.pvv + q * elapsed**3 / 3
        self.pxv = self.pxv + elapsed * self.pvv + q * elapsed**2 / 2
        self.pvv = self.pvv + q * elapsed

    def update(self, tracks: Ints, x: Floats, y: Floats, log_energy: Floats, variance: Floats) -> None:
        """Take in a detection for each of `tracks`; `variance` is that of the detection's x."""
        s = self.pxx[tracks] + variance
        gain_x = self.pxx[tracks] / s
        gain_v = self.pxv[tracks] / s
        off = x - self.x[tracks]
        self.x[tracks] += gain_x * off
        self.v[tracks] += gain_v * off
        self.pvv[tracks] -= gain_v * self.pxv[tracks]
        self.pxv[tracks] *= 1 - gain_x
        self.pxx[tracks] *= 1 - gain_x
        # Where a neighbour blurs the sight (variance above the usual), height and energy learn less too.
        share = MEASUREMENT_VARIANCE / variance
        weight = share / np.minimum(self.sights[tracks] + 1, _LONGEST_MEMORY)
        self.y[tracks] += weight * (y - self.y[tracks])
        self.log_energy[tracks] += weight * (log_energy - self.log_energy[tracks])
        self.sights[tracks] += 1


@dataclass(slots=True, frozen=True, eq=False)
class Sights:
    """Detections of one frame, x along the flow, reference pixels.

    Attributes
    ----------
    frame : int
    x, y, log_energy : ndarray of float64, shape (n,)
    """

    frame: int
    x: Floats
    y: Floats
    log_energy: Floats

    def __len__(self) -> int:
        return len(self.x)


class Look(Protocol):
    """Looks into frames, where something was detected and where nothing was. Lengths as in `Sights`."""

    def log_energy_at(self, x: Floats, y: Floats) -> Floats:
        """Logarithm of the blurred energy anywhere in the newest frame."""

    def clearness_of(self, frame: int, sights: Ints) -> Floats:
        """Contrast of sights of one of the last frames, as a share of the least that a track must have."""

    def clearness_at(self, frame: int, x: float, y: float) -> float:
        """The same, anywhere in one of the last frames."""


@dataclass(slots=True, frozen=True, eq=False)
class Rows:
    """Positions of tracks in one frame: store slot, x along the flow and y, and whether it was seen."""

    frame: int
    slot: Ints
    x: Floats
    y: Floats
    seen: Bools


@dataclass(slots=True, frozen=True)
class End:
    """A track that ended: its store slot, its number, last sight, why, what it may continue."""

    slot: int
    cell: int
    last_seen: int
    reason: str
    may_continue: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Linked:
    """What one frame brought.

    Attributes
    ----------
    born : list of (int, int)
        Slot and number of each new track.
    past : list of Rows
        Positions of new tracks in earlier frames, oldest first.
    now : Rows
        Positions of all open tracks in this frame.
    ended : list of End
        By number.
    """

    born: list[tuple[int, int]]
    past: list[Rows]
    now: Rows
    ended: list[End]
