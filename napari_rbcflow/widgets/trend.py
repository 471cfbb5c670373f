"""A patient over time in napari's dock: the comparison, the picture and the table."""

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
    QSignalBlocker,
    QSize,
    Qt,
    QTimer,
    QUrl,
    Signal,
)
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTabBar,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.estimate import method_words
from napari_rbcflow.quality import percent
from napari_rbcflow.ring import replace_file
from napari_rbcflow.sentences import say
from napari_rbcflow.session import RUN_FILE as RUN_NAME
from napari_rbcflow.trend import (
    Below,
    Choices,
    ControlChart,
    Gathered,
    Trend,
    TrendRun,
    Use,
    as_csv,
    as_png,
    below_words,
    control_charts,
    control_csv,
    control_of_day,
    control_png,
    figure_words,
    gather,
    number_words,
    parse_spans,
    summary,
    trend_of,
    use_words,
)
from napari_rbcflow.widgets.dock import Dock, is_folder_or_run
from napari_rbcflow.widgets.label_styles import CHIPS, EDGES
from napari_rbcflow.widgets.panel import FIELD_LABELS, breakable, in_form, scrolling, set_text, wrapping_label
from napari_rbcflow.widgets.remembered import load_settings
from napari_rbcflow.widgets.result_parts import StatusLine
from napari_rbcflow.widgets.trend_control import ControlView
from napari_rbcflow.widgets.trend_plot import TrendPlot, mark_of

_HEADINGS = (
    say("viewer.trend-date"),
    say("viewer.trend-fraction"),
    say("viewer.trend-interval"),
    say("viewer.trend-cells"),
    say("viewer.trend-below"),
    say("viewer.trend-in-baseline"),
    FIELD_LABELS["sample"],
    say("viewer.control-of-day"),
    say("viewer.trend-session"),
)
_CELLS, _BELOW, _CONTROL = 3, 4, 7
_HEIGHT = 260


class RunsTable(QTableWidget):
    """A row for each run, the newest first."""

    # A row was chosen, or clicked twice: its place in `Trend.runs`.
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
        # Beside napari's own docks on a laptop there is no room for both.
        self.horizontalHeader().moveSection(_CELLS, _BELOW)
        self.setFrameShape(QTableWidget.Shape.NoFrame)
        self.setMinimumHeight(_HEIGHT)
        self.itemSelectionChanged.connect(self._selected)
        self.itemDoubleClicked.connect(lambda item: self.opened.emit(self._place(item.row())))

    def show_trend(self, trend: Trend, charts: Sequence[ControlChart] = ()) -> None:
        """List a trend's runs instead of those before, each with the control of its day."""
        self.blockSignals(True)
        self.setColumnHidden(_CONTROL, not charts)
        self.clearContents()
        self.setRowCount(len(trend.runs))
        for place, run in enumerate(trend.runs):
            row = self._place(place)
            for column, (words, tip) in enumerate(_cells(run, charts)):
                item = QTableWidgetItem(words)
                item.setToolTip(tip)
                if not run.compared:
                    font = item.font()
                    font.setItalic(True)
                    item.setFont(font)
                if column in (1, 2, 3):
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
        self.clearSelection()
        self.blockSignals(False)

    def choose(self, place: int) -> None:
        """Select a run's row, and scroll to it."""
        self.selectRow(self._place(place))
        self.scrollTo(self.model().index(self._place(place), 0))

    def _place(self, row: int) -> int:
        return self.rowCount() - 1 - row

    def _selected(self) -> None:
        rows = {index.row() for index in self.selectedIndexes()}
        if len(rows) == 1:
            self.chosen.emit(self._place(rows.pop()))


def _cells(run: TrendRun, charts: Sequence[ControlChart]) -> list[tuple[str, str]]:
    """Return the texts of a row, each with its tooltip."""
    record, figure = run.record, run.figure
    fraction = interval = "–"
    if figure.estimate is not None and figure.low is not None and figure.high is not None:
        fraction = percent(figure.estimate)
        interval = f"{100 * figure.low:.1f} to {100 * figure.high:.1f}"
    tips = [
        figure_words(run),
        say("viewer.trend-which-interval", level=100 * figure.level, method=method_words(figure.method)),
    ]
    if record.by_hand is not None:
        fraction += " ✎"
        tips.append(say("viewer.trend-by-hand", number=number_words(record.by_hand)))
    if record.corrected is not None:
        tips.append(say("viewer.trend-corrected", number=number_words(record.corrected)))
    tip, used = "\n".join(tips), run.use is Use.BASELINE
    state, control = control_of_day(charts, record.started, record.instrument)
    return [
        (f"{record.started:%Y-%m-%d %H:%M}", ""),
        (fraction, tip),
        (interval, tip),
        (f"{figure.n:,}", ""),
        (f"{mark_of(run).sign} {below_words(run) or say('viewer.trend-not-used')}", use_words(run)),
        (say("viewer.trend-yes" if used else "viewer.trend-no"), use_words(run)),
        (record.sample, record.sample),
        ("–" if state is None else state.word, control),
        (record.named, str(record.folder)),
    ]


class _GivenUp(Exception):
    """Nobody waits for the result any more."""


class ReadingJob:
    """Reads the sessions of some folders in a thread: a folder on a slow network stops nobody."""

    def __init__(self) -> None:
        self.read = (0, 0)  # sessions, so far and in all
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Gathered] | None = None
        self._given_up = threading.Event()

    def start(self, paths: Sequence[Path]) -> None:
        """Begin; what was being read is given up."""
        self._given_up.set()
        self._given_up = threading.Event()
        self.read = (0, 0)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-trend")
        self._future = self._pool.submit(self._gather, tuple(paths), self._given_up)

    def take(self) -> Gathered | None:
        """Return what was read, once; None while it is being read; raises what `gather` raises."""
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
                raise _GivenUp
            self.read = (done, of)

        return gather(paths, progress)


_VERDICT = "font-size: 17px; font-weight: 600; padding: 6px; border-radius: 4px;"
_VERDICTS = {
    Below.YES: f"{_VERDICT} {CHIPS['grave'].css}",
    Below.PERHAPS: f"{_VERDICT} border: 2px solid {EDGES['caution']};",
}
_SHOW = f"font-size: 18px; font-weight: 600; padding: 7px; {CHIPS['start'].css}"
POLL_MS = 60


class TrendWidget(Dock):
    """A folder of sessions, read in a thread; compared again whenever patient or days are changed."""

    shown = Signal()  # a trend is shown, or `message` says why none is

    def __init__(self) -> None:
        super().__init__()
        self._lay_out()
        self.trend: Trend | None = None
        self.chosen: int | None = None  # the place in `trend.runs`
        self._gathered: Gathered | None = None
        self._judged_by = self._written()
        self._job = ReadingJob()
        self._connect()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._report_errors(self._tick))
        # Not through `self`, which is then half gone.
        job = self._job
        self.destroyed.connect(lambda: job.close())
        if (app := QApplication.instance()) is not None:
            app.aboutToQuit.connect(job.close)
        self._built = True
        folder = load_settings().sessions_folder
        self.folder.line_edit.value = str(folder)
        if _may_hold_sessions(folder):
            self._report_errors(self.show_pressed)()

    def _lay_out(self) -> None:
        self.folder = FileEdit(label=say("viewer.trend-folder"), mode=FileDialogMode.EXISTING_DIRECTORY)
        self.folder.choose_btn.text = say("forms.browse")
        self.patient = ComboBox(label=FIELD_LABELS["patient"], choices=[])
        self.crises = LineEdit(label=FIELD_LABELS["crises"])
        self.baseline_days = LineEdit(label=say("viewer.trend-baseline"))
        self.folder.line_edit.native.setAcceptDrops(False)  # a dropped folder is for the whole dock
        self.folder.tooltip = say("viewer.trend-folder-help")
        self.crises.native.setPlaceholderText(say("viewer.trend-crises-example"))
        self.crises.tooltip = say("viewer.trend-crises-help")
        self.baseline_days.native.setPlaceholderText(say("viewer.trend-baseline-example"))
        self.container: Container[Any] = Container()
        self.container.extend([self.folder, self.patient, self.crises, self.baseline_days])
        self.container.margins = (0, 0, 0, 0)
        self.show_button = QPushButton(say("viewer.trend-show"))
        self.show_button.setStyleSheet(_SHOW)
        self.status = StatusLine()
        self.verdict = wrapping_label(_VERDICT)
        self.summary = wrapping_label("font-size: 14px; padding: 0px 4px;")
        self.notes = wrapping_label("font-size: 13px; padding: 0px 4px;")
        self.plot, self.table = TrendPlot(), RunsTable()
        self.tabs = QTabBar()
        for key in ("viewer.control-tab-patient", "viewer.control-tab"):
            self.tabs.addTab(say(key))
        self.control = ControlView()
        self.report_button = QPushButton(say("viewer.open-report"))
        self.crisis_button = QPushButton(say("viewer.trend-crisis-day"))
        self.table_button = QPushButton(say("viewer.trend-save-table"))
        self.picture_button = QPushButton(say("viewer.trend-save-picture"))
        content = QWidget()
        self.result = scrolling(content)
        self.of_patient = QWidget()
        column = QVBoxLayout(self.of_patient)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.verdict, self.plot, self.summary):
            column.addWidget(widget)
        column.addLayout(_row(self.report_button, self.crisis_button))
        column.addWidget(self.table, 1)
        both = QVBoxLayout(content)
        both.setContentsMargins(0, 0, 0, 0)
        both.addWidget(self.of_patient, 1)
        both.addWidget(self.control)
        both.addLayout(_row(self.table_button, self.picture_button))
        both.addWidget(self.notes)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(2, 4, 2, 4)  # the table needs every pixel
        outer.setSpacing(4)
        for part in (self.container.native, self.show_button, self.message, self.status):
            outer.addWidget(part)
        outer.addWidget(self.tabs)
        outer.addWidget(self.result, 1)
        outer.addStretch(0)
        self.tabs.hide()
        self.control.hide()
        self.result.hide()

    def sizeHint(self) -> QSize:
        """Wide enough for the table's first columns."""
        return QSize(520, 900)

    def shut_down(self) -> None:
        """Stop reading."""
        self._timer.stop()
        self._job.close()

    def _connect(self) -> None:
        self.take_drops(is_folder_or_run, self.show_folders)
        self.show_button.clicked.connect(self._report_errors(lambda *_: self.show_pressed()))
        self.folder.line_edit.native.returnPressed.connect(self._report_errors(self.show_pressed))
        self.patient.changed.connect(self._report_errors(lambda *_: self._judge()))
        for field in (self.crises, self.baseline_days):
            # Not at every letter: half a date is not a date.
            field.native.editingFinished.connect(self._report_errors(self._days_written))
        self.plot.clicked.connect(self._report_errors(self.choose))
        self.table.chosen.connect(self._report_errors(self.choose))
        for part in (self.plot, self.table):
            part.opened.connect(self._report_errors(self.open_report))
        self.tabs.currentChanged.connect(lambda _: self._show_tab())
        self.control.opened.connect(self._report_errors(_open_report))
        self.report_button.clicked.connect(self._report_errors(lambda *_: self.open_report(self.chosen)))
        self.crisis_button.clicked.connect(self._report_errors(lambda *_: self._name_crisis()))
        self.table_button.clicked.connect(self._report_errors(lambda *_: self._save(table=True)))
        self.picture_button.clicked.connect(self._report_errors(lambda *_: self._save(table=False)))

    # ------------------------------------------------------------------ reading

    def show_pressed(self) -> None:
        """Read the folder, and show what is in it."""
        self.show_folders(_paths(self.folder.line_edit.value))

    def show_folders(self, paths: Sequence[Path]) -> None:
        """Read these sessions, or folders of sessions; `shown` is emitted when it is done."""
        if not paths:
            raise BadInput("viewer.trend-no-folder")
        self.message.clear()
        self.folder.line_edit.value = os.pathsep.join(map(str, paths))
        self._job.start(paths)
        self.status.say(say("viewer.trend-reading"))
        self._timer.start(POLL_MS)

    def _tick(self) -> None:
        done, of = self._job.read
        if of:
            self.status.say(say("viewer.trend-reading-of", done=done, sessions=of), share=done / of)
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
        self.status.say("")
        self._gathered = gathered
        names = [name for name in (gathered.patients if gathered else ()) if name]
        before = self.patient.value
        with self.patient.changed.blocked():
            self.patient.choices = names
            if before in names:
                self.patient.value = before
        charts = control_charts(gathered) if gathered and gathered.controls else []
        self.control.show_charts(charts)
        self.tabs.setVisible(bool(charts))
        only = gathered is not None and not gathered.records
        self.tabs.setCurrentIndex(_OF_CONTROL if only else _OF_PATIENT)
        if gathered is None:
            self._clear()

    # ------------------------------------------------------------------ judging and showing

    def _judge(self) -> None:
        """Show the chosen patient's runs, compared by the days in the form."""
        if self._gathered is None:
            return
        self.message.clear()
        if not self._gathered.records and self.control.charts:
            self._clear()
            self.shown.emit()
            return
        self._judged_by = self._written()
        try:
            days = parse_spans(self.baseline_days.value)
            if len(days) > 1:
                raise BadInput("viewer.trend-one-span")
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
        verdict, *more = summary(trend)
        below = trend.last.below if trend.last else Below.UNKNOWN
        self.verdict.setText(breakable(verdict))
        self.verdict.setStyleSheet(_VERDICTS.get(below, _VERDICT))
        if trend.baseline is not None and trend.baseline.low > 0:
            more.append(in_form(say("viewer.trend-limit", limit=100 * trend.baseline.low)))
        if trend.last is not None:
            last = trend.last.record
            more.append(control_of_day(self.control.charts, last.started, last.instrument)[1])
        set_text(self.summary, "<br>".join(breakable(line) for line in more if line))
        set_text(self.notes, "<br>".join("▲ " + breakable(in_form(note)) for note in trend.notes))
        self.plot.show_trend(trend)
        self.table.show_trend(trend, self.control.charts)
        self._choose_nothing()
        self._show_tab()

    def _clear(self) -> None:
        self.trend = None
        self.plot.clear()
        set_text(self.notes, "")
        self._choose_nothing()
        self._show_tab()

    @property
    def _shows_control(self) -> bool:
        return self.tabs.currentIndex() == _OF_CONTROL and bool(self.control.charts)

    def _show_tab(self) -> None:
        """Show the patient or the control, if there is one."""
        control = self._shows_control
        self.of_patient.setVisible(not control)
        self.control.setVisible(control)
        self.result.setVisible(control or self.trend is not None)

    # ------------------------------------------------------------------ one run

    def choose(self, place: int) -> None:
        """Select a run in picture and table; the buttons are then about it."""
        if self.trend is None:
            return
        self.chosen = place
        self.plot.choose(place)
        with QSignalBlocker(self.table):
            self.table.choose(place)
        self.report_button.setText(say("viewer.trend-report-of", day=self.trend.runs[place].day))
        self.report_button.setEnabled(True)
        self.crisis_button.setEnabled(True)

    def _choose_nothing(self) -> None:
        self.chosen = None
        self.plot.choose(None)
        self.report_button.setText(say("viewer.open-report"))
        self.report_button.setEnabled(False)
        self.crisis_button.setEnabled(False)

    def open_report(self, place: int | None) -> None:
        """Open a run's report in the browser."""
        if self.trend is None or place is None:
            return
        self.choose(place)
        _open_report(self.trend.runs[place].record.folder)

    def _name_crisis(self) -> None:
        if self.trend is not None and self.chosen is not None:
            day = str(self.trend.runs[self.chosen].day)
            days = [part for part in self.crises.value.replace(",", " ").split() if part]
            if day not in days:
                self.crises.value = ", ".join([*days, day])
                self._judge()

    def _save(self, *, table: bool) -> None:
        ending, files = (
            ("csv", "viewer.trend-table-files") if table else ("png", "viewer.trend-picture-files")
        )
        make: Callable[[], bytes]
        if self._shows_control:
            charts = self.control.charts
            make = (lambda: control_csv(charts)) if table else (lambda: control_png(charts))
            title = say("viewer.control-table-of" if table else "viewer.control-picture-of")
            name = say("viewer.control-saved-as", lot=charts[0].lot)
        elif (trend := self.trend) is not None:
            make = (lambda: as_csv(trend, self.control.charts)) if table else (lambda: as_png(trend))
            title = say(
                "viewer.trend-table-of" if table else "viewer.trend-picture-of", patient=trend.patient
            )
            name = trend.patient
        else:
            return
        name = "".join(c if c.isalnum() else "-" for c in name) or "trend"
        chosen, _ = QFileDialog.getSaveFileName(self, title, f"{name}.{ending}", say(files))
        if chosen:
            path = Path(chosen)
            path = path if path.suffix.lower() == f".{ending}" else path.with_name(f"{path.name}.{ending}")
            try:
                replace_file(path, make())
            except OSError as error:
                raise BadInput("forms.file-not-written", path=path, why=error.strerror or error) from error
            self.status.say(breakable(say("viewer.trend-saved", path=path)), going=False)


_OF_PATIENT, _OF_CONTROL = 0, 1


def _open_report(folder: Path) -> None:
    report = folder / "report.html"
    if not report.exists():
        raise BadInput("viewer.trend-no-report", report=report)
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(report)))


def _row(*buttons: QPushButton) -> QHBoxLayout:
    row = QHBoxLayout()
    for button in buttons:
        row.addWidget(button)
    return row


def _paths(text: str) -> list[Path]:
    """Return the folders in the field: one, or several as a drop of several writes them."""
    text = text.strip()
    if not text or Path(text).expanduser().exists():
        parts = [text] if text else []
    else:
        parts = [part for part in text.split(os.pathsep) if part.strip()]
    return [Path(part.strip()).expanduser() for part in parts]


def _may_hold_sessions(folder: Path) -> bool:
    try:
        return any((entry / RUN_NAME).is_file() for entry in folder.iterdir())
    except OSError:
        return False
