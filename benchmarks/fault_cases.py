"""The faults of `faults.py`, one by one: the camera, how it is provoked, and how the run has to end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_bench import AT, Bench, KeepsFilling, fill, take_reserve

from napari_rbcflow.pipeline.messages import Camera

Provoke = Callable[[Path, int], None]
"""Given the session folder and the number of the process that runs."""


@dataclass
class Setting:
    """One fault, made ready.

    Attributes
    ----------
    camera : Camera
    ends : str
        With which the session's status has to begin; ``refused`` where nothing may be made.
    mark : Path or None
        Made in the moment of the fault, where the camera or `faulty` brings it about.
    fault : str
        Of `faulty`; empty for a fault from outside.
    parent : Path or None
        Where the session goes, if not to the usual place.
    provoke : callable or None
        The fault from outside, once the run is well under way.
    heal : callable or None
        Called when the run has ended, before anybody looks into the session.
    stops : bool
        A person presses Stop when the mark is there.
    survives : bool
        The run goes on, and is stopped by a person afterwards.
    again : Camera or None
        For the next start; None for another camera of the same kind.
    """

    camera: Camera
    ends: str = "failed"
    mark: Path | None = None
    fault: str = ""
    parent: Path | None = None
    provoke: Provoke | None = None
    heal: Callable[[], None] | None = None
    stops: bool = False
    survives: bool = False
    again: Camera | None = None


@dataclass(frozen=True)
class Case:
    """A fault by name; `make` returns None where it cannot be provoked here, `by` says who sees it."""

    name: str
    what: str
    make: Callable[[Bench], Setting | None]
    by: tuple[str, ...] = ("command", "worker")


def of_camera(ends: str = "failed", *, stops: bool = False, **faults: object) -> Callable[[Bench], Setting]:
    """A fault of the replay camera."""

    def make(bench: Bench) -> Setting:
        camera, mark = bench.camera(**faults)
        return Setting(camera, ends, None if "EndsAfter" in faults else mark, stops=stops)

    return make


def of_ours(fault: str, *, ends: str = "failed") -> Callable[[Bench], Setting]:
    """Something of ours, or of PyTorch's, that raises."""

    def make(bench: Bench) -> Setting:
        camera, mark = bench.camera()
        return Setting(camera, ends, mark, fault, survives=fault.startswith("gpu"))

    return make


def of_server(number: int) -> Callable[[Bench], Setting]:
    """A Micro-Manager that is killed, or hangs until the run has ended."""

    def make(bench: Bench) -> Setting:
        camera, server = bench.server()
        heal = None
        if number == signal.SIGSTOP:
            heal = lambda: os.kill(server.pid, signal.SIGCONT)  # noqa: E731
        again = camera if heal else bench.server()[0]
        return Setting(camera, provoke=lambda *_: os.kill(server.pid, number), heal=heal, again=again)

    return make


def of_disk(provoke: Callable[[Path, Path], None], ends: str = "failed") -> Callable[[Bench], Setting | None]:
    """A disk of 64 MB, filled while the run goes on; `provoke` is given the disk and the session."""

    def make(bench: Bench) -> Setting | None:
        disk = bench.small_disk()
        if disk is None:
            return None
        return Setting(
            bench.camera()[0],
            ends,
            parent=disk,
            provoke=lambda folder, _: provoke(disk, folder),
            heal=lambda: (disk / "filler").unlink(missing_ok=True),
        )

    return make


def too_small(bench: Bench) -> Setting | None:
    """A disk that is full before Start."""
    disk = bench.small_disk()
    if disk is None:
        return None
    fill(disk, leave=5 * 2**20)
    heal = (disk / "filler").unlink
    return Setting(bench.camera()[0], "refused", parent=disk, heal=heal)


def no_reserve(disk: Path, folder: Path) -> None:
    """Fill the disk, and let the ring need room that was reserved for it before."""
    fill(disk, leave=2**20)
    take_reserve(folder / "frames.zarr")
    fill(disk)


def another_fills(bench: Bench) -> Setting | None:
    """A disk that another program keeps full, even while the session is closed."""
    disk = bench.small_disk()
    if disk is None:
        return None
    filling: list[KeepsFilling] = []
    return Setting(
        bench.camera()[0],
        parent=disk,
        provoke=lambda *_: filling.append(KeepsFilling(disk)),
        heal=lambda: filling[0].end(),
    )


def worker_killed(*, running: bool) -> Callable[[Bench], Setting]:
    """The worker's process, killed."""

    def make(bench: Bench) -> Setting:
        camera = bench.server()[0] if running else bench.camera()[0]

        def kill(_: Path, pid: int) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        return Setting(camera, provoke=kill, again=camera if running else None)

    return make


def full(disk: Path, _: Path) -> None:
    fill(disk)


def nearly_full(disk: Path, _: Path) -> None:
    fill(disk, leave=2**20)


HANGS: dict[str, Any] = {"HangsAfter": AT, "HangSeconds": 12}
CASES = (
    Case("unplugged", "camera unplugged", of_camera(BreaksAfter=AT)),
    Case("silent", "camera silent", of_camera(SilentAfter=AT)),
    Case("hangs", "driver hangs, stop never returns", of_camera(**HANGS)),
    Case("stop-hangs", "Stop while the driver hangs", of_camera(**HANGS, stops=True)),
    Case("wrong-size", "camera hands over another size and ends", of_camera("finished", WrongAfter=AT)),
    Case("ends", "camera ends its own sequence", of_camera("finished", EndsAfter=AT)),
    Case("pop", "core raises as a frame is popped", of_ours("pop")),
    Case("server-killed", "Micro-Manager killed (-9)", of_server(signal.SIGKILL)),
    Case("server-hangs", "Micro-Manager hangs", of_server(signal.SIGSTOP)),
    Case("disk-start", "disk full at Start", too_small),
    Case("disk-full", "disk full to the last byte (tables, run.json)", of_disk(full)),
    Case("disk-crops", "disk full but for 1 MB (crops)", of_disk(nearly_full)),
    Case("disk-ring", "disk full, the ring's reserve gone", of_disk(no_reserve)),
    Case("disk-other", "another program keeps the disk full (report)", another_fills),
    Case("gpu-warm-up", "GPU out of memory in warm-up", of_ours("gpu-warm-up", ends="stopped")),
    Case("gpu-first", "GPU out of memory at the first track", of_ours("gpu-first", ends="stopped")),
    Case("gpu-later", "CUDA error in mid run", of_ours("gpu-later", ends="stopped")),
    Case("tracking", "our tracking thread raises", of_ours("tracking")),
    Case("judging", "our judging thread raises", of_ours("judging")),
    Case("ring", "our ring thread raises", of_ours("ring")),
    Case("worker-killed", "worker killed (-9)", worker_killed(running=False), ("worker",)),
    Case("worker-killed-mm", "worker killed, Micro-Manager open", worker_killed(running=True), ("worker",)),
)
