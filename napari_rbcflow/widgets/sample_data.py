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

    movie = tifffile.imread(folder() / "chamber.tif")
    truth = pd.read_csv(folder() / "chamber.truth.csv")
    rows = [
        (cell.cell, t, cell.y, cell.x0 + cell.v * (t - cell.t0))
        for cell in truth.itertuples()
        for t in range(cell.t0, cell.t0 + cell.frames)
    ]
    return [
        (movie, {"name": "simulated flow chamber"}, "image"),
        (np.array(rows, dtype=float), {"name": "truth", "tail_length": 10}, "tracks"),
    ]
