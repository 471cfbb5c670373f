"""The cells of a session, one by one or many at once, and buttons to change their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QKeySequence, QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    COUNTED,
    STRUCK_OUT,
    CellBrowser,
    CellRecord,
    CellRow,
    ChangeLog,
    LabelChange,
)
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.cells_gallery import Gallery
from napari_rbcflow.widgets.cells_query import CellQueryRow
from napari_rbcflow.widgets.crop_player import CropPlayer, Film, facts_of, flags_words, heading_of, words_of
from napari_rbcflow.widgets.label_styles import CHIPS, LABEL_STYLES
from napari_rbcflow.widgets.panel import set_text
from napari_rbcflow.widgets.remembered import load_settings, save_settings

_PACES = {say("viewer.pace-camera"): 1, say("viewer.pace-2"): 2, say("viewer.pace-5"): 5}
_BUTTONS = {
    str(Label.TANK_TREADING): say("viewer.button-tank-treading"),
    str(Label.FLIPPING): say("viewer.button-flipping"),
    str(Label.UNRELIABLE): say("viewer.button-unreliable"),
}
_KEYS: dict[str, str] = {
    "N": "next",
    "P": "previous",
    "X": "exclude",
    "Del": "exclude",
    "Ctrl+Z": "undo",
    "Ctrl+Shift+Z": "redo",
    "Ctrl+Y": "redo",
}
# Between two looks at how many cells a run has added.
_NEWER_MS = 1000
ONE, MANY = 0, 1

Made = dict[int, tuple[str | None, str | None]]
"""What was done together: of each cell the label by hand before and after, None for the machine's."""


class CellViewer(QWidget):
    """Shows the cells of a session, running or closed, and takes changes of their labels.

    Keys work while the focus is in `keys_in` (the viewer itself, if it is not given) but not in a field that
    is typed into, and only while the viewer can be seen.
    """

    changed = Signal(object)  # a list of LabelChange that are on the disk
    jump = Signal(int)  # the person stepped to this cell: whoever shows the field may go there

    def __init__(self, parent: QWidget | None = None, *, keys_in: QWidget | None = None) -> None:
        super().__init__(parent)
        self.shown: CellRecord | None = None
        self._browser: CellBrowser | None = None
        self._done: list[Made] = []
        self._undone: list[Made] = []
        self.gallery_button = QPushButton(say("viewer.gallery"))
        self.gallery_button.setCheckable(True)
        self.gallery_button.setToolTip(say("viewer.gallery-help"))
        self.gallery_button.toggled.connect(lambda on: self._report_errors(lambda: self._show_gallery(on)))
        self.query = CellQueryRow(self.gallery_button)
        self.query.changed.connect(lambda: self._report_errors(self._query_changed))
        self.query.entered.connect(self._take_focus)
        self.kind = self.query.kind
        self.gallery = Gallery()
        self.gallery.picked.connect(self._show_picked)
        self.gallery.opened.connect(self._open)
        self.play = QCheckBox(say("viewer.gallery-play"))
        self.play.setToolTip(say("viewer.gallery-play-help"))
        self.play.setChecked(True)
        self.play.toggled.connect(self.gallery.set_playing)
        self.newer = QPushButton()
        self.newer.clicked.connect(lambda *_: self._report_errors(self._query_changed))
        self.newer.hide()
        self._watch = QTimer(self)
        self._watch.setInterval(_NEWER_MS)
        self._watch.timeout.connect(lambda: self._report_errors(self._count_newer))
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
            button.clicked.connect(partial(self._give, label))
        self.machine_button = QPushButton(say("viewer.machine-label"))
        self.machine_button.setToolTip(say("viewer.machine-label-help"))
        self.machine_button.clicked.connect(partial(self._give, None))
        self.who = QLineEdit()
        self.who.setToolTip(say("forms.person-help"))
        self.who.setPlaceholderText(say("forms.field-person"))
        self.sign = QPushButton()
        self.sign.setToolTip(say("viewer.sign-help"))
        self.sign.clicked.connect(self._sign)
        self.who.textChanged.connect(self._show_sign)
        self.who.returnPressed.connect(self._take_focus)
        self._last_name = ""
        self._signed_for: Path | None = None
        self.previous = QPushButton(say("viewer.previous"))
        self.next = QPushButton(say("viewer.next"))
        self.previous.clicked.connect(partial(self._step, -1))
        self.next.clicked.connect(partial(self._step, 1))
        self._place = QLabel()
        self._place.setWordWrap(True)
        self._place.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._note = QLabel(say("viewer.by-hand-note"))
        self._note.setWordWrap(True)
        self._note.setToolTip(say("viewer.keys-help"))
        self._fault = QLabel()
        self._fault.setWordWrap(True)
        self._fault.setStyleSheet(f"{CHIPS['grave'].css} font-weight: bold;")
        self._lay_out()
        # Buttons are clicked; the keys are for the cells, and a button that is disabled would pass the
        # focus on to the next field.
        buttons = (self.machine_button, self.sign, self.previous, self.next, self.gallery_button, self.play)
        for widget in (*self.label_buttons.values(), *buttons, self.newer, self.pace):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        for key, what in _KEYS.items():
            shortcut = QShortcut(QKeySequence(key), self if keys_in is None else keys_in)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.setAutoRepeat(what in ("next", "previous"))
            shortcut.activated.connect(partial(self._key, what))
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
        # What is left of the window's height is theirs; they ask for none.
        for rest in (film, self.gallery):
            rest.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
        one, many = QWidget(), QWidget()
        column = QVBoxLayout(one)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._heading)
        column.addLayout(top)
        column.addWidget(film, 1)
        column.addWidget(self._flags)
        under = QHBoxLayout()
        under.addWidget(self.play)
        under.addStretch(1)
        under.addWidget(self.newer)
        column = QVBoxLayout(many)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.gallery, 1)
        column.addLayout(under)
        self._pages = QStackedWidget()
        self._pages.addWidget(one)
        self._pages.addWidget(many)
        buttons = QGridLayout()
        for at, button in enumerate(self.label_buttons.values()):
            buttons.addWidget(button, at // 3, at % 3)
        buttons.addWidget(self.machine_button, 1, 1)
        who = QHBoxLayout()
        who.addWidget(QLabel(say("viewer.by")))
        who.addWidget(self.who, 1)
        buttons.addLayout(who, 1, 2)
        for at in range(3):
            buttons.setColumnStretch(at, 1)
        buttons.addWidget(self.sign, 2, 0, 1, 3)
        steps = QHBoxLayout()
        for widget, stretch in ((self.previous, 2), (self._place, 3), (self.next, 2)):
            steps.addWidget(widget, stretch)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 4)
        layout.addWidget(self.query)
        # What is pressed is on top: below, a low window would cut it.
        layout.addLayout(steps)
        layout.addLayout(buttons)
        layout.addWidget(self._pages, 1)
        layout.addWidget(self._note)
        layout.addWidget(self._fault)

    @property
    def fault(self) -> str:
        """The sentence at the bottom; empty if all is well."""
        return str(self._fault.text())

    def clear(self) -> None:
        """Show nothing."""
        self.shown = self._browser = None
        self._heading.setText(say("viewer.cell-none"))
        self._turn_to_one()
        self.gallery.show_rows(None, [])
        self._show_parts()
        self._show_fault("")

    def show_cell(self, session_folder: Path, cell: int) -> bool:
        """Show a cell of a session, running or closed; False where it cannot, and the widget says why."""
        self._turn_to_one()
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
        cell = browser.order(self.query.query).step(None, 1)
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
        self.query.clear()
        self._done.clear()
        self._undone.clear()
        # Another session, perhaps another shift: no change may carry the name of the person before.
        self._signed_for = browser.folder
        self._last_name = load_settings().person.strip()
        self.who.clear()
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
        self._facts.setToolTip(self._facts.text())  # a low window cuts it
        if cell is not None:
            self._heading.setText(heading_of(cell))
        self._show_buttons()
        self._show_place()

    def _show_buttons(self) -> None:
        """Let only what would change something be pressed."""
        rows: Sequence[CellRecord | CellRow]
        rows = self.gallery.selected_rows if self.many else [] if self.shown is None else [self.shown]
        present = {row.present_label for row in rows if row.judged}
        for label, button in self.label_buttons.items():
            button.setEnabled(bool(present - {label}))
        self.machine_button.setEnabled(any(row.present_label != row.label for row in rows))

    def _show_place(self, after: str = "") -> None:
        browser, kind = self._browser, self.kind.currentText()
        for button in (self.previous, self.next, self.gallery_button):
            button.setEnabled(browser is not None)
        if browser is None:
            self._place.setText("")
            return
        one = None if self.many or self.shown is None else self.shown.cell
        at, n = browser.order(self.query.query).count(one)
        kind = kind[0].upper() + kind[1:]
        if self.many:
            n = len(self.gallery.cells.rows)
        if at is None:
            place = say("viewer.place", kind=kind, cells=n)
        else:
            place = say("viewer.place-of", kind=kind, at=at, cells=n)
        if self.many and (selected := len(self.gallery.selectedIndexes())):
            place = say("viewer.gallery-selected", place=place, cells=selected)
        self._place.setText(say(after, place=place) if after else place)

    # ------------------------------------------------------------------ many cells at once

    @property
    def many(self) -> bool:
        """Whether the gallery is shown, not one cell."""
        return bool(self._pages.currentIndex() == MANY)

    def _show_gallery(self, on: bool) -> None:
        browser, current = self._browser, self.gallery.current
        if on and browser is not None:
            self._pages.setCurrentIndex(MANY)
            self._fill_gallery(browser)
            self.gallery.select([] if self.shown is None else [self.shown.cell])
            self._watch.start()
        else:
            self._turn_to_one()
            if current is not None and browser is not None:
                self._show(browser, current)
        self._take_focus()
        self._show_buttons()
        self._show_place()

    def _turn_to_one(self) -> None:
        with QSignalBlocker(self.gallery_button):
            self.gallery_button.setChecked(False)
        self._pages.setCurrentIndex(ONE)
        self._watch.stop()

    def _fill_gallery(self, browser: CellBrowser) -> None:
        query = self.query.query
        self.gallery.show_rows(browser.session, browser.rows(query), query.sort_by)
        self.newer.hide()

    def _query_changed(self) -> None:
        if self.many and self._browser is not None:
            self._fill_gallery(self._browser)
        self._show_buttons()
        self._show_place()

    def _count_newer(self) -> None:
        """Offer what a run has added; nobody can click what moves."""
        browser = self._browser
        if browser is None or not self.many or not self.isVisible() or not browser.session.running:
            return
        newer = browser.order(self.query.query).count(None)[1] - len(self.gallery.cells.rows)
        self.newer.setText(say("viewer.gallery-newer", cells=newer))
        self.newer.setVisible(newer > 0)

    def _show_picked(self) -> None:
        if self.many:
            self._show_buttons()
            self._report_errors(self._show_place)

    def _open(self, cell: int) -> None:
        browser = self._browser
        if browser is not None:
            if self.show_cell(browser.folder, cell):
                self.jump.emit(cell)
            self._take_focus()

    # ------------------------------------------------------------------ from cell to cell

    def _key(self, what: str) -> None:
        if not self.isVisible() or self._browser is None:
            return
        if what in ("next", "previous"):
            self._step(1 if what == "next" else -1)
        elif what == "exclude":
            self._give(STRUCK_OUT)
        else:
            self._go_back() if what == "undo" else self._go_back(again=True)

    def _take_focus(self) -> None:
        """The keys are for the cells, if the focus was here."""
        now = QApplication.focusWidget()
        if now is None or now is self or self.isAncestorOf(now):
            (self.gallery if self.many else self).setFocus()

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
        here = self.gallery.current if self.many else None if self.shown is None else self.shown.cell
        cell = browser.order(self.query.query).step(here, step)
        if cell is None:  # of a run in progress there may be one in a moment
            self._show_place("viewer.none-after" if step > 0 else "viewer.none-before")
        elif self.many:
            if all(row.cell != cell for row in self.gallery.cells.rows):
                self._fill_gallery(browser)
            self.gallery.select([cell])
        else:
            self._show(browser, cell)

    # ------------------------------------------------------------------ labels by hand

    def _give(self, label: str | None, *_: object) -> None:
        """Give the cells that are selected, or the one that is shown, a label; None is the machine's."""
        cells = self.gallery.selected if self.many else [] if self.shown is None else [self.shown.cell]
        if made := self._make(dict.fromkeys(cells, label)):
            self._done.append(made)
            self._undone.clear()

    def _go_back(self, *, again: bool = False) -> None:
        """Undo what was done last, whole, or do again what was undone last."""
        taken, given = (self._undone, self._done) if again else (self._done, self._undone)
        if not taken:
            self._place.setText(say("viewer.nothing-to-redo" if again else "viewer.nothing-to-undo"))
            return
        made = taken[-1]
        was, will = ({c: pair[0] for c, pair in made.items()}, {c: pair[1] for c, pair in made.items()})
        if not again:
            was, will = will, was
        if (other := self._changed_elsewhere(was)) is not None:
            taken.pop()
            self._show_fault(say("viewer.changed-elsewhere", cell=other))
        elif self._make(will):
            given.append(taken.pop())
            # Who undoes must see what.
            if self.many:
                self.gallery.select(list(will))
            elif self._browser is not None and (self.shown is None or self.shown.cell not in will):
                self.show_cell(self._browser.folder, next(iter(will)))
            said = "viewer.redone" if again else "viewer.undone"
            self._place.setText(say(said, cells=len(will)))

    def _changed_elsewhere(self, labels: Mapping[int, str | None]) -> int | None:
        """Return a cell whose label by hand is no longer the one that it was given here."""
        by_hand: dict[int, str] = {}
        if self._browser is None or not self._report_errors(
            lambda: by_hand.update(ChangeLog(self._browser.folder).labels())  # type: ignore[union-attr]
        ):
            return None
        return next((cell for cell, label in labels.items() if by_hand.get(cell) != label), None)

    def _make(self, labels: Mapping[int, str | None]) -> Made:
        """Make changes, all or none, then show the cells as they are on the disk; empty if none was made."""
        browser = self._browser
        if browser is None or not labels:
            return {}
        if not self.who.text().strip():
            name = self._last_name
            self._show_fault(say("viewer.who", name=name) if name else say("viewer.who-first"))
            return {}
        changes: list[LabelChange] = []
        made: Made = {}
        faults: list[str] = []

        def do() -> None:
            log = ChangeLog(browser.folder)
            before = log.labels()
            try:
                changes.extend(log.add_all(labels, self.who.text()))
            except BadInput as error:
                if len(labels) == 1:
                    raise
                raise BadInput("viewer.none-changed", why=error) from error
            if not changes:
                return
            faults.append(log.report_fault)
            self._remember(changes[0].by)
            after = log.labels()
            made.update({c.cell: (before.get(c.cell), after.get(c.cell)) for c in changes})
            self._show_again(browser)

        self._report_errors(do)
        if faults and faults[0]:
            self._show_fault(faults[0])
        if changes:
            self.changed.emit(changes)
        return made

    def _show_again(self, browser: CellBrowser) -> None:
        """Show what is shown as it is on the disk now."""
        if self.many:
            self._fill_gallery(browser)
        if self.shown is not None:
            self.shown = browser.look(self.shown.cell)
            at, playing = self.player.index, self.player.playing
            self._show_parts()
            if not playing:
                self.player.stand_at(at)
        self._show_buttons()
        self._take_focus()

    def _remember(self, name: str) -> None:
        if self.who.text() != name:
            self.who.setText(name)
        settings = load_settings()
        if settings.person.strip() != name:
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
