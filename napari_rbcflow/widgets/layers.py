"""A session, and an analysed movie, as layers: frames, tracks, and a mark on every position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Layer
from numpy.typing import NDArray

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.sentences import say
from napari_rbcflow.session import Session
from napari_rbcflow.sources import FrameArray, RingFrames, open_frames
from napari_rbcflow.types import DEFAULT_PIXEL_SIZE_UM, Label
from napari_rbcflow.widgets.label_styles import LABEL_STYLES

LayerData = tuple[Any, dict[str, Any], str]

OTHERS = "other cells"
# One layer of marks each, so that each has its own eye; drawn in this order.
GROUPS: tuple[str, ...] = (OTHERS, Label.FLIPPING, Label.TANK_TREADING)
# Key of what a layer's metadata hold: its session, what it shows of it (`role`), and the session's cells.
METADATA = "rbcflow"
# With more than these, the Tracks layer is hidden at first: napari 0.9.2 then takes a tenth of a second and
# more for each step of the slider.
SHOWN_POSITIONS = 40_000
# Bright field around a middle grey, shown as `PICTURE_GREY`; fixed, since reading a movie for its contrast
# would read it whole.
GREY_RANGE = (76, 206)
# Size of a mark: a little more than a cell.
_MARK_UM = 13.0
_TAIL = 15


def axes_of(pixel_size_um: float, ndim: int = 3) -> dict[str, Any]:
    """Return scale, units and labels of a layer's axes: the frame's number, then micrometres."""
    return {
        "scale": (1.0, pixel_size_um, pixel_size_um)[-ndim:],
        "units": ("pixel", "um", "um")[-ndim:],  # napari's unit of what has none
        "axis_labels": (say("viewer.axis-frame"), "y", "x")[-ndim:],
    }


def units_in(viewer: Any, layer: Any) -> NDArray[np.float64]:
    """Return the unit of each axis of a layer in the unit of its viewer, the smallest of all layers."""
    units = viewer.layers.units
    if units is None:  # they do not fit together; napari then takes the numbers as they are
        return np.ones(layer.ndim)
    pairs = zip(layer.units, units[-layer.ndim :], strict=True)
    return np.array([(1.0 * mine).to(theirs).magnitude for mine, theirs in pairs])


@dataclass(frozen=True, eq=False)
class SessionLayers:
    """Layer data of a session: its frames (if there are any), its tracks, the marks of each of `GROUPS`."""

    image: LayerData | None
    tracks: LayerData | None
    marks: dict[str, LayerData]

    def all(self) -> list[LayerData]:
        """Return them in the order in which they are drawn."""
        return [layer for layer in (self.image, self.tracks, *self.marks.values()) if layer is not None]


def session_layers(
    session: Session,
    movie: FrameArray | None = None,
    *,
    by_hand: Mapping[int, str] | None = None,
    show_unreliable: bool = True,
) -> SessionLayers:
    """Make layer data of a session: an image, its tracks, and a Points layer for each group of labels.

    The first axis of all is the frame's number, in which `tracks.csv` counts too; positions are in camera
    pixels. `movie` is shown instead of the ring's frames; `by_hand` are labels that a person has changed, by
    cell; `show_unreliable` shows the marks of all cells that are not counted at first.
    """
    table = cells_table(session, by_hand or {})
    tracks = session.tracks
    rows = table.set_index("cell").loc[tracks["cell"]]
    group = rows["group"].to_numpy()
    pixel_um = _number(session.run.get("parameters", {}).get("pixel_size_um"), DEFAULT_PIXEL_SIZE_UM)
    yx = tracks[["y_px", "x_px"]].to_numpy(float)
    frame, cell = tracks["frame"].to_numpy(float), tracks["cell"].to_numpy(np.int64)
    known = {"session": str(session.folder), "cells": table.drop(columns="group")}
    axes = {**axes_of(pixel_um), "translate": (0.0, 0.0, 0.0)}
    marks = {}
    for kind in GROUPS:
        here = np.flatnonzero(group == kind)
        style = LABEL_STYLES[Label.UNRELIABLE if kind == OTHERS else kind]
        features = rows.iloc[here][["label", "p_reliable", "p_tank_treading"]].reset_index()
        marks[kind] = (
            np.column_stack([frame[here], yx[here]]),
            {
                "name": say("viewer.layer-others") if kind == OTHERS else style.words,
                "ndim": 3,
                "features": features,
                "symbol": style.symbol,
                "size": _MARK_UM / pixel_um * (0.5 if kind == OTHERS else 1.4),
                "face_color": style.colour if kind == OTHERS else "transparent",
                "border_color": style.colour,
                "border_width": 0.0 if kind == OTHERS else 0.09,
                "visible": show_unreliable or kind != OTHERS,
                "metadata": {METADATA: {**known, "role": str(kind)}},
                **axes,
            },
            "points",
        )
    lines: LayerData | None = None
    if len(tracks):
        lines = (
            np.column_stack([cell, frame, yx]),
            {
                "name": say("viewer.layer-tracks", name=session.folder.name),
                "features": rows.reset_index()[["cell", "p_reliable", "p_tank_treading"]].assign(
                    group=group_values(group)
                ),
                "colormaps_dict": {"group": group_colours()},
                "color_by": "group",
                "tail_length": _TAIL,
                "tail_width": 2,
                "blending": "translucent",
                "visible": len(tracks) <= SHOWN_POSITIONS,
                "metadata": {METADATA: {**known, "role": "tracks"}},
                **axes,
            },
            "tracks",
        )
    return SessionLayers(_image(session, movie, pixel_um), lines, marks)


def cells_table(session: Session, by_hand: Mapping[int, str]) -> pd.DataFrame:
    """Return ``cells.csv``, the label by hand where there is one, and each cell's group."""
    table = session.cells.copy()
    table["label_by_hand"] = table["cell"].map(dict(by_hand)).fillna("").astype(str)
    label = table["label_by_hand"].where(table["label_by_hand"] != "", table["label"])
    counted = label.isin([Label.TANK_TREADING, Label.FLIPPING])
    table["group"] = label.where(counted, OTHERS)
    return table


def movie_of(session: Session) -> FrameArray | None:
    """Open the movie that a session was made from, where it is still there and still the same size."""
    source = session.run.get("parameters", {})
    details = source.get("source_details") or {}
    file, series = details.get("file"), details.get("series")
    if not file or source.get("live"):
        return None
    try:
        movie = open_frames(Path(file), None if series is None else int(series), int(source.get("rotate", 0)))
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

    # The tails of what is not counted are fainter: each has its mark.
    others = f"{LABEL_STYLES[Label.UNRELIABLE].colour}80"
    colours = [others, *(LABEL_STYLES[kind].colour for kind in GROUPS[1:])]
    n = len(GROUPS)
    return Colormap(
        colours, name="label", interpolation="zero", controls=[0.0, *(k / n for k in range(1, n)), 1.0]
    )


def _place(k: int) -> float:
    return (k + 0.5) / len(GROUPS)


def _image(session: Session, movie: FrameArray | None, pixel_um: float) -> LayerData | None:
    metadata = {METADATA: {"session": str(session.folder), "role": "image"}}
    if movie is not None:
        # Also where it is an earlier session's ring: as a movie its frames count from 0.
        return image_layer(movie, movie.path.name, pixel_um, first=0, metadata=metadata)
    ring = session.ring
    if ring is None or not len(ring):
        return None
    name = say("viewer.layer-ring", name=session.folder.name)
    return image_layer(RingFrames(ring), name, pixel_um, metadata=metadata)


def image_layer(
    frames: FrameArray,
    name: str,
    pixel_size_um: float,
    *,
    first: int | None = None,
    metadata: dict[str, Any] | None = None,
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
            **axes_of(pixel_size_um),
        },
        "image",
    )


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) and value > 0 else otherwise


def layers_of(viewer: Any, folder: Path) -> dict[str, Any]:
    """Return the layers in a viewer that show a session, by their role, whoever put them there."""
    return {
        str(layer.metadata[METADATA]["role"]): layer
        for layer in viewer.layers
        if (session := _session_of(layer)) is not None and _same(session, folder)
    }


def hide_others(viewer: Any, *shown: Path | None, live_goes_on: bool = False) -> None:
    """Hide the layers of all sessions but those `shown`, and of a live picture unless its run goes on.

    No mark may be on a picture that it does not belong to.
    """
    for layer in viewer.layers:
        session = _session_of(layer)
        other = session is not None and not any(one and _same(session, one) for one in shown)
        if other or (is_of_live_picture(layer) and not live_goes_on):
            layer.visible = False


def _session_of(layer: Any) -> Path | None:
    known = layer.metadata.get(METADATA)
    return Path(known["session"]) if isinstance(known, Mapping) and "role" in known else None


def _same(one: Path, other: Path) -> bool:
    return one == other or one.resolve() == other.resolve()


# Share of the canvas, around its centre, in which a place is visible enough.
_IN_VIEW = 0.9
# What a live picture's layers are called in their metadata.
LIVE_ROLES = ("live", "cells", "frames")
# How far from a mark's centre a click still means it, in pixels of the screen.
_REACH_PX = 25.0


class ResultLayers:
    """Image, Tracks and Points of one viewer; removes none, since that can take napari down.

    A layer that a person has removed is made anew. Where napari has opened the session's layers itself, from
    its menu or by drag and drop, those are used, so that there are no two of a kind.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layers: dict[str, Any] = {}
        self._unseen: list[Any] = []
        self._frames: Any = None

    @property
    def all(self) -> tuple[Any, ...]:
        """Those that are in the viewer."""
        return tuple(layer for layer in self._layers.values() if layer in self._viewer.layers)

    def hide(self) -> None:
        """Hide marks and tracks of the analysis before, while another goes on."""
        if self._unseen:
            return
        for role, layer in self._layers.items():
            if role != "image" and layer in self._viewer.layers and layer.visible:
                layer.visible = False
                self._unseen.append(layer)

    def show(
        self,
        layers: SessionLayers,
        *,
        placed: Mapping[str, Any] | None = None,
        own_layer: Any = None,
        live_goes_on: bool = False,
    ) -> None:
        """Show a session's layers on top of all others, the picture lowest among them.

        Where the movie is a layer of the person's own, that is `own_layer` (if it is still there), and
        `placed` says where its axes are. Unless a live run goes on, what its picture showed last is hidden.
        """
        new = not self.all
        self._adopt(layers)
        image = layers.image if placed is None else None
        if image is not None:
            self._put("image", image)
            # Not `layer.data`: napari gives plugins a stand-in, which is never the same object.
            before, self._frames = self._frames, image[0]
            if isinstance(before, FrameArray) and before is not self._frames:
                before.close()
        elif (mine := self._layers.get("image")) is not None and mine in self._viewer.layers:
            mine.visible = False
        placed = placed or {}
        if layers.tracks is not None:
            self._put("tracks", _with(layers.tracks, placed))
        for group in GROUPS:
            self._put(group, _with(layers.marks[group], placed))
        # No mark may be on a picture that it does not belong to, even a layer that came later.
        if own_layer is not None and own_layer in self._viewer.layers:
            own_layer.visible = True
            self._raise(own_layer)
        for role in ("image", "tracks", *GROUPS):
            layer = self._layers.get(role)
            if layer is not None and layer in self._viewer.layers:
                self._raise(layer)
        for layer in self._unseen:
            layer.visible = True
        self._unseen.clear()
        of_own = None if own_layer is None else _session_of(own_layer)
        hide_others(self._viewer, _folder_of(layers), of_own, live_goes_on=live_goes_on)
        if new:
            self._viewer.reset_view()
        self._viewer.layers.selection.active = self._layers[GROUPS[-1]]

    def _adopt(self, layers: SessionLayers) -> None:
        """Go on with the layers of this session that are in the viewer already."""
        there = layers_of(self._viewer, _folder_of(layers))
        if all(self._layers.get(role) is layer for role, layer in there.items()):
            return
        self._unseen = [layer for layer in self._unseen if layer in there.values()]
        self._layers, self._frames = there, None
        made = {"image": layers.image, "tracks": layers.tracks, **layers.marks}
        for role, layer in there.items():
            wanted = made[role]
            layer.visible = wanted is None or wanted[1].get("visible", True)

    def _raise(self, layer: Any) -> None:
        self._viewer.layers.move(self._viewer.layers.index(layer), len(self._viewer.layers))

    def _put(self, role: str, made: LayerData) -> None:
        data, meta, kind = made
        layer = self._layers.get(role)
        if layer is None or layer not in self._viewer.layers:
            if layer in self._unseen:
                self._unseen.remove(layer)
            self._layers[role] = layer = self._viewer.add_layer(Layer.create(data, meta, kind))
            keep_unchanged(layer)
            return
        if kind == "image":
            layer.data = data
            layer.visible = True
        elif kind == "points":
            layer.selected_data = set()
            layer.data = data
            layer.features = meta["features"]
            layer.size = meta["size"]
            # A layer that was empty knew no colour to give to its first points.
            layer.face_color, layer.border_color = meta["face_color"], meta["border_color"]
            layer.symbol = meta["symbol"]
        else:
            layer.color_by = "track_id"
            layer.data = data
            layer.features = meta["features"]
            layer.color_by = meta["color_by"]
        layer.name = meta["name"]
        layer.metadata = meta["metadata"]
        for axis in ("units", "axis_labels", "scale", "translate"):
            setattr(layer, axis, meta[axis])
        keep_unchanged(layer)  # new data made it editable again

    # ------------------------------------------------------------------ step-through

    def go_to(self, frame: float, y_px: float, x_px: float) -> None:
        """Turn the viewer to a frame, and to a place in it if that is not visible; the zoom stays."""
        marks = self._layers.get(GROUPS[-1])
        if marks is None:
            return
        first = self._viewer.dims.ndim - 3
        world = np.asarray(marks.data_to_world((frame, y_px, x_px))) * units_in(self._viewer, marks)
        self._viewer.dims.set_point(first, world[0])
        camera = self._viewer.camera
        half = np.asarray(self._viewer.canvas.size, float) / (2 * max(camera.zoom, 1e-6))
        if (np.abs(world[1:] - np.asarray(camera.center)[-2:]) > _IN_VIEW * half).any():
            camera.center = (0.0, world[1], world[2])

    def select(self, cell: int, frame: float) -> None:
        """Highlight the mark of a cell in a frame."""
        for group in GROUPS:
            layer = self._layers.get(group)
            if layer is None or layer not in self._viewer.layers:
                continue
            here = (
                np.flatnonzero((layer.data[:, 0] == frame) & (layer.features["cell"].to_numpy() == cell))
                if len(layer.data)
                else np.zeros(0, int)
            )
            chosen = set(here.tolist())
            if layer.selected_data != chosen:
                layer.selected_data = chosen

    def frame_of(self, world: Sequence[float]) -> float:
        """Return the frame's number at a place in the viewer."""
        return float(self._in_data(self._layers[GROUPS[-1]], world)[0])

    def cell_at(self, world: Sequence[float]) -> int | None:
        """Return the cell whose visible mark lies nearest to a place in the viewer, if one is near."""
        reach = _REACH_PX / max(self._viewer.camera.zoom, 1e-6)
        best: tuple[float, int] | None = None
        for group in GROUPS:
            layer = self._layers.get(group)
            if layer is None or layer not in self._viewer.layers or not layer.visible or not len(layer.data):
                continue
            place = self._in_data(layer, world)
            at = np.flatnonzero(np.abs(layer.data[:, 0] - place[0]) < 0.5)
            if not len(at):
                continue
            far = np.hypot(*(layer.data[at, 1:] - place[1:]).T) * float(layer.scale[-1])
            far *= units_in(self._viewer, layer)[-1]
            k = int(far.argmin())
            if far[k] <= reach and (best is None or far[k] < best[0]):
                best = (float(far[k]), int(layer.features["cell"].iloc[at[k]]))
        return None if best is None else best[1]

    def _in_data(self, layer: Any, world: Sequence[float]) -> NDArray[np.float64]:
        place: NDArray[np.float64] = np.asarray(world, float)[-3:] / units_in(self._viewer, layer)
        return np.asarray(layer.world_to_data(place))


def keep_unchanged(layer: Any) -> None:
    """Let no click and no key in napari move or delete what a layer shows; a program still may."""
    layer.editable = False
    if hasattr(layer, "remove_selected"):
        # napari 0.9.2 deletes the selected points of a layer that is not editable, too.
        layer.remove_selected = _nothing


def _nothing() -> None:
    return


def _folder_of(layers: SessionLayers) -> Path:
    return Path(layers.marks[OTHERS][1]["metadata"][METADATA]["session"])


def is_of_live_picture(layer: Any) -> bool:
    """Return whether a live picture made a layer, and will draw into it again."""
    return layer.metadata.get(METADATA) in LIVE_ROLES


def _with(made: LayerData, more: Mapping[str, Any]) -> LayerData:
    data, meta, kind = made
    return data, {**meta, **more}, kind
