"""The order of a closed session's tables: the same tracks give the same bytes, however they were batched."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.ring.disk import rename_over, replace_file, sync_folder, write_all
from napari_rbcflow.session.reading import parse_cells
from napari_rbcflow.session.tables import CELL_COLUMNS, Fingerprint, whole_lines

_PIECE_BYTES = 16 << 20
"""Of a table that is looked through; each takes twice its size in memory."""
_WINDOW_BYTES = 8 << 20
"""Of the sorted table, gathered at once."""
_APART_BYTES = 256 << 10
"""What lies between two tracks is read over where it is no more: tracks end nearly in their order."""
_MOST_BETWEEN = 4
"""Times what is asked for, that is read over at most."""
_SYNCED_BYTES = 64 << 20
"""Put on the disk at once, that the disk is at work while the rest is gathered."""


def sort_cells(
    path: Path, changed: Mapping[int, tuple[str, str]] | None = None
) -> tuple[Fingerprint, pd.DataFrame]:
    """Put the rows of ``cells.csv`` into the order of `last_frame`, then `cell`.

    Parameters
    ----------
    path : Path
    changed : mapping of int to (str, str), optional
        Label and reason of the cells that get others.

    Returns
    -------
    Fingerprint
    DataFrame
        The table, as `Session.cells` has it.

    Raises
    ------
    OSError
        The table is then as it was.
    RunFailed
        If it is damaged.
    """
    data = whole_lines(path)
    cells = parse_cells(path, data)
    order = np.lexsort((cells["cell"].to_numpy(), cells["last_frame"].to_numpy()))
    first, *rows = data.splitlines(keepends=True)
    for row in np.flatnonzero(cells["cell"].isin(changed or ())).tolist():
        said = (changed or {})[int(cells["cell"].iloc[row])]
        fields = rows[row].decode().split(",")
        for column, value in zip(("label", "reason"), map(str, said), strict=True):
            fields[CELL_COLUMNS.index(column)] = value
            cells.loc[row, column] = value
        rows[row] = ",".join(fields).encode()
    data = first + b"".join([rows[row] for row in order.tolist()])
    del rows  # an hour's are more than all else that the close holds
    replace_file(path, data)
    fingerprint: Fingerprint = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del data
    return fingerprint, cells.iloc[order].reset_index(drop=True)


def sort_tracks(path: Path, cells: NDArray[np.int64], lengths: NDArray[np.int64]) -> Fingerprint | None:
    """Put the rows of ``tracks.csv`` into the order of `cell`, then `frame`.

    Parameters
    ----------
    path : Path
    cells, lengths : ndarray of int64, shape (m,)
        The tracks in the order in which they were written, and the rows of each. Where these do not
        fit the table, it is left alone.

    Returns
    -------
    Fingerprint or None
        None where it was left alone.

    Raises
    ------
    OSError
        The table is then as it was.
    """
    if not len(cells):
        return None
    last = np.cumsum(lengths)
    beside = path.with_name(path.name + ".new")
    sum_, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            # Of each track's last line, and of the first line of all: an hour's table is too long to be held.
            ends, n_lines = _line_ends(file, np.concatenate([[0], last]))
            if n_lines != last[-1] + 1:
                return None
            with beside.open("wb", buffering=0) as out:
                unsynced = 0
                for part in _in_order(file, ends, np.argsort(cells, kind="stable")):
                    sum_.update(part)
                    write_all(out, part)
                    size += len(part)
                    unsynced += len(part)
                    if unsynced >= _SYNCED_BYTES:
                        os.fsync(out.fileno())
                        unsynced = 0
                os.fsync(out.fileno())
        rename_over(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return {"bytes": size, "sha256": sum_.hexdigest()}


def _in_order(file: BinaryIO, ends: NDArray[np.int64], order: NDArray[np.int64]) -> Iterator[bytes]:
    """Yield the first line, then the tracks in an order, as pieces of some size.

    Parameters
    ----------
    file : binary file
    ends : ndarray of int64, shape (m + 1,)
        Byte behind the first line, then behind each track.
    order : ndarray of int64, shape (m,)
    """
    yield _bytes(file, 0, int(ends[0]))
    begin, end = ends[:-1], ends[1:]
    sizes = np.cumsum(end[order] - begin[order])
    first = 0
    while first < len(order):
        done = sizes[first - 1] if first else 0
        behind = max(first + 1, int(np.searchsorted(sizes, done + _WINDOW_BYTES, "right")))
        yield _gathered(file, begin[order[first:behind]], end[order[first:behind]])
        first = behind


def _gathered(file: BinaryIO, begin: NDArray[np.int64], end: NDArray[np.int64]) -> bytes:
    """Return parts of a file one behind the other; what lies close together is read at once."""
    by_place = np.argsort(begin, kind="stable")
    gaps = begin[by_place[1:]] - end[by_place[:-1]]
    between = gaps <= _APART_BYTES
    if gaps[between].sum() > _MOST_BETWEEN * _WINDOW_BYTES:  # in no order at all: each for itself
        between = gaps == 0
    parts: list[bytes] = [b""] * len(begin)
    for stretch in np.split(by_place, np.flatnonzero(~between) + 1):
        place = int(begin[stretch[0]])
        data = _bytes(file, place, int(end[stretch[-1]]) - place)
        for part, a, b in zip(
            stretch.tolist(), (begin[stretch] - place).tolist(), (end[stretch] - place).tolist(), strict=True
        ):
            parts[part] = data[a:b]
    return b"".join(parts)


def _bytes(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _line_ends(file: BinaryIO, lines: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Return where some lines end (byte behind), and how many whole lines there are.

    Parameters
    ----------
    file : binary file, at its begin
    lines : ndarray of int64, shape (m,)
        Numbers from 0, ascending.

    Returns
    -------
    ends : ndarray of int64
        Of those that are there.
    n_lines : int
    """
    ends: list[NDArray[np.int64]] = []
    place = n_lines = 0
    while piece := file.read(_PIECE_BYTES):
        here = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n"))
        first, behind = np.searchsorted(lines, [n_lines, n_lines + len(here)])
        ends.append(place + 1 + here[lines[first:behind] - n_lines])
        place += len(piece)
        n_lines += len(here)
    return np.concatenate(ends) if ends else np.zeros(0, np.int64), n_lines
