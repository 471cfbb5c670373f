"""Going through the cells of a session one by one, during a run or afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session import tables
from napari_rbcflow.session.crops import CropSequence
from napari_rbcflow.session.label_edits import JUDGED, LabelChange
from napari_rbcflow.session.reader import Session, open_session
from napari_rbcflow.session.tables import CellsSoFar, read_on
from napari_rbcflow.types import DEFAULT_FPS

COUNTED, CHANGED, ALL = say("session.kind-counted"), say("session.kind-changed"), say("session.kind-all")
KINDS = (COUNTED, *map(str, JUDGED), CHANGED, ALL)
"""Which cells to go through; by the machine's labels, so that a changed cell stays among its kind."""


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
    """The cells of one session, ordered by their last frame.

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
        self._ordered: pd.DataFrame | None = None

    @property
    def session(self) -> Session:
        """The session as it stands on the disk now."""
        seen = tuple(_state(self.folder / name) for name in ("cells.csv", "changes.csv", "run.json"))
        # run.json is rewritten each second of a run, and holds nothing about a cell.
        if seen[:1] != self._seen[:1] or (seen[2:] != self._seen[2:] and not self._session.running):
            self._cells = read_on(self.folder, self._cells)
            self._session = open_session(self.folder, cells=self._cells.cells)
            self._ordered = None
        elif seen[1] != self._seen[1]:
            self._session.reread_changes()
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

    def step(self, cell: int | None, steps: int, kind: str = COUNTED) -> int | None:
        """Return the cell of a kind that comes a number of steps after (or before) a cell.

        Parameters
        ----------
        cell : int or None
            Need not be of the kind itself. None: before the first (after the last).
        steps : int
            Negative: backwards; not 0.
        kind : str
            One of `KINDS`.

        Returns
        -------
        int or None
            None if there is no such cell.
        """
        session = self.session  # once: it may grow meanwhile
        cells, order = self._of_kind(session, kind)
        if cell is None:
            at = steps - 1 if steps > 0 else len(cells) + steps
        else:
            place = self._place(session, cell)
            if place is None:
                return None
            # At the place itself is the cell, or the first of its kind behind it.
            first = int(np.searchsorted(order, place))
            here = first < len(order) and order[first] == place
            at = first + steps - (1 if steps > 0 and not here else 0)
        return int(cells[at]) if 0 <= at < len(cells) else None

    def count(self, cell: int, kind: str = COUNTED) -> tuple[int | None, int]:
        """Return a cell's number among those of a kind, from 1 or None, and how many there are."""
        cells, _ = self._of_kind(self.session, kind)
        at = np.flatnonzero(cells == cell)
        return (int(at[0]) + 1 if len(at) else None), len(cells)

    def _of_kind(self, session: Session, kind: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells of a kind, and the places of each among all, ascending."""
        table = self._in_order(session)
        if kind == COUNTED:
            chosen = table["label"].isin(tables.COUNTED)
        elif kind == CHANGED:
            chosen = table["cell"].isin(list(session.changes_in_force))
        elif kind == ALL:
            chosen = pd.Series(True, index=table.index)
        else:
            chosen = table["label"] == kind
        where = np.flatnonzero(chosen.to_numpy(bool))
        return table["cell"].to_numpy(np.int64)[where], where.astype(np.int64)

    def _place(self, session: Session, cell: int) -> int | None:
        at = np.flatnonzero(self._in_order(session)["cell"].to_numpy() == int(cell))
        return int(at[0]) if len(at) else None

    def _in_order(self, session: Session) -> pd.DataFrame:
        """Return cells and labels by last frame, as in a closed session."""
        if self._ordered is None:
            cells = session.cells
            last, cell = cells["last_frame"].to_numpy(), cells["cell"].to_numpy()
            self._ordered = cells[["cell", "label"]].iloc[np.lexsort((cell, last))]
        return self._ordered


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
