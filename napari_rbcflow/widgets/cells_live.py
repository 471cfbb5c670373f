"""The cells of a run that goes on: those judged last, and the ones that a person looks at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.pipeline import JudgedCell, Progress
from napari_rbcflow.session import ChangeLog, FractionFigure, LabelChange
from napari_rbcflow.widgets.cells import CellViewer
from napari_rbcflow.widgets.cells_strip import CellStrip

# Between two readings of the number with a person's changes, during a run.
BY_HAND_S = 1.0


class LiveCells(QWidget):
    """The strip of the latest judged cells, and under it the one that was clicked."""

    pointed = Signal(
        int, int, float, float
    )  # to be shown in the picture: cell, frame, y and x in camera pixels
    changed = Signal(int, str)  # a cell, and its label by hand

    def __init__(
        self,
        report_errors: Callable[[Callable[..., None]], Callable[..., None]],
        show_by_hand: Callable[[FractionFigure | None], None],
        show_error: Callable[[str], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.strip, self.viewer = CellStrip(), CellViewer(keys_in=self)
        self.strip.setMinimumHeight(240)
        self.viewer.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.strip)
        column.addWidget(self.viewer)
        self._show_by_hand = show_by_hand
        self._show_error = show_error
        self._folder: Path | None = None
        self._progress: Progress | None = None
        self._changed = False
        self._read_s = 0.0
        self.strip.chosen.connect(report_errors(self.show_cell))
        self.viewer.jump.connect(report_errors(self._point))
        self.viewer.changed.connect(report_errors(self._label_changed))

    def begin(self, folder: Path) -> None:
        """Forget the run before; the cells to come are in `folder`."""
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
        """Let the number with a person's changes follow the run."""
        self._progress = progress
        if self._changed and time.monotonic() - self._read_s > BY_HAND_S:
            self._update_by_hand()

    def end(self) -> None:
        """Bring the closed session's report and number up to date with what was changed meanwhile."""
        if self._changed and self._folder is not None:
            ChangeLog(self._folder).bring_report_up_to_date()
            self._update_by_hand()

    def _point(self, cell: int) -> None:
        self.strip.select(cell)
        shown = self.viewer.shown
        if shown is not None and shown.cell == cell:
            self.pointed.emit(cell, shown.last_frame, shown.y_px, shown.x_px)

    def _label_changed(self, changes: Sequence[LabelChange]) -> None:
        self._changed = True
        for change in changes:
            self.strip.mark(change.cell, change.now)
            self.changed.emit(change.cell, str(change.now))
        self._read_by_hand()

    def _read_by_hand(self) -> None:
        if self._folder is None or self._progress is None:
            return
        self._read_s = time.monotonic()
        progress = self._progress
        figure = ChangeLog(self._folder).figure(
            tank_treading=progress.cells["tank_treading"],
            flipping=progress.cells["flipping"],
            level=progress.level,
            method=progress.method,
        )
        self._show_by_hand(figure)

    def _update_by_hand(self) -> None:
        try:
            self._read_by_hand()
        except RbcflowError as error:
            # A person's changes may become unreadable; the run goes on without them, and says so once.
            # The number with them would not move beside the machine's, which does.
            self._changed = False
            self._show_by_hand(None)
            self._show_error(str(error))
