"""The analysis of one movie, step by step; none of Qt's own objects, so that it outlives a widget's end."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from napari_rbcflow.errors import BadInput, RbcflowError, sentence_of
from napari_rbcflow.pipeline import (
    MovieFile,
    Phase,
    RunRequest,
    RunSettings,
    Worker,
    WorkerRun,
    movie_session,
)
from napari_rbcflow.sentences import say
from napari_rbcflow.session import ChangeLog, FractionFigure, Session, open_session
from napari_rbcflow.sources import open_frames
from napari_rbcflow.trend import keep_control
from napari_rbcflow.widgets.layers import SessionLayers, movie_of, session_layers
from napari_rbcflow.widgets.movie_form import Cancelled, LayerFrames, copy_frames, file_of, new_copy_folder
from napari_rbcflow.widgets.run_form import FLOWS


class Stage(StrEnum):
    """What a job is doing."""

    IDLE = "idle"
    COPYING = "copying"
    RUNNING = "running"
    READING = "reading"


@dataclass(frozen=True, eq=False)
class MovieOrder:
    """What is to be analysed; no rate or pixel size leaves it to the file."""

    source: Path | LayerFrames
    folder: Path  # the session to make; must not exist
    settings: RunSettings
    fps: float | None = None
    pixel_size_um: float | None = None
    series: int | None = None

    @property
    def series_shown(self) -> int | None:
        """Which movie of the file is meant: what was chosen, or what the layer shows."""
        return self.series if isinstance(self.source, Path) else getattr(self.source.data, "series", None)


@dataclass(frozen=True, eq=False)
class MovieResult:
    """A session, read and made ready to be shown."""

    session: Session
    layers: SessionLayers
    # Where the axes of the person's own layer are, on which tracks and marks are drawn; None for a file.
    placed: dict[str, Any] | None
    figure_by_hand: FractionFigure | None

    def place_of(self, cell: int) -> tuple[int, float, float] | None:
        """Return frame, y and x (pixels) in the middle of a cell's track."""
        rows: pd.DataFrame = self.session.tracks[self.session.tracks["cell"] == cell]
        if rows.empty:
            return None
        row = rows.iloc[len(rows) // 2]
        return int(row["frame"]), float(row["y_px"]), float(row["x_px"])


class MovieJob:
    """Copies a layer where need be, runs the worker, reads the session.

    Lifecycle: `start` or `show`, then `poll` from the interface's thread until `stage` is `IDLE`, any
    number of times; `close` at last, after which the next `start` wakes it again. Nothing here touches
    a layer. `copied` counts the frames of a layer, so far and in all; `result` is the last job's, and where
    there is none, `sentence` says why.
    """

    def __init__(self, *, show_unreliable: bool = True) -> None:
        self.stage = Stage.IDLE
        self.order: MovieOrder | None = None
        self.run: WorkerRun | None = None
        self.copied = (0, 0)
        self.result: MovieResult | None = None
        self.sentence = ""
        self.show_unreliable = show_unreliable
        self._worker: Worker | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Any] | None = None
        self._copy_folder: Path | None = None
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether a person cancelled the last job."""
        return self._cancelled.is_set()

    @property
    def busy(self) -> bool:
        """Whether a job goes on."""
        return self.stage is not Stage.IDLE

    @property
    def step(self) -> str:
        """What the worker does before the first frame; empty when it is ready."""
        return "" if self._worker is None else self._worker.step

    def wake(self) -> None:
        """Launch the worker, which then loads the networks while a person still fills in the form."""
        if self._worker is None:
            self._worker = Worker()

    def start(self, order: MovieOrder) -> None:
        """Begin, unless another job goes on."""
        self._begin()
        self.order = order
        if isinstance(order.source, Path):
            self._run(order.source)
        else:
            self.stage = Stage.COPYING
            self._submit(self._file_or_copy, order.source)

    def show(self, folder: Path) -> None:
        """Read a session from the disk, without running anything."""
        session = open_session(folder)
        self._begin()
        self.order = self.run = None
        self.stage = Stage.READING
        self._submit(_read_session, session.folder, self.show_unreliable)

    def reread(self) -> None:
        """Read the session shown once more: a person has changed a label."""
        if self.stage is Stage.IDLE and self.result is not None:
            self.stage = Stage.READING
            self._submit(_reread, self.result, self.show_unreliable)

    def cancel(self) -> None:
        """Ask for the end; `poll` tells when it has come."""
        self._cancelled.set()
        if self.stage is Stage.RUNNING and self.run is not None:
            self.run.stop()

    def poll(self) -> None:
        """Go on to the next step where one has ended; from the interface's thread."""
        if self.stage is Stage.RUNNING and self.run is not None:
            if self.run.ended:
                self._run_ended(self.run)
        elif self._future is not None and self._future.done():
            future, self._future = self._future, None
            try:
                value = future.result()
                if self.stage is Stage.COPYING:
                    if self.cancelled:
                        raise Cancelled
                    self._run(value)
                    return
                self.result = value
                self._end("")
            except Cancelled:
                self._end(say("forms.cancelled"))
            except (RbcflowError, OSError) as error:
                self._end(sentence_of(error))
            except Exception:
                self._end(say("forms.movie-not-shown"))
                raise

    def close(self) -> None:
        """Stop what goes on, wait for its session, and leave no process, thread or copy behind."""
        self._cancelled.set()
        worker, self._worker = self._worker, None
        pool, self._pool = self._pool, None
        if worker is not None:
            worker.close()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._future = None
        self._drop_copy()
        self.stage = Stage.IDLE

    # ------------------------------------------------------------------ steps

    def _begin(self) -> None:
        if self.stage is not Stage.IDLE:
            raise BadInput("forms.analysis-going")
        self._cancelled = threading.Event()
        self.copied, self.result, self.sentence = (0, 0), None, ""

    def _submit(self, step: Any, *given: Any) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-movie")
        self._future = self._pool.submit(step, *given)

    def _file_or_copy(self, frames: LayerFrames) -> Path:
        path = file_of(frames)
        if path is not None:
            return path
        self._copy_folder = new_copy_folder()
        return copy_frames(frames, self._copy_folder, cancelled=self._cancelled, progress=self._copied)

    def _copied(self, done: int, n: int) -> None:
        self.copied = (done, n)

    def _run(self, path: Path) -> None:
        order = self.order
        assert order is not None
        self.wake()
        assert self._worker is not None
        source = MovieFile(path, fps=order.fps, pixel_size_um=order.pixel_size_um, series=order.series_shown)
        self.stage = Stage.RUNNING
        try:
            self.run = self._worker.start(RunRequest(source, order.folder, order.settings))
        except BaseException:
            self._end(say("forms.analysis-not-started"))
            raise

    def _run_ended(self, run: WorkerRun) -> None:
        self._drop_copy()
        status, _ = run.outcome
        if run.phase is Phase.REFUSED:
            self._end(say("forms.cancelled") if self.cancelled else run.sentence)
        elif status == "finished":
            order = self.order
            assert order is not None
            self.stage = Stage.READING
            self._submit(_read_result, order, self.show_unreliable)
        elif status == "failed":
            self._end(say("forms.failed-run", why=run.sentence, folder=run.folder))
        else:
            self._end(say("forms.cancelled-run", folder=run.folder))

    def _end(self, sentence: str) -> None:
        self.sentence = sentence
        self.stage = Stage.IDLE
        self._drop_copy()

    def _drop_copy(self) -> None:
        folder, self._copy_folder = self._copy_folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _read_result(order: MovieOrder, show_unreliable: bool) -> MovieResult:
    flow = next(words for words, flow in FLOWS if flow == order.settings.flow)
    movie_session(order.folder, order.source.name, flow)
    keep_control(order.folder)
    session = open_session(order.folder)
    if isinstance(order.source, Path):
        frames = open_frames(order.source, order.series)
        layers = session_layers(session, frames, show_unreliable=show_unreliable)
        return MovieResult(session, layers, None, None)
    layers = session_layers(session, show_unreliable=show_unreliable)
    return MovieResult(session, layers, order.source.placed, None)


def _read_session(folder: Path, show_unreliable: bool) -> MovieResult:
    session = open_session(folder)
    changed = ChangeLog(folder).labels()
    layers = session_layers(session, movie_of(session), by_hand=changed, show_unreliable=show_unreliable)
    return MovieResult(session, layers, None, session.fraction_by_hand)


def _reread(before: MovieResult, show_unreliable: bool) -> MovieResult:
    """Read a session again; the movie's frames are those that are open already."""
    session = open_session(before.session.folder)
    changed = ChangeLog(session.folder).labels()
    layers = session_layers(session, by_hand=changed, show_unreliable=show_unreliable)
    return replace(
        before,
        session=session,
        layers=replace(layers, image=before.layers.image),
        figure_by_hand=session.fraction_by_hand,
    )
