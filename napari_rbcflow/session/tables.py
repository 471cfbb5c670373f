"""``cells.csv`` and ``tracks.csv``: how a track becomes rows, and the order of the rows.

The same tracks and judgements give the same bytes on any machine: fixed decimals, Unix line ends, no dates.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.ring.disk import rename_over, replace_file, sync_folder
from napari_rbcflow.tracks import Judgement, Track

CELL_COLUMNS = (
    "cell",
    "first_frame",
    "last_frame",
    "frames",
    "x_first_px",
    "y_first_px",
    "x_last_px",
    "y_last_px",
    "speed_um_per_s",
    "p_reliable",
    "p_tank_treading",
    "label",
    "reason",
)
TRACK_COLUMNS = ("cell", "frame", "y_px", "x_px", "seen")
_PIECE_BYTES = 16 << 20
"""Of a table that is looked through; each takes twice its size in memory."""


def cell_rows(pairs: Sequence[tuple[Track, Judgement]], *, fps: float, pixel_size_um: float) -> bytes:
    """Return the rows of ``cells.csv`` for tracks and what is said of them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for track, judgement in pairs:
        writer.writerow(
            (
                track.cell,
                int(track.frames[0]),
                int(track.frames[-1]),
                len(track),
                _two(track.x_px[0]),
                _two(track.y_px[0]),
                _two(track.x_px[-1]),
                _two(track.y_px[-1]),
                _two(track.speed_px_per_frame() * pixel_size_um * fps),
                _probability(judgement.p_reliable),
                _probability(judgement.p_tank_treading),
                str(judgement.label),
                judgement.reason,
            )
        )
    return text.getvalue().encode()


def track_rows(tracks: Sequence[Track]) -> bytes:
    """Return the rows of ``tracks.csv``, a row a position."""
    lines = []
    for track in tracks:
        cell = track.cell
        columns = zip(
            track.frames.tolist(),
            _rounded(track.y_px),
            _rounded(track.x_px),
            track.seen.tolist(),
            strict=True,
        )
        lines += [f"{cell},{f},{y:.2f},{x:.2f},{s:d}\n" for f, y, x, s in columns]
    return "".join(lines).encode()


def _rounded(values: NDArray[np.float32]) -> list[float]:
    # + 0.0 turns the -0.0 of a small negative number into 0.0.
    rounded: list[float] = (np.round(values.astype(np.float64), 2) + 0.0).tolist()
    return rounded


def _two(value: float) -> str:
    return f"{np.round(float(value), 2) + 0.0:.2f}"


def _probability(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def header(columns: Sequence[str]) -> bytes:
    """Return a table's first line."""
    return (",".join(columns) + "\n").encode()


def whole_lines(path: Path) -> bytes:
    """Return a table's bytes up to its last whole line: the one behind may have been cut by a crash."""
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1]


def fingerprint(path: Path) -> dict[str, int | str]:
    """Return a file's size and SHA-256, as ``run.json`` holds them under ``files``."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def sort_cells(path: Path) -> None:
    """Put the rows of ``cells.csv`` into the order of `last_frame`, then `cell`.

    Raises
    ------
    OSError
        The table is then as it was.
    """
    first, *rows = whole_lines(path).splitlines(keepends=True)
    keyed = sorted((int(fields[2]), int(fields[0]), row) for row in rows if (fields := row.split(b",", 3)))
    replace_file(path, first + b"".join(row for _, _, row in keyed))


def sort_tracks(path: Path, cells: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
    """Put the rows of ``tracks.csv`` into the order of `cell`, then `frame`.

    Parameters
    ----------
    path : Path
    cells, lengths : ndarray of int64, shape (m,)
        The tracks in the order in which they were written, and the rows of each. Where these do not
        fit the table, it is left alone.

    Raises
    ------
    OSError
        The table is then as it was.
    """
    if not len(cells):
        return
    last = np.cumsum(lengths)
    beside = path.with_name(path.name + ".new")
    try:
        with path.open("rb") as file:
            # Of each track's last line, and of the first line of all: an hour's table is too long to be held.
            ends, n_lines = _line_ends(file, np.concatenate([[0], last]))
            if n_lines != last[-1] + 1:
                return
            begin, end = ends[:-1].tolist(), ends[1:].tolist()
            with beside.open("wb") as out:
                file.seek(0)
                out.write(file.read(int(ends[0])))
                for track in np.argsort(cells, kind="stable").tolist():
                    file.seek(begin[track])
                    out.write(file.read(end[track] - begin[track]))
                out.flush()
                os.fsync(out.fileno())
        rename_over(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


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
