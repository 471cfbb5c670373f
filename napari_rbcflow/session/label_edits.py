"""Labels changed by a person, ``changes.csv``: beside the machine's labels, never in their place."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from pathlib import Path

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.estimate import ANYTIME, FIXED_N, RunningFraction
from napari_rbcflow.ring import sync_folder, write_all
from napari_rbcflow.sentences import say
from napari_rbcflow.session.schema import FractionFigure
from napari_rbcflow.session.tables import unreadable
from napari_rbcflow.types import Label

CHANGES_FILE = "changes.csv"
STRUCK_OUT = "struck-out"
"""Excluded from the count by a person."""
JUDGED = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
"""The labels of cells that the networks judged. Only those can be changed."""
BY_HAND = (*map(str, JUDGED), STRUCK_OUT)
"""The labels that a person can give."""
_CUT = b" (cut by a crash)\n"
"""Ends a line that a crash cut, so that the next one is whole; nothing is removed from the file."""


@dataclass(frozen=True)
class LabelChange:
    """One line of ``changes.csv``.

    Attributes
    ----------
    changed : str
        ISO 8601 with offset.
    by : str
    cell : int
    was, now : str
        Labels, of `BY_HAND`.
    """

    changed: str
    by: str
    cell: int
    was: str
    now: str


COLUMNS = tuple(f.name for f in fields(LabelChange))
_HEADER = (",".join(COLUMNS) + "\n").encode()


@dataclass(frozen=True)
class Audit:
    """What ``changes.csv`` holds."""

    changes: list[LabelChange] = field(default_factory=list)
    """In the order in which they were made."""
    cut: list[int] = field(default_factory=list)
    """Lines that a crash cut: they were never shown as done, and are ignored."""
    faults: list[str] = field(default_factory=list)
    """What cannot be right, a sentence each."""


def read_audit(folder: Path) -> Audit:
    """Read ``changes.csv`` as far as it goes; empty if nobody changed a label."""
    lines = _read(folder / CHANGES_FILE).splitlines(keepends=True)
    audit = Audit()
    if not lines:
        return audit
    if lines[0] != _HEADER:
        if len(lines) > 1 or not _HEADER.startswith(lines[0]):
            audit.faults.append(say("session.changes-first-line", columns=",".join(COLUMNS)))
        else:
            audit.cut.append(1)
        return audit
    for number, line in enumerate(lines[1:], start=2):
        if not line.endswith(b"\n") or line.endswith(_CUT):
            audit.cut.append(number)
            continue
        try:
            audit.changes.append(_change(line))
        except ValueError as error:
            audit.faults.append(say("session.changes-line", line=number, why=error))
    return audit


def read_changes(folder: Path) -> list[LabelChange]:
    """Return the changes in their order; `RunFailed` if any is damaged, as no number may rest on a part."""
    audit = read_audit(folder)
    if audit.faults:
        raise RunFailed("session.changes-unusable", folder=folder, fault=audit.faults[0])
    return audit.changes


def append_changes(folder: Path, changes: Iterable[LabelChange]) -> None:
    """Write changes behind all others; on the disk when it returns, the file as it was on an `OSError`."""
    path = folder / CHANGES_FILE
    is_new = not path.exists()
    there = b"" if is_new else path.read_bytes()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(astuple, changes))
    data = text.getvalue().encode()
    if b"\n" not in there:  # none yet, or a crash cut the very first line
        data = _HEADER + data
    elif not there.endswith(b"\n"):
        data = _CUT + data
    with path.open("ab", buffering=0) as file:
        if there and b"\n" not in there:
            file.truncate(0)
        end = os.fstat(file.fileno()).st_size
        try:
            write_all(file, data)
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise
    if is_new:
        sync_folder(folder)


def in_force(changes: Iterable[LabelChange], machine: Mapping[int, str]) -> dict[int, LabelChange]:
    """Return the last change of each judged cell that now has another label than the machine's."""
    last = {change.cell: change for change in changes}
    return {
        cell: change
        for cell, change in last.items()
        if machine.get(cell) in JUDGED and change.now != machine[cell]
    }


def findings(audit: Audit, machine: Mapping[int, str], told: Mapping[int, str] | None = None) -> list[str]:
    """Return what is wrong with the changes of a session, a sentence each.

    `machine` holds the networks' label of every cell, `told` the one that it had during the run.
    """
    found = list(audit.faults)
    found += [say("session.changes-line-cut", line=line) for line in audit.cut]
    present: dict[int, str] = dict(machine)
    told = told or {}
    changed: set[int] = set()
    for change in audit.changes:
        cell = change.cell
        if cell not in machine:
            found.append(say("session.changes-unknown-cell", cell=cell))
        elif machine[cell] not in JUDGED and told.get(cell) not in JUDGED:
            found.append(say("session.changes-unjudged-cell", cell=cell, label=machine[cell]))
        elif change.was != present[cell] and (cell in changed or change.was != told.get(cell)):
            found.append(
                say(
                    "session.changes-do-not-follow",
                    cell=cell,
                    was=change.was,
                    time=change.changed,
                    present=present[cell],
                )
            )
        present[cell] = change.now
        changed.add(cell)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def _change(line: bytes) -> LabelChange:
    """Parse a whole line; ValueError with what is wrong, as part of a sentence."""
    try:
        rows = list(csv.reader([line.decode()], strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(say("session.changes-not-columns")) from None
    if len(rows) != 1 or len(rows[0]) != len(COLUMNS):
        raise ValueError(say("session.changes-column-count", columns=len(COLUMNS)))
    changed, by, cell, was, now = rows[0]
    try:
        if datetime.fromisoformat(changed).utcoffset() is None:
            raise ValueError
    except ValueError:
        raise ValueError(say("session.changes-not-a-time", text=changed)) from None
    if not by:
        raise ValueError(say("session.changes-nobody"))
    if not (cell.isascii() and cell.isdecimal() and int(cell) > 0):
        raise ValueError(say("session.changes-not-a-cell", text=cell))
    for label in (was, now):
        if label not in BY_HAND:
            raise ValueError(say("session.changes-not-a-label", text=label))
    return LabelChange(changed, by, int(cell), was, now)


def figure_by_hand(tank_treading: int, flipping: int, level: float, method: str) -> FractionFigure:
    """Return the fraction of counts by hand, with an interval no narrower than the machine's kind.

    Where the machine's is fixed-width or anytime, it is the anytime interval of these counts at once: a
    person's changes have no order in which they were counted, and no rule stopped the run by them. It covers
    the chance of counting only, not that a person chose which cells to change.
    """
    fraction = RunningFraction(level)
    fraction.update(tank_treading=tank_treading, flipping=flipping)
    if method in FIXED_N:
        return FractionFigure.of(fraction, fraction.interval(method), method)
    return FractionFigure.of(fraction, fraction.anytime_interval(), ANYTIME)


def machine_labels(changes: Iterable[LabelChange]) -> Mapping[int, str]:
    """Return the machine's label of each changed cell: the one before its first change."""
    first: dict[int, str] = {}
    for change in changes:
        first.setdefault(change.cell, change.was)
    return first
