"""The layers of an analysed movie: made once, and given other data by the next analysis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray

from napari_rbcflow.sources.lazy import FrameArray
from napari_rbcflow.widgets.files.session_layers import GROUPS, METADATA, LayerData, SessionLayers

_IN_SIGHT = 0.9
"""Share of the canvas, from its middle, in which a place need not be brought nearer."""
LIVE_ROLES = ("live", "cells")
"""What a live picture's layers are called in their metadata."""
_REACH_PX = 25.0
"""How far from a mark's centre a click still means it, in pixels of the screen."""


class ResultLayers:
    """Image, Tracks and Points of one viewer; removes none, since that can take napari down.

    A layer that a person has removed is made anew.
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
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        translate: Sequence[float] = (0.0, 0.0, 0.0),
        with_image: bool = True,
        own_layer: Any = None,
        live_goes_on: bool = False,
    ) -> None:
        """Show a session's layers on top of all others, the picture lowest among them.

        Parameters
        ----------
        layers : SessionLayers
        scale, translate : sequence of float
            Of the layer that was analysed; (1, 1, 1) and (0, 0, 0) for a file.
        with_image : bool
            False where the movie is a layer of the person's own.
        own_layer : napari.layers.Image, optional
            That layer, where it is still there.
        live_goes_on : bool
            Whether a live run does; else what its picture showed last is hidden.
        """
        new = not self.all
        image = layers.image if with_image else None
        if image is not None:
            self._put("image", image)
            # Not `layer.data`: napari gives plugins a stand-in, which is never the same object.
            before, self._frames = self._frames, image[0]
            if isinstance(before, FrameArray) and before is not self._frames:
                before.close()
        elif (mine := self._layers.get("image")) is not None and mine in self._viewer.layers:
            mine.visible = False
        placed = {"scale": tuple(scale), "translate": tuple(translate)}
        if layers.tracks is not None:
            self._put("tracks", _with(layers.tracks, placed))
        for group in GROUPS:
            self._put(group, _with(layers.marks[group], placed))
        # No mark may lie on a picture that it does not belong to, be it a layer that came later.
        if own_layer is not None and own_layer in self._viewer.layers:
            own_layer.visible = True
            self._raise(own_layer)
        for role in ("image", "tracks", *GROUPS):
            layer = self._layers.get(role)
            if layer is not None and layer in self._viewer.layers:
                self._raise(layer)
        if not live_goes_on:
            for layer in self._viewer.layers:
                if is_of_live_picture(layer):
                    layer.visible = False
        for layer in self._unseen:
            layer.visible = True
        self._unseen.clear()
        if new:
            self._viewer.reset_view()
        self._viewer.layers.selection.active = self._layers[GROUPS[-1]]

    def _raise(self, layer: Any) -> None:
        self._viewer.layers.move(self._viewer.layers.index(layer), len(self._viewer.layers))

    def _put(self, role: str, made: LayerData) -> None:
        data, meta, kind = made
        layer = self._layers.get(role)
        if layer is None or layer not in self._viewer.layers:
            if layer in self._unseen:
                self._unseen.remove(layer)
            self._layers[role] = layer = self._viewer.add_layer(Layer.create(data, meta, kind))
            if kind == "points":
                layer.editable = False  # a stray Delete key takes no cell away
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
        layer.scale, layer.translate = meta.get("scale", layer.scale), meta["translate"]

    # ------------------------------------------------------------------ step-through

    def go_to(self, frame: float, y_px: float, x_px: float) -> None:
        """Turn the viewer to a frame, and where a place in it is out of sight, to that; the zoom stays."""
        marks = self._layers.get(GROUPS[-1])
        if marks is None:
            return
        first = self._viewer.dims.ndim - 3
        world = np.asarray(marks.data_to_world((frame, y_px, x_px)))
        self._viewer.dims.set_point(first, world[0])
        camera = self._viewer.camera
        half = np.asarray(self._viewer.canvas.size, float) / (2 * max(camera.zoom, 1e-6))
        if (np.abs(world[1:] - np.asarray(camera.center)[-2:]) > _IN_SIGHT * half).any():
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
        return float(np.asarray(self._layers[GROUPS[-1]].world_to_data(world))[-3])

    def cell_at(self, world: Sequence[float]) -> int | None:
        """Return the cell whose visible mark lies nearest to a place in the viewer, if one is near."""
        reach = _REACH_PX / max(self._viewer.camera.zoom, 1e-6)
        best: tuple[float, int] | None = None
        for group in GROUPS:
            layer = self._layers.get(group)
            if layer is None or layer not in self._viewer.layers or not layer.visible or not len(layer.data):
                continue
            place: NDArray[Any] = np.asarray(layer.world_to_data(world))[-3:]
            at = np.flatnonzero(np.abs(layer.data[:, 0] - place[0]) < 0.5)
            if not len(at):
                continue
            far = np.hypot(*(layer.data[at, 1:] - place[1:]).T) * float(layer.scale[-1])
            k = int(far.argmin())
            if far[k] <= reach and (best is None or far[k] < best[0]):
                best = (float(far[k]), int(layer.features["cell"].iloc[at[k]]))
        return None if best is None else best[1]


def is_of_live_picture(layer: Any) -> bool:
    """Tell whether a live picture made a layer, and will draw into it again."""
    return layer.metadata.get(METADATA) in LIVE_ROLES


def _with(made: LayerData, more: dict[str, Any]) -> LayerData:
    data, meta, kind = made
    return data, {**meta, **more}, kind
