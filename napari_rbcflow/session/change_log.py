"""Adding to a person's changes of labels: the change on disk first, then the report written anew."""

from __future__ import annotations

import contextlib
import errno
import getpass
from collections import Counter
from pathlib import Path

from napari_rbcflow.errors import BadInput, RunFailed, sentence_of
from napari_rbcflow.estimate import ANYTIME
from napari_rbcflow.ring import is_full
from napari_rbcflow.session.label_edits import (
    BY_HAND,
    CHANGES_FILE,
    JUDGED,
    Change,
    append_change,
    read_changes,
    shown_figure,
    standing,
    what_the_machine_said,
)
from napari_rbcflow.session.report import tells_of_changes, write_report
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
        return {
            cell: change.now for cell, change in standing(changes, what_the_machine_said(changes)).items()
        }

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
        machine = what_the_machine_said(changes)
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


def login_name() -> str:
    """Return the name under which this computer knows the person; never empty."""
    with contextlib.suppress(Exception):  # which of several it is, the systems do not agree on
        if name := _one_line(getpass.getuser()):
            return name
    return "unknown person"


def _one_line(name: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


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
