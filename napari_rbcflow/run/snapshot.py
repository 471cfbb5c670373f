"""What somebody who watches a run is told: small, and light enough to import where there are no networks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.run.judged import JudgedCell
from napari_rbcflow.run.progress import Progress

COUNTED_AGAIN = b"\x02"
"""Among the counted cells of a snapshot."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run at one moment, and what was judged since the snapshot before.

    Attributes
    ----------
    progress : Progress
    frame : int or None
        The last frame that was tracked. With a sliding background that is about 50 frames behind
        the newest.
    newest : int or None
        The newest frame received.
    cell : ndarray of int64, shape (m,)
        The open tracks in `frame`, and where they stand, in camera pixels:
    y_px, x_px : ndarray of float32, shape (m,)
    judged : tuple of JudgedCell
        Oldest first; after a long pause, only the last `judged.REMEMBERED`.
    counted : bytes
        The cells counted since, in order: 1 tank-treading, 0 flipping. None is ever left out. Behind
        `COUNTED_AGAIN` stand all cells that count: those before it count no more.
    warnings : tuple of str
        What a person must be told, in plain sentences.
    """

    progress: Progress
    frame: int | None = None
    newest: int | None = None
    cell: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    y_px: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    x_px: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    judged: tuple[JudgedCell, ...] = ()
    counted: bytes = b""
    warnings: tuple[str, ...] = ()
