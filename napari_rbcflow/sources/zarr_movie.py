"""Zarr arrays (t, y, x) and OME-Zarr images (NGFF 0.1 to 0.5), in a folder or a zip file, through zarr."""

from __future__ import annotations

import itertools
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import ZipStore

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import in_a_line
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import (
    FileFacts,
    MovieReader,
    RawFrame,
    choose_series,
)
from napari_rbcflow.types import SIMULATED_MARK

_BLOCK_BYTES = 64 << 20  # frames are read a chunk at a time, but never more than this at once
_MOST_CHUNK_BYTES = 1 << 31  # what most codecs can hold; a whole chunk is in memory at once
_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")
_ZIP_SUFFIXES = (".zip", ".ozx")
_DEEPEST = 3  # groups in groups: plate, well, position
_ABSENT = np.iinfo(np.uint64).max  # in a shard's index, where no chunk is
_LOSSY = re.compile(
    "jpe?g(?!ls|2k)|jxl|webp|avif|heif|zfp|sz3|bitround|quantize|fixedscaleoffset", re.IGNORECASE
)
_LOSSY_BY_LEVEL = re.compile("jpegls|jpeg2k|lerc", re.IGNORECASE)  # by default they keep all
_AXES = {
    "t": ("t", "time", "times", "frame", "frames"),
    "c": ("c", "channel", "channels", "band", "rgb", "s", "sample", "samples"),
    "z": ("z", "depth", "plane", "planes", "slice"),
    "y": ("y", "row", "rows", "height"),
    "x": ("x", "col", "cols", "column", "columns", "width"),
}
_LETTERS = {name: letter for letter, names in _AXES.items() for name in names}


def is_zarr(path: Path) -> bool:
    """Tell whether this is a folder that is a Zarr array or group, or a zip file, which may hold one."""
    if path.is_dir():
        return any((path / name).is_file() for name in _METADATA_FILES)
    with path.open("rb") as file:
        return path.suffix.lower() in _ZIP_SUFFIXES or file.read(2) == b"PK"


class ZarrReader(MovieReader):
    """An array of frames. A chunk that was never written is no frame, though zarr would give zeros."""

    def __init__(self, path: Path, series: int | None = None) -> None:
        self.facts = FileFacts(0)
        self._store: ZipStore | None = None
        try:
            self._open(path, series)
        except BadInput:
            self.close()
            raise
        except Exception as error:  # zarr raises many kinds for damaged metadata
            self.close()
            raise BadInput("sources.zarr-unreadable", name=path.name, why=in_a_line(error)) from error

    def _open(self, path: Path, series: int | None) -> None:
        name, files = path.name, _Files(path)
        if isinstance(files.zip, zipfile.ZipFile):
            self._store = ZipStore(path, mode="r")
        node = zarr.open(str(path) if self._store is None else self._store, path=files.top, mode="r")
        if isinstance(node, zarr.Group):
            images = list(_images(node))
            titles = [say("sources.title-zarr", path=at, shape=_array_of(one)) for at, one in images]
            # An array a frame is no movie: their order is unknown.
            pictures = [one for _, one in images if isinstance(one, zarr.Array) and one.ndim < 3]
            if not images or len(pictures) == len(images) > 1:
                raise BadInput("sources.zarr-no-array", name=name)
            chosen = images[choose_series(name, titles, series)][1]
        else:
            choose_series(name, [say("sources.title-zarr", path=name, shape=node.shape)], series)
            chosen = node
        self._array, axes, scale = _first_level(chosen, name)
        array = self._array
        self._axes = _frame_axes(array.shape, axes or _dimensions(array), name, _may_be_colours(chosen))
        self._t = self._axes.index("t")
        if scale is not None and axes is not None:
            units = [a.get("unit") if isinstance(a, Mapping) else None for a in axes]
            _take_scale(self._axes, units, scale, self.facts, name)
        for attributes in {id(one): one.attrs for one in (node, chosen, array)}.values():
            _take_attributes(attributes, self.facts, name)
        self.facts.n_frames = array.shape[self._t]
        self.facts.format = f"Zarr v{array.metadata.zarr_format} {array.dtype.name}"
        self.facts.lossy_codec = _lossy_codec(array)
        frame_bytes = max(1, math.prod(array.shape) // max(1, array.shape[self._t]) * array.dtype.itemsize)
        largest = max(frame_bytes, math.prod(array.chunks) * array.dtype.itemsize)
        if largest > _MOST_CHUNK_BYTES:
            raise BadInput("sources.zarr-chunks-too-large", name=name, gb=largest / 1e9)
        steps = (array.shards or array.chunks)[self._t]
        self._step = max(1, min(steps, _BLOCK_BYTES // frame_bytes))
        if math.prod(array.shape):
            _refuse_unwritten(array, self._axes, files, name)
            if steps > 1:
                self._refuse_empty_end(name)

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

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
        """Refuse a chunk or shard whose end is empty: its writer was killed, which no file shows."""
        n = self.facts.n_frames
        empty = 0
        while empty < n:
            try:
                block = self._read(max(0, n - empty - self._step), n - empty)
            except Exception:  # whoever looks at the frames says which cannot be read
                return
            seen = np.flatnonzero(block.any(axis=tuple(range(1, block.ndim))))
            empty += len(block) - (int(seen[-1]) + 1 if len(seen) else 0)
            if len(seen):
                break
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


class _Files:
    """The files of a Zarr, in a folder or in a zip file, by their names from its top."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.zip: zipfile.ZipFile | None = None
        self.top = ""
        if path.is_dir():
            return
        self.zip = zipfile.ZipFile(path)
        tops = [name for name in self.zip.namelist() if name.rpartition("/")[2] in _METADATA_FILES]
        if not tops:
            self.zip.close()
            raise BadInput("sources.zip-without-zarr", name=path.name)
        # A folder may have been zipped with its own name.
        self.top = min(tops, key=lambda name: name.count("/")).rpartition("/")[0]

    def under(self, folder: str) -> Iterator[str]:
        """Yield the names of the files in a folder and its folders, as from there."""
        if self.zip is not None:
            start = f"{folder}/" if folder else ""
            yield from (name[len(start) :] for name in self.zip.namelist() if name.startswith(start))
            return
        root = self._path / folder
        for at, _, names in os.walk(root):
            inside = Path(at).relative_to(root).as_posix()
            yield from names if inside == "." else (f"{inside}/{name}" for name in names)

    def end(self, name: str, size: int, *, start: bool = False) -> bytes:
        """Return the last bytes of a file, or its first."""
        with (self._path / name).open("rb") if self.zip is None else self.zip.open(name) as file:
            if not start:
                file.seek(-size, os.SEEK_END)
            return file.read(size)


def _images(group: Any, inside: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the movies in a group, each with its path: NGFF images (as groups), else arrays."""
    if _multiscales(group):
        yield inside.rstrip("/") or group.name, group
        return
    members = sorted(group.members(), key=lambda member: _natural(member[0]))
    arrays = [(key, one) for key, one in members if isinstance(one, zarr.Array)]
    movies = [pair for pair in arrays if pair[1].ndim > 2]  # beside them xarray puts places and times
    for key, one in members:
        if isinstance(one, zarr.Group) and depth < _DEEPEST:
            yield from _images(one, f"{inside}{key}/", depth + 1)
    yield from ((inside + key, one) for key, one in movies or arrays)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def _multiscales(group: Any) -> Any:
    attributes = dict(group.attrs)
    return attributes.get("ome", attributes).get("multiscales")


def _array_of(image: Any) -> Any:
    """Return the shape of an image, for a person."""
    return _first_level(image, "")[0].shape


def _first_level(node: Any, name: str) -> tuple[Any, Sequence[Any] | None, list[float] | None]:
    """Return the array of an NGFF image's finest level, its axes and its scale; of an array, itself."""
    if isinstance(node, zarr.Array):
        return node, None, None
    scales = _multiscales(node)
    try:
        level = scales[0]["datasets"][0]
        array = node[level["path"]]
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


def _dimensions(array: Any) -> Sequence[str] | None:
    """Return the names that a writer gave the axes, xarray's in Zarr v2, if they tell y from x."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, Sequence) or isinstance(names, str):
        return None
    letters = [_LETTERS.get(str(name).lower(), str(name).lower()) for name in names]
    return letters if {"y", "x"} <= set(letters) else None


def _may_be_colours(node: Any) -> bool:
    """Tell whether NGFF, where it says how three channels are shown, shows them red, green and blue."""
    attributes = dict(node.attrs)
    shown = attributes.get("ome", attributes).get("omero")
    channels = shown.get("channels") if isinstance(shown, Mapping) else None
    if not isinstance(channels, Sequence):
        return True
    colours = [str(one.get("color", "")).upper() for one in channels if isinstance(one, Mapping)]
    return not all(colours) or colours[:3] == ["FF0000", "00FF00", "0000FF"]


def _frame_axes(
    shape: tuple[int, ...], axes: Sequence[Any] | None, name: str, may_be_colours: bool = True
) -> str:
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
    if max(names.count(a) for a in "tyx") > 1:
        raise BadInput("sources.zarr-wrong-axes", name=name, axes=", ".join(names), shape=shape)
    long = [a for a, n in zip(names, shape, strict=True) if a not in "yx" and n > 1]
    if "t" not in names and len(long) == 1 and long != ["c"]:
        names[names.index(long[0])] = "t"  # recorders without a time axis stack frames along z
        long = ["t"]
    if "t" not in names:
        raise BadInput("sources.zarr-no-time", name=name, axes=", ".join(names))
    if may_be_colours and "c" in long and shape[names.index("c")] in (3, 4) and set(long) <= {"t", "c"}:
        names[names.index("c")] = "s"
        long.remove("c")
    if set(long) - {"t"}:
        text = ", ".join(f"{a}: {n}" for a, n in zip(names, shape, strict=True) if a in long)
        raise BadInput("sources.too-many-axes", name=name, axes=text)
    return "".join(a if a in ("t", "y", "x", "s") else "-" for a in names)


def _take_scale(axes: str, units: list[str | None], scale: list[float], facts: FileFacts, name: str) -> None:
    """Take NGFF's scale; writers that know nothing put a scale of 1 without a unit."""
    origin = say("sources.origin-ome", name=name)
    told = {
        axis: (step, unit)
        for axis, unit, step in zip(axes, units, scale, strict=True)
        if unit is not None and step > 0
    }
    if "t" in told:
        facts.take_interval(*told["t"], origin)
    if "x" in told:
        high, high_unit = told.get("y", (None, ""))
        facts.take_step(*told["x"], origin, high=high, high_unit=high_unit)


def _take_attributes(attributes: Mapping[str, Any], facts: FileFacts, name: str) -> None:
    for key, take in (("fps", facts.take_fps), ("pixel_size_um", facts.take_pixel_size)):
        value = attributes.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            take(float(value), name)
    facts.simulated |= attributes.get(SIMULATED_MARK) is True


def _lossy_codec(array: Any) -> str:
    """Return the name of a codec that does not keep every value."""
    described = array.metadata.to_dict()
    return next(_lossy_in([described.get(kind) for kind in ("codecs", "compressor", "filters")]), "")


def _lossy_in(described: Any) -> Iterator[str]:
    """Yield the lossy codecs of a description, those within a shard too."""
    if isinstance(described, list | tuple):
        for one in described:
            yield from _lossy_in(one)
    elif isinstance(described, dict):
        name = str(described.get("name", described.get("id", "")))
        settings = described.get("configuration", described)
        if _LOSSY.search(name):
            if not (settings.get("lossless") or settings.get("reversible")):
                yield name
        elif _LOSSY_BY_LEVEL.search(name) and settings.get("level"):
            yield name
        yield from _lossy_in(settings.get("codecs"))


def _refuse_unwritten(array: Any, axes: str, files: _Files, name: str) -> None:
    """Refuse an array with chunks that are nowhere, in no shard either: zarr would give zeros for them."""
    t, n_frames, per_chunk = axes.index("t"), array.shape[axes.index("t")], array.chunks[axes.index("t")]
    grid = [
        range(-(-n // step)) if axis in "tyxs" else range(1)
        for axis, n, step in zip(axes, array.shape, array.chunks, strict=True)
    ]
    there = Counter(at[t] for at in _written(array, files) if all(map(range.__contains__, grid, at)))
    complete = math.prod(len(places) for places in grid) // len(grid[t])
    steps = {k for k, n in there.items() if n == complete}
    lost = n_frames - sum(min(per_chunk, n_frames - k * per_chunk) for k in steps)
    if lost:
        first = next(k for k in itertools.count() if k not in steps) * per_chunk
        raise BadInput("sources.zarr-unwritten", name=name, lost=lost, frames=n_frames, first=first)


def _written(array: Any, files: _Files) -> Iterator[tuple[int, ...]]:
    """Yield the places of all chunks that are on the disk, counted in chunks along each axis."""
    shards = array.shards
    per_shard = [big // small for big, small in zip(shards or array.chunks, array.chunks, strict=True)]
    for file in files.under(array.path):
        numbers = re.fullmatch(r"(?:c[/.])?(\d+(?:[/.]\d+)*)", file)
        at = tuple(int(k) for k in re.split("[/.]", numbers[1])) if numbers else ()
        if len(at) != array.ndim or array.metadata.encode_chunk_key(at) != file:
            continue
        if shards is None:
            yield at
            continue
        corner = [k * n for k, n in zip(at, per_shard, strict=True)]
        for inner in np.argwhere(_index(array, files, f"{array.path}/{file}".lstrip("/"), per_shard)):
            yield tuple(int(a) + int(b) for a, b in zip(corner, inner, strict=True))


def _index(array: Any, files: _Files, file: str, per_shard: list[int]) -> NDArray[np.bool_]:
    """Return which chunks a shard holds, by its index (sharding_indexed of the Zarr specification 3.0)."""
    (codec,) = array.metadata.codecs
    assert isinstance(codec, ShardingCodec)
    order = next(
        (str(one.endian and one.endian.value) for one in codec.index_codecs if isinstance(one, BytesCodec)),
        "",
    )
    sum_bytes = 4 * sum(isinstance(one, Crc32cCodec) for one in codec.index_codecs)
    size = 16 * math.prod(per_shard)
    at_start = codec.index_location.value == "start"
    data = files.end(file, size + sum_bytes, start=at_start)[:size]
    index = np.frombuffer(data, ">u8" if order == "big" else "<u8").reshape(*per_shard, 2)
    there: NDArray[np.bool_] = (index != _ABSENT).any(axis=-1)
    return there
