"""The one contract behind which every camera, movie and simulation stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


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
