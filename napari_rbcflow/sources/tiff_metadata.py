"""What a TIFF says of its frames beside their pixels: rate, size, times, and the files of a set.

The frames' own times go before an interval that was asked for. How fast ImageJ plays a movie, and a scale of
exactly 1 that a program wrote because nobody gave it one, are not believed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_rbcflow.sentences import say
from napari_rbcflow.sources.movie_reader import FileFacts, in_s
from napari_rbcflow.types import SIMULATED_MARK

MM_TAG = 51123  # where Micro-Manager keeps what it knows of a frame, as JSON


class Ome:
    """The OME description of a movie or a set of several files; empty where there is none."""

    def __init__(self, xml: str | None) -> None:
        self.readable = True
        self.described_in = ""  # the file of the set that holds the description, where it is not this one
        self._images: list[ElementTree.Element] = []
        self._uuid: str | None = None
        try:
            root = ElementTree.fromstring(xml) if xml else None
        except ElementTree.ParseError:
            self.readable, root = False, None
        if root is None:
            return
        self._uuid = root.get("UUID")
        for element in root:
            if _is(element, "BinaryOnly"):
                self.described_in = element.get("MetadataFile", "")
            elif _is(element, "Image"):
                self._images += [pixels for pixels in element if _is(pixels, "Pixels")][:1]

    def files(self) -> list[list[str]]:
        """Return the names of the files of each image but this one's own, which may have got another name."""
        found: list[list[str]] = []
        for pixels in self._images:
            ids = [uuid for data in pixels if _is(data, "TiffData") for uuid in data if _is(uuid, "UUID")]
            found.append(
                sorted(
                    {
                        str(one.get("FileName"))
                        for one in ids
                        if one.text != self._uuid and one.get("FileName")
                    }
                )
            )
        return found

    def most_frames(self) -> int:
        """Return how many frames the largest image says that it has."""
        sizes = [[number(one.get(f"Size{axis}")) or 1 for axis in "TZC"] for one in self._images]
        return int(max((math.prod(size) for size in sizes), default=0))

    def pixels(self, image: int) -> ElementTree.Element | None:
        """Return what is said of one image."""
        return self._images[image] if image < len(self._images) else None


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def read_metadata(
    tif: tifffile.TiffFile,
    facts: FileFacts,
    name: str,
    *,
    ome: Ome | None = None,
    image: int = 0,
    at: Mapping[str, int] | None = None,
    pages: Sequence[Any] = (),
) -> None:
    """Take frame rate, pixel size and the frames' times from whatever describes this TIFF.

    `image` is that of the OME description, `at` where on axes other than time (C, Z) the frames are, and
    `pages` holds a page a frame, for what Micro-Manager says of each.
    """
    if ome is None and tif.is_ome:
        ome = Ome(tif.ome_metadata)
    if ome is not None:
        _from_ome(ome, facts, name, image, at or {})
    if tif.is_micromanager:
        if not facts.timed:
            take_elapsed([mm_of(page) for page in pages], facts, name)
        take_summary((tif.micromanager_metadata or {}).get("Summary"), facts, name)
    if tif.is_imagej:
        _from_imagej(tif, facts, name)
    if tif.is_stk:
        _from_stk(tif.stk_metadata, facts, name)
    if tif.is_lsm:
        _from_lsm(tif.lsm_metadata, facts, name)
    if tif.is_shaped and tif.shaped_metadata:
        described = tif.shaped_metadata[0]
        if facts.fps is None:
            facts.take_fps(number(described.get("fps")), name)
        if facts.pixel_size_um is None:
            facts.take_pixel_size(number(described.get("pixel_size_um")), name)
        facts.simulated |= described.get(SIMULATED_MARK) is True


def _from_ome(ome: Ome, facts: FileFacts, name: str, image: int, at: Mapping[str, int]) -> None:
    if not ome.readable:
        facts.warnings.append(say("sources.ome-unreadable", name=name))
    pixels = ome.pixels(image)
    if pixels is None:
        return
    origin = say("sources.origin-ome", name=name)
    _take_deltas(pixels, facts, origin, at)
    facts.take_interval(number(pixels.get("TimeIncrement")), pixels.get("TimeIncrementUnit", "s"), origin)
    facts.take_step(
        number(pixels.get("PhysicalSizeX")), pixels.get("PhysicalSizeXUnit", "µm"), origin,
        high=number(pixels.get("PhysicalSizeY")), high_unit=pixels.get("PhysicalSizeYUnit", "µm"),
    )  # fmt: skip


def _take_deltas(pixels: ElementTree.Element, facts: FileFacts, origin: str, at: Mapping[str, int]) -> None:
    told: dict[int, float] = {}
    unit = "s"
    for plane in (element for element in pixels if _is(element, "Plane")):
        try:
            here = all(int(plane.get(f"The{axis}", 0)) == at.get(axis, 0) for axis in "CZ")
            if here and plane.get("DeltaT") is not None:
                told.setdefault(int(plane.get("TheT", 0)), float(plane.get("DeltaT", "nan")))
                unit = plane.get("DeltaTUnit", "s")
        except ValueError:
            return
    second, known = in_s(1.0, unit), len(set(told) & set(range(facts.n_frames)))
    if second and known == facts.n_frames:
        facts.take_times([second * told[t] for t in range(known)], origin)
    elif known > 1:
        facts.warnings.append(
            say("sources.times-incomplete", origin=origin, known=known, frames=facts.n_frames)
        )


def take_summary(summary: object, facts: FileFacts, name: str) -> None:
    """Take pixel size and interval from Micro-Manager's summary; the interval is what was asked for."""
    if not isinstance(summary, Mapping):
        return
    origin = say("sources.origin-micro-manager", name=name)
    if facts.pixel_size_um is None:
        facts.take_step(number(summary.get("PixelSize_um", summary.get("PixelSizeUm"))), "µm", origin)
    if facts.fps is None or facts.timed:
        facts.take_interval(number(summary.get("Interval_ms")), "ms", origin)


def take_elapsed(
    told: Sequence[Mapping[str, Any] | None],
    facts: FileFacts,
    name: str,
    numbers: Sequence[int] | None = None,
) -> None:
    """Take the frames' times from what Micro-Manager says of each."""
    times = [number(one.get("ElapsedTime-ms"), least=-1.0) if one else None for one in told]
    known = [time / 1000 for time in times if time is not None]
    origin = say("sources.origin-micro-manager", name=name)
    if known and len(known) < facts.n_frames:
        facts.warnings.append(
            say("sources.times-incomplete", origin=origin, known=len(known), frames=facts.n_frames)
        )
    elif len(known) == facts.n_frames:
        facts.take_times(known, origin, numbers)


@contextlib.contextmanager
def opened(page: Any) -> Iterator[None]:
    """Open the file of a page, in a set of which tifffile keeps one open."""
    handle = page.parent.filehandle
    if not handle.closed:
        yield
        return
    handle.open()
    try:
        yield
    finally:
        handle.close()


def mm_of(page: Any) -> Mapping[str, Any] | None:
    """Return what Micro-Manager says of a page; None where it says nothing that can be read."""
    try:
        with opened(page):
            tags = getattr(page, "tags", None)
            told = (page.aspage().tags if tags is None else tags).valueof(MM_TAG)
    except Exception:  # tifffile raises many kinds for damaged tags
        return None
    return told if isinstance(told, Mapping) else None


def _from_imagej(tif: tifffile.TiffFile, facts: FileFacts, name: str) -> None:
    described = tif.imagej_metadata or {}
    origin = say("sources.origin-imagej", name=name)
    if facts.fps is None:
        interval, played = number(described.get("finterval")), number(described.get("fps"))
        if interval is None and played is not None:
            facts.warnings.append(say("sources.playback-speed", origin=origin, fps=played))
        facts.take_interval(interval, str(described.get("tunit", "s")), origin)
    if facts.pixel_size_um is None:
        wide, high = (_per_pixel(tif.pages.first.tags.valueof(f"{axis}Resolution")) for axis in "XY")
        facts.take_step(wide, str(described.get("unit", "")), origin, high=high)


def _per_pixel(resolution: tuple[int, int] | None) -> float | None:
    pixels, units = resolution or (0, 0)
    return units / pixels if pixels else None


def _from_stk(described: Mapping[str, Any] | None, facts: FileFacts, name: str) -> None:
    described = described or {}
    origin = say("sources.origin-metamorph", name=name)
    facts.take_step(
        number(described.get("XCalibration")), str(described.get("CalibrationUnits", "")), origin,
        high=number(described.get("YCalibration")),
    )  # fmt: skip
    created = described.get("DatetimeCreated")
    if created is not None and len(created) == facts.n_frames:
        times = [_seconds(moment) for moment in created]
        if None not in times:
            facts.take_times([time for time in times if time is not None], origin)


def _from_lsm(described: Mapping[str, Any] | None, facts: FileFacts, name: str) -> None:
    described = described or {}
    origin = say("sources.origin-lsm", name=name)
    high = number(described.get("VoxelSizeY"))
    facts.take_step(number(described.get("VoxelSizeX")), "m", origin, high=high)
    times = described.get("TimeStamps")
    if times is not None and len(times) == facts.n_frames:
        facts.take_times([float(time) for time in times], origin)
    facts.take_interval(number(described.get("TimeIntervall")), "s", origin)


def _seconds(moment: object) -> float | None:
    if isinstance(moment, datetime):
        return moment.timestamp()
    return (
        float(moment.astype("M8[us]").astype(np.int64)) / 1e6 if isinstance(moment, np.datetime64) else None
    )


def number(value: object, least: float = 0.0) -> float | None:
    """Return a finite number above `least` that metadata give in whatever way; None for anything else."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if least < found < float("inf") else None
