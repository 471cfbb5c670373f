"""A session as layers: its frames, its tracks, and a mark on every position, coloured by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.session.reader import Session
from napari_rbcflow.sources.lazy import FrameArray, RingFrames, open_frames
from napari_rbcflow.types import DEFAULT_PIXEL_SIZE_UM, Label
from napari_rbcflow.widgets.theme import LOOKS

LayerData = tuple[Any, dict[str, Any], str]

OTHERS = "other cells"
GROUPS: tuple[str, ...] = (OTHERS, Label.FLIPPING, Label.TANK_TREADING)
"""One layer of marks each, so that each has its own eye; drawn in this order."""
METADATA = "rbcflow"
"""Key of what a layer's metadata hold of its session."""
SHOWN_POSITIONS = 40_000
"""With more than these, the Tracks layer is hidden at first: napari 0.9.2 then takes a tenth of a second
and more for each step of the slider."""
GREY_RANGE = (60, 200)
"""Bright field around a middle grey; fixed, since reading a movie for its contrast would read it whole."""
_MARK_UM = 13.0
"""Size of a mark: a little more than a cell."""
_TAIL = 15


@dataclass(frozen=True, eq=False)
class SessionLayers:
    """What `layers_of` makes, by role.

    Attributes
    ----------
    image : LayerData or None
        None where neither the ring nor the movie is there.
    tracks : LayerData or None
        None where there is no track.
    marks : dict of str to LayerData
        By group (`GROUPS`).
    """

    image: LayerData | None
    tracks: LayerData | None
    marks: dict[str, LayerData]

    def all(self) -> list[LayerData]:
        """Return them in the order in which they are drawn."""
        return [layer for layer in (self.image, self.tracks, *self.marks.values()) if layer is not None]


def layers_of(
    session: Session,
    movie: FrameArray | None = None,
    *,
    by_hand: Mapping[int, str] | None = None,
    show_unreliable: bool = True,
) -> list[LayerData]:
    """Return a session as napari's layer data: see `session_layers`."""
    return session_layers(session, movie, by_hand=by_hand, show_unreliable=show_unreliable).all()


def session_layers(
    session: Session,
    movie: FrameArray | None = None,
    *,
    by_hand: Mapping[int, str] | None = None,
    show_unreliable: bool = True,
) -> SessionLayers:
    """Make layer data of a session: an image, its tracks, and a Points layer for each group of labels.

    The first axis of all is the frame's number, in which `tracks.csv` counts too; positions are in
    camera pixels.

    Parameters
    ----------
    session : Session
    movie : FrameArray, optional
        Shown instead of the ring's frames.
    by_hand : mapping of int to str, optional
        Labels that a person has changed, by cell.
    show_unreliable : bool
        Whether the marks of all other cells (unreliable, too short, struck out) are to be seen at first.

    Raises
    ------
    RunFailed
        If a table is missing or damaged.
    """
    table = cells_table(session, by_hand or {})
    tracks = session.tracks
    name = session.folder.name
    rows = table.set_index("cell").loc[tracks["cell"]]
    group = rows["group"].to_numpy()
    pixel_um = _number(session.run.get("parameters", {}).get("pixel_size_um"), DEFAULT_PIXEL_SIZE_UM)
    yx = tracks[["y_px", "x_px"]].to_numpy(float)
    frame, cell = tracks["frame"].to_numpy(float), tracks["cell"].to_numpy(np.int64)
    metadata = {METADATA: {"session": str(session.folder), "cells": table.drop(columns="group")}}
    marks = {}
    for kind in GROUPS:
        here = np.flatnonzero(group == kind)
        look = LOOKS[Label.UNRELIABLE if kind == OTHERS else kind]
        features = rows.iloc[here][["label", "p_reliable", "p_tank_treading"]].reset_index()
        marks[kind] = (
            np.column_stack([frame[here], yx[here]]),
            {
                "name": kind,
                "ndim": 3,
                "features": features,
                "symbol": look.symbol,
                "size": _MARK_UM / pixel_um * (0.5 if kind == OTHERS else 1.4),
                "face_color": look.colour if kind == OTHERS else "transparent",
                "border_color": look.colour,
                "border_width": 0.0 if kind == OTHERS else 0.09,
                "visible": show_unreliable or kind != OTHERS,
                "metadata": metadata,
            },
            "points",
        )
    lines: LayerData | None = None
    if len(tracks):
        lines = (
            np.column_stack([cell, frame, yx]),
            {
                "name": f"tracks of {name}",
                "features": rows.reset_index()[["cell", "p_reliable", "p_tank_treading"]].assign(
                    group=group_values(group)
                ),
                "colormaps_dict": {"group": group_colours()},
                "color_by": "group",
                "tail_length": _TAIL,
                "tail_width": 2,
                "blending": "translucent",
                "visible": len(tracks) <= SHOWN_POSITIONS,
                "metadata": metadata,
            },
            "tracks",
        )
    return SessionLayers(_image(session, movie), lines, marks)


def cells_table(session: Session, by_hand: Mapping[int, str]) -> pd.DataFrame:
    """Return ``cells.csv``, the label by hand where there is one, and each cell's group.

    Raises
    ------
    RunFailed
        If the table is missing or damaged.
    """
    table = session.cells.copy()
    table["label_by_hand"] = table["cell"].map(dict(by_hand)).fillna("").astype(str)
    label = table["label_by_hand"].where(table["label_by_hand"] != "", table["label"])
    counted = label.isin([Label.TANK_TREADING, Label.FLIPPING])
    table["group"] = label.where(counted, OTHERS)
    return table


def movie_of(session: Session) -> FrameArray | None:
    """Open the movie that a session was made from, where it still lies there and is still the same size."""
    source = session.run.get("parameters", {})
    file = (source.get("source_details") or {}).get("file")
    if not file or source.get("live"):
        return None
    try:
        movie = open_frames(Path(file))
    except (RbcflowError, OSError):
        return None
    info = getattr(movie, "info", None)
    frames = len(movie) if info is None else info.n_frames
    if (frames, *movie.shape[1:]) != (source.get("n_frames"), source.get("height"), source.get("width")):
        movie.close()
        return None
    return movie


def group_values(group: NDArray[Any]) -> NDArray[np.float64]:
    """Return where each group stands in the map of `group_colours`."""
    values = np.full(len(group), _place(0))
    for k, kind in enumerate(GROUPS):
        values[group == kind] = _place(k)
    return values


def group_colours() -> Any:
    """Return the colours of `GROUPS` as napari's Colormap."""
    from napari.utils import Colormap

    colours = ["#a0a0a050", LOOKS[Label.FLIPPING].colour, LOOKS[Label.TANK_TREADING].colour]
    n = len(GROUPS)
    return Colormap(
        colours, name="label", interpolation="zero", controls=[0.0, *(k / n for k in range(1, n)), 1.0]
    )


def _place(k: int) -> float:
    return (k + 0.5) / len(GROUPS)


def _image(session: Session, movie: FrameArray | None) -> LayerData | None:
    metadata = {METADATA: {"session": str(session.folder)}}
    if movie is not None:
        # Also where it is an earlier session's ring: as a movie its frames count from 0.
        return image_layer(movie, movie.path.name, first=0, metadata=metadata)
    ring = session.ring
    if ring is None or not len(ring):
        return None
    return image_layer(RingFrames(ring), f"last frames of {session.folder.name}", metadata=metadata)


def image_layer(
    frames: FrameArray, name: str, *, first: int | None = None, metadata: dict[str, Any] | None = None
) -> LayerData:
    """Return frames as an Image layer whose first axis counts from `first`, or as the recording did."""
    return (
        frames,
        {
            "name": name,
            "contrast_limits": GREY_RANGE,
            "translate": (frames.first if first is None else first, 0, 0),
            "colormap": "gray",
            "metadata": metadata or {},
            "rgb": False,
        },
        "image",
    )


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) and value > 0 else otherwise
