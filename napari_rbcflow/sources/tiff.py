"""TIFF stacks, OME-TIFF and folders of single TIFF frames, through tifffile."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import in_a_line
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, choose_series, in_s, in_um
from napari_rbcflow.types import SIMULATED_MARK


def chain_is_whole(path: Path) -> bool:
    """Follow the chain of image directories; False where it leaves the file, where tifffile just stops."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        count_format, entry, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
        count_size, offset_size = struct.calcsize(count_format), struct.calcsize(offset_format)
        start = 8 if big else 4
        (place,) = struct.unpack(order + offset_format, head[start : start + offset_size])
        seen = 0
        while place:
            seen += 1
            if place + count_size > size or seen > size // entry:
                return False
            file.seek(place)
            (tags,) = struct.unpack(order + count_format, file.read(count_size))
            following = place + count_size + tags * entry
            if following + offset_size > size:
                return False
            file.seek(following)
            (place,) = struct.unpack(order + offset_format, file.read(offset_size))
    return True


def frames_promised(tif: tifffile.TiffFile) -> int:
    """Return how many frames ImageJ's description promises; of a cut file tifffile shows the first alone."""
    return int(_number((tif.imagej_metadata or {}).get("images")) or 0) if tif.is_imagej else 0


def frames_described(tif: tifffile.TiffFile) -> int:
    """Return how many frames tifffile's own description promises; 0 where it does not cover all."""
    described = tif.shaped_metadata if tif.is_shaped else None
    shape = described[0].get("shape", ()) if described and len(described) == 1 else ()
    page = tif.pages.first.shape
    return math.prod(shape[: -len(page)]) if tuple(shape[-len(page) :]) == tuple(page) else 0


def read_metadata(tif: tifffile.TiffFile, facts: FileFacts, name: str) -> None:
    """Take frame rate and pixel size from OME, Micro-Manager, ImageJ or tifffile's own description."""
    if tif.is_ome:
        _from_ome(tif.ome_metadata, facts, name)
    if tif.is_micromanager:
        _from_micromanager(tif.micromanager_metadata, facts, name)
    if tif.is_imagej:
        _from_imagej(tif, facts, name)
    if tif.is_shaped and tif.shaped_metadata:
        described = tif.shaped_metadata[0]
        if facts.fps is None:
            facts.take_fps(_number(described.get("fps")), name)
        if facts.pixel_size_um is None:
            facts.take_pixel_size(_number(described.get("pixel_size_um")), name)
        facts.simulated |= described.get(SIMULATED_MARK) is True


def _from_ome(xml: str | None, facts: FileFacts, name: str) -> None:
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        facts.warnings.append(say("sources.ome-unreadable", name=name))
        return
    origin = say("sources.origin-ome", name=name)
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return
    interval = _number(pixels.get("TimeIncrement"))
    if interval:
        seconds = in_s(interval, pixels.get("TimeIncrementUnit", "s"))
        facts.take_fps(1 / seconds if seconds else None, origin)
    size = _number(pixels.get("PhysicalSizeX"))
    if size:
        unit = pixels.get("PhysicalSizeXUnit", "µm")  # the schema's default
        size_um = in_um(size, unit)
        if size_um is None:
            facts.warnings.append(say("sources.pixel-unit-unknown", name=name, unit=unit))
        facts.take_pixel_size(size_um, origin)


def _from_micromanager(metadata: Mapping[str, Any] | None, facts: FileFacts, name: str) -> None:
    summary = (metadata or {}).get("Summary") or {}
    origin = say("sources.origin-micro-manager", name=name)
    if facts.pixel_size_um is None:
        facts.take_pixel_size(_number(summary.get("PixelSize_um")), origin)
    interval_ms = _number(summary.get("Interval_ms"))
    if facts.fps is None and interval_ms:
        facts.take_fps(1000 / interval_ms, origin)


def _from_imagej(tif: tifffile.TiffFile, facts: FileFacts, name: str) -> None:
    described = tif.imagej_metadata or {}
    origin = say("sources.origin-imagej", name=name)
    if facts.fps is None:
        interval = _number(described.get("finterval"))
        seconds = in_s(interval, str(described.get("tunit", "s"))) if interval else None
        facts.take_fps(1 / seconds if seconds else _number(described.get("fps")), origin)
    if facts.pixel_size_um is None and "XResolution" in tif.pages.first.tags:
        pixels, units = tif.pages.first.tags["XResolution"].value
        size_um = in_um(units / pixels, str(described.get("unit", ""))) if pixels else None
        facts.take_pixel_size(size_um, origin)


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if number > 0 and number < float("inf") else None


SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_MOST_CHANNELS = 8


class TiffReader(MovieReader):
    """One TIFF with many frames, read page by page, or by their places where they are contiguous."""

    def __init__(self, path: Path, series: int | None = None) -> None:
        self._path, self._series = path, series
        self._tif = _open(path)
        try:
            with _quiet():
                self._look()
        except BadInput:
            self.close()
            raise
        except Exception as error:  # tifffile raises many kinds for a damaged file
            self.close()
            raise BadInput("sources.tiff-unreadable", name=path.name, why=in_a_line(error)) from error

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            yield self._frame(place)

    def close(self) -> None:
        self._tif.close()

    def _look(self) -> None:
        name, tif = self._path.name, self._tif
        whole = chain_is_whole(self._path)
        series = _series(tif, name, self._series)
        first = series[0]
        keyframe = first.keyframe
        self._shape, self._dtype = keyframe.shape, keyframe.dtype
        self._photometric = keyframe.photometric
        self._pages: list[Any] = []
        self._offset: int | None = None
        if len(series) == 1 and first.dataoffset is not None:
            self._offset = int(first.dataoffset)  # then the frames lie in a row, and no page is needed
        elif whole:
            self._pages = [page for one in series for page in one.pages]
        else:
            self._pages = _pages_found(tif)  # of a list that breaks off, series promise what is not there
        frames = _frames_of(first, name) if len(series) == 1 else len(self._pages)
        frames = max(frames, len(self._pages), frames_promised(tif))
        if not whole and self._offset is None:
            frames = max(frames, frames_described(tif))
        self._frame_bytes: int = math.prod(self._shape) * self._dtype.itemsize
        there = self._whole_frames(frames)
        # Only a description that counts the frames makes up for a list of them that breaks off.
        counted = self._offset is not None and (tif.is_imagej or tif.is_shaped)
        self.facts = FileFacts(frames, inverted=keyframe.photometric == 0, format=f"TIFF {self._dtype.name}")
        if there < frames or not (whole or counted):
            read_metadata(tif, self.facts, name)
            remedy = self._remedy(there)
            if there < frames:
                raise BadInput(
                    "sources.cut-short-of-promise", name=name, frames=frames, whole=there, remedy=remedy
                )
            raise BadInput("sources.cut-in-list", name=name, whole=there, remedy=remedy)
        if not whole:
            self.facts.warnings.append(say("sources.tiff-cut-after-frames", name=name, frames=frames))
        if keyframe.photometric == 3:
            self.facts.warnings.append(say("sources.tiff-colour-table", name=name))
        read_metadata(tif, self.facts, name)

    def _whole_frames(self, promised: int) -> int:
        size = int(self._tif.filehandle.size)
        if self._offset is not None:
            return min(promised, (size - self._offset) // self._frame_bytes)
        for place, page in enumerate(self._pages[:promised]):
            if page is None or not page.dataoffsets:
                return place
            last = max(range(len(page.dataoffsets)), key=page.dataoffsets.__getitem__)
            if page.dataoffsets[last] + page.databytecounts[last] > size:
                return place
        return min(promised, len(self._pages))

    def _remedy(self, there: int) -> str:
        """Return what to do about a cut file, with the command that saves its whole frames."""
        if there < 2:
            return say("sources.record-or-copy")
        if self._offset is None:
            needed, frames = "", f"imread({self._path.name!r}, key=range({there}))"
        else:
            stored = self._dtype.newbyteorder(self._tif.byteorder).str
            shape = (there, *self._shape)
            needed = "import numpy; "
            frames = f"numpy.memmap({self._path.name!r}, {stored!r}, 'r', {self._offset}, {shape})"
        known = {"fps": self.facts.fps, "pixel_size_um": self.facts.pixel_size_um}
        metadata = {name: value for name, value in known.items() if value is not None}
        photometric = int(self._photometric)
        colours = f", photometric={photometric}" if photometric in (0, 1, 2) else ""
        command = (
            f'python -c "{needed}from tifffile import *; '
            f"imwrite('whole.tif', {frames}{colours}, metadata={metadata})\""
        )
        return say("sources.record-copy-or-keep", command=command)

    def _frame(self, place: int) -> Raw:
        if self._offset is None:
            return _channels_last(self._pages[place].asarray(), self._shape)
        handle = self._tif.filehandle
        handle.seek(self._offset + place * self._frame_bytes)
        stored = self._dtype.newbyteorder(self._tif.byteorder)
        flat = handle.read_array(stored, math.prod(self._shape))
        image: Raw = flat.reshape(self._shape)
        return _channels_last(image, self._shape)


class TiffFolderReader(MovieReader):
    """A folder with one TIFF a frame, in natural order of the names (frame2 before frame10)."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self._files = sorted(files, key=_natural)
        first: tuple[Any, ...] | None = None
        self.facts = FileFacts(len(self._files), format="folder of TIFFs")
        for file in self._files:
            with _open(file) as tif:
                page = tif.pages.first
                if len(tif.pages) > 1:
                    raise BadInput("sources.folder-of-stacks", folder=folder.name, name=file.name)
                ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
                if max(ends, default=0) > tif.filehandle.size:
                    raise BadInput("sources.folder-file-cut", folder=folder.name, name=file.name)
                kind = (page.shape, page.dtype)
                if first is None:
                    first = kind
                    self.facts.inverted = page.photometric == 0
                    read_metadata(tif, self.facts, file.name)
                elif kind != first:
                    raise BadInput(
                        "sources.folder-frames-differ",
                        folder=folder.name,
                        first=self._files[0].name,
                        first_kind=_kind_text(*first),
                        other=file.name,
                        other_kind=_kind_text(*kind),
                    )

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            with tifffile.TiffFile(self._files[place]) as tif:
                page = tif.pages.first
                yield _channels_last(page.asarray(), page.shape)


def open_tiff_folder(folder: Path, series: int | None = None) -> MovieReader:
    """Return a reader for a folder of TIFFs; a folder with one stack in it is that stack."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise BadInput("sources.folder-empty", name=folder.name)
    return TiffReader(files[0], series) if len(files) == 1 else TiffFolderReader(folder, files)


def _open(path: Path) -> tifffile.TiffFile:
    try:
        with _quiet():
            return tifffile.TiffFile(path)
    except Exception as error:
        raise BadInput("sources.tiff-unreadable", name=path.name, why=in_a_line(error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence tifffile's log: what it tells of a damaged file there becomes one sentence here."""
    log = logging.getLogger("tifffile")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _pages_found(tif: tifffile.TiffFile) -> list[Any]:
    """Return the pages up to where the list of them breaks off."""
    pages: list[Any] = []
    with contextlib.suppress(Exception):  # tifffile raises many kinds at the break
        for page in tif.pages:
            pages.append(page)
    return pages


def _series(tif: tifffile.TiffFile, name: str, wanted: int | None) -> list[Any]:
    """Return the series that make up the movie: the first, or all where a writer made one a frame."""
    series = list(tif.series)
    if not series:
        raise BadInput("sources.no-frames", name=name)
    if len(series) == 1 or tif.is_ome or tif.is_imagej:
        titles = [
            say("sources.title-tiff", frames=len(one.pages), kind=_kind_text(one.keyframe.shape, one.dtype))
            for one in series
        ]
        at = choose_series(name, titles, wanted)
        return series[at : at + 1]
    choose_series(name, [say("sources.title-tiff-frames", frames=len(series))], wanted)
    kinds = {(s.keyframe.shape, s.keyframe.dtype) for s in series}
    if len(kinds) > 1:
        first, second, *_ = sorted(_kind_text(*kind) for kind in kinds)
        raise BadInput("sources.tiff-frames-differ", name=name, first=first, second=second)
    return series


def _frames_of(series: Any, name: str) -> int:
    """Count frames: all axes but the frame's own, of which at most one may be longer than 1."""
    own = len(series.keyframe.shape)
    shape, axes = series.shape[:-own], series.axes[:-own]
    long = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n > 1]
    # Writers that know nothing of time call the frames channels; no camera has so many of those.
    if len(long) > 1 or any(axis == "S" or (axis == "C" and n <= _MOST_CHANNELS) for axis, n in long):
        axes = ", ".join(f"{axis}: {n}" for axis, n in long)
        raise BadInput("sources.too-many-axes", name=name, axes=axes)
    return math.prod(shape)


def _channels_last(image: Raw, shape: tuple[int, ...]) -> Raw:
    planar = image.ndim == 3 and shape[0] <= 4 < shape[2]
    return np.moveaxis(image, 0, 2) if planar else image


def _kind_text(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{' x '.join(map(str, shape))} {dtype}"


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(p), p) if p.isdigit() else (1, 0, p) for p in parts]
