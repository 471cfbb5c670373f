"""Tracks as a graph in a GEFF, the Graph Exchange File Format of trackers (version 1.1), a Zarr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_rbcflow.errors import BadInput
from napari_rbcflow.exchange.leaving import the_one
from napari_rbcflow.sentences import say
from napari_rbcflow.session import new_folder
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Label

VERSION = "1.1"


def write_geff(folders: Sequence[Path], out: Path) -> int:
    """Write the tracks of a session as a GEFF: a node for each position, an edge to the cell's next one.

    Nodes have `t` (frame), `y` and `x` (camera pixels), `cell`, `seen` (0 where the position was predicted
    through an overlap) and `label`, the place of the machine's label in `Label`. The axes carry the scales to
    seconds and micrometers.

    Parameters
    ----------
    folders : sequence of Path
        One session.
    out : Path
        Folder to create; must not exist.

    Returns
    -------
    int
        How many positions.

    Raises
    ------
    BadInput
        If the run goes on, or the session holds no tracks.
    RunFailed
        If the disk is full. Nothing is left behind.
    """
    session = the_one(folders).session
    tracks = session.tracks.sort_values(["cell", "frame"], kind="stable")
    if not len(tracks):
        raise BadInput("exchange.no-tracks", folder=session.folder)
    codes = {str(label): code for code, label in enumerate(Label)}
    labels = session.cells.drop_duplicates("cell").set_index("cell")["label"].map(codes).fillna(len(codes))
    cell = tracks["cell"].to_numpy(np.int64)
    props: dict[str, np.ndarray[Any, Any]] = {
        "t": tracks["frame"].to_numpy(np.int64),
        "y": tracks["y_px"].to_numpy(np.float64),
        "x": tracks["x_px"].to_numpy(np.float64),
        "cell": cell,
        "seen": tracks["seen"].to_numpy(np.uint8),
        "label": tracks["cell"].map(labels).to_numpy(np.uint8),
    }
    nodes = np.arange(len(tracks), dtype=np.uint64)
    edges = np.stack([nodes[:-1], nodes[1:]], axis=1)[cell[1:] == cell[:-1]]
    pixel_um = _positive(session.run["parameters"].get("pixel_size_um"), DEFAULT_PIXEL_SIZE_UM)
    fps = _positive(session.run["parameters"].get("fps"), DEFAULT_FPS)
    with new_folder(out):
        group = zarr.create_group(out, zarr_format=3)
        for name, data in {"nodes/ids": nodes, "edges/ids": edges}.items():
            group.create_array(name, data=data)
        for name, data in props.items():
            group.create_array(f"nodes/props/{name}/values", data=data)
        group.require_group("edges/props")
        told = {name: {"identifier": name, "dtype": data.dtype.name} for name, data in props.items()}
        told["label"]["description"] = say(
            "exchange.label-codes", codes=", ".join(f"{code} {label}" for label, code in codes.items())
        )
        group.attrs["geff"] = {
            "geff_version": VERSION,
            "directed": True,
            "axes": [
                _axis("t", "time", "frame", 1 / fps, "second", props["t"]),
                _axis("y", "space", "pixel", pixel_um, "micrometer", props["y"]),
                _axis("x", "space", "pixel", pixel_um, "micrometer", props["x"]),
            ],
            "node_props_metadata": told,
            "edge_props_metadata": {},
            "track_node_props": {"tracklet": "cell"},
            "display_hints": {"display_horizontal": "x", "display_vertical": "y", "display_time": "t"},
        }
    return len(nodes)


def _positive(value: Any, usual: float) -> float:
    """Return a number as a session tells it, or the usual one where it tells none."""
    return float(value) if isinstance(value, (int, float)) and value > 0 else usual


def _axis(
    name: str, kind: str, unit: str, scale: float, scaled_unit: str, values: np.ndarray[Any, Any]
) -> dict[str, Any]:
    span = {"min": float(values.min()), "max": float(values.max())}
    return {"name": name, "type": kind, "unit": unit, "scale": scale, "scaled_unit": scaled_unit} | span
