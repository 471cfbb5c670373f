"""The apparatus of `faults.py`: a camera that plays a known movie, a Micro-Manager to kill, a small disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_rbcflow.pipeline.messages import Camera
from napari_rbcflow.session import open_session, verify
from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.sources.movie import open_movie

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from replay_camera.building import Replay, build  # noqa: E402
from stand_in.server import Order as ServerOrder  # noqa: E402

AT = 150
"""Frames until a camera breaks."""
FIELD = {"height": 384, "width": 640, "cells_per_frame": 30.0}
SMALL_DISK_MB = 64


@dataclass
class Seen:
    """What came of one fault, seen from one side: a row of the table.

    Attributes
    ----------
    sentence_s, closed_s : float or None
        From the fault until a person was told, and until the session was closed.
    left : str
        Threads, processes and locks that were still there afterwards; empty for none.
    again : str
        How the next start went; empty where none was tried.
    """

    fault: str
    by: str
    sentence: str = ""
    sentence_s: float | None = None
    closed_s: float | None = None
    status: str = ""
    frames: dict[str, Any] = field(default_factory=dict)
    cells: int = 0
    device: str = ""
    latency_ms: float | None = None
    verify: str = ""
    left: str = ""
    again: str = ""

    def look_into(self, folder: Path) -> None:
        """Take over what the session holds."""
        if not (folder / "run.json").exists():
            self.status = "nothing made" if not folder.exists() else "a folder without run.json"
            return
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        self.status = f"{run['status']} ({run['stop_reason']})" if run["status"] != "failed" else "failed"
        self.frames, self.device = run["frames"], run["parameters"]["device"]
        self.latency_ms = run["latency_ms"]["p95"]
        with contextlib.suppress(Exception):
            self.cells = len(open_session(folder).cells)
        verdict = verify(folder)
        self.verify = "whole" if verdict.code == 0 else f"{verdict.code}: {'; '.join(verdict.findings)}"

    @property
    def adds_up(self) -> bool:
        """Whether every frame received is processed or dropped."""
        f = self.frames
        return not f or f["received"] == f["processed"] + sum(f["dropped"].values())

    def row(self) -> str:
        """Return it as a row of Markdown."""

        def seconds(value: float | None) -> str:
            return "" if value is None else f"{value:.1f}"

        f = self.frames
        dropped = ", ".join(f"{n} {why}" for why, n in f["dropped"].items()) if f else ""
        frames = f"{f['received']} = {f['processed']} + {dropped or 0}" if f else ""
        cells = [self.fault, self.by, self.sentence, seconds(self.sentence_s), seconds(self.closed_s)]
        cells += [
            self.status,
            frames,
            str(self.cells) if f else "",
            self.verify,
            self.left or "none",
            self.again,
        ]
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"

    HEAD = (
        "| fault | seen from | what the user saw | s to it | s to the closed session | session |"
        " frames received = processed + dropped | cells | verify | left behind | next Start |\n"
        + "|---" * 11
        + "|"
    )

    def as_dict(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {**asdict(self), "adds_up": self.adds_up}


class Bench:
    """Everything that a fault is provoked with; in `folder`, given back by `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.replay = Replay(build(folder.parent / "adapter"))
        kept = folder.parent / "movie.npy"
        if not kept.exists():
            tif = folder.parent / "movie.tif"
            simulate_movie(tif, seconds=4, seed=8, tank_fraction=0.6, **FIELD)  # type: ignore[arg-type]
            source = open_movie(tif)
            with source:
                np.save(kept, np.stack([frame.image for frame in source.frames()]))
        self.movie = np.load(kept)
        self._number = 0
        self._undo = ExitStack()

    def close(self) -> None:
        """Kill, unmount, stop whatever was started."""
        self._undo.close()

    def new(self, name: str) -> Path:
        """Return a new empty folder."""
        self._number += 1
        folder = self.folder / f"{self._number:02d}-{name}"
        folder.mkdir()
        return folder

    def camera(self, **faults: object) -> tuple[Camera, Path]:
        """Return a replay camera, and the file that its fault makes."""
        place = self.new("camera")
        config = self.replay.config(place, self.movie, Loop=1, Mark=place / "mark", **faults)
        return Camera(str(config), {"mm_path": self.replay.adapters}), place / "mark"

    def server(self) -> tuple[Camera, subprocess.Popen[bytes]]:
        """Open a stand-in for Micro-Manager; return its camera, and its process."""
        raw = self.folder.parent / f"{self.folder.name}.raw"
        if not raw.exists():
            self.movie.tofile(raw)
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        order = ServerOrder(str(raw), self.movie.shape[2], self.movie.shape[1], port, loop=True)
        program = [sys.executable, str(TESTS / "stand_in" / "server.py"), order.text()]
        process = subprocess.Popen(program, stdout=subprocess.PIPE)
        self._undo.callback(process.wait)
        self._undo.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()  # it says no more; a soak would run out of files
        return Camera("running", {"port": port}), process

    def small_disk(self) -> Path | None:
        """Mount a disk of 64 MB; None where that cannot be done (it needs root, on Linux)."""
        place = self.new("disk")
        command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "none", str(place)]
        if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        self._undo.callback(subprocess.run, ["umount", "-l", str(place)], check=False)
        return place


def fill(disk: Path, leave: int = 0) -> None:
    """Fill a disk with a file, but for the last `leave` bytes."""
    with (disk / "filler").open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(2**16)):
                pass
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        if leave:
            file.truncate(max(0, file.tell() - leave))


def take_reserve(ring: Path) -> None:
    """Take from the ring's frames the room that was reserved for them, as file systems do that compress."""
    for path in (ring / "frames").rglob("*"):
        if path.is_file() and path.stat().st_size > 2**16:
            subprocess.run(
                ["fallocate", "-p", "-o", "0", "-l", str(path.stat().st_size), str(path)], check=True
            )


class KeepsFilling:
    """Another program that takes every byte as soon as it is free."""

    def __init__(self, disk: Path) -> None:
        self._disk, self._end = disk, threading.Event()
        fill(disk)
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        with (self._disk / "filler").open("ab", buffering=0) as file:
            while not self._end.is_set():
                try:
                    file.write(bytes(2**16))
                except OSError:
                    with contextlib.suppress(OSError):
                        file.write(bytes(4096))
                    time.sleep(0.0005)

    def end(self) -> None:
        """Give the disk back."""
        self._end.set()
        self._thread.join()
        (self._disk / "filler").unlink()


waits: list[Callable[[float], None]] = [time.sleep]
"""How one waits: a window is kept alive meanwhile."""


def until(true: Callable[[], Any], timeout_s: float = 40.0, nap_s: float = 0.01) -> bool:
    """Wait for something; return whether it came."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            return False
        waits[-1](nap_s)
    return True


def told(folder: Path) -> dict[str, Any]:
    """Return what ``run.json`` says now; nothing where there is none yet."""
    try:
        return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def goes(folder: Path, cells: int = 3) -> bool:
    """Whether a run is well under way."""
    run = told(folder)
    return bool(run) and run["cells"]["tracked"] >= cells


def made_s(path: Path) -> float | None:
    """When a file was written last, on the clock of `time.time`."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None


def children(of: int | None = None) -> dict[int, str]:
    """Return the processes below one, with their commands."""
    found = {}
    for process in psutil.Process(of).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline()[1:4])
    return found


def still_there(processes: dict[int, str], within_s: float = 3.0) -> list[str]:
    """Return which of the processes did not end in time."""
    until(lambda: not any(psutil.pid_exists(pid) for pid in processes), within_s, 0.05)
    return [command for pid, command in processes.items() if psutil.pid_exists(pid)]


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let a process hang (SIGSTOP) for the time of the block."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
