"""Reading a session folder: finished, crashed or running."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import ANYTIME
from napari_rbcflow.quality import RunWarning, warnings_of_run
from napari_rbcflow.ring import RingReader, open_ring
from napari_rbcflow.session import tables
from napari_rbcflow.session.counting import (
    CountedAgain,
    count_again,
    counted_cells,
    recount,
    rows_counted,
)
from napari_rbcflow.session.crops import CropReader, CropSequence
from napari_rbcflow.session.label_edits import COLUMNS, LabelChange, figure_by_hand, in_force, read_changes
from napari_rbcflow.session.schema import FractionFigure, is_being_written, read_run
from napari_rbcflow.session.tables import CELL_TYPES, TRACK_TYPES, parsed, read_links, unreadable
from napari_rbcflow.session.verdict import (
    Conclusion,
    conclude,
    interrupted,
    read_review,
    reviewed_figure,
    unlabelled,
)
from napari_rbcflow.types import Label, RunStatus

if TYPE_CHECKING:
    import pandas as pd

    from napari_rbcflow.session.review import Review


class Session:
    """A session folder as it was when it was opened; open a running one again to see more.

    Attributes
    ----------
    folder : Path
    run : dict
        ``run.json``.
    """

    def __init__(self, folder: Path, run: dict[str, Any], cells: pd.DataFrame | None = None) -> None:
        self.folder = folder
        self.run = run
        if cells is not None:
            self.cells = cells

    def __repr__(self) -> str:
        return f"Session({str(self.folder)!r}, {self.run['status']}, {len(self.cells)} cells)"

    @property
    def warnings(self) -> list[RunWarning]:
        """What a person must know about the run, grave warnings first."""
        return warnings_of_run(self.run)

    @property
    def running(self) -> bool:
        """Whether ``run.json`` says that the run goes on: it does, or was interrupted."""
        return bool(self.run["status"] == RunStatus.RUNNING)

    @property
    def interrupted(self) -> bool:
        """Whether the run ended without closing its session (a crash, a power cut)."""
        return self.running and not is_being_written(self.folder)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per track, the columns of ``cells.csv``; NaN where a stage was not run."""
        return _table(self.folder / "cells.csv", CELL_TYPES)

    @cached_property
    def tracks(self) -> pd.DataFrame:
        """One row per position of the tracks in `cells`, the columns of ``tracks.csv``."""
        tracks = _table(self.folder / "tracks.csv", TRACK_TYPES, closed=not self.running)
        # A crash can come between a track's positions and its row in cells.csv, the one that counts.
        known = tracks["cell"].isin(self.cells["cell"])
        return tracks if known.all() else tracks[known].reset_index(drop=True)

    @cached_property
    def fraction(self) -> FractionFigure:
        """The fraction in ``run.json``; of a run that is not closed, that of the cells saved so far."""
        if self.running:
            fraction = recount(self.counted)
            return FractionFigure.of(fraction, fraction.anytime_interval(), ANYTIME)
        try:
            return FractionFigure(**self.run["fraction"])
        except (KeyError, TypeError):
            raise BadInput("session.no-fraction", folder=self.folder) from None

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """The counted cells in the order of counting (of `cells` if that is lost), True for tank-treading."""
        if self.running:
            return rows_counted(self.cells)
        try:
            return counted_cells(self.folder, self.cells)
        except RunFailed:
            return rows_counted(self.cells)

    @cached_property
    def counted_again(self) -> CountedAgain | None:
        """The tracks counted again as the run did; None if it is not known how (`count_again`)."""
        if self.running:
            return None
        return count_again(self.folder, self.run, self.cells, read_links(self.folder))

    @cached_property
    def changes(self) -> pd.DataFrame:
        """One row per change that a person made, the columns of ``changes.csv``."""
        import pandas as pd

        rows = [[getattr(change, name) for name in COLUMNS] for change in self.changes_made]
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"cell": "int64"})

    @cached_property
    def changes_made(self) -> list[LabelChange]:
        """The same, one by one."""
        return read_changes(self.folder)

    @cached_property
    def changes_in_force(self) -> dict[int, LabelChange]:
        """The last change of each cell that now has another label than the machine's."""
        cells = self.cells
        cells = cells[cells["cell"].isin({change.cell for change in self.changes_made})]
        return in_force(self.changes_made, dict(zip(cells["cell"], cells["label"], strict=True)))

    @cached_property
    def labels_by_hand(self) -> pd.Series[str]:
        """The label of each row of `cells` with the changes by hand; `cells` keeps the machine's."""
        labels = self.cells["label"].copy()
        by_cell = {cell: change.now for cell, change in self.changes_in_force.items()}
        changed = self.cells["cell"].isin(by_cell)
        labels[changed] = self.cells["cell"][changed].map(by_cell)
        return labels

    @cached_property
    def fraction_by_hand(self) -> FractionFigure | None:
        """The fraction with the changes by hand; None if no cell has another label than the machine's."""
        if not self.changes_in_force:
            return None
        labels, machine = self.labels_by_hand, self.fraction
        tank, flipping = int((labels == Label.TANK_TREADING).sum()), int((labels == Label.FLIPPING).sum())
        return figure_by_hand(tank, flipping, machine.level, machine.method)

    @cached_property
    def conclusion(self) -> Conclusion:
        """Whether a person may act on the number, with the review where there is one."""
        if self.interrupted:
            return interrupted(self.run)
        run = {**self.run, "fraction": vars(self.fraction)} if self.running else self.run
        return conclude(run, reviewed_figure(self.folder), unlabelled(read_review(self.folder)))

    def reread_changes(self) -> None:
        """Read the changes by hand again; everything else stays as it was when the session was opened."""
        for name in ("changes", "changes_made", "changes_in_force", "labels_by_hand", "fraction_by_hand"):
            self.__dict__.pop(name, None)

    @property
    def fraction_reviewed(self) -> FractionFigure | None:
        """The fraction by machine and persons together (``review.json``); None if nobody checked a cell."""
        figure = reviewed_figure(self.folder)
        return figure if figure is not None and figure.n else None

    def review_sample(self, n: int, by: str = "") -> list[int]:
        """Choose `n` cells for a person to look at, the one that tells most first (`Review.sample`)."""
        return self._review().sample(n, by)

    def review(self, labels: Mapping[int, str], *, by: str) -> FractionFigure:
        """Say what a person saw, all or none, and write the report again (`Review.add`).

        Parameters
        ----------
        labels : mapping of int to str
            Of cells of `review_sample`: ``tank-treading``, ``flipping`` or ``unreliable``.
        by : str
            Who looked at them.

        Returns
        -------
        FractionFigure
            `fraction_reviewed` with these labels.
        """
        review = self._review()
        figure = review.add(labels, by)
        review.finish()
        self.__dict__.pop("conclusion", None)
        return figure

    def _review(self) -> Review:
        # By the front door: a review writes the report, and the report reads a session.
        from napari_rbcflow.session import Review

        return Review(self.folder)

    @cached_property
    def ring(self) -> RingReader | None:
        """The last raw frames, or None where they were deleted."""
        try:
            return open_ring(self.folder / "frames.zarr")
        except (BadInput, RunFailed):
            return None

    def crops(self, cell: int) -> NDArray[np.uint8]:
        """Return a cell's sequence, shape (n, CROP_SIDE, CROP_SIDE).

        Raises
        ------
        BadInput
            If the session has no such cell.
        RunFailed
            If its crops are damaged.
        """
        return self.sequence(cell).crops

    def sequence(self, cell: int) -> CropSequence:
        """Return a cell's crops with their frames and flags; errors as `crops`."""
        if not (self.cells["cell"].to_numpy() == int(cell)).any():
            raise BadInput("session.no-such-cell", folder=self.folder, cell=cell)
        try:
            return self._crop_reader.sequence(cell)
        except KeyError:
            raise RunFailed("session.crops-missing", cell=cell, folder=self.folder) from None

    @cached_property
    def _crop_reader(self) -> CropReader:
        return CropReader(self.folder / "crops.zarr")


def open_session(folder: Path | str, *, cells: pd.DataFrame | None = None) -> Session:
    """Open a session folder; works on a running or crashed one too.

    Parameters
    ----------
    folder : Path or str
    cells : DataFrame, optional
        Its `cells`, if they have just been read.

    Raises
    ------
    BadInput
        If it is not a session, or one of a newer version.
    """
    folder = Path(folder)
    return Session(folder, read_run(folder), cells)


def _table(path: Path, types: dict[str, str], *, closed: bool = False) -> pd.DataFrame:
    """Read a table's whole lines; of a `closed` session without holding the file in memory."""
    try:
        data: bytes | Path = path
        if not closed or not tables.ends_with_a_line(path):
            data = tables.whole_lines(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return parsed(path, data, types)
