"""The measures of a run's quality: a row each, with a mark that tells at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_rbcflow.quality.summary import QualityLine
from napari_rbcflow.quality.warning import Severity
from napari_rbcflow.widgets.theme import FAULT_COLOUR, WARNING_COLOUR

_PLAIN = "font-size: 13px; padding: 0px;"
_GROUND = "font-size: 13px; color: black; border-radius: 3px; padding: 0px 3px; background: "
_LOOKS = {
    None: ("✓", _PLAIN),
    Severity.NOTE: ("▲", _GROUND + WARNING_COLOUR + ";"),
    Severity.WARNING: ("⚠", _GROUND + FAULT_COLOUR + ";"),
}


class QualityTable(QWidget):
    """What `quality.lines.quality_lines` says of a run; takes no room without any.

    Labels are made once and filled anew: a run changes them a few times a second.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 4, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self._rows: list[tuple[QLabel, QLabel, QLabel]] = []
        self._shown: tuple[QualityLine, ...] = ()
        self.hide()

    def show_lines(self, lines: Sequence[QualityLine]) -> None:
        """Show these measures instead of those before."""
        if (shown := tuple(lines)) == self._shown:
            return
        self._shown = shown
        while len(self._rows) < len(shown):
            self._rows.append(self._new_row())
        for k, row in enumerate(self._rows):
            for label in row:
                label.setVisible(k < len(shown))
        for row, line in zip(self._rows, shown, strict=False):
            _fill(row, line)
        self.setVisible(bool(shown))

    def clear(self) -> None:
        """Show nothing."""
        self.show_lines(())

    @property
    def lines(self) -> tuple[QualityLine, ...]:
        """What is shown."""
        return self._shown

    def _new_row(self) -> tuple[QLabel, QLabel, QLabel]:
        row = QLabel(), QLabel(), QLabel()
        at = len(self._rows)
        for column, label in enumerate(row):
            label.setStyleSheet(_PLAIN)
            self._grid.addWidget(label, at, column)
        row[2].setAlignment(Qt.AlignmentFlag.AlignRight)
        return row


def _fill(row: tuple[QLabel, QLabel, QLabel], line: QualityLine) -> None:
    mark, style = _LOOKS[line.severity]
    for label, text in zip(row, (mark, line.name, line.said), strict=True):
        if label.text() != text:
            label.setText(text)
        label.setToolTip(f"usual: {line.usual}")
    if row[0].styleSheet() != style:
        row[0].setStyleSheet(style)
        row[2].setStyleSheet(style)
