"""Pixels as a Micro-Manager core gives them, made grey."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.grey import GreyRule, Raw, depth_table, holding

_CONTAINER_BITS = 16


def channels(pix: Raw) -> Raw:
    """Return colour pixels, which the Python backend packs into one integer, as (height, width, BGRA)."""
    if pix.ndim == 2 and pix.dtype.itemsize in (4, 8):
        channel = np.uint8 if pix.dtype.itemsize == 4 else np.uint16
        return pix.view(channel).reshape(*pix.shape, 4)
    return pix


def check_pixels(core: Any, label: str) -> None:
    """Refuse floating-point pixels, whose bytes would be taken for those of colour.

    Raises
    ------
    BadInput
    """
    if int(core.get_number_of_components()) == 1 and int(core.get_bytes_per_pixel()) > 2:
        raise BadInput(f"{label} gives 32-bit grey values: choose 8-bit ones, with --pixel-type 8bit-MONO.")


def grey_of(raw: Raw, bits: int, label: str, warnings: list[str]) -> GreyRule:
    """Decide how a camera's frames become grey: by the bits that it says it has, not by a moment's light.

    Parameters
    ----------
    raw : ndarray
        A frame, as `channels` returns it.
    bits : int
        A pixel, as the core says.
    label : str
        Of the camera.
    warnings : list of str
        Gets what is done.
    """
    table = None
    if raw.dtype.itemsize > 1:
        greatest = int(raw[..., :3].max()) if raw.ndim == 3 else int(raw.max())
        said, bits = bits, min(_CONTAINER_BITS, max(8, bits))
        held = holding(greatest)
        if greatest >> bits:
            bits = held
            warnings.append(f"{label} says that it has {said} bits, but gives values up to {greatest}.")
        elif bits == _CONTAINER_BITS and held < bits:
            # Its true depth, or little light: guessed wrong, the check of the light would be deceived.
            warnings.append(
                f"{label} says that it has {bits} bits, but gives values up to {greatest} only, as one of "
                f"{held} bits would: is the picture dark however bright the lamp, choose 8-bit pixels."
            )
        table = depth_table(bits)
        warnings.append(
            f"{label} gives {bits} bits: each value is divided by {1 << (bits - 8)} to make 8-bit grey."
        )
    if raw.ndim == 3:
        warnings.append(f"{label} is in colour: its luminance (BT.601) is used as grey.")
    return GreyRule(None, "bgr", table)
