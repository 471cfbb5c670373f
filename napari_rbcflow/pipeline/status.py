"""How a run stands, for whoever watches it and for ``run.json``; from any thread."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.estimate import ANYTIME, Rates, RuleProgress
from napari_rbcflow.quality import LATE_LABELS_S, QualityLine, RunWarning, by_reason
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import in_a_line
from napari_rbcflow.types import Judgement, Label, RunStatus, SourceInfo, StopReason, Track

COUNTED_AGAIN = b"\x02"
"""Among the counted cells of a snapshot."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run at one moment, and what was judged since the snapshot before.

    Attributes
    ----------
    progress : Progress
    frame : int or None
        The last frame that was tracked. With a sliding background that is about 50 frames behind
        the newest.
    newest : int or None
        The newest frame received.
    cell : ndarray of int64, shape (m,)
        The open tracks in `frame`, and where they stand, in camera pixels:
    y_px, x_px : ndarray of float32, shape (m,)
    judged : tuple of JudgedCell
        Oldest first; after a long pause, only the last `REMEMBERED`.
    counted : bytes
        The cells counted since, in order: 1 tank-treading, 0 flipping. None is ever left out. Behind
        `COUNTED_AGAIN` stand all cells that count: those before it count no more.
    warnings : tuple of str
        What a person must be told, in plain sentences.
    """

    progress: Progress
    frame: int | None = None
    newest: int | None = None
    cell: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    y_px: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    x_px: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    judged: tuple[JudgedCell, ...] = ()
    counted: bytes = b""
    warnings: tuple[str, ...] = ()


REMEMBERED = 2048
"""Cells: ten seconds at 200 tracks a second, in two megabytes."""


@dataclass(frozen=True, eq=False)
class JudgedCell:
    """One judged track, without its sequence: that lies in the session.

    Attributes
    ----------
    cell : int
    label : Label
    p_reliable, p_tank_treading : float or None
    reason : str
        As in ``cells.csv``.
    first_frame, last_frame, frames : int
    y_px, x_px : float
        Where it was last seen, in camera pixels.
    crop : ndarray of uint8, shape (CROP_SIDE, CROP_SIDE)
        From the middle of the sequence.
    """

    cell: int
    label: Label
    p_reliable: float | None
    p_tank_treading: float | None
    reason: str
    first_frame: int
    last_frame: int
    frames: int
    y_px: float
    x_px: float
    crop: NDArray[np.uint8]

    @classmethod
    def of(cls, track: Track, judgement: Judgement) -> JudgedCell:
        """Return what is told of a track and its judgement."""
        return cls(
            cell=track.cell,
            label=judgement.label,
            p_reliable=judgement.p_reliable,
            p_tank_treading=judgement.p_tank_treading,
            reason=judgement.reason,
            first_frame=int(track.frames[0]),
            last_frame=int(track.frames[-1]),
            frames=len(track),
            y_px=float(track.y_px[-1]),
            x_px=float(track.x_px[-1]),
            crop=track.crops[len(track) // 2].copy(),
        )


class RecentCells:
    """The last `REMEMBERED` judged cells, put in by one thread and read by any other.

    Attributes
    ----------
    n : int
        Cells put in so far.
    """

    def __init__(self) -> None:
        self._cells: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self.n = 0

    def add(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        """Put in what was judged, oldest first."""
        cells = [JudgedCell.of(track, judgement) for track, judgement in pairs]
        with self._lock:
            self._cells.extend(cells)
            self.n += len(cells)

    def since(self, n: int) -> tuple[int, tuple[JudgedCell, ...]]:
        """Return how many there were so far, and those after the first `n` that are still remembered."""
        with self._lock:
            new = min(self.n - n, len(self._cells))
            return self.n, tuple(islice(self._cells, len(self._cells) - new, None))


WINDOW_S = 2.0
RATES_S = 30.0
"""Reliable cells come a few a second: over less, their rate would jump about."""
LEAST_RATES_S = 3.0
_EVERY_S = 0.5
LEAST_SHARE = 0.02
"""Before that, an estimate of the time left would be a guess."""


class Pace:
    """Frames a second over the last `WINDOW_S`, cells and tracks over `RATES_S`; told by whoever looks.

    Lifecycle: construct as the run begins -> `poll` and `count` -> `end`.

    Attributes
    ----------
    frames_per_s : float
        Of the whole run once it has ended.
    """

    def __init__(self) -> None:
        self.frames_per_s = 0.0
        self._began = self._came = time.monotonic()
        self._polls: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._counts: deque[tuple[float, int, int, float]] = deque([(self._began, 0, 0, 0.0)])
        self._now = False

    def count(self, cells: int, tracks: int, camera_s: float) -> None:
        """Take note of the cells counted, the tracks finished and the camera's time up to now."""
        now = time.monotonic()
        if now - self._counts[-1][0] < _EVERY_S:
            return
        self._counts.append((now, cells, tracks, camera_s))
        while now - self._counts[1][0] > RATES_S:
            self._counts.popleft()

    def rates(self) -> Rates:
        """Return what came in a second of late."""
        then, now = self._counts[0], self._counts[-1]
        if self._now or (seconds := now[0] - then[0]) < LEAST_RATES_S:
            return Rates()
        cells, tracks, camera_s = ((new - old) / seconds for new, old in zip(now[1:], then[1:], strict=True))
        return Rates(cells, tracks, camera_s)

    def poll(self, received: int) -> None:
        """Take note of how many frames there are now."""
        now = time.monotonic()
        if received > self._polls[-1][1]:
            self._came = now
        self._polls.append((now, received))
        while len(self._polls) > 2 and now - self._polls[1][0] > WINDOW_S:
            self._polls.popleft()
        then, before = self._polls[0]
        self.frames_per_s = (received - before) / max(now - then, 1e-3)

    def end(self, received: int) -> None:
        """No more frames come."""
        self.poll(received)
        self._now = True
        self.frames_per_s = received / max(self._came - self._began, 1e-3)

    def seconds_left(self, share: float | None) -> float | None:
        """Return how long the rest takes if it goes on as before; None where that cannot be told yet."""
        if share is None or share < LEAST_SHARE or self._now:
            return None
        return (time.monotonic() - self._began) * (1 - share) / share


@dataclass(frozen=True)
class Progress:
    """How a run stands at one moment.

    Attributes
    ----------
    status : RunStatus
    received, processed, dropped, missed : int
        Frames; those that came after the stop are not among the dropped, for nobody wanted them.
    seconds : float
        Camera time of the last frame that was processed.
    open_tracks : int
    cells : Counter of str
        By label, named as in ``run.json``.
    n : int
        Cells counted.
    estimate : float
        NaN where no cell was counted.
    interval : (float, float)
        While the run goes on the anytime interval, then the one that belongs to its end.
    level : float
        Of the interval.
    missing : str
        In a few words, what the stop rules still lack.
    total_frames : int or None
        Of a movie; None where frames come until somebody stops them.
    frames_per_s : float
        Frames received a second, over the last second or two; of the whole run once it has ended.
    stop_share : float or None
        How far the run has come towards its stop, 0 to 1; None where nothing but a person will stop it.
    seconds_left : float or None
        Until then if all goes on as before; None where that cannot be told yet.
    lag_s : float
        How far the run is behind its source (`Stages.lag_s`): who shows it gives way.
    method : str
        Which interval, as in ``run.json``.
    rules : tuple of RuleProgress
        How far it is to each stop rule in force.
    stop_sentence : str
        As in ``run.json``.
    warned : tuple of RunWarning or None
        What the run's quality says, grave warnings first; None until it was looked at.
    quality : tuple of QualityLine
        The same measures in words.
    room : str
        A sentence where the disk will be full before the run ends, or within half an hour.
    dropped_by, missed_by : mapping of str to int
        The frames of `dropped` and `missed` by reason.
    labels_behind_s : float
        How long the oldest finished track has waited for its label.
    """

    status: RunStatus
    received: int
    processed: int
    dropped: int
    missed: int
    seconds: float
    open_tracks: int
    cells: Counter[str]
    n: int
    estimate: float
    interval: tuple[float, float]
    level: float
    missing: str
    total_frames: int | None = None
    frames_per_s: float = 0.0
    stop_share: float | None = None
    seconds_left: float | None = None
    lag_s: float = 0.0
    method: str = ANYTIME
    rules: tuple[RuleProgress, ...] = ()
    stop_sentence: str = ""
    warned: tuple[RunWarning, ...] | None = None
    quality: tuple[QualityLine, ...] = ()
    room: str = ""
    dropped_by: Mapping[str, int] = field(default_factory=dict)
    missed_by: Mapping[str, int] = field(default_factory=dict)
    labels_behind_s: float = 0.0


def behind_sentence(labels_behind_s: float) -> str:
    """Say that labels come late, while a run goes on; empty where they do not."""
    return "" if labels_behind_s < LATE_LABELS_S else say("pipeline.labels-late", seconds=labels_behind_s)


def warnings_of(
    info: SourceInfo,
    *,
    dropped: Mapping[str, int],
    missed: Mapping[str, int],
    ring_skipped: int,
) -> list[str]:
    """Return what a person must be told beside what the run's quality says, in plain sentences."""
    warnings = list(info.warnings)
    if n := sum(missed.values()):
        warnings.append(say("pipeline.frames-missed", frames=n, reasons=by_reason(missed)))
    if n := dropped.get("queue-full", 0):
        warnings.append(say("pipeline.frames-dropped", frames=n))
    if ring_skipped:
        warnings.append(say("pipeline.ring-skipped", frames=ring_skipped))
    return warnings


Ended = tuple[RunStatus, str]
"""Status and stop reason as in ``run.json``: a `StopReason`, or the sentence of a failed run."""
GOES_ON: Ended = (RunStatus.RUNNING, "")
SOURCE_ENDED: Ended = (RunStatus.FINISHED, StopReason.SOURCE_ENDED)
_LEAVE_THE_REST_TO_COUNT = (SOURCE_ENDED, (RunStatus.FINISHED, StopReason.SECONDS))
"""After these, what waits to be judged still counts, and may meet a rule of the cells."""


class Outcome:
    """Status and stop reason of a run, set from any of its threads.

    Attributes
    ----------
    failed : bool
        Whether a part of the run itself broke. A source that breaks ends the run as failed too, but
        leaves everything behind it working: then `failed` stays False.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = GOES_ON
        self.failed = False

    @property
    def now(self) -> Ended:
        """Status and stop reason as in ``run.json``; `GOES_ON` until something ended the run."""
        return self._now

    @property
    def source_ended(self) -> bool:
        """Whether the source came to its own end."""
        return self._now == SOURCE_ENDED

    def end(self, status: RunStatus, reason: str) -> None:
        """End the run, unless something else did before."""
        with self._lock:
            if self._now == GOES_ON:
                self._now = (status, reason)

    def rule_met(self, reason: str) -> None:
        """A stop rule was met, be it by the last cells of a source whose end or time had just come."""
        with self._lock:
            if self._now == GOES_ON or self._now in _LEAVE_THE_REST_TO_COUNT:
                self._now = (RunStatus.FINISHED, reason)

    def fail(self, error: BaseException) -> bool:
        """A part of the run broke; return whether it is the first."""
        with self._lock:
            first, self.failed = not self.failed, True
            if first:
                self._now = (RunStatus.FAILED, reason_of(error))
        return first


def reason_of(error: BaseException) -> str:
    """Return the sentence with which a run ends: our own, or one round what nobody foresaw."""
    if isinstance(error, RbcflowError):
        return str(error)
    what = f"{type(error).__name__}: {in_a_line(error)}".removesuffix(": ")
    return say("pipeline.part-broke", what=what)
