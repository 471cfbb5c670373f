"""What stands under File > Open Sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari_rbcflow


def folder() -> Path:
    """Return where the sample data lie: inside an installed package, else at the top of the tree."""
    package = Path(napari_rbcflow.__file__).parent
    inside = package / "sample_data"
    return inside if inside.is_dir() else package.parent / "sample_data"


def simulated_chamber() -> list[tuple[Any, dict[str, Any], str]]:
    """Return the sample movie as an image layer and the truth beside it as tracks."""
    import numpy as np
    import pandas as pd
    import tifffile

    movie = tifffile.imread(folder() / "flow_chamber.tif")
    truth = pd.read_csv(folder() / "flow_chamber.truth.csv")
    frame = np.concatenate([np.arange(t0, t0 + n) for t0, n in zip(truth.t0, truth.frames, strict=True)])
    cell = truth.loc[truth.index.repeat(truth.frames)]
    x = cell.x0 + cell.v * (frame - cell.t0)
    rows = np.column_stack([cell.cell, frame, cell.y, x])
    return [
        (movie, {"name": "simulated flow chamber"}, "image"),
        (rows.astype(float), {"name": "truth", "tail_length": 10}, "tracks"),
    ]
