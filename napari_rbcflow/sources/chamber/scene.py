"""One chamber from its first frame on: cells come, cross and go, and what was true is remembered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.sources.chamber.canvas import Canvas
from napari_rbcflow.sources.chamber.library import build_library
from napari_rbcflow.sources.chamber.population import BLOCK, Arrivals, Population
from napari_rbcflow.sources.chamber.settings import ChamberSettings
from napari_rbcflow.sources.chamber.truth import truth_table


class Scene:
    """Frames in order, with their truth.

    Parameters
    ----------
    settings : ChamberSettings
    progress : callable, optional
        Called with (cells rendered, cells in all) while the library is made.
    """

    def __init__(self, settings: ChamberSettings, progress: Callable[[int, int], None] | None = None) -> None:
        self.settings = settings
        self.library = build_library(settings, progress)
        self._canvas = Canvas(settings, self.library)
        self._population = Population(settings, self.library)
        self._cycle_frames = np.array([c.cycle_s for c in self.library.cells]) * settings.fps
        self._next_block = self._population.first_block
        self._here = Arrivals.of([])
        self._all: list[Arrivals] = []
        self._next_index = 0

    @property
    def light(self) -> NDArray[np.float32]:
        """Mean grey without cells and noise, shape (height, width)."""
        return self._canvas.light

    def next_frame(self) -> NDArray[np.uint8]:
        """Render the next frame, shape (height, width), a new array."""
        index = self._next_index
        margin = self._population.margin_px
        while self._next_block * BLOCK <= index:
            block = self._population.block(self._next_block)
            if self._next_block < 0:  # most that arrived before the first frame have left by then
                block = block.kept(block.x_entry <= self.settings.width + margin)
            self._all.append(block)
            self._here = Arrivals.of([self._here, block])
            self._next_block += 1
        x = self._here.x_entry + self._here.v * index
        gone = x > self.settings.width + margin
        if gone.sum() > 64:
            self._here, x = self._here.kept(~gone), x[~gone]
        seen = (x >= -margin) & (x <= self.settings.width + margin)
        here = self._here.kept(seen)
        phase = (here.phase + index / self._cycle_frames[here.kind]) % 1.0
        image = self._canvas.render(index, here.kind, x[seen], here.y, phase)
        self._next_index = index + 1
        return image

    def truth(self) -> pd.DataFrame:
        """Tell of the cells in the frames rendered so far (`truth.truth_table`).

        May be called from another thread than the one that renders.
        """
        # The count first: a block that is added in between only brings cells of later frames.
        n_frames = self._next_index
        return truth_table(Arrivals.of(self._all[:]), self.library, self.settings, n_frames)
