"""A patient over time in napari's dock: the sentence, the picture and the table."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, LineEdit
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QEvent,
    QSignalBlocker,
    QSize,
    Qt,
    QTimer,
    QUrl,
    Signal,
)
from qtpy.QtGui import QColor, QDesktopServices, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed
from napari_rbcflow.quality import percent
from napari_rbcflow.ring import replace_file
from napari_rbcflow.session import RUN_FILE as RUN_NAME
from napari_rbcflow.trend import (
    Below,
    Choices,
    Gathered,
    Trend,
    TrendRun,
    Use,
    as_csv,
    as_png,
    below_words,
    gather,
    number_words,
    parse_spans,
    summary,
    trend_of,
    use_words,
)
from napari_rbcflow.widgets.dock import (
    FAULT_COLOUR,
    WARNING_COLOUR,
    WarningBox,
    breakable,
    report_errors,
    set_text,
    wrapping_label,
)
from napari_rbcflow.widgets.remembered import load_settings
from napari_rbcflow.widgets.trend_plot import NOT_USED, TrendPlot, mark_of

_HEADINGS = ("Date", "Fraction", "Interval", "Cells", "Below?", "Baseline", "Sample", "Session")
_HEIGHT = 260


class RunsTable(QTableWidget):
    """A row a run, the newest first, as a person looks for that.

    Attributes
    ----------
    chosen, opened : Signal
        A row was chosen, or clicked twice: its place in `Trend.runs`.
    """

    chosen = Signal(int)
    opened = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADINGS), parent)
        self.setHorizontalHeaderLabels(list(_HEADINGS))
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.horizontalHeader().setStretchLastSection(True)
        self.setMinimumHeight(_HEIGHT)
        self.itemSelectionChanged.connect(self._selected)
        self.itemDoubleClicked.connect(lambda item: self.opened.emit(self._place(item.row())))

    def show_trend(self, trend: Trend) -> None:
        """List a trend's runs instead of those before."""
        self.blockSignals(True)
        self.clearContents()
        self.setRowCount(len(trend.runs))
        for place, run in enumerate(trend.runs):
            row = self._place(place)
            for column, (words, tip) in enumerate(_cells(run)):
                item = QTableWidgetItem(words)
                item.setToolTip(tip)
                if run.use is Use.DOUBT:
                    item.setForeground(QColor(NOT_USED.colour).darker(140))
                if column in (1, 2, 3):
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
        self.clearSelection()
        self.blockSignals(False)

    def choose(self, place: int) -> None:
        """Mark a run's row, and bring it into sight."""
        self.selectRow(self._place(place))
        self.scrollTo(self.model().index(self._place(place), 0))

    def _place(self, row: int) -> int:
        return self.rowCount() - 1 - row

    def _selected(self) -> None:
        rows = {index.row() for index in self.selectedIndexes()}
        if len(rows) == 1:
            self.chosen.emit(self._place(rows.pop()))


def _cells(run: TrendRun) -> list[tuple[str, str]]:
    """Return what stands in a row, each with its tip."""
    record, figure = run.record, run.record.figure
    fraction = interval = "–"
    if figure.estimate is not None and figure.low is not None and figure.high is not None:
        fraction = percent(figure.estimate)
        interval = f"{100 * figure.low:.1f} to {100 * figure.high:.1f}"
    tip = f"{100 * figure.level:g} % interval: {figure.method}"
    if record.by_hand is not None:
        fraction += " ✎"
        tip += f"\nwith changes by hand: {number_words(record.by_hand)}"
    if record.corrected is not None:
        tip += f"\ncorrected for the networks' errors: {number_words(record.corrected)}"
    return [
        (f"{record.started:%Y-%m-%d %H:%M}", ""),
        (fraction, tip),
        (interval, tip),
        (f"{figure.n:,}", ""),
        (f"{mark_of(run).sign} {below_words(run) or 'not used'}", use_words(run)),
        ("yes" if run.use is Use.BASELINE else "no", use_words(run)),
        (record.sample, record.sample),
        (record.named, str(record.folder)),
    ]


class _Given(Exception):
    """Nobody waits for it any more."""


class ReadingJob:
    """Reads the sessions of some folders, one call at a time; a folder on a slow network stops nobody.

    Attributes
    ----------
    read : (int, int)
        Sessions read so far, and in all.
    """

    def __init__(self) -> None:
        self.read = (0, 0)
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Gathered] | None = None
        self._given_up = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether something is being read, or waits to be taken."""
        return self._future is not None

    def start(self, paths: Sequence[Path]) -> None:
        """Begin; what was being read is given up."""
        self._given_up.set()
        self._given_up = threading.Event()
        self.read = (0, 0)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-trend")
        self._future = self._pool.submit(self._gather, tuple(paths), self._given_up)

    def take(self) -> Gathered | None:
        """Return what was read, once; None as long as it is being read.

        Raises
        ------
        RbcflowError
            As `gather`.
        """
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    def close(self) -> None:
        """Give up, and leave no thread behind; a later `start` is fine."""
        self._given_up.set()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._future = None

    def _gather(self, paths: Sequence[Path], given_up: threading.Event) -> Gathered:
        def progress(done: int, of: int) -> None:
            if given_up.is_set():
                raise _Given
            self.read = (done, of)

        return gather(paths, progress)


_VERDICT = "font-size: 17px; font-weight: 600; padding: 6px; border-radius: 4px;"
_VERDICTS = {
    Below.YES: f"{_VERDICT} background: {FAULT_COLOUR}; color: black;",
    Below.PERHAPS: f"{_VERDICT} border: 2px solid {WARNING_COLOUR};",
}
_SHOW = "font-size: 18px; font-weight: 600; padding: 7px; background: #1b6fa8; color: white;"


class TrendFace(QWidget):
    """The parts and their layout; nothing of what they do.

    Attributes
    ----------
    folder, patient, crises, baseline_days : magicgui widgets
    message : WarningBox
    """

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumWidth(400)
        self.setAcceptDrops(True)
        self.folder = FileEdit(label="Folder with sessions", mode=FileDialogMode.EXISTING_DIRECTORY)
        self.patient = ComboBox(label="Patient", choices=[])
        self.crises = LineEdit(label="Crises")
        self.baseline_days = LineEdit(label="Baseline from")
        self.folder.line_edit.native.setAcceptDrops(False)  # a dropped folder is for the whole dock
        self.folder.tooltip = "A session, or a folder that holds sessions; it can be dropped here too."
        self.crises.native.setPlaceholderText("FROM:TO, such as 2026-03-02:2026-03-09; several with commas")
        self.crises.tooltip = (
            "Days that make no baseline. Days that lie clearly below all others are left out by themselves."
        )
        self.baseline_days.native.setPlaceholderText("all days outside crises, or FROM:TO")
        self.container: Container[Any] = Container()
        self.container.extend([self.folder, self.patient, self.crises, self.baseline_days])
        self.container.margins = (0, 0, 0, 0)
        self.show_button = QPushButton("Show")
        self.show_button.setStyleSheet(_SHOW)
        self.message = WarningBox()
        self.status = wrapping_label("font-size: 16px; padding: 0px 4px;")
        self.verdict = wrapping_label(_VERDICT)
        self.summary = wrapping_label("font-size: 14px; padding: 0px 4px;")
        self.notes = wrapping_label("font-size: 13px; padding: 0px 4px;")
        self.plot, self.table = TrendPlot(), RunsTable()
        self.report_button = QPushButton("Open the report")
        self.crisis_button = QPushButton("This day was a crisis")
        self.table_button, self.picture_button = (
            QPushButton("Save table ..."),
            QPushButton("Save picture ..."),
        )
        self.result = QWidget()
        column = QVBoxLayout(self.result)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.verdict, self.plot, self.summary):
            column.addWidget(widget)
        column.addLayout(_row(self.report_button, self.crisis_button))
        column.addWidget(self.table, 1)
        column.addLayout(_row(self.table_button, self.picture_button))
        column.addWidget(self.notes)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        for part in (self.container.native, self.show_button, self.message, self.status):
            outer.addWidget(part)
        outer.addWidget(self.result, 1)
        outer.addStretch(0)
        self.result.hide()

    def sizeHint(self) -> QSize:
        """Wide enough for the table's first columns."""
        return QSize(520, 900)

    def show_verdict(self, words: str, below: Below) -> None:
        """Say how the last run stands, in the colour that belongs to it."""
        self.verdict.setText(words)
        self.verdict.setStyleSheet(_VERDICTS.get(below, _VERDICT))


def _row(*buttons: QPushButton) -> QHBoxLayout:
    row = QHBoxLayout()
    for button in buttons:
        row.addWidget(button)
    return row


POLL_MS = 60


class TrendWidget(TrendFace):
    """A folder of sessions, read in a thread; judged anew whenever patient or crises are changed.

    Attributes
    ----------
    shown : Signal
        A trend is shown, or `message` says why none is.
    trend : Trend or None
        What is shown.
    chosen : int or None
        The place in `trend.runs` of the run that was chosen.
    """

    shown = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.trend: Trend | None = None
        self.chosen: int | None = None
        self._gathered: Gathered | None = None
        self._judged_by = self._written()
        self._job = ReadingJob()
        self._connect()
        set_text(self.status, "")
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._guarded(self._tick))
        # Not through `self`, which is then half gone.
        job = self._job
        self.destroyed.connect(lambda: job.close())
        if (app := QApplication.instance()) is not None:
            app.aboutToQuit.connect(job.close)
        folder = load_settings().sessions_folder
        self.folder.line_edit.value = str(folder)
        if _may_hold_sessions(folder):
            self._guarded(self.show_pressed)()

    def _connect(self) -> None:
        self.show_button.clicked.connect(self._guarded(lambda *_: self.show_pressed()))
        self.folder.line_edit.native.returnPressed.connect(self._guarded(self.show_pressed))
        self.patient.changed.connect(self._guarded(lambda *_: self._judge()))
        for field in (self.crises, self.baseline_days):
            # Not at every letter: half a date is no date.
            field.native.editingFinished.connect(self._guarded(self._days_written))
        self.plot.clicked.connect(self._guarded(self.choose))
        self.table.chosen.connect(self._guarded(self.choose))
        for part in (self.plot, self.table):
            part.opened.connect(self._guarded(self.open_report))
        self.report_button.clicked.connect(self._guarded(lambda *_: self.open_report(self.chosen)))
        self.crisis_button.clicked.connect(self._guarded(lambda *_: self._name_crisis()))
        self.table_button.clicked.connect(self._guarded(lambda *_: self._save("csv", "Table", as_csv)))
        self.picture_button.clicked.connect(self._guarded(lambda *_: self._save("png", "Picture", as_png)))

    # ------------------------------------------------------------------ reading

    def show_pressed(self) -> None:
        """Read the folder, and show what is in it."""
        self.show_folders(_paths(self.folder.line_edit.value))

    def show_folders(self, paths: Sequence[Path]) -> None:
        """Read these sessions, or folders of sessions; `shown` tells when it is done.

        Raises
        ------
        BadInput
            Where there is none.
        """
        if not paths:
            raise BadInput("There is no folder: choose one that holds sessions.")
        self.message.clear()
        self.folder.line_edit.value = os.pathsep.join(map(str, paths))
        self._job.start(paths)
        set_text(self.status, "reading the sessions ...")
        self._timer.start(POLL_MS)

    def _tick(self) -> None:
        done, of = self._job.read
        if of:
            set_text(self.status, f"reading the sessions: {done:,} of {of:,}")
        try:
            gathered = self._job.take()
        except BaseException:
            self._end_reading(None)
            self.shown.emit()
            raise
        if gathered is not None:
            self._end_reading(gathered)
            self._judge()

    def _end_reading(self, gathered: Gathered | None) -> None:
        self._timer.stop()
        set_text(self.status, "")
        self._gathered = gathered
        names = [name for name in (gathered.patients if gathered else ()) if name]
        before = self.patient.value
        with self.patient.changed.blocked():
            self.patient.choices = names
            if before in names:
                self.patient.value = before
        if gathered is None:
            self._clear()

    # ------------------------------------------------------------------ judging and showing

    def _judge(self) -> None:
        """Show the chosen patient's runs, judged by what stands in the form."""
        if self._gathered is None:
            return
        self.message.clear()
        self._judged_by = self._written()
        try:
            days = parse_spans(self.baseline_days.value)
            if len(days) > 1:
                raise BadInput("The baseline is of one span of days: write FROM:TO, or nothing.")
            choices = Choices(parse_spans(self.crises.value), days[0] if days else None)
            self._show(trend_of(self._gathered, patient=self.patient.value or None, choices=choices))
        except RbcflowError:
            self._clear()
            raise
        finally:
            self.shown.emit()

    def _days_written(self) -> None:
        if self._written() != self._judged_by:
            self._judge()

    def _written(self) -> tuple[str, str]:
        return self.crises.value, self.baseline_days.value

    def _show(self, trend: Trend) -> None:
        self.trend = trend
        self.result.show()
        verdict, *more = summary(trend)
        self.show_verdict(breakable(verdict), trend.last.below if trend.last else Below.UNKNOWN)
        if trend.baseline is not None and trend.baseline.low > 0:
            limit = f"{100 * trend.baseline.low:.1f} %"
            more.append(
                f"For live runs that stop at the limit: “Stop when clearly off the baseline” {limit}."
            )
        set_text(self.summary, "<br>".join(map(breakable, more)))
        notes = [note.replace("--crisis FROM:TO", "“Crises”") for note in trend.notes]
        set_text(self.notes, "<br>".join("▲ " + breakable(note) for note in notes))
        self.plot.show_trend(trend)
        self.table.show_trend(trend)
        self._choose_nothing()

    def _clear(self) -> None:
        self.trend = None
        self.plot.clear()
        self.result.hide()
        self._choose_nothing()

    # ------------------------------------------------------------------ one run

    def choose(self, place: int) -> None:
        """Point at a run in picture and table; the buttons are then about it."""
        if self.trend is None:
            return
        self.chosen = place
        self.plot.choose(place)
        with QSignalBlocker(self.table):
            self.table.choose(place)
        self.report_button.setText(f"Open the report of {self.trend.runs[place].day}")
        self.report_button.setEnabled(True)
        self.crisis_button.setEnabled(True)

    def _choose_nothing(self) -> None:
        self.chosen = None
        self.plot.choose(None)
        self.report_button.setText("Open the report")
        self.report_button.setEnabled(False)
        self.crisis_button.setEnabled(False)

    def open_report(self, place: int | None) -> None:
        """Open a run's report in the browser.

        Raises
        ------
        BadInput
            If it has none.
        """
        if self.trend is None or place is None:
            return
        self.choose(place)
        report = self.trend.runs[place].record.folder / "report.html"
        if not report.exists():
            raise BadInput(f"{report} does not exist: the run was not closed.")
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(report)))

    def _name_crisis(self) -> None:
        if self.trend is not None and self.chosen is not None:
            day = str(self.trend.runs[self.chosen].day)
            days = [part for part in self.crises.value.replace(",", " ").split() if part]
            if day not in days:
                self.crises.value = ", ".join([*days, day])
                self._judge()

    def _save(self, ending: str, what: str, make: Callable[[Trend], bytes]) -> None:
        if self.trend is None:
            return
        name = "".join(c if c.isalnum() else "-" for c in self.trend.patient) or "trend"
        chosen, _ = QFileDialog.getSaveFileName(
            self, f"{what} of {self.trend.patient}", f"{name}.{ending}", f"{what} (*.{ending})"
        )
        if chosen:
            path = Path(chosen)
            path = path if path.suffix.lower() == f".{ending}" else path.with_name(f"{path.name}.{ending}")
            try:
                replace_file(path, make(self.trend))
            except OSError as error:
                said = error.strerror or str(error)
                raise RunFailed(f"{path} cannot be written ({said}): choose another folder.") from error
            set_text(self.status, breakable(f"Saved: {path}"))

    # ------------------------------------------------------------------ drag and drop

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take folders, and run.json of a session; leave anything else to napari."""
        if _dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Show the sessions that were dropped."""
        paths = _dropped(event)
        event.acceptProposedAction()
        self._guarded(self.show_folders)(paths)

    # ------------------------------------------------------------------ faults, and being taken away

    def _guarded(self, slot: Callable[..., None]) -> Callable[..., None]:
        """Let a slot end in a sentence at worst, never in a traceback window."""
        return report_errors(slot, "the trend widget", lambda sentence: self.message.say(grave=[sentence]))

    def event(self, event: QEvent) -> bool:
        """Hear of being taken out of the dock."""
        handled = bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and hasattr(self, "_timer"):
            self._timer.stop()
            self._job.close()
        return handled


def _paths(text: str) -> list[Path]:
    """Return the folders that stand in the field: one, or several as a drop of several writes them."""
    text = text.strip()
    if not text or Path(text).expanduser().exists():
        parts = [text] if text else []
    else:
        parts = [part for part in text.split(os.pathsep) if part.strip()]
    return [Path(part.strip()).expanduser() for part in parts]


def _dropped(event: QDropEvent) -> list[Path]:
    paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
    return [path for path in paths if path.is_dir() or path.name == RUN_NAME]


def _may_hold_sessions(folder: Path) -> bool:
    try:
        return any((entry / RUN_NAME).is_file() for entry in folder.iterdir())
    except OSError:
        return False
