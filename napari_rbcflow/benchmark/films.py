"""The simulated chamber, rendered before anything is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.benchmark.effort import Effort
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.sources.base import FrameSource
from napari_rbcflow.types import DEFAULT_FPS, Frame, SourceInfo

_SEED = 5


def settings(effort: Effort, *, cells: float, binned: int = 1) -> ChamberSettings:
    """Return the chamber; with `binned` 2 at the full sensor, whose pixel is half as wide."""
    return ChamberSettings(
        height=effort.height * binned,
        width=effort.width * binned,
        pixel_size_um=effort.pixel_size_um / binned,
        cells_per_frame=cells,
        seed=_SEED,
        variety=effort.variety,
    )


def held(chamber: ChamberSettings, frames: int) -> NDArray[np.uint8]:
    """Render frames into memory, shape (frames, height, width)."""
    film = np.empty((frames, chamber.height, chamber.width), np.uint8)
    source = SimulatedChamber(chamber, paced=False)
    with source:
        for k, frame in zip(range(frames), source.frames(), strict=False):
            film[k] = frame.image
        source.stop()
    return film


class PlayedFilm(FrameSource):
    """A film played in a camera's place, at its pace, again and again.

    Parameters
    ----------
    film : ndarray of uint8, shape (frames, height, width)
    pixel_size_um : float
    seconds : float
        How long.
    """

    def __init__(self, film: NDArray[np.uint8], pixel_size_um: float, seconds: float) -> None:
        self._film, self._pixel_size_um = film, pixel_size_um
        self._n = round(seconds * DEFAULT_FPS)
        self._stop = threading.Event()

    def open(self) -> SourceInfo:
        """Say what will come."""
        _, height, width = self._film.shape
        return SourceInfo(
            "benchmark", height, width, DEFAULT_FPS, self._pixel_size_um, n_frames=self._n, live=True
        )

    def frames(self) -> Iterator[Frame]:
        """Yield frames on an absolute schedule; a late one comes at once."""
        start = time.perf_counter()
        for k in range(self._n):
            wait = start + k / DEFAULT_FPS - time.perf_counter()
            if self._stop.wait(max(0.0, wait)):
                return
            yield Frame(k, k / DEFAULT_FPS, self._film[k % len(self._film)].copy())

    def stop(self) -> None:
        """End the frames."""
        self._stop.set()

    def close(self) -> None:
        """Nothing to give back."""
