r"""The one place that wires source, tracking, classification, estimate and session together.

Four threads, each with one concern, and bounded queues between them::

    source --frames--> tracking --tracks--> judging --> session, fraction, stop rule
       \-----------------------frames----------------> ring

A live source never waits: a frame that finds no room is dropped and counted with its reason. A
recorded one does. Whatever thread fails, the run ends as failed with what it had kept.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed, sentence_of
from napari_rbcflow.estimate.tally import AFTER_STOP, CUT_BY_STOP, RUN_FAILED, Tally, uncounted
from napari_rbcflow.run.channel import Channel
from napari_rbcflow.run.outcome import Outcome
from napari_rbcflow.run.progress import Progress, warnings_of
from napari_rbcflow.run.settings import RunSettings
from napari_rbcflow.session.account import Account
from napari_rbcflow.session.writer import SessionWriter
from napari_rbcflow.sources.contract import Frame, FrameSource, RecordedSource, SourceInfo
from napari_rbcflow.tracking.background import MovieBackground, SlidingBackground
from napari_rbcflow.tracking.tracker import OpenTracks, Tracker
from napari_rbcflow.tracking.warming import warm_up
from napari_rbcflow.tracks import Judgement, Track

log = logging.getLogger(__name__)

MOVIE_BACKGROUND_FRAMES = 100
"""Frames whose median is the background of a movie, as in Darrin et al. 2023."""
WAITING_BYTES = 256 * 2**20
"""Of frames that wait for tracking: some three seconds at 1376 x 1096 and 60 frames/s."""
WAITING_TRACKS = 4096
BATCH_TRACKS = 32
LINGER_S = 0.05
"""How long a batch waits to fill: short beside the 250 ms in which a label is due."""
RECENT_LABELS = 4096
PATIENCE_S = 3.0
"""That a failed run waits for its threads."""
SHOWN_TRACKS = 64
"""Of the tracks judged last, for display; no fewer than a batch."""


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
        self.tally = Tally(settings.stop)
        self.info: SourceInfo
        self.latest: Frame | None = None
        """The newest frame received, for display."""
        self.positions: OpenTracks | None = None
        """Where the open tracks stood in the last frame that was processed, for display."""
        self.judged: list[tuple[Track, Judgement]] = []
        """The tracks judged last, newest last, for display."""
        self._two_stage = two_stage
        self._received = 0
        self._dropped: Counter[str] = Counter()
        self._seconds = 0.0
        # Four bytes a label, so that hours stay small.
        self._latencies_ms = array("f")
        self._ring_skipped = 0
        self._outcome = Outcome()
        self._lock = threading.Lock()
        self._frozen = threading.Event()
        self._stranded: list[Track] = []
        """Tracks that nobody could judge any more, because a part broke."""
        self._can_keep = True
        self._done = threading.Event()

    # ------------------------------------------------------------------ start

    def start(self) -> None:
        """Open everything and set the threads going."""
        if self.folder.exists():
            raise BadInput(
                f"{self.folder} exists already: choose a folder that does not, or move that one away"
            )
        try:
            self.info = self.source.open()
            tracker = self._make_tracker()
            warm_up(self.info.pixel_size_um)
            if self._two_stage is None:
                self._two_stage = TwoStage.load(device=self.settings.device)
                self._two_stage.warm_up()
            self._writer = SessionWriter.create(
                self.folder,
                source=self.info,
                parameters=self.settings.record(device=self._two_stage.device),
                models=self._two_stage.models,
                patient=self.settings.patient,
                sample=self.settings.sample,
                ring_frames=self.settings.ring_frames(self.info),
            )
        except BaseException:
            self.source.close()
            raise
        self._tracker = tracker
        waiting = max(16, WAITING_BYTES // (self.info.height * self.info.width))
        self._frames: Channel[Frame] = Channel(waiting)
        self._tracks: Channel[tuple[Track, float]] = Channel(WAITING_TRACKS)
        self._to_ring: Channel[Frame] = Channel(16)
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"rbcflow-{name}", daemon=True)
            for name, work in [
                ("source", self._receive),
                ("tracking", self._track),
                ("judging", self._judge),
                ("ring", self._keep_frames),
            ]
        ]
        for thread in self._threads:
            thread.start()
        self._supervisor = threading.Thread(target=self._supervise, name="rbcflow-run", daemon=True)
        self._supervisor.start()

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
        )

    # ---------------------------------------------------------------- threads

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._fail(error)

    def _receive(self) -> None:
        # Of a movie that lies on disk anyway, only what the ring will still hold at the end is copied.
        first_kept = 0
        if not self.info.live and self.info.n_frames is not None:
            first_kept = self.info.n_frames - self.settings.ring_frames(self.info)
        try:
            for frame in self.source.frames():
                if self.settings.stop.out_of_time(frame.time_s):
                    # Not `_freeze`: what came in time is still processed and counted.
                    self._outcome.rule_met("seconds")
                    self.source.stop()
                    break
                self._received += 1
                self.latest = frame
                if self.info.live:
                    if not self._frames.offer(frame):
                        self._drop("queue-full" if self.outcome[0] == "running" else AFTER_STOP)
                    if not self._to_ring.offer(frame):
                        self._ring_skipped += 1
                else:
                    if not self._frames.put(frame):
                        self._drop(RUN_FAILED)
                        break
                    if frame.index >= first_kept:
                        self._to_ring.put(frame)
            self._outcome.end("finished", "source-ended")
        except Exception as error:
            # The source broke, but nothing behind it did: what came is still judged and kept.
            self._outcome.end("failed", sentence_of(error))
            log.error("the source broke: %s", error, exc_info=not isinstance(error, RbcflowError))
        finally:
            self._frames.close()
            self._to_ring.close()

    def _track(self) -> None:
        for frame in self._frames:
            if self._frozen.is_set():
                self._drop(AFTER_STOP)
                continue
            self._seconds = frame.time_s
            self._hand_over(self._tracker.process(frame))
            self.positions = self._tracker.open_tracks()
        reason = "source-ended" if self._outcome.source_ended else CUT_BY_STOP
        self._hand_over(self._tracker.finish(reason))
        self._tracks.close()

    def _hand_over(self, tracks: Sequence[Track]) -> None:
        now = time.perf_counter()
        for track in tracks:
            if not self._tracks.put((track, now)):
                self._stranded.append(track)

    def _judge(self) -> None:
        assert self._two_stage is not None
        while batch := self._tracks.take(BATCH_TRACKS, LINGER_S):
            tracks = [track for track, _ in batch]
            try:
                judged = self._two_stage.judge(self.tally.to_judge(tracks))
            except Exception:
                self._stranded += tracks
                raise
            self._keep(tracks, self.tally.settle(tracks, judged))
            now = time.perf_counter()
            self._latencies_ms.extend(
                1000 * (now - handed_over)
                for (_, handed_over), (_, judgement) in zip(batch, self.judged[-len(batch) :], strict=True)
                if judgement.p_reliable is not None
            )
            if self.tally.enough:
                self._freeze(self.tally.enough)

    def _keep(self, tracks: Sequence[Track], judgements: Sequence[Judgement]) -> None:
        """Put tracks on disk, and only then count them."""
        pairs = list(zip(tracks, judgements, strict=True))
        try:
            self._writer.keep(pairs)
        except Exception:
            # What of it reached the disk is not known: a second try could write a cell twice.
            self._can_keep = False
            raise
        self.tally.count(judgements)
        self.judged = [*self.judged, *pairs][-SHOWN_TRACKS:]

    def _keep_frames(self) -> None:
        for frame in self._to_ring:
            self._writer.ring.append(frame)

    # ------------------------------------------------------------------- ends

    def stop(self) -> None:
        """End the run by a person's wish: what came is still judged, open tracks are not counted."""
        self._outcome.end("stopped", "user")
        self.source.stop()

    def _freeze(self, reason: str) -> None:
        self._outcome.rule_met(reason)
        self._frozen.set()
        self.source.stop()

    def _fail(self, error: BaseException) -> None:
        """End the run at once: let go of every thread that waits, and stop the source."""
        if self._outcome.fail(error):
            known = isinstance(error, RbcflowError)
            log.error("%s", sentence_of(error), exc_info=None if known else error)
        for channel in (self._frames, self._tracks, self._to_ring):
            channel.abort()
        with contextlib.suppress(Exception):
            self.source.stop()

    def _drop(self, reason: str) -> None:
        with self._lock:
            self._dropped[reason] += 1

    def _supervise(self) -> None:
        beat = time.monotonic()
        while any(t.is_alive() for t in self._threads):
            for thread in self._threads:
                thread.join(0.05)
            if time.monotonic() - beat >= 1.0 and not self._outcome.failed:
                beat = time.monotonic()
                try:
                    self._writer.heartbeat(self.account())
                except Exception as error:
                    self._fail(error)
            if self._outcome.failed:
                deadline = time.monotonic() + PATIENCE_S
                for thread in self._threads:
                    thread.join(max(0.0, deadline - time.monotonic()))
                break
        try:
            self._close()
        except Exception as error:
            self._fail(error)
        finally:
            self._done.set()

    def _close(self) -> None:
        """Give the source back, keep what is left, and close the session."""
        try:
            self.source.close()
        except Exception as error:
            self._fail(error)
        if self._outcome.failed and self._can_keep:
            left = [*self._stranded, *(track for track, _ in self._tracks.leftover())]
            self._keep(left, [uncounted(t, RUN_FAILED) for t in left])
        self._find_lost_frames()
        status, reason = self.outcome
        self._writer.close(self.account(whole=True), status=status, stop_reason=reason)

    def _find_lost_frames(self) -> None:
        """Count what a fault left unprocessed; without one, a frame that nobody counted is itself a fault."""
        lost = self._received - self._tracker.processed - sum(self._dropped.values())
        if lost and not self._outcome.failed:
            self._fail(RunFailed(f"{lost} frames are not accounted for: please report this with run.log"))
        if lost:
            self._dropped[RUN_FAILED] += lost

    # ------------------------------------------------------------------ views

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the session is closed; return whether it is."""
        return self._done.wait(timeout_s)

    @property
    def outcome(self) -> tuple[str, str]:
        """Status and stop reason as in ``run.json``: ``("running", "")`` until something ended the run."""
        return self._outcome.said

    def progress(self) -> Progress:
        """Return how the run stands, from any thread."""
        positions = self.positions
        return Progress(
            status=self.outcome[0],
            received=self._received,
            processed=self._tracker.processed,
            dropped=sum(self._dropped.values()),
            missed=sum(self.source.missed.values()),
            seconds=self._seconds,
            open_tracks=len(positions.cell) if positions is not None else 0,
            cells=Counter(self.tally.cells),
            estimate=self.tally.fraction.estimate,
            interval=self.tally.fraction.interval(),
            missing=self.settings.stop.missing(self.tally.fraction, self._seconds),
        )

    def account(self, *, whole: bool = False) -> Account:
        """Return the counts of ``run.json``, with the latencies of the last labels or of the `whole` run."""
        with self._lock:
            dropped = dict(self._dropped)
        return Account.of(
            received=self._received,
            processed=self._tracker.processed,
            dropped=dropped,
            missed=dict(self.source.missed),
            cells=dict(self.tally.cells),
            fraction=self.tally.fraction,
            latencies_ms=self._latencies_ms[0 if whole else -RECENT_LABELS :],
            warnings=warnings_of(
                self.info,
                stop_reason=self.outcome[1],
                dropped=dropped,
                missed=self.source.missed,
                not_analysed=self._tracker.not_analysed,
                ring_skipped=self._ring_skipped,
            ),
        )
