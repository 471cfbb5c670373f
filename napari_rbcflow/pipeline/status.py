"""How a run stands, for whoever watches it; from any thread."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.estimate import ANYTIME, Rates, RuleProgress
from napari_rbcflow.quality import QualityLine, RunWarning
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import in_a_line
from napari_rbcflow.types import Judgement, Label, RunStatus, StopReason, Track, Verdict

COUNTED_AGAIN = b"\x02"
"""In `Snapshot.counted`: all cells that count follow, and those before it count no more."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run at one moment, and what was judged since the snapshot before.

    Attributes
    ----------
    progress : Progress
    frame : int or None
        The last frame that was tracked; with a sliding background, about 50 frames behind the newest.
    newest : int or None
        The newest frame received.
    newest_s : float
        Its camera time.
    cell : ndarray of int64, shape (m,)
        The open tracks in `frame`.
    y_px, x_px : ndarray of float32, shape (m,)
        Their positions, in camera pixels.
    judged : tuple of JudgedCell
        Oldest first; after a long pause, only the last `REMEMBERED`.
    counted : bytes
        The cells counted since, in order: 1 tank-treading, 0 flipping. None is ever left out. See
        `COUNTED_AGAIN`.
    warnings : tuple of str
    outcome : Outcome
        What ended the run, as soon as it is known; `GOES_ON` before. Its session may still be open, and the
        last cells or a fault may change it.
    """

    progress: Progress
    frame: int | None = None
    newest: int | None = None
    newest_s: float = 0.0
    cell: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    y_px: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    x_px: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    judged: tuple[JudgedCell, ...] = ()
    counted: bytes = b""
    warnings: tuple[str, ...] = ()
    outcome: Outcome = field(default_factory=lambda: Outcome())


REMEMBERED = 2048  # cells: ten seconds at 200 tracks a second, in two megabytes


@dataclass(frozen=True, eq=False)
class JudgedCell:
    """One judged track, without its sequence, which is in the session.

    Its position is the last one, in camera pixels; its crop, of shape (CROP_SIDE, CROP_SIDE), is from the
    middle of the sequence; all else is as in ``cells.csv``.
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
    """The last `REMEMBERED` judged cells, of `n` in all; added by one thread and read by any other."""

    def __init__(self) -> None:
        self._cells: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self.n = 0

    def add(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        cells = [JudgedCell.of(track, judgement) for track, judgement in pairs]
        with self._lock:
            self._cells.extend(cells)
            self.n += len(cells)

    def since(self, n: int) -> tuple[int, tuple[JudgedCell, ...]]:
        """Return how many there are in all, and those after the first `n` that are still remembered."""
        with self._lock:
            new = min(self.n - n, len(self._cells))
            return self.n, tuple(islice(self._cells, len(self._cells) - new, None))


WINDOW_S = 2.0
RATES_S = 30.0  # there are only a few reliable cells per second: over less time, their rate would jump about
LEAST_RATES_S = 3.0
_EVERY_S = 0.5
LEAST_SHARE = 0.02  # before that, an estimate of the time left would be a guess


class Pace:
    """Frames per second over the last `WINDOW_S` (or over a run that has ended), other rates over `RATES_S`.

    Lifecycle: construct as the run begins -> `poll` and `count` -> `end`.
    """

    def __init__(self) -> None:
        self.frames_per_s = 0.0
        self._began = self._came = time.monotonic()
        self._polls: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._counts: deque[tuple[float, int, int, float]] = deque([(self._began, 0, 0, 0.0)])
        self._ended = False

    def count(self, cells: int, tracks: int, camera_s: float) -> None:
        """Note the cells counted, the tracks finished and the camera seconds up to now."""
        now = time.monotonic()
        if now - self._counts[-1][0] < _EVERY_S:
            return
        self._counts.append((now, cells, tracks, camera_s))
        while now - self._counts[1][0] > RATES_S:
            self._counts.popleft()

    def rates(self) -> Rates:
        then, now = self._counts[0], self._counts[-1]
        if self._ended or (seconds := now[0] - then[0]) < LEAST_RATES_S:
            return Rates()
        cells, tracks, camera_s = ((new - old) / seconds for new, old in zip(now[1:], then[1:], strict=True))
        return Rates(cells, tracks, camera_s)

    def poll(self, received: int) -> None:
        """Note the frames received up to now."""
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
        self._ended = True
        self.frames_per_s = received / max(self._came - self._began, 1e-3)

    def seconds_left(self, share: float | None) -> float | None:
        """Return how long the rest takes at the same pace; None if it is too early to tell."""
        if share is None or share < LEAST_SHARE or self._ended:
            return None
        return (time.monotonic() - self._began) * (1 - share) / share


@dataclass(frozen=True)
class Progress:
    """How a run stands at one moment.

    Attributes
    ----------
    status : RunStatus
    received, processed, dropped, missed : int
        Frames; the dropped ones without those that came after the stop.
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
        The anytime interval during the run, then the one that is valid for its end.
    level : float
        Of the interval.
    missing : str
        In a few words, what is missing until a stop rule is met.
    total_frames : int or None
        Of a movie; None if frames come until somebody stops them.
    frames_per_s : float
        Received, over the last second or two; of the whole run once it has ended.
    stop_share : float or None
        How far the run has come towards its stop, 0 to 1; None if only a person will stop it.
    seconds_left : float or None
        Until then, at the same pace; None if it is too early to tell.
    lag_s : float
        How far the run is behind its source (`Stages.lag_s`); then whoever shows it gives way.
    method : str
        Which interval, as in ``run.json``.
    rules : tuple of RuleProgress
        How far it is to each stop rule in force.
    stop_sentence : str
        As in ``run.json``.
    warned : tuple of RunWarning or None
        Grave ones first; None before the first check of the run's quality.
    quality : tuple of QualityLine
        The measures of its quality, in words.
    room : str
        A sentence if the disk will be full before the run ends, or within half an hour; else empty.
    dropped_by, missed_by : mapping of str to int
        The frames of `dropped` and `missed` by reason.
    labels_behind_s : float
        How long the oldest finished track has waited for its label.
    verdict : Verdict
    verdict_reason : str
        As in ``run.json``.
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
    verdict: Verdict = Verdict.NO_RESULT
    verdict_reason: str = ""


class Outcome(NamedTuple):
    """How a run ended, as in ``run.json``: `reason` is a `StopReason`, or the sentence of a failed run."""

    status: RunStatus = RunStatus.RUNNING
    reason: str = ""


GOES_ON = Outcome()
_SOURCE_ENDED = Outcome(RunStatus.FINISHED, StopReason.SOURCE_ENDED)
_REST_STILL_COUNTS = (_SOURCE_ENDED, Outcome(RunStatus.FINISHED, StopReason.SECONDS))
"""After these, what waits to be judged still counts, and may meet a rule of the cells."""


class Ending:
    """What ended a run, set from any of its threads.

    `failed` says whether a part of the run itself broke. A source that breaks ends the run as failed too, but
    leaves everything behind it working: then `failed` stays False.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outcome = GOES_ON
        self.failed = False

    @property
    def source_ended(self) -> bool:
        """Whether the source came to its own end."""
        return self.outcome == _SOURCE_ENDED

    def end(self, status: RunStatus, reason: str) -> None:
        """End the run, unless something else did before."""
        with self._lock:
            if self.outcome == GOES_ON:
                self.outcome = Outcome(status, reason)

    def stop(self, *, read_ahead: bool = False) -> None:
        """A person's wish; of a movie that is read ahead, the end that was read does not count yet."""
        with self._lock:
            if self.outcome == GOES_ON or (read_ahead and self.source_ended):
                self.outcome = Outcome(RunStatus.STOPPED, StopReason.USER)

    def rule_met(self, reason: str) -> None:
        """A stop rule was met, perhaps by the last cells of a source whose end or time had just come."""
        with self._lock:
            if self.outcome == GOES_ON or self.outcome in _REST_STILL_COUNTS:
                self.outcome = Outcome(RunStatus.FINISHED, reason)

    def fail(self, error: BaseException) -> bool:
        """A part of the run broke; return whether it is the first."""
        with self._lock:
            first, self.failed = not self.failed, True
            if first:
                self.outcome = Outcome(RunStatus.FAILED, reason_of(error))
        return first


def reason_of(error: BaseException) -> str:
    """Return the sentence with which a run ends: our own, or one that names an unforeseen error."""
    if isinstance(error, RbcflowError):
        return str(error)
    what = f"{type(error).__name__}: {in_a_line(error)}".removesuffix(": ")
    return say("pipeline.part-broke", what=what)
