"""Where the snapshots of a run become `napari_rbcflow.events`; nothing of the run waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_rbcflow import events
from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.pipeline.status import GOES_ON, Outcome, Progress, Snapshot
from napari_rbcflow.types import RunStatus, Verdict

if TYPE_CHECKING:
    from napari_rbcflow.session import FractionFigure

log = logging.getLogger(__name__)

LOOK_S = 0.05  # between two looks at a run
TOLD_S = 3.0  # seconds that whoever waits for the end of a run also waits for its subscribers


class Announcer:
    """Tells subscribers of one run, in a thread of its own that begins at once and ends with the run.

    `look` waits for `LOOK_S` at most, then says how the run stands, what ended it (`GOES_ON` before that) and
    whether its session is closed. As it is asked for again only when all subscribers have returned, a slow
    one finds more that is new the next time. `faults` are the sentences on subscribers that failed.
    """

    def __init__(self, folder: Path, look: Callable[[], tuple[Snapshot | None, Outcome, bool]]) -> None:
        self.faults: tuple[str, ...] = ()
        self._folder, self._look = folder, look
        self._frame: int | None = None
        self._figure: FractionFigure | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._tell, name="rbcflow-events", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until all was told, but not for ever for a subscriber that hangs."""
        if threading.current_thread() is not self._thread:
            self._thread.join(TOLD_S)

    def _tell(self) -> None:
        events.on_fault.set(self._fault)
        try:
            ended = False
            while not ended:
                snapshot, outcome, ended = self._look()
                self._tell_news(snapshot, outcome)
            self._tell_verdict(None if snapshot is None else snapshot.progress, outcome)
        except Exception:
            log.exception("the subscribers hear no more of this run")

    def _tell_news(self, snapshot: Snapshot | None, outcome: Outcome) -> None:
        if snapshot is not None and snapshot.newest is not None and snapshot.newest != self._frame:
            self._frame = snapshot.newest
            events.frame.emit(snapshot.newest, snapshot.newest_s, self._folder)
        if outcome != GOES_ON and not self._stopped:
            self._stopped = True  # before the tracks that were judged meanwhile: a pump may wait for it
            events.stop.emit(*outcome, self._folder)
        if snapshot is None:
            return
        for cell in snapshot.judged:
            events.track_judged.emit(cell, self._folder)
        figure = _figure(snapshot.progress)
        if figure is not None and figure != self._figure:
            self._figure = figure
            events.fraction_changed.emit(figure, self._folder)

    def _tell_verdict(self, progress: Progress | None, outcome: Outcome) -> None:
        if progress is not None and progress.status != RunStatus.RUNNING:
            verdict, reason = progress.verdict, progress.verdict_reason
        else:  # its process died, and its session was closed from outside
            verdict, reason = _verdict_in(self._folder, outcome.reason)
        events.verdict.emit(verdict, reason, self._folder)

    def _fault(self, sentence: str, error: BaseException) -> None:
        if sentence not in self.faults:
            self.faults = (*self.faults, sentence)
            log.error("%s", sentence, exc_info=error)


def _figure(progress: Progress) -> FractionFigure | None:
    # Imported late: who only watches a run needs no tables.
    from napari_rbcflow.session import FractionFigure

    if not progress.n:
        return None
    return FractionFigure(
        progress.estimate, *progress.interval, level=progress.level, method=progress.method, n=progress.n
    )


def _verdict_in(folder: Path, failure: str) -> tuple[Verdict, str]:
    from napari_rbcflow.session import read_run

    try:
        run = read_run(folder)
        return Verdict(run["verdict"]), str(run["verdict_reason"])
    except (RbcflowError, OSError, KeyError, ValueError):
        return Verdict.NO_RESULT, failure
