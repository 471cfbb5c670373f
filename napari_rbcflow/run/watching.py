"""What somebody who watches a run is told, a few times a second; small enough to go to another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.run.judged import JudgedCell
from napari_rbcflow.run.progress import Progress
from napari_rbcflow.run.wiring import Run
from napari_rbcflow.tracking.tracker import OpenTracks


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
        The cells counted since, in order: 1 tank-treading, 0 flipping. None is ever left out.
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


class Watcher:
    """Looks at a run that has started, again and again.

    Parameters
    ----------
    run : Run
        Started.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._judged_before = 0
        self._counted_before = 0

    def look(self) -> Snapshot:
        """Return how the run stands now, and what is new since the last look; from one thread."""
        stages = self._run.stages
        # Counted first: a cell counted in between is then told next time, never lost.
        counted = bytes(stages.tally.counted[self._counted_before :])
        newest, positions = stages.newest, stages.positions
        self._counted_before += len(counted)
        self._judged_before, judged = stages.judged.since(self._judged_before)
        return Snapshot(
            progress=self._run.progress(),
            frame=None if positions is None or positions.frame is None else positions.frame.index,
            newest=None if newest is None else newest.index,
            judged=judged,
            counted=counted,
            warnings=tuple(self._run.warnings),
            **_places(positions),
        )


def _places(positions: OpenTracks | None) -> dict[str, Any]:
    if positions is None:
        return {}
    return {"cell": positions.cell, "y_px": positions.y_px, "x_px": positions.x_px}
