"""The one place that wires source, tracking, classification, estimate and session together."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.stages import Stages, keep_freed_memory
from napari_rbcflow.pipeline.status import (
    COUNTED_AGAIN,
    GOES_ON,
    Ended,
    Pace,
    Progress,
    Snapshot,
    behind_sentence,
    warnings_of,
)
from napari_rbcflow.quality import QualityLine, RunWarning, quality_lines
from napari_rbcflow.session import (
    OPEN_END_S,
    Account,
    DiskRoom,
    FractionFigure,
    SessionWriter,
    corrected_figure,
    room_words,
)
from napari_rbcflow.sources import FrameSource, RecordedSource
from napari_rbcflow.tracking import (
    MovieBackground,
    OpenTracks,
    SlidingBackground,
    Tracker,
    TrackingSettings,
    warm_up,
)
from napari_rbcflow.types import RunStatus, SourceInfo, StopReason

_WARNED_EVERY_S = 0.25
"""A whole account is made for them, 2 ms of it; of an ended run they are always the last ones."""


class Watcher:
    """Looks at a run that has started, again and again.

    Parameters
    ----------
    run : Run
        Started.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._judged_before = 0
        self._counted_before = self._recounts = 0
        self._warnings: tuple[str, ...] = ()
        self._warned_at = float("-inf")

    def poll(self) -> Snapshot:
        """Return how the run stands now, and what is new since the last poll; from one thread."""
        stages = self._run.stages
        # Counted first: a cell counted in between is then told next time, never lost.
        counted, recounts = stages.tally.counted_since(self._counted_before, self._recounts)
        newest, positions = stages.newest, stages.positions
        if recounts != self._recounts:
            self._counted_before, self._recounts = len(counted), recounts
            counted = COUNTED_AGAIN + counted
        else:
            self._counted_before += len(counted)
        self._judged_before, judged = stages.judged.since(self._judged_before)
        return Snapshot(
            progress=self._run.progress(),
            frame=None if positions is None or positions.frame is None else positions.frame.index,
            newest=None if newest is None else newest.index,
            judged=judged,
            counted=counted,
            warnings=self._warned(),
            **_places(positions),
        )

    def _warned(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._warned_at > _WARNED_EVERY_S or self._run.outcome[0] is not RunStatus.RUNNING:
            self._warnings, self._warned_at = tuple(self._run.warnings), now
        return self._warnings


def _places(positions: OpenTracks | None) -> dict[str, Any]:
    if positions is None:
        return {}
    return {"cell": positions.cell, "y_px": positions.y_px, "x_px": positions.x_px}


class QualityPoll:
    """Brings a run's quality into its account, and says what stands.

    Parameters
    ----------
    stages : Stages
    tracker : Tracker

    Attributes
    ----------
    warned : tuple of RunWarning or None
        What stands, grave warnings first; None before the first poll.
    lines : tuple of QualityLine
        The measures in words.
    """

    def __init__(self, stages: Stages, tracker: Tracker) -> None:
        self._stages, self._tracker = stages, tracker
        self._closed: tuple[dict[str, object], list[RunWarning]] | None = None
        self.warned: tuple[RunWarning, ...] | None = None
        self.lines: tuple[QualityLine, ...] = ()

    def poll(self, account: Account) -> None:
        """Judge a run that goes on; from one thread.

        Parameters
        ----------
        account : Account
            From `complete`.
        """
        stages = self._stages
        at, run = stages.positions, account.as_dict()
        self.warned = stages.quality.look(
            run,
            stages.tally.counted,
            seconds=stages.seconds,
            open_tracks=0 if at is None else len(at.cell),
        )
        self.lines = tuple(quality_lines(run, self.warned))

    def complete(self, account: Account, *, ended: bool) -> Account:
        """Return the account with the run's quality; at its end, with all that must be said of it, too.

        Parameters
        ----------
        account : Account
        ended : bool
            Whether nothing more will come.
        """
        stages = self._stages
        not_analysed = dict(self._tracker.not_analysed)
        if ended and self._closed is None:
            self._closed = stages.quality.close(
                account.as_dict(), stages.tally.counted, not_analysed=not_analysed, seconds=stages.seconds
            )
            self.warned = tuple(self._closed[1])
        if self._closed is None:
            quality = {**stages.quality.figures(), "not_analysed": not_analysed}
            return replace(account, quality={**quality, "tracks_too_pale": self._tracker.too_pale})
        quality, told = self._closed
        quality = {**quality, "tracks_too_pale": self._tracker.too_pale}
        whole = replace(account, quality=quality, warnings=(*account.warnings, *(w.sentence for w in told)))
        self.lines = tuple(quality_lines(whole.as_dict(), told))
        return whole


RECENT_LABELS = 4096


class Standing:
    """Looks at the parts of a run and says how it stands.

    Its methods take the outcome, status and stop reason as in ``run.json``, because the interval that is
    said depends on it: `GOES_ON` until the session is being closed.

    Parameters
    ----------
    stages : Stages
    tracker : Tracker
    quality : QualityPoll
    source : FrameSource
    info : SourceInfo
    models : mapping
        As in ``run.json``.
    room : DiskRoom, optional
        Of the session's disk.
    survived : callable
        Returns what broke and did not end the run, in plain sentences.
    """

    def __init__(
        self,
        stages: Stages,
        tracker: Tracker,
        quality: QualityPoll,
        *,
        source: FrameSource,
        info: SourceInfo,
        models: Mapping[str, Any],
        survived: Callable[[], Sequence[str]] = tuple,
        room: DiskRoom | None = None,
    ) -> None:
        self._stages, self._tracker, self._quality = stages, tracker, quality
        self._source, self._info, self._models = source, info, models
        self._settings = stages.settings
        self._survived, self._room = survived, room
        self._began = time.monotonic()

    def progress(self, outcome: Ended, pace: Pace) -> Progress:
        """Return how the run stands at this moment."""
        positions = self._stages.positions
        tally, seconds = self._stages.tally, self._stages.seconds
        ended = outcome != GOES_ON
        rules = stopping.to_go(
            self._settings.stop,
            tally.fraction,
            tracks=tally.finished,
            seconds=seconds,
            rates=pace.rates(),
        )
        share, seconds_left = stopping.nearest(rules)
        if self._info.n_frames:
            of_movie = self._tracker.processed / self._info.n_frames
            share = max(share or 0.0, of_movie)
            left = (seconds_left, pace.seconds_left(of_movie))
            seconds_left = min((s for s in left if s is not None), default=None)
        shown = self._said(outcome)
        dropped = {why: n for why, n in dict(self._stages.dropped).items() if why != AFTER_STOP}
        missed = dict(self._source.missed)
        return Progress(
            status=outcome[0],
            received=self._stages.n_received,
            processed=self._tracker.processed,
            dropped=sum(dropped.values()),
            missed=sum(missed.values()),
            seconds=seconds,
            open_tracks=len(positions.cell) if positions is not None else 0,
            cells=Counter(tally.cells),
            n=tally.fraction.n,
            estimate=tally.fraction.estimate,
            interval=shown.interval,
            level=tally.fraction.level,
            missing=stopping.missing(rules),
            total_frames=self._info.n_frames,
            frames_per_s=pace.frames_per_s,
            stop_share=share,
            seconds_left=None if ended else seconds_left,
            lag_s=self._stages.lag_s(),
            method=shown.method,
            rules=rules,
            stop_sentence=self.stop_sentence(outcome),
            warned=self._quality.warned,
            quality=self._quality.lines,
            room="" if ended else self.room_sentence(),
            dropped_by=dropped,
            missed_by=missed,
            labels_behind_s=self._stages.labels_behind_s(),
        )

    def _meanwhile(self) -> list[str]:
        """What is said only while a run goes on."""
        said = (self.room_sentence(), behind_sentence(self._stages.labels_behind_s()))
        return [sentence for sentence in said if sentence]

    def room_sentence(self) -> str:
        """Say how long the disk will hold, where that is too short; empty where it is not."""
        left_s = None if self._room is None else self._room.left_s
        if left_s is None:
            return ""
        stop, done = self._settings.stop, self._tracker.processed
        needed_s = None if stop.seconds is None else stop.seconds - self._stages.seconds
        if self._info.n_frames and done:
            of_movie = (self._info.n_frames / done - 1) * (time.monotonic() - self._began)
            needed_s = of_movie if needed_s is None else min(needed_s, of_movie)
        sooner = (stop.reliable, stop.halfwidth, stop.tracks, stop.baseline) != (None,) * 4
        # Where cells may end the run sooner, a far end is as good as an open one.
        far = sooner and needed_s is not None and needed_s > OPEN_END_S
        return room_words(left_s, None if far else needed_s)

    def _said(self, outcome: Ended) -> ReportedInterval:
        """Return the interval that is true of the run now."""
        fraction = self._stages.tally.fraction
        return reported_interval(fraction, self._settings.stop, *outcome, self._settings.interval)

    def stop_sentence(self, outcome: Ended) -> str:
        """Return what the rule that stopped the run found, where its name does not tell."""
        return stop_sentence(outcome[1], self._settings.stop, self._stages.tally.fraction)

    def account(self, outcome: Ended) -> Account:
        """Return the counts of ``run.json``; while the run goes on, with the last labels' latencies only."""
        whole = outcome != GOES_ON
        dropped = dict(self._stages.dropped)
        tally = self._stages.tally
        fraction = FractionFigure.saying(tally.fraction, self._said(outcome))
        cells = dict(tally.cells)
        account = Account.of(
            received=self._stages.n_received,
            processed=self._tracker.processed,
            dropped=dropped,
            missed=dict(self._source.missed),
            cells=cells,
            fraction=fraction,
            fraction_corrected=(
                corrected_figure(self._models, cells, fraction, tally.focus.as_dict()) if whole else None
            ),
            focus_speed={**tally.focus.as_dict(), "set_aside": tally.set_aside},
            latencies_ms=self._stages.latencies_ms[0 if whole else -RECENT_LABELS :],
            warnings=[
                *self._survived(),
                *([] if whole else self._meanwhile()),
                *warnings_of(
                    self._info,
                    dropped=dropped,
                    missed=self._source.missed,
                    ring_skipped=self._stages.ring_skipped,
                ),
            ],
        )
        return self._quality.complete(account, ended=whole)


log = logging.getLogger(__name__)

MOVIE_BACKGROUND_FRAMES = 100
"""Frames whose median is the background of a movie, as in Darrin et al. 2023."""
PATIENCE_S = 3.0
"""Seconds to wait for the source of an ended run, and for the threads of a failed one."""
BROKEN_S = 1.5
"""Seconds to wait for a broken source to close."""
HUNG_S = 0.2
"""Seconds to wait for a source that did not answer before."""


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
            raise BadInput("pipeline.folder-exists", folder=self.folder)
        try:
            self._prepare()
        except RunFailed as error:
            # Nothing was made yet: what breaks now is what was given.
            self.source.close()
            raise BadInput.told(str(error), error.key) from error
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
        self._quality = QualityPoll(stages, self._tracker)
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
        """End the run by a person's wish: what came is still judged, open tracks are not counted."""
        self.stages.outcome.end(RunStatus.STOPPED, StopReason.USER)
        self.source.stop()

    def _supervise(self) -> None:
        self._pace = Pace()
        beat = heard = time.monotonic()
        received = 0
        ended: float | None = None
        while any(t.is_alive() for t in self._threads):
            for thread in self._threads:
                thread.join(0.05)
            self._pace.poll(self.stages.n_received)
            tally = self.stages.tally
            self._pace.count(tally.fraction.n, tally.finished, self.stages.seconds)
            if time.monotonic() - beat >= 1.0 and not self.stages.outcome.failed:
                beat = time.monotonic()
                try:
                    account = self.account()
                    self._quality.poll(account)
                    self._say_device()
                    self._writer.heartbeat(account)
                except Exception as error:
                    self.stages.fail(error)
            if received != self.stages.n_received:
                received, heard = self.stages.n_received, time.monotonic()
            if self.outcome[0] is RunStatus.RUNNING and self._hangs(time.monotonic() - heard):
                self.stages.fail(self._unanswered())
            if self.outcome[0] is not RunStatus.RUNNING and self._threads[0].is_alive():
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
        patience_s = BROKEN_S if self.outcome[0] is RunStatus.FAILED else PATIENCE_S
        self._closing.join(HUNG_S if self._hung or self._threads[0].is_alive() else patience_s)
        if self._closing.is_alive():
            self.stages.fail(self._unanswered())

    def _unanswered(self) -> RunFailed:
        self._hung = True
        return RunFailed("pipeline.driver-hangs", camera=self.info.name)

    def _find_lost_frames(self) -> None:
        """Count what a fault left unprocessed; without one, a frame that nobody counted is itself a fault."""
        lost = self.stages.n_received - self._tracker.processed - sum(self.stages.dropped.values())
        if lost and not self.stages.outcome.failed:
            self.stages.fail(RunFailed("pipeline.frames-unaccounted", frames=lost))
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
    def outcome(self) -> Ended:
        """Status and stop reason as in ``run.json``: `GOES_ON` until something ended the run."""
        return self.stages.outcome.now

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
