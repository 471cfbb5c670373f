"""What linking is told of one frame, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from napari_rbcflow.tracking.motion import Bools, Floats, Ints


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
