"""``cells.csv``, ``tracks.csv``, ``pieces.csv``: how a track becomes rows, and their order."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.estimate import PIECE
from napari_rbcflow.ring import rename_over, replace_file, sync_folder, write_all
from napari_rbcflow.types import Judgement, Label, Track

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


CELL_TYPES = {
    "cell": "int64",
    "first_frame": "int64",
    "last_frame": "int64",
    "frames": "int64",
    "x_first_px": "float64",
    "y_first_px": "float64",
    "x_last_px": "float64",
    "y_last_px": "float64",
    "speed_um_per_s": "float64",
    "p_reliable": "float64",
    "p_tank_treading": "float64",
    "label": "str",
    "reason": "str",
    "gap_frames": "int64",
}
TRACK_TYPES = {"cell": "int64", "frame": "int64", "y_px": "float64", "x_px": "float64", "seen": "int64"}


def parse_cells(path: Path, data: bytes) -> pd.DataFrame:
    """Return whole lines of ``cells.csv``, the first line with them, as `Session.cells` has them.

    Raises
    ------
    RunFailed
        If they are damaged.
    """
    return parsed(path, data, CELL_TYPES)


def parse_tracks(path: Path, data: bytes) -> pd.DataFrame:
    """Return the same of ``tracks.csv``, as `Session.tracks` has them; errors as `parse_cells`."""
    return parsed(path, data, TRACK_TYPES)


def parsed(path: Path, data: bytes | Path, types: dict[str, str]) -> pd.DataFrame:
    if not data:  # crashed before the first line
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})
    try:
        table = pd.read_csv(
            data if isinstance(data, Path) else io.BytesIO(data),
            dtype=types,
            usecols=lambda name: name in types,
            na_values=[""],
            keep_default_na=False,
        ).fillna({name: "" for name, kind in types.items() if kind == "str"})
        if "gap_frames" in types and "gap_frames" not in table:  # a session from before it was told
            table["gap_frames"] = table["last_frame"] - table["first_frame"] + 1 - table["frames"]
        return table[list(types)]
    except (ValueError, KeyError) as error:
        raise RunFailed(f"{path} cannot be read ({error}): restore it from a copy.") from error


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


NAME = "pieces.csv"
COLUMNS = ("cell", "may_continue")
Links = Mapping[int, Sequence[int]]
"""Of each track that may be a piece, the tracks that it may continue."""
COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
"""What the fraction is made of."""


def piece_rows(tracks: Sequence[Track]) -> bytes:
    """Return the lines of ``pieces.csv`` for tracks."""
    return "".join(f"{t.cell},{before}\n" for t in tracks for before in t.may_continue).encode()


def sort_pieces(path: Path) -> None:
    """Put the lines of ``pieces.csv`` into the order of their numbers.

    Raises
    ------
    OSError
        The table is then as it was.
    """
    first, *rows = whole_lines(path).splitlines(keepends=True)
    rows.sort(key=_numbers)
    replace_file(path, first + b"".join(rows))


def _numbers(row: bytes) -> list[int]:
    return [int(number) for number in row.split(b",")]


def read_links(folder: Path) -> Links:
    """Return the pairs of a session; empty where it has none, or is older than them.

    Raises
    ------
    RunFailed
        If the file cannot be read or is damaged.
    """
    path = folder / NAME
    try:
        data = whole_lines(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunFailed(f"{path} cannot be read ({error.strerror}): restore it from a copy.") from error
    links: dict[int, list[int]] = defaultdict(list)
    if data and not data.startswith(header(COLUMNS)):
        raise RunFailed(f"{path} does not begin with {','.join(COLUMNS)}: restore it from a copy.")
    try:
        for cell, before in list(csv.reader(io.StringIO(data.decode())))[1:]:
            links[int(cell)].append(int(before))
    except ValueError:
        raise RunFailed(f"{path} holds a line that is not two numbers: restore it from a copy.") from None
    return links


def behind(cell: int, links: Links) -> set[int]:
    """Return all tracks that one may continue, directly or through others."""
    found: set[int] = set()
    new = {cell}
    while new:
        new = {before for c in new for before in links.get(c, ())} - found
        found |= new
    return found - {cell}


def relatives(cell: int, links: Links) -> list[int]:
    """Return all tracks that may be of a track's cell: those that it may continue, and those that may it."""
    return sorted(behind(cell, links) | {other for other in links if cell in behind(other, links)})


def counted_twice(links: Links, labels: Mapping[int, str]) -> list[int]:
    """Return the counted tracks that may be of the same cell as one counted before them."""
    counted = {cell for cell, label in labels.items() if label in COUNTED}
    return sorted(cell for cell in links if cell in counted and behind(cell, links) & counted)


def findings(links: Links, labels: Mapping[int, str], reasons: Mapping[int, str]) -> list[str]:
    """Return where a cell may have been counted twice or left out without cause, a sentence each.

    Parameters
    ----------
    links : mapping
    labels, reasons : mapping of int to str
        Of every track, the machine's.
    """
    said = []
    numbers = {*links, *(before for all_ in links.values() for before in all_)}
    if unknown := sorted(numbers - set(labels)):
        said.append(f"{NAME} names {len(unknown)} cells that are not in cells.csv (first {unknown[0]}).")
    if twice := counted_twice(links, labels):
        said.append(
            f"cells.csv counts {len(twice)} cells that may be pieces of earlier ones (first {twice[0]})."
        )
    counted = {cell for cell, label in labels.items() if label in COUNTED}
    alone = sorted(
        cell for cell, reason in reasons.items() if reason == PIECE and not behind(cell, links) & counted
    )
    if alone:
        said.append(
            f"cells.csv leaves out {len(alone)} cells as pieces of counted ones, but {NAME} names none"
            f" (first {alone[0]})."
        )
    return said


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
