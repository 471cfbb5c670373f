"""The judged cells of a live run: looked at one by one, and their labels changed by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.pipeline.status import JudgedCell, Progress
from napari_rbcflow.session.label_edits import ChangeLog
from napari_rbcflow.session.schema import FractionFigure
from napari_rbcflow.widgets.cells.strip import CellStrip
from napari_rbcflow.widgets.cells.viewer import CellViewer

BY_HAND_S = 1.0
"""Between two looks at the number with a person's changes, while a run goes."""


class LiveCells(QWidget):
    """The strip of the cells judged last, and under it the one that was clicked.

    Parameters
    ----------
    guarded : callable
        Wraps a slot so that it ends in a sentence at worst.
    show_by_hand : callable
        Takes the fraction with a person's changes, or None.
    say : callable
        Takes a sentence for the person.
    parent : QWidget, optional

    Attributes
    ----------
    pointed : Signal(int, int, float, float)
        A cell to be shown in the picture: cell, frame, y and x in camera pixels.
    changed : Signal(int, str)
        A cell has another label now, by hand.
    """

    pointed = Signal(int, int, float, float)
    changed = Signal(int, str)

    def __init__(
        self,
        guarded: Callable[[Callable[..., None]], Callable[..., None]],
        show_by_hand: Callable[[FractionFigure | None], None],
        say: Callable[[str], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.strip, self.viewer = CellStrip(), CellViewer()
        self.strip.setMinimumHeight(240)
        self.viewer.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.strip)
        column.addWidget(self.viewer)
        self._show_by_hand = show_by_hand
        self._say = say
        self._folder: Path | None = None
        self._progress: Progress | None = None
        self._changed = False
        self._looked_s = 0.0
        self.strip.chosen.connect(guarded(self.show_cell))
        self.viewer.jump.connect(guarded(self._point))
        self.viewer.changed.connect(guarded(self._label_changed))

    def begin(self, folder: Path) -> None:
        """Forget the run before; the cells to come lie in `folder`."""
        self.strip.clear()
        self.viewer.clear()
        self.viewer.hide()
        self._folder = folder
        self._progress = None
        self._changed = False

    def add(self, judged: Sequence[JudgedCell]) -> None:
        """Take newly judged cells in."""
        self.strip.add(judged)

    def show_cell(self, cell: int) -> None:
        """Show a cell's whole sequence, and where it was last seen."""
        if self._folder is None:
            return
        self.viewer.show()
        if self.viewer.show_cell(self._folder, cell):
            self._point(cell)

    def keep_up(self, progress: Progress) -> None:
        """Let the number with a person's changes go on with the run; one look at the disk a second."""
        self._progress = progress
        if self._changed and time.monotonic() - self._looked_s > BY_HAND_S:
            self._look_again()

    def end(self) -> None:
        """Bring the closed session's report and number up to date with what was changed meanwhile."""
        if self._changed and self._folder is not None:
            ChangeLog(self._folder).bring_report_up_to_date()
            self._look_again()

    def _point(self, cell: int) -> None:
        self.strip.select(cell)
        shown = self.viewer.shown
        if shown is not None and shown.cell == cell:
            self.pointed.emit(cell, shown.last_frame, shown.y_px, shown.x_px)

    def _label_changed(self, change: object) -> None:
        self._changed = True
        self.strip.mark(change.cell, change.now)  # type: ignore[attr-defined]
        self.changed.emit(change.cell, str(change.now))  # type: ignore[attr-defined]
        self._look()

    def _look(self) -> None:
        if self._folder is None or self._progress is None:
            return
        self._looked_s = time.monotonic()
        progress = self._progress
        figure = ChangeLog(self._folder).figure(
            tank_treading=progress.cells["tank_treading"],
            flipping=progress.cells["flipping"],
            level=progress.level,
            method=progress.method,
        )
        self._show_by_hand(figure)

    def _look_again(self) -> None:
        try:
            self._look()
        except RbcflowError as error:
            # A person's changes may become unreadable; the run goes on without them, and says so once.
            # The number with them would stand still beside the machine's, which goes on.
            self._changed = False
            self._show_by_hand(None)
            self._say(str(error))
