"""The marks on the cells of one picture: one Points layer, made once and changed in place."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import Label
from napari_rbcflow.widgets.picture.layers import own_layer
from napari_rbcflow.widgets.theme import LOOKS, NOT_YET, STRUCK_OUT

CAPACITY = 512
"""Marks that the layer has room for: a full field has 100 to 250 cells."""
_ACROSS_UM: dict[str, float] = {Label.TANK_TREADING: 19.5, Label.FLIPPING: 18.0}
_OTHERS_UM = 13.5
"""Across a mark. A red cell with its rim is some 9 um wide: no line of a counted cell's mark lies on it."""
COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
POINTED_OUT = "pointed-out"

# Least first: where marks lie on each other, or there is no room for all, the counted cells are seen.
_ORDER = (Label.TOO_SHORT, Label.UNCOUNTED, Label.UNRELIABLE, NOT_YET, STRUCK_OUT, *COUNTED, POINTED_OUT)
_CODE = {str(name): code for code, name in enumerate(_ORDER)}
NOT_COUNTED = frozenset({Label.TOO_SHORT, Label.UNCOUNTED, Label.UNRELIABLE})
# Lines of a cross are too thin to be seen from afar.
_FILLED = NOT_COUNTED | {STRUCK_OUT}
_PARKED_SIZE_PX = 0.01


class Marks:
    """A mark on every cell of the picture shown.

    The layer is made when this is, and never removed: napari may crash where Points are, and layers
    that are made again and again cost. All marks are in it from the start; those not needed lie,
    invisible, on one that is (napari 0.9.2 draws also what is not `shown`).

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    layer : napari.layers.Points
    left_out : int
        Cells of the last `place` that found no room.
    """

    def __init__(self, viewer: Any) -> None:
        self.layer = own_layer(
            viewer,
            "cells",
            lambda: viewer.add_points(np.zeros((CAPACITY, 2)), name="cells", face_color="transparent"),
        )
        if len(self.layer.data) != CAPACITY:
            self.layer.data = np.zeros((CAPACITY, 2))
        fill = CAPACITY - len(_ORDER)
        symbols = [LOOKS[name].symbol if name != POINTED_OUT else "square" for name in _ORDER]
        self.layer.symbol = symbols + [symbols[0]] * fill
        self.layer.border_color = [_colour(name) for name in _ORDER] + ["transparent"] * fill
        self.layer.selected_data = set()
        self.layer.editable = False
        # What napari makes of symbols and colours, one row a look, to be copied into the layer's arrays.
        self._symbols = self.layer.symbol[: len(_ORDER)].copy()
        self._borders = self.layer.border_color[: len(_ORDER)].copy()
        self._faces = np.zeros_like(self._borders)
        self._widths = np.full(len(_ORDER), 0.09)
        for name in _FILLED:
            self._faces[_CODE[name]] = self._borders[_CODE[name]]
            self._widths[_CODE[name]] = 0.0
        self._sizes_px = np.ones(len(_ORDER))
        self.left_out = 0
        self._placed = CAPACITY
        self.set_pixel_size(1.0)
        self.clear()

    def set_pixel_size(self, pixel_size_um: float) -> None:
        """Say how large a camera's pixel is, and with it how large a mark is drawn."""
        self._sizes_px[:] = [_across_um(name) / pixel_size_um for name in _ORDER]

    def point_out(self, y_px: float, x_px: float, label: str) -> None:
        """Put a mark on one cell only, and a frame around it."""
        names = [POINTED_OUT] if label == NOT_YET else [label, POINTED_OUT]
        self.place(np.full(len(names), y_px), np.full(len(names), x_px), names)

    def place(
        self, y_px: NDArray[Any], x_px: NDArray[Any], names: Sequence[str], hidden: Set[str] = frozenset()
    ) -> None:
        """Put marks on these cells and on no other.

        Parameters
        ----------
        y_px, x_px : ndarray of float, shape (m,)
            In camera pixels.
        names : sequence of str, length m
            How each looks: a key of `theme.LOOKS`, or `POINTED_OUT`.
        hidden : set of str
            Looks that are left away.
        """
        if hidden:
            kept = [i for i, name in enumerate(names) if name not in hidden]
            y_px, x_px, names = y_px[kept], x_px[kept], [names[i] for i in kept]
        codes = np.fromiter((_CODE[name] for name in names), np.intp, len(names))
        order = np.argsort(codes, kind="stable")[-CAPACITY:]
        codes, n = codes[order], len(order)
        self.left_out = len(names) - n
        layer = self.layer
        if len(layer.data) != CAPACITY:  # somebody added or deleted some by hand
            layer.data = np.zeros((CAPACITY, 2))
            self._placed = CAPACITY
        layer.data[:n, 0] = y_px[order]
        layer.data[:n, 1] = x_px[order]
        layer.size[:n] = self._sizes_px[codes]
        layer.symbol[:n] = self._symbols[codes]
        layer.border_color[:n] = self._borders[codes]
        layer.face_color[:n] = self._faces[codes]
        layer.border_width[:n] = self._widths[codes]
        layer.data[n:] = layer.data[0]  # which is one of these, or where the last one was
        layer.size[n : self._placed] = _PARKED_SIZE_PX
        layer.border_color[n : self._placed, 3] = 0.0
        layer.face_color[n : self._placed, 3] = 0.0
        self._placed = n
        # What is left out of a refresh is dear (thumbnail) or stays as it is (the image sets the extent).
        layer.refresh(thumbnail=False, extent=False, highlight=False)

    def clear(self) -> None:
        """Take all marks off the picture."""
        if self._placed:
            nowhere = np.zeros(0)
            self.place(nowhere, nowhere, ())


def _across_um(name: str) -> float:
    if name in NOT_COUNTED:
        return 0.75 * _OTHERS_UM
    return 2.0 * _OTHERS_UM if name == POINTED_OUT else _ACROSS_UM.get(name, _OTHERS_UM)


def _colour(name: str) -> str:
    return "#ffffff" if name == POINTED_OUT else LOOKS[name].colour
