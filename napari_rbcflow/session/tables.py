"""``cells.csv``, ``tracks.csv``, ``pieces.csv``: rows of tracks, read, checked and sorted."""

from __future__ import annotations

import codecs
import contextlib
import csv
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.estimate import FRAGMENT
from napari_rbcflow.ring import rename_over, replace_file, sync_folder, write_all
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Judgement, Label, Track

if TYPE_CHECKING:
    import pandas as pd

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
"""`gap_frames`: frames between the first and the last without a picture, lost or not analysed."""
TRACK_TYPES = {"cell": "int64", "frame": "int64", "y_px": "float64", "x_px": "float64", "seen": "int64"}
CELL_COLUMNS, TRACK_COLUMNS = tuple(CELL_TYPES), tuple(TRACK_TYPES)
OLDER_CELL_COLUMNS = tuple(name for name in CELL_COLUMNS if name != "gap_frames")
"""Older sessions have no `gap_frames`."""
Fingerprint = dict[str, int | str]  # a file's bytes and sha256, as run.json holds them under files


def cell_rows(pairs: Sequence[tuple[Track, Judgement]], *, fps: float, pixel_size_um: float) -> bytes:
    """Return the rows of ``cells.csv`` for tracks and their judgements."""
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
    """Return a track's speed as in ``cells.csv``, to two decimals."""
    return float(np.round(track.speed_px_per_frame() * pixel_size_um * fps, 2) + 0.0)


def track_rows(tracks: Sequence[Track]) -> bytes:
    """Return the rows of ``tracks.csv``, one for each position."""
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
    """Return a table's bytes up to its last whole line: a crash may have cut the one behind."""
    return _whole_lines(path.read_bytes())


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def ends_with_a_line(path: Path) -> bool:
    """Say whether a table has a line, and nothing behind its last whole one."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def fingerprint(path: Path) -> Fingerprint:
    """Return a file's size and SHA-256."""
    try:
        with path.open("rb") as file:
            return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def unreadable(path: Path, why: object) -> RunFailed:
    """Return the error for a file of a session that is missing or damaged."""
    return RunFailed("session.unreadable", path=path, why=why)


def parsed(path: Path, data: bytes | Path, types: dict[str, str]) -> pd.DataFrame:
    """Return whole lines of a table, its first line with them, or all of a file; `unreadable` if damaged."""
    import pandas as pd

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
        if "gap_frames" in types and "gap_frames" not in table:  # an older session
            table["gap_frames"] = table["last_frame"] - table["first_frame"] + 1 - table["frames"]
        return table[list(types)]
    except (ValueError, KeyError, OverflowError, OSError) as error:
        raise unreadable(path, error) from error


_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class Spans:
    """What the positions of a session span."""

    of_cell: pd.DataFrame  # by known cell: size, min and max of its frames
    in_order: bool  # whether their rows are in the order of cell, then frame
    surplus: int  # rows of other cells


def spans(path: Path, cells: NDArray[np.int64]) -> Spans:
    """Go through ``tracks.csv``; `cells` are those that are known."""
    import pandas as pd

    known, tables = np.unique(cells), []
    in_order, surplus, last = True, 0, (-1, -1)
    for block in _blocks(path):
        table = parsed(path, block, TRACK_TYPES)
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
        of_block = pd.DataFrame({"cell": cell, "frame": frame}).groupby("cell")["frame"]
        tables.append(of_block.agg(["size", "min", "max"]))
    none = pd.DataFrame({"size": [], "min": [], "max": []}, index=pd.Index([], name="cell"), dtype=np.int64)
    together = pd.concat(tables) if tables else none
    of_cell = together.groupby("cell").agg({"size": "sum", "min": "min", "max": "max"})
    return Spans(of_cell, in_order, surplus)


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield blocks of whole lines, each under the table's first line; a line cut by a crash is left out."""
    try:
        with path.open("rb") as file:
            first, rest = file.readline(), b""
            while data := file.read(_BLOCK_BYTES):
                data = rest + data
                end = data.rfind(b"\n") + 1
                if end:
                    yield first + data[:end]
                rest = data[end:]
    except OSError as error:
        raise unreadable(path, error) from error


_COMPARED = 400  # bytes before the end that must still be the same: a writer may have removed rows


@dataclass(frozen=True, eq=False)
class CellsSoFar:
    """``cells.csv`` up to its last whole line."""

    cells: pd.DataFrame
    _size: int
    _inode: int
    _first_line: bytes
    _last: bytes


def read_on(folder: Path, before: CellsSoFar | None = None) -> CellsSoFar:
    """Read ``cells.csv``; of a table that has only grown since `before`, only what is new."""
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
        raise unreadable(path, error) from error
    first_line = data[: data.find(b"\n") + 1]
    return CellsSoFar(parsed(path, data, CELL_TYPES), len(data), inode, first_line, data[-_COMPARED:])


def _longer(path: Path, before: CellsSoFar, data: bytes) -> CellsSoFar:
    import pandas as pd

    data = _whole_lines(data)
    new = data[len(before._last) :]
    if not new:
        return before
    more = parsed(path, before._first_line + new, CELL_TYPES)
    cells = pd.concat([before.cells, more], ignore_index=True)
    return CellsSoFar(cells, before._size + len(new), before._inode, before._first_line, data[-_COMPARED:])


FRAGMENTS_FILE = "pieces.csv"
FRAGMENT_COLUMNS = ("cell", "may_continue")
Links = Mapping[int, Sequence[int]]  # of each track that may be a fragment, the tracks that it may continue
COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
"""What the fraction is made of."""


def fragment_rows(tracks: Sequence[Track]) -> bytes:
    """Return the lines of ``pieces.csv`` for tracks."""
    return "".join(f"{t.cell},{before}\n" for t in tracks for before in t.may_continue).encode()


def sort_fragments(path: Path) -> None:
    """Put the lines of ``pieces.csv`` into the order of their numbers; left as it was on an `OSError`."""
    first, *rows = whole_lines(path).splitlines(keepends=True)
    rows.sort(key=lambda row: [int(number) for number in row.split(b",")])
    replace_file(path, first + b"".join(rows))


def read_links(folder: Path) -> Links:
    """Read ``pieces.csv``; empty where a session has none."""
    path = folder / FRAGMENTS_FILE
    try:
        data = whole_lines(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error.strerror) from error
    links: dict[int, list[int]] = defaultdict(list)
    if data and not data.startswith(header(FRAGMENT_COLUMNS)):
        raise RunFailed("session.wrong-first-line", path=path, columns=",".join(FRAGMENT_COLUMNS))
    try:
        for cell, before in list(csv.reader(io.StringIO(data.decode())))[1:]:
            links[int(cell)].append(int(before))
    except ValueError:
        raise RunFailed("session.not-two-numbers", path=path) from None
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
    """Return all other tracks that may be of the same cell: those before it, and those that continue it."""
    return sorted(behind(cell, links) | {other for other in links if cell in behind(other, links)})


def counted_twice(links: Links, labels: Mapping[int, str]) -> list[int]:
    """Return the counted tracks that may be of the same cell as one counted before them."""
    counted = {cell for cell, label in labels.items() if label in COUNTED}
    return sorted(cell for cell in links if cell in counted and behind(cell, links) & counted)


def findings(links: Links, labels: Mapping[int, str], reasons: Mapping[int, str]) -> list[str]:
    """Return where a cell may be counted twice or left out without cause, by the machine's labels."""
    found = []
    numbers = {*links, *(before for all_ in links.values() for before in all_)}
    if unknown := sorted(numbers - set(labels)):
        found.append(say("session.found-fragments-unknown", cells=len(unknown), first=unknown[0]))
    if twice := counted_twice(links, labels):
        found.append(say("session.found-fragments-counted", cells=len(twice), first=twice[0]))
    counted = {cell for cell, label in labels.items() if label in COUNTED}
    alone = sorted(
        cell for cell, reason in reasons.items() if reason == FRAGMENT and not behind(cell, links) & counted
    )
    if alone:
        found.append(say("session.found-fragments-left-out", cells=len(alone), first=alone[0]))
    return found


_WINDOW_BYTES = 8 << 20  # bytes of the sorted table that are gathered at once
_APART_BYTES = 256 << 10
"""A gap between two tracks that is read along with them: tracks end nearly in their order."""
_MOST_BETWEEN = 4  # the gaps read along may be this many times a window
_SYNCED_BYTES = 64 << 20  # synced at once, so that the disk works while the rest is gathered


def sort_cells(
    path: Path, changed: Mapping[int, tuple[str, str]] | None = None
) -> tuple[Fingerprint, pd.DataFrame]:
    """Put the rows of ``cells.csv`` into the order of `last_frame`, then `cell`, and return the table.

    `changed` holds the label and reason of the cells that get others. On an `OSError` the file is as it was.
    """
    data = whole_lines(path)
    cells = parsed(path, data, CELL_TYPES)
    order = np.lexsort((cells["cell"].to_numpy(), cells["last_frame"].to_numpy()))
    first, *rows = data.splitlines(keepends=True)
    for row in np.flatnonzero(cells["cell"].isin(changed or ())).tolist():
        new = (changed or {})[int(cells["cell"].iloc[row])]
        fields = rows[row].decode().split(",")
        for column, value in zip(("label", "reason"), map(str, new), strict=True):
            fields[CELL_COLUMNS.index(column)] = value
            cells.loc[row, column] = value
        rows[row] = ",".join(fields).encode()
    data = first + b"".join([rows[row] for row in order.tolist()])
    del rows  # after an hour they are most of what the close holds
    replace_file(path, data)
    fingerprint: Fingerprint = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del data
    return fingerprint, cells.iloc[order].reset_index(drop=True)


def sort_tracks(path: Path, cells: NDArray[np.int64], lengths: NDArray[np.int64]) -> Fingerprint | None:
    """Put the rows of ``tracks.csv`` into the order of `cell`, then `frame`.

    `cells` and `lengths` are the tracks as they were written, and the rows of each. Where they do not fit
    the table it is left alone, and None is returned. On an `OSError` the file is as it was.
    """
    if not len(cells):
        return None
    last = np.cumsum(lengths)
    beside = path.with_name(path.name + ".new")
    sum_, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            # Only where each track ends: the table of an hour is too long to be held.
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
    """Yield the first line, then blocks of tracks in an order; `ends` (m + 1,): where line and tracks end."""
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
    """Return parts of a file, one behind the other; those close together are read at once."""
    by_place = np.argsort(begin, kind="stable")
    gaps = begin[by_place[1:]] - end[by_place[:-1]]
    between = gaps <= _APART_BYTES
    if gaps[between].sum() > _MOST_BETWEEN * _WINDOW_BYTES:  # in no order at all
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
    """Return the byte behind each of some lines (numbers from 0, ascending), and how many lines there are."""
    ends: list[NDArray[np.int64]] = []
    place = n_lines = 0
    while block := file.read(_BLOCK_BYTES):
        here = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
        first, behind = np.searchsorted(lines, [n_lines, n_lines + len(here)])
        ends.append(place + 1 + here[lines[first:behind] - n_lines])
        place += len(block)
        n_lines += len(here)
    return np.concatenate(ends) if ends else np.zeros(0, np.int64), n_lines


def spreadsheet_rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of each row of a CSV file as spreadsheets write it, the columns' names first.

    Separated by commas, semicolons or tabs, in UTF-8, UTF-16 or the code page of western Europe and America.

    Raises
    ------
    UnicodeError, csv.Error
        If it cannot be read.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeError:
            text = data.decode("cp1252", "replace")
    # A comma is no separator where it stands in numbers.
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    for row in reader:
        yield reader.line_num, [cell.strip() for cell in row]
