"""The cells judged last, as a strip of crops; a click chooses one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import (  # type: ignore[attr-defined]
    QEvent,
    QPoint,
    QRect,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from qtpy.QtGui import QColor, QImage, QPainter, QPalette, QPen, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.pipeline import JudgedCell
from napari_rbcflow.sentences import say
from napari_rbcflow.session import STRUCK_OUT
from napari_rbcflow.types import CROP_SIDE, Label
from napari_rbcflow.widgets.crop_player import (
    certainty,
    grey_images,
    probabilities,
    reason_words,
    two_digits,
    words_of,
)
from napari_rbcflow.widgets.label_styles import BLACK, CHIPS, INKS, LABEL_STYLES

_PICTURE = 2 * CROP_SIDE
_FRAME = 3
_SIDE = _PICTURE + 2 * _FRAME
_GAP = 4


def draw_crop(
    painter: QPainter, at: QRect, image: QImage | None, label: str, present_label: str, palette: QPalette
) -> None:
    """Draw a crop in the colour of the machine's label; the one by hand, if it is another, over it."""
    painter.fillRect(at, LABEL_STYLES[label].ink.on(palette))
    inside = at.adjusted(_FRAME, _FRAME, -_FRAME, -_FRAME)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
    if image is None:
        painter.fillRect(inside, QColor(CHIPS["no-crop"].ground))
    else:
        painter.drawImage(inside, image)
    if present_label == label:
        return
    # On the crop itself, whose grey may be any: an edge of black.
    for pen in (QPen(QColor(BLACK), 5), QPen(QColor(LABEL_STYLES[present_label].colour), 3)):
        painter.setPen(pen)
        if present_label == STRUCK_OUT:
            painter.drawLine(inside.bottomLeft(), inside.topRight())
        else:
            painter.drawRect(inside.adjusted(3, 3, -3, -3))


class CropTiles(QWidget):
    """The crops, painted on one widget; a cell's picture is made when it first becomes visible."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[JudgedCell] = []
        self._pictures: dict[int, QPixmap] = {}
        self._marks: dict[int, str] = {}
        self._selected: int | None = None
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(say("viewer.strip-name"))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def show_cells(self, cells: list[JudgedCell]) -> None:
        self.cells = cells
        shown = {cell.cell for cell in cells}
        for cell in self._pictures.keys() - shown:
            del self._pictures[cell]
        self._fit()
        self.update()

    def forget(self) -> None:
        self._pictures.clear()
        self._marks.clear()
        self._selected = None

    def mark(self, cell: int, label: str | None) -> None:
        if label is None:
            self._marks.pop(cell, None)
        else:
            self._marks[cell] = label
        self._pictures.pop(cell, None)
        self.update()

    def select(self, cell: int | None) -> None:
        if cell != self._selected:
            self._selected = cell
            self.update()

    def place_of(self, cell: int) -> QPoint | None:
        at = self._at(cell)
        return None if at is None else self._rect(at).topLeft() + QPoint(_SIDE // 2, _SIDE // 2)

    def sizeHint(self) -> QSize:
        return QSize(6 * (_SIDE + _GAP), 2 * self._row_height())

    def _fit(self) -> None:
        rows = -(-len(self.cells) // self._columns())
        height = max(1, rows) * self._row_height() + _GAP
        if height != self.minimumHeight():
            self.setMinimumHeight(height)

    def _columns(self) -> int:
        return max(1, (self.width() - _GAP) // (_SIDE + _GAP))

    def _row_height(self) -> int:
        return int(_SIDE + 2 * self.fontMetrics().height() + _GAP)

    def _rect(self, at: int) -> QRect:
        row, column = divmod(at, self._columns())
        return QRect(
            _GAP + column * (_SIDE + _GAP),
            _GAP + row * self._row_height(),
            _SIDE,
            self._row_height() - _GAP,
        )

    def _at(self, cell: int) -> int | None:
        return next((i for i, one in enumerate(self.cells) if one.cell == cell), None)

    def _under(self, place: QPoint) -> JudgedCell | None:
        column, row = (place.x() - _GAP) // (_SIDE + _GAP), (place.y() - _GAP) // self._row_height()
        at = row * self._columns() + column
        if 0 <= column < self._columns() and 0 <= at < len(self.cells) and self._rect(at).contains(place):
            return self.cells[at]
        return None

    def resizeEvent(self, event: Any) -> None:
        self._fit()

    def changeEvent(self, event: Any) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange, QEvent.Type.FontChange):
            self._pictures.clear()  # a viewer's theme was changed
            self._fit()

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        seen = event.rect()
        first = max(0, (seen.top() - _GAP) // self._row_height()) * self._columns()
        for at in range(first, len(self.cells)):
            place = self._rect(at)
            if place.top() > seen.bottom():
                break
            cell = self.cells[at]
            painter.drawPixmap(place.topLeft(), self._picture(cell))
            if cell.cell == self._selected:
                painter.setPen(QPen(self.palette().color(self.foregroundRole()), 2))
                painter.drawRect(QRect(place.left() - 2, place.top() - 2, _SIDE + 3, _SIDE + 3))
        painter.end()

    def _picture(self, cell: JudgedCell) -> QPixmap:
        ratio = self.devicePixelRatioF()
        picture = self._pictures.get(cell.cell)
        if picture is None or picture.devicePixelRatio() != ratio:
            picture = self._pictures[cell.cell] = self._draw(cell, ratio)
        return picture

    def _draw(self, cell: JudgedCell, ratio: float) -> QPixmap:
        height = self._row_height() - _GAP
        picture = QPixmap(QSize(_SIDE, height) * ratio)
        picture.setDevicePixelRatio(ratio)
        picture.fill(Qt.GlobalColor.transparent)
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        style, p = LABEL_STYLES[cell.label], certainty(cell)
        by_hand = self._mark_of(cell)
        image = grey_images(cell.crop[None])[0]
        whole = QRect(0, 0, _SIDE, _SIDE)
        draw_crop(painter, whole, image, cell.label, by_hand or cell.label, self.palette())
        line = self.fontMetrics().height()
        first = style.sign
        if by_hand is not None:  # the probability was that of another label
            first = f"{style.sign} → {LABEL_STYLES[by_hand].sign}"
        elif p is not None:
            first = f"{style.sign} {two_digits(p)}"
        painter.setPen(style.ink.on(self.palette()))
        painter.drawText(QRect(0, _SIDE, _SIDE, line), Qt.AlignmentFlag.AlignCenter, first)
        if cell.label != Label.UNRELIABLE and cell.p_reliable is not None:
            painter.setPen(INKS["quiet"].on(self.palette()))
            font = painter.font()
            font.setPointSizeF(max(6.0, 0.82 * font.pointSizeF()) if font.pointSizeF() > 0 else 8.0)
            painter.setFont(font)
            rest = say("viewer.strip-reliable", p=two_digits(cell.p_reliable))
            painter.drawText(QRect(0, _SIDE + line, _SIDE, line), Qt.AlignmentFlag.AlignHCenter, rest)
        painter.end()
        return picture

    def _mark_of(self, cell: JudgedCell) -> str | None:
        label = self._marks.get(cell.cell)
        return None if label is None or label == cell.label or label not in LABEL_STYLES else label

    def mouseReleaseEvent(self, event: Any) -> None:
        cell = self._under(event.pos())
        if event.button() == Qt.MouseButton.LeftButton and cell is not None:
            self.select(cell.cell)
            self.chosen.emit(cell.cell)

    def keyPressEvent(self, event: Any) -> None:
        steps = {
            Qt.Key.Key_Left: -1,
            Qt.Key.Key_Right: 1,
            Qt.Key.Key_Up: -self._columns(),
            Qt.Key.Key_Down: self._columns(),
        }
        step = steps.get(event.key())
        if step is None or not self.cells:
            super().keyPressEvent(event)
            return
        at = None if self._selected is None else self._at(self._selected)
        at = 0 if at is None else min(max(at + step, 0), len(self.cells) - 1)
        cell = self.cells[at].cell
        self.select(cell)
        self.chosen.emit(cell)

    def event(self, event: Any) -> bool:
        if event.type() == QEvent.Type.ToolTip:
            cell = self._under(event.pos())
            QToolTip.showText(event.globalPos(), "" if cell is None else self._tip(cell), self)
            return True
        return bool(super().event(event))

    def _tip(self, cell: JudgedCell) -> str:
        lines = [
            say("viewer.cell", cell=cell.cell, label=words_of(cell.label)),
            ", ".join(probabilities(cell)),
            say("viewer.cell-frames", frames=cell.frames, first=cell.first_frame, last=cell.last_frame),
            say("viewer.cell-last-seen", x=cell.x_px, y=cell.y_px),
            reason_words(cell.reason),
            say("viewer.strip-click"),
        ]
        by_hand = self._mark_of(cell)
        if by_hand == STRUCK_OUT:
            lines.insert(1, words_of(by_hand))
        elif by_hand is not None:
            lines.insert(1, say("viewer.cell-changed-to", label=words_of(by_hand)))
        return "\n".join(lines)


# Cells of each kind; older ones are in the session.
REMEMBERED = 200
# A hundred cells are judged in a second: shown more often, nobody could look at one, let alone click it.
EVERY_MS = 500
_COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
_JUDGED = (*_COUNTED, Label.UNRELIABLE)


class CellStrip(QWidget):
    """The latest judged cells, newest first; paused while the pointer is on it.

    Nothing is queued: what no longer fits is forgotten, and a hidden strip draws nothing.
    """

    chosen = Signal(int)  # the cell that was clicked

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._counted: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._judged: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._n = {True: 0, False: 0}
        self._n_shown = 0

        self.choice = QComboBox()
        self.choice.addItems([say("viewer.strip-counted"), say("viewer.strip-all")])
        self.choice.setToolTip(say("viewer.strip-help"))
        self.choice.currentIndexChanged.connect(self._refresh)
        self._status = QLabel()
        self._tiles = CropTiles()
        self._tiles.chosen.connect(self.chosen)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setWidget(self._tiles)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.viewport().installEventFilter(self)
        self._held = False
        # Single shots: nothing ticks where nothing new comes.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._refresh)

        head = QHBoxLayout()
        head.addWidget(QLabel(say("viewer.strip-latest")))
        head.addWidget(self.choice)
        head.addWidget(self._status, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(head)
        layout.addWidget(self._area, 1)
        self._refresh()

    @property
    def cells(self) -> list[int]:
        """The cells on show, newest first."""
        return [cell.cell for cell in self._tiles.cells]

    @property
    def all_judged(self) -> bool:
        """Whether unreliable cells are shown too."""
        return self.choice.currentIndex() == 1

    def clear(self) -> None:
        """Forget all cells and marks."""
        self._counted.clear()
        self._judged.clear()
        self._n = {True: 0, False: 0}
        self._tiles.forget()
        self._refresh(even_if_held=True)

    def add(self, judged: Sequence[JudgedCell]) -> None:
        """Take newly judged cells in, oldest first; those not judged (too short, uncounted) are left out."""
        counted = [cell for cell in judged if cell.label in _COUNTED]
        some = [cell for cell in judged if cell.label in _JUDGED]
        self._counted.extend(counted)
        self._judged.extend(some)
        self._n[False] += len(counted)
        self._n[True] += len(some)
        if (some if self.all_judged else counted) and self.isVisible() and not self._timer.isActive():
            self._timer.start(EVERY_MS)

    def draw_now(self) -> None:
        """Show what waits, beside something else in the window that is drawn anyway."""
        if self._timer.isActive():
            self._timer.stop()
            self._refresh()

    def mark(self, cell: int, label: str | None) -> None:
        """Show that a person gave a cell another label; None, or the machine's own, removes the mark."""
        self._tiles.mark(cell, label)

    def select(self, cell: int | None) -> None:
        """Show which cell is open elsewhere."""
        self._tiles.select(cell)

    def place_of(self, cell: int) -> QPoint | None:
        """Return the centre of a cell's crop on the painted widget; None where it is not shown."""
        return self._tiles.place_of(cell)

    def showEvent(self, event: Any) -> None:
        """Catch up with what came while hidden."""
        super().showEvent(event)
        self._refresh()

    def hideEvent(self, event: Any) -> None:
        """Stop."""
        self._timer.stop()
        self._held = False
        super().hideEvent(event)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Pause while the pointer is on the crops: nobody can click what moves."""
        if event.type() == QEvent.Type.Enter:
            self._held = True
            self._show_status()
        elif event.type() == QEvent.Type.Leave:
            self._held = False
            self._refresh()
        return bool(super().eventFilter(watched, event))

    def _refresh(self, *_: object, even_if_held: bool = False) -> None:
        if self._held and not even_if_held and self.sender() is not self.choice:
            self._show_status()
            return
        self._n_shown = self._n[self.all_judged]
        self._tiles.show_cells(list(reversed(self._judged if self.all_judged else self._counted)))
        self._show_status()

    def _show_status(self) -> None:
        newer = self._n[self.all_judged] - self._n_shown
        if not self._tiles.cells:
            status = say("viewer.strip-none")
        elif self._held:
            status = say("viewer.strip-paused-newer", newer=newer) if newer else say("viewer.strip-paused")
        else:
            status = say("viewer.strip-newest-first")
        if status != self._status.text():
            self._status.setText(status)
