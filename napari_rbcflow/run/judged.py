"""The cells judged last, as somebody who watches is told of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import Judgement, Label, Track

REMEMBERED = 2048
"""Cells: ten seconds at 200 tracks a second, in two megabytes."""


@dataclass(frozen=True, eq=False)
class JudgedCell:
    """One judged track, without its sequence: that lies in the session.

    Attributes
    ----------
    cell : int
    label : Label
    p_reliable, p_tank_treading : float or None
    reason : str
        As in ``cells.csv``.
    first_frame, last_frame, frames : int
    y_px, x_px : float
        Where it was last seen, in camera pixels.
    crop : ndarray of uint8, shape (CROP_SIDE, CROP_SIDE)
        From the middle of the sequence.
    """

    cell: int
    label: Label
    p_reliable: float | None
    p_tank_treading: float | None
    reason: str
    first_frame: int
    last_frame: int
    frames: int
    y_px: float
    x_px: float
    crop: NDArray[np.uint8]

    @classmethod
    def of(cls, track: Track, judgement: Judgement) -> JudgedCell:
        """Return what is told of a track and its judgement."""
        return cls(
            cell=track.cell,
            label=judgement.label,
            p_reliable=judgement.p_reliable,
            p_tank_treading=judgement.p_tank_treading,
            reason=judgement.reason,
            first_frame=int(track.frames[0]),
            last_frame=int(track.frames[-1]),
            frames=len(track),
            y_px=float(track.y_px[-1]),
            x_px=float(track.x_px[-1]),
            crop=track.crops[len(track) // 2].copy(),
        )


class RecentCells:
    """The last `REMEMBERED` judged cells, put in by one thread and read by any other.

    Attributes
    ----------
    n : int
        Cells put in so far.
    """

    def __init__(self) -> None:
        self._cells: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self.n = 0

    def add(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        """Put in what was judged, oldest first."""
        cells = [JudgedCell.of(track, judgement) for track, judgement in pairs]
        with self._lock:
            self._cells.extend(cells)
            self.n += len(cells)

    def since(self, n: int) -> tuple[int, tuple[JudgedCell, ...]]:
        """Return how many there were so far, and those after the first `n` that are still remembered."""
        with self._lock:
            new = min(self.n - n, len(self._cells))
            return self.n, tuple(islice(self._cells, len(self._cells) - new, None))
