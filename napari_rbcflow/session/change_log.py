"""Changing labels by hand: the change goes to the disk first, then the report is written again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import ANYTIME
from napari_rbcflow.sentences import say
from napari_rbcflow.session.append_only import one_line
from napari_rbcflow.session.label_edits import (
    BY_HAND,
    JUDGED,
    LabelChange,
    append_changes,
    figure_by_hand,
    in_force,
    machine_labels,
    read_changes,
)
from napari_rbcflow.session.report import shows_changes, write_report_again
from napari_rbcflow.session.schema import FractionFigure, locked, read_run
from napari_rbcflow.session.schema import now as time_now
from napari_rbcflow.session.tables import (
    CELL_COLUMNS,
    COUNTED,
    OLDER_CELL_COLUMNS,
    read_links,
    relatives,
    unreadable,
    whole_lines,
)
from napari_rbcflow.types import LEAST_FRAMES, Label

_LABEL, _REASON = CELL_COLUMNS.index("label"), CELL_COLUMNS.index("reason")
_NOT_JUDGED = {
    "too-short": "session.not-judged-too-short",
    "after-stop": "session.not-judged-after-stop",
    "cut-by-stop": "session.not-judged-cut-by-stop",
    "run-failed": "session.not-judged-run-failed",
    "too-few-frames": "session.not-judged-too-few-frames",
    "piece": "session.not-judged-fragment",
}


class ChangeLog:
    """Reads and adds the changes by hand of one session, running or closed.

    Attributes
    ----------
    folder : Path
    report_fault : str
        After `add` or `bring_report_up_to_date`: a sentence if the change is saved but ``report.html``
        could not be updated; else empty.

    Raises
    ------
    BadInput
        If `folder` is not a session.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        read_run(self.folder)
        self.report_fault = ""

    def all(self) -> list[LabelChange]:
        """Return all changes, in the order in which they were made; `RunFailed` if the file is damaged."""
        return read_changes(self.folder)

    def labels(self) -> dict[int, str]:
        """Return the label by hand of each cell whose label is now another than the machine's."""
        changes = self.all()
        return {cell: change.now for cell, change in in_force(changes, machine_labels(changes)).items()}

    def add(self, cell: int, now: str, by: str) -> LabelChange:
        """Give a cell another label; on the disk when this returns.

        If the session is closed its report is written again; see `report_fault`.

        Parameters
        ----------
        cell : int
        now : str
            ``tank-treading``, ``flipping``, ``unreliable`` or ``struck-out`` (excluded); the machine's own
            label undoes the change.
        by : str
            Who.

        Returns
        -------
        LabelChange

        Raises
        ------
        BadInput
            If nobody is named, if the session has no such cell or it was not judged, if `now` is not a
            label or the one that it already has, if the cell would count twice because a fragment of it
            counts, or if the folder cannot be written to. Nothing was written.
        RunFailed
            If the file is damaged, or the disk is full.
        """
        changes = self.add_all({cell: now}, by)
        if not changes:
            raise BadInput("session.label-unchanged", cell=cell, label=now)
        return changes[0]

    def add_all(self, labels: Mapping[int, str | None], by: str) -> list[LabelChange]:
        """Give several cells their labels in one step: all of them, or none where one is refused.

        Parameters
        ----------
        labels : mapping of int to str or None
            The label of each cell, as in `add`; None is the machine's own. Cells that have theirs already
            are left out.
        by : str
            As in `add`.

        Returns
        -------
        list of LabelChange
            One for each label that is now another.

        Raises
        ------
        BadInput, RunFailed
            As `add`, but for a label that a cell already has.
        """
        for label in labels.values():
            if label is not None and label not in BY_HAND:
                *others, last_label = BY_HAND
                raise BadInput(
                    "session.not-a-label", label=str(label), labels=", ".join(others), last=last_label
                )
        if not (who := one_line(by)):
            raise BadInput("session.review-by-nobody")
        with locked(self.folder / "cells.csv"):  # what a label was, nobody changes meanwhile
            changes = self._add_all(labels, who)
        if changes:
            self.bring_report_up_to_date()
        return changes

    def _add_all(self, labels: Mapping[int, str | None], who: str) -> list[LabelChange]:
        table, present = self._rows(), {change.cell: change.now for change in self.all()}
        when, changes = time_now(), []
        for cell, label in labels.items():
            machine = self._machine_label(table, int(cell))
            now, was = str(label or machine), present.get(int(cell), machine)
            if now == was:
                continue
            present[int(cell)] = now
            changes.append(LabelChange(when, who, int(cell), was, now))
        # Only now: the labels that are given together may be those of fragments of one cell.
        counted = [change.cell for change in changes if change.now in COUNTED]
        links = read_links(self.folder) if counted else {}
        for cell in counted:
            for other in relatives(cell, links):
                row = _row(table, other)
                if present.get(other, row[_LABEL] if row else "") in COUNTED:
                    raise BadInput("session.counted-as-another-fragment", cell=cell, other=other)
        if changes:
            append_changes(self.folder, changes)
        return changes

    def take_back(self, cell: int, by: str) -> LabelChange:
        """Give a cell the machine's label again; parameters and errors as `add`."""
        return self.add(cell, self._machine_label(self._rows(), int(cell)), by)

    def bring_report_up_to_date(self) -> None:
        """Write ``report.html`` again if the session is closed and the page does not show all changes.

        Call it at the end of a run too: a change made during the close may be later than the page.
        """
        self.report_fault = write_report_again(
            self.folder, unless=lambda: shows_changes(self.folder, len(self.all()))
        )

    def figure(
        self, *, tank_treading: int, flipping: int, level: float = 0.95, method: str = ANYTIME
    ) -> FractionFigure | None:
        """Return the fraction with the changes, from the machine's counts during a run.

        Parameters
        ----------
        tank_treading, flipping : int
            Cells that the machine has counted, including those that were changed.
        level, method
            Of the machine's interval.

        Returns
        -------
        FractionFigure or None
            None if no cell has another label than the machine's.
        """
        changes = self.all()
        machine = machine_labels(changes)
        changed = in_force(changes, machine)
        if not changed:
            return None
        counts = Counter({str(Label.TANK_TREADING): tank_treading, str(Label.FLIPPING): flipping})
        for cell, change in changed.items():
            counts[machine[cell]] -= 1
            counts[change.now] += 1
        # A cell is shown a moment before it is counted.
        k, m = max(0, counts[Label.TANK_TREADING]), max(0, counts[Label.FLIPPING])
        return figure_by_hand(k, m, level, method)

    def _machine_label(self, table: bytes, cell: int) -> str:
        fields = _row(table, cell)
        if fields is None:
            raise BadInput("session.no-such-cell", folder=self.folder, cell=cell)
        label, reason = fields[_LABEL], fields[_REASON]
        if label not in JUDGED:
            why = say(_NOT_JUDGED[reason], frames=LEAST_FRAMES) if reason in _NOT_JUDGED else label
            raise BadInput("session.cannot-be-changed", cell=cell, why=why)
        return label

    def _rows(self) -> bytes:
        path = self.folder / "cells.csv"
        try:
            return whole_lines(path)
        except OSError as error:
            raise unreadable(path, error.strerror) from error


def _row(data: bytes, cell: int) -> list[str] | None:
    """Return a row of ``cells.csv``, a thousand times as fast as reading it as a table."""
    begin = data.find(b"\n%d," % cell) + 1
    if not begin:
        return None
    fields = data[begin : data.index(b"\n", begin)].decode(errors="replace").split(",")
    return fields if len(fields) in (len(CELL_COLUMNS), len(OLDER_CELL_COLUMNS)) else None
