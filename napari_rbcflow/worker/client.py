"""The side that watches: starts the worker's process, gives orders, and keeps what it is told."""

from __future__ import annotations

import atexit
import contextlib
import logging
import subprocess
import threading
import weakref
from collections import deque

from napari_rbcflow.errors import BadInput
from napari_rbcflow.ipc import drain, launch
from napari_rbcflow.worker.messages import Begin, Ended, Message, Ready
from napari_rbcflow.worker.orders import Order
from napari_rbcflow.worker.pipe import Pipe
from napari_rbcflow.worker.worker_run import OPENING_PATIENCE_S, PATIENCE_S, WorkerRun

log = logging.getLogger(__name__)

_LAST_WORDS = 20
"""Lines of the worker's standard error that are kept, to be logged if it dies."""


class Worker:
    """A process that runs what it is told, one run at a time.

    Lifecycle: construct (launches the process, which loads the networks in the background) -> `start`
    as often as wished, each run after the end of the one before -> `close`. A process that died is
    replaced, at once where a run went with it, so that the next `start` finds the networks loaded. Where
    `close` is forgotten, it happens when Python ends.
    """

    def __init__(self) -> None:
        self._run: WorkerRun | None = None
        self._closed = False
        self._launching = threading.Lock()
        self._launch()
        _open_workers.add(self)

    def _launch(self) -> None:
        self.ready = self._leaving = False
        self._process = launch("napari_rbcflow.worker")
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._pipe = Pipe(process.stdout, process.stdin)  # type: ignore[arg-type]
        last_words: deque[str] = deque(maxlen=_LAST_WORDS)

        def hear(words: str) -> None:
            last_words.append(words)
            log.info("worker: %s", words)

        hearing = threading.Thread(
            target=drain, args=(process.stderr, hear), name="rbcflow-worker-words", daemon=True
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

    @property
    def running(self) -> bool:
        """Whether a run goes on in it."""
        return self._run is not None and not self._run.ended

    def start(self, order: Order) -> WorkerRun:
        """Begin a run; returns at once, before the source is open.

        Raises
        ------
        BadInput
            If another run goes on.
        """
        if self._closed:
            raise RuntimeError("the worker is closed")
        if self.running:
            raise BadInput("A run is going on: stop it first.")
        with self._launching:  # another may be on its way
            before = self._listener
        if self._leaving or not before.is_alive() or self._process.poll() is not None:
            before.join()
            with self._launching:
                if self._listener is before:
                    self._launch()
        self._run = run = WorkerRun(order, self._send, self._process.kill)
        try:
            self._send(Begin(order))
        except Exception:
            self._run = None
            raise
        if not self._listener.is_alive() and not run.ended:
            run.lost("it was gone already")
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
                if isinstance(message, Ended) and message.leaving:
                    self._leaving = True
                self._run.hear(message)
        self.ready = False
        code = process.wait()
        hearing.join(1.0)
        run = self._run
        if run is not None and not run.ended:
            log.error("the worker ended (%s); its last words:\n%s", code, "\n".join(last_words))
            run.lost(f"signal {-code}" if code < 0 else f"exit code {code}")
        elif not self._leaving:
            return
        # Only after a run: a process that dies by itself would be launched again and again.
        with self._launching, contextlib.suppress(OSError, RuntimeError):
            if not self._closed:
                self._launch()

    def close(self) -> None:
        """Stop a run in progress, wait until its session is closed, and end the process.

        May be called more than once. How long a worker may take, and what becomes of a run that does not
        end in that time, is told by `WorkerRun.stop`.
        """
        with self._launching:
            self._closed = True
        _open_workers.discard(self)
        run = self._run
        if run is not None and not run.ended:
            # Said aloud: a copy of the pipe in a process that somebody forked here keeps it from ending.
            run.stop()
            self._pipe.close_outgoing()
            if not run.wait(OPENING_PATIENCE_S + run.patience_s):
                run.give_up("it did not end when it was told to")
        self._pipe.close_outgoing()
        self._process.kill()  # it has nothing left to lose
        self._listener.join(PATIENCE_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def busy() -> bool:
    """Whether a run goes on in any worker of this program."""
    return any(worker.running for worker in list(_open_workers))


_open_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for worker in list(_open_workers):
        worker.close()
