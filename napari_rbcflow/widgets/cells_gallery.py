"""Many cells at once, as small pictures that move slowly; several can be selected.

However many cells there are, only those in sight are read and drawn: six thousand open in a fraction of a
second. Crops are read in a thread.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import (  # type: ignore[attr-defined]
    QAbstractListModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPoint,
    QRect,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from qtpy.QtGui import QColor, QImage, QPainter, QPen
from qtpy.QtWidgets import QAbstractItemView, QListView, QStyle, QStyledItemDelegate, QWidget

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sentences import say
from napari_rbcflow.session import CellRow, Session, open_session
from napari_rbcflow.types import CROP_SIDE, Label
from napari_rbcflow.widgets.cells_strip import draw_crop
from napari_rbcflow.widgets.crop_player import (
    certainty,
    grey_images,
    probabilities,
    reason_words,
    two_digits,
    words_of,
)
from napari_rbcflow.widgets.label_styles import CHIPS, LABEL_STYLES

# Read together by the thread: a person who scrolls on waits no longer than for these.
_BATCH = 12
# Cells whose pictures are kept: about 25 kB each.
_KEPT = 1000
_READ_MS = 15
# A picture of a sequence is shown as long as eight at the camera's usual 60 per second.
_FRAME_MS = 133
# Frames' times between the end of a sequence and its start.
_PAUSE = 3
# Then they stop: nobody looks longer without scrolling, and a run beside it needs the time.
PLAYS_FOR_S = 60.0

_FRAME = 3
_SIDE = 2 * CROP_SIDE + 2 * _FRAME
_MARGIN = 3


class CropsInSight:
    """Reads the pictures of the cells in sight in a thread; none of Qt's own objects, and nothing queued."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[dict[int, list[QImage]]] | None = None
        self._read: OrderedDict[int, list[QImage]] = OrderedDict()

    def show(self, session: Session | None) -> None:
        """Read from now on what a session holds now; what was read of it before stays."""
        before = self._session
        if session is None or before is None or before.folder != session.folder:
            self._read.clear()
        for cell in [cell for cell, images in self._read.items() if not images]:
            del self._read[cell]  # perhaps it can be read now
        # One of its own: the thread must not read in what the window uses.
        self._session = None if session is None else open_session(session.folder, cells=session.cells)
        self._future = None

    def images(self, cell: int) -> list[QImage] | None:
        """Return a cell's pictures; empty where they cannot be read, None where they were not read yet."""
        images = self._read.get(cell)
        if images is not None:
            self._read.move_to_end(cell)
        return images

    def poll(self, wanted: Iterable[int]) -> bool:
        """Take in what was read, and have some of what is wanted read; whether anything came in."""
        came = False
        if self._future is not None and self._future.done():
            self._read |= self._future.result()
            self._future, came = None, True
            while len(self._read) > _KEPT:
                self._read.popitem(last=False)
        missing = [cell for cell in wanted if cell not in self._read][:_BATCH]
        if missing and self._future is None and self._session is not None:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-gallery")
            self._future = self._pool.submit(_read, self._session, missing)
        return came

    @property
    def reading(self) -> bool:
        """Whether something is being read."""
        return self._future is not None

    def close(self) -> None:
        """Let the thread end; the next `poll` makes another."""
        pool, self._pool = self._pool, None
        self._future = None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)  # it ends with the few cells that it reads


def _read(session: Session, cells: Sequence[int]) -> dict[int, list[QImage]]:
    read: dict[int, list[QImage]] = {}
    for cell in cells:
        try:
            read[cell] = grey_images(session.sequence(cell).crops)
        except (BadInput, RunFailed, OSError):
            read[cell] = []  # the tile says so, and the cell by itself says why
    return read


class CellModel(QAbstractListModel):
    """The rows of a query."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.rows: list[CellRow] = []
        self.unreadable: set[int] = set()

    def rowCount(self, parent: Any = None) -> int:
        """Return how many cells there are."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def data(self, index: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a person reads or hears of a cell."""
        if not index.isValid() or index.row() >= len(self.rows):
            return None
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return self._words(self.rows[index.row()])[0]
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(self._words(self.rows[index.row()]))
        return None

    def _words(self, row: CellRow) -> list[str]:
        lines = [say("viewer.cell", cell=row.cell, label=words_of(row.label))]
        if row.present_label != row.label:
            lines.append(say("viewer.cell-by-hand", label=words_of(row.present_label)))
        lines += [
            ", ".join(probabilities(row)),
            ", ".join(filter(None, (say("viewer.tile-frames", frames=row.frames), _speed(row)))),
            reason_words(row.reason),
            say("viewer.gallery-unreadable" if row.cell in self.unreadable else "viewer.gallery-open"),
        ]
        return lines

    def show_rows(self, rows: list[CellRow]) -> bool:
        """Take other rows; False where they are of the same cells as before, whose selection then stays."""
        if [row.cell for row in rows] == [row.cell for row in self.rows]:
            self.rows = rows
            if rows:
                self.dataChanged.emit(self.index(0), self.index(len(rows) - 1))
            return False
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()
        return True


def _speed(row: CellRow) -> str:
    """A cell that was seen once has none."""
    speed = row.speed_um_per_s
    return "" if math.isnan(speed) else say("viewer.tile-speed", speed=speed)


class TileDelegate(QStyledItemDelegate):
    """Draws a cell: its crop in the colour of its label, and below it what the networks say."""

    def __init__(self, gallery: Gallery) -> None:
        super().__init__(gallery)
        self._gallery = gallery
        self.sort_by = ""

    def sizeHint(self, option: Any, index: Any) -> QSize:
        """All tiles are alike."""
        return self._gallery.tile

    def paint(self, painter: QPainter, option: Any, index: Any) -> None:
        """Draw the frame of the sequence whose turn it is."""
        gallery = self._gallery
        row: CellRow = gallery.cells.rows[index.row()]
        images = gallery.images_of(row.cell)
        place = option.rect
        palette = gallery.palette()
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(place.adjusted(0, 0, -1, -1), QColor(CHIPS["selected"].ground))
        at = QRect(place.left() + _MARGIN, place.top() + _MARGIN, _SIDE, _SIDE)
        draw_crop(painter, at, gallery.turn_of(images), row.label, row.present_label, palette)
        if images == []:
            painter.setPen(QColor(CHIPS["no-crop"].text))
            painter.drawText(at, Qt.AlignmentFlag.AlignCenter, "?")
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QPen(palette.color(gallery.foregroundRole()), 1, Qt.PenStyle.DotLine))
            painter.drawRect(place.adjusted(0, 0, -2, -2))
        line = gallery.fontMetrics().height()
        words = QRect(place.left(), at.bottom() + 1, place.width(), line)
        sign, p = LABEL_STYLES[row.label].sign, certainty(row)
        first = sign if p is None else f"{sign} {two_digits(p)}"
        if row.present_label != row.label:  # the probability was that of another label
            first = f"{sign} → {LABEL_STYLES[row.present_label].sign}"
        selected = option.state & QStyle.StateFlag.State_Selected
        if selected:  # the ground alone is hardly another than the theme's
            painter.setPen(QPen(palette.color(gallery.foregroundRole()), 1))
            painter.drawRect(place.adjusted(0, 0, -2, -2))
        text = QColor(CHIPS["selected"].text) if selected else palette.color(gallery.foregroundRole())
        painter.setPen(text if selected else LABEL_STYLES[row.label].ink.on(palette))
        painter.drawText(words, Qt.AlignmentFlag.AlignCenter, first)
        painter.setPen(text)
        painter.setFont(gallery.small_font)
        painter.drawText(words.translated(0, line), Qt.AlignmentFlag.AlignHCenter, self._second_line(row))
        painter.setFont(gallery.font())

    def _second_line(self, row: CellRow) -> str:
        """The value by which the cells are sorted."""
        if self.sort_by == "speed_um_per_s":
            return _speed(row)
        if self.sort_by == "frames":
            return say("viewer.tile-frames", frames=row.frames)
        if self.sort_by == "p_tank_treading":
            p, style = row.p_tank_treading, LABEL_STYLES[Label.TANK_TREADING]
            return "" if p is None else f"{style.sign} {two_digits(p)}"
        return "" if row.p_reliable is None else say("viewer.strip-reliable", p=two_digits(row.p_reliable))


class Gallery(QListView):
    """The cells of a query; selected with the mouse, Ctrl, Shift, a frame that is drawn, or the keys."""

    picked = Signal()  # other cells are selected
    opened = Signal(int)  # the cell that was double-clicked, or had the focus at Enter

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.crops = CropsInSight()
        self.cells = CellModel(self)
        self._delegate = TileDelegate(self)
        self._wanted: dict[int, None] = {}
        self._turn = 0
        self._since_s = 0.0
        self.playing = True
        self.setAccessibleName(say("viewer.gallery-name"))
        self.setModel(self.cells)
        self.setItemDelegate(self._delegate)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(True)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setUniformItemSizes(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setSelectionRectVisible(True)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.setMinimumHeight(2 * self.tile.height() + 8)
        self.selectionModel().selectionChanged.connect(self._selection_changed)
        self.verticalScrollBar().valueChanged.connect(self._wake)
        self.doubleClicked.connect(self._open)
        self._reads = QTimer(self)
        self._reads.setInterval(_READ_MS)
        self._reads.timeout.connect(self._take_crops)
        self._plays = QTimer(self)
        self._plays.setInterval(_FRAME_MS)
        self._plays.timeout.connect(self._next_turn)
        # Not through `self`, which is then half gone.
        crops = self.crops
        self.destroyed.connect(lambda: crops.close())

    # ------------------------------------------------------------------ what is shown

    @property
    def tile(self) -> QSize:
        """The size of a tile."""
        return QSize(_SIDE + 2 * _MARGIN, _SIDE + 2 * _MARGIN + 2 * self.fontMetrics().height() + 2)

    @property
    def small_font(self) -> Any:
        """The font of a tile's second line."""
        font = self.font()
        font.setPointSizeF(max(6.0, 0.82 * font.pointSizeF()) if font.pointSizeF() > 0 else 8.0)
        return font

    def show_rows(self, session: Session | None, rows: list[CellRow], sort_by: str = "") -> None:
        """Show a session's cells; those that were selected and are still there stay selected."""
        chosen, current = set(self.selected), self.current
        self._delegate.sort_by = sort_by
        self.crops.show(session)
        self._wanted.clear()
        if self.cells.show_rows(rows):
            self.select([row.cell for row in rows if row.cell in chosen], current)
            self.picked.emit()
        self._wake()

    @property
    def selected(self) -> list[int]:
        """The cells that are selected, in the order of the tiles."""
        rows = self.cells.rows
        return [rows[at].cell for at in sorted(index.row() for index in self.selectedIndexes())]

    @property
    def selected_rows(self) -> list[CellRow]:
        """The same, with what is known of them."""
        rows = self.cells.rows
        return [rows[at] for at in sorted(index.row() for index in self.selectedIndexes())]

    @property
    def current(self) -> int | None:
        """The cell that has the focus, from which keys go on."""
        at = self.currentIndex().row()
        return self.cells.rows[at].cell if 0 <= at < len(self.cells.rows) else None

    def select(self, cells: Sequence[int], current: int | None = None) -> None:
        """Select these of the cells shown and no others; scroll to the current one, or the first."""
        place = {row.cell: at for at, row in enumerate(self.cells.rows)}
        chosen = QItemSelection()
        for cell in cells:
            if cell in place:
                index = self.cells.index(place[cell])
                chosen.select(index, index)
        flags = QItemSelectionModel.SelectionFlag
        at = next((place[cell] for cell in (current, *cells) if cell in place), None)
        if at is not None:
            self.selectionModel().setCurrentIndex(self.cells.index(at), flags.NoUpdate)
            self.scrollTo(self.cells.index(at))
        self.selectionModel().select(chosen, flags.ClearAndSelect)

    def place_of(self, cell: int) -> QPoint:
        """Return the middle of a cell's tile in the viewport, which may be out of sight."""
        at = next(at for at, row in enumerate(self.cells.rows) if row.cell == cell)
        return self.visualRect(self.cells.index(at)).center()

    # ------------------------------------------------------------------ pictures

    def set_playing(self, playing: bool) -> None:
        """Let the sequences move, or show the middle of each."""
        self.playing = playing
        self._wake()
        self.viewport().update()

    def images_of(self, cell: int) -> list[QImage] | None:
        """Return a cell's pictures, or have them read."""
        images = self.crops.images(cell)
        if images is None:
            self._wanted[cell] = None
            if not self._reads.isActive():
                self._reads.start()
        return images

    def turn_of(self, images: list[QImage] | None) -> QImage | None:
        """Return the picture whose turn it is."""
        if not images:
            return None
        if not self.playing:
            return images[len(images) // 2]
        return images[min(self._turn % (len(images) + _PAUSE), len(images) - 1)]

    def paintEvent(self, event: Any) -> None:
        """Draw what is in sight, and forget what was wanted and no longer is."""
        self._wanted.clear()
        super().paintEvent(event)

    def _take_crops(self) -> None:
        if self.crops.poll(self._wanted):
            for cell in [cell for cell in self._wanted if self.crops.images(cell) is not None]:
                if not self.crops.images(cell):
                    self.cells.unreadable.add(cell)
                del self._wanted[cell]
            self.viewport().update()
        if not self._wanted and not self.crops.reading:
            self._reads.stop()

    def _next_turn(self) -> None:
        if time.monotonic() - self._since_s > PLAYS_FOR_S:
            self._plays.stop()
            return
        self._turn += 1
        self.viewport().update()

    def _wake(self, *_: object) -> None:
        self._since_s = time.monotonic()
        if self.playing and self.isVisible() and self.cells.rows:
            if not self._plays.isActive():
                self._plays.start()
        else:
            self._plays.stop()

    def showEvent(self, event: Any) -> None:
        """Go on."""
        super().showEvent(event)
        self._wake()

    def hideEvent(self, event: Any) -> None:
        """Stop."""
        self._plays.stop()
        self._reads.stop()
        self.crops.close()
        super().hideEvent(event)

    # ------------------------------------------------------------------ mouse and keys

    def keyPressEvent(self, event: Any) -> None:
        """Open at Enter; letters are no search among tiles without names."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._open(self.currentIndex())
        elif event.text().isalnum() and not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def _open(self, index: QModelIndex) -> None:
        if index.isValid():
            self.opened.emit(self.cells.rows[index.row()].cell)

    def _selection_changed(self, *_: object) -> None:
        self._wake()
        self.picked.emit()
