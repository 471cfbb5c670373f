"""What a worker of a Dask cluster does with one movie of a batch.

The movie is analysed in a process of its own beside the worker (`client.Worker`), which keeps the networks
loaded from one movie to the next. So a decoder that crashes, or a movie that needs too much memory, ends that
process: the worker goes on, and Dask blames no other movie.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed, sentence_of
from napari_rbcflow.pipeline.analysis import movie_session
from napari_rbcflow.pipeline.batch_folder import (
    FAILED,
    FINISHED,
    BatchFolder,
    Row,
    content_hash,
    fetch,
    fingerprint,
    local_path,
    results_of,
)
from napari_rbcflow.pipeline.batch_list import BatchMovie
from napari_rbcflow.pipeline.client import Phase, Worker, WorkerRun
from napari_rbcflow.pipeline.messages import MovieFile, RunRequest
from napari_rbcflow.sentences import say
from napari_rbcflow.session import Session, read_run, write_report_again, write_run
from napari_rbcflow.types import RunStatus

log = logging.getLogger(__name__)

CORES = 2  # of a movie: one reads and tracks, the other judges and writes
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "NUMBA_NUM_THREADS")
_LOOK_S = 0.1
TELL_S = 1.0
STALLED_S = 1800.0
"""Seconds without a new frame after which a movie is given up: a network disk may be slow, not that slow."""


class Processes(WorkerPlugin):  # type: ignore[misc]
    """Keeps a process for each thread of a Dask worker as long as a batch goes on."""

    idempotent = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._workers: dict[int, Worker] = {}
        self.closed = False

    def worker(self) -> Worker:
        """Return the process of the thread that asks."""
        thread = threading.get_ident()
        if thread not in self._workers:
            self._workers[thread] = Worker(env=dict.fromkeys(_THREADS, str(CORES)))
        return self._workers[thread]

    def teardown(self, worker: Any) -> None:
        """End the processes, in the middle of a movie too: what it had is thrown away."""
        self.closed = True
        for process in self._workers.values():
            process.close(at_once=True)


def analyze_one(
    movie: BatchMovie, root: str, name: str, earlier: Row | None, memory_bytes: int | None
) -> Row:
    """Analyse one movie, take its session in as `name`, and return its row, which is also written down.

    Parameters
    ----------
    movie : BatchMovie
    root : str
        The batch's folder.
    name : str
        Of the session's folder in it.
    earlier : dict, optional
        Its row of an earlier time.
    memory_bytes : int, optional
        Which its process may take; by default what Dask gives this worker.
    """
    folder = BatchFolder(root)
    processes: Processes = get_worker().plugins[plugin_name(folder)]
    row = movie.row(FAILED)
    session: Path | None = None
    _tell(processes.name, movie, 0.0)
    with folder.work() as work:
        try:
            before = fingerprint(movie.address)
            path = local_path(movie.address) or fetch(movie.address, work / "movie")
            row |= {"fingerprint": before, "movie_hash": content_hash(path)}
            done = folder.done(row["movie_hash"], row["settings_hash"])
            if done is not None and done["key"] == movie.key:
                row = done | {name: row[name] for name in ("fingerprint", "movie", "columns")}
                row |= folder.results(done["session"]) or {}
            else:
                row["reason"] = _again_words(row, earlier)
                session = work / "session" / name
                session.parent.mkdir()
                if done is not None:
                    folder.copy_session(done["session"], session)
                    row["reason"] = say("pipeline.batch-same", movie=done["movie"])
                else:
                    _run(movie, path, session, work, processes, memory_bytes)
                results = results_of(_named(session, movie))
                if fingerprint(movie.address) != before:
                    raise RunFailed("pipeline.batch-movie-changing", movie=movie.movie)
                row |= {"status": FINISHED, "session": name, **results}
        except Exception as error:
            if processes.closed:
                raise
            if not isinstance(error, (RbcflowError, OSError)):
                log.exception("%s", movie.movie)
            row |= movie.row(FAILED, _why(error, movie))
            if session is not None and (session / "run.json").is_file():
                row["session"] = name
            else:
                session = None
        folder.keep(row, session)
    return row


def plugin_name(folder: BatchFolder) -> str:
    """Return the name of a batch's processes: begun again, a batch ends those that a killed one left."""
    return f"rbcflow-{hashlib.sha256(folder.address.encode()).hexdigest()[:16]}"


def _tell(topic: str, movie: BatchMovie, share: float) -> None:
    """Tell whoever began the batch how much of a movie is done."""
    get_worker().log_event(topic, (movie.key, share))


def _why(error: Exception, movie: BatchMovie) -> str:
    if isinstance(error, FileNotFoundError):
        return say("sources.no-file", path=movie.movie)
    return " ".join(sentence_of(error).split())


def _again_words(row: Row, earlier: Row | None) -> str:
    """Say why a movie that was finished is done again."""
    if earlier is None or earlier["status"] != FINISHED:
        return ""
    if earlier["movie_hash"] != row["movie_hash"]:
        return say("pipeline.batch-again-movie", session=earlier["session"])
    if earlier["settings_hash"] != row["settings_hash"]:
        return say("pipeline.batch-again-settings", session=earlier["session"])
    return ""


def _run(
    movie: BatchMovie, path: Path, session: Path, work: Path, processes: Processes, memory_bytes: int | None
) -> None:
    settings = movie.settings
    if movie.calibration:
        file = work / "calibration.json"
        file.write_bytes(movie.calibration)
        settings = replace(settings, calibration=file)
    source = MovieFile(path, movie.fps, movie.pixel_size_um, movie.series)
    process = processes.worker()
    run = process.start(RunRequest(source, session, settings))
    _watch(run, process, memory_bytes or _share(), lambda share: _tell(processes.name, movie, share))
    status, reason = run.outcome
    if run.phase is Phase.REFUSED:
        raise BadInput.told(run.sentence, run.key)
    if status is RunStatus.STOPPED:
        raise RunFailed("pipeline.batch-stopped")
    if status is not RunStatus.FINISHED:
        raise RunFailed.told(reason)


def _share() -> int | None:
    """Return the bytes that Dask gives a thread of this worker."""
    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    return None if limit is None else limit // worker.state.nthreads


def _watch(run: WorkerRun, process: Worker, most_bytes: int | None, tell: Callable[[float], object]) -> None:
    """Wait for the end of a run; give it up where it takes too much memory, or does not go on."""
    at, since, told = -1, time.monotonic(), 0.0
    while not run.wait(_LOOK_S):
        processed = -1 if run.snapshot is None else run.snapshot.progress.processed
        if processed != at:
            at, since = processed, time.monotonic()
        if run.info is not None and run.info.n_frames and time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            tell(max(0, processed) / run.info.n_frames)
        taken = _memory_of(process.pid)
        if most_bytes is not None and taken > most_bytes:
            why = {"taken": taken / 1e9, "most": most_bytes / 1e9}
            run.give_up(say("pipeline.batch-memory", **why))
            run.wait()
            raise RunFailed("pipeline.batch-memory", **why)
        if time.monotonic() - since > STALLED_S:
            run.give_up(say("pipeline.batch-stalled", minutes=STALLED_S / 60))
            run.wait()
            raise RunFailed("pipeline.batch-stalled", minutes=STALLED_S / 60)


def _memory_of(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _named(folder: Path, movie: BatchMovie) -> Session:
    """Open the session of a movie; one that came out of a store is called by its address."""
    session = movie_session(folder, movie.movie, movie.settings.flow)
    if local_path(movie.address) is None:
        run = read_run(folder)
        run["parameters"]["source_details"]["file"] = movie.address
        write_run(folder, run)
        write_report_again(folder)
    return session
