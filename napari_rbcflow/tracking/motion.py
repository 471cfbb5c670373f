"""How open tracks move, what the linker is told about a frame, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from napari_rbcflow.types import Bools, Floats, Ints

MEASUREMENT_VARIANCE = 2.6**2
"""Variance of a detection's x about its cell's steady track: the energy's centre moves as a cell turns, and
more as another passes. That of a lone cell is a tenth, but trusting detections less keeps more cells whole.
"""
SPEED_WALK_VARIANCE = 0.03**2  # growth of a speed's variance in a frame: neighbours disturb cells a little
_MAX_MEMORY = 12.0  # frames over which y and energy are averaged


@dataclass(slots=True, eq=False)
class Motion:
    """State of the open tracks, one entry each."""

    slot: Ints  # place in the store
    cell: Ints  # the track's number
    x: Floats  # position along the flow
    v: Floats  # speed a frame
    y: Floats
    log_energy: Floats
    pxx: Floats  # covariance of x and v
    pxv: Floats
    pvv: Floats
    n_detections: Floats
    undetected: Ints  # analysed frames since the last detection of its own
    misses: Ints  # analysed frames since the cell was last seen, by itself or shared with another
    last_seen: Ints  # frame index of that
    first: Ints  # frame indices of the first and the last detection of its own
    found: Ints
    x_first: Floats  # position in frame `first`

    @classmethod
    def empty(cls) -> Motion:
        """Return the state of no track."""
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
        # Where a neighbour disturbs the detection (more variance), y and energy learn less, too.
        share = MEASUREMENT_VARIANCE / variance
        weight = share / np.minimum(self.n_detections[tracks] + 1, _MAX_MEMORY)
        self.y[tracks] += weight * (y - self.y[tracks])
        self.log_energy[tracks] += weight * (log_energy - self.log_energy[tracks])
        self.n_detections[tracks] += 1


@dataclass(slots=True, frozen=True, eq=False)
class FlowDetections:
    """Detections of one frame in flow coordinates: reference pixels, x along the flow."""

    frame: int
    x: Floats
    y: Floats
    log_energy: Floats


class FrameProbe(Protocol):
    """Measures in the last frames, where something was detected and where nothing was."""

    def log_energy_at(self, x: Floats, y: Floats) -> Floats:
        """Return the logarithm of the blurred energy anywhere in the newest frame."""

    def relative_contrasts(self, frame: int, which: Ints) -> Floats:
        """Return the contrast of detections of a frame, as a share of a track's minimum."""

    def relative_contrast_at(self, frame: int, x: float, y: float) -> float:
        """Return the same, anywhere in one of the last frames."""


@dataclass(slots=True, frozen=True, eq=False)
class TrackPositions:
    """Positions of tracks in one frame: store slot, x along the flow and y, and whether it was seen."""

    frame: int
    slot: Ints
    x: Floats
    y: Floats
    seen: Bools


@dataclass(slots=True, frozen=True)
class End:
    """A track that ended: store slot, number, when it was last seen, why it ended, what it may continue."""

    slot: int
    cell: int
    last_seen: int
    reason: str
    may_continue: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Linked:
    """The result of one frame."""

    born: list[tuple[int, int]]  # slot and number of each new track
    past: list[TrackPositions]  # of new tracks in earlier frames, oldest first
    now: TrackPositions  # of all open tracks in this frame
    ended: list[End]  # by number
