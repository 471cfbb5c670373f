"""Start and Stop."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QWidget

_PADDING_PX = 8
_BUTTON = f"font-size: 20px; font-weight: 600; padding: {_PADDING_PX}px;"
_START = _BUTTON + " background: #1b6fa8; color: white;"
_STOP = _BUTTON + " background: #b3462f; color: white;"


class RunButtons(QWidget):
    """Two large buttons, of which only the one that can be pressed now has a colour.

    Start says whose run it will be: the form is folded away after a run, and still holds the last
    patient.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.start, self.stop = _NamedStart(), QPushButton("Stop")
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
        self.start.write()

    def name(self, patient: str, sample: str) -> None:
        """Say whose run Start would begin."""
        self.start.parts = tuple(part for part in (patient.strip(), sample.strip()) if part)
        self.start.write()


class _NamedStart(QPushButton):
    """Shortens the names, each by itself, to what there is room for; whole they are in the tip."""

    def __init__(self) -> None:
        super().__init__("Start")
        self.parts: tuple[str, ...] = ()
        # A long name must not widen the dock.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.write()

    def write(self) -> None:
        self.setToolTip(" · ".join(self.parts))
        if not self.parts:
            self.setText("Start")
            return
        self.ensurePolished()
        metrics = self.fontMetrics()
        room = self.width() - 3 * _PADDING_PX - metrics.horizontalAdvance("Start: ")
        if metrics.horizontalAdvance(" · ".join(self.parts)) <= room:
            shown = self.parts
        else:
            room -= metrics.horizontalAdvance(" · ") * (len(self.parts) - 1)
            widths = [metrics.horizontalAdvance(part) for part in self.parts]
            half = room // len(self.parts)
            # What a short name leaves is for the other.
            rooms = [max(half, room - (sum(widths) - width)) for width in widths]
            middle = Qt.TextElideMode.ElideMiddle
            shown = tuple(
                metrics.elidedText(part, middle, width) for part, width in zip(self.parts, rooms, strict=True)
            )
        self.setText("Start: " + " · ".join(shown).replace("&", "&&"))
