"""A person's changes of labels, ``changes.csv``: beside the machine's, never in their place."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.estimate import ANYTIME, FIXED_N, RunningFraction
from napari_rbcflow.ring import sync_folder, write_all
from napari_rbcflow.session.schema import FractionFigure
from napari_rbcflow.types import Label

if TYPE_CHECKING:
    from napari_rbcflow.session.reader import Session


CHANGES_FILE = "changes.csv"
STRUCK_OUT = "struck-out"
"""Not counted, because a person says so."""
JUDGED = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
"""What the networks can say of a cell. Only cells that they judged can be changed."""
BY_HAND = (*map(str, JUDGED), STRUCK_OUT)
"""What a person can say of a cell."""
_CUT = b" (cut by a crash)\n"
"""Closes a line that a crash cut, so that the next one is whole; nothing is taken out of the file."""


@dataclass(frozen=True)
class Change:
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


COLUMNS = tuple(f.name for f in fields(Change))
_HEADER = (",".join(COLUMNS) + "\n").encode()


@dataclass(frozen=True)
class Audit:
    """What ``changes.csv`` holds.

    Attributes
    ----------
    changes : list of Change
        In the order in which they were made.
    cut : list of int
        Lines that a crash cut: they were never shown as done, and count for nothing.
    faults : list of str
        What cannot be so, a sentence each.
    """

    changes: list[Change] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_audit(folder: Path) -> Audit:
    """Read ``changes.csv`` as far as it goes; empty where nobody changed a label.

    Raises
    ------
    RunFailed
        If it is there but cannot be read.
    """
    lines = _read(folder / CHANGES_FILE).splitlines(keepends=True)
    audit = Audit()
    if not lines:
        return audit
    if lines[0] != _HEADER:
        if len(lines) > 1 or not _HEADER.startswith(lines[0]):
            audit.faults.append(f"{CHANGES_FILE} does not begin with {','.join(COLUMNS)}.")
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
            audit.faults.append(f"{CHANGES_FILE}, line {number}: {error}.")
    return audit


def read_changes(folder: Path) -> list[Change]:
    """Return the changes in the order in which they were made.

    Raises
    ------
    RunFailed
        If the file was damaged: no number must be made from a part of it.
    """
    audit = read_audit(folder)
    if audit.faults:
        raise RunFailed(
            f"The changes by hand in {folder} cannot be believed: {audit.faults[0]}"
            f" Restore {CHANGES_FILE} from a copy."
        )
    return audit.changes


def append_change(folder: Path, change: Change) -> None:
    """Write a change behind all others; on the disk when it returns, or as if it had not been asked for.

    Raises
    ------
    OSError
    """
    path = folder / CHANGES_FILE
    is_new = not path.exists()
    there = b"" if is_new else path.read_bytes()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(astuple(change))
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


def standing(changes: Iterable[Change], machine: Mapping[int, str]) -> dict[int, Change]:
    """Return the last change of each cell that now has another label than the machine's.

    Parameters
    ----------
    changes : iterable of Change
        In order.
    machine : mapping of int to str
        The networks' labels; cells that it does not hold, or that they did not judge, stay out.
    """
    last = {change.cell: change for change in changes}
    return {
        cell: change
        for cell, change in last.items()
        if machine.get(cell) in JUDGED and change.now != machine[cell]
    }


def findings(audit: Audit, machine: Mapping[int, str], told: Mapping[int, str] | None = None) -> list[str]:
    """Return what is wrong with the changes of a session, a sentence each.

    Parameters
    ----------
    audit : Audit
    machine : mapping of int to str
        The networks' label of every cell of the session.
    told : mapping of int to str, optional
        The label that was told while the run went on, of cells that may have got another at its end.
    """
    said = list(audit.faults)
    said += [f"{CHANGES_FILE}: line {n} was cut by a crash and counts for nothing." for n in audit.cut]
    present: dict[int, str] = dict(machine)
    told = told or {}
    changed: set[int] = set()
    for change in audit.changes:
        cell = change.cell
        if cell not in machine:
            said.append(f"{CHANGES_FILE} changes cell {cell}, which is not in cells.csv.")
        elif machine[cell] not in JUDGED and told.get(cell) not in JUDGED:
            said.append(f"{CHANGES_FILE} changes cell {cell}, which was not judged ({machine[cell]}).")
        elif change.was != present[cell] and (cell in changed or change.was != told.get(cell)):
            said.append(
                f"{CHANGES_FILE} says that cell {cell} was {change.was} at {change.changed}, but it was"
                f" {present[cell]}: a line was taken out or altered, or two people changed it at once."
            )
        present[cell] = change.now
        changed.add(cell)
    return said


def names(changes: Sequence[Change]) -> str:
    """Return who made the changes, each once, in order."""
    return ", ".join(dict.fromkeys(change.by for change in changes))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunFailed(f"{path} cannot be read ({error.strerror}): restore it from a copy.") from error


def _change(line: bytes) -> Change:
    """Parse a whole line.

    Raises
    ------
    ValueError
        With what is wrong, as part of a sentence.
    """
    try:
        rows = list(csv.reader([line.decode()], strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise ValueError("it is not text in columns") from None
    if len(rows) != 1 or len(rows[0]) != len(COLUMNS):
        raise ValueError(f"it has not {len(COLUMNS)} columns")
    changed, by, cell, was, now = rows[0]
    try:
        if datetime.fromisoformat(changed).utcoffset() is None:
            raise ValueError
    except ValueError:
        raise ValueError(f"{changed!r} is not a time with its offset") from None
    if not by:
        raise ValueError("it names nobody")
    if not (cell.isascii() and cell.isdecimal() and int(cell) > 0):
        raise ValueError(f"{cell!r} is not a cell")
    for label in (was, now):
        if label not in BY_HAND:
            raise ValueError(f"{label!r} is not a label that can be given by hand")
    return Change(changed, by, int(cell), was, now)


def by_hand(session: Session) -> FractionFigure | None:
    """Return a session's fraction with the changes by hand.

    The interval is of the machine's kind, at its level (`shown_figure`). It covers the chance of counting
    only: that a person chose which cells to change is not in it.

    Parameters
    ----------
    session : Session

    Returns
    -------
    FractionFigure or None
        None where no cell has another label than the machine's.

    Raises
    ------
    RunFailed
        If ``changes.csv`` is damaged.
    """
    if not session.changes_standing:
        return None
    labels, told = session.labels_by_hand, session.fraction
    k, m = int((labels == Label.TANK_TREADING).sum()), int((labels == Label.FLIPPING).sum())
    return shown_figure(k, m, told.level, told.method)


def shown_figure(tank_treading: int, flipping: int, level: float, method: str) -> FractionFigure:
    """Return the fraction of counts by hand, with an interval no narrower than the machine's kind.

    Where the machine's is fixed-width or anytime, it is the anytime interval of one look at these counts: a
    person's changes have no order in which they were counted, and no rule stopped the run by them.
    """
    fraction = RunningFraction(level)
    fraction.update(tank_treading=tank_treading, flipping=flipping)
    if method in FIXED_N:
        return FractionFigure.of(fraction, fraction.interval(method), method)
    return FractionFigure.of(fraction, fraction.anytime_interval(), ANYTIME)


def what_the_machine_said(changes: list[Change]) -> Mapping[int, str]:
    """Return the machine's label of each changed cell: what it was before its first change."""
    first: dict[int, str] = {}
    for change in changes:
        first.setdefault(change.cell, change.was)
    return first
