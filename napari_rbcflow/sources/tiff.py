"""TIFF stacks, OME-TIFF and folders of single TIFF frames, through tifffile."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, RawFrame
from napari_rbcflow.sources.sentences import in_a_line
from napari_rbcflow.sources.tiff_facts import chain_is_whole, frames_described, frames_promised, read_metadata

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
