"""``cells.csv`` and ``tracks.csv``: how a track becomes rows.

The same tracks and judgements give the same bytes on any machine: fixed decimals, Unix line ends, no dates.
The order of the rows is made by `sorting`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import Judgement, Track

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
    "gap_frames",
)
"""`gap_frames`: frames between the first and the last without a picture, lost or not analysed."""
OLDER_CELL_COLUMNS = CELL_COLUMNS[:-1]
"""Of sessions from before gaps were told."""
TRACK_COLUMNS = ("cell", "frame", "y_px", "x_px", "seen")
Fingerprint = dict[str, int | str]
"""A file's ``bytes`` and ``sha256``, as ``run.json`` holds them under ``files``."""


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
                _two(speed_um_per_s(track, fps=fps, pixel_size_um=pixel_size_um)),
                _probability(judgement.p_reliable),
                _probability(judgement.p_tank_treading),
                str(judgement.label),
                judgement.reason,
                track.gap_frames,
            )
        )
    return text.getvalue().encode()


def speed_um_per_s(track: Track, *, fps: float, pixel_size_um: float) -> float:
    """Return a track's speed as ``cells.csv`` tells it, to two decimals."""
    return float(np.round(track.speed_px_per_frame() * pixel_size_um * fps, 2) + 0.0)


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


def ends_with_a_line(path: Path) -> bool:
    """Say whether nothing stands behind the last whole line, and there is one."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def fingerprint(path: Path) -> Fingerprint:
    """Return a file's size and SHA-256."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
