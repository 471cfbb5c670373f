"""The counted cells of a session in the order in which they were counted, and the rules in force."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.conventions import Label
from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.fixed_n import FIXED_N, FixedN
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.session.crops import read_index


def counted_cells(folder: Path, cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Return for each counted cell whether it is tank-treading, in the order in which they were counted.

    ``cells.csv`` is sorted at the close of a session; the index of ``crops.zarr`` keeps the order in which
    tracks were handed over, which is the one in which they were counted.

    Parameters
    ----------
    folder : Path
        The session.
    cells : DataFrame
        Its ``cells.csv``.

    Raises
    ------
    RunFailed
        If the index cannot be read.
    """
    order = pd.Index(read_index(folder / "crops.zarr")[:, 0]).unique()
    labels = cells.drop_duplicates("cell").set_index("cell")["label"]
    return _tank_treading(labels.loc[order.intersection(labels.index, sort=False)])


def rows_counted(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Return the same in the order of the table: of a session that is not closed, the one of counting."""
    return _tank_treading(cells["label"])


def _tank_treading(labels: pd.Series[str]) -> NDArray[np.bool_]:
    counted = labels[labels.isin([Label.TANK_TREADING, Label.FLIPPING])]
    return np.asarray(counted == Label.TANK_TREADING, np.bool_)


def recount(counted: NDArray[np.bool_], level: float = 0.95) -> RunningFraction:
    """Count cells one by one, as the run did."""
    fraction = RunningFraction(level)
    for tank in counted.tolist():
        fraction.update(tank_treading=int(tank), flipping=int(not tank))
    return fraction


def rules_of(parameters: Mapping[str, Any]) -> tuple[StopRules, FixedN] | None:
    """Return the stop rules that ``run.json`` names, and the interval chosen for a fixed number of cells.

    None for sessions from before the interval was told by them (they say Wilson's whatever stopped them),
    and where the rules cannot be.
    """
    fixed_n = parameters.get("fixed_n_interval")
    if fixed_n not in FIXED_N:
        return None
    try:
        names = ("reliable", "halfwidth", "seconds", "tracks", "baseline")
        return StopRules(**{name: parameters.get(f"stop_{name}") for name in names}), fixed_n
    except (BadInput, TypeError):
        return None
