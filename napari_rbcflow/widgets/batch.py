"""Many recorded movies in napari's dock: choose them, watch them being analysed, open what is finished."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tifffile
from magicgui.types import FileDialogMode
from magicgui.widgets import Container, FileEdit, PushButton, TextEdit
from qtpy.QtCore import QTimer, QUrl, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QDesktopServices, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import time_words
from napari_rbcflow.pipeline import BatchCount, BatchFolder, analyze_many, busy
from napari_rbcflow.ring import read_json, replace_file
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Verdict
from napari_rbcflow.widgets.dock import Dock, frame_of, session_of
from napari_rbcflow.widgets.movie_form import AnalysisForm
from napari_rbcflow.widgets.panel import (
    FIELD_LABELS,
    AsHigh,
    Fold,
    RunButtons,
    breakable,
    in_form,
    set_text,
    wrapping_label,
)
from napari_rbcflow.widgets.remembered import PLUGIN, Settings, load_settings
from napari_rbcflow.widgets.result import interval_words, percent
from napari_rbcflow.widgets.result_parts import StatusLine

if TYPE_CHECKING:
    import napari.viewer

Row = Mapping[str, Any]
_TIFFS = (".tif", ".tiff", ".btf", ".stk", ".lsm")
_MOVIES = (*_TIFFS, ".avi", ".mp4", ".mov", ".m4v", ".mkv", ".wmv", ".mpg", ".mpeg", ".webm", ".zarr")
# Beside what the batch itself keeps: what was written in the form, to go on another day.
_FORM = ".batch/form.json"
_MOVIES_HEIGHT = 76
_POLL_MS = 250


def movies_in(folder: Path) -> list[Path]:
    """Return the movies in a folder; only the folder itself where it holds the pictures of one movie."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _MOVIES)
    found = [path for path in found if not path.name.startswith(".")]
    first = next((path for path in found if path.suffix.lower() in _TIFFS), None)
    if len(found) > 1 and first is not None and _is_one_picture(first):
        return [folder]
    if not found:
        raise BadInput("forms.batch-none-in-folder", folder=folder)
    return found


def _is_one_picture(path: Path) -> bool:
    try:
        with tifffile.TiffFile(path) as tif:
            return set(tif.series[0].axes) <= set("YXS")
    except Exception:  # whatever is wrong with the file is said of it when it is analysed
        return False


class BatchForm(AnalysisForm):
    """Which movies, how they are analysed, and where the results go."""

    def __init__(self) -> None:
        self.movies = TextEdit(label=say("forms.batch-movies"), tooltip=say("forms.batch-movies-help"))
        self.movies.native.setPlaceholderText(say("forms.batch-movies-help"))
        self.movies.native.setFixedHeight(_MOVIES_HEIGHT)
        self.movies.native.setAcceptDrops(False)  # what is dropped is for the whole dock
        self.movies.native.setTabChangesFocus(True)
        self.movies.native.setLineWrapMode(QTextEdit.LineWrapMode.NoWrap)
        names = ("forms.batch-files", "forms.batch-folder", "forms.batch-list")
        self.files, self.of_folder, self.list = (PushButton(text=say(name)) for name in names)
        buttons: Container[Any] = Container(
            layout="horizontal", labels=False, label="", widgets=[self.files, self.of_folder, self.list]
        )
        buttons.margins = (0, 0, 0, 0)
        folder = FileEdit(
            label=FIELD_LABELS["out"],
            mode=FileDialogMode.EXISTING_DIRECTORY,
            tooltip=say("forms.batch-out-help"),
        )
        folder.choose_btn.text = say("forms.browse")
        super().__init__([self.movies, buttons], folder)

    def load(self, settings: Settings) -> None:
        """Show what is remembered, and a new folder."""
        self.flow.value = settings.flow
        self.folder.line_edit.value = str(new_batch(settings.sessions_folder))

    def add(self, movies: Sequence[Path | str]) -> None:
        """Write movies below those that are there."""
        self.movies.value = "\n".join(dict.fromkeys([*self.words(), *map(str, movies)]))

    def words(self) -> list[str]:
        """Return the movies, patterns and lists."""
        return [line.strip() for line in self.movies.value.splitlines() if line.strip()]

    def texts(self) -> dict[str, Any]:
        """Return all that is written in it, to be filled in again."""
        fields = self._fields()
        return {name: field.value for name, field in fields.items()} | {"record": self.record.texts()}

    def fill(self, texts: Mapping[str, Any]) -> None:
        """Write in what `texts` returned; what does not fit any more is left out."""
        for name, field in self._fields().items():
            with suppress(ValueError, TypeError):
                field.value = texts.get(name, field.value)
        self.record.write(texts.get("record") or {})

    def _fields(self) -> dict[str, Any]:
        of_movies = ("movies", "patient", "sample", "fps", "pixel_size_um", "rotate")
        names = (*of_movies, "flow", "background", "least_frames")
        return {name: getattr(self, name) for name in names} | self.set_flow

    def out(self) -> Path:
        """Return the batch's folder: an earlier one, or a new one, in a folder that is made if need be."""
        text = self.folder.line_edit.value.strip()
        if not text:
            raise BadInput("forms.batch-no-out")
        out = Path(text).expanduser().absolute()
        if out.is_dir() and not is_batch(out):
            out = new_batch(out)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror or error
            raise BadInput("forms.sessions-folder-unusable", folder=out.parent, why=why) from None
        return out


def is_batch(folder: Path) -> bool:
    """Say whether a batch was begun in a folder."""
    with suppress(BadInput, OSError):
        return folder.is_dir() and BatchFolder(str(folder)).begun
    return False


def new_batch(folder: Path) -> Path:
    """Return the path of a new batch in a folder, by the time of day."""
    return folder / f"batch-{time.strftime('%Y%m%d-%H%M%S')}"


class BatchJob:
    """Runs `analyze_many` in a thread; none of Qt's own objects, so that it outlives a widget's end.

    `rows` are those of the last look, by their keys in the order of the list, and `left_s` the seconds left.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.left_s = math.nan
        self.analysing = False
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether anything goes on; until `end` has been called after it."""
        return self._future is not None

    @property
    def stopping(self) -> bool:
        """Whether a person stopped it."""
        return self._stop.is_set()

    def start(
        self, words: Sequence[str], out: Path, settings: Mapping[str, Any], form: Mapping[str, Any]
    ) -> None:
        """Analyse these movies; `form` is kept beside the results."""
        self.rows, self.left_s, self.analysing = {}, math.nan, True
        self._submit(words, out, dict(settings), json.dumps(dict(form)).encode())

    def read(self, words: Sequence[str], out: Path, settings: Mapping[str, Any]) -> None:
        """Bring an earlier batch's table up to date, and tell which of these movies are not done yet."""
        self.analysing = False
        self._submit(words, out, dict(settings), b"")

    def _submit(self, *given: Any) -> None:
        self._stop = threading.Event()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-batch")
        self._future = self._pool.submit(self._run, *given)

    def _run(self, words: Sequence[str], out: Path, settings: dict[str, Any], form: bytes) -> None:
        kept = not form

        def look(rows: Sequence[Row], left_s: float) -> None:
            nonlocal kept
            self.rows = self.rows | {row["key"]: row for row in rows}
            self.left_s = left_s
            if not kept and (out / _FORM).parent.is_dir():
                kept = True
                with suppress(OSError):
                    replace_file(out / _FORM, form)

        if not form:
            self._stop.set()
            analyze_many([], out, look=look)
        if words:
            analyze_many(words, out, look=look, stop=self._stop, **settings)

    def stop(self) -> None:
        """End it soon; what was not finished is given up."""
        self._stop.set()

    def end(self) -> bool:
        """Say, once, whether it has ended; raises what went wrong."""
        if self._future is None or not self._future.done():
            return False
        future, self._future = self._future, None
        future.result()
        return True

    def close(self) -> None:
        """Stop, wait for the end, and leave no thread behind; a later `start` is fine."""
        self.stop()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._future = None


_HEADINGS = (
    say("forms.batch-movie"),
    FIELD_LABELS["patient"],
    say("forms.batch-state"),
    say("forms.batch-fraction"),
    say("forms.batch-verdict"),
    say("forms.batch-why"),
)
_PATIENT, _NUMBER = 1, 3
_SIGNS = {Verdict.RESULT: "✓", Verdict.PROVISIONAL: "◐", Verdict.NO_RESULT: "✗"}
_WIDEST = 190


class BatchTable(QTableWidget):
    """A row for each movie, in the order of the list."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADINGS), parent)
        self.rows: list[Row] = []
        self.setHorizontalHeaderLabels(_HEADINGS)
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setWordWrap(False)
        self.horizontalHeader().setMaximumSectionSize(_WIDEST)
        self.horizontalHeader().setStretchLastSection(True)

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Show these; only what is other than before is written anew."""
        before, self.rows = self.rows, list(rows)
        if before == self.rows:
            return
        self.setRowCount(len(self.rows))
        for at, row in enumerate(self.rows):
            if at >= len(before) or row != before[at]:
                for column, text in enumerate(_texts(row)):
                    self.setItem(at, column, _item(row, column, text))
        # Once: a header that follows each cell by itself takes minutes for thousands of rows.
        self.resizeColumnsToContents()
        self.setColumnHidden(_PATIENT, not any(row["patient"] for row in self.rows))

    @property
    def chosen(self) -> Row | None:
        """The row that is selected."""
        at = {index.row() for index in self.selectedIndexes()}
        return self.rows[at.pop()] if len(at) == 1 else None


def _item(row: Row, column: int, text: str) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setToolTip(str(row["movie"]) if column == 0 else text)
    if column == _NUMBER and row.get("verdict") != Verdict.RESULT:
        font = item.font()
        font.setItalic(True)
        item.setFont(font)
    return item


def _texts(row: Row) -> tuple[str, ...]:
    """Return the words of a row's cells; without a number where the verdict is that there is no result."""
    state = say(f"forms.batch-is-{row['status']}", percent=100 * row.get("share", 0.0))
    number = verdict = ""
    why = str(row["reason"] or "")
    if row["status"] == "finished":
        kind = Verdict(row["verdict"])
        verdict = f"{_SIGNS[kind]} {say(f'session.verdict-{kind}')}"
        name = "result" if kind is Verdict.RESULT else "fraction"
        ends = [row[column] for column in (name, f"{name}_low", f"{name}_high")]
        if kind is not Verdict.NO_RESULT and None not in ends:
            number = f"{percent(ends[0])} ({interval_words(*ends[1:])})"
        why = " ".join(filter(None, (str(row["verdict_reason"]), why)))
    return Path(str(row["movie"])).name, str(row["patient"]), state, number, verdict, in_form(why)


class BatchWidget(Dock):
    """The form, Analyse and Stop, and a table of movies that fills as they are finished.

    The work goes on in `pipeline.analyze_many`, in a thread and in processes of its own; a timer looks at
    what it says. `ended` is emitted when a batch has ended, was stopped or read.
    """

    ended = Signal()

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.form = BatchForm()
        self.folder: Path | None = None  # of the batch that is shown
        self.job = BatchJob()
        self._watched: object = None
        self._lay_out()
        self.form.load(load_settings())
        self._connect()
        self._show_state()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._report_errors(self._tick))
        job = self.job  # not through `self`, which is then half gone
        self.destroyed.connect(lambda: job.close())
        if (app := QApplication.instance()) is not None:
            app.aboutToQuit.connect(job.close)
        self._built = True

    def _lay_out(self) -> None:
        self.buttons = RunButtons(say("forms.batch-run"), say("forms.stop"))
        self._form_area = AsHigh(self.form.container.native)
        self.fold = Fold(say("forms.batch-form"), self._form_area)
        self.status, self.table = StatusLine(), BatchTable()
        self.why = wrapping_label("font-size: 14px; padding: 0px 4px;")
        self.open_button = QPushButton(say("forms.batch-open"))
        self.folder_button = QPushButton(say("forms.batch-open-folder"))
        row = QHBoxLayout()
        row.addWidget(self.open_button)
        row.addWidget(self.folder_button)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        for widget in (self.buttons, self.fold, self._form_area, self.message, self.status):
            outer.addWidget(widget)
        outer.addWidget(self.table, 1)
        outer.addWidget(self.why)
        outer.addLayout(row)
        self.form.container.native.show()
        set_text(self.why, "")

    def _connect(self) -> None:
        form, told = self.form, self._report_errors
        self.take_drops(Path.exists, self._take_dropped)
        self.buttons.start.clicked.connect(told(lambda *_: self.start()))
        self.buttons.stop.clicked.connect(told(lambda *_: self.stop()))
        form.files.changed.connect(told(lambda *_: self._choose_files()))
        form.of_folder.changed.connect(told(lambda *_: self._choose_folder()))
        form.list.changed.connect(told(lambda *_: self._choose_list()))
        form.movies.changed.connect(lambda *_: self.message.clear())
        form.folder.changed.connect(told(lambda *_: self._folder_changed()))
        self.table.itemSelectionChanged.connect(told(self._show_chosen))
        self.table.itemDoubleClicked.connect(told(lambda *_: self.open_chosen()))
        self.open_button.clicked.connect(told(lambda *_: self.open_chosen()))
        self.folder_button.clicked.connect(told(lambda *_: self._open_folder()))

    # ------------------------------------------------------------------ which movies

    def _choose_files(self) -> None:
        files, _ = QFileDialog.getOpenFileNames(self, say("forms.batch-files"), "", say("forms.movie-files"))
        self.form.add(files)

    def _choose_folder(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, say("forms.batch-folder")):
            self.form.add(movies_in(Path(folder)))

    def _choose_list(self) -> None:
        file, _ = QFileDialog.getOpenFileName(self, say("forms.batch-list"), "", say("forms.batch-lists"))
        self.form.add([file] if file else [])

    def _take_dropped(self, paths: list[Path]) -> None:
        """Open a batch that was dropped; else take the movies."""
        if self.job.busy:
            return
        batch = next(filter(is_batch, map(session_of, paths)), None)
        if batch is not None:
            self.open_batch(batch)
            return
        for path in paths:
            plain = path.is_dir() and path.suffix.lower() != ".zarr" and not (path / "run.json").is_file()
            self.form.add(movies_in(path) if plain else [path])
        self.fold.setChecked(True)

    # ------------------------------------------------------------------ go, stop, go on

    def start(self) -> None:
        """Analyse what is in the form; what is finished already in that folder is not done again."""
        self.message.clear()
        if busy():
            raise BadInput("forms.live-run-going")
        words, settings = self.form.words(), self._settings()
        if not words:
            raise BadInput("forms.batch-no-movies")
        out = self.form.out()
        self.folder = out
        self.form.folder.line_edit.value = str(out)
        self.table.show_rows([])
        self.job.start(words, out, settings, self.form.texts())
        self._leave_fields()
        self.fold.setChecked(False)
        self.status.say(say("forms.batch-beginning"))
        self._show_state()
        self._timer.start(_POLL_MS)

    def stop(self) -> None:
        """End what goes on; the same folder goes on with it later."""
        if self.job.busy and self.job.analysing:
            self.job.stop()
            self.status.say(say("forms.batch-stopping"))
            self.buttons.allow(start=False, stop=False)

    def open_batch(self, folder: Path) -> None:
        """Show an earlier batch as its sessions are now, with its form, ready to go on."""
        if self.job.busy:
            raise BadInput("forms.batch-is-busy")
        self.message.clear()
        self.folder = folder
        with suppress(OSError, ValueError):
            self.form.fill(read_json(folder / _FORM))
        self.form.folder.line_edit.value = str(folder)
        self.job.rows = {}
        self.table.show_rows([])
        self._read()

    def _read(self) -> None:
        """Read the sessions again: one may have been checked by eye."""
        if self.folder is not None and not self.job.busy and is_batch(self.folder):
            self.job.read(self.form.words(), self.folder, self._settings())
            self._show_state()
            self._timer.start(_POLL_MS)

    def _settings(self) -> dict[str, Any]:
        return {**self.form.numbers(), **self.form.settings(complete=False)}

    def _folder_changed(self) -> None:
        text = self.form.folder.line_edit.value.strip()
        folder = Path(text).expanduser() if text else None
        if folder is not None and folder != self.folder and not self.job.busy and is_batch(folder):
            self.open_batch(folder)

    def closing_stops(self) -> str:
        """Say that movies are being analysed."""
        return say("forms.close-batch") if self.job.busy and self.job.analysing else ""

    def shut_down(self) -> None:
        """Stop, and wait until what was under way is given up."""
        self._timer.stop()
        self.job.close()
        with suppress(RuntimeError):  # the buttons are gone with their window
            self.status.say("")
            self._show_state()

    def showEvent(self, event: QShowEvent) -> None:
        """Read the sessions again whenever this tab comes to the front."""
        super().showEvent(event)
        frame, _ = frame_of(self)
        if frame is not None and frame is not self._watched:
            self._watched = frame
            frame.visibilityChanged.connect(self._seen)

    def _seen(self, visible: bool) -> None:
        if visible and self.table.rows:
            self._report_errors(self._read)()

    # ------------------------------------------------------------------ what is shown

    def _tick(self) -> None:
        job = self.job
        try:
            ended = job.end()
        except BaseException:
            self._finish("")
            raise
        self.table.show_rows(list(job.rows.values()))
        self.folder_button.setEnabled(bool(job.rows))
        if ended:
            self._finish(self._ending())
        elif job.analysing and job.rows and not job.stopping:
            self._show_progress()

    def _show_progress(self) -> None:
        count, left_s = BatchCount.of(list(self.job.rows.values())), self.job.left_s
        words = say("forms.batch-going", done=count.done, of=count.movies)
        if math.isfinite(left_s):
            words = say("forms.batch-going-left", done=count.done, of=count.movies, time=time_words(left_s))
        if count.failed:
            words = say("forms.batch-going-failed", words=words, failed=count.failed)
        self.status.say(words, share=count.share)

    def _ending(self) -> str:
        finished, failed, movies, _ = count = BatchCount.of(list(self.job.rows.values()))
        if count.done < movies:
            return say("forms.batch-left-over", done=count.done, of=movies)
        return say("forms.batch-ended", finished=finished, movies=movies, failed=failed) if movies else ""

    def _finish(self, words: str) -> None:
        self._timer.stop()
        self.status.say(words, going=False)
        self._show_state()
        self.ended.emit()

    def _show_state(self) -> None:
        """Let only what can be done now be pressed."""
        going, analysing = self.job.busy, self.job.busy and self.job.analysing
        self.buttons.allow(start=not going, stop=analysing)
        self.form.container.enabled = not analysing
        self.folder_button.setEnabled(bool(self.table.rows))
        self._show_chosen()

    def _show_chosen(self) -> None:
        """Show in full what is said of the movie that is selected."""
        row = self.table.chosen
        self.open_button.setEnabled(row is not None and bool(row.get("session")))
        set_text(self.why, "" if row is None else breakable(": ".join(filter(None, _texts(row)[-2:]))))

    # ------------------------------------------------------------------ sessions

    def open_chosen(self) -> None:
        """Open the session of the selected movie, as File > Open does."""
        row = self.table.chosen
        if row is None or self.folder is None:
            return
        if not row.get("session"):
            raise BadInput("forms.batch-no-session", movie=Path(str(row["movie"])).name)
        self.message.clear()
        self._viewer.open(self.folder / str(row["session"]), plugin=PLUGIN)

    def _open_folder(self) -> None:
        if self.folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.folder)))
