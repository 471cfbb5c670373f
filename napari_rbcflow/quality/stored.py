"""What a picture shows of how it was stored: blocks of 8 x 8 pixels, and rows of two moments in one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 8
_FIRST, _EVERY, _LATER = 64, 8, 600  # frames: looked at often in the first ones, then every ten seconds
_SHARP = 0.42
"""Of what repeats with the blocks the second largest wave is so much of the largest: 0.48 and more in what
was compressed, 0.39 at most in a picture enlarged by 8/7 or the like, where a wave repeats with them, too."""
_SAMPLES = 40_000  # differences a look, of each place within a block
_LINES = 8  # one of so many columns or rows shows whether the frame was woven


class StoredPicture:
    """Looks at a frame now and then, for 5 ms (figures: benchmarks/stored_pictures.py)."""

    def __init__(self) -> None:
        self._frames = 0
        self._before: NDArray[np.uint8] | None = None
        self._edges = np.zeros((2, _BLOCK))  # differences of neighbours, by place within a block
        self._counts = np.zeros((2, _BLOCK))
        self._looks = 0
        self._near, self._far = np.zeros(2), np.zeros(2)

    def add(self, image: NDArray[np.uint8]) -> None:
        """Add the next frame."""
        before, self._before = self._before, image
        self._frames += 1
        every = _EVERY if self._frames <= _FIRST else _LATER
        if (
            self._frames % every
            or before is None
            or before.shape != image.shape
            or min(image.shape) < 3 * _BLOCK
        ):
            return
        self._looks += 1
        for axis, (now, last) in enumerate(((image.T, before.T), (image, before))):
            step = max(1, now.size // _BLOCK // _SAMPLES)
            across = np.abs(np.diff(now[::step].astype(np.int16), axis=1)).sum(axis=0)
            blocks = len(across) // _BLOCK
            self._edges[axis] += across[: blocks * _BLOCK].reshape(blocks, _BLOCK).sum(axis=0)
            self._counts[axis] += blocks * len(now[::step])
            moved = now[::_LINES].astype(np.float32) - last[::_LINES]
            self._near[axis] += _bend(moved, 1)
            self._far[axis] += _bend(moved, 2)

    @property
    def figures(self) -> dict[str, Any]:
        """``block_edges`` and ``woven_rows`` of ``quality`` in ``run.json``; None before the first look."""
        if not self._looks:
            return {"block_edges": None, "woven_rows": None}
        mean = np.sort(self._edges / self._counts, axis=1)
        rest = mean[:, :-1].mean(axis=1)
        edges = (mean[:, -1] - mean[:, -2]) / np.where(rest > 0, rest, 1.0)
        waves = np.sort(np.abs(np.fft.rfft(self._edges / self._counts, axis=1)[:, 1:]), axis=1)
        edges *= waves[:, -2] >= _SHARP * waves[:, -1]
        # Less what chance does to so few pixels. A sensor's columns may have a pattern, but not its rows too.
        chance = 2.5 / np.sqrt(self._counts.min() / self._looks)
        woven = self._near / np.where(self._far > 0, self._far, np.inf)
        return {"block_edges": max(0.0, float(edges.min() - chance)), "woven_rows": float(woven.max())}


def _bend(lines: NDArray[np.float32], step: int) -> float:
    """Return how far pixels differ from the mean of those `step` before and behind."""
    middle = lines[:, 2:-2]
    bend = 2 * middle - lines[:, 2 - step : -2 - step] - lines[:, 2 + step : lines.shape[1] - 2 + step]
    return float(np.einsum("ij,ij->", bend, bend))
