"""Whatever a file or a camera gives, made into the one 8-bit grey frame that tracking sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput

USUAL = ("8bit-MONO", "16bit-MONO", "8bit-COLOR")
"""As the Infinity calls them; `matching` finds what another camera calls the same."""

_COLOUR = re.compile(r"rgb|bgr|colou?r", re.IGNORECASE)
_BITS_OF_ALL_CHANNELS = {24: 8, 32: 8, 48: 16, 64: 16}
"""A colour pixel is often named by the bits of its three or four channels together."""


def matching(wanted: str, allowed: Iterable[str]) -> str | None:
    """Return the camera's own name of a pixel type; None where it has none that is meant.

    Parameters
    ----------
    wanted : str
        As written by a person: case, spaces and dashes do not matter, and where the camera has no
        such name, the one with as many bits a channel, in grey or in colour, is meant.
    allowed : iterable of str
        The camera's names.
    """
    names = list(allowed)
    same = [name for name in names if _letters(name) == _letters(wanted)]
    meant = _kind(wanted)
    alike = [name for name in names if meant is not None and _kind(name) == meant]
    return next(iter([*same, *alike]), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _kind(name: str) -> tuple[int, bool] | None:
    """Return bits a channel, and whether there is colour; None for a name that says no bits."""
    number = re.search(r"\d+", name)
    if number is None:
        return None
    bits, colour = int(number[0]), _COLOUR.search(name) is not None
    return (_BITS_OF_ALL_CHANNELS.get(bits, bits) if colour else bits), colour


Raw = NDArray[Any]
ColourOrder = Literal["rgb", "bgr"]

_BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Depths that cameras have; anything between is taken as the next."""


@dataclass(frozen=True, eq=False)
class GreyRule:
    """How raw frames of one source become grey, decided once so that grey means the same in every frame.

    Attributes
    ----------
    channel : int or None
        The one channel to take where all are equal; None: luminance (ITU-R BT.601) of a colour
        frame, or a frame that has no channels.
    order : "rgb" or "bgr"
        Of the channels, where there are any.
    table : ndarray of uint8, shape (65536,), or None
        Grey for each raw value; None where raw is grey already. Values above the depth that was
        found saturate, they do not wrap.
    warnings : tuple of str
        What was done, for log and report.
    """

    channel: int | None = None
    order: ColourOrder = "rgb"
    table: NDArray[np.uint8] | None = None
    warnings: tuple[str, ...] = ()

    def apply(self, raw: Raw) -> NDArray[np.uint8]:
        """Return grey, shape (height, width), contiguous; `raw` itself where it is grey already."""
        if self.table is not None and (raw.dtype.itemsize > 2 or raw.dtype.kind == "i"):
            raw = np.clip(raw, 0, 65535).astype(np.uint16)
        flat = raw if raw.ndim == 2 else self._one_channel(raw)
        if self.table is not None:
            flat = self.table[flat]
        grey: NDArray[np.uint8] = np.ascontiguousarray(flat)
        return grey

    def _one_channel(self, raw: Raw) -> Raw:
        if self.channel is not None or raw.shape[2] < 3:
            return np.ascontiguousarray(raw[..., self.channel or 0])
        code = cv2.COLOR_RGB2GRAY if self.order == "rgb" else cv2.COLOR_BGR2GRAY
        colour = np.ascontiguousarray(raw[..., :3], dtype=raw.dtype.newbyteorder("="))
        grey: Raw = cv2.cvtColor(colour, code)
        return grey


def depth_table(bits: int, *, inverted: bool = False) -> NDArray[np.uint8]:
    """Return grey of every 16-bit value for a camera of `bits` bits: shifted right, saturated at 255."""
    table: NDArray[np.uint8] = np.minimum(np.arange(65536) >> (bits - 8), 255).astype(np.uint8)
    return np.bitwise_not(table) if inverted else table


def holding(greatest: int) -> int:
    """Return the smallest depth, in bits, of those that cameras have in which a value has room."""
    return next(bits for bits in _BIT_DEPTHS if greatest < 1 << bits)


def decide_grey(
    samples: Iterable[Raw],
    *,
    what: str,
    order: ColourOrder = "rgb",
    inverted: bool = False,
    known_bits: int | None = None,
) -> GreyRule:
    """Look at some frames of a source and decide how all of them become grey.

    Parameters
    ----------
    samples : iterable of ndarray, each (height, width) or (height, width, channels)
        Integers; spread over the source.
    what : str
        Name of the source, for the sentences.
    order : "rgb" or "bgr"
    inverted : bool
        Zero means white in the file.
    known_bits : int or None
        Bits a pixel, where the source says so; else the smallest of 8, 10, 12, 14, 16 that holds
        the greatest sampled value.

    Raises
    ------
    BadInput
        For values that are no grey levels (floating point, complex, boolean, beyond 16 bits).
    """
    warnings: list[str] = []
    greatest, wide, equal, channels = 0, False, True, 0
    for raw in samples:
        if raw.dtype.kind not in "ui":
            raise BadInput(f"{what} holds {raw.dtype.name} values; save it as 8- or 16-bit grey.")
        if raw.dtype.itemsize > 1:
            wide = True
            if int(raw.min()) < 0:
                raise BadInput(f"{what} holds negative values; save it as 8- or 16-bit grey.")
            greatest = max(greatest, int(raw.max()))
        if raw.ndim == 3:
            channels = raw.shape[2]
            equal = equal and (channels < 3 or _equal_channels(raw))
    if greatest > 65535:
        raise BadInput(f"{what} holds values up to {greatest}, beyond 16 bits; save it as 8- or 16-bit grey.")
    table: NDArray[np.uint8] | None = depth_table(8, inverted=True) if inverted else None
    if wide:
        bits = known_bits or holding(greatest)
        bits = max(8, min(16, bits))
        table = depth_table(bits, inverted=inverted)
        warnings.append(
            f"{what} is 16 bit with values up to {bits} bits: each is divided by {1 << (bits - 8)} "
            "to make 8-bit grey."
        )
    if inverted:
        warnings.append(f"{what} stores white as zero: its grey is inverted.")
    if channels >= 3 and not equal:
        warnings.append(f"{what} is in colour: its luminance (BT.601) is used as grey.")
    if channels in (2, 4):
        warnings.append(f"{what} has an alpha channel, which is left out.")
    return GreyRule(0 if equal and channels else None, order, table, tuple(warnings))


def _equal_channels(raw: Raw) -> bool:
    return bool(np.array_equal(raw[..., 0], raw[..., 1]) and np.array_equal(raw[..., 0], raw[..., 2]))


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
                f"{held} bits would: if the image stays dark at any lamp setting, choose 8-bit pixels."
            )
        table = depth_table(bits)
        warnings.append(
            f"{label} gives {bits} bits: each value is divided by {1 << (bits - 8)} to make 8-bit grey."
        )
    if raw.ndim == 3:
        warnings.append(f"{label} is in colour: its luminance (BT.601) is used as grey.")
    return GreyRule(None, "bgr", table)
