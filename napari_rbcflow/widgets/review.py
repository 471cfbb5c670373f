"""A person's check of a random sample of a session's cells, in napari's dock."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import Container, FileEdit, LineEdit
from qtpy.QtCore import QEvent, QSize, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QKeyEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput, RbcflowError, sentence_of
from napari_rbcflow.quality import percent
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    RUN_FILE,
    Agreement,
    CropSequence,
    FractionFigure,
    Review,
    known_name,
    open_session,
)
from napari_rbcflow.types import DEFAULT_FPS, Verdict
from napari_rbcflow.widgets.crop_player import words_of
from napari_rbcflow.widgets.dock import Dock, frame_of, is_folder_or_run, session_of
from napari_rbcflow.widgets.label_styles import CHIPS
from napari_rbcflow.widgets.panel import FIELD_LABELS, breakable, set_text, wrapping_label
from napari_rbcflow.widgets.remembered import load_settings, read_number
from napari_rbcflow.widgets.result import interval_words
from napari_rbcflow.widgets.result_parts import BANNER, SessionLinks, VerdictBox
from napari_rbcflow.widgets.review_page import EVERY_CELLS, CheckPage


class CellsAhead:
    """Reads the sequences of the cells to come in a thread: the next cell is there at once."""

    def __init__(self, folder: Path) -> None:
        self._session = open_session(folder)
        fps = self._session.run.get("parameters", {}).get("fps")
        self.fps = float(fps) if isinstance(fps, (int, float)) and fps > 0 else DEFAULT_FPS
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-check")
        self._read: dict[int, Future[CropSequence]] = {}

    def want(self, cells: Iterable[int]) -> None:
        """Read these cells, in this order; those that were read stay."""
        for cell in cells:
            if cell not in self._read:
                self._read[cell] = self._pool.submit(self._session.sequence, cell)

    def sequence(self, cell: int) -> CropSequence:
        """Return a cell's crops without what the program marked in them; errors as `Session.sequence`."""
        self.want([cell])
        sequence = self._read[cell].result()
        unmarked = np.zeros(len(sequence.crops), np.bool_)
        return replace(sequence, seen=~unmarked, edge=unmarked, intruded=unmarked)

    def close(self) -> None:
        """Leave no thread behind."""
        self._pool.shutdown(wait=True, cancel_futures=True)


START, CHECK, END = range(3)
USUAL_CELLS, LEAST_CELLS, MOST_CELLS = 60, 30, 300
# A practised person's second a cell, and one more.
_S_A_CELL = 2.0
# After the next cell is drawn, before anyone answers.
CATCH_UP_MS = 80
_LEAST_HEIGHT = 40
# Wider than the other docks only where the picture keeps its room beside napari's own.
ROOM_FOR_PICTURE_PX, MOST_WIDTH_PX = 940, 900
_START = f"font-size: 18px; font-weight: 600; padding: 7px; {CHIPS['start'].css}"
_TEXT = "font-size: 14px; padding: 2px 4px;"
_NUMBER = "font-size: 32px; font-weight: 700; padding: 4px;"
_HEADING = "font-size: 18px; font-weight: 600; padding: 4px;"


class ReviewLayout(Dock):
    """The three pages: whose session and name, a cell and its answers, what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.session = FileEdit(label=say("viewer.check-session"), mode=FileDialogMode.EXISTING_DIRECTORY)
        self.session.choose_btn.text = say("forms.browse")
        self.session.tooltip = say("viewer.check-session-help")
        self.session.line_edit.native.setAcceptDrops(False)  # a dropped folder is for the whole dock
        self.name = LineEdit(label=FIELD_LABELS["person"])
        self.name.tooltip = say("viewer.check-name-help")
        self.cells = LineEdit(label=FIELD_LABELS["check_cells"], tooltip=say("viewer.check-cells-help"))
        self.form: Container[Any] = Container()
        self.form.extend([self.session, self.name, self.cells])
        self.form.margins = (0, 0, 0, 0)
        self.intro, self.status = wrapping_label(_TEXT), wrapping_label(_TEXT)
        self.start_button = QPushButton()
        self.start_button.setStyleSheet(_START)
        # A long name must not widen the dock.
        self.start_button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.check = CheckPage()
        self.end, self.banner = wrapping_label(_HEADING), wrapping_label(BANNER)
        self.verdict = VerdictBox()
        self.number, self.fault = wrapping_label(), wrapping_label(_TEXT)
        self.agreement = wrapping_label(_TEXT)
        self.links = SessionLinks()
        self.more = QPushButton(say("viewer.check-more"))
        self.pages = QStackedWidget()
        # Else napari gives as much of the height to an empty place below it.
        self.pages.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.pages.addWidget(_page(self.form.native, self.start_button, self.status, self.intro))
        self.pages.addWidget(self.check)
        self.pages.addWidget(
            _page(
                self.end,
                self.banner,
                self.verdict,
                self.number,
                self.agreement,
                self.fault,
                self.links,
                self.more,
            )
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 4, 4, 4)
        column.setSpacing(4)
        column.addWidget(self.message)
        column.addWidget(self.pages, 1)
        self.pages.currentChanged.connect(lambda *_: self.updateGeometry())

    def minimumSizeHint(self) -> QSize:
        """Low as long as no cell is shown: a window with another dock in it would grow beyond the screen."""
        least = super().minimumSizeHint()
        return least if self.pages.currentIndex() == CHECK else QSize(least.width(), _LEAST_HEIGHT)


def _page(*parts: QWidget) -> QWidget:
    page = QWidget()
    column = QVBoxLayout(page)
    column.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        column.addWidget(part)
    column.addStretch(1)
    return page


class ReviewWidget(ReviewLayout):
    """Asks what each cell of a random sample is, and saves every answer before it shows the next cell.

    `reviewed` is emitted with the session's folder when a person stops or is done.
    """

    reviewed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._review: Review | None = None
        self._ahead: CellsAhead | None = None
        self._by = ""
        self._blind = False  # somebody else's answers must not be seen, nor what they give
        self._queue: list[int] = []
        self._at = 0
        self._before = 0  # cells that this person checked in an earlier sitting
        self._told = 0  # checked cells at which the number was shown last
        self._wanted = self._offered = 0  # cells to check: where a person chose, and as shown
        self._catching_up = QTimer(self)
        self._catching_up.setSingleShot(True)
        self._catching_up.setInterval(CATCH_UP_MS)
        settings = load_settings()
        self.name.value = settings.person.strip()
        if settings.remark:
            self.message.say(mild=[settings.remark])
        self._connect()
        self._show_state()
        self._built = True

    def _connect(self) -> None:
        slot = self._report_errors
        self.take_drops(is_folder_or_run, lambda paths: self.open_session(session_of(paths[0])))
        self._catching_up.timeout.connect(slot(self._catch_up))
        self.session.line_edit.native.editingFinished.connect(slot(self._session_written))
        self.session.changed.connect(slot(lambda *_: self._session_chosen()))
        self.name.changed.connect(slot(lambda *_: self._show_state()))
        self.cells.native.editingFinished.connect(slot(self._cells_written))
        self.start_button.clicked.connect(slot(lambda *_: self.start()))
        self.more.clicked.connect(slot(lambda *_: self._show_start()))
        self.check.said.connect(slot(self._answer))
        self.check.undone.connect(slot(self._undo))
        self.check.stopped.connect(slot(self._stop))
        if (app := QApplication.instance()) is not None:
            app.focusChanged.connect(self._focus_changed)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------ session and name

    def open_session(self, folder: Path | str) -> None:
        """Offer a session to be checked, in front of everything else; `message` says where that cannot be."""
        self._report_errors(self._open)(Path(folder))

    def _open(self, folder: Path) -> None:
        self._report_errors(self._close_check)()
        self._bring_forward()
        self.session.line_edit.value = str(folder)
        self._show_start()

    def _show_start(self) -> None:
        self.pages.setCurrentIndex(START)
        self._read_session()
        self.start_button.setFocus()

    def _session_chosen(self) -> None:
        # At every letter that is written: half a path is no mistake yet.
        folder = self._folder()
        if folder is not None and (folder / RUN_FILE).is_file():
            self._session_written()

    def _session_written(self) -> None:
        folder = self._folder()
        if folder is not None and (self._review is None or self._review.folder != folder):
            self._read_session()

    def _folder(self) -> Path | None:
        text = str(self.session.line_edit.value).strip()
        if not text:
            return None
        folder = Path(text).expanduser()
        return folder.parent if folder.name == RUN_FILE else folder

    def _read_session(self) -> Review:
        self.message.clear()
        self._review = None
        try:
            folder = self._folder()
            if folder is None:
                raise BadInput("viewer.check-no-session")
            review = Review(folder)
            _ = review.plan  # refuses a run that goes on
            self._review = review
        finally:
            self._show_state()
        return review

    def _show_state(self) -> None:
        """Say what was checked, by whom, and what Start does."""
        by, review = self._name(), self._review
        labels = {} if review is None else review.labels
        mine = labels.get(by, {})
        usual = USUAL_CELLS if len(mine) < USUAL_CELLS else len(mine) + USUAL_CELLS
        self._offered = cells = self._wanted if self._wanted > len(mine) else usual
        self.cells.value = str(cells)
        lines = [
            say("viewer.check-done-by-you", cells=len(cells))
            if name == by
            else say("viewer.check-done-by", name=name, cells=len(cells))
            for name, cells in labels.items()
        ]
        set_text(self.status, "<br>".join(map(breakable, lines)))
        minutes = max(1, round(cells * _S_A_CELL / 60))
        set_text(self.intro, say("viewer.check-intro", cells=cells, minutes=minutes))
        text = say("viewer.check-go-on" if mine else "viewer.check-start", name=by or "…")
        self.start_button.setText(text.replace("&", "&&"))

    def _cells_written(self) -> None:
        """Take the number in the field, or refuse it."""
        mine = {} if self._review is None else self._review.labels.get(self._name(), {})
        most = max(MOST_CELLS, len(mine) + USUAL_CELLS)
        within = (LEAST_CELLS, most)
        cells = read_number("check_cells", self.cells.value, whole=True, within=within) or 0
        if cells != self._offered:
            self._wanted = cells
        self._show_state()

    def _name(self) -> str:
        """The name in the field; in the spelling of before where only capitals differ."""
        name = " ".join(str(self.name.value).split())
        known = {} if self._review is None else self._review.labels
        return known_name(name, known)

    # ------------------------------------------------------------------ checking

    def start(self) -> None:
        """Show the first cell."""
        self._cells_written()
        review = self._read_session()
        by = self._name()
        if not by:
            self.name.native.setFocus()
            raise BadInput("viewer.check-no-name")
        before, cells = len(review.labels.get(by, {})), int(self.cells.value)
        queue = review.sample(cells - before, by) if cells > before else []
        if not queue:
            raise BadInput("viewer.check-none-left")
        self._keep(person=by)
        self._close_check()
        self._by, self._queue, self._at, self._before = by, queue, 0, before
        self._blind = any(name != by for name in review.labels)
        self._ahead = CellsAhead(review.folder)
        self._ahead.want(queue)
        self._bring_forward()
        self.check.show_who(by)
        self._told = before - before % EVERY_CELLS
        self.check.show_so_far(review.figure if self._told and not self._blind else None)
        self.pages.setCurrentIndex(CHECK)
        self.check.setFocus()
        self._show_cell(say("viewer.check-one-key"))

    def _show_cell(self, hint: str) -> None:
        """Show the cell whose turn it is, or the end."""
        ahead = self._ahead
        if ahead is None or self._at >= len(self._queue):
            self._show_end()
            return
        sequence: CropSequence | None = None
        try:
            sequence = ahead.sequence(self._queue[self._at])
        except (RbcflowError, OSError) as error:
            # Nobody may leave out a cell: those behind it would not count.
            self.message.say(mild=[say("viewer.check-no-pictures", why=sentence_of(error))])
        at, cells = self._before + self._at + 1, self._before + len(self._queue)
        self.check.show_cell(sequence, ahead.fps, at, cells)
        self.check.undo.setEnabled(self._at > 0 or self._before > 0)
        self.check.show_hint(hint)

    def _answer(self, label: str) -> None:
        review = self._review
        if review is None or self.pages.currentIndex() != CHECK:
            return
        # On the disk before the next cell comes; where it cannot be, the cell stays and `message` says why.
        review.record({self._queue[self._at]: label}, self._by)
        self.message.clear()
        self._at += 1
        self._show_cell(say("viewer.check-said", label=words_of(label)))
        if self.pages.currentIndex() == CHECK:
            self._catching_up.start()

    def _catch_up(self) -> None:
        """Write what the answers give, once the next cell is on the screen: nobody waits for a number."""
        if self._review is None or self._ahead is None:
            return
        figure, done = self._review.update(), self._before + self._at
        if done - self._told >= EVERY_CELLS and not self._blind:
            self._told = done - done % EVERY_CELLS
            self.check.show_so_far(figure)

    def _undo(self) -> None:
        review = self._review
        if review is None or self.pages.currentIndex() != CHECK:
            return
        if self._at:
            review.withdraw(self._queue[self._at - 1], self._by)
            self._at -= 1
        elif self._before:
            cell = list(review.labels[self._by])[-1]
            review.withdraw(cell, self._by)
            self._queue.insert(0, cell)
            self._before -= 1
        self.message.clear()
        self._show_cell(say("viewer.check-undone"))

    def _stop(self) -> None:
        """Go back to the first page; everything is saved."""
        self._show_start()
        self._close_check()

    def _close_check(self) -> None:
        """End the sitting: report and ``review.json`` are brought up to date."""
        ahead, self._ahead = self._ahead, None
        self._queue, self._at = [], 0
        if ahead is None or self._review is None:
            return
        ahead.close()
        self._review.finish()
        self.reviewed.emit(self._review.folder)

    # ------------------------------------------------------------------ the end

    def _show_end(self) -> None:
        review = self._review
        assert review is not None
        self._report_errors(self._close_check)()
        by = self._by
        set_text(self.end, breakable(say("viewer.check-end", name=by, cells=len(review.labels.get(by, {})))))
        conclusion, figure = review.conclusion, review.figure
        result = conclusion.verdict is Verdict.RESULT
        set_text(self.banner, say("viewer.banner-simulated") if conclusion.simulated else "")
        why, todo = conclusion.why, conclusion.todo
        self.verdict.show_words(
            conclusion.verdict, "" if result else todo, f"{why} {todo}" if result else why
        )
        self.more.setStyleSheet("" if result else _START)
        set_text(self.number, number_of(conclusion.headline or figure))
        self.number.setStyleSheet(_NUMBER if result else _TEXT)
        set_text(self.fault, breakable(review.report_fault))
        set_text(self.agreement, "<br>".join(map(breakable, agreement_lines(review.agreement))))
        self.links.show_folder(review.folder)
        self.pages.setCurrentIndex(END)
        self.setFocus()  # a key too many starts nothing

    # ------------------------------------------------------------------ keys

    def event(self, event: QEvent) -> bool:
        """Keep this dock's keys from napari's own, as long as cells are checked and the focus is in here."""
        if event.type() == QEvent.Type.ShortcutOverride and self._takes(event):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Do what a key means here; leave the others to napari."""
        if not self._takes(event):
            super().keyPressEvent(event)
        elif self.pages.currentIndex() == CHECK:
            self.check.press(event)
        else:
            event.accept()

    def _takes(self, event: Any) -> bool:
        # On the last page too: a key too many is not napari's.
        return bool(self._built and self.pages.currentIndex() != START and self.check.is_ours(event))

    def _focus_changed(self) -> None:
        # Takes neither widget: PySide may hand over one that Qt is deleting, and ends the program.
        if self.pages.currentIndex() == CHECK and self.check.isVisible() and self.isActiveWindow():
            focus = QApplication.focusWidget()
            self.check.show_keys(focus is not None and (focus is self or self.isAncestorOf(focus)))

    # ------------------------------------------------------------------ the dock

    def shut_down(self) -> None:
        """Stop reading ahead; what was answered is saved."""
        self._close_check()
        with suppress(RuntimeError):  # the pages are gone with their window
            self.pages.setCurrentIndex(START)

    def showEvent(self, event: QShowEvent) -> None:
        """Offer the session that was shown last, at the first time."""
        first = not self._placed
        super().showEvent(event)
        if first:
            self._report_errors(self._offer)()

    def _offer(self) -> None:
        if self._folder() is not None:
            return
        folder = SessionLinks.shown_last or newest_session(load_settings().sessions_folder)
        if folder is None:
            return
        self.session.line_edit.value = str(folder)
        try:
            self._read_session()
        except (RbcflowError, OSError):  # nobody asked for this one
            self.session.line_edit.value = ""

    def _stand_beside(self) -> None:
        super()._stand_beside()
        self._bring_forward()

    def _bring_forward(self) -> None:
        """Stand in front of the tabs beside it, and wide enough for a cell and its answers."""
        self.come_up()
        dock, window = frame_of(self)
        if dock is not None and window is not None and not dock.isFloating():
            wide = min(MOST_WIDTH_PX, window.width() - ROOM_FOR_PICTURE_PX)
            width = max(self.sizeHint().width(), wide)
            window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)


def agreement_lines(agreement: Iterable[Agreement]) -> list[str]:
    """Say how far each two persons agree, a line each."""
    lines = []
    for pair in agreement:
        (one, other), counts = pair.between, {"equal": pair.equal, "cells": pair.cells}
        if pair.kappa is None:
            lines.append(say("viewer.check-agreement-alone", one=one, other=other, **counts))
        else:
            lines.append(say("viewer.check-agreement", one=one, other=other, kappa=pair.kappa, **counts))
    return lines


def number_of(figure: FractionFigure | None) -> str:
    """Return a fraction with its interval; empty where there is none."""
    if figure is None or figure.estimate is None or figure.low is None or figure.high is None:
        return ""
    interval = interval_words(figure.low, figure.high)
    return say("viewer.number-so-far", percent=percent(figure.estimate), interval=interval)


def newest_session(folder: Path) -> Path | None:
    """Return the session in a folder that was written last; None where there is none."""
    try:
        runs = [(run.stat().st_mtime, run.parent) for run in folder.glob(f"*/{RUN_FILE}")]
    except OSError:
        return None
    return max(runs)[1] if runs else None
