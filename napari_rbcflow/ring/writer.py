"""Writing a ring: frames and crops overwritten in place."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.ring import layout
from napari_rbcflow.ring.disk import disk_faults, is_full, preallocate, write_all
from napari_rbcflow.sentences import say
from napari_rbcflow.types import CROP_SIDE, SIMULATED_MARK, Floats, Floats32, Frame, Grey, Ints


class FrameRing:
    """The last raw frames and crops of a run, in a number of bytes that is fixed at the start.

    Frames are overwritten in place: the slot's ledger row is emptied, the frame is written, then the new
    row. Whenever the process is killed, the ledger names only whole frames, and a reader can tell by row
    and checksum that a frame was being overwritten. There is one writer and any number of readers, in this
    process or others; several threads may call it.
    """

    def __init__(self, path: Path, *, height: int, width: int, capacity: int, crop_capacity: int) -> None:
        self.path = path
        self.height, self.width = height, width
        self.capacity, self.crop_capacity = capacity, crop_capacity
        self.frames_written = 0
        self.crops_written = 0
        self._last_index = -1
        self._lock = threading.Lock()
        # Made beforehand, as building a Path costs more than writing a row.
        self._frame_paths = [os.fspath(layout.frame_path(path, slot)) for slot in range(capacity)]
        self._frame_ledger = _open(layout.ledger_path(path, "frame_ledger"))
        self._crop_ledger = _open(layout.ledger_path(path, "crop_ledger"))

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        height: int,
        width: int,
        capacity: int,
        crop_capacity: int,
        fps: float,
        pixel_size_um: float,
        simulated: bool = False,
    ) -> FrameRing:
        """Create an empty ring at its full size on the disk.

        Parameters
        ----------
        path : Path
            Must not exist.
        height, width : int
            Of every frame, in pixels.
        capacity, crop_capacity : int
            How many frames and crops it holds.
        fps, pixel_size_um : float
            Kept as attributes, for an analysis of the ring later.
        simulated : bool
            Kept, too: an analysis of the ring is as simulated as its frames.

        Raises
        ------
        BadInput
            If `path` exists, or the disk has no room.
        ValueError
            For sizes that are not positive.
        """
        if min(height, width, capacity, crop_capacity) < 1:
            raise ValueError(say("ring.size-below-one"))
        path = Path(path)
        if path.exists():
            raise BadInput("ring.exists", path=path)
        try:
            group = zarr.create_group(path, zarr_format=3)
            group.create_array(
                "frames",
                shape=(capacity, height, width),
                chunks=(1, height, width),
                dtype="uint8",
                fill_value=0,
                filters=None,
                compressors=[Crc32cCodec()],
                dimension_names=layout.AXES,
            )
            group.create_array(
                "crops",
                shape=(crop_capacity, CROP_SIDE, CROP_SIDE),
                chunks=(layout.CROPS_PER_CHUNK, CROP_SIDE, CROP_SIDE),
                dtype="uint8",
                fill_value=0,
                filters=None,
                compressors=None,
            )
            for name, rows, columns in (
                ("frame_ledger", capacity, layout.FRAME_COLUMNS),
                ("crop_ledger", crop_capacity, layout.CROP_COLUMNS),
            ):
                ledger = group.create_array(
                    name,
                    shape=(rows, len(columns)),
                    chunks=(rows, len(columns)),
                    dtype="<f8",
                    fill_value=layout.EMPTY,
                    filters=None,
                    compressors=None,
                )
                ledger.attrs["columns"] = list(columns)
            _lay_out_files(path, height, width, capacity, crop_capacity)
            # Last, as this makes the folder a ring.
            group.attrs.update(
                {
                    "rbcflow_ring": layout.FORMAT,
                    "fps": float(fps),
                    "pixel_size_um": float(pixel_size_um),
                    SIMULATED_MARK: simulated,
                    "height": height,
                    "width": width,
                    "capacity": capacity,
                    "crop_capacity": crop_capacity,
                    **layout.ome_image("frames", float(fps), float(pixel_size_um)),
                }
            )
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            if is_full(error):
                needed = capacity * height * width + crop_capacity * layout.CROP_BYTES
                raise BadInput(
                    "ring.no-room", folder=path.parent, frames=capacity, megabytes=needed / 1e6
                ) from error
            raise BadInput("ring.cannot-create", path=path, why=error.strerror or error) from error
        return cls(path, height=height, width=width, capacity=capacity, crop_capacity=crop_capacity)

    def append(self, frame: Frame) -> None:
        """Keep a frame in the place of the oldest.

        Parameters
        ----------
        frame : Frame
            Image of shape (height, width), uint8; its index above the last one's.

        Raises
        ------
        RunFailed
            If the size or type is wrong, the index does not ascend, or the disk cannot be written.
        """
        image = np.ascontiguousarray(frame.image)
        if image.shape != (self.height, self.width) or image.dtype != np.uint8:
            raise RunFailed(
                "ring.frame-changed",
                index=frame.index,
                size=" x ".join(map(str, image.shape[::-1])),
                dtype=image.dtype,
                first_size=f"{self.width} x {self.height}",
            )
        with self._lock, disk_faults(self.path.parent):
            self._must_be_open()
            if frame.index <= self._last_index:
                raise RunFailed("ring.clock-backwards", index=frame.index, last=self._last_index)
            slot = self.frames_written % self.capacity
            crc = layout.crc32c(image)
            place = slot * layout.FRAME_ROW_BYTES
            _write_at(self._frame_ledger, place, layout.frame_row(layout.EMPTY, 0.0, 0.0))
            with open(self._frame_paths[slot], "r+b", buffering=0) as file:  # noqa: PTH123
                write_all(file, image.data)
                write_all(file, crc.to_bytes(layout.CRC_BYTES, "little"))
            _write_at(self._frame_ledger, place, layout.frame_row(frame.index, frame.time_s, crc))
            self._last_index = frame.index
            self.frames_written += 1

    def append_crops(
        self,
        frame_index: int | Ints,
        cells: Ints | Sequence[int],
        y_px: Floats32 | Sequence[float],
        x_px: Floats32 | Sequence[float],
        crops: Grey,
    ) -> None:
        """Keep crops in the place of the oldest.

        Parameters
        ----------
        frame_index : int or ndarray of int64, shape (n,)
            The frame or frames that they were cut from.
        cells : array_like of int, shape (n,)
        y_px, x_px : array_like of float, shape (n,)
            Positions in camera pixels.
        crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)

        Raises
        ------
        RunFailed
            If the disk cannot be written.
        ValueError
            If the crops have another shape, or lengths differ.
        """
        crops = np.ascontiguousarray(crops, dtype=np.uint8)
        n = len(crops)
        if crops.shape != (n, CROP_SIDE, CROP_SIDE) or not len(cells) == len(y_px) == len(x_px) == n:
            raise ValueError(say("ring.crops-do-not-match", shape=crops.shape, cells=len(cells)))
        with self._lock, disk_faults(self.path.parent):
            self._must_be_open()
            rows = np.empty((n, len(layout.CROP_COLUMNS)))
            rows[:, 0] = np.arange(self.crops_written, self.crops_written + n)
            rows[:, 1], rows[:, 2], rows[:, 3], rows[:, 4] = cells, frame_index, y_px, x_px
            rows[:, 5] = [layout.crop_crc(row, crop) for row, crop in zip(rows, crops, strict=True)]
            done = max(0, n - self.crop_capacity)
            while done < n:
                slot = (self.crops_written + done) % self.crop_capacity
                chunk, inside = divmod(slot, layout.CROPS_PER_CHUNK)
                take = min(n - done, layout.CROPS_PER_CHUNK - inside, self.crop_capacity - slot)
                place = slot * layout.CROP_ROW_BYTES
                _write_at(self._crop_ledger, place, np.full((take, rows.shape[1]), layout.EMPTY))
                with layout.crop_path(self.path, chunk).open("r+b", buffering=0) as file:
                    _write_at(file, inside * layout.CROP_BYTES, crops[done : done + take])
                _write_at(self._crop_ledger, place, rows[done : done + take])
                done += take
            self.crops_written += n

    def _must_be_open(self) -> None:
        if self._frame_ledger.closed:
            raise RunFailed("ring.closed", path=self.path)

    def close(self) -> None:
        """Write no more. May be called more than once."""
        with self._lock:
            self._frame_ledger.close()
            self._crop_ledger.close()


def _open(path: Path) -> IO[bytes]:
    return path.open("r+b", buffering=0)


def _write_at(file: IO[bytes], place: int, data: Floats | Grey) -> None:
    file.seek(place)
    write_all(file, data.data)


def _lay_out_files(path: Path, height: int, width: int, capacity: int, crop_capacity: int) -> None:
    """Create every chunk at its full size, so that a disk that is too small is noticed before the run."""
    empty = layout.crc32c(bytes(height * width)).to_bytes(layout.CRC_BYTES, "little")
    for slot in range(capacity):
        with _new_file(layout.frame_path(path, slot)) as file:
            preallocate(file, height * width + layout.CRC_BYTES)
            # The checksum of zeros, so that any zarr reader also opens slots never written.
            file.seek(height * width)
            write_all(file, empty)
    for number in range(math.ceil(crop_capacity / layout.CROPS_PER_CHUNK)):
        with _new_file(layout.crop_path(path, number)) as file:
            preallocate(file, layout.CROPS_PER_CHUNK * layout.CROP_BYTES)
    row = layout.frame_row(layout.EMPTY, 0.0, 0.0)
    crop_row = np.full(len(layout.CROP_COLUMNS), layout.EMPTY)
    for name, rows in (
        ("frame_ledger", np.tile(row, (capacity, 1))),
        ("crop_ledger", np.tile(crop_row, (crop_capacity, 1))),
    ):
        with _new_file(layout.ledger_path(path, name)) as file:
            write_all(file, rows.data)


def _new_file(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True)
    return path.open("xb", buffering=0)
