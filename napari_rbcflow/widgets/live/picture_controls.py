"""What the live picture shows, chosen by a person."""

from __future__ import annotations

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rbcflow.widgets.labels import breakable, wrapping_label
from napari_rbcflow.widgets.settings.remembered import PictureMode

_MODES: tuple[tuple[str, PictureMode], ...] = (
    ("Cells, with their labels", "cells"),
    ("Newest frame, to focus by", "newest"),
)


class PictureControls(QWidget):
    """The picture's mode, whether unreliable cells are marked, and the way back from a cell.

    Attributes
    ----------
    changed : Signal
        Mode or tick.
    live : Signal
        A person wants the running picture again.
    """

    changed = Signal()
    live = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.modes = QComboBox()
        self.modes.addItems([words for words, _ in _MODES])
        self.unreliable = QCheckBox("mark unreliable cells")
        self.back = QPushButton("Back to the live picture")
        self.said = wrapping_label("font-size: 13px;")
        row = QHBoxLayout()
        row.addWidget(self.modes, 1)
        row.addWidget(self.unreliable)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self.said)
        column.addWidget(self.back)
        self.back.hide()
        self.modes.currentIndexChanged.connect(lambda: self.changed.emit())
        self.unreliable.toggled.connect(lambda: self.changed.emit())
        self.back.clicked.connect(lambda: self.live.emit())

    @property
    def mode(self) -> PictureMode:
        """What the picture shows."""
        return _MODES[self.modes.currentIndex()][1]

    def choose(self, mode: PictureMode, *, show_unreliable: bool) -> None:
        """Show this choice."""
        self.modes.setCurrentIndex([value for _, value in _MODES].index(mode))
        self.unreliable.setChecked(show_unreliable)

    def say(self, said: str, *, held: bool) -> None:
        """Show the picture's own words, and the way back where it stands still."""
        text = breakable(said)
        if self.said.text() != text:
            self.said.setText(text)
        if self.back.isHidden() == held:
            self.back.setVisible(held)
