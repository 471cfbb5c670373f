"""The end of a session's tables: sorted where that can be done, and said where it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.ring.disk import is_full
from napari_rbcflow.session import pieces, sorting, tables

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class ClosedTables:
    """What became of the tables.

    Attributes
    ----------
    files : dict
        Size and SHA-256 of each by its name, as in ``run.json``.
    warnings : list of str
        What a person must be told.
    cells : DataFrame or None
        ``cells.csv``, where it was sorted: nobody need read it again.
    """

    files: dict[str, tables.Fingerprint] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cells: pd.DataFrame | None = None


def close_tables(
    folder: Path, index: NDArray[np.int64], changed: Mapping[int, tuple[str, str]] | None = None
) -> ClosedTables:
    """Sort the tables of a session that nobody writes to any more.

    A table that cannot be sorted is still whole: no reason to lose a run's end.

    Parameters
    ----------
    folder : Path
    index : ndarray of int64, shape (m, 4)
        Of its crops.
    changed : mapping of int to (str, str), optional
        Label and reason of the cells that get others.

    Raises
    ------
    OSError
        If a table cannot even be read.
    """
    closed = ClosedTables()

    def tried(name: str, sort: Callable[[Path], T]) -> T | None:
        try:
            return sort(folder / name)
        except OSError as error:
            # It needs the table's size once more, and on Windows that no other program has it open.
            log.warning("%s could not be sorted", name, exc_info=error)
            why = (
                "The disk was full"
                if is_full(error)
                else f"{name} could not be replaced ({error.strerror or error}; is it open elsewhere?)"
            )
            closed.warnings.append(f"{why}: {name} is in the order in which the tracks ended.")
            return None

    if (cells := tried("cells.csv", lambda path: sorting.sort_cells(path, changed))) is not None:
        closed.files["cells.csv"], closed.cells = cells
    tracks = tried("tracks.csv", lambda path: sorting.sort_tracks(path, index[:, 0], index[:, 2]))
    if tracks is not None:
        closed.files["tracks.csv"] = tracks
    tried(pieces.NAME, pieces.sort_pieces)
    closed.files = {
        name: closed.files.get(name) or tables.fingerprint(folder / name)
        for name in ("cells.csv", "tracks.csv", pieces.NAME)
    }
    return closed
