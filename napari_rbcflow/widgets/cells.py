"""One cell: its whole sequence, its label and probabilities, and buttons to change the label."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.pipeline import JudgedCell, Progress
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    COUNTED,
    KINDS,
    STRUCK_OUT,
    CellBrowser,
    CellQuery,
    CellRecord,
    ChangeLog,
    FractionFigure,
    LabelChange,
)
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.cells_strip import CellStrip
from napari_rbcflow.widgets.crop_player import CropPlayer, Film, facts_of, flags_words, heading_of, words_of
from napari_rbcflow.widgets.dock import set_text
from napari_rbcflow.widgets.label_styles import FAULT_COLOUR, LABEL_STYLES
from napari_rbcflow.widgets.remembered import load_settings, save_settings

_PACES = {say("viewer.pace-camera"): 1, say("viewer.pace-2"): 2, say("viewer.pace-5"): 5}
_BUTTONS = {
    str(Label.TANK_TREADING): say("viewer.button-tank-treading"),
    str(Label.FLIPPING): say("viewer.button-flipping"),
    str(Label.UNRELIABLE): say("viewer.button-unreliable"),
}


class CellViewer(QWidget):
    """Shows a cell of a session, running or closed, steps to others, and takes changes of labels."""

    changed = Signal(object)  # a LabelChange that is on the disk
    jump = Signal(int)  # the person stepped to this cell: whoever shows the field may go there

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.shown: CellRecord | None = None
        self._browser: CellBrowser | None = None
        self._heading = QLabel(say("viewer.cell-none"))
        self._heading.setWordWrap(True)
        font = self._heading.font()
        font.setPointSizeF(1.3 * font.pointSizeF() if font.pointSizeF() > 0 else 14.0)
        font.setBold(True)
        self._heading.setFont(font)
        self._facts = QLabel()
        self._facts.setWordWrap(True)
        self._facts.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.player = CropPlayer()
        self.pace = QComboBox()
        self.pace.addItems(list(_PACES))
        self.pace.currentTextChanged.connect(lambda text: self.player.set_slower(_PACES[text]))
        self.film = Film()
        self.player.at.connect(self.film.show_index)
        self.film.pointed.connect(self.player.stand_at)
        self._flags = QLabel()
        self._flags.setWordWrap(True)
        self.label_buttons: dict[str, QPushButton] = {}
        for label, text in _BUTTONS.items():
            self.label_buttons[label] = button = QPushButton(f"{LABEL_STYLES[label].sign} {text}")
            button.setToolTip(say("viewer.button-help", label=words_of(label)))
        self.label_buttons[STRUCK_OUT] = button = QPushButton(say("viewer.button-exclude"))
        button.setToolTip(say("viewer.exclude-help"))
        for label, button in self.label_buttons.items():
            button.clicked.connect(partial(self._change, label))
        self.undo = QPushButton(say("viewer.undo"))
        self.undo.setToolTip(say("viewer.undo-help"))
        self.undo.clicked.connect(self._undo)
        self.who = QLineEdit(load_settings().who)
        self.who.setToolTip(say("forms.person-help"))
        self.who.setPlaceholderText(say("forms.field-person"))
        self.sign = QPushButton()
        self.sign.setToolTip(say("viewer.sign-help"))
        self.sign.clicked.connect(self._sign)
        self.who.textChanged.connect(self._show_sign)
        self._last_name = ""
        self._signed_for: Path | None = None
        self.kind = QComboBox()
        self.kind.addItems(list(KINDS))
        self.kind.setToolTip(say("viewer.kind-help"))
        self.kind.currentTextChanged.connect(lambda *_: self._report_errors(self._show_place))
        self.previous = QPushButton(say("viewer.previous"))
        self.next = QPushButton(say("viewer.next"))
        self.previous.clicked.connect(partial(self._step, -1))
        self.next.clicked.connect(partial(self._step, 1))
        self._place = QLabel()
        self._fault = QLabel()
        self._fault.setWordWrap(True)
        self._fault.setStyleSheet(f"color: {FAULT_COLOUR}; font-weight: bold;")
        self._lay_out()
        self.clear()

    def _lay_out(self) -> None:
        beside = QVBoxLayout()
        beside.addWidget(self._facts, 1)
        beside.addWidget(self.pace)
        top = QHBoxLayout()
        top.addWidget(self.player, 0, Qt.AlignmentFlag.AlignTop)
        top.addLayout(beside, 1)
        film = QScrollArea()
        film.setWidgetResizable(True)
        film.setWidget(self.film)
        film.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        film.setMinimumHeight(140)
        buttons = QGridLayout()
        for at, button in enumerate(self.label_buttons.values()):
            buttons.addWidget(button, at // 3, at % 3)
        buttons.addWidget(self.undo, 1, 1)
        who = QHBoxLayout()
        who.addWidget(QLabel(say("viewer.by")))
        who.addWidget(self.who, 1)
        buttons.addLayout(who, 1, 2)
        for column in range(3):
            buttons.setColumnStretch(column, 1)
        buttons.addWidget(self.sign, 2, 0, 1, 3)
        steps = QHBoxLayout()
        for widget in (self.previous, self.kind, self.next):
            steps.addWidget(widget, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 4)
        layout.addWidget(self._heading)
        layout.addLayout(top)
        layout.addWidget(film, 1)
        layout.addWidget(self._flags)
        layout.addLayout(buttons)
        layout.addLayout(steps)
        layout.addWidget(self._place)
        layout.addWidget(self._fault)

    @property
    def fault(self) -> str:
        """The sentence at the bottom; empty if all is well."""
        return str(self._fault.text())

    def clear(self) -> None:
        """Show nothing."""
        self.shown = self._browser = None
        self._heading.setText(say("viewer.cell-none"))
        self._show_parts()
        self._show_fault("")

    def show_cell(self, session_folder: Path, cell: int) -> bool:
        """Show a cell of a session, running or closed; False where it cannot, and the widget says why."""
        if self._report_errors(lambda: self._show(self._browser_of(session_folder), cell)):
            return True
        # The cell that was shown before must not be taken for this one.
        self.shown = None
        self._heading.setText(say("viewer.cell-not-shown", cell=cell))
        self._show_parts()
        return False

    def browse(self, session_folder: Path, kind: str = COUNTED) -> bool:
        """Show the first cell of a kind of `KINDS`; False where there is none, and the widget says so."""
        self.clear()
        self.kind.setCurrentText(kind)
        return self._report_errors(lambda: self._first(self._browser_of(session_folder)))

    def _first(self, browser: CellBrowser) -> None:
        self._take(browser)
        cell = browser.order(self._query()).step(None, 1)
        self._show_place()
        if cell is not None:
            self._show(browser, cell)

    def _browser_of(self, folder: Path) -> CellBrowser:
        if self._browser is None or self._browser.folder != Path(folder):
            return CellBrowser(folder)
        return self._browser

    def _show(self, browser: CellBrowser, cell: int) -> None:
        self.shown = browser.look(cell)
        self._take(browser)
        self._show_parts()

    def _take(self, browser: CellBrowser) -> None:
        self._browser = browser
        if browser.folder == self._signed_for:
            return
        # Another session, perhaps another shift: no change may carry the name of the person before.
        self._signed_for = browser.folder
        settings = load_settings()
        self._last_name = settings.person.strip()
        self.who.setText("" if self._last_name else settings.who)
        self._show_sign()

    def _sign(self, *_: object) -> None:
        self.who.setText(self._last_name)
        self._show_fault("")

    def _show_sign(self, *_: object) -> None:
        self.sign.setText(say("viewer.sign", name=self._last_name).replace("&", "&&"))
        self.sign.setVisible(bool(self._last_name) and not self.who.text().strip())

    def _show_parts(self) -> None:
        """Show the cell that is `shown`, or none."""
        cell = self.shown
        self.player.show_sequence(None if cell is None else cell.sequence, 60.0 if cell is None else cell.fps)
        self.film.show_sequence(None if cell is None else cell.sequence)
        self._flags.setText("" if cell is None else flags_words(cell.sequence))
        self._facts.setText("" if cell is None else facts_of(cell))
        if cell is not None:
            self._heading.setText(heading_of(cell))
        present = None if cell is None or not cell.judged else cell.present_label
        for label, button in self.label_buttons.items():
            button.setEnabled(present is not None and label != present)
        self.undo.setEnabled(cell is not None and cell.change is not None)
        self._show_place()

    def _show_place(self, after: str = "") -> None:
        browser, kind = self._browser, self.kind.currentText()
        for button in (self.previous, self.next):
            button.setEnabled(browser is not None)
        if browser is None:
            self._place.setText("")
            return
        at, n = browser.order(self._query()).count(None if self.shown is None else self.shown.cell)
        kind = kind[0].upper() + kind[1:]
        if at is None:
            place = say("viewer.place", kind=kind, cells=n)
        else:
            place = say("viewer.place-of", kind=kind, at=at, cells=n)
        self._place.setText(say(after, place=place) if after else place)

    def _query(self) -> CellQuery:
        return CellQuery(self.kind.currentText())

    def _step(self, step: int, *_: object) -> None:
        before = self.shown
        if (
            self._report_errors(lambda: self._go(step))
            and self.shown is not None
            and self.shown is not before
        ):
            self.jump.emit(self.shown.cell)

    def _go(self, step: int) -> None:
        browser = self._browser
        if browser is None:
            return
        cell = browser.order(self._query()).step(None if self.shown is None else self.shown.cell, step)
        if cell is not None:
            self._show(browser, cell)
        else:  # of a run in progress there may be one in a moment
            self._show_place("viewer.none-after" if step > 0 else "viewer.none-before")

    def _change(self, label: str, *_: object) -> None:
        self._made(lambda log, cell, by: log.add(cell, label, by))

    def _undo(self, *_: object) -> None:
        self._made(lambda log, cell, by: log.take_back(cell, by))

    def _made(self, make: Callable[[ChangeLog, int, str], LabelChange]) -> None:
        """Make a change, then show the cell as it is on the disk."""
        shown, browser = self.shown, self._browser
        if shown is None or browser is None:
            return
        if self._last_name and not self.who.text().strip():
            self._show_fault(say("viewer.who", name=self._last_name))
            return
        made: list[LabelChange] = []
        faults: list[str] = []

        def do() -> None:
            log = ChangeLog(browser.folder)
            made.append(make(log, shown.cell, self.who.text()))
            faults.append(log.report_fault)
            self._remember(made[0].by)
            self.shown = browser.look(shown.cell)
            at = self.player.index
            playing = self.player.playing
            self._show_parts()
            if not playing:
                self.player.stand_at(at)

        self._report_errors(do)
        if faults and faults[0]:
            self._show_fault(faults[0])
        for change in made:
            self.changed.emit(change)

    def _remember(self, name: str) -> None:
        if self.who.text() != name:
            self.who.setText(name)
        settings = load_settings()
        if settings.who != name:
            with suppress(RbcflowError):  # nothing is lost but that the name is asked for again
                save_settings(replace(settings, person=name))

    def _report_errors(self, do: Callable[[], Any]) -> bool:
        """Do it; what goes wrong becomes one sentence."""
        try:
            do()
        except RbcflowError as error:
            self._show_fault(str(error))
            return False
        except OSError as error:
            self._show_fault(say("viewer.session-unreadable", why=error.strerror or error))
            return False
        self._show_fault("")
        return True

    def _show_fault(self, sentence: str) -> None:
        set_text(self._fault, sentence)


# Between two readings of the number with a person's changes, during a run.
BY_HAND_S = 1.0


class LiveCells(QWidget):
    """The strip of the latest judged cells, and under it the one that was clicked."""

    pointed = Signal(
        int, int, float, float
    )  # to be shown in the picture: cell, frame, y and x in camera pixels
    changed = Signal(int, str)  # a cell, and its label by hand

    def __init__(
        self,
        report_errors: Callable[[Callable[..., None]], Callable[..., None]],
        show_by_hand: Callable[[FractionFigure | None], None],
        show_error: Callable[[str], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.strip, self.viewer = CellStrip(), CellViewer()
        self.strip.setMinimumHeight(240)
        self.viewer.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.strip)
        column.addWidget(self.viewer)
        self._show_by_hand = show_by_hand
        self._show_error = show_error
        self._folder: Path | None = None
        self._progress: Progress | None = None
        self._changed = False
        self._read_s = 0.0
        self.strip.chosen.connect(report_errors(self.show_cell))
        self.viewer.jump.connect(report_errors(self._point))
        self.viewer.changed.connect(report_errors(self._label_changed))

    def begin(self, folder: Path) -> None:
        """Forget the run before; the cells to come are in `folder`."""
        self.strip.clear()
        self.viewer.clear()
        self.viewer.hide()
        self._folder = folder
        self._progress = None
        self._changed = False

    def add(self, judged: Sequence[JudgedCell]) -> None:
        """Take newly judged cells in."""
        self.strip.add(judged)

    def show_cell(self, cell: int) -> None:
        """Show a cell's whole sequence, and where it was last seen."""
        if self._folder is None:
            return
        self.viewer.show()
        if self.viewer.show_cell(self._folder, cell):
            self._point(cell)

    def keep_up(self, progress: Progress) -> None:
        """Let the number with a person's changes follow the run."""
        self._progress = progress
        if self._changed and time.monotonic() - self._read_s > BY_HAND_S:
            self._update_by_hand()

    def end(self) -> None:
        """Bring the closed session's report and number up to date with what was changed meanwhile."""
        if self._changed and self._folder is not None:
            ChangeLog(self._folder).bring_report_up_to_date()
            self._update_by_hand()

    def _point(self, cell: int) -> None:
        self.strip.select(cell)
        shown = self.viewer.shown
        if shown is not None and shown.cell == cell:
            self.pointed.emit(cell, shown.last_frame, shown.y_px, shown.x_px)

    def _label_changed(self, change: object) -> None:
        self._changed = True
        self.strip.mark(change.cell, change.now)  # type: ignore[attr-defined]
        self.changed.emit(change.cell, str(change.now))  # type: ignore[attr-defined]
        self._read_by_hand()

    def _read_by_hand(self) -> None:
        if self._folder is None or self._progress is None:
            return
        self._read_s = time.monotonic()
        progress = self._progress
        figure = ChangeLog(self._folder).figure(
            tank_treading=progress.cells["tank_treading"],
            flipping=progress.cells["flipping"],
            level=progress.level,
            method=progress.method,
        )
        self._show_by_hand(figure)

    def _update_by_hand(self) -> None:
        try:
            self._read_by_hand()
        except RbcflowError as error:
            # A person's changes may become unreadable; the run goes on without them, and says so once.
            # The number with them would not move beside the machine's, which does.
            self._changed = False
            self._show_by_hand(None)
            self._show_error(str(error))
