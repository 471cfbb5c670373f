"""Labels changed by a person, ``changes.csv``: beside the machine's labels, never in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from napari_rbcflow.estimate import ANYTIME, FIXED_N, RunningFraction
from napari_rbcflow.sentences import say
from napari_rbcflow.session.append_only import AppendOnly, Audit, cell_number, one_of, when, who
from napari_rbcflow.session.schema import FractionFigure
from napari_rbcflow.types import Label

CHANGES_FILE = "changes.csv"
STRUCK_OUT = "struck-out"
"""Excluded from the count by a person."""
JUDGED = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
"""The labels of cells that the networks judged. Only those can be changed."""
BY_HAND = (*map(str, JUDGED), STRUCK_OUT)  # the labels that a person can give


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


def _change(texts: Sequence[str]) -> LabelChange:
    changed, by, cell, was, now = texts
    return LabelChange(when(changed), who(by), cell_number(cell), one_of(BY_HAND, was), one_of(BY_HAND, now))


_TABLE = AppendOnly(CHANGES_FILE, COLUMNS, _change)


def read_audit(folder: Path) -> Audit[LabelChange]:
    """Read ``changes.csv`` as far as it goes; empty if nobody changed a label."""
    return _TABLE.audit(folder)


def read_changes(folder: Path) -> list[LabelChange]:
    """Return the changes in their order; `RunFailed` if any is damaged, as no number may rest on a part."""
    return _TABLE.rows(folder)


def append_changes(folder: Path, changes: Iterable[LabelChange]) -> None:
    """Write changes behind all others, all or none; errors as `AppendOnly.append`."""
    _TABLE.append(folder, map(astuple, changes))


def in_force(changes: Iterable[LabelChange], machine: Mapping[int, str]) -> dict[int, LabelChange]:
    """Return the last change of each judged cell that now has another label than the machine's."""
    last = {change.cell: change for change in changes}
    return {
        cell: change
        for cell, change in last.items()
        if machine.get(cell) in JUDGED and change.now != machine[cell]
    }


def findings(
    audit: Audit[LabelChange], machine: Mapping[int, str], told: Mapping[int, str] | None = None
) -> list[str]:
    """Return what is wrong with the changes of a session, a sentence each.

    `machine` holds the networks' label of every cell, `told` the one that it had during the run.
    """
    found = [*audit.faults, *audit.cut]
    present: dict[int, str] = dict(machine)
    told = told or {}
    changed: set[int] = set()
    for change in audit.rows:
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
