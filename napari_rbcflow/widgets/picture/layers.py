"""A picture's layers in napari: found again, kept apart from another picture's, brought to the front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IN_USE = "rbcflow in use"


def own_layer(viewer: Any, role: str, make: Callable[[], Any]) -> Any:
    """Return the layer that plays a role in a viewer: the one left there by an earlier picture, or a new one.

    Pictures come and go with their widget; layers stay, for removing them may crash napari. A layer in
    which another picture still draws is left to it (see `give_back`): two runs in one layer would put
    the marks of one on the frame of the other.

    Parameters
    ----------
    viewer : napari.Viewer
    role : str
    make : callable
        Adds a new one to the viewer and returns it.
    """
    for layer in viewer.layers:
        if layer.metadata.get("rbcflow") == role and not layer.metadata.get(_IN_USE):
            break
    else:
        layer = make()
        layer.metadata["rbcflow"] = role
    layer.metadata[_IN_USE] = True
    return layer


def give_back(layer: Any) -> None:
    """Leave a layer to the next picture that asks for one."""
    layer.metadata.pop(_IN_USE, None)


def bring_to_front(viewer: Any, *own: Any) -> None:
    """Let layers lie on top, in this order, to be seen; one that somebody threw away comes back.

    A number must not stand beside another patient's movie that was opened over its picture.
    """
    layers = viewer.layers
    for layer in own:
        if layer not in layers:
            layers.append(layer)
    for layer in own:
        # A slice of napari's list is a list of layers anew, which is never let go of.
        if list(layers)[-len(own) :] != list(own):
            layers.move(layers.index(layer), len(layers))
        if not layer.visible:  # even where nothing changes, napari redraws
            layer.visible = True


def put_image(layer: Any, image: NDArray[np.uint8]) -> None:
    """Show another image in a layer, at the least cost that napari allows."""
    data = layer.data
    if data.shape == image.shape and data.dtype == image.dtype and data.flags.writeable:
        # In place: napari's setter looks at the extent, the thumbnail and the dims, and costs twice.
        np.copyto(data, image)
    else:
        layer.data = image
    layer.refresh(thumbnail=False, extent=False, highlight=False)
