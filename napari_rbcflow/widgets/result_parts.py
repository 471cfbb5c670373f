"""Parts of panels that show a result: verdict, measures of quality, the session's folder, a bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from qtpy.QtCore import QRectF, Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QHideEvent, QPainter, QPaintEvent, QShowEvent
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.quality import QualityLine, Severity
from napari_rbcflow.sentences import say
from napari_rbcflow.session import CHECKED_CELLS
from napari_rbcflow.types import Verdict
from napari_rbcflow.widgets.label_styles import CHIPS, EDGES, INKS
from napari_rbcflow.widgets.panel import ElidingLabel, breakable, set_text, wrapping_label

_HEIGHT_PX = 14
_STEPS = 500


# Of a bar that only says that something goes on: how much of it is filled, and how that moves.
_BUSY_SHARE, _BUSY_STEP, _BUSY_MS = 0.25, 0.125, 250


class ShareBar(QWidget):
    """A share from 0 to 1; None where nobody knows it, and a block wanders to show that something goes on.

    Not a QProgressBar: that one paints whenever its value changes, and beside napari's canvas each painting
    composes the whole window (38 ms at 1500 x 950 without a GPU, measured).
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.share: float | None = 0.0
        self._block = 0.0  # where it begins
        self._wander = QTimer(self)
        self._wander.setInterval(_BUSY_MS)
        self._wander.timeout.connect(self._move_block)
        self.setFixedHeight(_HEIGHT_PX)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_share(self, share: float | None) -> None:
        """Show another share; painted with whatever is painted next."""
        if share is not None:
            share = round(min(1.0, max(0.0, share)) * _STEPS) / _STEPS
        if share != self.share:
            self.share = share
            self._set_wandering()
            self.update()

    def showEvent(self, event: QShowEvent) -> None:
        """Wander only where it is seen."""
        super().showEvent(event)
        self._set_wandering()

    def hideEvent(self, event: QHideEvent) -> None:
        """Stand still."""
        super().hideEvent(event)
        self._wander.stop()

    def _set_wandering(self) -> None:
        if self.share is not None or not self.isVisible():
            self._wander.stop()
        elif not self._wander.isActive():
            self._wander.start()

    def _move_block(self) -> None:
        self._block = (self._block + _BUSY_STEP) % 1.0
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Fill as much of the frame as the share says, or the block."""
        painter = QPainter(self)
        ink = INKS["quiet"].on(self.palette())
        frame = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        begin, length = (self._block, _BUSY_SHARE) if self.share is None else (0.0, self.share)
        for at in (begin, begin - 1.0):  # what leaves at the right comes in at the left
            filled = QRectF(frame)
            filled.moveLeft(frame.left() + at * frame.width())
            filled.setWidth(length * frame.width())
            painter.fillRect(filled & frame, ink)
        painter.setPen(ink)
        painter.drawRect(frame)
        painter.end()


class StatusLine(QWidget):
    """What goes on now, in words, and a bar under them; takes no room without words."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words, self.bar = wrapping_label("font-size: 16px; padding: 0px 4px;"), ShareBar()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 6, 0)
        column.setSpacing(3)
        column.addWidget(self.words)
        column.addWidget(self.bar)
        self.hide()

    def say(self, words: str, *, share: float | None = None, going: bool = True) -> None:
        """Say what goes on, and how much of it is done where that is known; or, not `going`, what went on."""
        set_text(self.words, words)
        self.bar.show_share(share)
        self.bar.setVisible(going)
        if self.isHidden() == bool(words):
            self.setVisible(bool(words))

    def text(self) -> str:
        """Return the words."""
        return self.words.text()


class SessionLinks(QWidget):
    """The folder's path, and buttons for it and for its report; takes no room without a session."""

    shown_last: ClassVar[Path | None] = None  # in whichever dock

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.line = ElidingLabel("font-size: 13px;")
        self.open_folder = QPushButton(say("viewer.open-folder"))
        self.open_report = QPushButton(say("viewer.open-report"))
        self.open_folder.clicked.connect(lambda: self._open(""))
        self.open_report.clicked.connect(lambda: self._open("report.html"))
        row = QHBoxLayout()
        row.addWidget(self.open_folder)
        row.addWidget(self.open_report)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.line)
        column.addLayout(row)
        self.folder: Path | None = None
        self.hide()

    def clear(self) -> None:
        """Forget the session."""
        self.folder = None
        set_text(self.line, "")
        self.hide()

    def show_folder(self, folder: Path) -> None:
        """Show where a session lies."""
        self.folder = SessionLinks.shown_last = Path(folder)
        set_text(self.line, say("viewer.session", folder=folder))
        self.open_report.setVisible((self.folder / "report.html").exists())
        self.show()

    def _open(self, name: str) -> None:
        if self.folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.folder / name)))


_PLAIN_ROW = "font-size: 13px; padding: 0px;"
_GROUND = "font-size: 13px; border-radius: 3px; padding: 0px 3px; "
_LOOKS = {
    None: ("✓", _PLAIN_ROW),
    Severity.NOTE: ("▲", _GROUND + CHIPS["note"].css),
    Severity.WARNING: ("⚠", _GROUND + CHIPS["grave"].css),
}


class QualityTable(QWidget):
    """The measures of a run's quality, a row each; takes no room without any."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 4, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        # Made once and filled anew: a run changes them a few times a second.
        self._rows: list[tuple[QLabel, QLabel, QLabel]] = []
        self.lines: tuple[QualityLine, ...] = ()
        self.hide()

    def show_lines(self, lines: Sequence[QualityLine]) -> None:
        """Show these measures instead of those before."""
        if (shown := tuple(lines)) == self.lines:
            return
        self.lines = shown
        while len(self._rows) < len(shown):
            self._rows.append(self._new_row())
        for k, row in enumerate(self._rows):
            for label in row:
                label.setVisible(k < len(shown))
        for row, line in zip(self._rows, shown, strict=False):
            _fill(row, line)
        self.setVisible(bool(shown))

    def clear(self) -> None:
        """Show nothing."""
        self.show_lines(())

    def _new_row(self) -> tuple[QLabel, QLabel, QLabel]:
        row = QLabel(), QLabel(), QLabel()
        at = len(self._rows)
        for column, label in enumerate(row):
            label.setStyleSheet(_PLAIN_ROW)
            self._grid.addWidget(label, at, column)
        row[2].setAlignment(Qt.AlignmentFlag.AlignRight)
        return row


def _fill(row: tuple[QLabel, QLabel, QLabel], line: QualityLine) -> None:
    mark, style = _LOOKS[line.severity]
    for label, text in zip(row, (mark, line.name, line.value), strict=True):
        if label.text() != text:
            label.setText(text)
        label.setToolTip(say("viewer.usual", usual=line.usual))
    if row[0].styleSheet() != style:
        row[0].setStyleSheet(style)
        row[2].setStyleSheet(style)


BANNER = f"font-size: 17px; font-weight: 700; padding: 4px 8px; {CHIPS['simulated'].css}"
# Sign and colour of each verdict; each stands beside its word.
_VERDICTS = {
    Verdict.RESULT: ("✓", EDGES["good"]),
    Verdict.PROVISIONAL: ("◐", EDGES["caution"]),
    Verdict.NO_RESULT: ("✗", EDGES["bad"]),
}


class VerdictBox(QFrame):
    """The verdict, before any number: in a word, in large words what to do, and why."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("verdict")
        self.word = wrapping_label("font-size: 20px; font-weight: 700;")
        self.title = wrapping_label("font-size: 27px; font-weight: 600;")
        self.why = wrapping_label("font-size: 16px;")
        self.check = QPushButton(say("viewer.ask-check", cells=CHECKED_CELLS))
        self.check.setToolTip(say("viewer.ask-check-help", cells=CHECKED_CELLS))
        self.check.setStyleSheet("font-size: 17px; font-weight: 600; padding: 8px;")
        column = QVBoxLayout(self)
        column.setContentsMargins(10, 4, 4, 6)
        column.setSpacing(2)
        for widget in (self.word, self.title, self.why, self.check):
            column.addWidget(widget)
        self.verdict: Verdict | None = None
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self.hide()
        self.check.hide()
        self.verdict = None

    def show_words(self, verdict: Verdict | None, title: str, why: str) -> None:
        """Show a verdict; None where it is too early for one."""
        sign, colour = ("", EDGES["none"]) if verdict is None else _VERDICTS[verdict]
        set_text(self.word, "" if verdict is None else f"{sign} {say(f'session.verdict-{verdict}')}")
        set_text(self.title, breakable(title))
        set_text(self.why, breakable(why))
        style = f"#verdict {{ border-left: 8px solid {colour}; }}"
        if self.styleSheet() != style:
            self.setStyleSheet(style)
        self.verdict = verdict
        self.show()
