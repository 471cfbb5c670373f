"""The one contract behind which every camera, movie and simulation stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import Frame, SourceInfo


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
