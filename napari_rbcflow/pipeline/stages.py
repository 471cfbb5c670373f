"""What each thread of a run does, and the queues between the threads."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_rbcflow.classification import TwoStage
from napari_rbcflow.errors import RbcflowError, sentence_of
from napari_rbcflow.estimate import AFTER_STOP, CUT_BY_STOP, RUN_FAILED, Tally
from napari_rbcflow.pipeline.channel import Channel
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.status import Ending, RecentCells, reason_of
from napari_rbcflow.quality import RunQuality
from napari_rbcflow.session import SessionWriter, speed_um_per_s
from napari_rbcflow.sources import FrameSource
from napari_rbcflow.tracking import OpenTracks, Tracker
from napari_rbcflow.types import Frame, Judgement, RunStatus, SourceInfo, StopReason, Track

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MMAP_BYTES = 32 * 2**20  # the most that glibc takes
_TRIM_BYTES = 2**30
_ARENAS = 2
"""Heaps that all threads share: each run has new threads, and what one heap keeps another cannot use."""


def keep_freed_memory() -> None:
    """Tell glibc to keep what a run frees; does nothing elsewhere, and may be called more than once.

    Every frame and every batch needs buffers of a few megabytes for some milliseconds. By default glibc gives
    each back to the system when it is freed, and the system clears every page of the next one: the networks
    spent up to half of their time on that (docs/decisions/viewer.md). Both values must be set: either one
    alone switches off glibc's own adaptation and makes it worse. The memory of a process stays at its peak,
    which the queues limit.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def touch_frames(height: int, width: int, n: int) -> None:
    """Ask the system for the memory of the first `n` 8-bit frames, before they come.

    The system hands out each page when it is first written to. If it has to find one, that takes longer than
    a frame lasts: a whole sensor's first frames (6 MB) cost a virtual machine 18 ms each. Call it in the
    thread that receives the frames, because one heap cannot use what another keeps (`keep_freed_memory`).
    """
    if not sys.platform.startswith("linux"):
        return
    touched = [np.ones((height, width), np.uint8) for _ in range(n)]
    del touched


log = logging.getLogger(__name__)

WAITING_BYTES = 512 * 2**20
"""Of frames that wait for tracking: six seconds of 1376 x 1096 at 60 frames/s, 1.5 of a whole sensor."""
WAITING_TRACKS = 4096
MOST_TRACKS = 32
"""Judged at once if so many wait: that is cheaper, but the first of them get their labels with the last."""
_TO_KEEP = 4  # most judged batches that wait for the disk
GIVE_WAY_S = 0.25
"""Seconds of frames that wait for tracking, from which on judging gives way: a frame without room is lost, a
track that waits is only late."""
_LATEST = WAITING_TRACKS // 2  # most tracks that wait for that reason: a full queue would hold up tracking
_LOOK_S = 0.05
FIRST_S = 1.25  # seconds of frames held until there is a background and tracking has caught up


class Stages:
    r"""Five works, a thread each, and bounded queues between them.

    ::

        receive --frames--> track --tracks--> judge --labels--> keep_tracks --> session, tally, stop rule
           \--------frames--------> keep_frames --> ring

    A camera never waits: a frame for which there is no room is dropped and counted with its reason. So
    judging gives way while frames wait for tracking. A recorded source does wait, even if it plays in a
    camera's place. Whoever runs a work that raises hands the error to `fail`.

    Attributes
    ----------
    newest : Frame or None
        The newest frame received.
    positions : OpenTracks or None
        The last frame that was processed, with the positions of the open tracks.
    n_received, ring_skipped : int
        Frames received, and those of them that the ring had no time for.
    dropped : Counter of str
        Frames by reason.
    seconds : float
        Camera time of the last frame that was processed.
    latencies_ms : array of float
        From the end of a track to its label on disk. Four bytes each, so that hours stay small.
    stranded : list of Track
        Tracks that were not judged or not kept because a part broke.
    """

    def __init__(
        self,
        source: FrameSource,
        info: SourceInfo,
        tracker: Tracker,
        two_stage: TwoStage,
        writer: SessionWriter,
        settings: RunSettings,
    ) -> None:
        self.source, self.info, self.settings = source, info, settings
        self.tracker, self.two_stage, self.writer = tracker, two_stage, writer
        self.tally = Tally(
            settings.stop,
            settings.least_frames,
            speed=lambda track: speed_um_per_s(track, fps=info.fps, pixel_size_um=info.pixel_size_um),
        )
        self.ending = Ending()
        self.newest: Frame | None = None
        self.positions: OpenTracks | None = None
        self.judged = RecentCells()
        self.quality = RunQuality(info, settings.set_flow, settings.flow)
        self.n_received = 0
        self.ring_skipped = 0
        self.dropped: Counter[str] = Counter()
        self.seconds = 0.0
        self.latencies_ms = array("f")
        self.stranded: list[Track] = []
        self._lock = threading.Lock()
        self._frozen = threading.Event()
        self._all_kept = False
        self._waits = info.can_wait or not info.live
        self._room = room = max(16, WAITING_BYTES // (info.height * info.width))
        self._frames: Channel[Frame] = Channel(room)
        self._few_frames = max(2, min(round(GIVE_WAY_S * info.fps), room // 4))
        self._tracks: Channel[tuple[Track, float]] = Channel(WAITING_TRACKS)
        self._to_keep: Channel[tuple[list[tuple[Track, float]], list[Judgement]]] = Channel(_TO_KEEP)
        # When the oldest track that is being judged, and the oldest that is being kept, was handed over.
        self._in_judging: float | None = None
        self._in_keeping: float | None = None
        self._to_ring: Channel[Frame] = Channel(16)

    def receive(self) -> None:
        # A movie is on disk anyway: only the frames that the ring will hold at the end are copied.
        first_kept = 0
        if not self.info.live and self.info.n_frames is not None:
            first_kept = self.info.n_frames - self.settings.ring_frames(self.info)
        try:
            if not self._waits:
                touch_frames(
                    self.info.height, self.info.width, min(self._room, round(FIRST_S * self.info.fps))
                )
            for frame in self.source.frames():
                if self.settings.stop.out_of_time(frame.time_s):
                    # Not `_freeze`: what came in time is still processed and counted.
                    self.ending.rule_met(StopReason.SECONDS)
                    self.source.stop()
                    break
                self.n_received += 1
                self.newest = frame
                taken = self._frames.put(frame) if self._waits else self._frames.offer(frame)
                if not taken:
                    self._drop(self._why_not_taken())
                if self.ending.failed:
                    continue
                if not self.info.live:
                    if frame.index >= first_kept:
                        self._to_ring.put(frame)
                elif not self._to_ring.offer(frame):
                    self.ring_skipped += 1
            self.ending.end(RunStatus.FINISHED, StopReason.SOURCE_ENDED)
        except Exception as error:
            # The source broke, but nothing behind it did: what came before is still judged and kept.
            self.ending.end(RunStatus.FAILED, reason_of(error))
            log.error("the source broke: %s", error, exc_info=not isinstance(error, RbcflowError))
        finally:
            self._frames.close()
            self._to_ring.close()

    def _why_not_taken(self) -> str:
        if self.ending.failed:
            return RUN_FAILED
        return "queue-full" if self.ending.outcome.status is RunStatus.RUNNING else AFTER_STOP

    def track(self) -> None:
        for frame in self._frames:
            if self._frozen.is_set():
                self._drop(AFTER_STOP)
                continue
            self.seconds = frame.time_s
            self._hand_over(self.tracker.process(frame))
            self.positions = self.tracker.open_tracks()
            self.quality.add_frame(frame, self.positions)
        reason = StopReason.SOURCE_ENDED if self.ending.source_ended else CUT_BY_STOP
        self._hand_over(self.tracker.finish(reason))
        self._tracks.close()

    def _hand_over(self, tracks: Sequence[Track]) -> None:
        now = time.perf_counter()
        for track in tracks:
            if not self._tracks.put((track, now)):
                self.stranded.append(track)

    def judge(self) -> None:
        while batch := self._next_tracks():
            self._in_judging = batch[0][1]
            if self._frozen.is_set() and not self.tally.enough:  # a person stopped
                batch = [(replace(track, reason=CUT_BY_STOP), at) for track, at in batch]
            tracks = [track for track, _ in batch]
            try:
                judged = self.two_stage.judge(
                    self.tally.to_judge(tracks), leave_out_intruded=self.settings.leave_out_intruded
                )
            except Exception:
                self.stranded += tracks
                raise
            if not self._to_keep.put((batch, judged)):
                self.stranded += tracks
            self._in_judging = None
        self._to_keep.close()

    def keep_tracks(self) -> None:
        # While judged tracks go to the disk, the next are judged; all that wait go to the disk together.
        while some := self._to_keep.take(_TO_KEEP):
            batch = [pair for pairs, _ in some for pair in pairs]
            self._in_keeping = batch[0][1]
            tracks = [track for track, _ in batch]
            settled = self.tally.settle(tracks, [judgement for _, judged in some for judgement in judged])
            self.keep(tracks, settled)
            now = time.perf_counter()
            self._in_keeping = None
            self.latencies_ms.extend(
                1000 * (now - handed_over)
                for (_, handed_over), judgement in zip(batch, settled, strict=True)
                if judgement.p_reliable is not None
            )
            if self.tally.enough:
                self._freeze(self.tally.enough)
        self._all_kept = True

    def _next_tracks(self) -> list[tuple[Track, float]]:
        """Wait for tracking, then take a batch, or fewer tracks once the oldest has waited long enough."""
        batch, linger_s = self.two_stage.batch, self.two_stage.linger_s
        self._give_way()
        if waiting := self._tracks.first():
            linger_s -= time.perf_counter() - waiting[1]
        taken = self._tracks.take(batch, max(linger_s, 0.0))
        if taken and len(taken) < MOST_TRACKS <= len(taken) + len(self._tracks):
            taken += self._tracks.take(MOST_TRACKS - len(taken))
        return taken

    def _give_way(self) -> None:
        """Wait while frames that may be dropped wait for tracking, and there is room for more tracks."""
        while not self._waits and len(self._tracks) < _LATEST:
            if self._frames.wait_for_fewer(self._few_frames, _LOOK_S):
                break

    def keep(self, tracks: Sequence[Track], judgements: Sequence[Judgement]) -> None:
        """Put tracks on disk, and only then count them."""
        pairs = list(zip(tracks, judgements, strict=True))
        try:
            self.writer.keep(pairs)
        except Exception:
            self.stranded += tracks
            raise
        self.tally.count(judgements)
        self.judged.add(pairs)
        self.quality.add_tracks(pairs)

    def keep_frames(self) -> None:
        for frame in self._to_ring:
            self.writer.ring.append(frame)

    def lag_s(self) -> float:
        """Return how far the run is behind: its labels, or its waiting frames if that is more."""
        return max(self.labels_behind_s(), len(self._frames) / self.info.fps)

    def labels_behind_s(self) -> float:
        """Return how long the oldest finished track has waited for its label."""
        to_keep, waiting = self._to_keep.first(), self._tracks.first()
        # Oldest first.
        for handed_over in (
            self._in_keeping,
            to_keep[0][0][1] if to_keep else None,
            self._in_judging,
            waiting[1] if waiting else None,
        ):
            if handed_over is not None:
                return time.perf_counter() - handed_over
        return 0.0

    def _freeze(self, reason: str) -> None:
        self.ending.rule_met(reason)
        self._frozen.set()
        self.source.stop()

    def stop(self) -> None:
        """End the run by a person's wish: what came from a camera is still judged, open tracks do not count.

        Of a movie nothing more is done: what was read ahead can be read again, and is much.
        """
        ahead = not self.info.live and not self._all_kept
        self.ending.stop(read_ahead=ahead)
        if ahead and self.ending.outcome.status is RunStatus.STOPPED:
            self._frozen.set()
        self.source.stop()

    def fail(self, error: BaseException) -> None:
        """End the run at once: let go of every thread that waits, and stop the source."""
        if self.ending.fail(error):
            known = isinstance(error, RbcflowError)
            log.error("%s", sentence_of(error), exc_info=None if known else error)
        for channel in (self._frames, self._tracks, self._to_keep, self._to_ring):
            channel.abort()
        with contextlib.suppress(Exception):
            self.source.stop()

    def _drop(self, reason: str) -> None:
        with self._lock:
            self.dropped[reason] += 1

    def unjudged(self) -> list[Track]:
        """Return the tracks that a fault left behind."""
        judged = [pair for pairs, _ in self._to_keep.leftover() for pair in pairs]
        return [*self.stranded, *(track for track, _ in [*judged, *self._tracks.leftover()])]
