"""The side that watches: starts the worker's process, gives orders, and keeps what it is told."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from napari_rbcflow.errors import BadInput
from napari_rbcflow.run.judged import REMEMBERED, JudgedCell
from napari_rbcflow.run.snapshot import Snapshot
from napari_rbcflow.sources.contract import SourceInfo
from napari_rbcflow.worker.messages import Began, Begin, Ended, Looked, Message, Ready, Refused, Stop
from napari_rbcflow.worker.orders import Order
from napari_rbcflow.worker.pipe import Pipe

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""That a worker told to end has for its session: three for the source, the rest for a slow disk."""
_LAST_WORDS = 20
"""Lines of the worker's standard error that are kept, to be logged if it dies."""


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
    order : Order
    phase : Phase
        `REFUSED`: it did not begin, and nothing was made. `ENDED`: the session is closed.
    info : SourceInfo or None
        Of the source, once it is open.
    sentence : str
        Why it was refused, or failed; else empty.
    snapshot : Snapshot or None
        The newest. Its `judged` and `counted` are only what that one brought: see `take`.
    outcome : (str, str)
        Status and stop reason as in ``run.json``; ``("running", "")`` until it has ended.
    remarks : tuple of str
        What else is to be said at the end.
    """

    def __init__(self, order: Order, worker: Worker) -> None:
        self.order = order
        self.phase = Phase.OPENING
        self.info: SourceInfo | None = None
        self.sentence = ""
        self.snapshot: Snapshot | None = None
        self.outcome = ("running", "")
        self.remarks: tuple[str, ...] = ()
        self._worker = worker
        self._judged: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._counted = bytearray()
        self._lock = threading.Lock()
        self._done = threading.Event()

    @property
    def folder(self) -> Path:
        """The session folder."""
        return self.order.folder

    @property
    def ended(self) -> bool:
        """Whether it has ended, or was refused."""
        return self._done.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended or was refused; return whether it has."""
        return self._done.wait(timeout_s)

    def stop(self) -> None:
        """End the run by a person's wish; returns at once."""
        self._worker._send(Stop())

    def take(self) -> tuple[tuple[JudgedCell, ...], bytes]:
        """Return the cells judged and those counted since this was asked last.

        Of the judged ones the last `REMEMBERED` at most; of the counted ones every single one, in
        order, 1 for tank-treading and 0 for flipping.
        """
        with self._lock:
            judged, counted = tuple(self._judged), bytes(self._counted)
            self._judged.clear()
            self._counted.clear()
        return judged, counted

    def _hear(self, message: Message) -> None:
        if isinstance(message, Looked):
            with self._lock:
                self._judged.extend(message.snapshot.judged)
                self._counted += message.snapshot.counted
            self.snapshot = message.snapshot
        elif isinstance(message, Began):
            self.info, self.phase = message.info, Phase.RUNNING
        elif isinstance(message, Refused):
            self.sentence = message.sentence
            self._end(Phase.REFUSED)
        elif isinstance(message, Ended):
            self.outcome, self.remarks = (message.status, message.reason), message.remarks
            if message.status == "failed":
                self.sentence = message.reason
            self._end(Phase.ENDED)

    def _lost(self, how: str) -> None:
        """The worker died in mid run: close what it left, as failed."""
        if self.phase is Phase.OPENING and not self.folder.exists():
            self.sentence = f"The acquisition's own process ended while it was starting ({how}): start again."
            self._end(Phase.REFUSED)
            return
        self.sentence = f"The acquisition's own process ended unexpectedly ({how})."
        self.outcome = ("failed", self.sentence)
        from napari_rbcflow.session.recovery import close_interrupted

        try:
            close_interrupted(self.folder, self.sentence)
        except Exception as error:
            log.error("%s could not be closed: %s", self.folder, error)
        self._end(Phase.ENDED)

    def _end(self, phase: Phase) -> None:
        self.phase = phase
        self._done.set()


class Worker:
    """A process that runs what it is told, one run at a time.

    Lifecycle: construct (launches the process, which loads the networks in the background) -> `start`
    as often as wished, each run after the end of the one before -> `close`. A process that died is
    replaced at the next `start`. Where `close` is forgotten, it happens when Python ends.
    """

    def __init__(self) -> None:
        self._run: WorkerRun | None = None
        self._closed = False
        self._launch()
        _open_workers.add(self)

    def _launch(self) -> None:
        # A Ctrl-C in the terminal is for us to hear, and to pass on.
        new_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            new_group = {
                "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.ABOVE_NORMAL_PRIORITY_CLASS
            }
        self.ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "napari_rbcflow.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            **new_group,
        )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._pipe = Pipe(process.stdout, process.stdin)  # type: ignore[arg-type]
        last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        hearing = threading.Thread(
            target=_drain, args=(process.stderr, last_words), name="rbcflow-worker-words", daemon=True
        )
        self._listener = threading.Thread(
            target=self._listen,
            args=(process, self._pipe, hearing, last_words),
            name="rbcflow-worker",
            daemon=True,
        )
        hearing.start()
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def start(self, order: Order) -> WorkerRun:
        """Begin a run; returns at once, before the source is open.

        Raises
        ------
        BadInput
            If another run goes on.
        """
        if self._closed:
            raise RuntimeError("the worker is closed")
        if self._run is not None and not self._run.ended:
            raise BadInput("A run is going on: stop it first.")
        if not self._listener.is_alive() or self._process.poll() is not None:
            self._listener.join()
            self._launch()
        self._run = run = WorkerRun(order, self)
        self._send(Begin(order))
        if not self._listener.is_alive() and not run.ended:
            run._lost("it was gone already")
        return run

    def _send(self, message: Message) -> None:
        self._pipe.send(message)

    def _listen(
        self, process: subprocess.Popen[bytes], pipe: Pipe, hearing: threading.Thread, last_words: deque[str]
    ) -> None:
        while (message := pipe.receive()) is not None:
            if isinstance(message, Ready):
                self.ready = True
            elif self._run is not None:
                self._run._hear(message)
        self.ready = False
        code = process.wait()
        hearing.join(1.0)
        run = self._run
        if run is not None and not run.ended:
            log.error("the worker ended (%s); its last words:\n%s", code, "\n".join(last_words))
            run._lost(f"signal {-code}" if code < 0 else f"exit code {code}")

    def close(self, timeout_s: float = PATIENCE_S) -> None:
        """Stop a run in progress, wait until its session is closed, and end the process.

        May be called more than once. A worker that does not end in time is killed; its session is
        then closed as failed, with what it had kept.
        """
        self._closed = True
        _open_workers.discard(self)
        self._pipe.close_outgoing()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.error("the worker does not end: it is killed")
            self._process.kill()
        self._listener.join(timeout_s)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _drain(stream: BinaryIO, last_words: deque[str]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            words = line.decode(errors="replace").rstrip()
            last_words.append(words)
            log.info("worker: %s", words)


_open_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for worker in list(_open_workers):
        worker.close()
