"""Which cell flows by when: an even suspension arrives at the left edge, crosses the field and leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from napari_rbcflow.simulation.canvas import Canvas
from napari_rbcflow.simulation.cells import FLIPPING, TANK_TREADING
from napari_rbcflow.simulation.library import SpriteLibrary, kept_library
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.types import Bools, Floats, Grey, Ints

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 64  # frames whose arrivals are drawn together, each block from a random stream of its own


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Cells that arrive, one entry each; in frame t the centre is at x_entry + v t."""

    kind: Ints  # which of the library's cells
    x_entry: Floats  # centre at frame 0, pixels, left of the field for most
    v: Floats  # pixels a frame
    y: Floats  # pixels, on the half-pixel grid: a sprite needs no interpolation across the flow
    phase: Floats  # of the cell's cycle at frame 0

    def kept(self, which: Bools) -> Arrivals:
        """Return those that `which` marks."""
        return Arrivals(*(getattr(self, f.name)[which] for f in fields(self)))

    @classmethod
    def joined(cls, blocks: Sequence[Arrivals]) -> Arrivals:
        """Return the cells of several blocks, in order; no cells if there is no block."""
        no = np.zeros(0)
        all_ = (cls(no.astype(np.int64), no, no, no, no), *blocks)
        return cls(*(np.concatenate([getattr(block, f.name) for block in all_]) for f in fields(cls)))


class Population:
    """Draws arrivals block by block; a block is the same whenever it is drawn."""

    def __init__(self, settings: ChamberSettings, library: SpriteLibrary) -> None:
        self._settings = settings
        self.margin_px = int(library.side.max()) // 2
        speed = np.array([settings.speed_px_per_frame(c.z_um) for c in library.cells])
        # The number in the field follows the density, the number that arrives density times speed.
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
        # Neighbours and its own deformation make a cell lag or lead its streamline by a percent or two.
        v = np.round(self._speed[kind] * np.clip(1.0 + 0.015 * rng.standard_normal(n), 0.95, 1.05), 5)
        entry = BLOCK * (number + rng.random(n))
        low, high = -2 * self.margin_px, 2 * (settings.height + self.margin_px)
        y = rng.integers(low, high, n) / 2.0
        return Arrivals(
            kind=kind.astype(np.int64), x_entry=-self.margin_px - v * entry, v=v, y=y, phase=rng.random(n)
        )


@dataclass(frozen=True)
class TruthSummary:
    """What a simulated movie holds.

    Attributes
    ----------
    frames, cells : int
    tank_treading, flipping, unreliable : int
        Cells by label.
    """

    frames: int
    cells: int
    tank_treading: int
    flipping: int
    unreliable: int

    @property
    def fraction(self) -> float | None:
        """Tank-treading / (tank-treading + flipping) of the cells in focus; None if there are none."""
        judged = self.tank_treading + self.flipping
        return self.tank_treading / judged if judged else None


def truth_table(
    cells: Arrivals, library: SpriteLibrary, settings: ChamberSettings, n_frames: int
) -> pd.DataFrame:
    """Return a row for each visible cell with its centre in the field in frames [0, `n_frames`).

    Rows are ordered by first frame. In frame t of [t0, t0 + frames) a cell's centre is at x0 + v (t - t0), y
    pixels. `label` is 0 tank-treading, 1 flipping, 2 not judgeable: out of focus, rolling or debris.
    `sequence` and `motion` name the motion whatever the focus. `phase0` is the phase at t0 of the cycle after
    which the image repeats; at 0 a tumbling cell's face is the most open.
    """
    import pandas as pd

    first = np.maximum(np.ceil(-cells.x_entry / cells.v), 0).astype(np.int64)
    end = np.floor((settings.width - 1 - cells.x_entry) / cells.v).astype(np.int64) + 1
    end = np.minimum(end, n_frames)
    inside = (end > first) & (cells.y >= 0) & (cells.y <= settings.height - 1)
    inside &= library.visible[cells.kind]
    order = np.flatnonzero(inside)[np.argsort(first[inside], kind="stable")]
    t0, kinds = first[order], [library.cells[k] for k in cells.kind[order]]
    cycle = np.array([c.cycle_s for c in kinds]) * settings.fps
    motions = [str(c.motion) for c in kinds]
    return pd.DataFrame(
        {
            "cell": np.arange(len(order)),
            "t0": t0,
            "frames": end[order] - t0,
            "x0": np.round(cells.x_entry[order] + cells.v[order] * t0, 4),
            "y": cells.y[order],
            "v": cells.v[order],
            "label": np.array([c.label for c in kinds], dtype=np.int64),
            "sequence": motions,
            "motion": motions,
            "z_um": np.round([c.z_um for c in kinds], 2),
            "defocus_um": np.round([c.defocus_um for c in kinds], 2),
            "cycle_frames": np.round(cycle, 2),
            "phase0": np.round((cells.phase[order] + t0 / cycle) % 1.0, 4),
            "orbit": np.round([c.orbit for c in kinds], 4),
            "diameter_um": np.round([c.shape.diameter_um for c in kinds], 2),
        }
    )


def summary(table: pd.DataFrame, n_frames: int) -> TruthSummary:
    """Count the cells of a truth table by label."""
    label = table["label"].to_numpy()
    tank, flip = int((label == TANK_TREADING).sum()), int((label == FLIPPING).sum())
    return TruthSummary(n_frames, len(label), tank, flip, len(label) - tank - flip)


class Scene:
    """Frames in order, with their truth."""

    def __init__(self, settings: ChamberSettings) -> None:
        self.settings = settings
        self.library = kept_library(settings)
        self._canvas = Canvas(settings, self.library)
        self._population = Population(settings, self.library)
        self._cycle_frames = np.array([c.cycle_s for c in self.library.cells]) * settings.fps
        self._next_block = self._population.first_block
        self._here = Arrivals.joined([])
        self._all: list[Arrivals] = []
        self._next_index = 0

    def next_frame(self) -> Grey:
        """Render the next frame: a new array, shape (height, width)."""
        index = self._next_index
        margin = self._population.margin_px
        while self._next_block * BLOCK <= index:
            block = self._population.block(self._next_block)
            if self._next_block < 0:  # most that arrived before the first frame have left by then
                block = block.kept(block.x_entry <= self.settings.width + margin)
            self._all.append(block)
            self._here = Arrivals.joined([self._here, block])
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
        """Return the `truth_table` of the frames rendered so far; another thread may ask for it."""
        # The count first: a block added in between only holds cells of later frames.
        n_frames = self._next_index
        return truth_table(Arrivals.joined(self._all[:]), self.library, self.settings, n_frames)
