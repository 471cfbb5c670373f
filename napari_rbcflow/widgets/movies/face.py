"""What the movie widget looks like: form, buttons, the number, the cells; nothing of what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.widgets.cells.viewer import CellViewer
from napari_rbcflow.widgets.movies.form import MovieForm
from napari_rbcflow.widgets.result.panel import ResultPanel
from napari_rbcflow.widgets.warning_box import WarningBox, wrapping_label
from napari_rbcflow.widgets.whose_button import WhoseButton

NUMBER, CELLS = 0, 1
"""The tabs."""
_BUTTON = "font-size: 18px; font-weight: 600; padding: 7px;"
_RUN = _BUTTON + " background: #1b6fa8; color: white;"
_CANCEL = _BUTTON + " background: #b3462f; color: white;"
_OFF = _BUTTON + " color: #7a7f85;"


class MovieFace(QWidget):
    """The parts and their layout.

    Parameters
    ----------
    image_layers : callable
        Gives the layers to choose from.
    """

    def __init__(self, image_layers: Callable[[], list[Any]]) -> None:
        super().__init__()
        self.setMinimumWidth(400)
        self.form = MovieForm(image_layers)
        self.run_button, self.cancel_button = WhoseButton("Run"), QPushButton("Cancel")
        self.open_button = QPushButton("Show an earlier session ...")
        self.fold = QToolButton()
        self.fold.setText("Movie and patient")
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.setCheckable(True)
        self.fold.setChecked(True)
        self.status = wrapping_label("font-size: 16px; padding: 0px 4px;")
        self.message = WarningBox()
        self.panel = ResultPanel()
        self.cell_viewer = CellViewer()
        self.tabs = QTabWidget()
        self.tabs.addTab(_scrolling(self.panel), "The number")
        self.tabs.addTab(_scrolling(self.cell_viewer), "Cell by cell")
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        folding = QHBoxLayout()
        folding.addWidget(self.fold)
        folding.addStretch(1)
        folding.addWidget(self.open_button)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        outer.addLayout(buttons)
        outer.addLayout(folding)
        for widget in (self.form.container.native, self.message, self.status):
            outer.addWidget(widget)
        outer.addWidget(self.tabs, 1)
        self.fold.toggled.connect(self._fold)
        for name in (self.form.patient, self.form.sample):
            name.changed.connect(lambda *_: self._show_whose())
        self._fold(True)

    def sizeHint(self) -> QSize:
        """Wide enough for the number."""
        return QSize(430, 900)

    def _fold(self, shown: bool) -> None:
        self.form.container.native.setVisible(shown)
        self.fold.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)

    def _show_whose(self) -> None:
        self.run_button.show_whose(self.form.patient.value, self.form.sample.value)

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)
        self.status.setVisible(bool(text))

    def _show_buttons(self, *, going: bool, cancellable: bool) -> None:
        self.run_button.setEnabled(not going)
        self.open_button.setEnabled(not going)
        self.cancel_button.setEnabled(cancellable)
        self.form.set_enabled(not going)
        for button, style in ((self.run_button, _RUN), (self.cancel_button, _CANCEL)):
            button.setStyleSheet(style if button.isEnabled() else _OFF)


def _scrolling(content: QWidget) -> QScrollArea:
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(content)
    return scroll
