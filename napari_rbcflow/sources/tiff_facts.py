"""What a TIFF file says of itself: whether it is whole, its frame rate and its pixel size."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from napari_rbcflow.sources.movie_reader import FileFacts, in_s, in_um


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
