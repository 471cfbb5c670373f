"""Crops as pictures that a person can judge: one cell's sequence in motion, and all its frames."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QElapsedTimer, QPoint, QRect, QSize, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap, QPolygon
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_rbcflow.pipeline import JudgedCell
from napari_rbcflow.sentences import say
from napari_rbcflow.session import STRUCK_OUT, CellRecord, CellRow, CropSequence
from napari_rbcflow.types import CROP_SIDE, Label
from napari_rbcflow.widgets.label_styles import BLACK, CHIPS, LABEL_STYLES

# Around the background, which is the median of a crop. Cells in focus reach 9 below and 13 above.
GREY_EITHER_SIDE = 25


def grey_images(crops: NDArray[np.uint8], finer: int = 1) -> list[QImage]:
    """Return one cell's crops, shape (n, h, w), as pictures with one contrast around its background.

    `finer` times as many pixels each way, by cubic interpolation: a rim of two pixels stays sharp and has
    no steps, where a picture is shown large.
    """
    if not len(crops):
        return []
    levels = np.arange(256) - float(np.median(crops)) + GREY_EITHER_SIDE
    table = np.clip(levels * (255 / (2 * GREY_EITHER_SIDE)), 0, 255).astype(np.uint8)
    height, width = (side * finer for side in crops.shape[1:])
    greys: Iterable[NDArray[Any]] = table[crops]
    if finer > 1:
        greys = (cv2.resize(grey, (width, height), interpolation=cv2.INTER_CUBIC) for grey in greys)
    return [
        QImage(grey.tobytes(), width, height, width, QImage.Format.Format_Grayscale8).copy() for grey in greys
    ]


_WHY = {
    "stage-1": "viewer.why-stage-1",
    "stage-2": "viewer.why-stage-2",
    "undecided": "viewer.why-undecided",
    "other-speed": "viewer.why-other-speed",
    "too-short": "viewer.why-too-short",
    "after-stop": "viewer.why-after-stop",
    "cut-by-stop": "viewer.why-cut-by-stop",
    "run-failed": "viewer.why-run-failed",
    "too-few-frames": "viewer.why-too-few-frames",
    "piece": "viewer.why-piece",
}


def reason_words(reason: str) -> str:
    """Return a reason of ``cells.csv`` in plain words."""
    return say(_WHY[reason]) if reason in _WHY else reason


def certainty(cell: JudgedCell | CellRow) -> float | None:
    """Return the probability of a cell's label itself; None where there is none."""
    if cell.label == Label.TANK_TREADING:
        return cell.p_tank_treading
    if cell.label == Label.FLIPPING:
        return None if cell.p_tank_treading is None else 1 - cell.p_tank_treading
    if cell.label == Label.UNRELIABLE and cell.reason not in ("undecided", "other-speed"):
        return None if cell.p_reliable is None else 1 - cell.p_reliable
    return None


def probabilities(cell: JudgedCell | CellRecord | CellRow) -> list[str]:
    """Return both probabilities of a cell in words, or that there are none."""
    told = []
    if cell.p_reliable is not None:
        told.append(say("viewer.p-reliable", p=two_digits(cell.p_reliable)))
    if cell.p_tank_treading is not None:
        told.append(say("viewer.p-tank-treading", p=two_digits(cell.p_tank_treading)))
    return told or [say("viewer.p-none")]


def two_digits(p: float) -> str:
    """Return a probability with two decimals; as 1.00 or 0.00 only where it is that."""
    if 0.995 <= p < 1:
        return ">0.99"
    if 0 < p < 0.005:
        return "<0.01"
    return f"{p:.2f}"


def words_of(label: str) -> str:
    """Return a label's name for a person."""
    style = LABEL_STYLES.get(label)
    return label if style is None else style.words


def heading_of(cell: CellRecord) -> str:
    """Return the machine's label and the one by hand, if there is one, as rich text."""
    lines = [say("viewer.cell", cell=cell.cell, label=_coloured(cell.label, words_of(cell.label)))]
    if cell.change is not None:
        now = cell.change.now
        words = say("viewer.excluded") if now == STRUCK_OUT else words_of(now)
        lines.append(say("viewer.cell-by-hand", label=_coloured(now, words)))
    return "<br>".join(lines)


def _coloured(label: str, words: str) -> str:
    style = LABEL_STYLES[label]
    return style.chip.html(f"{style.sign} {words}")


def facts_of(cell: CellRecord) -> str:
    """Return what is known of a cell, a line each, as rich text."""
    lines = [
        *probabilities(cell),
        reason_words(cell.reason),
        say("viewer.cell-frames", frames=cell.frames, first=cell.first_frame, last=cell.last_frame),
        say("viewer.cell-speed", speed=cell.speed_um_per_s, x=cell.x_px, y=cell.y_px),
    ]
    if cell.change is not None:
        when = cell.change.changed[:16].replace("T", ", ")
        lines.append(say("viewer.cell-changed-by", name=cell.change.by, when=when))
    return "<br>".join(escape(line) for line in lines)


def flags_words(sequence: CropSequence) -> str:
    """Say which frames need a second look, a line for each kind, as rich text."""
    return "<br>".join(
        f"{CHIPS[chip].html(sign)} {say(key, frames=n, total=len(flags))}"
        for flags, chip, sign, key in (
            (sequence.intruded, "grave", "◥", "viewer.flag-intruded"),
            (~sequence.seen, "note", "⬚", "viewer.flag-unseen"),
            (sequence.edge, "note", "▁", "viewer.flag-edge"),
        )
        if (n := int(np.count_nonzero(flags)))
    )


# At 60 frames/s every second frame is drawn, at its own moment: each drawing makes Qt compose the whole
# window, and a live picture beside it needs the time.
REFRESH_MS = 33
# Between the end of a sequence and its start.
PAUSE_S = 0.4
# Then it stops: nobody looks at one cell for longer, and a run beside it needs the time.
PLAYS_FOR_S = 20.0
_ZOOM = 5
_FILM_ZOOMS = (2.0, 1.5, 1.0)


class CropPlayer(QWidget):
    """Plays a sequence in a loop at the camera's speed while it is visible; a click pauses it or goes on."""

    at = Signal(int)  # which frame of the sequence is shown
    finer = 1  # see `grey_images`

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._images: list[QImage] = []
        self._due_s: NDArray[np.float64] = np.zeros(0)
        self.index = 0
        self._clock = QElapsedTimer()
        self._slower = 1
        self.playing = True
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._tick)
        self.setFixedSize(_ZOOM * CROP_SIDE, _ZOOM * CROP_SIDE)
        self.setToolTip(say("viewer.play-help"))
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def show_sequence(self, sequence: CropSequence | None, fps: float = 60.0) -> None:
        """Play another sequence from its start; None shows nothing."""
        self._images = [] if sequence is None else grey_images(sequence.crops, self.finer)
        # A frame that never came leaves its gap: what is seen moves as the cell did.
        self._due_s = np.zeros(0) if sequence is None else (sequence.frame - sequence.frame[:1]) / fps
        self.index = 0
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
        # The last frame stays a little, or nobody would see where a sequence starts.
        loop_s = float(self._due_s[-1]) + PAUSE_S / self._slower
        now_s = math.fmod(gone_s / self._slower, loop_s)
        self._set_index(int(np.searchsorted(self._due_s, now_s, side="right")) - 1)

    def _set_index(self, index: int) -> None:
        index = min(max(index, 0), max(0, len(self._images) - 1))
        if index != self.index or not self.playing:
            self.index = index
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
            painter.drawImage(self.rect(), self._images[self.index])
        painter.end()


class Film(QWidget):
    """All frames of a sequence in rows; those that need a second look are flagged."""

    pointed = Signal(int)  # the frame that was clicked

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
                painter.setPen(QPen(QColor(BLACK), 2))
                painter.drawRect(inside)
                painter.setPen(QPen(QColor(CHIPS["note"].ground), 2, Qt.PenStyle.DotLine))
                painter.drawRect(inside)
            if self._sequence.intruded[at]:
                corner = inside.topRight()
                painter.setPen(QPen(QColor(BLACK), 1))
                painter.setBrush(QColor(CHIPS["grave"].ground))
                painter.drawPolygon(QPolygon([corner, corner + QPoint(-9, 0), corner + QPoint(0, 9)]))
                painter.setBrush(Qt.BrushStyle.NoBrush)
            if self._sequence.edge[at]:
                for pen in (QPen(QColor(BLACK), 5), QPen(QColor(CHIPS["note"].ground), 2)):
                    painter.setPen(pen)
                    painter.drawLine(inside.bottomLeft(), inside.bottomRight())
        painter.end()
        return picture
