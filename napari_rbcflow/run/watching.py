"""Looking at a run a few times a second."""

from __future__ import annotations

import time
from typing import Any

from napari_rbcflow.run.snapshot import COUNTED_AGAIN
from napari_rbcflow.run.snapshot import Snapshot as Snapshot
from napari_rbcflow.run.wiring import Run
from napari_rbcflow.tracking.tracker import OpenTracks

_WARNED_EVERY_S = 0.25
"""A whole account is made for them, 2 ms of it; of an ended run they are always the last ones."""


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
        self._counted_before = self._recounts = 0
        self._warnings: tuple[str, ...] = ()
        self._warned_at = float("-inf")

    def look(self) -> Snapshot:
        """Return how the run stands now, and what is new since the last look; from one thread."""
        stages = self._run.stages
        # Counted first: a cell counted in between is then told next time, never lost.
        counted, recounts = stages.tally.counted_since(self._counted_before, self._recounts)
        newest, positions = stages.newest, stages.positions
        if recounts != self._recounts:
            self._counted_before, self._recounts = len(counted), recounts
            counted = COUNTED_AGAIN + counted
        else:
            self._counted_before += len(counted)
        self._judged_before, judged = stages.judged.since(self._judged_before)
        return Snapshot(
            progress=self._run.progress(),
            frame=None if positions is None or positions.frame is None else positions.frame.index,
            newest=None if newest is None else newest.index,
            judged=judged,
            counted=counted,
            warnings=self._warned(),
            **_places(positions),
        )

    def _warned(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._warned_at > _WARNED_EVERY_S or self._run.outcome[0] != "running":
            self._warnings, self._warned_at = tuple(self._run.warnings), now
        return self._warnings


def _places(positions: OpenTracks | None) -> dict[str, Any]:
    if positions is None:
        return {}
    return {"cell": positions.cell, "y_px": positions.y_px, "x_px": positions.x_px}
