"""Zarr arrays and tables that grow at their end, durable after every batch; full chunks are packed."""

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
from napari_rbcflow.sentences import say

log = logging.getLogger(__name__)

HEADER_BYTES = 16
_COPIED = 0x2  # the flag of a header whose bytes are not packed
_LEVEL = 1  # higher levels pack noise no better and take six times as long


def codec() -> BloscCodec:
    """Return the codec of both kinds of chunk, packed and plain."""
    return BloscCodec(typesize=1, cname="zstd", clevel=_LEVEL, shuffle="noshuffle")


def plain_header(size: int) -> bytes:
    header = bytes(blosc.compress(bytes(size), b"zstd", 0, 0)[:HEADER_BYTES])
    if not header[2] & _COPIED:
        raise RuntimeError(say("session.numcodecs-unsuitable"))
    return header


def is_plain(header: bytes) -> bool:
    """Say whether the bytes behind a header are plain."""
    return len(header) == HEADER_BYTES and bool(header[2] & _COPIED)


def pack(path: Path) -> None:
    """Replace a plain chunk by a packed one, in one step, if that is smaller; as it was on an `OSError`."""
    data = path.read_bytes()
    if is_plain(data[:HEADER_BYTES]):
        packed = blosc.compress(memoryview(data)[HEADER_BYTES:], b"zstd", _LEVEL, 0)
        if len(packed) < len(data):
            replace_file(path, packed)


def unpack(data: bytes, size: int) -> bytes:
    """Return the bytes of a chunk, packed or plain; empty where it is damaged."""
    if len(data) < HEADER_BYTES:
        return b""
    plain, _, packed = struct.unpack_from("<III", data, 4)
    # The library trusts the header: it would read beyond the end of a chunk that was cut.
    if plain != size or packed != len(data):
        return b""
    try:
        return bytes(blosc.decompress(data))
    except (RuntimeError, ValueError):
        return b""


class Packer:
    """Packs chunks in a thread of its own, so that the writer does not wait."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-pack")

    def pack(self, path: Path) -> None:
        """Pack a chunk soon, to which nobody writes any more."""
        self._thread.submit(self._pack, path)

    def _pack(self, path: Path) -> None:
        try:
            pack(path)
        except OSError as error:
            # The disk is full, or on Windows somebody reads the chunk. It is whole as it is.
            log.info("%s", say("session.log-not-packed", path=path, why=error))

    def close(self) -> None:
        """Wait until all are packed."""
        self._thread.shutdown()


_CHUNKS_AHEAD = 64  # the shape grows by this many chunks at once, so that the metadata is seldom rewritten


def chunk_path(array: Path, number: int, dimensions: int) -> Path:
    """Return where zarr keeps chunk `number` along the first axis, the only one that is divided."""
    return array / ".".join(["c", str(number), *["0"] * (dimensions - 1)])


class GrowingArray:
    """One array of a zarr group (in `folder`) that rows of shape `item` are appended to.

    With a `packer` its full chunks of `per_chunk` rows are packed.
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
        """Write rows behind the end, which `advance` counts once all is well."""
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
        # Rows that are not counted may be overwritten; Windows does not replace an open file.
        self._pack(min(self._length // self._per_chunk, self._chunk))

    def unsynced(self) -> list[int]:
        """Return the descriptors of the files that may not be on the disk yet."""
        return [file.fileno() for file in self._unsynced]

    def synced(self) -> None:
        """Note that they are."""
        for file in self._unsynced:
            if file is not self._file:
                file.close()
        self._unsynced.clear()

    def close(self) -> None:
        """Cut the shape to the rows that were written."""
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
                rename_over(beside, path)
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
    """A text table that grows at its end and can drop its last rows."""

    def __init__(self, path: Path, first_line: bytes) -> None:
        self._file: IO[bytes] = path.open("xb", buffering=0)
        write_all(self._file, first_line)
        os.fsync(self._file.fileno())
        self.size = len(first_line)
        """Bytes that count."""

    def append(self, rows: bytes) -> None:
        """Write rows, not counted before `commit`."""
        write_all(self._file, rows)

    def commit(self) -> None:
        """Count what was written."""
        self.size = self._file.tell()

    def roll_back(self) -> None:
        """Remove what was not counted."""
        self._file.truncate(self.size)
        self._file.seek(self.size)

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Write no more."""
        self._file.close()
