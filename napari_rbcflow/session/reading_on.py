"""The cells of a session that is being written, read on from where they were read before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.session.reading import parse_cells

_COMPARED = 400
"""Bytes before the end that must still be the same: a writer may have taken rows back."""


@dataclass(frozen=True, eq=False)
class CellsSoFar:
    """``cells.csv`` up to its last whole line.

    Attributes
    ----------
    cells : DataFrame
    """

    cells: pd.DataFrame
    _size: int
    _inode: int
    _first_line: bytes
    _last: bytes


def read_on(folder: Path, before: CellsSoFar | None = None) -> CellsSoFar:
    """Read ``cells.csv``; of a table that has only grown since `before`, only what is new.

    Raises
    ------
    RunFailed
        If it is not there or damaged.
    """
    path = folder / "cells.csv"
    try:
        with path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if before is not None and before._last and inode == before._inode:
                file.seek(before._size - len(before._last))
                data = file.read()
                if data.startswith(before._last):
                    return _longer(path, before, data)
                file.seek(0)
            data = _whole_lines(file.read())
    except OSError as error:
        raise RunFailed(f"{path} cannot be read ({error}): restore it from a copy.") from error
    first_line = data[: data.find(b"\n") + 1]
    return CellsSoFar(parse_cells(path, data), len(data), inode, first_line, data[-_COMPARED:])


def _longer(path: Path, before: CellsSoFar, data: bytes) -> CellsSoFar:
    data = _whole_lines(data)
    new = data[len(before._last) :]
    if not new:
        return before
    more = parse_cells(path, before._first_line + new)
    cells = pd.concat([before.cells, more], ignore_index=True)
    return CellsSoFar(cells, before._size + len(new), before._inode, before._first_line, data[-_COMPARED:])


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
