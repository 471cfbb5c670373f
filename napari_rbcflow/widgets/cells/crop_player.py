"""One cell's sequence in motion, and all its frames at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QElapsedTimer, QPoint, QRect, QSize, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap, QPolygon
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_rbcflow.session.crops import CropSequence
from napari_rbcflow.types import CROP_SIDE
from napari_rbcflow.widgets.cells.crop_art import grey_images
from napari_rbcflow.widgets.theme import FAULT_COLOUR, WARNING_COLOUR

REFRESH_MS = 33
"""At 60 frames/s every second frame is drawn, at its own moment: each drawing makes Qt put the whole
window together anew, and a live picture beside it needs the time."""
PAUSE_S = 0.4
"""Between the end of a sequence and its beginning again."""
PLAYS_FOR_S = 20.0
"""Then it stands still: nobody looks at one cell for longer, and a run beside it needs the time. A click
goes on."""
_ZOOM = 5
_FILM_ZOOMS = (2.0, 1.5, 1.0)


class CropPlayer(QWidget):
    """Plays a sequence in a loop at the camera's own pace; a click stops it or lets it go on.

    Its timer runs only while it can be seen.

    Signals
    -------
    at : int
        Which frame of the sequence is shown.
    """

    at = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._images: list[QImage] = []
        self._due_s: NDArray[np.float64] = np.zeros(0)
        self._index = 0
        self._clock = QElapsedTimer()
        self._slower = 1
        self.playing = True
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._tick)
        self.setFixedSize(_ZOOM * CROP_SIDE, _ZOOM * CROP_SIDE)
        self.setToolTip("Click to stop or go on.")
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    @property
    def index(self) -> int:
        """Which frame is shown."""
        return self._index

    def show_sequence(self, sequence: CropSequence | None, fps: float = 60.0) -> None:
        """Play another sequence from its beginning; None shows nothing."""
        self._images = [] if sequence is None else grey_images(sequence.crops)
        # A frame that never came leaves its gap: what is seen moves as the cell did.
        self._due_s = np.zeros(0) if sequence is None else (sequence.frame - sequence.frame[:1]) / fps
        self._index = 0
        self.at.emit(0)
        self.update()
        self.set_playing(True)

    def set_slower(self, times: int) -> None:
        """Play so many times slower than the camera."""
        self._slower = times
        self._clock.restart()

    def set_playing(self, playing: bool) -> None:
        """Go on, or stand still."""
        self.playing = playing and len(self._images) > 1
        if self.playing and self.isVisible():
            self._clock.restart()
            self._timer.start()
        else:
            self._timer.stop()

    def stand_at(self, index: int) -> None:
        """Stand still at a frame."""
        self.set_playing(False)
        self._set_index(index)

    def _tick(self) -> None:
        gone_s = self._clock.elapsed() / 1000
        if gone_s > PLAYS_FOR_S:
            self.set_playing(False)
            return
        # The last frame stands a little, or one would not see where a sequence begins.
        loop_s = float(self._due_s[-1]) + PAUSE_S / self._slower
        now_s = math.fmod(gone_s / self._slower, loop_s)
        self._set_index(int(np.searchsorted(self._due_s, now_s, side="right")) - 1)

    def _set_index(self, index: int) -> None:
        index = min(max(index, 0), max(0, len(self._images) - 1))
        if index != self._index or not self.playing:
            self._index = index
            self.at.emit(index)
            self.update()

    def showEvent(self, event: Any) -> None:
        """Go on where it can be seen again."""
        super().showEvent(event)
        self.set_playing(self.playing)

    def hideEvent(self, event: Any) -> None:
        """Stop the timer."""
        self._timer.stop()
        super().hideEvent(event)

    def mouseReleaseEvent(self, event: Any) -> None:
        """Stop or go on."""
        if event.button() == Qt.MouseButton.LeftButton:
            self.set_playing(not self.playing)

    def paintEvent(self, event: Any) -> None:
        """Draw the frame."""
        painter = QPainter(self)
        if self._images:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(self.rect(), self._images[self._index])
        painter.end()


class Film(QWidget):
    """All frames of a sequence in rows, those flagged that need a second look.

    Signals
    -------
    pointed : int
        The frame that was clicked.
    """

    pointed = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._images: list[QImage] = []
        self._sequence: CropSequence | None = None
        self._index = 0
        self._drawn: QPixmap | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def show_sequence(self, sequence: CropSequence | None) -> None:
        """Show another sequence; None shows nothing."""
        self._sequence = sequence
        self._images = [] if sequence is None else grey_images(sequence.crops)
        self._index = 0
        self._fit()

    def show_index(self, index: int) -> None:
        """Show which frame the player shows."""
        if index != self._index and self._images:
            for at in (self._index, index):
                self.update(self._place(at).adjusted(-3, -3, 3, 3))
            self._index = index

    def sizeHint(self) -> QSize:
        """Return the size of six crops by four."""
        return QSize(6 * 2 * CROP_SIDE, 4 * 2 * CROP_SIDE)

    def place_of(self, index: int) -> QPoint:
        """Return the middle of a frame."""
        return self._place(index).center()

    def _zoom(self) -> float:
        """The largest at which a sequence needs no more than five rows."""
        for zoom in _FILM_ZOOMS:
            if len(self._images) <= 5 * self._columns(zoom):
                return zoom
        return _FILM_ZOOMS[-1]

    def _columns(self, zoom: float) -> int:
        return max(1, int(self.width() // (CROP_SIDE * zoom + 2)))

    def _place(self, at: int) -> QRect:
        zoom = self._zoom()
        side = int(CROP_SIDE * zoom)
        row, column = divmod(at, self._columns(zoom))
        return QRect(1 + column * (side + 2), 1 + row * (side + 2), side, side)

    def _fit(self) -> None:
        rows = -(-len(self._images) // self._columns(self._zoom()))
        height = rows * (int(CROP_SIDE * self._zoom()) + 2) + 2
        if height != self.minimumHeight():
            self.setMinimumHeight(height)
        self._drawn = None
        self.update()

    def resizeEvent(self, event: Any) -> None:
        """Wrap anew."""
        self._fit()

    def mouseReleaseEvent(self, event: Any) -> None:
        """Tell which frame was clicked."""
        for at in range(len(self._images)):
            if self._place(at).contains(event.pos()):
                self.pointed.emit(at)
                return

    def paintEvent(self, event: Any) -> None:
        """Draw the frames, of which only the frame around the present one ever changes."""
        if not self._images:
            return
        ratio = self.devicePixelRatioF()
        if self._drawn is None or self._drawn.devicePixelRatio() != ratio:
            self._drawn = self._draw(ratio)
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._drawn)
        painter.setPen(QPen(self.palette().color(self.foregroundRole()), 2))
        painter.drawRect(self._place(self._index))
        painter.end()

    def _draw(self, ratio: float) -> QPixmap:
        picture = QPixmap(self.size() * ratio)
        picture.setDevicePixelRatio(ratio)
        picture.fill(Qt.GlobalColor.transparent)
        assert self._sequence is not None
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        for at, image in enumerate(self._images):
            place = self._place(at)
            painter.drawImage(place, image)
            inside = place.adjusted(1, 1, -2, -2)
            if not self._sequence.seen[at]:
                painter.setPen(QPen(QColor(WARNING_COLOUR), 2, Qt.PenStyle.DotLine))
                painter.drawRect(inside)
            if self._sequence.intruded[at]:
                corner = inside.topRight()
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(FAULT_COLOUR))
                painter.drawPolygon(QPolygon([corner, corner + QPoint(-9, 0), corner + QPoint(0, 9)]))
                painter.setBrush(Qt.BrushStyle.NoBrush)
            if self._sequence.edge[at]:
                painter.setPen(QPen(QColor(WARNING_COLOUR), 2))
                painter.drawLine(inside.bottomLeft(), inside.bottomRight())
        painter.end()
        return picture
