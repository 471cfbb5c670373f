"""Measuring in a process of its own, by its CPU time, on films rendered before anything is measured."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import RbcflowError, RunFailed
from napari_rbcflow.ipc import Child, parent
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.sources import FrameSource
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, SourceInfo

_PATIENCE_S = 5.0
Report = Callable[[float, str], None]  # takes the share done, 0 to 1, and what is being done


def in_child(work: str, order: Any, progress: Report) -> dict[str, Any]:
    """Do `work`, a ``module:function`` of an order and a `Report`, in a fresh process; return its result.

    It raises what `work` did, and `RunFailed` too if the process breaks or dies.
    """
    child = Child(__name__, work)
    try:
        child.pipe.send(order)
        while (message := child.pipe.receive()) is not None:
            if isinstance(message, RbcflowError):
                raise message
            if isinstance(message, dict):
                return message
            progress(*message)
        raise RunFailed("benchmark.process-died", code=child.wait())
    except BaseException:  # an interrupt too: nothing that it does is wanted any more
        child.process.kill()
        raise
    finally:
        child.pipe.close_outgoing()
        child.end(_PATIENCE_S)


def main() -> None:
    """Do the work whose name is the argument, and tell the parent."""
    pipe = parent()

    def report(share: float, note: str) -> None:
        if not pipe.send((share, note)):
            os._exit(1)  # nobody listens any more

    try:
        module, _, function = sys.argv[1].partition(":")
        pipe.send(getattr(importlib.import_module(module), function)(pipe.receive(), report))
    except RbcflowError as error:
        pipe.send(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = {"file": last.filename, "line": last.lineno}
        pipe.send(RunFailed("benchmark.process-failed", kind=type(error).__name__, why=error, **where))


step_clock = time.perf_counter if sys.platform == "win32" else time.process_time
"""Of one step in a process that does nothing else. Windows counts CPU time in steps of 16 ms: too coarse."""


@contextmanager
def stepwise(
    steps: Mapping[str, tuple[type, str]], clock: Callable[[], float] = step_clock
) -> Iterator[dict[str, float]]:
    """Have each call of a method add its seconds to its step; the caller may set them back to 0.

    `step_clock` also counts what threads of a library do meanwhile (OpenCV's), so nothing else may run in
    the process; `time.thread_time` counts the calling thread alone.
    """
    spent = dict.fromkeys(steps, 0.0)

    def timed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def call(*args: Any, **named: Any) -> Any:
            start = clock()
            try:
                return step(*args, **named)
            finally:
                spent[name] += clock() - start

        return call

    with _replaced({name: (*at, timed(name, getattr(*at))) for name, at in steps.items()}):
        yield spent


@contextmanager
def since_first(owner: type, method: str) -> Iterator[list[Stopwatch]]:
    """Start a stopwatch at the first call of a method; the list is empty until then."""
    started: list[Stopwatch] = []
    plain = getattr(owner, method)

    @functools.wraps(plain)
    def call(*args: Any, **named: Any) -> Any:
        if not started:
            started.append(Stopwatch())
        return plain(*args, **named)

    with _replaced({"": (owner, method, call)}):
        yield started


@contextmanager
def _replaced(methods: Mapping[str, tuple[type, str, Callable[..., Any]]]) -> Iterator[None]:
    plain = [(owner, method, getattr(owner, method)) for owner, method, _ in methods.values()]
    for owner, method, other in methods.values():
        setattr(owner, method, other)
    try:
        yield
    finally:
        for owner, method, own in plain:
            setattr(owner, method, own)


class Stopwatch:
    """CPU seconds of this process, and seconds by the clock, since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall, self._step = time.process_time(), time.perf_counter(), step_clock()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all threads together."""
        return time.process_time() - self._cpu

    @property
    def wall_s(self) -> float:
        """Seconds by the clock."""
        return time.perf_counter() - self._wall

    @property
    def steps_s(self) -> float:
        """Seconds of the clock that `stepwise` uses, to which its steps add up."""
        return step_clock() - self._step


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
    """A film played in a camera's place, at its pace, in a loop for so many seconds."""

    def __init__(self, film: NDArray[np.uint8], pixel_size_um: float, seconds: float) -> None:
        self._film, self._pixel_size_um = film, pixel_size_um
        self._n = round(seconds * DEFAULT_FPS)
        self._stop = threading.Event()

    def open(self) -> SourceInfo:
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
        self._stop.set()

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Effort:
    """What is simulated, and for how long each part is measured.

    Attributes
    ----------
    height, width : int
        Of the binned field, in pixels of `pixel_size_um`; the full sensor has twice as many each way.
    pixel_size_um : float
    cells, many_cells : float
        Mean cells per frame: the usual load and a crowded one.
    movie_frames : int
        Of the movie with `cells`, which is tracked, analysed and played live.
    held_frames : int
        Of these, held in memory for what is measured in a loop.
    crowded_frames, sensor_frames : int
        Of the movies with `many_cells` and at the full sensor; each is tracked twice.
    ring_frames : int
        Written to the ring.
    judged_tracks : int
    live_s : float
    endless_frames : int
        Tracked in a loop at most, to compare late with early.
    endless_s : float or None
        Most seconds for that, by the clock; None for as long as it takes.
    copied_bytes : int
        Of the block that is copied to find the memory's bandwidth; many times the cache.
    variety : float
        Of the simulated cells (`ChamberSettings`): fewer different ones are rendered in less time.
    """

    height: int = 1096
    width: int = 1376
    pixel_size_um: float = DEFAULT_PIXEL_SIZE_UM
    cells: float = 115.0
    many_cells: float = 220.0
    movie_frames: int = 360
    held_frames: int = 240
    crowded_frames: int = 120
    sensor_frames: int = 90
    ring_frames: int = 300
    judged_tracks: int = 480
    live_s: float = 6.0
    endless_frames: int = 3600
    endless_s: float | None = 20.0
    copied_bytes: int = 256 * 2**20
    variety: float = 0.25

    @property
    def disk_bytes(self) -> int:
        """The most on the disk at once: the movie, and the sessions with their rings."""
        session_s = self.movie_frames / DEFAULT_FPS + self.live_s
        return (self.movie_frames + 120) * self.height * self.width + int(session_s * 10e6)


QUICK = Effort(
    height=320,
    width=800,
    cells=20.0,
    many_cells=40.0,
    movie_frames=80,
    held_frames=80,
    crowded_frames=60,
    sensor_frames=60,
    ring_frames=40,
    judged_tracks=8,
    live_s=1.0,
    endless_frames=80,
    endless_s=5.0,
    copied_bytes=16 * 2**20,
    variety=0.02,
)
"""Everything once, on a small field: shows that it works, but its figures say little."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a measuring process is told; `folder` is its own, for whatever it writes."""

    effort: Effort
    device: str
    folder: Path


if __name__ == "__main__":
    main()
