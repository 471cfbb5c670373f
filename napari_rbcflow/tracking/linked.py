"""What linking says of one frame."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.tracking.motion import Bools, Floats, Ints


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
