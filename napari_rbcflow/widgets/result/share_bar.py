"""A bar for how far something has come."""

from __future__ import annotations

from qtpy.QtCore import QRectF
from qtpy.QtGui import QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget

HEIGHT_PX = 14
STEPS = 500


class ShareBar(QWidget):
    """Shows a share from 0 to 1.

    Not a QProgressBar: that one paints at once whenever its value changes, and beside napari's canvas
    each such painting composes the whole window (38 ms at 1500 x 950 without a GPU, measured).
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._share = 0.0
        self.setFixedHeight(HEIGHT_PX)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def share(self) -> float:
        """What is shown."""
        return self._share

    def show_share(self, share: float) -> None:
        """Show another share; painted with whatever is painted next."""
        share = round(min(1.0, max(0.0, share)) * STEPS) / STEPS
        if share != self._share:
            self._share = share
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Fill as much of the frame as the share says."""
        painter = QPainter(self)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        frame = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        filled = QRectF(frame)
        filled.setWidth(frame.width() * self._share)
        ink.setAlphaF(0.55)
        painter.fillRect(filled, ink)
        painter.setPen(ink)
        painter.drawRect(frame)
        painter.end()
