"""Zarr arrays (t, y, x) and OME-Zarr images (NGFF 0.1 to 0.5), through zarr."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import in_a_line
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, RawFrame, in_s, in_um
from napari_rbcflow.types import SIMULATED_MARK

_BLOCK_BYTES = 64 << 20  # frames are read a chunk at a time, but never more than this at once
_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(folder: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((folder / name).is_file() for name in _METADATA_FILES)


class ZarrReader(MovieReader):
    """An array of frames. A chunk that was never written is no frame, though zarr would give zeros."""

    def __init__(self, path: Path) -> None:
        name = path.name
        try:
            node = zarr.open(str(path), mode="r")
        except Exception as error:  # zarr raises many kinds for damaged metadata
            raise BadInput("sources.zarr-unreadable", name=name, why=in_a_line(error)) from error
        self.facts = FileFacts(0)
        if isinstance(node, zarr.Array):
            self._array, axes, scale = node, None, None
        else:
            self._array, axes, scale = _first_level(node, name)
        array = self._array
        self._axes = _frame_axes(array.shape, axes, name)
        self._t = self._axes.index("t")
        if scale is not None and axes is not None:
            units = [a.get("unit") if isinstance(a, Mapping) else None for a in axes]
            _take_scale(self._axes, units, scale, self.facts, name)
        for attributes in (node.attrs, array.attrs):
            _take_attributes(attributes, self.facts, name)
        self.facts.n_frames = array.shape[self._t]
        self.facts.format = f"Zarr v{array.metadata.zarr_format} {array.dtype.name}"
        if math.prod(array.shape):
            _refuse_unwritten(array, self._axes, path, name)
            self._refuse_empty_end(name)
        steps = (getattr(array, "shards", None) or array.chunks)[self._t]
        frame_bytes = max(1, math.prod(array.shape) // max(1, array.shape[self._t]) * array.dtype.itemsize)
        self._step = max(1, min(steps, _BLOCK_BYTES // frame_bytes))

    def frames(self) -> Iterator[RawFrame]:
        n = self.facts.n_frames
        for start in range(0, n, self._step):
            block = self._read(start, min(n, start + self._step))
            for k, image in enumerate(block):
                yield RawFrame(start + k, None, image)

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            yield self._read(place, place + 1)[0]

    def _refuse_empty_end(self, name: str) -> None:
        """Refuse a shard whose end is empty: its writer was killed, which the files alone do not show."""
        shards, n = getattr(self._array, "shards", None), self.facts.n_frames
        if shards is None:
            return
        empty = 0
        while empty < min(n, shards[self._t]) and not self._read(n - empty - 1, n - empty).any():
            empty += 1
        if empty:
            raise BadInput("sources.zarr-empty-end", name=name, empty=empty, frames=n)

    def _read(self, start: int, stop: int) -> Raw:
        """Return frames `start` to `stop`, shape (n, y, x) or (n, y, x, channels)."""
        every, frames = slice(None), slice(start, stop)
        index = tuple(frames if axis == "t" else every if axis in "yxs" else 0 for axis in self._axes)
        block = np.asarray(self._array[index])
        kept = [axis for axis in self._axes if axis in "tyxs"]
        order = [kept.index(axis) for axis in "tyxs" if axis in kept]
        return block.transpose(order) if order != sorted(order) else block


def _first_level(group: Any, name: str) -> tuple[Any, Sequence[Any] | None, list[float] | None]:
    """Return the array of an NGFF image's finest level, its axes and its scale; else a group's only array."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if "bioformats2raw.layout" in ome and "0" in group:
        return _first_level(group["0"], name)
    scales = ome.get("multiscales")
    if scales:
        try:
            level = scales[0]["datasets"][0]
            array = group[level["path"]]
        except (KeyError, IndexError, TypeError) as error:
            raise BadInput("sources.zarr-level-missing", name=name, why=in_a_line(error)) from error
        axes = scales[0].get("axes") or ["t", "c", "z", "y", "x"][-array.ndim :]
        scale = [1.0] * array.ndim
        for step in [
            *level.get("coordinateTransformations", []),
            *scales[0].get("coordinateTransformations", []),
        ]:
            if step.get("type") == "scale":
                scale = [a * float(b) for a, b in zip(scale, step["scale"], strict=True)]
        return array, axes, scale
    arrays = [array for _, array in group.arrays()]
    if len(arrays) == 1:
        return arrays[0], None, None
    raise BadInput("sources.zarr-many-arrays", name=name, arrays=len(arrays))


def _frame_axes(shape: tuple[int, ...], axes: Sequence[Any] | None, name: str) -> str:
    """Return one letter an axis: t, y, x, s (channels), or - for one of length 1 that is dropped."""
    if axes is None:
        if len(shape) == 4 and shape[3] in (3, 4):
            return "tyxs"
        if len(shape) < 3:
            raise BadInput("sources.zarr-single-image", name=name, shape=shape)
        axes = ["?"] * (len(shape) - 3) + ["t", "y", "x"]
        if len(shape) == 5:  # written as OME-Zarr's order without its description
            axes = ["t", "?", "?", "y", "x"]
    names = [str(a["name"] if isinstance(a, Mapping) else a).lower() for a in axes]
    if len(names) != len(shape) or "y" not in names or "x" not in names:
        raise BadInput("sources.zarr-wrong-axes", name=name, axes=", ".join(names), shape=shape)
    long = [a for a, n in zip(names, shape, strict=True) if a not in "yx" and n > 1]
    if "t" not in names and long == ["z"]:
        names[names.index("z")] = "t"  # recorders without a time axis stack frames along z
        long = ["t"]
    if "t" not in names:
        raise BadInput("sources.zarr-no-time", name=name, axes=", ".join(names))
    if "c" in long and shape[names.index("c")] in (3, 4) and set(long) <= {"t", "c"}:
        names[names.index("c")] = "s"
        long.remove("c")
    if set(long) - {"t"}:
        text = ", ".join(f"{a}: {n}" for a, n in zip(names, shape, strict=True) if a in long)
        raise BadInput("sources.too-many-axes", name=name, axes=text)
    return "".join(a if a in ("t", "y", "x", "s") else "-" for a in names)


def _take_scale(axes: str, units: list[str | None], scale: list[float], facts: FileFacts, name: str) -> None:
    """Take NGFF's scale; writers that know nothing put a scale of 1 without a unit."""
    origin = say("sources.origin-ome", name=name)
    for axis, unit, step in zip(axes, units, scale, strict=True):
        if unit is None or step <= 0:
            continue
        if axis == "t":
            seconds = in_s(step, unit)
            facts.take_fps(1 / seconds if seconds else None, origin)
        elif axis == "x":
            facts.take_pixel_size(in_um(step, unit), origin)


def _take_attributes(attributes: Mapping[str, Any], facts: FileFacts, name: str) -> None:
    for key, take in (("fps", facts.take_fps), ("pixel_size_um", facts.take_pixel_size)):
        value = attributes.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            take(float(value), name)
    facts.simulated |= attributes.get(SIMULATED_MARK) is True


def _refuse_unwritten(array: Any, axes: str, folder: Path, name: str) -> None:
    """Refuse an array with chunks that are not on the disk: zarr would give zeros for them."""
    steps = array.shards or array.chunks
    n_frames, per_chunk = array.shape[axes.index("t")], steps[axes.index("t")]
    grid = [
        range(math.ceil(n / step)) if axis in "tyxs" else range(1)
        for axis, n, step in zip(axes, array.shape, steps, strict=True)
    ]
    root = folder / array.path
    missing = {
        place[axes.index("t")]
        for place in itertools.product(*grid)
        if not (root / array.metadata.encode_chunk_key(place)).is_file()
    }
    if missing:
        lost = sum(min(per_chunk, n_frames - k * per_chunk) for k in missing)
        first = min(missing) * per_chunk
        raise BadInput("sources.zarr-unwritten", name=name, lost=lost, frames=n_frames, first=first)
