"""NDTiff, the storage of Pycro-Manager and Micro-Manager 2: frames by their places in ``NDTiff.index``.

The tags of its TIFFs are not used: the Python writer says 16 bit there for 8-bit frames.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import tiff
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, choose_series
from napari_rbcflow.sources.tiff_metadata import number, take_elapsed, take_summary

INDEX = "NDTiff.index"
_RGB, _DEPTHS = 2, {0: 8, 1: 16, 2: 8, 3: 10, 4: 12, 5: 14, 6: 11}


class Entry(NamedTuple):
    """Where a frame lies."""

    axes: dict[str, Any]
    file: str
    offset: int
    width: int
    height: int
    kind: int
    packed: int
    metadata: int
    metadata_bytes: int
    metadata_packed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """What all frames of a movie have in common: width, height and kind of pixel."""
        return self.width, self.height, self.kind


def _entries(index: bytes, name: str) -> list[Entry]:
    """Return the entries of an index; tifffile's own reader is silent where it breaks off."""
    found: list[Entry] = []
    at = 0
    try:
        while at < len(index) and index[at : at + 4] != b"\0\0\0\0":  # zeros: its writer was killed
            texts = []
            for _ in range(2):
                (length,) = struct.unpack_from("<I", index, at)
                texts.append(index[at + 4 : at + 4 + length].decode())
                at += 4 + length
            axes = json.loads(texts[0])
            found.append(
                Entry(axes if isinstance(axes, dict) else {}, texts[1], *struct.unpack_from("<8I", index, at))
            )
            at += 32
    except (struct.error, ValueError, RecursionError) as error:
        remedy = say("sources.record-or-copy")
        raise BadInput("sources.cut-in-list", name=name, whole=len(found), remedy=remedy) from error
    return found


def holds(file: Path) -> bool:
    """Tell whether a TIFF is a part of the dataset in its folder."""
    index = file.parent / INDEX
    return index.is_file() and file.name.encode() in index.read_bytes()


class NDTiffReader(MovieReader):
    """The frames of one dataset, which may lie in several files."""

    def __init__(self, folder: Path, series: int | None = None) -> None:
        self._folder, name = folder, folder.name
        entries = _entries((folder / INDEX).read_bytes(), name)
        if not entries:
            raise BadInput("sources.no-frames", name=name)
        movies = _movies([entry.axes for entry in entries])
        rows, numbers = _chosen(movies, name, series)
        self._entries = [entries[row] for row in rows]
        first = self._entries[0]
        if first.kind not in _DEPTHS or first.packed:
            raise BadInput("sources.ndtiff-unknown", name=name, kind=f"{first.kind}, {first.packed}")
        self._shape = (first.height, first.width, 3) if first.kind == _RGB else (first.height, first.width)
        self._dtype = np.dtype("u1" if _DEPTHS[first.kind] == 8 else "<u2")
        self._check(name)
        self.facts = facts = FileFacts(len(rows), format=f"NDTiff {_DEPTHS[first.kind]} bit")
        facts.take_places([n - numbers[0] for n in numbers])
        told = [self._metadata(entry) for entry in self._entries]
        take_elapsed(told, facts, name, facts.places)
        with tiff.open_tiff(folder / first.file) as tif, tiff.quiet():
            take_summary((tif.micromanager_metadata or {}).get("Summary"), facts, name)
        if facts.pixel_size_um is None and told[0] is not None:
            size = number(told[0].get("PixelSizeUm", told[0].get("PixelSize_um")))
            facts.take_step(size, "µm", say("sources.origin-micro-manager", name=name))

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            one = self._entries[place]
            count = int(np.prod(self._shape))
            image = np.fromfile(self._folder / one.file, self._dtype, count, offset=one.offset)
            yield image.reshape(self._shape)

    def _check(self, name: str) -> None:
        """Refuse a dataset of which a file or an end is missing, or whose frames are not alike."""
        tiff.check_shape(name, self._shape)
        sizes: dict[str, int] = {}
        length = int(np.prod(self._shape)) * self._dtype.itemsize
        for whole, one in enumerate(self._entries):
            if one.file not in sizes:
                path = self._folder / one.file
                if path.parent != self._folder or not path.is_file():
                    raise BadInput("sources.set-file-missing", name=name, missing=one.file)
                sizes[one.file] = path.stat().st_size
            if one.shape != self._entries[0].shape:
                kinds = (str(self._entries[0].shape), str(one.shape))
                raise BadInput("sources.tiff-frames-differ", name=name, first=kinds[0], second=kinds[1])
            if one.offset + length > sizes[one.file]:
                raise BadInput(
                    "sources.cut-short-of-promise",
                    name=name, frames=len(self._entries), whole=whole, remedy=say("sources.record-or-copy"),
                )  # fmt: skip

    def _metadata(self, one: Entry) -> Mapping[str, Any] | None:
        try:
            with (self._folder / one.file).open("rb") as file:
                file.seek(one.metadata)
                told = json.loads(file.read(one.metadata_bytes))
        except (OSError, ValueError, RecursionError):
            return None
        return told if isinstance(told, dict) else None


def _movies(axes: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    """Return the movies, each as (number, row) of its frames, by where they are on every axis but time."""
    names = {name for one in axes for name in one}
    long = {name for name in names if len({one.get(name) for one in axes}) > 1}
    time = next((axis for axis in ("time", "z") if axis in long), next(iter(long), "time"))
    movies: dict[str, list[tuple[int, int]]] = {}
    for row, one in enumerate(axes):
        where = " ".join(f"{axis} {one.get(axis)}" for axis in sorted(long - {time}))
        at = one.get(time)
        movies.setdefault(where, []).append((at if isinstance(at, int) else row, row))
    return movies


def _chosen(
    movies: Mapping[str, list[tuple[int, int]]], name: str, series: int | None
) -> tuple[list[int], list[int]]:
    """Return rows and numbers of the chosen movie's frames, in the order of time."""
    titles = [
        say("sources.title-tiff", frames=len(one), kind=where or "time") for where, one in movies.items()
    ]
    chosen = sorted(list(movies.values())[choose_series(name, titles, series)])
    latest = dict(chosen)  # a frame that was stored again replaces the one before
    return list(latest.values()), list(latest)
