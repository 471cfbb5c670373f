"""A button that begins a run, and says whose."""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QPushButton, QSizePolicy, QWidget

_LEAST_WIDTH = 110
_BESIDE_TEXT = 24
"""Pixels that padding and frame take of the width."""
_BETWEEN = " · "


class WhoseButton(QPushButton):
    """What it does and for whom, "Run: PATIENT · SAMPLE".

    A form that is still filled in for the patient before is so seen before the run is begun. Names are
    shortened, each by itself, to what there is room for; whole they are in the tip.

    Parameters
    ----------
    what : str
        What it does; stands alone where nobody is named.
    parent : QWidget, optional
    """

    def __init__(self, what: str, parent: QWidget | None = None) -> None:
        super().__init__(what, parent)
        self._what = what
        self._names: tuple[str, ...] = ()
        # A long name must not widen the dock.
        self.setMinimumWidth(_LEAST_WIDTH)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_whose(self, patient: str, sample: str) -> None:
        """Say whose run the next one is."""
        self._names = tuple(said for part in (patient, sample) if (said := " ".join(part.split())))
        self.setToolTip(f"{self._what}: {_BETWEEN.join(self._names)}" if self._names else "")
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
        text = f"{self._what}: {_BETWEEN.join(self._shown())}" if self._names else self._what
        text = text.replace("&", "&&")  # which is else a shortcut's mark
        if text != self.text():
            self.setText(text)

    def _shown(self) -> tuple[str, ...]:
        metrics = self.fontMetrics()
        room = self.width() - _BESIDE_TEXT - metrics.horizontalAdvance(f"{self._what}: ")
        if metrics.horizontalAdvance(_BETWEEN.join(self._names)) <= room:
            return self._names
        room -= metrics.horizontalAdvance(_BETWEEN) * (len(self._names) - 1)
        widths = [metrics.horizontalAdvance(name) for name in self._names]
        half = room // len(self._names)
        # What a short name leaves is for the other.
        rooms = [max(half, room - (sum(widths) - width)) for width in widths]
        middle = Qt.TextElideMode.ElideMiddle
        return tuple(
            metrics.elidedText(name, middle, width) for name, width in zip(self._names, rooms, strict=True)
        )
