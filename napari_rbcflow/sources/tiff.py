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
from napari_rbcflow.sources.base import in_a_line
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, RawFrame, in_s, in_um


def chain_is_whole(path: Path) -> bool:
    """Follow the chain of image directories to its end; False where it points outside the file.

    tifffile stops at such a place with no more than a line in its log.
    """
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
    """Return how many frames ImageJ's description promises; 0 where there is none.

    Of a file cut in its data tifffile shows the first frame alone.
    """
    return int(_number((tif.imagej_metadata or {}).get("images")) or 0) if tif.is_imagej else 0


def frames_described(tif: tifffile.TiffFile) -> int:
    """Return how many frames tifffile's own description tells of; 0 where there is none for all of them."""
    said = tif.shaped_metadata if tif.is_shaped else None
    shape = said[0].get("shape", ()) if said and len(said) == 1 else ()
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
        said = tif.shaped_metadata[0]
        if facts.fps is None:
            facts.take_fps(_number(said.get("fps")), name)
        if facts.pixel_size_um is None:
            facts.take_pixel_size(_number(said.get("pixel_size_um")), name)


def _from_ome(xml: str | None, facts: FileFacts, name: str) -> None:
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        facts.warnings.append(f"The OME description of {name} cannot be read.")
        return
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return
    interval = _number(pixels.get("TimeIncrement"))
    if interval:
        seconds = in_s(interval, pixels.get("TimeIncrementUnit", "s"))
        facts.take_fps(1 / seconds if seconds else None, f"The OME description of {name}")
    size = _number(pixels.get("PhysicalSizeX"))
    if size:
        unit = pixels.get("PhysicalSizeXUnit", "µm")  # the schema's default
        size_um = in_um(size, unit)
        if size_um is None:
            facts.warnings.append(f"{name} gives its pixel in {unit}, which is no length.")
        facts.take_pixel_size(size_um, f"The OME description of {name}")


def _from_micromanager(said: Mapping[str, Any] | None, facts: FileFacts, name: str) -> None:
    summary = (said or {}).get("Summary") or {}
    if facts.pixel_size_um is None:
        facts.take_pixel_size(_number(summary.get("PixelSize_um")), f"Micro-Manager's summary in {name}")
    interval_ms = _number(summary.get("Interval_ms"))
    if facts.fps is None and interval_ms:
        facts.take_fps(1000 / interval_ms, f"Micro-Manager's summary in {name}")


def _from_imagej(tif: tifffile.TiffFile, facts: FileFacts, name: str) -> None:
    said = tif.imagej_metadata or {}
    if facts.fps is None:
        interval = _number(said.get("finterval"))
        seconds = in_s(interval, str(said.get("tunit", "s"))) if interval else None
        fps = 1 / seconds if seconds else _number(said.get("fps"))
        facts.take_fps(fps, f"ImageJ's description in {name}")
    if facts.pixel_size_um is None and "XResolution" in tif.pages.first.tags:
        pixels, units = tif.pages.first.tags["XResolution"].value
        size_um = in_um(units / pixels, str(said.get("unit", ""))) if pixels else None
        facts.take_pixel_size(size_um, f"ImageJ's description in {name}")


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if number > 0 and number < float("inf") else None


SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_MOST_CHANNELS = 8


class TiffReader(MovieReader):
    """One TIFF with many frames; read page by page, or straight from its place where pages are contiguous."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tif = _open(path)
        try:
            with _quiet():
                self._look()
        except BadInput:
            self.close()
            raise
        except Exception as error:  # tifffile raises many kinds for a damaged file
            self.close()
            raise BadInput(_unreadable(path, error)) from error

    def frames(self) -> Iterator[RawFrame]:
        for place in range(self.facts.n_frames):
            yield RawFrame(place, None, self._frame(place))

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            yield self._frame(place)

    def close(self) -> None:
        self._tif.close()

    def _look(self) -> None:
        name, tif = self._path.name, self._tif
        whole = chain_is_whole(self._path)
        series = _series(tif, name)
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
        there = self._frames_there(frames)
        # Only a description that counts the frames makes up for a list of them that breaks off.
        counted = self._offset is not None and (tif.is_imagej or tif.is_shaped)
        self.facts = FileFacts(frames, inverted=keyframe.photometric == 0, format=f"TIFF {self._dtype.name}")
        if there < frames or not (whole or counted):
            said = f"it promises {frames} frames and" if there < frames else "its list of frames breaks off,"
            read_metadata(tif, self.facts, name)
            raise BadInput(
                f"{name} is cut short: {said} {there} {'is' if there == 1 else 'are'} whole; "
                f"record it again, copy it again from where it was made{self._how_to_keep(there)}"
            )
        if not whole:
            self.facts.warnings.append(
                f"{name} is cut short after its last frame: all {frames} frames are read."
            )
        if keyframe.photometric == 3:
            self.facts.warnings.append(
                f"{name} has a colour table, which is left out: its stored values are the grey."
            )
        read_metadata(tif, self.facts, name)

    def _frames_there(self, promised: int) -> int:
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

    def _how_to_keep(self, there: int) -> str:
        """Return the rest of a sentence: the command that saves the whole frames of a cut file."""
        if there < 2:
            return "."
        if self._offset is None:
            needed, frames = "", f"imread({self._path.name!r}, key=range({there}))"
        else:
            stored = self._dtype.newbyteorder(self._tif.byteorder).str
            shape = (there, *self._shape)
            needed = "import numpy; "
            frames = f"numpy.memmap({self._path.name!r}, {stored!r}, 'r', {self._offset}, {shape})"
        known = {"fps": self.facts.fps, "pixel_size_um": self.facts.pixel_size_um}
        said = {name: value for name, value in known.items() if value is not None}
        photometric = int(self._photometric)
        colours = f", photometric={photometric}" if photometric in (0, 1, 2) else ""
        return (
            f', or keep those with: python -c "{needed}from tifffile import *; '
            f"imwrite('whole.tif', {frames}{colours}, metadata={said})\""
        )

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
        inverted = False
        self.facts = FileFacts(len(self._files), format="folder of TIFFs")
        for file in self._files:
            with _open(file) as tif:
                page = tif.pages.first
                if len(tif.pages) > 1:
                    raise BadInput(
                        f"{folder.name}/{file.name} holds several frames; give that file, not its folder."
                    )
                if (
                    max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
                    > tif.filehandle.size
                ):
                    raise BadInput(
                        f"{folder.name}/{file.name} is cut short; record it again, or take it out."
                    )
                kind = (page.shape, page.dtype)
                if first is None:
                    first, inverted = kind, page.photometric == 0
                    read_metadata(tif, self.facts, file.name)
                elif kind != first:
                    raise BadInput(
                        f"{folder.name} holds frames that differ: {self._files[0].name} is {_say(*first)}, "
                        f"{file.name} is {_say(*kind)}; give a folder with one movie in it."
                    )
        self.facts.inverted = inverted

    def frames(self) -> Iterator[RawFrame]:
        for place, image in enumerate(self.at(range(len(self._files)))):
            yield RawFrame(place, None, image)

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            with tifffile.TiffFile(self._files[place]) as tif:
                page = tif.pages.first
                yield _channels_last(page.asarray(), page.shape)

    def close(self) -> None:
        """Nothing is held open between frames."""


def open_tiff_folder(folder: Path) -> MovieReader:
    """Return a reader for a folder of TIFFs; a folder with one stack in it is that stack."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise BadInput(f"{folder.name} holds no TIFF frames, Zarr or session; give a movie.")
    return TiffReader(files[0]) if len(files) == 1 else TiffFolderReader(folder, files)


def _open(path: Path) -> tifffile.TiffFile:
    try:
        with _quiet():
            return tifffile.TiffFile(path)
    except Exception as error:
        raise BadInput(_unreadable(path, error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's log still: what it tells of a damaged file there is said here in one sentence."""
    log = logging.getLogger("tifffile")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path.name} cannot be read as a TIFF ({in_a_line(error)}); record or export it again."


def _pages_found(tif: tifffile.TiffFile) -> list[Any]:
    """Return the pages up to where the list of them breaks off."""
    pages: list[Any] = []
    with contextlib.suppress(Exception):  # tifffile raises many kinds at the break
        for page in tif.pages:
            pages.append(page)
    return pages


def _series(tif: tifffile.TiffFile, name: str) -> list[Any]:
    """Return the series that make up the movie: the first, or all where a writer made one a frame."""
    series = list(tif.series)
    if not series:
        raise BadInput(f"{name} is empty: it has no frames.")
    if len(series) == 1 or tif.is_ome or tif.is_imagej:
        return series[:1]
    kinds = {(s.keyframe.shape, s.keyframe.dtype) for s in series}
    if len(kinds) > 1:
        sizes = " and ".join(sorted(_say(*kind) for kind in kinds)[:2])
        raise BadInput(f"{name} holds frames that differ ({sizes}); give a movie whose frames are all alike.")
    return series


def _frames_of(series: Any, name: str) -> int:
    """Count frames: all axes but the frame's own, of which at most one may be longer than 1."""
    own = len(series.keyframe.shape)
    shape, axes = series.shape[:-own], series.axes[:-own]
    long = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n > 1]
    # Writers that know nothing of time call the frames channels; no camera has so many of those.
    if len(long) > 1 or any(axis == "S" or (axis == "C" and n <= _MOST_CHANNELS) for axis, n in long):
        said = ", ".join(f"{axis}: {n}" for axis, n in long)
        raise BadInput(
            f"{name} has more than frames in it ({said}); export one channel and one plane over time."
        )
    return math.prod(shape)


def _channels_last(image: Raw, shape: tuple[int, ...]) -> Raw:
    planar = image.ndim == 3 and shape[0] <= 4 < shape[2]
    return np.moveaxis(image, 0, 2) if planar else image


def _say(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{' x '.join(map(str, shape))} {dtype}"


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(p), p) if p.isdigit() else (1, 0, p) for p in parts]
