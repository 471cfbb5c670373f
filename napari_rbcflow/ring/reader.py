"""Reading a ring: after the run, after a crash, or while it is being written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.ring import layout
from napari_rbcflow.ring.disk import read_json
from napari_rbcflow.sentences import say
from napari_rbcflow.types import CROP_SIDE, SIMULATED_MARK, Floats, Floats32, Grey, Ints

_TRIES = 20  # a row that is caught half written is whole again within microseconds


class FrameGone(LookupError):
    """The ring never held that frame, or has overwritten it."""


@dataclass(frozen=True, eq=False)
class RingCrops:
    """Crops of a ring, oldest first.

    Attributes
    ----------
    cell, frame : ndarray of int64, shape (n,)
    y_px, x_px : ndarray of float32, shape (n,)
        Position in camera pixels.
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
    damaged : int
        Crops in the ledger whose checksum is wrong; they are left out. While the ring is being written,
        some of them may just be being overwritten.
    """

    cell: Ints
    frame: Ints
    y_px: Floats32
    x_px: Floats32
    crops: Grey
    damaged: int


class RingReader:
    """What a ring held when it was opened, or at the last `refresh`.

    Attributes
    ----------
    path : Path
    height, width : int
        Of a frame, in pixels.
    capacity, crop_capacity : int
    fps, pixel_size_um : float
    simulated : bool
        Whether its frames are not a camera's; False in a ring that does not tell.
    indices : ndarray of int64, shape (n,)
        Of the frames, ascending; frames that were missed or dropped leave gaps.
    times_s : ndarray of float64, shape (n,)
        Their camera times.
    damaged_rows : int
        Ledger rows that cannot be trusted.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path
        self.height = int(attributes["height"])
        self.width = int(attributes["width"])
        self.capacity = int(attributes["capacity"])
        self.crop_capacity = int(attributes["crop_capacity"])
        self.fps = float(attributes["fps"])
        self.pixel_size_um = float(attributes["pixel_size_um"])
        self.simulated = attributes.get(SIMULATED_MARK) is True
        self.indices: Ints = np.empty(0, np.int64)
        self.times_s: Floats = np.empty(0)
        self.damaged_rows = 0
        self._slots: Ints = np.empty(0, np.int64)
        self._rows("frame_ledger", self.capacity, len(layout.FRAME_COLUMNS))  # it holds as many as is said
        # As last checked: who refreshes twenty times a second checks only the few new rows.
        self._checked = np.full((self.capacity, len(layout.FRAME_COLUMNS)), np.nan)
        self._whole = np.zeros(self.capacity, bool)
        self.refresh()

    def refresh(self) -> None:
        """Read the ledger again; `RunFailed` if it is gone."""
        rows = self._rows("frame_ledger", self.capacity, len(layout.FRAME_COLUMNS))
        # Compared bit by bit, for a damaged row may hold NaN.
        new = np.flatnonzero((rows.view(np.uint64) != self._checked.view(np.uint64)).any(axis=1))
        for slot in new.tolist():
            if not _row_is_whole(rows[slot]):
                rows[slot] = self._row(slot)
            self._whole[slot] = _row_is_whole(rows[slot])
        self._checked = rows
        slots = np.flatnonzero(self._whole & (rows[:, 0] >= 0))
        slots = slots[np.argsort(rows[slots, 0])]
        self.damaged_rows = int(np.count_nonzero(~self._whole))
        self.indices = rows[slots, 0].astype(np.int64)
        self.times_s = rows[slots, 1].copy()
        self._slots = slots

    def __len__(self) -> int:
        return len(self.indices)

    def frame(self, index: int) -> Grey:
        """Return one frame.

        Parameters
        ----------
        index : int
            One of `indices`.

        Returns
        -------
        ndarray of uint8, shape (height, width)

        Raises
        ------
        FrameGone
            If the ring does not hold it, or has overwritten it since `refresh`.
        RunFailed
            If its bytes on the disk are damaged.
        """
        place = int(np.searchsorted(self.indices, index))
        if place == len(self.indices) or self.indices[place] != index:
            raise FrameGone(say("ring.frame-missing", path=self.path, index=index))
        slot = int(self._slots[place])
        row = self._row(slot)
        if row[0] == index:
            size = self.height * self.width
            data = _read(layout.frame_path(self.path, slot), "u1", size)
            # The row's checksum decides: it fits neither another frame's bytes nor a half-written frame.
            if len(data) == size and layout.crc32c(data) == row[2]:
                return data.reshape(self.height, self.width)
            row = self._row(slot)
            if row[0] == index:
                raise RunFailed("ring.frame-damaged", path=self.path, index=index)
        raise FrameGone(say("ring.frame-overwritten", path=self.path, index=index))

    def crops(self) -> RingCrops:
        """Return the crops that the ring holds now, oldest first; `RunFailed` if their ledger is gone."""
        rows = self._rows("crop_ledger", self.crop_capacity, len(layout.CROP_COLUMNS))
        slots = np.flatnonzero(rows[:, 0] >= 0)
        slots = slots[np.argsort(rows[slots, 0])]
        crops = np.zeros((len(slots), CROP_SIDE, CROP_SIDE), np.uint8)
        for chunk in np.unique(slots // layout.CROPS_PER_CHUNK).tolist():
            of_chunk = np.flatnonzero(slots // layout.CROPS_PER_CHUNK == chunk)
            # Where the file is lost, their checksums will not fit.
            data = _read(layout.crop_path(self.path, chunk), "u1", layout.CROPS_PER_CHUNK * layout.CROP_BYTES)
            whole = data[: len(data) // layout.CROP_BYTES * layout.CROP_BYTES]
            stored = whole.reshape(-1, CROP_SIDE, CROP_SIDE)
            inside = slots[of_chunk] % layout.CROPS_PER_CHUNK
            there = inside < len(stored)
            crops[of_chunk[there]] = stored[inside[there]]
        rows = rows[slots]
        good = np.array(
            [layout.crop_crc(row, crop) == row[5] for row, crop in zip(rows, crops, strict=True)], dtype=bool
        )
        rows = rows[good]
        return RingCrops(
            cell=rows[:, 1].astype(np.int64),
            frame=rows[:, 2].astype(np.int64),
            y_px=rows[:, 3].astype(np.float32),
            x_px=rows[:, 4].astype(np.float32),
            crops=crops[good],
            damaged=int(np.count_nonzero(~good)),
        )

    def check(self) -> list[str]:
        """Read everything in the ledgers, and return a sentence for each kind of damage."""
        name, found = self.path.name, []
        if self.damaged_rows:
            found.append(
                say("ring.rows-found-damaged", name=name, damaged=self.damaged_rows, rows=self.capacity)
            )
        damaged = []
        for index in self.indices.tolist():
            try:
                self.frame(index)
            except FrameGone:
                pass  # being written
            except RunFailed:
                damaged.append(index)
        if damaged:
            found.append(
                say(
                    "ring.frames-found-damaged",
                    name=name,
                    damaged=len(damaged),
                    frames=len(self),
                    first=damaged[0],
                )
            )
        try:
            if lost := self.crops().damaged:
                found.append(say("ring.crops-found-damaged", name=name, damaged=lost))
        except RunFailed as error:
            found.append(str(error))
        return found

    def _rows(self, name: str, rows: int, columns: int) -> Floats:
        data = _read(layout.ledger_path(self.path, name), "<f8", rows * columns)
        if len(data) != rows * columns:
            raise RunFailed("ring.ledger-lost", path=self.path, ledger=name)
        return data.reshape(rows, columns)

    def _row(self, slot: int) -> Floats:
        """Return one row as it is now; read again if it is caught half written."""
        path = layout.ledger_path(self.path, "frame_ledger")
        for _ in range(_TRIES):
            row = np.fromfile(
                path, dtype="<f8", count=len(layout.FRAME_COLUMNS), offset=slot * layout.FRAME_ROW_BYTES
            )
            if _row_is_whole(row):
                return row
            time.sleep(0.0005)
        return row


def _read(path: Path, dtype: str, count: int) -> NDArray[Any]:
    """Return so many numbers of a file, or as many as it holds."""
    try:
        there = path.stat().st_size // np.dtype(dtype).itemsize
        return np.fromfile(path, dtype=dtype, count=min(count, there))
    except OSError:
        return np.empty(0, dtype)


def _row_is_whole(row: Floats) -> bool:
    return bool(layout.crc32c(row[:3]) == row[3])


def open_ring(path: Path | str) -> RingReader:
    """Open the ring of a session, finished, crashed or running.

    Parameters
    ----------
    path : Path or str
        The ring's folder (``frames.zarr``).

    Raises
    ------
    BadInput
        If it is not a ring, or one of a newer version.
    RunFailed
        If the ring has lost its ledger.
    """
    path = Path(path)
    try:
        attributes = read_json(path / "zarr.json")["attributes"]
        version = int(attributes["rbcflow_ring"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput("ring.not-a-ring", path=path) from None
    if version > layout.FORMAT:
        raise BadInput("ring.newer-version", path=path)
    try:
        return RingReader(path, attributes)
    except (KeyError, TypeError, ValueError):
        raise BadInput("ring.attributes-damaged", path=path) from None
