"""The process that runs: ``python -m napari_rbcflow.pipeline.worker``."""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import queue
import signal
import sys
import threading
from typing import Any

from napari_rbcflow.errors import RbcflowError, sentence_of
from napari_rbcflow.ipc import Pipe, parent
from napari_rbcflow.pipeline.messages import (
    Began,
    Begin,
    Ended,
    Polled,
    Ready,
    Refused,
    RunRequest,
    Step,
    Stop,
)
from napari_rbcflow.pipeline.stages import keep_freed_memory
from napari_rbcflow.sentences import say
from napari_rbcflow.types import RunStatus

log = logging.getLogger(__name__)

_POLL_S = 0.025
_HEAVY = (
    "napari_rbcflow.classification.two_stage",
    "napari_rbcflow.pipeline.run",
    "napari_rbcflow.simulation",
    "napari_rbcflow.sources.movie",
    "napari_rbcflow.sources.factory",
)
"""Imported before anything else happens."""
_AT_THE_END = ("pandas", "jinja2", "scipy.stats")
"""What the end of a run needs and its start does not; imported once there is time."""


class Serving:
    """Carries out requests, one at a time, until the other end of the pipe is gone.

    Whatever happens to the other end, a run that has begun is ended as if a person had stopped it, and its
    session is closed.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._requests: queue.Queue[RunRequest | None] = queue.Queue()
        self._stop = threading.Event()
        self._networks: dict[str, Any] = {}
        self._working = False

    def serve(self) -> None:
        """Return when the other end is gone and the last session is closed."""
        self._two_stage("auto")
        threading.Thread(target=self._listen, name="rbcflow-requests", daemon=True).start()
        # A run that is asked for meanwhile opens its source beside.
        threading.Thread(target=self._load, name="rbcflow-ready", daemon=True).start()
        while (request := self._requests.get()) is not None:
            self._working = True
            try:
                self._work(request)
            except RbcflowError as error:
                self._pipe.send(Refused(str(error), error.key))
            except Exception as error:
                log.exception("the run could not begin")
                self._pipe.send(Refused(say("pipeline.did-not-begin", why=sentence_of(error))))
            self._working = False
            _give_back_memory()
            self._pipe.send(Ready())

    def end(self) -> None:
        """End the run, if there is one, and then the process."""
        self._requests.put(None)
        self._stop.set()

    def _listen(self) -> None:
        while (message := self._pipe.receive()) is not None:
            if isinstance(message, Begin):
                # Before the request is in the queue: a stop that follows is meant for it.
                self._stop.clear()
                self._requests.put(message.request)
            elif isinstance(message, Stop):
                self._stop.set()
        self.end()

    def _load(self) -> None:
        """Load and compile what the first run would wait for; a fault shows again in the run."""
        from napari_rbcflow.tracking import warm_up

        try:
            self._tell(say("pipeline.step-networks"))
            self._two_stage("auto").result()
            self._tell(say("pipeline.step-tracker"))
            warm_up()
        except Exception as error:
            log.error("not ready: %s", sentence_of(error))
        if not self._working:
            self._pipe.send(Ready())
            for later in _AT_THE_END:
                importlib.import_module(later)

    def _tell(self, step: str) -> None:
        """Say what is done before a run is asked for; a run says its own steps."""
        if not self._working:
            self._pipe.send(Step(step))

    def _two_stage(self, device: str) -> Any:
        from napari_rbcflow.pipeline.run import LoadedBeside

        if device not in self._networks or self._networks[device].failed:
            self._networks[device] = LoadedBeside(device)
        return self._networks[device]

    def _work(self, request: RunRequest) -> None:
        from napari_rbcflow.pipeline.run import Run, Watcher

        source = request.source.make()
        run = Run(source, request.folder, request.settings, self._two_stage(request.settings.device))
        run.start(lambda step: self._pipe.send(Step(step)))
        watcher = Watcher(run)
        self._pipe.send(Began(run.info))
        try:
            while not run.wait(_POLL_S):
                if self._stop.is_set() and run.outcome[0] is RunStatus.RUNNING:
                    run.stop()
                self._pipe.send(Polled(watcher.poll()))
            self._pipe.send(Polled(watcher.poll()))
            remarks = source.remarks
        except Exception as error:
            # A run that nobody is told of must not go on.
            log.exception("the run cannot be watched")
            run.stages.fail(error)
            run.wait()
            remarks = ()
        why = ""
        if run.hung:  # its camera would be in use for ever
            why = "a thread of the run that ended still waits for its source"
        elif run.survived:  # a driver that broke stays broken in the process that it broke in
            why = "what broke may work again in another process"
        self._pipe.send(Ended(run.outcome, remarks, leaving=bool(why)))
        if why:
            log.error("%s: this process ends, and the next run gets a new one", why)
            os._exit(1)


def _give_back_memory() -> None:
    """Give the system what a run has freed, which `keep_freed_memory` keeps until then.

    Of 1.1 GB after twenty short runs, little was in use: each run's peak stayed, and what the next one needed
    did not always fit into the gaps.
    """
    gc.collect()
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    pipe = parent()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    keep_freed_memory()
    # On Windows a library that is loaded while a thread waits for the pipe may wait with it.
    for heavy in _HEAVY:
        importlib.import_module(heavy)
    serving = Serving(pipe)
    signal.signal(signal.SIGTERM, lambda *_: serving.end())
    serving.serve()


if __name__ == "__main__":
    main()
