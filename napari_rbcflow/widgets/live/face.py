"""What the live widget looks like, from Start to the cells; nothing of what it does."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QMainWindow, QScrollArea, QToolButton, QVBoxLayout, QWidget

from napari_rbcflow.widgets.labels import wrapping_label
from napari_rbcflow.widgets.live.camera_form import CameraForm
from napari_rbcflow.widgets.live.camera_line import CameraLine
from napari_rbcflow.widgets.live.cells import LiveCells
from napari_rbcflow.widgets.live.live_mode_offer import LiveModeOffer
from napari_rbcflow.widgets.live.picture_controls import PictureControls
from napari_rbcflow.widgets.live.run_buttons import RunButtons
from napari_rbcflow.widgets.result.panel import ResultPanel
from napari_rbcflow.widgets.warning_box import WarningBox


class LiveFace(QWidget):
    """Start and Stop above; under them, in what can be scrolled, form, number, controls and cells.

    Parameters
    ----------
    guarded : callable
        Wraps a slot so that it ends in a sentence at worst.
    """

    def __init__(self, guarded: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
        super().__init__()
        self.setMinimumWidth(400)
        self.fold = QToolButton()
        self.fold.setCheckable(True)
        self.fold.setChecked(True)
        self.form = CameraForm()
        self.buttons = RunButtons()
        self.start_button, self.stop_button = self.buttons.start, self.buttons.stop
        self.status = wrapping_label("font-size: 16px; padding: 0px 4px;")
        self.refusal = WarningBox()
        self.offer = LiveModeOffer()
        self.camera_line = CameraLine()
        self.panel = ResultPanel()
        self.controls = PictureControls()
        self.cells = LiveCells(
            guarded, self.panel.show_by_hand, lambda sentence: self.refusal.say(grave=[sentence])
        )
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 0, 4, 4)
        column.setSpacing(6)
        for widget in (
            self.refusal,  # above the form, which may reach below the window
            self.offer,
            self.form,
            self.status,
            self.camera_line,
            self.panel,
            self.controls,
            self.cells,
        ):
            column.addWidget(widget)
        column.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        outer.addWidget(self.buttons)
        outer.addWidget(self.fold)
        outer.addWidget(self._scroll, 1)
        self.fold.toggled.connect(self._fold)
        for name in (self.form.patient, self.form.sample):
            name.textChanged.connect(self._name_start)
        # It is the camera that was refused that stands in Live mode.
        self.form.camera.currentIndexChanged.connect(lambda _: self.offer.hide())
        self._name_start()
        self._fold(True)

    def sizeHint(self) -> QSize:
        """Wide enough for the number."""
        return QSize(430, 900)

    def _fold(self, shown: bool) -> None:
        self.form.setVisible(shown)
        self.fold.setText(("▾" if shown else "▸") + " Camera, patient and stop")

    def _name_start(self) -> None:
        self.buttons.name(self.form.patient.text(), self.form.sample.text())

    def _allow(self, *, going: bool) -> None:
        """Let only what can be done now be pressed."""
        self.buttons.allow(start=not going, stop=going)
        self.form.setEnabled(not going)

    def _main_window(self) -> QMainWindow | None:
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QMainWindow):
            parent = parent.parentWidget()
        return parent
