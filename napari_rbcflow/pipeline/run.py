"""The one place that wires source, tracking, classification, estimate and session together."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from napari_rbcflow import events
from napari_rbcflow.classification import TwoStage
from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import (
    AFTER_STOP,
    RUN_FAILED,
    ReportedInterval,
    reported_interval,
    stop_sentence,
    stopping,
    uncounted,
)
from napari_rbcflow.pipeline.announcer import LOOK_S, Announcer
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.stages import Stages, keep_freed_memory
from napari_rbcflow.pipeline.status import (
    COUNTED_AGAIN,
    GOES_ON,
    Outcome,
    Pace,
    Progress,
    Snapshot,
)
from napari_rbcflow.quality import (
    LATE_LABELS_S,
    QualityLine,
    RunWarning,
    by_reason_in_words,
    quality_lines,
)
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    OPEN_END_S,
    Calibration,
    FractionFigure,
    RunSummary,
    SessionWriter,
    calibration_warning,
    corrected_figure,
    room_words,
)
from napari_rbcflow.sources import STORED_TWICE, FrameSource, RecordedSource, turned
from napari_rbcflow.tracking import (
    MovieBackground,
    SlidingBackground,
    Tracker,
    TrackingSettings,
    warm_up,
)
from napari_rbcflow.types import RunStatus, SourceInfo

_WARNED_EVERY_S = 0.25  # they need a whole account, which takes 2 ms


class Watcher:
    """Looks at a run that has started, again and again, from one thread; leaves out `judged_before` cells."""

    def __init__(self, run: Run, judged_before: int = 0) -> None:
        self._run = run
        self._judged_before = judged_before
        self._counted_before = self._recounts = 0
        self._warnings: tuple[str, ...] = ()
        self._warned_at = float("-inf")

    def poll(self) -> Snapshot:
        """Return how the run stands now, and what is new since the last poll."""
        stages = self._run.stages
        # Counted first: a cell counted in between is then told next time, never lost.
        counted, recounts = stages.tally.counted_since(self._counted_before, self._recounts)
        newest, at = stages.newest, stages.positions
        if recounts != self._recounts:
            self._counted_before, self._recounts = len(counted), recounts
            counted = COUNTED_AGAIN + counted
        else:
            self._counted_before += len(counted)
        self._judged_before, judged = stages.judged.since(self._judged_before)
        positions: dict[str, Any] = {} if at is None else {"cell": at.cell, "y_px": at.y_px, "x_px": at.x_px}
        return Snapshot(
            progress=self._run.progress(),
            frame=None if at is None or at.frame is None else at.frame.index,
            newest=None if newest is None else newest.index,
            newest_s=0.0 if newest is None else newest.time_s,
            judged=judged,
            counted=counted,
            warnings=self._warned(),
            outcome=self._run.outcome,
            **positions,
        )

    def _warned(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._warned_at > _WARNED_EVERY_S or self._run.outcome != GOES_ON:
            self._warnings, self._warned_at = tuple(self._run.warnings), now
        return self._warnings


RECENT_LABELS = 4096


class Reporter:
    """Says how a run stands: `Progress` for whoever watches it, `RunSummary` for ``run.json``.

    Both take the outcome, because the interval depends on it: `GOES_ON` until the session is being closed.
    """

    def __init__(self, stages: Stages, calibration: Calibration | None = None) -> None:
        self.stages, self.settings, self.info = stages, stages.settings, stages.info
        self._calibration = calibration
        self.pace = Pace()
        self._began = time.monotonic()
        self._closed: tuple[dict[str, object], list[RunWarning]] | None = None
        self._warned: tuple[RunWarning, ...] | None = None
        self._measures: tuple[QualityLine, ...] = ()

    def progress(self, outcome: Outcome) -> Progress:
        stages, tally = self.stages, self.stages.tally
        positions, processed = stages.positions, stages.tracker.processed
        ended = outcome != GOES_ON
        rules = stopping.to_go(
            self.settings.stop,
            tally.fraction,
            tracks=tally.finished,
            seconds=stages.seconds,
            rates=self.pace.rates(),
        )
        share, seconds_left = stopping.nearest(rules)
        if self.info.n_frames:
            of_movie = processed / self.info.n_frames
            share = max(share or 0.0, of_movie)
            left = (seconds_left, self.pace.seconds_left(of_movie))
            seconds_left = min((s for s in left if s is not None), default=None)
        interval = self._interval(outcome)
        conclusion = stages.writer.conclusion
        dropped = {why: n for why, n in dict(stages.dropped).items() if why != AFTER_STOP}
        missed = dict(stages.source.missed)
        return Progress(
            status=outcome.status,
            received=stages.n_received,
            processed=processed,
            dropped=sum(dropped.values()),
            missed=sum(missed.values()),
            seconds=stages.seconds,
            open_tracks=0 if ended or positions is None else len(positions.cell),
            cells=Counter(tally.cells),
            n=tally.fraction.n,
            estimate=tally.fraction.estimate,
            interval=interval.interval,
            level=tally.fraction.level,
            missing=stopping.missing(rules),
            total_frames=self.info.n_frames,
            frames_per_s=self.pace.frames_per_s,
            stop_share=share,
            seconds_left=None if ended else seconds_left,
            lag_s=stages.lag_s(),
            method=interval.method,
            rules=rules,
            stop_sentence=self.stop_sentence(outcome),
            warned=self._warned,
            quality=self._measures,
            room="" if ended else self._room_sentence(),
            dropped_by=dropped,
            missed_by=missed,
            labels_behind_s=stages.labels_behind_s(),
            verdict=conclusion.verdict,
            verdict_reason=conclusion.reason,
        )

    def account(self, outcome: Outcome) -> RunSummary:
        """Return the counts of ``run.json``; during the run, with the latencies of the last labels only."""
        stages, tally = self.stages, self.stages.tally
        ended = outcome != GOES_ON
        dropped, cells = dict(stages.dropped), dict(tally.cells)
        fraction = FractionFigure.saying(tally.fraction, self._interval(outcome))
        focus = tally.focus.as_dict()
        account = RunSummary.of(
            received=stages.n_received,
            processed=stages.tracker.processed,
            dropped=dropped,
            missed=dict(stages.source.missed),
            cells=cells,
            fraction=fraction,
            focus_speed={**focus, "set_aside": tally.set_aside},
            latencies_ms=stages.latencies_ms[0 if ended else -RECENT_LABELS :],
            warnings=self._sentences(ended, dropped),
        )
        account = self._with_calibration(self._with_quality(account, ended), outcome)
        if not ended:
            return account
        corrected = corrected_figure(stages.two_stage.models, cells, fraction, focus, account.calibration)
        return replace(account, fraction_corrected=corrected)

    def heartbeat(self) -> RunSummary:
        """Return the account of a run that goes on, and check its quality; from one thread."""
        account, stages = self.account(GOES_ON), self.stages
        positions, run = stages.positions, account.as_dict()
        self._warned = stages.quality.look(
            run,
            stages.tally.counted,
            seconds=stages.seconds,
            open_tracks=0 if positions is None else len(positions.cell),
        )
        self._measures = tuple(quality_lines(run, self._warned))
        return account

    def stop_sentence(self, outcome: Outcome) -> str:
        """Return what the rule that stopped the run found, if its name does not tell."""
        return stop_sentence(outcome.reason, self.settings.stop, self.stages.tally.fraction)

    def _interval(self, outcome: Outcome) -> ReportedInterval:
        fraction = self.stages.tally.fraction
        return reported_interval(fraction, self.settings.stop, *outcome, self.settings.interval)

    def _with_quality(self, account: RunSummary, ended: bool) -> RunSummary:
        stages = self.stages
        not_analysed = dict(stages.tracker.not_analysed)
        if ended and self._closed is None:
            self._closed = stages.quality.close(
                account.as_dict(), stages.tally.counted, not_analysed=not_analysed, seconds=stages.seconds
            )
            self._warned = tuple(self._closed[1])
        running = (
            {**stages.quality.figures(account.focus_speed), "not_analysed": not_analysed}
            if self._closed is None
            else {}
        )
        figures, warnings = self._closed or (running, [])
        account = replace(
            account,
            quality={**figures, "tracks_too_pale": stages.tracker.too_pale},
            warnings=(*account.warnings, *(w.sentence for w in warnings)),
        )
        if self._closed is not None:
            self._measures = tuple(quality_lines(account.as_dict(), warnings))
        return account

    def _with_calibration(self, account: RunSummary, outcome: Outcome) -> RunSummary:
        """Say whether the laboratory's calibration holds for this run."""
        if self._calibration is None:
            return account
        parameters = {**asdict(self.info), **self.settings.record(device="")}
        simulated = {"simulated": self.info.simulated, "status": outcome.status}
        record = self._calibration.record({**account.as_dict(), **simulated, "parameters": parameters})
        warning = calibration_warning(record)
        warnings = (*account.warnings, warning) if warning else account.warnings
        return replace(account, calibration=record, warnings=warnings)

    def _sentences(self, ended: bool, dropped: Mapping[str, int]) -> list[str]:
        """Return what a person must be told, beside the run's quality."""
        stages, behind_s = self.stages, self.stages.labels_behind_s()
        sentences = [stages.two_stage.fault]
        if not ended:
            sentences.append(self._room_sentence())
            if behind_s >= LATE_LABELS_S:
                sentences.append(say("pipeline.labels-late", seconds=behind_s))
        sentences += self.info.warnings
        missed = stages.source.missed
        if n := sum(missed.values()):
            sentences.append(say("pipeline.frames-missed", frames=n, reasons=by_reason_in_words(missed)))
        if n := missed.get(STORED_TWICE, 0):
            sentences.append(say("pipeline.frames-twice", frames=n))
        if n := dropped.get("queue-full", 0):
            sentences.append(say("pipeline.frames-dropped", frames=n))
        if stages.ring_skipped:
            sentences.append(say("pipeline.ring-skipped", frames=stages.ring_skipped))
        return [sentence for sentence in sentences if sentence]

    def _room_sentence(self) -> str:
        """Say how long the disk has room, if that is too short; else return nothing."""
        left_s = self.stages.writer.room.left_s
        if left_s is None:
            return ""
        stop, done = self.settings.stop, self.stages.tracker.processed
        needed_s = None if stop.seconds is None else stop.seconds - self.stages.seconds
        if self.info.n_frames and done:
            of_movie = (self.info.n_frames / done - 1) * (time.monotonic() - self._began)
            needed_s = of_movie if needed_s is None else min(needed_s, of_movie)
        sooner = (stop.reliable, stop.halfwidth, stop.tracks, stop.baseline) != (None,) * 4
        # If cells may end the run sooner, a far end is as good as an open one.
        far = sooner and needed_s is not None and needed_s > OPEN_END_S
        return room_words(left_s, None if far else needed_s)


log = logging.getLogger(__name__)

MOVIE_BACKGROUND_FRAMES = 100  # frames whose median is the background of a movie, as in Darrin et al. 2023
PATIENCE_S = 3.0  # seconds to wait for the source of an ended run, and for the threads of a failed one
BROKEN_S = 1.5  # seconds to wait for a broken source to close
HUNG_S = 0.2  # seconds to wait for a source that did not answer before


class LoadedBeside:
    """Loads the two networks in a thread of its own, while the source opens."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: TwoStage | None = None
        self._error: BaseException | None = None
        # Python waits for it as it ends: torch, in which a thread is ended, ends the process.
        self._thread = threading.Thread(target=self._load, name="rbcflow-networks", daemon=False)
        self._thread.start()

    def _load(self) -> None:
        try:
            networks = TwoStage.load(device=self._device)
            networks.warm_up()
            self._loaded = networks
        except BaseException as error:
            self._error = error

    @property
    def failed(self) -> bool:
        """Whether they could not be loaded; another try may do."""
        return self._error is not None

    def result(self) -> TwoStage:
        """Wait for them; raises what loading them raised."""
        self._thread.join()
        if self._loaded is None:
            assert self._error is not None
            raise self._error
        return self._loaded


class Run:
    """One acquisition or analysis, from source to session.

    Lifecycle: construct -> `start` (opens the source, creates the session folder, starts the threads) ->
    `stop` from any thread, if a person wishes -> `wait` (until the session is closed). Once `start` has
    returned, the session is closed and the source released whatever happens.

    Parameters
    ----------
    source : FrameSource
        Not yet open. The run opens and closes it.
    folder : Path
        The session folder; must not exist.
    settings : RunSettings
    two_stage : TwoStage or LoadedBeside, optional
        Networks already loaded, or being loaded, to start faster.

    Raises
    ------
    BadInput
        From `start`, with nothing left behind.
    """

    def __init__(
        self,
        source: FrameSource,
        folder: Path,
        settings: RunSettings,
        two_stage: TwoStage | LoadedBeside | None = None,
    ) -> None:
        self.source = turned(source, settings.rotate)
        self.folder = Path(folder)
        self.settings = settings
        self.info: SourceInfo
        self.stages: Stages
        self._beside = two_stage if isinstance(two_stage, LoadedBeside) else None
        self._two_stage = None if isinstance(two_stage, LoadedBeside) else two_stage
        self._done = threading.Event()
        self._beginning = threading.Lock()
        self._stopped = False
        self._closing = threading.Thread()
        self._announcer: Announcer | None = None
        self.started = self._hung = False

    # ------------------------------------------------------------------ start

    def start(self, tell: Callable[[str], object] | None = None) -> None:
        """Open everything and set the threads going; `tell` is given a sentence before each step."""
        if os.path.lexists(self.folder):
            raise BadInput("session.exists", folder=self.folder)
        try:
            self._prepare(tell or (lambda step: None))
        except RunFailed as error:
            # Nothing was created yet, so it is the input that is wrong.
            self.source.close()
            raise BadInput.told(str(error), error.key) from error
        except BaseException:
            self.source.close()
            raise
        self._announce()
        for thread in self._threads:
            thread.start()
        self._supervisor = threading.Thread(target=self._supervise, name="rbcflow-run", daemon=True)
        self._supervisor.start()
        self.started = True

    def _prepare(self, tell: Callable[[str], object]) -> None:
        """Open, load and compile; the folder comes last, when nothing can go wrong any more."""
        keep_freed_memory()
        self.settings.stop.prepare()
        calibration = (
            None if self.settings.calibration is None else Calibration.read(self.settings.calibration)
        )
        if self._two_stage is None and self._beside is None:
            self._beside = LoadedBeside(self.settings.device)
        tell(say("pipeline.step-source"))
        self.info = self.source.open()
        tracker = self._make_tracker()
        tell(say("pipeline.step-tracker"))
        warm_up(self.info.pixel_size_um)
        if self._beside is not None:
            tell(say("pipeline.step-networks"))
            self._two_stage = self._beside.result()
        assert self._two_stage is not None
        if calibration is not None:
            calibration.refuse_other_networks(self._two_stage.models)
        self._device = self._two_stage.device
        with self._beginning:
            if self._stopped:
                raise BadInput("pipeline.stopped-at-start")
            self._create(tracker, calibration)

    def _create(self, tracker: Tracker, calibration: Calibration | None) -> None:
        assert self._two_stage is not None
        writer = SessionWriter.create(
            self.folder,
            source=self.info,
            parameters=self.settings.record(device=self._device),
            models=self._two_stage.models,
            patient=self.settings.patient,
            sample=self.settings.sample,
            record=self.settings.run_record,
            ring_frames=self.settings.ring_frames(self.info),
        )
        stages = Stages(self.source, self.info, tracker, self._two_stage, writer, self.settings)
        works = {
            "source": stages.receive,
            "tracking": stages.track,
            "judging": stages.judge,
            "keeping": stages.keep_tracks,
            "ring": stages.keep_frames,
        }
        self.stages = stages
        self._reporter = Reporter(stages, calibration)
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"rbcflow-{name}", daemon=True)
            for name, work in works.items()
        ]

    def _make_tracker(self) -> Tracker:
        background: MovieBackground | SlidingBackground
        if self.settings.background == "movie":
            if not isinstance(self.source, RecordedSource) or self.info.live:
                raise BadInput("pipeline.movie-background-of-camera")
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
        """End the run by a person's wish (`Stages.stop`); one that has not begun creates nothing."""
        with self._beginning:
            self._stopped = True
        if self.began:
            self.stages.stop()
        else:
            self.source.stop()

    def _supervise(self) -> None:
        stages, ending, pace = self.stages, self.stages.ending, self._reporter.pace
        source = self._threads[0]
        beat = heard = time.monotonic()
        received = 0
        ended: float | None = None
        while any(t.is_alive() for t in self._threads):
            self._announce()
            for thread in self._threads:
                thread.join(0.05)
            pace.poll(stages.n_received)
            pace.count(stages.tally.fraction.n, stages.tally.finished, stages.seconds)
            if time.monotonic() - beat >= 1.0 and not ending.failed:
                beat = time.monotonic()
                try:
                    account = self._reporter.heartbeat()
                    self._say_device()
                    stages.writer.heartbeat(account)
                except Exception as error:
                    stages.fail(error)
            if received != stages.n_received:
                received, heard = stages.n_received, time.monotonic()
            if self.outcome == GOES_ON and self._hangs(time.monotonic() - heard):
                stages.fail(self._unanswered())
            if self.outcome != GOES_ON and source.is_alive():
                ended = ended or time.monotonic()
                if time.monotonic() - ended > PATIENCE_S:
                    stages.fail(self._unanswered())
            if ending.failed:
                deadline = time.monotonic() + PATIENCE_S
                for thread in self._threads[1:]:
                    thread.join(max(0.0, deadline - time.monotonic()))
                # A source that hangs holds up nothing.
                source.join(HUNG_S)
                break
        pace.end(stages.n_received)
        try:
            self._close()
        except Exception as error:
            stages.fail(error)
        finally:
            self._done.set()

    def _hangs(self, silent_s: float) -> bool:
        """Whether a call into a driver does not return; nobody else would notice."""
        longest_s = self.source.silence_s
        return longest_s is not None and silent_s > longest_s and self._threads[0].is_alive()

    def _close(self) -> None:
        """Release the source, keep the tracks that are left, and close the session."""
        self._close_source()
        left = self.stages.unjudged()
        try:
            self.stages.keep(left, [uncounted(t, RUN_FAILED) for t in left])
        except Exception as error:
            log.error("%d tracks could not be kept: %s", len(left), error)
        self.stages.tally.finish()
        self._find_lost_frames()
        self._say_device()
        stop_sentence = self._reporter.stop_sentence(self.outcome)
        self.stages.writer.close(
            self.account(whole=True), *self.outcome, stop_sentence, self.stages.tally.changed()
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
        patience_s = BROKEN_S if self.outcome.status is RunStatus.FAILED else PATIENCE_S
        self._closing.join(HUNG_S if self._hung or self._threads[0].is_alive() else patience_s)
        if self._closing.is_alive():
            self.stages.fail(self._unanswered())

    def _unanswered(self) -> RunFailed:
        self._hung = True
        return RunFailed("pipeline.driver-hangs", camera=self.info.name)

    def _find_lost_frames(self) -> None:
        """Count what a fault left unprocessed; without one, a frame that nobody counted is itself a fault."""
        lost = self.stages.n_received - self.stages.tracker.processed - sum(self.stages.dropped.values())
        if lost and not self.stages.ending.failed:
            self.stages.fail(RunFailed("pipeline.frames-unaccounted", frames=lost))
        if lost:
            self.stages.dropped[RUN_FAILED] += lost

    def _say_device(self) -> None:
        """Put on record where cells are judged, if that changed."""
        assert self._two_stage is not None
        if self._two_stage.device != self._device:
            self.stages.writer.set_parameter("device", f"{self._device}, then {self._two_stage.device}")

    # ------------------------------------------------------------------ views

    @property
    def began(self) -> bool:
        """Whether there is a session, which will be closed."""
        return hasattr(self, "stages")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the session is closed, and subscribers know; return whether it is."""
        if not self._done.wait(timeout_s):
            return False
        if self._announcer is not None:
            self._announcer.wait()
        return True

    def _announce(self) -> None:
        """Tell subscribers of this run, once there are any."""
        if self._announcer is not None or not events.subscribed():
            return
        # Who comes in mid-run hears what is judged from then on.
        watcher = Watcher(self, judged_before=self.stages.judged.n)

        def look() -> tuple[Snapshot, Outcome, bool]:
            ended = self._done.wait(LOOK_S)
            return watcher.poll(), self.outcome, ended

        self._announcer = Announcer(self.folder, look)

    @property
    def hung(self) -> bool:
        """Whether, after the end, a thread still waits for a source that does not answer."""
        return any(thread.is_alive() for thread in (*self._threads, self._closing))

    @property
    def survived(self) -> tuple[str, ...]:
        """Sentences that say what broke without ending the run."""
        fault = self._two_stage.fault if self._two_stage is not None else ""
        return (fault,) if fault else ()

    @property
    def outcome(self) -> Outcome:
        """Status and stop reason as in ``run.json``: `GOES_ON` until something ended the run."""
        return self.stages.ending.outcome

    @property
    def warnings(self) -> list[str]:
        """What a person must be told, in sentences."""
        fault = self.stages.writer.report_fault
        of_subscribers = self._announcer.faults if self._announcer is not None else ()
        return [*self.account().warnings, *([fault] if fault else []), *of_subscribers]

    def progress(self) -> Progress:
        """Return how the run stands, from any thread."""
        ended = self._done.is_set()
        return self._reporter.progress(self.outcome if ended else GOES_ON)

    def account(self, *, whole: bool = False) -> RunSummary:
        """Return the counts of ``run.json``: of a run that goes on, or of the `whole` that has ended."""
        return self._reporter.account(self.outcome if whole else GOES_ON)
