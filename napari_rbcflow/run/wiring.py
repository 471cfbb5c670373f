"""The one place that wires source, tracking, classification, estimate and session together.

`stages` says what each thread does. Whatever thread fails, the run ends as failed with what it had kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate.tally import RUN_FAILED, uncounted
from napari_rbcflow.run.memory import keep_freed_memory
from napari_rbcflow.run.pace import Pace
from napari_rbcflow.run.progress import Progress
from napari_rbcflow.run.quality_looks import QualityLooks
from napari_rbcflow.run.settings import RunSettings
from napari_rbcflow.run.stages import Stages
from napari_rbcflow.run.standing import GOES_ON, Standing
from napari_rbcflow.session.schema import Account
from napari_rbcflow.session.writer import SessionWriter
from napari_rbcflow.sources.base import FrameSource, RecordedSource
from napari_rbcflow.tracking.background import MovieBackground, SlidingBackground
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.tracking.tracker import Tracker, warm_up
from napari_rbcflow.types import SourceInfo

log = logging.getLogger(__name__)

MOVIE_BACKGROUND_FRAMES = 100
"""Frames whose median is the background of a movie, as in Darrin et al. 2023."""
PATIENCE_S = 3.0
"""That an ended run waits for its source, and a failed one for its threads."""
BROKEN_S = 1.5
"""That a source which broke may take to be closed."""
HUNG_S = 0.2
"""That a failed run waits for a source that did not answer before."""


class Run:
    """One acquisition or analysis, from source to session.

    Lifecycle: construct -> `start` (opens the source, makes the session folder, starts the threads)
    -> `stop` from any thread, if a person wishes -> `wait` (until the session is closed). After
    `start` returned, the session is closed and the source given back whatever happens.

    Parameters
    ----------
    source : FrameSource
        Not yet open. The run opens and closes it.
    folder : Path
        The session folder; must not exist.
    settings : RunSettings
    two_stage : TwoStage, optional
        Networks already loaded, to start faster.

    Raises
    ------
    BadInput
        From `start`, with nothing left behind.
    """

    def __init__(
        self, source: FrameSource, folder: Path, settings: RunSettings, two_stage: TwoStage | None = None
    ) -> None:
        self.source = source
        self.folder = Path(folder)
        self.settings = settings
        self.info: SourceInfo
        self.stages: Stages
        self._two_stage = two_stage
        self._done = threading.Event()
        self._pace = Pace()
        self._closing = threading.Thread()
        self._started = self._hung = False

    # ------------------------------------------------------------------ start

    def start(self) -> None:
        """Open everything and set the threads going."""
        if self.folder.exists():
            raise BadInput(
                f"{self.folder} exists already: choose a folder that does not, or move that one away"
            )
        try:
            self._prepare()
        except RunFailed as error:
            # Nothing was made yet: what breaks now is what was given.
            self.source.close()
            raise BadInput(str(error)) from error
        except BaseException:
            self.source.close()
            raise
        for thread in self._threads:
            thread.start()
        self._supervisor = threading.Thread(target=self._supervise, name="rbcflow-run", daemon=True)
        self._supervisor.start()
        self._started = True

    def _prepare(self) -> None:
        """Open, load and compile; the folder comes last, when nothing can go wrong any more."""
        keep_freed_memory()
        self.settings.stop.prepare()
        self.info = self.source.open()
        self._tracker = self._make_tracker()
        warm_up(self.info.pixel_size_um)
        if self._two_stage is None:
            self._two_stage = TwoStage.load(device=self.settings.device)
            self._two_stage.warm_up()
        self._models = self._two_stage.models
        self._device = self._two_stage.device
        self._writer = SessionWriter.create(
            self.folder,
            source=self.info,
            parameters=self.settings.record(device=self._device),
            models=self._models,
            patient=self.settings.patient,
            sample=self.settings.sample,
            ring_frames=self.settings.ring_frames(self.info),
        )
        stages = Stages(self.source, self.info, self._tracker, self._two_stage, self._writer, self.settings)
        works = {
            "source": stages.receive,
            "tracking": stages.track,
            "judging": stages.judge,
            "keeping": stages.keep_tracks,
            "ring": stages.keep_frames,
        }
        self.stages = stages
        self._quality = QualityLooks(stages, self._tracker)
        self._standing = Standing(
            stages,
            self._tracker,
            self._quality,
            source=self.source,
            info=self.info,
            models=self._models,
            survived=lambda: self.survived,
            room=self._writer.room,
        )
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"rbcflow-{name}", daemon=True)
            for name, work in works.items()
        ]

    def _make_tracker(self) -> Tracker:
        background: MovieBackground | SlidingBackground
        if self.settings.background == "movie":
            if not isinstance(self.source, RecordedSource) or self.info.live:
                raise BadInput(
                    "a background over the whole movie needs a recorded movie: "
                    "take the sliding background for a camera"
                )
            background = MovieBackground(self.source.sample(MOVIE_BACKGROUND_FRAMES))
        else:
            background = SlidingBackground(self.info.height, self.info.width, fps=self.info.fps)
        return Tracker(
            self.info.height,
            self.info.width,
            fps=self.info.fps,
            pixel_size_um=self.info.pixel_size_um,
            background=background,
            settings=TrackingSettings(direction=self.settings.flow),
        )

    # ------------------------------------------------------------------- ends

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.stages.fail(error)

    def stop(self) -> None:
        """End the run by a person's wish: what came is still judged, open tracks are not counted."""
        self.stages.outcome.end("stopped", "user")
        self.source.stop()

    def _supervise(self) -> None:
        self._pace = Pace()
        beat = heard = time.monotonic()
        received = 0
        ended: float | None = None
        while any(t.is_alive() for t in self._threads):
            for thread in self._threads:
                thread.join(0.05)
            self._pace.look(self.stages.n_received)
            tally = self.stages.tally
            self._pace.count(tally.fraction.n, tally.finished, self.stages.seconds)
            if time.monotonic() - beat >= 1.0 and not self.stages.outcome.failed:
                beat = time.monotonic()
                try:
                    account = self.account()
                    self._quality.look(account)
                    self._say_device()
                    self._writer.heartbeat(account)
                except Exception as error:
                    self.stages.fail(error)
            if received != self.stages.n_received:
                received, heard = self.stages.n_received, time.monotonic()
            if self.outcome[0] == "running" and self._hangs(time.monotonic() - heard):
                self.stages.fail(self._unanswered())
            if self.outcome[0] != "running" and self._threads[0].is_alive():
                ended = ended or time.monotonic()
                if time.monotonic() - ended > PATIENCE_S:
                    self.stages.fail(self._unanswered())
            if self.stages.outcome.failed:
                deadline = time.monotonic() + PATIENCE_S
                for thread in self._threads[1:]:
                    thread.join(max(0.0, deadline - time.monotonic()))
                # A source that hangs holds up nothing.
                self._threads[0].join(HUNG_S)
                break
        self._pace.end(self.stages.n_received)
        try:
            self._close()
        except Exception as error:
            self.stages.fail(error)
        finally:
            self._done.set()

    def _hangs(self, silent_s: float) -> bool:
        """Whether a call into a driver does not return: nobody but us could say so."""
        longest_s = self.source.silence_s
        return longest_s is not None and silent_s > longest_s and self._threads[0].is_alive()

    def _close(self) -> None:
        """Give the source back, keep what is left, and close the session."""
        self._close_source()
        left = self.stages.unjudged()
        try:
            self.stages.keep(left, [uncounted(t, RUN_FAILED) for t in left])
        except Exception as error:
            log.error("%d tracks could not be kept: %s", len(left), error)
        self.stages.tally.finish()
        self._find_lost_frames()
        self._say_device()
        status, reason = self.outcome
        self._writer.close(
            self.account(whole=True),
            status,
            reason,
            self._standing.stop_sentence(self.outcome),
            self.stages.tally.changed(),
        )

    def _close_source(self) -> None:
        """Close the source, but do not wait for ever for a driver that hangs."""

        def close() -> None:
            try:
                self.source.close()
            except Exception as error:
                self.stages.fail(error)

        self._closing = threading.Thread(target=close, name="rbcflow-close", daemon=True)
        self._closing.start()
        patience_s = BROKEN_S if self.outcome[0] == "failed" else PATIENCE_S
        self._closing.join(HUNG_S if self._hung or self._threads[0].is_alive() else patience_s)
        if self._closing.is_alive():
            self.stages.fail(self._unanswered())

    def _unanswered(self) -> RunFailed:
        self._hung = True
        return RunFailed(f"{self.info.name} does not answer: switch the camera off and on, and start again")

    def _find_lost_frames(self) -> None:
        """Count what a fault left unprocessed; without one, a frame that nobody counted is itself a fault."""
        lost = self.stages.n_received - self._tracker.processed - sum(self.stages.dropped.values())
        if lost and not self.stages.outcome.failed:
            self.stages.fail(
                RunFailed(f"{lost} frames are not accounted for: please report this with run.log")
            )
        if lost:
            self.stages.dropped[RUN_FAILED] += lost

    def _say_device(self) -> None:
        """Put on record where cells are judged, once that changed."""
        assert self._two_stage is not None
        if self._two_stage.device != self._device:
            self._writer.set_parameter("device", f"{self._device}, then {self._two_stage.device}")

    # ------------------------------------------------------------------ views

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the session is closed; return whether it is."""
        return self._done.wait(timeout_s)

    @property
    def started(self) -> bool:
        """Whether `start` came to its end, so that there is a session."""
        return self._started

    @property
    def hung(self) -> bool:
        """Whether, after the end, a thread still waits for a source that does not answer."""
        return any(thread.is_alive() for thread in (*self._threads, self._closing))

    @property
    def survived(self) -> tuple[str, ...]:
        """What broke and did not end the run, in plain sentences."""
        fault = self._two_stage.fault if self._two_stage is not None else ""
        return (fault,) if fault else ()

    @property
    def outcome(self) -> tuple[str, str]:
        """Status and stop reason as in ``run.json``: ``("running", "")`` until something ended the run."""
        return self.stages.outcome.said

    @property
    def warnings(self) -> list[str]:
        """What a person must be told, in plain sentences."""
        fault = self._writer.report_fault
        return [*self.account().warnings, *([fault] if fault else [])]

    def progress(self) -> Progress:
        """Return how the run stands, from any thread."""
        ended = self._done.is_set()
        return self._standing.progress(self.outcome if ended else GOES_ON, self._pace)

    def account(self, *, whole: bool = False) -> Account:
        """Return the counts of ``run.json``: of a run that goes on, or of the `whole` that has ended."""
        return self._standing.account(self.outcome if whole else GOES_ON)
