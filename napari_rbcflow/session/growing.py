"""What grows at its end, durable after every batch: zarr arrays and tables; full chunks are packed."""

from __future__ import annotations

import json
import logging
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from napari_rbcflow.ring import preallocate, rename_over, replace_file, sync_folder, write_all

log = logging.getLogger(__name__)

HEADER_BYTES = 16
_COPIED = 0x2
"""Of the header's flags."""
_LEVEL = 1
"""More packs noise no better, and takes six times as long."""


def codec() -> BloscCodec:
    """Return the codec that both kinds of chunk are of."""
    return BloscCodec(typesize=1, cname="zstd", clevel=_LEVEL, shuffle="noshuffle")


def plain_header(size: int) -> bytes:
    """Return what stands before `size` bytes that lie plain."""
    header = bytes(blosc.compress(bytes(size), b"zstd", 0, 0)[:HEADER_BYTES])
    if not header[2] & _COPIED:
        raise RuntimeError("this numcodecs has no plain buffers: install the one that comes with zarr")
    return header


def is_plain(header: bytes) -> bool:
    """Say whether the bytes behind a header lie plain."""
    return len(header) == HEADER_BYTES and bool(header[2] & _COPIED)


def pack(path: Path) -> None:
    """Put a packed chunk in the place of a plain one, in one step; where it would be no smaller, leave it.

    Raises
    ------
    OSError
        The chunk is then as it was.
    """
    data = path.read_bytes()
    if is_plain(data[:HEADER_BYTES]):
        packed = blosc.compress(memoryview(data)[HEADER_BYTES:], b"zstd", _LEVEL, 0)
        if len(packed) < len(data):
            replace_file(path, packed)


def unpack(data: bytes, size: int) -> bytes:
    """Return the bytes of a chunk, packed or plain; empty where it is damaged."""
    if len(data) < HEADER_BYTES:
        return b""
    told, _, packed = struct.unpack_from("<III", data, 4)
    # The library believes its header: a chunk that was cut would be read beyond its end.
    if told != size or packed != len(data):
        return b""
    try:
        return bytes(blosc.decompress(data))
    except (RuntimeError, ValueError):
        return b""


class Packer:
    """Packs chunks one after the other in a thread of its own, so that whoever writes does not wait."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-pack")

    def pack(self, path: Path) -> None:
        """Pack a chunk that nobody writes to any more, soon."""
        self._thread.submit(self._pack, path)

    def _pack(self, path: Path) -> None:
        try:
            pack(path)
        except OSError as error:
            # A full disk, or on Windows somebody who reads it. It is whole as it is.
            log.info("%s stays as it is, not packed: %s", path, error)

    def close(self) -> None:
        """Wait until all are packed."""
        self._thread.shutdown()


_CHUNKS_AHEAD = 64
"""The shape grows by so many chunks at once, that the metadata need not be rewritten each time."""


def chunk_path(array: Path, number: int, dimensions: int) -> Path:
    """Where zarr keeps chunk `number` along the first axis; the array is not divided along the others."""
    return array / ".".join(["c", str(number), *["0"] * (dimensions - 1)])


class GrowingArray:
    """One array of a zarr group, appended to.

    Parameters
    ----------
    group : zarr group
    folder : Path
        Of that group.
    name : str
    dtype : str
        Little-endian.
    item : tuple of int
        Shape of one row.
    per_chunk : int
        Rows a chunk.
    attributes : dict, optional
    packer : Packer, optional
        Packs the chunks that are full; without one they stay as they are.
    """

    def __init__(
        self,
        group: zarr.Group,
        folder: Path,
        name: str,
        dtype: str,
        item: tuple[int, ...],
        per_chunk: int,
        attributes: dict[str, Any] | None = None,
        packer: Packer | None = None,
    ) -> None:
        self._path = folder / name
        self._item = item
        self._dtype = np.dtype(dtype)
        self._per_chunk = per_chunk
        self._row_bytes = self._dtype.itemsize * math.prod(item)
        self._length = 0
        self._shape = _CHUNKS_AHEAD * per_chunk
        group.create_array(
            name,
            shape=(self._shape, *item),
            chunks=(per_chunk, *item),
            dtype=self._dtype,
            fill_value=0,
            filters=None,
            compressors=None if packer is None else codec(),
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes=attributes,
        )
        self._packer, self._packed = packer, 0
        self._header = b"" if packer is None else plain_header(per_chunk * self._row_bytes)
        self._chunk = -1
        self._file: IO[bytes] | None = None
        self._unsynced: list[IO[bytes]] = []

    def __len__(self) -> int:
        return self._length

    def write(self, rows: NDArray[Any]) -> None:
        """Write rows behind the end, without counting them: `advance` does, once all is well.

        Raises
        ------
        OSError
        """
        rows = np.ascontiguousarray(rows, dtype=self._dtype)
        done = 0
        while done < len(rows):
            number, inside = divmod(self._length + done, self._per_chunk)
            take = min(len(rows) - done, self._per_chunk - inside)
            file = self._open_chunk(number)
            file.seek(len(self._header) + inside * self._row_bytes)
            write_all(file, rows[done : done + take].data)
            if file not in self._unsynced:
                self._unsynced.append(file)
            done += take

    def advance(self, rows: int) -> None:
        """Count rows as written."""
        self._length += rows
        # What is not counted may be written over; what is still open, Windows does not replace.
        self._pack(min(self._length // self._per_chunk, self._chunk))

    def unsynced(self) -> list[int]:
        """Return the descriptors of the files whose last writes may not be on the disk yet."""
        return [file.fileno() for file in self._unsynced]

    def synced(self) -> None:
        """Take note that they are."""
        for file in self._unsynced:
            if file is not self._file:
                file.close()
        self._unsynced.clear()

    def close(self) -> None:
        """Cut the shape to what was written; the rows are then all of the array."""
        self.abandon()
        self._pack(self._length // self._per_chunk)
        self._reshape(self._length, durable=True)

    def abandon(self) -> None:
        """Close the files, and no more."""
        for file in self._unsynced:
            file.close()
        self._unsynced.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pack(self, chunks: int) -> None:
        """Have the chunks below a number packed."""
        if self._packer is not None:
            for number in range(self._packed, chunks):
                self._packer.pack(chunk_path(self._path, number, 1 + len(self._item)))
            self._packed = max(self._packed, chunks)

    def _open_chunk(self, number: int) -> IO[bytes]:
        if number == self._chunk and self._file is not None:
            return self._file
        path = chunk_path(self._path, number, 1 + len(self._item))
        if not path.exists():
            if (number + 1) * self._per_chunk > self._shape:
                self._reshape(self._shape + _CHUNKS_AHEAD * self._per_chunk, durable=False)
            beside = path.with_name("next")  # a chunk without its header is none
            try:
                with beside.open("wb", buffering=0) as file:
                    preallocate(file, len(self._header) + self._per_chunk * self._row_bytes)
                    write_all(file, self._header)
                beside.replace(path)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
            sync_folder(self._path)
        if self._file is not None and self._file not in self._unsynced:
            self._file.close()
        self._file = path.open("r+b", buffering=0)
        self._chunk = number
        return self._file

    def _reshape(self, length: int, *, durable: bool) -> None:
        path = self._path / "zarr.json"
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["shape"][0] = length
        data = json.dumps(metadata, indent=2).encode()
        if durable:
            replace_file(path, data)
        else:
            beside = path.with_name("zarr.json.new")
            beside.write_bytes(data)
            rename_over(beside, path)  # a viewer may be reading it
        self._shape = length


class Table:
    """A text table that grows at its end, and can take its last rows back."""

    def __init__(self, path: Path, first_line: bytes) -> None:
        self._file: IO[bytes] = path.open("xb", buffering=0)
        write_all(self._file, first_line)
        os.fsync(self._file.fileno())
        self._size = len(first_line)

    @property
    def size(self) -> int:
        """Bytes that count."""
        return self._size

    def append(self, rows: bytes) -> None:
        """Write rows, not counted before `commit`."""
        write_all(self._file, rows)

    def commit(self) -> None:
        """Count what was written."""
        self._size = self._file.tell()

    def take_back(self) -> None:
        """Remove what was not counted."""
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Write no more."""
        self._file.close()
