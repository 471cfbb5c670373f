"""Crops as pictures that a person can judge: one cell's sequence in motion, and all its frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QElapsedTimer, QPoint, QRect, QSize, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap, QPolygon
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_rbcflow.session import CropSequence, LookedAt
from napari_rbcflow.types import CROP_SIDE, Label
from napari_rbcflow.widgets.dock import FAULT_COLOUR, LABEL_STYLES, WARNING_COLOUR

GREY_EITHER_SIDE = 25
"""Around the background, which is the median of a crop. Cells in focus reach 9 below and 13 above."""


def grey_images(crops: NDArray[np.uint8]) -> list[QImage]:
    """Return crops as grey pictures in one contrast.

    Parameters
    ----------
    crops : ndarray of uint8, shape (n, h, w)
        Of one cell: the background is taken from all of them.
    """
    if not len(crops):
        return []
    levels = np.arange(256) - float(np.median(crops)) + GREY_EITHER_SIDE
    table = np.clip(levels * (255 / (2 * GREY_EITHER_SIDE)), 0, 255).astype(np.uint8)
    height, width = crops.shape[1:]
    return [
        QImage(crop.tobytes(), width, height, width, QImage.Format.Format_Grayscale8).copy()
        for crop in table[crops]
    ]


_WORDS_WHY = {
    "stage-1": "not sharp or not alone enough, says the first network",
    "stage-2": "judged by both networks",
    "undecided": "sharp enough, but the second network cannot tell whether it tank-treads or flips",
    "other-speed": "it moves at another speed than the cells in focus, so it lies higher or lower",
    "too-short": "seen in too few frames to be judged",
    "after-stop": "it ended after the stop, when the number was frozen",
    "cut-by-stop": "it was still in the picture at the stop",
    "run-failed": "the run broke before it was judged",
    "too-few-frames": "seen in fewer frames than a cell must be to count in this run",
    "piece": "it may be another piece of a cell that is counted already",
}


@dataclass(frozen=True)
class Words:
    """What is said of a judged cell.

    Attributes
    ----------
    label : str
    p_reliable, p_tank_treading : float or None
    reason : str
    """

    label: str
    p_reliable: float | None
    p_tank_treading: float | None
    reason: str

    @property
    def certainty(self) -> float | None:
        """The probability of the label itself; None where there is none."""
        if self.label == Label.TANK_TREADING:
            return self.p_tank_treading
        if self.label == Label.FLIPPING:
            return None if self.p_tank_treading is None else 1 - self.p_tank_treading
        if self.label == Label.UNRELIABLE and self.reason not in ("undecided", "other-speed"):
            return None if self.p_reliable is None else 1 - self.p_reliable
        return None

    @property
    def probabilities(self) -> str:
        """Both probabilities, or that there are none."""
        said = []
        if self.p_reliable is not None:
            said.append(f"reliable {two_digits(self.p_reliable)}")
        if self.p_tank_treading is not None:
            said.append(f"tank-treading {two_digits(self.p_tank_treading)}")
        return ", ".join(said) or "no probabilities"

    @property
    def why(self) -> str:
        """The reason in plain words."""
        return _WORDS_WHY.get(self.reason, self.reason)


def two_digits(p: float) -> str:
    """Say a probability; never as 1.00 or 0.00 what is not."""
    if 0.995 <= p < 1:
        return ">0.99"
    if 0 < p < 0.005:
        return "<0.01"
    return f"{p:.2f}"


def words_of(label: str) -> str:
    """Return a label's name for a person."""
    look = LABEL_STYLES.get(label)
    return label if look is None else look.words


def heading_of(cell: LookedAt) -> str:
    """Return the machine's label and the one by hand, if there is one, as rich text."""
    look = LABEL_STYLES[cell.label]
    machine = f"<span style='color:{look.colour}'>{look.sign} {look.words}</span>"
    if cell.change is None:
        return f"Cell {cell.cell}: {machine}"
    hand = LABEL_STYLES[cell.change.now]
    return (
        f"Cell {cell.cell}: {machine}<br>by hand:"
        f" <span style='color:{hand.colour}'>{hand.sign} {hand.words.removesuffix(' by hand')}</span>"
    )


def facts_of(cell: LookedAt) -> str:
    """Return what is known of a cell, a line each, as rich text."""
    words = Words(cell.label, cell.p_reliable, cell.p_tank_treading, cell.reason)
    lines = [
        *words.probabilities.split(", "),
        words.why,
        f"{cell.frames} frames, {cell.first_frame} to {cell.last_frame}",
        f"{cell.speed_um_per_s:,.0f} µm/s; last seen at x {cell.x_px:.0f}, y {cell.y_px:.0f} px",
    ]
    if cell.change is not None:
        when = cell.change.changed[:16].replace("T", ", ")
        lines.append(f"changed by {cell.change.by}, {when}")
    return "<br>".join(escape(line) for line in lines)


def flags_said(sequence: CropSequence) -> Sequence[str]:
    """Say which frames need a second look, a line a kind."""
    said = []
    for flags, mark, words in (
        (
            sequence.intruded,
            f"<span style='color:{FAULT_COLOUR}'>◥</span>",
            "another cell stands in the crop",
        ),
        (
            ~sequence.seen,
            f"<span style='color:{WARNING_COLOUR}'>⬚</span>",
            "the position was predicted, not seen",
        ),
        (sequence.edge, f"<span style='color:{WARNING_COLOUR}'>▁</span>", "cut by the edge of the field"),
    ):
        if n := int(np.count_nonzero(flags)):
            said.append(f"{mark} {n} of {len(flags)} frames: {words}")
    return said


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
