"""How long a grid may still take, told from what its cells took so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from napari_rbcflow.classification.grid.folder import Cell, Progress
from napari_rbcflow.classification.grid.splits import Split

_COST = {"cnn": (40.0, 0.8), "c-rnn": (0.0, 22.0)}
"""Million multiplications a sequence: of itself, and for each of its K frames. Only for the time left."""
_EVERY_S = 10.0


class Clock:
    """Says where the grid is and how long it may still take, from what its cells took so far."""

    def __init__(self, todo: Sequence[Cell], splits: Mapping[int, Split], epochs: int, say: Progress) -> None:
        self._todo, self._splits, self._epochs, self._say = list(todo), splits, epochs, say
        self._at, self._started, self._said = 0, 0.0, 0.0
        self._pace: dict[str, float] = {}

    def starts(self, cell: Cell) -> None:
        self._started = self._said = time.monotonic()
        self._say(f"cell {self._at + 1} of {len(self._todo)}: {cell.in_words}{self._left(0.0)}")

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        now = time.monotonic()
        share = epoch / epochs
        cell = self._todo[self._at]
        self._pace[cell.model] = (now - self._started) / (share * self._cost(cell))
        if now - self._said >= _EVERY_S:
            self._said = now
            self._say(f"  epoch {epoch} of {epochs}, loss {loss:.4f}{self._left(share)}")

    def ended(self, cell: Cell) -> None:
        self._pace[cell.model] = (time.monotonic() - self._started) / self._cost(cell)
        self._at += 1

    def _cost(self, cell: Cell) -> float:
        own, each = _COST[cell.model]
        split = self._splits[cell.stage]
        return (own + each * cell.frames) * (3 * len(split.train) + len(split.validation)) * self._epochs

    def _left(self, share: float) -> str:
        if not self._pace:
            return ""
        known = max(self._pace.values())
        rest = [1 - share, *[1.0] * (len(self._todo) - self._at - 1)]
        seconds = sum(
            part * self._cost(cell) * self._pace.get(cell.model, known)
            for part, cell in zip(rest, self._todo[self._at :], strict=True)
        )
        if seconds < 90:
            return f"; about {seconds:.0f} s left"
        return (
            f"; about {seconds / 60:.0f} min left"
            if seconds < 5400
            else f"; about {seconds / 3600:.1f} h left"
        )
