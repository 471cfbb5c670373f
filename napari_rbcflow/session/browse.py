"""Going through the cells of a session one by one, during a run or afterwards."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session import tables
from napari_rbcflow.session.crops import CropSequence
from napari_rbcflow.session.label_edits import JUDGED, LabelChange
from napari_rbcflow.session.reader import Session, open_session
from napari_rbcflow.session.tables import CellsSoFar, read_on
from napari_rbcflow.types import DEFAULT_FPS

if TYPE_CHECKING:
    import pandas as pd

COUNTED, CHANGED, ALL = say("session.kind-counted"), say("session.kind-changed"), say("session.kind-all")
KINDS = (COUNTED, *map(str, JUDGED), CHANGED, ALL)
"""Which cells to go through; by the machine's labels, so that a changed cell stays among its kind."""


MEASURES = ("p_reliable", "p_tank_treading", "speed_um_per_s", "frames")
"""What cells can be chosen and sorted by: columns of ``cells.csv``."""
BY_TIME = "last_frame"


@dataclass(frozen=True)
class CellQuery:
    """Which cells to go through, and in which order.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    sort_by : str
        One of `MEASURES`, or `BY_TIME`. Cells that are alike in it follow in the order of time; those
        without it, such as cells without a probability, come last.
    descending : bool
    limits : mapping of str to tuple of float or None
        For each measure the least and the greatest value, both included; None is no limit. A cell without
        the measure is left out wherever one limit is set.
    """

    kind: str = COUNTED
    sort_by: str = BY_TIME
    descending: bool = False
    limits: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CellOrder:
    """All cells of a session in the order of a query: their places in the table, and which it chooses."""

    rows: NDArray[np.int64]
    cells: NDArray[np.int64]
    chosen: NDArray[np.bool_]

    @classmethod
    def of(cls, table: pd.DataFrame, query: CellQuery, changed: Collection[int] = ()) -> Self:
        """Arrange a table with the columns of ``cells.csv``; `changed` are the cells changed by hand."""
        number, label = table["cell"].to_numpy(np.int64), table["label"]
        if query.kind == COUNTED:
            chosen = label.isin(tables.COUNTED).to_numpy(bool)
        elif query.kind == CHANGED:
            chosen = np.isin(number, list(changed))
        elif query.kind == ALL:
            chosen = np.ones(len(table), bool)
        else:
            chosen = (label == query.kind).to_numpy(bool)
        for measure, (least, greatest) in query.limits.items():
            values = table[measure].to_numpy(np.float64)
            # A comparison with NaN is false.
            if least is not None:
                chosen = chosen & (values >= least)
            if greatest is not None:
                chosen = chosen & (values <= greatest)
        key = table[query.sort_by].to_numpy(np.float64)
        order = np.lexsort((number, table[BY_TIME].to_numpy(), -key if query.descending else key))
        return cls(order, number[order], chosen[order])

    def step(self, cell: int | None, steps: int) -> int | None:
        """Return the chosen cell so many steps after (or before) a cell, which need not be chosen itself.

        A cell of None lies before the first (after the last); None comes back if there is no such cell.
        """
        places = np.flatnonzero(self.chosen)
        if cell is None:
            at = steps - 1 if steps > 0 else len(places) + steps
        else:
            place = self._place(cell)
            if place is None:
                return None
            # At the place itself is the cell, or the first chosen one behind it.
            first = int(np.searchsorted(places, place))
            at = first + steps - (1 if steps > 0 and not self.chosen[place] else 0)
        return int(self.cells[places[at]]) if 0 <= at < len(places) else None

    def count(self, cell: int | None) -> tuple[int | None, int]:
        """Return a cell's number among those chosen, from 1 or None, and how many there are."""
        place = None if cell is None else self._place(cell)
        at = None
        if place is not None and self.chosen[place]:
            at = int(np.count_nonzero(self.chosen[: place + 1]))
        return at, int(np.count_nonzero(self.chosen))

    def _place(self, cell: int) -> int | None:
        at = np.flatnonzero(self.cells == int(cell))
        return int(at[0]) if len(at) else None


class CellRow(NamedTuple):
    """What is known of a cell without its crops; `label` is the machine's, `present_label` may be by hand."""

    cell: int
    label: str
    present_label: str
    p_reliable: float | None
    p_tank_treading: float | None
    speed_um_per_s: float
    frames: int
    reason: str

    @property
    def judged(self) -> bool:
        """Whether its label can be changed."""
        return self.label in JUDGED


@dataclass(frozen=True, eq=False)
class CellRecord:
    """One cell with everything that a session knows about it.

    Attributes
    ----------
    cell : int
    label : str
        The machine's.
    change : LabelChange or None
        The last change by hand, if the label is now another than the machine's.
    p_reliable, p_tank_treading : float or None
    first_frame, last_frame, frames : int
    speed_um_per_s : float
    y_px, x_px : float
        Its last position, in camera pixels.
    reason : str
        As in ``cells.csv``.
    fps : float
        Of the camera or the movie.
    sequence : CropSequence
    """

    cell: int
    label: str
    change: LabelChange | None
    p_reliable: float | None
    p_tank_treading: float | None
    first_frame: int
    last_frame: int
    frames: int
    speed_um_per_s: float
    y_px: float
    x_px: float
    reason: str
    fps: float
    sequence: CropSequence

    @property
    def present_label(self) -> str:
        """The label by hand if it was changed, else the machine's."""
        return self.label if self.change is None else self.change.now

    @property
    def judged(self) -> bool:
        """Whether its label can be changed."""
        return self.label in JUDGED


class CellBrowser:
    """The cells of one session, running or closed, in the order of a query.

    A table is read again only when it has changed on the disk; of one that has only grown, as during a run,
    only the new rows.

    Parameters
    ----------
    folder : Path or str

    Raises
    ------
    BadInput
        If `folder` is not a session.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._seen: tuple[object, ...] = ()
        self._session = open_session(self.folder)
        self._cells: CellsSoFar | None = None
        self._order: tuple[CellQuery, CellOrder] | None = None

    @property
    def session(self) -> Session:
        """The session as it stands on the disk now."""
        seen = tuple(_state(self.folder / name) for name in ("cells.csv", "changes.csv", "run.json"))
        # run.json is rewritten each second of a run, and holds nothing about a cell.
        if seen[:1] != self._seen[:1] or (seen[2:] != self._seen[2:] and not self._session.running):
            self._cells = read_on(self.folder, self._cells)
            self._session = open_session(self.folder, cells=self._cells.cells)
            self._order = None
        elif seen[1] != self._seen[1]:
            self._session.reread_changes()
            self._order = None
        self._seen = seen
        return self._session

    def look(self, cell: int) -> CellRecord:
        """Return everything about a cell.

        Raises
        ------
        BadInput
            If the session has no such cell.
        RunFailed
            If a file of the session is damaged.
        """
        session = self.session
        cells = session.cells
        at = np.flatnonzero(cells["cell"].to_numpy() == int(cell))
        if not len(at):
            raise BadInput("session.no-such-cell", folder=self.folder, cell=cell)
        row = cells.iloc[int(at[0])]
        fps = session.run.get("parameters", {}).get("fps")
        return CellRecord(
            cell=int(cell),
            label=str(row["label"]),
            change=session.changes_in_force.get(int(cell)),
            p_reliable=_number(row["p_reliable"]),
            p_tank_treading=_number(row["p_tank_treading"]),
            first_frame=int(row["first_frame"]),
            last_frame=int(row["last_frame"]),
            frames=int(row["frames"]),
            speed_um_per_s=float(row["speed_um_per_s"]),
            y_px=float(row["y_last_px"]),
            x_px=float(row["x_last_px"]),
            reason=str(row["reason"]),
            fps=float(fps) if isinstance(fps, (int, float)) and fps > 0 else DEFAULT_FPS,
            sequence=session.sequence(int(cell)),
        )

    def order(self, query: CellQuery) -> CellOrder:
        """Return the cells as they stand on the disk now, in the order of a query."""
        session = self.session
        if self._order is None or self._order[0] != query:
            self._order = query, CellOrder.of(session.cells, query, session.changes_in_force)
        return self._order[1]

    def rows(self, query: CellQuery) -> list[CellRow]:
        """Return what is known of each cell that a query chooses, in its order."""
        order = self.order(query)
        session = self._session  # the one that was put in order
        table = session.cells.iloc[order.rows[order.chosen]]
        by_hand = session.changes_in_force
        columns = (table[name].tolist() for name in ("cell", "label", *MEASURES, "reason"))
        return [
            CellRow(
                cell,
                label,
                by_hand[cell].now if cell in by_hand else label,
                _number(reliable),
                _number(tank_treading),
                speed,
                frames,
                reason,
            )
            for cell, label, reliable, tank_treading, speed, frames, reason in zip(*columns, strict=True)
        ]


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
