"""Whatever a file or a camera gives, made into the one 8-bit grey frame that tracking sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput

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
