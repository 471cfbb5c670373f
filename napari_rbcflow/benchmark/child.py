"""Measuring in a process of its own, by its CPU time, on films rendered before anything is measured."""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.sources import FrameSource
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, SourceInfo

_PATIENCE_S = 5.0
Say = Callable[[float, str], None]


def in_child(work: str, order: Any, progress: Say) -> dict[str, Any]:
    """Do `work` in a fresh Python process, and return what it returns.

    Parameters
    ----------
    work : str
        ``module:function``, so that nobody here need load what it needs; it gets the order, and whom to
        tell how far it is.
    order : object
        That can be pickled.
    progress : callable
        Called here with the share that is done, and a note.

    Raises
    ------
    BadInput, RunFailed
        As `work` raised them; `RunFailed` too where the process breaks or dies.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(there, work, order), daemon=True)
    process.start()
    there.close()
    try:
        while True:
            try:
                kind, said = here.recv()
            except EOFError:
                process.join()
                raise RunFailed(
                    f"the measuring process died (exit code {process.exitcode}): close other programs, "
                    "it may have run out of memory, and try again"
                ) from None
            if kind == "progress":
                progress(*said)
            elif kind == "result":
                result: dict[str, Any] = said
                return result
            elif kind == "bad-input":
                raise BadInput(said)
            else:
                raise RunFailed(said)
    except BaseException:  # an interrupt too: nothing that it does is wanted any more
        process.kill()
        raise
    finally:
        process.join(_PATIENCE_S)
        process.kill()
        process.join()
        here.close()


def _serve(there: Connection, work: str, order: Any) -> None:
    # Ctrl-C is for the parent to hear, which then ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing of a library's chatter may stand in the parent's terminal.
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    said: tuple[str, Any]
    try:
        module, _, function = work.partition(":")
        measure = getattr(importlib.import_module(module), function)
        said = ("result", measure(order, lambda share, note: there.send(("progress", (share, note)))))
    except BadInput as error:
        said = ("bad-input", str(error))
    except RunFailed as error:
        said = ("failed", str(error))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = ("failed", f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})")
    with contextlib.suppress(OSError):
        there.send(said)


step_clock = time.perf_counter if sys.platform == "win32" else time.process_time
"""Of one step in a process that does nothing else. Windows counts CPU time in steps of 16 ms: too coarse."""


@contextmanager
def stepwise(
    steps: Mapping[str, tuple[type, str]], clock: Callable[[], float] = step_clock
) -> Iterator[dict[str, float]]:
    """Have each call of a method add its seconds to its step.

    Parameters
    ----------
    steps : mapping of str to (class, str)
        Methods by the step's name.
    clock : callable
        `step_clock` counts what threads of a library did meanwhile (OpenCV's) too, so nothing else may
        run in the process; `time.thread_time` counts the calling thread alone.

    Yields
    ------
    dict of str to float
        Seconds so far, by name; the caller may set them back to 0.
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


@dataclass(frozen=True, slots=True)
class Effort:
    """What is simulated and how long each part is measured.

    Attributes
    ----------
    height, width : int
        Of the binned field, pixels of `pixel_size_um`; the full sensor has twice as many each way.
    pixel_size_um : float
    cells, many_cells : float
        In a frame, mean: the usual load and a crowded one.
    movie_frames : int
        Of the movie with `cells`, which is tracked, analysed and played live.
    held_frames : int
        Of it that are held in memory, for what is measured in a loop.
    crowded_frames, sensor_frames : int
        Of the movies with `many_cells` and at the full sensor; each is tracked twice over.
    ring_frames : int
        Written to the ring.
    judged_tracks : int
    live_s : float
    endless_frames : int
        Tracked in a loop, late against early, at most.
    endless_s : float or None
        ... and no longer than this, by the clock; None for as long as it takes.
    copied_bytes : int
        Of the block that is copied to find the memory's bandwidth; many times the cache.
    variety : float
        Of the simulated cells (`ChamberSettings`): few different ones are rendered in less time.
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
        """What is on the disk at once, at most: the movie, and the sessions with their rings."""
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
    """What a measuring process is told.

    Attributes
    ----------
    effort : Effort
    device : {"auto", "cpu", "cuda"}
    folder : Path
        Its own, for whatever it writes.
    """

    effort: Effort
    device: str
    folder: Path
