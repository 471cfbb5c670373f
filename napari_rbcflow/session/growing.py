"""What grows at its end, durable after every batch: zarr arrays and tables.

zarr's own `append` rewrites the array's metadata and whole last chunk each time. Here the chunks are
uncompressed files made at full size, into which each batch is written in place; any zarr reader opens
the array at any time. Until `close` its shape is ahead of what is in it: the rows written are told by
whoever keeps count (the crops' index). Full chunks may be packed (`packing`).
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_rbcflow.ring.disk import preallocate, rename_over, replace_file, sync_folder, write_all
from napari_rbcflow.session import packing

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
        packer: packing.Packer | None = None,
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
            compressors=None if packer is None else packing.codec(),
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes=attributes,
        )
        self._packer, self._packed = packer, 0
        self._header = b"" if packer is None else packing.plain_header(per_chunk * self._row_bytes)
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
