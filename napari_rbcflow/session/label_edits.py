"""A person's changes of labels, ``changes.csv``: beside the machine's, never in their place."""

from __future__ import annotations

import contextlib
import csv
import errno
import getpass
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from napari_rbcflow.errors import BadInput, RunFailed, sentence_of
from napari_rbcflow.estimate import ANYTIME, FIXED_N, RunningFraction
from napari_rbcflow.ring import is_full, sync_folder, write_all
from napari_rbcflow.session.schema import FractionFigure, is_being_written, read_run
from napari_rbcflow.session.schema import now as time_now
from napari_rbcflow.session.tables import (
    CELL_COLUMNS,
    COUNTED,
    OLDER_CELL_COLUMNS,
    read_links,
    relatives,
    whole_lines,
)
from napari_rbcflow.types import LEAST_FRAMES, Label

if TYPE_CHECKING:
    from napari_rbcflow.session.reader import Session

__all__ = ["BY_HAND", "STRUCK_OUT", "Change", "ChangeLog", "by_hand", "login_name", "shown_figure"]


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


_LABEL, _REASON = CELL_COLUMNS.index("label"), CELL_COLUMNS.index("reason")
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR})
_NOT_JUDGED = {
    "too-short": f"it was seen in under {LEAST_FRAMES} frames",
    "after-stop": "it ended after the stop, when the number was frozen",
    "cut-by-stop": "it was still in the picture at the stop",
    "run-failed": "the run broke before it was judged",
    "too-few-frames": "it was seen in fewer frames than a cell must be to count in this run",
    "piece": "it may be another piece of a cell that is counted already",
}


class ChangeLog:
    """The changes by hand of one session, running or closed; reads them and adds to them.

    Attributes
    ----------
    folder : Path
    report_fault : str
        After `add` or `bring_report_up_to_date`: a sentence where the change is kept but
        ``report.html`` could not be written anew; else empty.

    Raises
    ------
    BadInput
        If `folder` is not a session.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        read_run(self.folder)
        self.report_fault = ""

    def all(self) -> list[Change]:
        """Return all changes, in the order in which they were made.

        Raises
        ------
        RunFailed
            If the file is damaged.
        """
        return read_changes(self.folder)

    def labels(self) -> dict[int, str]:
        """Return the present label by hand of each cell whose label is another than the machine's."""
        changes = self.all()
        return {cell: change.now for cell, change in standing(changes, _machine(changes)).items()}

    def add(self, cell: int, now: str, by: str = "") -> Change:
        """Give a cell another label; on the disk when this returns.

        Where the session is closed its report is written anew; see `report_fault`.

        Parameters
        ----------
        cell : int
        now : str
            One of `BY_HAND`; the machine's own label takes the change back.
        by : str
            Who. Empty: `login_name`.

        Returns
        -------
        Change

        Raises
        ------
        BadInput
            If the session has no such cell, or one that was not judged; if `now` is no label, or the
            one that the cell has already; if it would count twice, as another piece of it counts; if
            the folder cannot be written to. Nothing was written.
        RunFailed
            If the file is damaged, or the disk takes no more.
        """
        if now not in BY_HAND:
            raise BadInput(f"{now!r} is no label: choose {', '.join(BY_HAND[:-1])} or {BY_HAND[-1]}.")
        machine = self._machine_label(int(cell))
        last = [change.now for change in self.all() if change.cell == cell]
        was = last[-1] if last else machine
        if now == was:
            raise BadInput(f"Cell {cell} is {was} already: there is nothing to change.")
        if now in COUNTED and (other := self._other_piece(int(cell))) is not None:
            raise BadInput(
                f"Cell {cell} may be another piece of cell {other}, which counts already:"
                f" strike out cell {other} first, or leave cell {cell} as it is."
            )
        change = Change(time_now(), _one_line(by) or login_name(), int(cell), was, str(now))
        try:
            append_change(self.folder, change)
        except OSError as error:
            raise _refusal(self.folder / CHANGES_FILE, error) from error
        self.bring_report_up_to_date()
        return change

    def take_back(self, cell: int, by: str = "") -> Change:
        """Give a cell the machine's label again; parameters and errors as `add`."""
        return self.add(cell, self._machine_label(int(cell)), by)

    def bring_report_up_to_date(self) -> None:
        """Write ``report.html`` anew if the session is closed and the page does not tell of all changes.

        To be called at the end of a run too: a change made in the moment of the close may have
        come after the page.
        """
        from napari_rbcflow.session.report import tells_of_changes, write_report

        self.report_fault = ""
        try:
            run = read_run(self.folder)
            # Who writes the session writes its page too, and two at once would spoil it.
            if run["status"] == "running" or is_being_written(self.folder):
                return
            if tells_of_changes(self.folder, len(self.all())):
                return
            write_report(self.folder, run)
        except Exception as error:  # a report is made from everything; the change itself is kept
            said = error.strerror or str(error) if isinstance(error, OSError) else sentence_of(error)
            self.report_fault = f"The change is kept, but report.html could not be written anew ({said})."

    def figure(
        self, *, tank_treading: int, flipping: int, level: float = 0.95, method: str = ANYTIME
    ) -> FractionFigure | None:
        """Return the fraction with the changes from the machine's counts alone, while a run goes on.

        Parameters
        ----------
        tank_treading, flipping : int
            Cells that the machine has counted, those that were changed included.
        level, method
            Of the machine's interval.

        Returns
        -------
        FractionFigure or None
            None where no cell has another label than the machine's.
        """
        changes = self.all()
        machine = _machine(changes)
        stand = standing(changes, machine)
        if not stand:
            return None
        counts = Counter({str(Label.TANK_TREADING): tank_treading, str(Label.FLIPPING): flipping})
        for cell, change in stand.items():
            counts[machine[cell]] -= 1
            counts[change.now] += 1
        # A cell is told before it is counted, by a moment.
        k, m = max(0, counts[Label.TANK_TREADING]), max(0, counts[Label.FLIPPING])
        return shown_figure(k, m, level, method)

    def _other_piece(self, cell: int) -> int | None:
        """Return a track that counts now and may be of the same cell."""
        last = {change.cell: change.now for change in self.all()}
        for other in relatives(cell, read_links(self.folder)):
            row = _row(self.folder / "cells.csv", other)
            if last.get(other, row[_LABEL] if row else "") in COUNTED:
                return other
        return None

    def _machine_label(self, cell: int) -> str:
        fields = _row(self.folder / "cells.csv", cell)
        if fields is None:
            raise BadInput(f"{self.folder} has no cell {cell}: see its cells.csv.")
        label, reason = fields[_LABEL], fields[_REASON]
        if label not in JUDGED:
            why = _NOT_JUDGED.get(reason, label)
            raise BadInput(
                f"Cell {cell} was not judged ({why}), so its label cannot be changed: only judged cells can."
            )
        return label


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


def login_name() -> str:
    """Return the name under which this computer knows the person; never empty."""
    with contextlib.suppress(Exception):  # which of several it is, the systems do not agree on
        if name := _one_line(getpass.getuser()):
            return name
    return "unknown person"


def _one_line(name: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def _machine(changes: list[Change]) -> Mapping[int, str]:
    """Return the machine's label of each changed cell: what it was before its first change."""
    first: dict[int, str] = {}
    for change in changes:
        first.setdefault(change.cell, change.was)
    return first


def _row(path: Path, cell: int) -> list[str] | None:
    """Return a row of ``cells.csv``: a thousandth of the time that reading it as a table takes."""
    try:
        data = whole_lines(path)
    except OSError as error:
        raise RunFailed(f"{path} cannot be read ({error.strerror}): restore it from a copy.") from error
    begin = data.find(b"\n%d," % cell) + 1
    if not begin:
        return None
    fields = data[begin : data.index(b"\n", begin)].decode(errors="replace").split(",")
    return fields if len(fields) in (len(CELL_COLUMNS), len(OLDER_CELL_COLUMNS)) else None


def _refusal(path: Path, error: OSError) -> BadInput | RunFailed:
    if is_full(error):
        return RunFailed(f"The change was not kept, as the disk that holds {path} is full: free some space.")
    said = error.strerror or str(error)
    if error.errno in _NO_RIGHT:
        return BadInput(
            f"The change was not kept, as {path} cannot be written ({said}): ask for the right to write"
            " there, or copy the session to a folder of yours."
        )
    return RunFailed(f"The change was not kept, as {path} cannot be written ({said}): check the disk.")
