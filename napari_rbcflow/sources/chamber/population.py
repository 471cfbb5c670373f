"""Who flows by when: cells arrive at the left edge as they do in an even suspension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.sources.chamber.library import SpriteLibrary
from napari_rbcflow.sources.chamber.settings import ChamberSettings

BLOCK = 64
"""Frames whose arrivals are drawn together, each block from a stream of its own."""


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Cells, one entry each.

    Attributes
    ----------
    kind : ndarray of int64, shape (n,)
        Which of the library's cells.
    x_entry, v : ndarray of float64, shape (n,)
        Centre at frame 0 in pixels (left of the field for most), and pixels a frame:
        x = x_entry + v t.
    y : ndarray of float64, shape (n,)
        Pixels, on the half-pixel grid, so that a sprite need not be interpolated across the flow.
    phase : ndarray of float64, shape (n,)
        Of the cell's cycle at frame 0.
    """

    kind: NDArray[np.int64]
    x_entry: NDArray[np.float64]
    v: NDArray[np.float64]
    y: NDArray[np.float64]
    phase: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.kind)

    def kept(self, which: NDArray[np.bool_]) -> Arrivals:
        """Return those that `which` marks."""
        return Arrivals(
            self.kind[which], self.x_entry[which], self.v[which], self.y[which], self.phase[which]
        )

    @classmethod
    def of(cls, blocks: Sequence[Arrivals]) -> Arrivals:
        """Return the cells of several blocks, in order; none where there is no block."""
        none = np.zeros(0)
        return cls(
            np.concatenate([none.astype(np.int64), *(b.kind for b in blocks)]),
            np.concatenate([none, *(b.x_entry for b in blocks)]),
            np.concatenate([none, *(b.v for b in blocks)]),
            np.concatenate([none, *(b.y for b in blocks)]),
            np.concatenate([none, *(b.phase for b in blocks)]),
        )


class Population:
    """Draws arrivals block by block; a block is the same whenever it is drawn.

    Parameters
    ----------
    settings : ChamberSettings
    library : SpriteLibrary
    """

    def __init__(self, settings: ChamberSettings, library: SpriteLibrary) -> None:
        self._settings = settings
        self.margin_px = int(library.side.max()) // 2
        speed = np.array([settings.speed_px_per_frame(c.z_um) for c in library.cells])
        # As many cells stand at a time as the suspension is dense; as many arrive as are dense and fast.
        tall = (settings.height + 2 * self.margin_px) / settings.height
        rate = settings.cells_per_frame * library.weight * speed / settings.width * tall
        self._speed = speed
        self._rate = float(rate.sum())
        self._chance = rate / rate.sum()
        slowest = float(speed.min()) * 0.9
        self.first_block = -int(np.ceil((settings.width + 2 * self.margin_px) / slowest / BLOCK))

    def block(self, number: int) -> Arrivals:
        """Return the cells that reach the left margin in frames [BLOCK x number, BLOCK x (number + 1))."""
        settings = self._settings
        rng = settings.generator(1, number - self.first_block)
        n = int(rng.poisson(self._rate * BLOCK))
        kind = rng.choice(len(self._chance), size=n, p=self._chance)
        # A cell lags or leads its streamline by a percent or two (its neighbours, its own deformation).
        v = np.round(self._speed[kind] * np.clip(1.0 + 0.015 * rng.standard_normal(n), 0.95, 1.05), 5)
        entry = BLOCK * (number + rng.random(n))
        low, high = -2 * self.margin_px, 2 * (settings.height + self.margin_px)
        y = rng.integers(low, high, n) / 2.0
        return Arrivals(
            kind=kind.astype(np.int64),
            x_entry=-self.margin_px - v * entry,
            v=v,
            y=y,
            phase=rng.random(n),
        )
