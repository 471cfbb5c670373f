"""The page on which a person says what a cell is: a large slow loop, its frames, one key a cell."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QElapsedTimer, QEvent, QRect, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QPainter, QResizeEvent
from qtpy.QtWidgets import (
    QBoxLayout,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.quality import percent
from napari_rbcflow.sentences import say
from napari_rbcflow.session import CropSequence, FractionFigure
from napari_rbcflow.types import CROP_SIDE, Label
from napari_rbcflow.widgets.crop_player import CropPlayer, Film, words_of
from napari_rbcflow.widgets.label_styles import CHIPS, LABEL_STYLES
from napari_rbcflow.widgets.panel import set_text, wrapping_label
from napari_rbcflow.widgets.result import interval_words
from napari_rbcflow.widgets.result_parts import ShareBar

KEYS = {
    Qt.Key.Key_T: Label.TANK_TREADING,
    Qt.Key.Key_F: Label.FLIPPING,
    Qt.Key.Key_U: Label.UNRELIABLE,
}
OTHER_KEYS = (Qt.Key.Key_Z, Qt.Key.Key_Space)
USUAL_ZOOM, LEAST_ZOOM = 10, 5
# Nobody can see a cell in less: a second press, or click, of the same answer is not one for the next cell.
LEAST_LOOK_S = 0.25
# The number follows a person's answers in such steps: after each, one could read off what the machine says.
EVERY_CELLS = 10
_PACES = {say("viewer.check-pace-1"): 1, say("viewer.check-pace-3"): 3, say("viewer.check-pace-6"): 6}


class LargePlayer(CropPlayer):
    """A sequence in a loop, as large as there is room for."""

    finer = 4  # the rest of the way is smooth enough with Qt's own interpolation

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(LEAST_ZOOM * CROP_SIDE, LEAST_ZOOM * CROP_SIDE)
        self.setMaximumSize(16_777_215, 16_777_215)  # Qt's word for any size
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def play_again(self) -> None:
        """Play from the start."""
        self.stand_at(0)
        self.set_playing(True)

    def paintEvent(self, event: Any) -> None:
        """Draw the frame as a square in the middle."""
        if not self._images:
            return
        side = min(self.width(), self.height())
        place = QRect((self.width() - side) // 2, (self.height() - side) // 2, side, side)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(place, self._images[self.index])
        painter.end()


class WholeFilm(Film):
    """All frames of a sequence, as large as they all fit: nothing is scrolled."""

    def __init__(self) -> None:
        self._fitting = 1.0
        super().__init__()
        self.setMinimumHeight(2 * CROP_SIDE)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        """Return the size of two rows."""
        return QSize(10 * CROP_SIDE, 4 * CROP_SIDE)

    def _zoom(self) -> float:
        return self._fitting

    def _fit(self) -> None:
        # In steps of a tenth, from the largest; whole pixels of a crop matter less than seeing all frames.
        for tenths in range(25, 2, -1):
            self._fitting = tenths / 10
            rows = -(-len(self._images) // self._columns(self._fitting))
            if rows * (int(CROP_SIDE * self._fitting) + 2) <= self.height():
                break
        self._drawn = None
        self.update()


_PLACE = "font-size: 20px; font-weight: 700;"
_SMALL = "font-size: 13px;"
_HINT = "font-size: 14px; padding: 3px;"
_KEYS_ELSEWHERE = f"{_HINT} {CHIPS['note'].css} font-weight: 600;"
_KIND = "font-size: 17px; font-weight: 600; padding: 6px 8px; text-align: left; border-left: 7px solid {};"
_BESIDE, _MEANING, _WHO = 236, 180, 140
# The answers stand beside the cell where there is width for both, or no height for them below it.
_WIDE_PX, _HIGH_PX = USUAL_ZOOM * CROP_SIDE + _BESIDE + 6, 560
# Beside the cell, what each answer means is written only where it takes nothing from the cell's height.
_MEANINGS_PX = 500


class CheckPage(QWidget):
    """One cell, and three answers. Who uses it tells it what to show; it tells what the person did."""

    said = Signal(str)  # a label
    undone = Signal()
    stopped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.place, self.share, self.who = QLabel(), ShareBar(), QLabel()
        self.place.setStyleSheet(_PLACE)
        self.who.setStyleSheet(_SMALL)
        self.player, self.film = LargePlayer(), WholeFilm()
        self.player.at.connect(self.film.show_index)
        self.film.pointed.connect(self.player.stand_at)
        self.kinds: dict[str, QPushButton] = {}
        for key, label in KEYS.items():
            style = LABEL_STYLES[label]
            name = words_of(label)
            button = QPushButton(f"{chr(key)}   {style.sign} {name[0].upper()}{name[1:]}")
            button.setToolTip(say("viewer.check-key", key=chr(key), meaning=say(f"viewer.check-{label}")))
            button.clicked.connect(lambda *_, label=label: self.say(label))
            self.kinds[str(label)] = button
        self.undo = QPushButton(say("viewer.check-undo"))
        self.undo.setToolTip(say("viewer.check-undo-help"))
        self.undo.clicked.connect(lambda *_: self.undone.emit())
        self.again = QPushButton(say("viewer.check-again"))
        self.again.clicked.connect(lambda *_: self.player.play_again())
        self.pace = QComboBox()
        self.pace.addItems(list(_PACES))
        self.pace.currentTextChanged.connect(lambda text: self.player.set_slower(_PACES[text]))
        self.pace.setCurrentIndex(1)
        self.stop = QPushButton(say("viewer.check-stop"))
        self.stop.setToolTip(say("viewer.check-stop-help"))
        self.stop.clicked.connect(lambda *_: self.stopped.emit())
        self.hint = wrapping_label(_HINT)
        self.so_far = wrapping_label(_SMALL)
        self.so_far.setToolTip(say("viewer.check-so-far-help", cells=EVERY_CELLS))
        # The focus stays where the keys are, whatever is clicked.
        for widget in (*self.kinds.values(), self.undo, self.again, self.pace, self.stop):
            widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hint.setMinimumWidth(_BESIDE)
        for words in (self.hint, self.so_far):
            words.setTextInteractionFlags(Qt.TextInteractionFlag.NoTextInteraction)
        self._take_colours()
        self._shown_for = QElapsedTimer()
        self._hint = ""
        self._meanings: list[QLabel] = []
        for kind in self.kinds:
            meaning = wrapping_label(_SMALL)
            meaning.setMinimumWidth(_MEANING)
            meaning.setTextInteractionFlags(Qt.TextInteractionFlag.NoTextInteraction)
            meaning.setText(say(f"viewer.check-{kind}"))
            self._meanings.append(meaning)
        self._answers, self._tools = QGridLayout(), QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._look, self._beside = QBoxLayout(QBoxLayout.Direction.LeftToRight), QWidget()
        self._arranged: tuple[bool, bool] | None = None
        self._lay_out()
        self._arrange()

    def _lay_out(self) -> None:
        head = QHBoxLayout()
        head.addWidget(self.place)
        head.addWidget(self.share, 1)
        head.addWidget(self.who)
        self._answers.setVerticalSpacing(3)
        for widget in (self.undo, self.again, self.pace):
            self._tools.addWidget(widget)
        beside = QVBoxLayout(self._beside)
        beside.setContentsMargins(0, 0, 0, 0)
        beside.addLayout(self._answers)
        beside.addStretch(1)
        beside.addLayout(self._tools)
        self._look.addWidget(self.player, 1)
        self._look.addWidget(self._beside)
        said = QHBoxLayout()
        said.addWidget(self.hint, 1)
        said.addWidget(self.stop)
        self._column = column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(head)
        column.addLayout(self._look, 5)
        column.addLayout(said)
        column.addWidget(self.film, 2)
        column.addWidget(self.so_far)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Find the places that show the cell largest."""
        super().resizeEvent(event)
        self._arrange()

    def _arrange(self) -> None:
        """Put the answers beside the cell or below it."""
        beside = self.width() >= _WIDE_PX or self.height() < _HIGH_PX
        meant = not beside or self.height() >= _MEANINGS_PX
        if (beside, meant) == self._arranged:
            return
        self._arranged = beside, meant
        along, down = QBoxLayout.Direction.LeftToRight, QBoxLayout.Direction.TopToBottom
        self._look.setDirection(along if beside else down)
        self._tools.setDirection(down if beside else along)
        while self._answers.count():
            self._answers.takeAt(0)
        for row, (button, meaning) in enumerate(zip(self.kinds.values(), self._meanings, strict=True)):
            meaning.setVisible(meant)
            self._answers.addWidget(button, 2 * row, 0)
            self._answers.addWidget(meaning, *((2 * row + 1, 0) if beside else (2 * row, 1)))
        self._answers.setColumnStretch(1, 0 if beside else 1)
        self._column.setStretchFactor(self._look, 5 if beside else 10)
        self._beside.setMaximumWidth(_BESIDE if beside else 16_777_215)

    def show_cell(self, sequence: CropSequence | None, fps: float, at: int, cells: int) -> None:
        """Show a cell, the `at`th of so many; nothing of what the machine says of it."""
        self.player.show_sequence(sequence, fps)
        self.film.show_sequence(sequence)
        self.place.setText(say("viewer.check-place", at=at, cells=cells))
        self.share.show_share((at - 1) / cells)
        self._shown_for.restart()

    def show_who(self, name: str) -> None:
        """Show whose answers they are."""
        short = self.who.fontMetrics().elidedText(name, Qt.TextElideMode.ElideRight, _WHO)
        self.who.setText(short)

    def show_hint(self, sentence: str) -> None:
        """Say what the last key did."""
        self._hint = sentence
        self.show_keys(True)

    def show_so_far(self, figure: FractionFigure | None) -> None:
        """Show what the checks give so far; nothing where there is no number."""
        if figure is None or figure.estimate is None or figure.low is None or figure.high is None:
            set_text(self.so_far, "")
            return
        number = {"percent": percent(figure.estimate), "interval": interval_words(figure.low, figure.high)}
        set_text(self.so_far, say("viewer.check-so-far", **number))

    def say(self, label: str) -> None:
        """Take an answer, unless it came before anyone could have seen the cell."""
        if self._shown_for.isValid() and self._shown_for.elapsed() >= 1000 * LEAST_LOOK_S:
            self.said.emit(str(label))

    def press(self, event: Any) -> None:
        """Do what a key means; a key that is held down counts once."""
        key = Qt.Key(event.key())
        event.accept()
        if event.isAutoRepeat():
            return
        if key in KEYS:
            self.say(KEYS[key])
        elif key == Qt.Key.Key_Z and self.undo.isEnabled():
            self.undone.emit()
        elif key == Qt.Key.Key_Space:
            self.player.play_again()

    def changeEvent(self, event: QEvent) -> None:
        """Follow the viewer's theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange) and hasattr(self, "so_far"):
            self._take_colours()

    def _take_colours(self) -> None:
        for label, button in self.kinds.items():
            style = _KIND.format(LABEL_STYLES[label].ink.on(self.palette()).name())
            if button.styleSheet() != style:
                button.setStyleSheet(style)

    @staticmethod
    def is_ours(event: Any) -> bool:
        """Whether a key is one of this page's; Ctrl+Z is, Ctrl+T is napari's."""
        if event.key() not in (*KEYS, *OTHER_KEYS):
            return False
        held = event.modifiers() & ~(Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.KeypadModifier)
        with_ctrl = held == Qt.KeyboardModifier.ControlModifier and event.key() == Qt.Key.Key_Z
        return bool(with_ctrl or held == Qt.KeyboardModifier.NoModifier)

    def show_keys(self, here: bool) -> None:
        """Say whether a key that is pressed now comes here."""
        style = _HINT if here else _KEYS_ELSEWHERE
        if self.hint.styleSheet() != style:
            self.hint.setStyleSheet(style)
        set_text(self.hint, self._hint if here else say("viewer.check-keys-elsewhere"))
