"""What is true of every cell in the field, in the columns of `tools/compose_movie.py`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from napari_rbcflow.sources.chamber.blood import FLIPPING, TANK_TREADING
from napari_rbcflow.sources.chamber.library import SpriteLibrary
from napari_rbcflow.sources.chamber.population import Arrivals
from napari_rbcflow.sources.chamber.settings import ChamberSettings

COLUMNS = (
    "cell",
    "t0",
    "frames",
    "x0",
    "y",
    "v",
    "label",
    "sequence",
    "motion",
    "z_um",
    "defocus_um",
    "cycle_frames",
    "phase0",
    "orbit",
    "diameter_um",
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
        """Tank-treading / (tank-treading + flipping) of the cells in focus; None where there is none."""
        judged = self.tank_treading + self.flipping
        return self.tank_treading / judged if judged else None


def truth_table(
    cells: Arrivals, library: SpriteLibrary, settings: ChamberSettings, n_frames: int
) -> pd.DataFrame:
    """Tell of the visible cells whose centre stood in the field in frames [0, `n_frames`).

    Parameters
    ----------
    cells : Arrivals
    library : SpriteLibrary
    settings : ChamberSettings
    n_frames : int

    Returns
    -------
    DataFrame
        One row a cell, by first frame, columns `COLUMNS`. In frame t of [t0, t0 + frames) its centre
        is at x0 + v (t - t0), y pixels. `label` is 0 tank-treading, 1 flipping, 2 not judgeable: out
        of focus, rolling or debris. `sequence` and `motion` name the motion whatever the focus.
        `phase0` is the phase at t0 of the cycle after which the picture repeats; at 0 a tumbling
        cell's face is the most open.
    """
    first = np.maximum(np.ceil(-cells.x_entry / cells.v), 0).astype(np.int64)
    end = np.floor((settings.width - 1 - cells.x_entry) / cells.v).astype(np.int64) + 1
    end = np.minimum(end, n_frames)
    inside = (end > first) & (cells.y >= 0) & (cells.y <= settings.height - 1)
    inside &= library.visible[cells.kind]
    order = np.flatnonzero(inside)[np.argsort(first[inside], kind="stable")]
    t0, kinds = first[order], [library.cells[k] for k in cells.kind[order]]
    cycle = np.array([c.cycle_s for c in kinds]) * settings.fps
    motions = [str(c.motion) for c in kinds]
    columns = {
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
    return pd.DataFrame(columns, columns=list(COLUMNS))


def summary(table: pd.DataFrame, n_frames: int) -> TruthSummary:
    """Count the cells of a truth table by label."""
    label = table["label"].to_numpy()
    tank, flip = int((label == TANK_TREADING).sum()), int((label == FLIPPING).sum())
    return TruthSummary(n_frames, len(label), tank, flip, len(label) - tank - flip)


def write_truth(table: pd.DataFrame, path: Path) -> None:
    """Write a truth table as CSV."""
    table.to_csv(path, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
