"""What every part shares: a frame, a track, what is said of it, and the numbers of the optics.

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
"""Pixel of every crop, whatever the camera's own."""
DEFAULT_PIXEL_SIZE_UM = 0.605
DEFAULT_FPS = 60.0
LEAST_FRAMES = 6
"""Shorter sequences are kept as too short: "they indicated a problem" (Darrin et al. 2023)."""


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
    """What is said of a track."""

    TANK_TREADING = "tank-treading"
    FLIPPING = "flipping"
    UNRELIABLE = "unreliable"
    TOO_SHORT = "too-short"
    UNCOUNTED = "uncounted"


@dataclass(slots=True, frozen=True, eq=False)
class Frame:
    """One frame as it came.

    Attributes
    ----------
    index : int
        Place on the source's own clock, from 0. A gap in the indices is frames that were missed:
        they never reached us, and `FrameSource.missed` says why.
    time_s : float
        Camera time in seconds since the first frame; nominal (index / fps) for a movie.
    image : ndarray of uint8, shape (height, width)
        Grey. Belongs to whoever receives it; nobody writes into it.
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
        For a person: ``simulated chamber``, ``DemoCamera``, the movie's file name.
    height, width : int
        Of every frame, in pixels.
    fps : float
        Frames per second, `fps_known` False where it is only the default.
    pixel_size_um : float
        `pixel_size_known` False where it is only the default.
    exposure_ms : float or None
    n_frames : int or None
        None where it cannot be known beforehand.
    live : bool
        True: frames come at their own pace, whether we are ready or not, and those that find no room
        are dropped. False: the source waits for us.
    can_wait : bool
        A live source that loses nothing by waiting, a movie in a camera's place: it falls behind where we
        are slow, and drops no frame, so that its result does not depend on the computer's load.
    details : mapping of str to str
        What else belongs in the record: file, codec, camera, adapter, seed.
    warnings : tuple of str
        Plain sentences for log and report.
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


Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Grey = NDArray[np.uint8]

LEAST_ALONE = 12
"""With fewer frames in which no other cell stands in the crop, a track is judged by all that it has.
A fifth of a flip's cycle."""
FRAGMENTS_REMEMBERED = 8192
"""A track may continue one of this many before it, and none earlier: half a minute at the paper's maximum
load, where the slowest cell crosses the field in a third of that."""


class FrameSource(ABC):
    """Where frames come from.

    Lifecycle: construct (cheap, touches nothing) -> `open` -> iterate `frames` once, in one
    thread -> `close`. `stop` may be called from any thread at any time, more than once; `frames`
    then ends within a second and the camera stops. `close` may be called more than once, also
    after a failed `open`, and leaves no thread, process or camera behind. ``with source:`` opens
    and closes.

    Raises
    ------
    BadInput
        From `open`, where what was asked for cannot be had.
    RunFailed
        From `frames`, where the source breaks (the camera went away, the movie is cut short):
        one sentence. All frames before that were yielded.
    """

    @abstractmethod
    def open(self) -> SourceInfo:
        """Make ready, and say what will come."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends or `stop` is called."""

    @abstractmethod
    def stop(self) -> None:
        """Ask for no more frames; returns at once."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    @property
    def missed(self) -> Mapping[str, int]:
        """Frames that never reached us, by reason (``image-number``, ``time-gap``, ``overflow``, ...)."""
        return {}

    @property
    def silence_s(self) -> float | None:
        """Seconds without a frame after which `frames` must be taken for hung; None where it never is.

        A source that can tell says so itself, and earlier.
        """
        return None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said at the end beside the result, such as a simulation's own fraction."""
        return ()

    def __enter__(self) -> SourceInfo:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordedSource(FrameSource):
    """A source whose frames can be read in any order, so that a background over it all is possible."""

    @abstractmethod
    def sample(self, n: int) -> NDArray[np.uint8]:
        """Return up to `n` frames spread evenly over the movie, shape (m, height, width), uint8.

        Call between `open` and the end of `frames`, from the thread that iterates or before it starts.

        Raises
        ------
        BadInput
            Where one of them cannot be read.
        """


@dataclass(slots=True, eq=False)
class Track:
    """One finished track: a cell's way through the field, one entry a frame.

    Attributes
    ----------
    cell : int
        Number of the track, from 1, in order of first detection; unique in a run.
    frames : ndarray of int64, shape (n,)
        Frame indices as the source gave them (`Frame.index`), ascending. A frame that never reached us, was
        dropped or could not be analysed leaves a gap: nothing is put in its place.
    y_px, x_px : ndarray of float32, shape (n,)
        Position in camera pixels; (0, 0) is the centre of the upper left pixel.
    seen : ndarray of bool, shape (n,)
        False where the position was predicted (through an overlap), not detected.
    intruded : ndarray of bool, shape (n,)
        True where another cell stands in the crop.
    edge : ndarray of bool, shape (n,)
        True where the crop was cut by the field's edge and replicates it.
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
        Raw grey at `CROP_PIXEL_SIZE_UM`.
    reason : str
        Why the track ended: ``left-field``, ``lost``, ``ambiguous``, ``source-ended`` or
        ``cut-by-stop``.
    may_continue : tuple of int
        Numbers of earlier tracks that may be of the same cell, ascending: then this one is another
        fragment of it. A track that ended ``ambiguous`` is named with the one that it could not be told
        from. What those tracks may continue themselves is not repeated.
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
        """Fewer frames than the paper keeps."""
        return len(self.frames) < LEAST_FRAMES

    @property
    def crops_alone(self) -> NDArray[np.uint8]:
        """Those crops in which no other cell stands, where there are `LEAST_ALONE` of them; else all."""
        alone = ~self.intruded
        return self.crops[alone] if alone.sum() >= LEAST_ALONE and not alone.all() else self.crops

    @property
    def gap_frames(self) -> int:
        """Frames between the first and the last of which there is no picture."""
        return int(self.frames[-1] - self.frames[0]) + 1 - len(self.frames)

    def speed_px_per_frame(self) -> float:
        """Mean speed along x between first and last position, by the frames that went by in between, those
        without a picture too; 0 for a single position.
        """  # noqa: D205
        span = int(self.frames[-1] - self.frames[0])
        return float(self.x_px[-1] - self.x_px[0]) / span if span else 0.0


@dataclass(slots=True, frozen=True)
class Judgement:
    """What is said of one track.

    Attributes
    ----------
    cell : int
    label : Label
    p_reliable, p_tank_treading : float or None
        Probabilities rounded to four decimals, the label made from the rounded ones. None where
        the stage was not run: neither for a track too short, the second not for an unreliable one.
    reason : str
        In a word why: the track's own reason, ``too-short``, ``stage-1``, ``stage-2``, ``undecided``
        (reliable, but of neither kind surely enough: labelled unreliable), ...
    """

    cell: int
    label: Label
    p_reliable: float | None
    p_tank_treading: float | None
    reason: str
