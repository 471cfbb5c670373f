"""A button that begins a run, and says whose."""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QPushButton, QSizePolicy, QWidget

_LEAST_WIDTH = 110
_BESIDE_TEXT = 24
"""Pixels that padding and frame take of the width."""


class WhoseButton(QPushButton):
    """What it does and for whom, "Run: PATIENT · SAMPLE", shortened to the room there is.

    A form that is still filled in for the patient before is so seen before the run is begun.

    Parameters
    ----------
    what : str
        What it does; stands alone where nobody is named.
    parent : QWidget, optional
    """

    def __init__(self, what: str, parent: QWidget | None = None) -> None:
        super().__init__(what, parent)
        self._what = self._whole = what
        # A long name must not widen the dock.
        self.setMinimumWidth(_LEAST_WIDTH)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_whose(self, patient: str, sample: str) -> None:
        """Say whose run the next one is."""
        named = " · ".join(said for part in (patient, sample) if (said := " ".join(part.split())))
        self._whole = f"{self._what}: {named}" if named else self._what
        self.setToolTip(self._whole if named else "")
        self._write()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Shorten to the new width."""
        super().resizeEvent(event)
        self._write()

    def changeEvent(self, event: QEvent) -> None:
        """Shorten for the new font."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._write()

    def _write(self) -> None:
        room = self.width() - _BESIDE_TEXT
        text = self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideMiddle, room)
        text = text.replace("&", "&&")  # which is else a shortcut's mark
        if text != self.text():
            self.setText(text)
