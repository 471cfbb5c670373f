"""One run in a worker, as it is known on the side that watches."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from napari_rbcflow.run.judged import REMEMBERED, JudgedCell
from napari_rbcflow.run.snapshot import Snapshot
from napari_rbcflow.types import SourceInfo
from napari_rbcflow.worker.messages import Began, Ended, Looked, Message, Refused, Stop
from napari_rbcflow.worker.orders import Order

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""That a worker told to end has for its session: three for the source, the rest for a slow disk."""
PATIENCE_PER_S = 0.01
"""More of it for each second that the run took: a longer table takes longer to be sorted."""
OPENING_PATIENCE_S = 8.0
"""That a camera which is being opened has to answer, once a person pressed Stop."""


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
    code : str
        Why it was refused, for a program (`errors.RbcflowError.code`).
    snapshot : Snapshot or None
        The newest. Its `judged` and `counted` are only what that one brought: see `take`.
    outcome : (str, str)
        Status and stop reason as in ``run.json``; ``("running", "")`` until it has ended.
    remarks : tuple of str
        What else is to be said at the end.
    """

    def __init__(self, order: Order, send: Callable[[Message], object], kill: Callable[[], None]) -> None:
        self.order = order
        self.phase = Phase.OPENING
        self.info: SourceInfo | None = None
        self.sentence = self.code = ""
        self.snapshot: Snapshot | None = None
        self.outcome = ("running", "")
        self.remarks: tuple[str, ...] = ()
        self._send, self._kill = send, kill
        self._judged: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._counted = bytearray()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._giving_up: threading.Timer | None = None
        self._why_killed = ""

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
        """End the run by a person's wish; returns at once.

        Who does not answer is not waited for for ever: a worker that neither opens nor ends in time is
        killed, and the run then refused, or failed with what it had kept.
        """
        self._send(Stop())
        if self._giving_up is None and not self.ended:
            self._wait_for(OPENING_PATIENCE_S if self.phase is Phase.OPENING else self.patience_s)

    @property
    def patience_s(self) -> float:
        """How long its worker may take to end it."""
        seconds = self.snapshot.progress.seconds if self.snapshot is not None else 0.0
        return PATIENCE_S + PATIENCE_PER_S * seconds

    def _wait_for(self, patience_s: float) -> None:
        self._giving_up = threading.Timer(patience_s, self._wait_no_more, (self.phase,))
        self._giving_up.daemon = True
        # As Python ends, 3.12 starts no more threads; `Worker.close` then waits by itself.
        with contextlib.suppress(RuntimeError):
            self._giving_up.start()

    def _wait_no_more(self, phase: Phase) -> None:
        if self.ended:
            return
        if self.phase is Phase.OPENING:
            self.give_up("the source did not answer while it was being opened; check the camera or the path")
        elif phase is Phase.OPENING:
            self._wait_for(self.patience_s)  # it did open, and has a session to be closed now
        else:
            self.give_up("it did not end when it was told to")

    def give_up(self, why: str) -> None:
        """Kill the worker; `lost` follows."""
        self._why_killed = why
        self._kill()

    def take(self) -> tuple[tuple[JudgedCell, ...], bytes]:
        """Return the cells judged and those counted since this was asked last.

        Of the judged ones the last `REMEMBERED` at most; of the counted ones every single one, in
        order, as in `Snapshot.counted`.
        """
        with self._lock:
            judged, counted = tuple(self._judged), bytes(self._counted)
            self._judged.clear()
            self._counted.clear()
        return judged, counted

    def hear(self, message: Message) -> None:
        """Take in what the worker says; from the thread that listens to it."""
        if isinstance(message, Looked):
            with self._lock:
                self._judged.extend(message.snapshot.judged)
                self._counted += message.snapshot.counted
            self.snapshot = message.snapshot
        elif isinstance(message, Began):
            self.info, self.phase = message.info, Phase.RUNNING
        elif isinstance(message, Refused):
            self.sentence, self.code = message.sentence, message.code
            self._end(Phase.REFUSED)
        elif isinstance(message, Ended):
            self.outcome, self.remarks = (message.status, message.reason), message.remarks
            if message.status == "failed":
                self.sentence = message.reason
            self._end(Phase.ENDED)

    def lost(self, how: str) -> None:
        """Take in that the worker died: close what it left, as failed."""
        how = self._why_killed or how
        if self.phase is Phase.OPENING and not self.folder.exists():
            self.sentence = f"The run did not begin ({how}): start again."
            self._end(Phase.REFUSED)
            return
        self.sentence = (
            f"The acquisition's own process ended before its session was closed ({how}): start again; what it"
            " had until then is kept."
        )
        self.outcome = ("failed", self.sentence)
        from napari_rbcflow.session.recovery import close_interrupted

        try:
            close_interrupted(self.folder, self.sentence)
        except Exception as error:
            log.error("%s could not be closed: %s", self.folder, error)
        self._end(Phase.ENDED)

    def _end(self, phase: Phase) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
        self.phase = phase
        self._done.set()
