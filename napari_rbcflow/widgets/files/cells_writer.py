"""Cells as a table, from napari's File > Save Selected Layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_rbcflow.errors import BadInput
from napari_rbcflow.widgets.files.session_layers import METADATA

LayerTuple = tuple[Any, dict[str, Any], str]


def write_cells(path: str, layers: Sequence[LayerTuple]) -> list[str]:
    """Write a row a cell: of the cells in the layers, what ``cells.csv`` says of them.

    The columns are those of ``cells.csv`` and `label_by_hand`, the label that a person has put in the
    place of the machine's (empty where none has), as it was when the layers were made.

    Parameters
    ----------
    path : str
    layers : sequence of layer data
        Points of one session, or of several (then with a column `session`).

    Raises
    ------
    BadInput
        For layers that this plugin did not make, or a place that may not be written.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for _, meta, _ in layers:
        session, cells = _of_session(meta)
        here = set(_cells_in(meta))
        tables.setdefault(session, []).append(cells[cells["cell"].isin(here)])
    whole = {
        session: pd.concat(parts).drop_duplicates("cell").sort_values(["last_frame", "cell"])
        for session, parts in tables.items()
    }
    _write(path, whole)
    return [path]


def write_positions(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a row a position of a Tracks layer: `cell`, `frame`, `y_px`, `x_px`, and the cell's labels.

    Parameters
    ----------
    path : str
    data : ndarray, shape (n, 4)
    meta : dict

    Raises
    ------
    BadInput
        As `write_cells`.
    """
    session, cells = _of_session(meta)
    rows = pd.DataFrame(np.asarray(data, float), columns=["cell", "frame", "y_px", "x_px"])
    rows = rows.astype({"cell": "int64", "frame": "int64"})
    said = cells[["cell", "label", "label_by_hand"]]
    _write(path, {session: rows.merge(said, on="cell", how="left")})
    return [path]


def _of_session(meta: dict[str, Any]) -> tuple[str, pd.DataFrame]:
    known = (meta.get("metadata") or {}).get(METADATA) or {}
    cells = known.get("cells")
    if not isinstance(cells, pd.DataFrame):
        raise BadInput(
            f"The layer {meta.get('name', '')!r} holds no cells of a session: select layers that "
            "napari-rbcflow made, or save it with napari's own writer."
        )
    return str(known.get("session", "")), cells


def _cells_in(meta: dict[str, Any]) -> list[int]:
    features = meta.get("features")
    if features is None or "cell" not in features:
        return []
    return np.unique(np.asarray(features["cell"])).tolist()  # type: ignore[no-any-return]


def _write(path: str, tables: dict[str, pd.DataFrame]) -> None:
    if len(tables) > 1:
        for session, table in tables.items():
            table.insert(0, "session", session)
    whole = pd.concat(tables.values(), ignore_index=True)
    for name in [name for name in whole.columns if whole[name].dtype.kind == "f"]:
        decimals = 4 if name.startswith("p_") else 2
        whole[name] = [("" if np.isnan(v) else f"{v:.{decimals}f}") for v in whole[name]]
    try:
        whole.to_csv(Path(path), index=False, lineterminator="\n")
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written ({error.strerror or error}): choose another folder."
        ) from error
