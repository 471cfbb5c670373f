"""What every part shares: a frame, a track, its judgement, and the numbers of the optics.

Optics and geometry are those of Darrin et al., Scientific Reports 13 (2023) 745; what the paper leaves open
is inferred from its published crops. They are defaults: settings and files override them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

CROP_SIDE = 31
"""Side of a cell's crop, in pixels of `CROP_PIXEL_SIZE_UM`."""
CROP_PIXEL_SIZE_UM = 0.605
"""Pixel of every crop, whatever the pixel of the camera."""
DEFAULT_PIXEL_SIZE_UM = 0.605
DEFAULT_FPS = 60.0
LEAST_FRAMES = 6
"""Shorter sequences are kept as too short: "they indicated a problem" (Darrin et al. 2023)."""


SIMULATED_MARK = "rbcflow_simulated"
"""True in what a movie file says of itself, and in a ring, where its frames are simulated."""


class RunStatus(StrEnum):
    """How a run stands, as in ``run.json``."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class StopReason(StrEnum):
    """What ended a run, as in ``run.json``; a failed run has a sentence in its place."""

    RELIABLE = "reliable"
    HALF_WIDTH = "half-width"
    SECONDS = "seconds"
    TRACKS = "tracks"
    BASELINE = "baseline"
    SOURCE_ENDED = "source-ended"
    USER = "user"


class Label(StrEnum):
    """What a track was judged to be."""

    TANK_TREADING = "tank-treading"
    FLIPPING = "flipping"
    UNRELIABLE = "unreliable"
    TOO_SHORT = "too-short"
    UNCOUNTED = "uncounted"


class Verdict(StrEnum):
    """Whether a person may act on a session's number, as in ``run.json`` and ``review.json``."""

    RESULT = "result"
    PROVISIONAL = "provisional"
    """A person must check some cells first."""
    NO_RESULT = "no-result"


@dataclass(slots=True, frozen=True, eq=False)
class Frame:
    """One frame of a source.

    Attributes
    ----------
    index : int
        Place on the source's own clock, from 0. A gap in the indices is frames that never reached this
        program: `FrameSource.missed` says why.
    time_s : float
        Camera time in seconds since the first frame; nominal (index / fps) for a movie.
    image : ndarray of uint8, shape (height, width)
        Grey. Belongs to the receiver; nobody writes into it.
    """

    index: int
    time_s: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source once it is open.

    Attributes
    ----------
    name : str
        For a person: ``simulated chamber``, ``DemoCamera``, the name of the movie's file.
    height, width : int
        Of every frame, in pixels.
    fps : float
        Frames per second; `fps_known` is False if this is only the default.
    pixel_size_um : float
        `pixel_size_known` is False if this is only the default.
    exposure_ms : float or None
    n_frames : int or None
        None if it cannot be known beforehand.
    live : bool
        True: frames come at their own pace, and those for which there is no room are dropped. False: the
        source waits for its reader.
    can_wait : bool
        A live source that loses nothing by waiting, a movie in a camera's place: it falls behind a slow
        reader and drops no frame, so that its result does not depend on the computer's load.
    details : mapping of str to str
        Other things for the record: file, codec, camera, adapter, seed.
    warnings : tuple of str
        Sentences for the log and the report.
    simulated : bool
        The frames are not a camera's or a recording's: a simulation, a test camera, a movie that plays in a
        camera's place.
    lossy_codec : str
        The compression that threw part of every frame away, ``h264`` or ``jpeg``; empty where there was none.
    """

    name: str
    height: int
    width: int
    fps: float
    pixel_size_um: float
    fps_known: bool = True
    pixel_size_known: bool = True
    exposure_ms: float | None = None
    n_frames: int | None = None
    live: bool = False
    can_wait: bool = False
    details: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    simulated: bool = False
    lossy_codec: str = ""


Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Grey = NDArray[np.uint8]

LEAST_ALONE = 12
"""A fifth of a flip's cycle: with fewer frames alone in its crop, a track is judged by all its frames."""
FRAGMENTS_REMEMBERED = 8192
"""A track may continue one of this many before it, and none earlier: half a minute at the paper's maximum
load; the slowest cell crosses the field in a third of that."""


class FrameSource(ABC):
    """Where frames come from.

    Lifecycle: construct (cheap, touches nothing) -> `open` -> iterate `frames` once, in one thread ->
    `close`. `stop` may be called from any thread at any time, more than once; `frames` then ends within a
    second and the camera stops. `close` may be called more than once, also after a failed `open`, and leaves
    no thread, process or camera behind. ``with source:`` opens and closes.

    Raises
    ------
    BadInput
        From `open`, if what was asked for is not available.
    RunFailed
        From `frames`, if the source breaks (the camera went away, the movie is cut short). All frames before
        that were yielded.
    """

    def prepare(self) -> None:  # noqa: B027
        """Begin, in a thread of its own, what takes time and touches no device; `open` waits for it.

        Need not be called. Whoever has other things to load before a run calls it first.
        """

    @abstractmethod
    def open(self) -> SourceInfo:
        """Get ready, and say what will come."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends or `stop` is called."""

    @abstractmethod
    def stop(self) -> None:
        """Ask for no more frames; return at once."""

    @abstractmethod
    def close(self) -> None:
        """Release everything."""

    @property
    def missed(self) -> Mapping[str, int]:
        """Frames that never reached this program, by reason (``image-number``, ``time-gap``, ...)."""
        return {}

    @property
    def silence_s(self) -> float | None:
        """Seconds without a frame after which `frames` counts as hung; None if it never does.

        A source that can tell raises by itself, and earlier.
        """
        return None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences to show with the result, such as a simulation's own fraction."""
        return ()

    def __enter__(self) -> SourceInfo:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordedSource(FrameSource):
    """A source whose frames can be read in any order, so that its background can be a median of them all."""

    @abstractmethod
    def sample(self, n: int) -> NDArray[np.uint8]:
        """Return up to `n` frames spread evenly over the movie, shape (m, height, width), uint8.

        Call between `open` and the end of `frames`, from the thread that iterates or before it starts.

        Raises
        ------
        BadInput
            If one of them cannot be read.
        """


@dataclass(slots=True, eq=False)
class Track:
    """One finished track: a cell's way through the field, one entry per frame.

    Attributes
    ----------
    cell : int
        Number of the track, from 1, in order of first detection; unique in a run.
    frames : ndarray of int64, shape (n,)
        Indices of the frames (`Frame.index`), ascending. A frame that never reached this program, was dropped
        or could not be analysed leaves a gap.
    y_px, x_px : ndarray of float32, shape (n,)
        Position in camera pixels; (0, 0) is the centre of the upper left pixel.
    seen : ndarray of bool, shape (n,)
        False where the position was predicted (through an overlap), not detected.
    intruded : ndarray of bool, shape (n,)
        True where another cell is in the crop.
    edge : ndarray of bool, shape (n,)
        True where the crop reaches beyond the field, whose last pixels it repeats there.
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
        Raw grey at `CROP_PIXEL_SIZE_UM`; in even light where the field's was too uneven to judge cells.
    reason : str
        Why the track ended: ``left-field``, ``lost``, ``ambiguous``, ``source-ended`` or
        ``cut-by-stop``.
    may_continue : tuple of int
        Numbers of earlier tracks that may be fragments of the same cell, ascending. A track that ended
        ``ambiguous`` is named with the one that it could not be told from. What those tracks may continue
        themselves is not repeated.
    """

    cell: int
    frames: NDArray[np.int64]
    y_px: NDArray[np.float32]
    x_px: NDArray[np.float32]
    seen: NDArray[np.bool_]
    intruded: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    crops: NDArray[np.uint8]
    reason: str
    may_continue: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def too_short(self) -> bool:
        """Whether it has fewer frames than the paper keeps."""
        return len(self.frames) < LEAST_FRAMES

    @property
    def crops_alone(self) -> NDArray[np.uint8]:
        """The crops without another cell, if there are `LEAST_ALONE` of them; else all crops."""
        alone = ~self.intruded
        return self.crops[alone] if alone.sum() >= LEAST_ALONE and not alone.all() else self.crops

    @property
    def gap_frames(self) -> int:
        """Frames between the first and the last that are missing."""
        return int(self.frames[-1] - self.frames[0]) + 1 - len(self.frames)

    def speed_px_per_frame(self) -> float:
        """Return the mean speed along x over all frames from first to last; 0 for a single position."""
        span = int(self.frames[-1] - self.frames[0])
        return float(self.x_px[-1] - self.x_px[0]) / span if span else 0.0


@dataclass(slots=True, frozen=True)
class Judgement:
    """The label of one track, and the probabilities that it was made from.

    Attributes
    ----------
    cell : int
    label : Label
    p_reliable, p_tank_treading : float or None
        Rounded to four decimals; the label is made from the rounded ones. None if the stage was not run:
        both for a track too short, the second for an unreliable one.
    reason : str
        Why, in a word: the track's own reason, ``too-short``, ``stage-1``, ``stage-2``, ``undecided``
        (reliable, but not clearly of either kind: labelled unreliable), ...
    """

    cell: int
    label: Label
    p_reliable: float | None
    p_tank_treading: float | None
    reason: str
