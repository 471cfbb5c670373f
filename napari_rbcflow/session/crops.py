"""``crops.zarr``: the raw sequence behind every row of ``cells.csv``.

================== ============== ==========================================================
array              shape          holds
================== ============== ==========================================================
crops              (N, 31, 31)    the tracks' crops one behind the other, in hand-over order
frame              (N,) int64     the crop's frame index
seen               (N,) bool      False: its position was predicted through an overlap
edge               (N,) bool      the crop was cut by the field's edge and replicates it
intruded           (N,) bool      another cell reaches into it
index              (M, 4) int64   one row per track: cell, offset, length, CRC-32C of its crops
================== ============== ==========================================================

The chunks of `crops` are packed without loss once they are full (`growing`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.ring import crc32c, read_json
from napari_rbcflow.session import growing
from napari_rbcflow.session.growing import GrowingArray, chunk_path
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, Track

FORMAT = 2  # in format 1, which can still be read, the chunks of `crops` had no codec
INDEX_COLUMNS = ("cell", "offset", "length", "crc32c")
CROPS_PER_CHUNK = 2048
FLAGS_PER_CHUNK = 16384
TRACKS_PER_CHUNK = 1024
MOST_CROPS = 1_000_000  # of a track: two hours at 139 frames/s


class CropStore:
    """The writing side; one writer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        group = zarr.create_group(
            folder, zarr_format=3, attributes={"rbcflow_crops": FORMAT, "pixel_size_um": CROP_PIXEL_SIZE_UM}
        )

        def grow(
            name: str, dtype: str, item: tuple[int, ...], rows: int, **attributes: object
        ) -> GrowingArray:
            packer = self._packer if name == "crops" else None
            return GrowingArray(group, folder, name, dtype, item, rows, attributes, packer)

        self._packer = growing.Packer()
        self._crops = grow("crops", "uint8", (CROP_SIDE, CROP_SIDE), CROPS_PER_CHUNK)
        self._frame = grow("frame", "<i8", (), FLAGS_PER_CHUNK)
        self._seen = grow("seen", "bool", (), FLAGS_PER_CHUNK)
        self._edge = grow("edge", "bool", (), FLAGS_PER_CHUNK)
        self._intruded = grow("intruded", "bool", (), FLAGS_PER_CHUNK)
        self._index = grow("index", "<i8", (len(INDEX_COLUMNS),), TRACKS_PER_CHUNK, columns=INDEX_COLUMNS)
        self._all = (self._crops, self._frame, self._seen, self._edge, self._intruded, self._index)

    def write(self, tracks: Sequence[Track]) -> None:
        """Write the tracks' crops; without a `commit` the next `write` overwrites them."""
        self._crops.write(np.concatenate([t.crops for t in tracks]))
        self._frame.write(np.concatenate([t.frames for t in tracks]))
        self._seen.write(np.concatenate([t.seen for t in tracks]))
        self._edge.write(np.concatenate([t.edge for t in tracks]))
        self._intruded.write(np.concatenate([t.intruded for t in tracks]))
        lengths = np.array([len(t) for t in tracks])
        offsets = len(self._crops) + np.cumsum(lengths) - lengths
        sums = [crc32c(np.ascontiguousarray(t.crops)) for t in tracks]
        self._index.write(np.column_stack([[t.cell for t in tracks], offsets, lengths, sums]))

    def unsynced(self) -> list[int]:
        """Return the file descriptors to be synced before `commit`."""
        return [handle for array in self._all for handle in array.unsynced()]

    def commit(self, tracks: Sequence[Track]) -> None:
        """Count the tracks that `write` wrote."""
        crops = sum(len(t) for t in tracks)
        for array in self._all:
            array.synced()
            array.advance(len(tracks) if array is self._index else crops)

    def index(self) -> NDArray[np.int64]:
        """Return the index so far, shape (M, 4)."""
        return read_index(self.folder)[: len(self._index)]

    def close(self) -> None:
        """Cut all arrays to what was written."""
        for array in self._all:
            array.close()
        self._packer.close()

    def abandon(self) -> None:
        """Close the files, and no more."""
        for array in self._all:
            array.abandon()
        self._packer.close()


def read_index(folder: Path) -> NDArray[np.int64]:
    """Return the index in ``crops.zarr``, shape (M, 4): `INDEX_COLUMNS`, in hand-over order."""
    array = folder / "index"
    try:
        # Straight from the chunks: after an hour there are hundreds, and a viewer asks often.
        metadata = read_json(array / "zarr.json")
        length = int(metadata["shape"][0])
        per_chunk = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        parts = [np.empty((0, len(INDEX_COLUMNS)), np.int64)]
        for number, path in sorted((int(p.name.split(".")[1]), p) for p in array.glob("c.*")):
            data = np.fromfile(path, "<i8")
            columns = len(INDEX_COLUMNS)
            rows = data[: len(data) // columns * columns].reshape(-1, columns)
            # Rows behind the end were written, but never counted.
            parts.append(rows[: max(0, length - number * per_chunk)])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RunFailed("session.unreadable", path=folder, why=error) from error
    index = np.concatenate(parts)
    return index[index[:, 0] > 0]  # cells are numbered from 1, new chunks are all zeros


@dataclass(frozen=True, eq=False)
class CropSequence:
    """One track's crops and their flags.

    Attributes
    ----------
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
    frame : ndarray of int64, shape (n,)
    seen, edge, intruded : ndarray of bool, shape (n,)
    """

    crops: NDArray[np.uint8]
    frame: NDArray[np.int64]
    seen: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    intruded: NDArray[np.bool_]


class CropReader:
    """The reading side, of what was there when it was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = read_index(folder)
        self._unpacked: tuple[int, bytes] = (-1, b"")

    def sequence(self, cell: int, *, check: bool = True) -> CropSequence:
        """Return a cell's sequence; KeyError if there is none, `RunFailed` if its crops are damaged."""
        at = np.flatnonzero(self.index[:, 0] == int(cell))
        if not len(at):
            raise KeyError(cell)
        # If a cell is there twice (it must not be, and `verify` finds it), the first counts.
        _, offset, length, crc = self.index[int(at[0])].tolist()
        crops = self._crops(offset, length)
        if check and crc32c(crops) != crc:
            raise RunFailed("session.crops-damaged", cell=cell, folder=self.folder)
        flags = [
            np.asarray(self._read(name, "bool", (), FLAGS_PER_CHUNK, offset, length), np.bool_)
            for name in ("seen", "edge", "intruded")
        ]
        frame = np.asarray(self._read("frame", "<i8", (), FLAGS_PER_CHUNK, offset, length), np.int64)
        return CropSequence(crops, frame, *flags)

    def damaged(self) -> list[int]:
        """Return the cells whose crops do not match their checksum."""
        return [
            cell
            for cell, offset, length, crc in self.index.tolist()
            if crc32c(self._crops(offset, length)) != crc
        ]

    def _crops(self, offset: int, length: int) -> NDArray[np.uint8]:
        item = (CROP_SIDE, CROP_SIDE)
        return np.asarray(self._read("crops", "uint8", item, CROPS_PER_CHUNK, offset, length), np.uint8)

    def _read(
        self, name: str, dtype: str, item: tuple[int, ...], per_chunk: int, offset: int, length: int
    ) -> NDArray[Any]:
        """Read rows straight from the chunks: for 33 crops, a hundred times as fast as zarr."""
        if offset < 0 or not 0 <= length <= MOST_CROPS:  # a damaged index: the checksum finds it
            length = 0
        rows: NDArray[Any] = np.zeros((length, *item), np.dtype(dtype))
        row_bytes = rows.dtype.itemsize * math.prod(item)
        done = 0
        while done < length:
            number, inside = divmod(offset + done, per_chunk)
            take = min(length - done, per_chunk - inside)
            path = chunk_path(self.folder / name, number, 1 + len(item))
            try:
                if name == "crops":
                    data = self._of_crops(path, number, inside * row_bytes, take * row_bytes)
                else:
                    data = _part(path, inside * row_bytes, take * row_bytes)
            except OSError:
                data = b""  # zeros, as in zarr; the checksum finds it
            part = np.frombuffer(data[: len(data) // row_bytes * row_bytes], rows.dtype).reshape(-1, *item)
            rows[done : done + len(part)] = part
            done += take
        return rows

    def _of_crops(self, path: Path, number: int, place: int, size: int) -> bytes:
        """Read a part of a chunk of crops: packed, plain, or without a header in an older session."""
        held, data = self._unpacked
        if held != number:
            whole = CROPS_PER_CHUNK * CROP_SIDE**2
            with path.open("rb") as file:
                header = b""
                if os.fstat(file.fileno()).st_size != whole:
                    header = file.read(growing.HEADER_BYTES)
                if not header or growing.is_plain(header):
                    file.seek(len(header) + place)
                    return file.read(size)
                # A full chunk never changes, and the next track is often in it too.
                data = growing.unpack(header + file.read(), whole)
            self._unpacked = number, data
        return data[place : place + size]


def _part(path: Path, place: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(place)
        return file.read(size)
