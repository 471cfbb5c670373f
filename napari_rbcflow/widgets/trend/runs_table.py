"""A trend's runs as a table."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_rbcflow.quality.rules import percent
from napari_rbcflow.trend import Trend, TrendRun, Use
from napari_rbcflow.trend.judge import below_words, number_words, use_words
from napari_rbcflow.widgets.trend.marks import NOT_USED, mark_of

_HEADINGS = ("Date", "Fraction", "Interval", "Cells", "Below?", "Baseline", "Sample", "Session")
_HEIGHT = 260


class RunsTable(QTableWidget):
    """A row a run, the newest first, as a person looks for that.

    Attributes
    ----------
    chosen, opened : Signal
        A row was chosen, or clicked twice: its place in `Trend.runs`.
    """

    chosen = Signal(int)
    opened = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADINGS), parent)
        self.setHorizontalHeaderLabels(list(_HEADINGS))
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.horizontalHeader().setStretchLastSection(True)
        self.setMinimumHeight(_HEIGHT)
        self.itemSelectionChanged.connect(self._selected)
        self.itemDoubleClicked.connect(lambda item: self.opened.emit(self._place(item.row())))

    def show_trend(self, trend: Trend) -> None:
        """List a trend's runs instead of those before."""
        self.blockSignals(True)
        self.clearContents()
        self.setRowCount(len(trend.runs))
        for place, run in enumerate(trend.runs):
            row = self._place(place)
            for column, (words, tip) in enumerate(_cells(run)):
                item = QTableWidgetItem(words)
                item.setToolTip(tip)
                if run.use is Use.DOUBT:
                    item.setForeground(QColor(NOT_USED.colour).darker(140))
                if column in (1, 2, 3):
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
        self.clearSelection()
        self.blockSignals(False)

    def choose(self, place: int) -> None:
        """Mark a run's row, and bring it into sight."""
        self.selectRow(self._place(place))
        self.scrollTo(self.model().index(self._place(place), 0))

    def _place(self, row: int) -> int:
        return self.rowCount() - 1 - row

    def _selected(self) -> None:
        rows = {index.row() for index in self.selectedIndexes()}
        if len(rows) == 1:
            self.chosen.emit(self._place(rows.pop()))


def _cells(run: TrendRun) -> list[tuple[str, str]]:
    """Return what stands in a row, each with its tip."""
    record, figure = run.record, run.record.figure
    fraction = interval = "–"
    if figure.estimate is not None and figure.low is not None and figure.high is not None:
        fraction = percent(figure.estimate)
        interval = f"{100 * figure.low:.1f} to {100 * figure.high:.1f}"
    tip = f"{100 * figure.level:g} % interval: {figure.method}"
    if record.by_hand is not None:
        fraction += " ✎"
        tip += f"\nwith changes by hand: {number_words(record.by_hand)}"
    if record.corrected is not None:
        tip += f"\ncorrected for the networks' errors: {number_words(record.corrected)}"
    return [
        (f"{record.started:%Y-%m-%d %H:%M}", ""),
        (fraction, tip),
        (interval, tip),
        (f"{figure.n:,}", ""),
        (f"{mark_of(run).sign} {below_words(run) or 'not used'}", use_words(run)),
        ("yes" if run.use is Use.BASELINE else "no", use_words(run)),
        (record.sample, record.sample),
        (record.named, str(record.folder)),
    ]
