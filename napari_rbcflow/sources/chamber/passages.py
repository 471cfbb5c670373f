"""Tracks of cells in focus, of a length and a motion set beforehand: to tell how often a turn is seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.chamber.blood import Cell, draw_cell
from napari_rbcflow.sources.chamber.canvas import Canvas
from napari_rbcflow.sources.chamber.library import (
    VISIBLE_FROM,
    build_library,
    label_as_seen,
    picture,
    strength,
)
from napari_rbcflow.sources.chamber.motion import Motion
from napari_rbcflow.sources.chamber.sequences import MOST_TRIES, Followed, cut_crops, height_drift
from napari_rbcflow.sources.chamber.settings import ChamberSettings
from napari_rbcflow.types import CROP_SIDE


class Passage(NamedTuple):
    """A cell in focus, followed for a time that was set beforehand.

    Attributes
    ----------
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
    cell : Cell
    phase : ndarray of float64, shape (n,)
        Of its cycle in each frame, 0 to 1.
    """

    crops: NDArray[np.uint8]
    cell: Cell
    phase: NDArray[np.float64]


def simulate_passages(
    motion: Motion,
    frames: Sequence[int],
    *,
    seed: int,
    neighbours: float = 1.0,
    settings: ChamberSettings | None = None,
) -> list[Passage]:
    """Draw tracks of given lengths of cells in focus, at whatever phase of their turn, turn seen or not.

    As `simulate_sequences`, but cut as this project's tracker cuts: on the cell, through every meeting.

    Parameters
    ----------
    motion : Motion
    frames : sequence of int
        Length of each track.
    seed : int
    neighbours : float, optional
        How dense the passing cells are, relative to `settings.cells_per_frame`.
    settings : ChamberSettings, optional
        The field must be wide enough for the longest track; the seed does not matter.

    Returns
    -------
    list of Passage

    Raises
    ------
    BadInput
        For a track of no frames, or one that the field is too narrow for.
    """
    base = ChamberSettings() if settings is None else settings
    sharp = (base.focus_um + base.sharp_from_um, base.focus_um + base.sharp_to_um)
    longest = int((base.width - CROP_SIDE - 1) / (1.06 * base.speed_px_per_frame(sharp[1])))
    if min(frames, default=1) < 1 or max(frames, default=1) > longest:
        raise BadInput(f"simulated chamber: in this field a track has 1 to {longest} frames.")
    rng = np.random.default_rng([seed, 8])
    library = build_library(base)
    canvases = [Canvas(replace(base, seed=1000 * seed + k), library) for k in range(4)]
    passages = []
    for k, length in enumerate(frames):
        for tried in itertools.count():
            if tried == MOST_TRIES:
                raise BadInput("simulated chamber: no such cell can be judged; lower judged_from.")
            cell = draw_cell(motion, rng.uniform(*sharp), base, rng)
            phase = (rng.random() + np.arange(length) / (cell.cycle_s * base.fps)) % 1.0
            drawn = picture(cell, phase, base, height_drift(length, rng))
            if label_as_seen(cell, drawn, base) == cell.label and strength(drawn).min() >= VISIBLE_FROM:
                break
        v = base.speed_px_per_frame(cell.z_um) * (1 + 0.015 * float(np.clip(rng.standard_normal(), -3, 3)))
        made = Followed(cell, v, phase, drawn, cell.label, switched=False)
        canvas = canvases[k % len(canvases)]
        crops = cut_crops(made, canvas, [(1.0, library)], base, neighbours, rng, as_published=False)
        passages.append(Passage(crops, cell, phase))
    return passages
