"""What the trend widget looks like: whose sessions, the sentence, the picture, the table."""

from __future__ import annotations

from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, LineEdit
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rbcflow.trend import Below
from napari_rbcflow.widgets.labels import wrapping_label
from napari_rbcflow.widgets.theme import FAULT_COLOUR, WARNING_COLOUR
from napari_rbcflow.widgets.trend.plot import TrendPlot
from napari_rbcflow.widgets.trend.runs_table import RunsTable
from napari_rbcflow.widgets.warning_box import WarningBox

_VERDICT = "font-size: 17px; font-weight: 600; padding: 6px; border-radius: 4px;"
_VERDICTS = {
    Below.YES: f"{_VERDICT} background: {FAULT_COLOUR}; color: black;",
    Below.PERHAPS: f"{_VERDICT} border: 2px solid {WARNING_COLOUR};",
}
_SHOW = "font-size: 18px; font-weight: 600; padding: 7px; background: #1b6fa8; color: white;"


class TrendFace(QWidget):
    """The parts and their layout; nothing of what they do.

    Attributes
    ----------
    folder, patient, crises, baseline_days : magicgui widgets
    message : WarningBox
    """

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumWidth(400)
        self.setAcceptDrops(True)
        self.folder = FileEdit(label="Folder with sessions", mode=FileDialogMode.EXISTING_DIRECTORY)
        self.patient = ComboBox(label="Patient", choices=[])
        self.crises = LineEdit(label="Crises")
        self.baseline_days = LineEdit(label="Baseline from")
        self.folder.line_edit.native.setAcceptDrops(False)  # a dropped folder is for the whole dock
        self.folder.tooltip = "A session, or a folder that holds sessions; it can be dropped here too."
        self.crises.native.setPlaceholderText("FROM:TO, such as 2026-03-02:2026-03-09; several with commas")
        self.crises.tooltip = (
            "Days that make no baseline. Days that lie clearly below all others are left out by themselves."
        )
        self.baseline_days.native.setPlaceholderText("all days outside crises, or FROM:TO")
        self.container: Container[Any] = Container()
        self.container.extend([self.folder, self.patient, self.crises, self.baseline_days])
        self.container.margins = (0, 0, 0, 0)
        self.show_button = QPushButton("Show")
        self.show_button.setStyleSheet(_SHOW)
        self.message = WarningBox()
        self.status = wrapping_label("font-size: 16px; padding: 0px 4px;")
        self.verdict = wrapping_label(_VERDICT)
        self.summary = wrapping_label("font-size: 14px; padding: 0px 4px;")
        self.notes = wrapping_label("font-size: 13px; padding: 0px 4px;")
        self.plot, self.table = TrendPlot(), RunsTable()
        self.report_button = QPushButton("Open the report")
        self.crisis_button = QPushButton("This day was a crisis")
        self.table_button, self.picture_button = (
            QPushButton("Save table ..."),
            QPushButton("Save picture ..."),
        )
        self.result = QWidget()
        column = QVBoxLayout(self.result)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.verdict, self.plot, self.summary):
            column.addWidget(widget)
        column.addLayout(_row(self.report_button, self.crisis_button))
        column.addWidget(self.table, 1)
        column.addLayout(_row(self.table_button, self.picture_button))
        column.addWidget(self.notes)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        for part in (self.container.native, self.show_button, self.message, self.status):
            outer.addWidget(part)
        outer.addWidget(self.result, 1)
        outer.addStretch(0)
        self.result.hide()

    def sizeHint(self) -> QSize:
        """Wide enough for the table's first columns."""
        return QSize(520, 900)

    def show_verdict(self, words: str, below: Below) -> None:
        """Say how the last run stands, in the colour that belongs to it."""
        self.verdict.setText(words)
        self.verdict.setStyleSheet(_VERDICTS.get(below, _VERDICT))


def _row(*buttons: QPushButton) -> QHBoxLayout:
    row = QHBoxLayout()
    for button in buttons:
        row.addWidget(button)
    return row
