"""A patient over time in napari's dock: from a folder of sessions to the sentence, the picture, the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import QEvent, QSignalBlocker, QTimer, QUrl, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed
from napari_rbcflow.ring.disk import replace_file
from napari_rbcflow.session.schema import RUN_FILE as RUN_NAME
from napari_rbcflow.trend import Below, Choices, Gathered, Trend, as_csv, as_png, summary, trend_of
from napari_rbcflow.trend.records import parse_spans
from napari_rbcflow.widgets.guarding import guarded
from napari_rbcflow.widgets.labels import breakable, say
from napari_rbcflow.widgets.settings.remembered import load_settings
from napari_rbcflow.widgets.trend.face import TrendFace
from napari_rbcflow.widgets.trend.job import ReadingJob

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
        say(self.status, "")
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
        say(self.status, "reading the sessions ...")
        self._timer.start(POLL_MS)

    def _tick(self) -> None:
        done, of = self._job.read
        if of:
            say(self.status, f"reading the sessions: {done:,} of {of:,}")
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
        say(self.status, "")
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
            more.append(f"For live runs that stop at the limit: “Stop off the baseline” {limit}.")
        say(self.summary, "<br>".join(map(breakable, more)))
        notes = [note.replace("--crisis FROM:TO", "“Crises”") for note in trend.notes]
        say(self.notes, "<br>".join("▲ " + breakable(note) for note in notes))
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
            say(self.status, breakable(f"Saved: {path}"))

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
        return guarded(slot, "the trend widget", lambda sentence: self.message.say(grave=[sentence]))

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
