"""The side that watches: starts the worker's process, requests runs, and keeps what it is told of them."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from napari_rbcflow import events
from napari_rbcflow.errors import BadInput
from napari_rbcflow.ipc import Child
from napari_rbcflow.pipeline.announcer import LOOK_S, Announcer
from napari_rbcflow.pipeline.messages import (
    Began,
    Begin,
    Ended,
    Message,
    MovieFile,
    Polled,
    Ready,
    Refused,
    RunRequest,
    Step,
    Stop,
)
from napari_rbcflow.pipeline.status import GOES_ON, REMEMBERED, JudgedCell, Outcome, Snapshot
from napari_rbcflow.sentences import say
from napari_rbcflow.types import RunStatus, SourceInfo

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""Seconds to wait for a worker to close its session: three for the source, the rest for a slow disk."""
PATIENCE_PER_S = 0.01  # more of them for each second that the run took: a longer table takes longer to sort
MOST_PATIENCE_S = 300.0
"""Seconds for one that computes meanwhile: a computer with much else to do is slow, not broken."""
LEAST_WORK = 0.02  # share of a core that such a worker takes at least; one whose driver hangs takes none
OPENING_PATIENCE_S = 8.0  # seconds to wait for a camera that is being opened, once a person pressed Stop


class Phase(StrEnum):
    """How far a run has come."""

    OPENING = "opening"
    RUNNING = "running"
    ENDED = "ended"
    REFUSED = "refused"


class WorkerRun:
    """One run in a worker, as it is known on this side. Ask it from a timer; it never calls back.

    Attributes
    ----------
    request : RunRequest
    phase : Phase
        `REFUSED`: it did not begin, and nothing was created. `ENDED`: the session is closed.
    info : SourceInfo or None
        Of the source, once it is open.
    sentence, key : str
        Why it was refused, or failed, for a person and for a program; else empty.
    snapshot : Snapshot or None
        The newest. Its `judged` and `counted` hold only what is new in it: see `take`.
    outcome : Outcome
        `GOES_ON` until it has ended.
    remarks : tuple of str
        Sentences to show with the result.
    """

    def __init__(self, request: RunRequest, child: Child) -> None:
        self.request = request
        self._child = child
        self.phase = Phase.OPENING
        self.info: SourceInfo | None = None
        self.sentence = self.key = ""
        self.snapshot: Snapshot | None = None
        self.outcome = GOES_ON
        self.remarks: tuple[str, ...] = ()
        self._judged: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._counted = bytearray()
        self._to_announce: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._announcer: Announcer | None = None
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._waiting: threading.Thread | None = None
        self._why_killed = ""

    @property
    def folder(self) -> Path:
        return self.request.folder

    @property
    def ended(self) -> bool:
        """Whether it has ended, or was refused."""
        return self._done.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended, and subscribers know, or was refused; return whether it has."""
        if not self._done.wait(timeout_s):
            return False
        if self._announcer is not None:
            self._announcer.wait()
        return True

    def stop(self) -> None:
        """End the run by a person's wish; return at once.

        A worker that neither opens the source nor ends in time is killed. The run is then refused, or failed
        with what it had saved.
        """
        self._child.pipe.send(Stop())
        if self._waiting is None and not self.ended:
            self._waiting = threading.Thread(target=self.wait_to_end, name="rbcflow-patience", daemon=True)
            # As Python ends, 3.12 starts no more threads; `Worker.close` then waits by itself.
            with contextlib.suppress(RuntimeError):
                self._waiting.start()

    def wait_to_end(self) -> None:
        """Wait as long as `stop` says, then give up."""
        waited_s = 0.0
        while not self.ended:
            phase, computed_s = self.phase, self._child.computed_s()
            patience_s = OPENING_PATIENCE_S if phase is Phase.OPENING else self.patience_s
            if self._done.wait(patience_s):
                return
            waited_s += patience_s
            works = self._child.computed_s() - computed_s >= LEAST_WORK * patience_s
            if phase is not self.phase:
                waited_s = 0.0  # it did open, and has a session to close now
            elif not works or waited_s >= MOST_PATIENCE_S:
                opening = phase is Phase.OPENING
                self.give_up(
                    say("pipeline.source-silent-at-open" if opening else "pipeline.worker-did-not-end")
                )
                return

    @property
    def patience_s(self) -> float:
        """Seconds that its worker may take to end it."""
        seconds = self.snapshot.progress.seconds if self.snapshot is not None else 0.0
        return PATIENCE_S + PATIENCE_PER_S * seconds

    @property
    def given_up(self) -> bool:
        """Whether its worker was killed on purpose."""
        return bool(self._why_killed)

    def give_up(self, why: str) -> None:
        """Kill the worker; `lost` follows."""
        self._why_killed = why
        self._child.process.kill()

    def take(self) -> tuple[tuple[JudgedCell, ...], bytes]:
        """Return the cells judged since the last call, `REMEMBERED` at most, and all those counted."""
        with self._lock:
            judged, counted = tuple(self._judged), bytes(self._counted)
            self._judged.clear()
            self._counted.clear()
        return judged, counted

    def hear(self, message: Message) -> None:
        """Take in a message; from the thread that listens to the worker."""
        if isinstance(message, Polled):
            snapshot = message.snapshot
            if self._announcer is None and events.subscribed():
                with contextlib.suppress(RuntimeError):  # as Python ends, 3.12 starts no more threads
                    self._announcer = Announcer(self.folder, self._look)
            elif self._announcer is not None and (faults := self._announcer.faults):
                snapshot = replace(snapshot, warnings=(*snapshot.warnings, *faults))
            with self._lock:
                self._judged.extend(snapshot.judged)
                self._counted += snapshot.counted
                if self._announcer is not None:
                    self._to_announce.extend(snapshot.judged)
                self.snapshot = snapshot
            self._news.set()
        elif isinstance(message, Began):
            self.info, self.phase = message.info, Phase.RUNNING
        elif isinstance(message, Refused):
            self.sentence, self.key = message.sentence, message.key
            self._end(Phase.REFUSED)
        elif isinstance(message, Ended):
            self.outcome, self.remarks = message.outcome, message.remarks
            if self._announcer is not None:
                self.remarks += self._announcer.faults
            if self.outcome.status is RunStatus.FAILED:
                self.sentence = self.outcome.reason
            self._end(Phase.ENDED)

    def _look(self) -> tuple[Snapshot | None, Outcome, bool]:
        """Wait for news, for those who subscribed to events; from their thread."""
        self._news.wait(LOOK_S)
        self._news.clear()
        ended = self.ended
        with self._lock:
            snapshot, judged = self.snapshot, tuple(self._to_announce)
            self._to_announce.clear()
        if snapshot is None:
            return None, self.outcome, ended
        return replace(snapshot, judged=judged), self.outcome if ended else snapshot.outcome, ended

    def lost(self, how: str) -> None:
        """Close what a worker that died left behind, as failed."""
        how = self._why_killed or how
        if self.phase is Phase.OPENING and not self.folder.exists():
            self.sentence = say("pipeline.did-not-begin", why=how)
            self._end(Phase.REFUSED)
            return
        self.sentence = say("pipeline.worker-lost", why=how)
        self.outcome = Outcome(RunStatus.FAILED, self.sentence)
        from napari_rbcflow.session import close_interrupted

        try:
            close_interrupted(self.folder, self.sentence)
        except Exception as error:
            log.error("%s could not be closed: %s", self.folder, error)
        self._end(Phase.ENDED)

    def _end(self, phase: Phase) -> None:
        self.phase = phase
        self._done.set()
        self._news.set()


def _launched(env: Mapping[str, str] | None = None) -> Child:
    return Child("napari_rbcflow.pipeline.worker", hear=lambda words: log.info("worker: %s", words), env=env)


_ahead: list[Child] = []


def launch_ahead() -> None:
    """Launch now the process that the next `Worker` takes, beside what its caller has to load before."""
    _ahead.append(_launched())


def end_ahead() -> None:
    """End a process that no `Worker` took."""
    while _ahead:
        child = _ahead.pop()
        child.process.kill()
        child.end(PATIENCE_S)


class Worker:
    """A process that runs what is requested, one run at a time.

    Lifecycle: construct (launches the process, which loads the networks in the background) -> `start` as
    often as wished, each run after the end of the one before -> `close`, which happens by itself when Python
    ends. A process that died is replaced; at once if a run died with it, so that the next finds the networks
    loaded. `step` says what it does before the first frame comes; empty when it is ready. `env` is set in the
    process, beside what is set here.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = env
        self._run: WorkerRun | None = None
        self._closed = False
        self._launching = threading.Lock()
        self._launch()
        _open_workers.add(self)

    def _launch(self) -> None:
        self.ready = self._leaving = False
        self.step = say("pipeline.step-program")  # what it does now, before the first frame comes
        self._child = _ahead.pop() if _ahead and self._env is None else _launched(self._env)
        self._listener = threading.Thread(
            target=self._listen, args=(self._child,), name="rbcflow-worker", daemon=True
        )
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._child.process.pid

    @property
    def running(self) -> bool:
        """Whether a run goes on in it."""
        return self._run is not None and not self._run.ended

    @property
    def analysing(self) -> bool:
        """Whether the run that goes on in it, or was the last, is of a recorded movie."""
        return self._run is not None and isinstance(self._run.request.source, MovieFile)

    @property
    def device(self) -> str:
        """What a run that goes on in it uses alone; empty where there is no such thing."""
        run = self._run
        return "" if run is None or run.ended else getattr(run.request.source, "device", "")

    def start(self, request: RunRequest) -> WorkerRun:
        """Begin a run; return at once, before the source is open.

        Raises
        ------
        BadInput
            If another run goes on, or a run in another worker uses the camera.
        """
        if self._closed:
            raise RuntimeError("the worker is closed")
        if self.running:
            raise BadInput("pipeline.run-goes-on")
        # Before it is opened: that would set the camera anew, or offer to end what looks like Live mode.
        device = getattr(request.source, "device", "")
        if device and device in {worker.device for worker in list(_open_workers)}:
            raise BadInput("sources.camera-in-use")
        with self._launching:  # another may be on its way
            before = self._listener
        if self._leaving or not before.is_alive() or self._child.process.poll() is not None:
            before.join()
            with self._launching:
                if self._listener is before:
                    self._launch()
        self._run = run = WorkerRun(request, self._child)
        try:
            self._child.pipe.send(Begin(request))
        except Exception:
            self._run = None
            raise
        if not self._listener.is_alive() and not run.ended:
            run.lost(say("pipeline.worker-gone"))
        return run

    def _listen(self, child: Child) -> None:
        while (message := child.pipe.receive()) is not None:
            if isinstance(message, Ready):
                self.ready, self.step = True, ""
            elif isinstance(message, Step):
                self.step = message.sentence
            elif self._run is not None:
                if isinstance(message, Ended) and message.leaving:
                    self._leaving = True
                self._run.hear(message)
        self.ready = False
        code = child.wait()
        run = self._run
        if run is not None and not run.ended:
            level = logging.INFO if run.given_up else logging.ERROR
            log.log(level, "the worker ended (%s); its last words:\n%s", code, "\n".join(child.last_words))
            if code < 0:
                run.lost(say("pipeline.worker-signal", signal=-code))
            else:
                run.lost(say("pipeline.worker-exit-code", code=code))
        elif not self._leaving:
            return
        # Only after a run: a process that dies by itself would be launched again and again.
        with self._launching, contextlib.suppress(OSError, RuntimeError):
            if not self._closed:
                self._launch()

    def close(self, *, at_once: bool = False) -> None:
        """Stop a run in progress, wait until its session is closed, and end the process.

        May be called more than once. `WorkerRun.stop` says how long a worker may take; `at_once` gives it no
        time.
        """
        with self._launching:
            self._closed = True
        _open_workers.discard(self)
        run, child = self._run, self._child
        if run is not None and not run.ended:
            # Say so: a copy of the pipe in a process that somebody forked here may keep it from ending.
            if at_once:
                run.give_up(say("pipeline.batch-stopped"))
            else:
                run.stop()
            child.pipe.close_outgoing()
            run.wait_to_end()
        child.pipe.close_outgoing()
        child.process.kill()  # its sessions are closed
        self._listener.join(PATIENCE_S)
        if run is not None:
            run.wait(0)  # subscribers may just be told of its end
        child.end(PATIENCE_S)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def busy(*, movies: bool = False) -> bool:
    """Whether a run goes on in any worker of this program; with `movies`, one of a recorded movie.

    A batch goes on between two of its movies too.
    """
    workers = [worker for worker in list(_open_workers) if worker.running]
    return bool(_batches) or (any(worker.analysing for worker in workers) if movies else bool(workers))


@contextlib.contextmanager
def batch_goes_on() -> Iterator[None]:
    """Say through `busy` that movies are being analysed, one after another, on this computer."""
    batch = object()
    _batches.add(batch)
    try:
        yield
    finally:
        _batches.discard(batch)


_batches: set[object] = set()
_open_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """Close every worker of this program."""
    for worker in list(_open_workers):
        worker.close()
