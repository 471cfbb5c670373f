"""Start and Stop."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_rbcflow.widgets.whose_button import WhoseButton

_BUTTON = "font-size: 20px; font-weight: 600; padding: 8px;"
_START = _BUTTON + " background: #1b6fa8; color: white;"
_STOP = _BUTTON + " background: #b3462f; color: white;"


class RunButtons(QWidget):
    """Two large buttons, of which only the one that can be pressed now has a colour.

    Start says whose run it will be: the form is folded away after a run, and still holds the last
    patient.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.start, self.stop = WhoseButton("Start"), QPushButton("Stop")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.start, 2)
        row.addWidget(self.stop, 1)
        self.allow(start=True, stop=False)

    def allow(self, *, start: bool, stop: bool) -> None:
        """Let only what can be done now be pressed."""
        for button, allowed, style in ((self.start, start, _START), (self.stop, stop, _STOP)):
            button.setEnabled(allowed)
            button.setStyleSheet(style if allowed else _BUTTON)

    def name(self, patient: str, sample: str) -> None:
        """Say whose run Start would begin."""
        self.start.show_whose(patient, sample)
