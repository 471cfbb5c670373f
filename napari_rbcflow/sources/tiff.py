"""TIFF stacks, OME-TIFF and the like, and sets of several files, through tifffile."""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import MOST_PIXELS, in_a_line
from napari_rbcflow.sources.compression import image_is_lossless
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, choose_series
from napari_rbcflow.sources.tiff_metadata import Ome, number, opened, read_metadata


def chain_is_whole(path: Path) -> bool:
    """Follow the chain of image directories; False where it leaves the file, where tifffile just stops.

    BadInput where it comes back to itself.
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
            if seen > size // entry:  # in a circle, in which tifffile would go round and round
                raise BadInput("sources.tiff-unreadable", name=path.name, why=say("sources.tiff-circle"))
            if place + count_size > size:
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
    return int(number((tif.imagej_metadata or {}).get("images")) or 0) if tif.is_imagej else 0


def frames_described(tif: tifffile.TiffFile) -> int:
    """Return how many frames tifffile's own description promises; 0 where it does not cover all."""
    described = tif.shaped_metadata if tif.is_shaped else None
    shape = described[0].get("shape", ()) if described and len(described) == 1 else ()
    page = tif.pages.first.shape
    return math.prod(shape[: -len(page)]) if tuple(shape[-len(page) :]) == tuple(page) else 0


SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".stk")
_MOST_CHANNELS = 8
_MOST_FRAMES = 10_000_000  # two days at 60 frames/s: more are promised by damage alone


class Stack(NamedTuple):
    """One of the movies in a file or set: its frames as pages, in the order of time, or where they begin."""

    title: str
    keyframe: Any
    pages: list[Any]  # empty where the frames lie in a row: then no page is needed
    offset: int  # of the first of those
    rows: list[int]  # of the frames, among these
    image: int = 0  # of the OME description
    at: Mapping[str, int] = {}  # where it is on the axes other than time

    @property
    def frames(self) -> list[Any]:
        """Its pages alone, None for one that is not there; empty where the frames lie in a row."""
        return [self.pages[row] for row in self.rows] if self.pages else []


class TiffReader(MovieReader):
    """One TIFF with many frames, or the set of files that it belongs to.

    Frames are read page by page, or by their places where they are contiguous. Of a
    set with a file for each position the file that was given is meant, if `file_chooses`.
    """

    def __init__(self, path: Path, series: int | None = None, *, file_chooses: bool = True) -> None:
        self._path = path
        self._tif, ome = _open_set(path)
        try:
            with quiet(), warnings.catch_warnings(action="ignore"):
                self._look(ome, series, file_chooses)
        except BadInput:
            self.close()
            raise
        except Exception as error:  # tifffile raises many kinds for a damaged file
            self.close()
            raise BadInput("sources.tiff-unreadable", name=path.name, why=in_a_line(error)) from error

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            with quiet():
                image = self._frame(place)
            yield image

    def close(self) -> None:
        self._tif.close()

    def _look(self, ome: Ome, series: int | None, file_chooses: bool) -> None:
        name, tif = self._path.name, self._tif
        whole = chain_is_whole(Path(tif.filehandle.path))
        check_shape(name, tif.pages.first.shape)  # of a width below 0, tifffile counts for ever
        if ome.most_frames() > _MOST_FRAMES:  # for which tifffile would take memory
            raise BadInput("sources.too-many-frames", name=name, frames=ome.most_frames())
        stacks = _stacks(tif, name, ome, whole)
        mine = [
            k
            for k, one in enumerate(stacks)
            if (any(_file_of(page) == name for page in one.frames) if one.pages else tif.filename == name)
        ]
        if series is None and file_chooses and len(mine) == 1:
            series = mine[0]
        if not stacks:
            raise BadInput("sources.no-frames", name=name)
        stack = stacks[choose_series(name, [one.title for one in stacks], series)]
        keyframe = stack.keyframe
        self._shape, self._dtype = keyframe.shape, keyframe.dtype
        self._photometric, self._offset, self._rows = keyframe.photometric, stack.offset, stack.rows
        check_shape(name, self._shape)
        check_samples(name, keyframe)
        self._pages = stack.frames
        self.may_be_part = not (tif.is_micromanager or any(ome.files()))
        if ome.readable and len(ome.files()) > stack.image:
            self._refuse_missing(ome.files()[stack.image])
        if tif.is_micromanager:
            _refuse_parts(self._path, {name, *(_file_of(page) for one in stacks for page in one.pages)})
        places = [place for place, page in enumerate(self._pages) if page is not None]
        stopped = tif.is_micromanager and len(places) < len(self._pages)
        if stopped:  # it describes what was asked for, and the acquisition was stopped
            self._pages = [page for page in self._pages if page is not None]
        frames = len(self._pages or self._rows)
        if not self._pages or len(stacks) == 1:
            frames = max(frames, frames_promised(tif) if len(stacks) == 1 else 0)
        if not whole and self._pages:
            frames = max(frames, frames_described(tif))
        self._frame_bytes: int = math.prod(self._shape) * self._dtype.itemsize
        there = self._whole_frames(frames)
        # Only a description that counts the frames makes up for a list of them that breaks off.
        counted = not self._pages and (tif.is_imagej or tif.is_shaped or tif.is_stk)
        self.facts = FileFacts(frames, inverted=keyframe.photometric == 0, format=f"TIFF {self._dtype.name}")
        if there < frames or not (whole or counted):
            read_metadata(tif, self.facts, name, ome=ome)
            remedy = self._remedy(there)
            if there < frames:
                raise BadInput(
                    "sources.cut-short-of-promise", name=name, frames=frames, whole=there, remedy=remedy
                )
            raise BadInput("sources.cut-in-list", name=name, whole=there, remedy=remedy)
        if not whole:
            self.facts.warnings.append(say("sources.tiff-cut-after-frames", name=name, frames=frames))
        if stopped and places:
            self.facts.take_places([place - places[0] for place in places])
        if tif.is_micromanager:
            summary = (tif.micromanager_metadata or {}).get("Summary") or {}
            meant = int(number(summary.get("Frames")) or 0)
            if meant > (places[-1] + 1 if places else frames):
                self.facts.warnings.append(
                    say("sources.stopped-early", name=name, frames=meant, there=frames)
                )
        self._colours = None
        if keyframe.photometric == 3:
            self._colours = colour_table(keyframe, tif.is_imagej)
            if self._colours is None:
                self.facts.warnings.append(say("sources.tiff-colour-table", name=name))
        self.facts.lossy_codec = lossy_in(keyframe)
        read_metadata(
            tif, self.facts, name, ome=ome, image=stack.image, at=stack.at, pages=self._pages or tif.pages
        )

    def _refuse_missing(self, files: Sequence[str]) -> None:
        folder = self._path.parent
        missing = [name for name in files if not (folder / name).is_file()]
        # A file that has got another name describes itself by the old one.
        if missing and (len(files) > 1 or any(page is None for page in self._pages)):
            raise BadInput("sources.set-file-missing", name=self._path.name, missing=", ".join(missing[:3]))

    def _whole_frames(self, promised: int) -> int:
        if not self._pages:
            last = max(self._rows) + 1 if self._rows else promised
            at_end = (int(self._tif.filehandle.size) - self._offset) // self._frame_bytes
            return promised if at_end >= max(last, promised) else min(promised, at_end)
        for place, page in enumerate(self._pages[:promised]):
            if page is None or not page.dataoffsets:
                return place
            last = max(range(len(page.dataoffsets)), key=page.dataoffsets.__getitem__)
            if page.dataoffsets[last] + page.databytecounts[last] > page.parent.filehandle.size:
                return place
        return min(promised, len(self._pages))

    def _remedy(self, there: int) -> str:
        """Return what to do about a cut file, with the command that saves its whole frames."""
        if there < 2:
            return say("sources.record-or-copy")
        if self._pages:
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
        if self._pages:
            page = self._pages[place]
            with opened(page):
                stored = page.asarray()
        else:
            handle = self._tif.filehandle
            handle.seek(self._offset + self._rows[place] * self._frame_bytes)
            kind = self._dtype.newbyteorder(self._tif.byteorder)
            stored = handle.read_array(kind, math.prod(self._shape)).reshape(self._shape)
        if stored.shape != tuple(self._shape):
            raise ValueError(say("sources.shape-of-another", shape=" x ".join(map(str, stored.shape))))
        if self._colours is not None:
            stored = self._colours[np.minimum(stored, len(self._colours) - 1)]
        return channels_last(stored)


def is_tiff(path: Path) -> bool:
    """Tell a TIFF by how it begins, whatever its name."""
    with path.open("rb", buffering=0) as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


_LOSSY = {
    tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.ALT_JPEG,
    tifffile.COMPRESSION.APERIO_JP2000_YCBC, tifffile.COMPRESSION.APERIO_JP2000_RGB,
    tifffile.COMPRESSION.JPEG2000, tifffile.COMPRESSION.JPEG_2000_LOSSY, tifffile.COMPRESSION.WEBP,
    tifffile.COMPRESSION.JPEGXL, tifffile.COMPRESSION.JPEGXL_DNG, tifffile.COMPRESSION.JPEGXR,
    tifffile.COMPRESSION.JPEGXR_NDPI, tifffile.COMPRESSION.LERC, tifffile.COMPRESSION.JPEG_LOSSY,
}  # fmt: skip

_LERC_PARAMETERS = 50674  # version, and what it was compressed by in its turn


def lossy_in(page: Any) -> str:
    """Return the name of a page's compression if it threw part of the picture away; else nothing."""
    if page.compression not in _LOSSY or not page.dataoffsets:
        return ""
    with opened(page):
        handle = page.parent.filehandle
        handle.seek(page.dataoffsets[0])
        data = handle.read(page.databytecounts[0])
    squeezed = page.tags.valueof(_LERC_PARAMETERS, (0, 0))[1]
    if squeezed:
        data = (zlib.decompress if squeezed == 1 else imagecodecs.zstd_decode)(data)
    if image_is_lossless(data):
        return ""
    name = str(tifffile.COMPRESSION(page.compression).name).lower()
    return say("sources.codec-unsure", codec=name) if name.startswith("jpegxr") else name


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Refuse frames that are no pictures, or larger than any camera's."""
    text = " x ".join(map(str, shape))
    if len(shape) not in (2, 3) or min(shape) <= 0:
        raise BadInput("sources.tiff-wrong-shape", name=name, shape=text)
    if math.prod(sorted(shape)[-2:]) > MOST_PIXELS:
        raise BadInput("sources.frames-too-large", name=name, size=text)


_ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
_PLAIN = {
    tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.LINEAR_RAW,
}  # fmt: skip


def check_samples(name: str, page: Any) -> None:
    """Refuse pixels that are neither grey nor red, green and blue, with or without alpha, when decoded."""
    kind, values, extra = page.photometric, page.samplesperpixel, page.extrasamples
    if kind in _PLAIN:
        good = values == 1 or (values == 2 and set(extra) <= _ALPHA and bool(extra))
    elif kind == tifffile.PHOTOMETRIC.RGB:
        good = values in (3, 4)
    else:  # what compresses colours decodes them to red, green and blue
        good = kind == tifffile.PHOTOMETRIC.YCBCR and page.compression in _LOSSY
    if not good:
        text = getattr(kind, "name", str(kind)).lower()
        raise BadInput("sources.tiff-samples", name=name, n=values, kind=text)


def _open_set(path: Path) -> tuple[tifffile.TiffFile, Ome]:
    """Open a TIFF, or the file that describes the set that it belongs to, with the OME description."""
    tif = open_tiff(path)
    with quiet():
        ome = Ome(tif.ome_metadata if tif.is_ome else None)
    if not ome.described_in:
        return tif, ome
    tif.close()
    described = path.parent / Path(ome.described_in).name
    if not described.is_file():
        raise BadInput("sources.set-file-missing", name=path.name, missing=described.name)
    if is_tiff(described):
        tif = open_tiff(described)
        with quiet():
            return tif, Ome(tif.ome_metadata)
    xml = described.read_text("utf-8", "replace")  # a companion
    return open_tiff(path, omexml=xml), Ome(xml)


def files_of_set(path: Path) -> set[str]:
    """Return the names of the files whose frames this one describes."""
    tif, _ = _open_set(path)
    with tif, quiet():
        _check_index(tif, path.name)
        return {_file_of(page) for one in _series(tif) for page in one.pages}


def read_page(path: Path) -> Raw:
    """Return the only frame of a TIFF."""
    with quiet(), tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        image = page.asarray()
        table = colour_table(page, tif.is_imagej) if page.photometric == 3 else None
        return channels_last(image if table is None else table[np.minimum(image, len(table) - 1)])


def colour_table(page: Any, is_imagej: bool) -> Raw | None:
    """Return the grey or the colour, shape (n[, 3]), of each stored value; None: the values are the grey.

    ImageJ's colours are how a grey movie is shown.
    """
    table = page.colormap
    if table is None:
        return None
    colours = np.asarray(table).T
    colours = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
    if (colours == colours[:, :1]).all():
        return np.ascontiguousarray(colours[:, 0])
    return None if is_imagej else colours


def open_tiff(path: Path, **options: Any) -> tifffile.TiffFile:
    """Open a TIFF whose list of directories has an end; BadInput for any other."""
    try:
        with quiet():
            tif = tifffile.TiffFile(path, **options)
            try:
                chain_is_whole(path)
            except BaseException:
                tif.close()
                raise
            return tif
    except (BadInput, OSError):
        raise
    except Exception as error:
        raise BadInput("sources.tiff-unreadable", name=path.name, why=in_a_line(error)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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


def _check_index(tif: tifffile.TiffFile, name: str) -> None:
    """Refuse an index of Micro-Manager's that promises more frames than there can be: all get room."""
    told = tif.micromanager_metadata if tif.is_micromanager else None
    index = (told or {}).get("IndexMap")
    if index is None or not len(index):
        return
    summary = told.get("Summary") if told else None
    found = [int(n) + 1 for n in np.max(index[:, :4], axis=0)]
    for k, key in enumerate(("Channels", "Slices", "Frames", "Positions")):
        promised = summary.get(key) if isinstance(summary, dict) else None
        found[k] = max(found[k], promised if isinstance(promised, int) else 1)
    if math.prod(found) > _MOST_FRAMES:
        raise BadInput("sources.too-many-frames", name=name, frames=math.prod(found))


class _Literal(str):
    """The begin of a file's name, of which nothing is a pattern's where tifffile makes a pattern of it."""

    __slots__ = ()

    def __add__(self, other: str) -> str:
        return glob.escape(str(self)) + other


def _series(tif: tifffile.TiffFile) -> list[Any]:
    """Return the series of a file or set; tifffile looks for Micro-Manager's parts with a pattern."""
    handle, folder = tif.filehandle, tif.filehandle.dirname
    if tif.is_mmstack:
        handle._dir = glob.escape(folder)  # it may hold brackets
        summary = (tif.micromanager_metadata or {}).get("Summary")
        if isinstance(summary, dict):  # the files may have got other names
            summary["Prefix"] = _Literal(tif.filename.partition("_MMStack")[0])
    try:
        return list(tif.series)
    finally:
        handle._dir = folder


def _stacks(tif: tifffile.TiffFile, name: str, ome: Ome, whole: bool) -> list[Stack]:
    """Return the movies in a file or set: its series, and in each what lies beside time (C, Z, positions)."""
    _check_index(tif, name)
    series = [one for k, one in enumerate(_series(tif)) if k == 0 or not one.keyframe.is_reduced]
    if not series:
        raise BadInput("sources.no-frames", name=name)
    first = series[0]
    if not whole and (len(series) > 1 or first.dataoffset is None):
        pages = _pages_found(tif)  # of a list that breaks off, series promise what is not there
        return [Stack("", pages[0].keyframe if pages else first.keyframe, pages, 0, list(range(len(pages))))]
    frames = [math.prod(one.shape) // max(1, math.prod(one.keyframe.shape)) for one in series]
    if len(series) > 1 and max(frames) == 1:  # a writer made a series of each frame
        kinds = {(one.keyframe.shape, one.keyframe.dtype) for one in series}
        if len(kinds) > 1:
            kind, other, *_ = sorted(_kind_text(*kind) for kind in kinds)
            raise BadInput("sources.tiff-frames-differ", name=name, first=kind, second=other)
        pages = [page for one in series for page in one.pages]
        title = say("sources.title-tiff", frames=len(pages), kind=_kind_text(*kinds.pop()))
        return [Stack(title, first.keyframe, pages, 0, list(range(len(pages))))]
    # Of images whose files are all elsewhere there is no series.
    folder = Path(tif.filehandle.path).parent
    there = [
        k
        for k, files in enumerate(ome.files())
        if not files or any((folder / file).is_file() for file in files)
    ]
    images = there if len(there) == len(series) else list(range(len(series)))
    return [stack for image, one in zip(images, series, strict=True) for stack in _split(one, name, image)]


def _split(series: Any, name: str, image: int) -> Iterator[Stack]:
    """Yield the movies in a series: one for each place on every axis but the frame's own and time."""
    own = len(series.keyframe.shape)
    shape, axes = series.shape[:-own], series.axes[:-own]
    long = [(k, axis, n) for k, (axis, n) in enumerate(zip(axes, shape, strict=True)) if n > 1]
    time = next((k for axis in "TIQZ" for k, a, _ in long if a == axis), None)
    if time is None and len(long) == 1 and (long[0][1] != "C" or long[0][2] > _MOST_CHANNELS):
        # Writers that know nothing of time call the frames channels; no camera has so many of those.
        time = long[0][0]
    others = [one for one in long if one[0] != time]
    if (long and time is None) or any(axis == "S" for _, axis, _ in long):
        raise BadInput("sources.too-many-axes", name=name, axes=", ".join(f"{a}: {n}" for _, a, n in long))
    if math.prod(shape) > _MOST_FRAMES:
        raise BadInput("sources.too-many-frames", name=name, frames=math.prod(shape))
    rows = np.arange(math.prod(shape)).reshape(shape)
    kind = _kind_text(series.keyframe.shape, series.dtype)
    contiguous = series.dataoffset is not None and not series.is_multifile
    offset = int(series.dataoffset) if contiguous else 0
    pages = [] if contiguous else list(series.pages)
    pages += [None] * (rows.size - len(pages) if pages else 0)
    there = np.unravel_index([k for k, page in enumerate(pages) if page is not None], shape) if pages else ()
    for at in itertools.product(*(sorted(set(there[k])) if pages else range(n) for k, _, n in others)):
        where = dict(zip((k for k, _, _ in others), map(int, at), strict=True))
        chosen = rows[tuple(where.get(k, slice(None)) for k in range(len(shape)))].ravel().tolist()
        frames = sum(pages[row] is not None for row in chosen) if pages else len(chosen)
        if not frames:
            continue
        title = say("sources.title-tiff", frames=frames, kind=kind)
        named = {axes[k]: place for k, place in where.items()}
        title = " ".join([title, series.name, *(f"{axis}{place}" for axis, place in named.items())]).strip()
        yield Stack(title, series.keyframe, pages, offset, chosen, image, named)


_PART = re.compile(r"(?P<stem>.*_MMStack.*?)(_(?P<part>[1-9]\d*))?(?P<ending>(\.ome)?\.tiff?)", re.IGNORECASE)


def _refuse_parts(path: Path, used: set[str]) -> None:
    """Refuse a part of what Micro-Manager split, where another is missing, or was not found by tifffile."""
    mine = _PART.fullmatch(path.name)
    if mine is None:
        return
    parts: dict[int, str] = {}
    for file in path.parent.iterdir():
        other = _PART.fullmatch(file.name)
        if other is not None and other["stem"] == mine["stem"]:
            parts[int(other["part"] or 0)] = file.name
    missing = next((k for k in range(max(parts)) if k not in parts), None)
    if missing is not None:
        file_name = f"{mine['stem']}{f'_{missing}' if missing else ''}{mine['ending']}"
        raise BadInput("sources.set-file-missing", name=path.name, missing=file_name)
    if left := sorted(set(parts.values()) - used):
        raise BadInput("sources.set-not-joined", name=path.name, other=left[0])


def _file_of(page: Any) -> str:
    return "" if page is None else str(page.parent.filename)


def channels_last(image: Raw) -> Raw:
    """Return a picture whose colours lie in planes as (height, width, channels)."""
    planar = image.ndim == 3 and image.shape[0] <= 4 < image.shape[2]
    return np.moveaxis(image, 0, 2) if planar else image


def _kind_text(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{' x '.join(map(str, shape))} {dtype}"
