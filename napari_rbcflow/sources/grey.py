"""Whatever a file or a camera gives, made into the 8-bit grey frame that tracking sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

USUAL_PIXEL_TYPES = ("8bit-MONO", "16bit-MONO", "8bit-COLOR")
"""Pixel types as the Infinity calls them; `match_pixel_type` finds what another camera calls the same."""

_COLOUR = re.compile(r"rgb|bgr|colou?r", re.IGNORECASE)
_BITS_OF_ALL_CHANNELS = {24: 8, 32: 8, 48: 16, 64: 16}
"""A colour pixel is often named by the bits of its three or four channels together."""


def match_pixel_type(wanted: str, allowed: Iterable[str]) -> str | None:
    """Return the camera's own name of a pixel type as a person wrote it; None where it has none.

    Case, spaces and dashes do not matter. Where the camera has no such name, the one with as many bits
    a channel is meant, in grey or in colour.
    """
    names = list(allowed)
    same = [name for name in names if _letters(name) == _letters(wanted)]
    meant = _kind(wanted)
    alike = [name for name in names if meant is not None and _kind(name) == meant]
    return next(iter([*same, *alike]), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _kind(name: str) -> tuple[int, bool] | None:
    """Return bits a channel, and whether there is colour; None for a name without bits."""
    number = re.search(r"\d+", name)
    if number is None:
        return None
    bits, colour = int(number[0]), _COLOUR.search(name) is not None
    return (_BITS_OF_ALL_CHANNELS.get(bits, bits) if colour else bits), colour


Raw = NDArray[Any]
ColourOrder = Literal["rgb", "bgr"]

_BIT_DEPTHS = (8, 10, 12, 14, 16)  # that cameras have; anything between is taken as the next


@dataclass(frozen=True, eq=False)
class GreyRule:
    """How raw frames of one source become grey, decided once so that grey means the same in every frame."""

    channel: int | None = None
    """The one channel to take where all are equal; None: luminance (ITU-R BT.601), or no channels."""
    order: ColourOrder = "rgb"
    table: NDArray[np.uint8] | None = None
    """Grey of each of the 65536 raw values, saturated; None where raw is grey already."""
    warnings: tuple[str, ...] = ()
    stretched: str = ""
    """The values, "30000 to 31000", where they differ so little that they were stretched; black is unknown"""

    def apply(self, raw: Raw) -> NDArray[np.uint8]:
        """Return grey, shape (height, width), contiguous; `raw` itself where it is grey already."""
        if self.table is not None and (raw.dtype.itemsize > 2 or raw.dtype.kind == "i"):
            raw = _as_16_bit(raw)
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


def _as_16_bit(raw: Raw) -> NDArray[np.uint16]:
    """Return integer values of any type, beyond either end the last value there."""
    values: NDArray[np.uint16] = np.clip(raw, 0, min(65535, np.iinfo(raw.dtype).max)).astype(np.uint16)
    return values


def depth_table(bits: int, *, base: int = 0) -> NDArray[np.uint8]:
    """Return the grey of every 16-bit value of a `bits`-bit camera: less `base`, shifted right, saturated."""
    above = np.maximum(np.arange(65536) - base, 0)
    table: NDArray[np.uint8] = np.minimum(above >> (bits - 8), 255).astype(np.uint8)
    return table


def depth_of(greatest: int) -> int:
    """Return the smallest depth of a camera, in bits, that holds a value."""
    return next(bits for bits in _BIT_DEPTHS if greatest < 1 << bits)


def decide_grey(
    samples: Iterable[Raw],
    *,
    name: str,
    order: ColourOrder = "rgb",
    inverted: bool = False,
) -> GreyRule:
    """Look at frames spread over a movie, (height, width[, channels]), and decide how all become grey.

    BadInput for values that are not grey levels (floating point, complex, boolean, beyond 16 bits).
    """
    warnings: list[str] = []
    greatest, deep, equal, channels, frames = 0, False, True, 0, 0
    counts = np.zeros(65536, np.int64)
    for raw in samples:
        if raw.dtype.kind not in "ui":
            raise BadInput("sources.not-grey", name=name, type=raw.dtype.name)
        if raw.dtype.itemsize > 1 or raw.dtype.kind == "i":
            deep = True
            light = raw[..., : 3 if raw.shape[2] > 2 else 1] if raw.ndim == 3 else raw
            if int(light.min()) < 0:
                raise BadInput("sources.grey-negative", name=name)
            greatest = max(greatest, int(light.max()))
            counts += np.bincount(_as_16_bit(light).ravel(), minlength=65536)
        if raw.ndim == 3:
            channels = raw.shape[2]
            equal = equal and (channels < 3 or _equal_channels(raw))
        frames += 1
    if greatest > 65535:
        raise BadInput("sources.grey-too-deep", name=name, greatest=greatest)
    table, stretched = _table_of(counts, frames, name, warnings) if deep else (None, "")
    if inverted:
        table = np.bitwise_not(depth_table(8) if table is None else table)
        warnings.append(say("sources.white-is-zero", name=name))
    if channels >= 3 and not equal:
        warnings.append(say("sources.in-colour", name=name))
    if channels in (2, 4):
        warnings.append(say("sources.alpha-ignored", name=name))
    return GreyRule(0 if equal and channels else None, order, table, tuple(warnings), stretched)


_HOT_SHARE, _HOT_PX = 1e-4, 4
"""Most pixels of a frame that may be hot: half of what makes a picture too bright."""
_HOT_TIMES = 2
_LEAST_SPREAD = 0.3
"""Of the values between these hot and as many dark ones, over their median: composed movies of real cells
have 0.9 and more, with ten cells a frame 0.4, the simulated chamber 0.8; with an offset that leaves 0.25,
six cells of 57 were counted, and 33 % for 72 %."""
_SPREAD_OF_SIGNED = 0.25
_SIGNED = 32768
_USUAL_SPREAD = 0.45  # of all but a thousandth at either end: composed movies have 0.39 to 0.59
_USUAL_LIGHT = 120


def _table_of(
    counts: NDArray[np.int64], frames: int, name: str, warnings: list[str]
) -> tuple[NDArray[np.uint8], str]:
    """Decide by how often each 16-bit value occurs which grey it becomes; and what was stretched."""
    low, at_1, middle, at_999, high = _quantiles(counts, frames)
    greatest = int(np.flatnonzero(counts)[-1])
    base = 0
    if high - low < _LEAST_SPREAD * middle:
        if low < _SIGNED or high - low < _SPREAD_OF_SIGNED * (middle - _SIGNED):
            black = middle - max(at_999 - at_1, 1) / _USUAL_SPREAD
            light = _USUAL_LIGHT * (np.arange(65536) - black) / (middle - black)
            return np.clip(np.rint(light), 0, 255).astype(np.uint8), f"{low} to {high}"
        base = _SIGNED
        warnings.append(say("sources.offset-of-signed", name=name, low=low, high=high))
    most = greatest
    if greatest - base >= _HOT_TIMES * (high - base) and depth_of(high - base) < depth_of(greatest - base):
        most = high
        warnings.append(say("sources.hot-pixels", name=name, greatest=greatest, high=high))
    bits = depth_of(most - base)
    if greatest > 127:  # more than an 8-bit number with a sign
        warnings.append(say("sources.deep-movie", name=name, bits=bits, divisor=1 << (bits - 8)))
    return depth_table(bits, base=base), ""


def _quantiles(counts: NDArray[np.int64], frames: int) -> list[int]:
    """Return the values below which all but the hot, 99.9 %, half, 0.1 % and the darkest pixels are."""
    passed = np.cumsum(counts)
    total = int(passed[-1])
    hot = min(max(_HOT_SHARE, _HOT_PX * frames / total), 0.001)
    shares = (hot, 0.001, 0.5, 0.999, 1 - hot)
    return [int(np.searchsorted(passed, share * total)) for share in shares]


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
    """Refuse floating-point pixels, whose bytes would be taken for those of colour."""
    if int(core.get_number_of_components()) == 1 and int(core.get_bytes_per_pixel()) > 2:
        raise BadInput("sources.camera-32-bit-grey", camera=label)


def camera_grey(raw: Raw, bits: int, label: str, warnings: list[str]) -> GreyRule:
    """Decide how a camera's frames become grey: by the bits that it reports, not by a moment's light.

    `raw` is a frame as `channels` returns it; `warnings` gets what is done.
    """
    table = None
    if raw.dtype.itemsize > 1:
        light = raw[..., :3] if raw.ndim == 3 else raw
        high, greatest = _quantiles(np.bincount(light.ravel(), minlength=65536), 1)[-1], int(light.max())
        if greatest >= _HOT_TIMES * high:
            greatest = high
        reported, bits = bits, min(_CONTAINER_BITS, max(8, bits))
        held = depth_of(greatest)
        if greatest >> bits:
            bits = held
            warnings.append(say("sources.bits-too-few", camera=label, bits=reported, greatest=greatest))
        elif bits == _CONTAINER_BITS and held < bits:
            # Its true depth, or little light: a wrong guess would deceive the check of the light.
            warnings.append(say("sources.bits-unused", camera=label, bits=bits, greatest=greatest, held=held))
        table = depth_table(bits)
        warnings.append(say("sources.deep-camera", camera=label, bits=bits, divisor=1 << (bits - 8)))
    if raw.ndim == 3:
        warnings.append(say("sources.in-colour", name=label))
    return GreyRule(None, "bgr", table)
