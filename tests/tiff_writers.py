"""What tifffile does not write: Micro-Manager's sets, OME's times, MetaMorph's and Zeiss' stacks."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile


def two_positions(path: Path, frames: np.ndarray) -> Path:
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(frames, metadata={"axes": "TYX"})
        tif.write(frames[::-1], metadata={"axes": "TYX"})
    return path


def metadata_txt(folder: Path, times_ms: Iterable[float]) -> Path:
    told: dict[str, Any] = {"Summary": {"PixelSize_um": 0.32, "Interval_ms": 1.0}}
    for name, time_ms in zip(sorted(p.name for p in folder.iterdir()), times_ms, strict=True):
        told[f"Metadata-Default/{name}"] = {"ElapsedTime-ms": time_ms}
    (folder / "metadata.txt").write_text(json.dumps(told))
    return folder


def ome_file(path: Path, frames: np.ndarray, said: str = "", planes: str = "") -> Path:
    n, height, width = frames.shape
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="1" SizeC="1" SizeT="{n}" {said}><Channel ID="C:0" SamplesPerPixel="1"/>'
        f'<TiffData IFD="0" PlaneCount="{n}"/>{planes}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path) as tif:
        for k, frame in enumerate(frames):
            tif.write(frame, contiguous=False, description=xml.encode() if k == 0 else None, metadata=None)
    return path


def mm_stack(path: Path, planes: Iterable[tuple[int, int, np.ndarray]], **summary: int) -> Path:
    """A file of Micro-Manager's: its summary, its planes (frame, position, image), their index."""
    said = json.dumps(
        {"MicroManagerVersion": "2.0", "Prefix": "run", "PixelSize_um": 0.32, **summary}
    ).encode()
    out, index, last = bytearray(40) + said, b"", 4
    for t, position, image in planes:
        out += b"\0" * (len(out) % 2)
        at, (height, width) = len(out), image.shape
        struct.pack_into("<I", out, last, at)
        meta = json.dumps({"ElapsedTime-ms": 20.0 * t}).encode()
        data = at + 162
        tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
        tags += [(273, 4, 1, data), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, image.nbytes)]
        tags += [(51123, 2, len(meta), data + image.nbytes)]
        directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        last = at + len(directory)
        out += directory.ljust(162, b"\0") + image.tobytes() + meta
        index += struct.pack("<5I", 0, 0, t, position, at)
    out += b"\0" * (len(out) % 2)
    struct.pack_into("<2sH", out, 0, b"II", 42)
    struct.pack_into(
        "<8I", out, 8, 54773648, len(out), 483765892, len(out), 99384722, len(out), 2355492, len(said)
    )
    path.write_bytes(out + struct.pack("<II", 3453623, len(index) // 20) + index)
    return path


def nd_tiff(folder: Path, axes: Iterable[dict[str, Any]], frames: np.ndarray) -> Path:
    """A dataset of 8-bit frames as Pycro-Manager writes it, whose TIFF says 16 bit."""
    folder.mkdir()
    data, index = bytearray(), b""
    tifffile.imwrite(folder / "x_NDTiffStack.tif", frames[0, :, :32].copy().view(np.uint16))
    start = (folder / "x_NDTiffStack.tif").stat().st_size
    for at, frame in zip(axes, frames, strict=True):
        where, name = json.dumps(at).encode(), b"x_NDTiffStack.tif"
        meta = json.dumps({"ElapsedTime-ms": 20.0 * at["time"], "PixelSizeUm": 0.32}).encode()
        place = start + len(data)
        index += struct.pack("<I", len(where)) + where + struct.pack("<I", len(name)) + name
        index += struct.pack("<8I", place, *frame.shape[::-1], 0, 0, place + frame.nbytes, len(meta), 0)
        data += frame.tobytes() + meta
    with (folder / "x_NDTiffStack.tif").open("ab") as file:
        file.write(data)
    (folder / "NDTiff.index").write_bytes(index)
    return folder


def stk(path: Path, frames: np.ndarray) -> Path:
    """A stack as MetaMorph writes it: one directory, the planes behind one another, their times in a tag."""
    n, height, width = frames.shape
    times = b"".join(struct.pack("<6I", 0, 1, 2460000, 20 * k, 2460000, 0) for k in range(n))
    name = 8 + 2 + 12 * 11 + 4 + len(times)
    data = name + 16
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, data), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, height * width)]
    tags += [(33628, 4, 1, name), (33629, 5, n, name - len(times))]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + directory + bytes(4)
    path.write_bytes(head + times + struct.pack("<4I", 4, name + 8, 32, 100) + frames.tobytes())
    return path


def lsm(path: Path, frames: np.ndarray) -> Path:
    """A stack as Zeiss writes it: a small copy behind each frame, and its scale in a tag, in m and s."""
    n, height, width = frames.shape
    told = struct.pack(
        "<8i6d2H5Id", width, height, 1, 1, n, 1, 16, 16, *[0.32e-6] * 3, *[0.0] * 3, 3, *[0] * 6, 0.02
    )
    tag = (34412, 1, 8 + len(told), struct.pack("<Ii", 67127628, 8 + len(told)) + told, True)
    with tifffile.TiffWriter(path, byteorder="<") as tif:
        for frame in frames:
            tif.write(frame, extratags=[tag], metadata=None, contiguous=False)
            tif.write(frame[::8, ::8].copy(), subfiletype=1, metadata=None, contiguous=False)
    return path
