"""``tracks.csv`` gone through piece by piece: an hour's positions take a gigabyte and more at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.session.reading import parse_tracks

_PIECE_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class Spans:
    """What the positions of a session span.

    Attributes
    ----------
    of_cell : DataFrame
        By cell: ``size``, ``min`` and ``max`` of its frames. Only cells that are known.
    in_order : bool
        Whether their rows are in the order of cell, then frame.
    surplus : int
        Rows of other cells.
    """

    of_cell: pd.DataFrame
    in_order: bool
    surplus: int


def spans(path: Path, cells: NDArray[np.int64]) -> Spans:
    """Go through ``tracks.csv``.

    Parameters
    ----------
    path : Path
    cells : ndarray of int64
        Those that are known.

    Raises
    ------
    RunFailed
        If it cannot be read or is damaged.
    """
    known, tables = np.unique(cells), []
    in_order, surplus, last = True, 0, (-1, -1)
    for piece in _pieces(path):
        table = parse_tracks(path, piece)
        cell, frame = table["cell"].to_numpy(), table["frame"].to_numpy()
        place = np.minimum(np.searchsorted(known, cell), max(0, len(known) - 1))
        kept = known[place] == cell if len(known) else np.zeros(len(cell), bool)
        surplus += int(np.count_nonzero(~kept))
        cell, frame = cell[kept], frame[kept]
        if not len(cell):
            continue
        before_cell, before_frame = np.append(last[0], cell[:-1]), np.append(last[1], frame[:-1])
        in_order &= bool(((cell > before_cell) | ((cell == before_cell) & (frame >= before_frame))).all())
        last = int(cell[-1]), int(frame[-1])
        of_piece = pd.DataFrame({"cell": cell, "frame": frame}).groupby("cell")["frame"]
        tables.append(of_piece.agg(["size", "min", "max"]))
    none = pd.DataFrame({"size": [], "min": [], "max": []}, index=pd.Index([], name="cell"), dtype=np.int64)
    together = pd.concat(tables) if tables else none
    of_cell = together.groupby("cell").agg({"size": "sum", "min": "min", "max": "max"})
    return Spans(of_cell, in_order, surplus)


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield whole lines, each piece under the table's first one; what a crash cut behind them is left out."""
    try:
        with path.open("rb") as file:
            first, rest = file.readline(), b""
            while data := file.read(_PIECE_BYTES):
                data = rest + data
                end = data.rfind(b"\n") + 1
                if end:
                    yield first + data[:end]
                rest = data[end:]
    except OSError as error:
        raise RunFailed(f"{path} cannot be read ({error}): restore it from a copy.") from error
