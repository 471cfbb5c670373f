"""Hours at 60 frames/s in one napari, a fault every few minutes: what is lost, and what grows.

    OMP_NUM_THREADS=1 xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/soak.py
        [--hours 2] [--minutes 3] [--fault NAME]... [--json FILE] [--folder DIR]

A person measures again and again: Start in the Live dock, a camera of 640 x 384 px at 60 frames/s through
Micro-Manager's core, and after some minutes the next fault of `FAULTS`; then Start again. After each run:
how the session ended, whether every frame received is processed or counted as dropped, what `verify` says,
and the memory, threads and open files of napari and of its worker. Needs g++ for the camera and for the
computer's clock, and root for the small disk: a fault that cannot be provoked is left out, and said. Ends
with 1 where a run did not end as it must.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from fault_bench import Bench, Seen, children, fill, goes, still_there, until, waits
from faults_viewer import Screen

from napari_rbcflow.pipeline.messages import RunRequest
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.widgets import dock
from napari_rbcflow.widgets.dock import frame_of
from napari_rbcflow.widgets.window import docked

FPS = 60
PATIENCE_S = 60.0
FAULTS = (
    *("person stops", "camera silent", "clock +1 h, then -1 h", "Micro-Manager killed", "disk full"),
    *("worker killed", "window closed", "camera unplugged", "clock -1 h, then +1 h", "Micro-Manager hangs"),
    *("driver hangs", "dock closed"),
)
ENDS = {"person stops": "stopped", "window closed": "stopped", "dock closed": "stopped"}


STEPPED_CLOCK = r"""
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <cstdlib>
static long offset() {
  static volatile long *at = [] {
    int file = open(getenv("STEPPED_CLOCK"), O_RDONLY);
    return (volatile long *)mmap(nullptr, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  }();
  return *at;
}
extern "C" int clock_gettime(clockid_t which, struct timespec *now) {
  static auto real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(which, now);
  if (which == CLOCK_REALTIME) now->tv_sec += offset();
  return code;
}
extern "C" int gettimeofday(struct timeval *__restrict now, void *__restrict) noexcept {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  now->tv_sec = t.tv_sec, now->tv_usec = t.tv_nsec / 1000;
  return 0;
}
extern "C" time_t time(time_t *into) noexcept {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (into) *into = t.tv_sec;
  return t.tv_sec;
}
"""


class Clock:
    """The computer's clock as the worker and its children see it; only the monotonic one is the true one."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "clock.cpp", folder / "clock.so"
        source.write_text(STEPPED_CLOCK, encoding="utf-8")
        command = ["g++", "-O1", "-fPIC", "-shared", str(source), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))
        os.environ |= {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file)}

    def step(self, by_s: int) -> None:
        """Set the clock to so many seconds beside the true time."""
        with self._file.open("r+b") as file:
            file.write(by_s.to_bytes(8, "little", signed=True))


def held(worker: int | None) -> dict[str, int]:
    """What napari holds, and its worker where there is one."""
    gc.collect()
    row = {}
    for name, pid in (("napari", os.getpid()), ("worker", worker)):
        with contextlib.suppress(psutil.Error):
            if pid is not None:
                process = psutil.Process(pid)
                row |= {
                    f"{name}_mb": process.memory_info().rss >> 20,
                    f"{name}_threads": process.num_threads(),
                    f"{name}_files": process.num_fds(),
                }
    return row


class Soak:
    """One napari, its camera and its clock; `go` measures until a fault."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.clock = Clock(folder)
        self.bench = Bench(folder / "bench")
        self.screen = Screen(folder, None)
        self.windows = 1
        dock.stop_wanted = lambda *_: True  # who closes a dock in mid run, and is asked, means it

    def wait(self, seconds: float, run: Any) -> None:
        """Look on for a while, or until the run ends."""
        until(lambda: run.ended, seconds, 0.05)

    def go(self, fault: str) -> dict[str, Any]:
        """Measure, meet the fault, and say what came of it."""
        place = self.bench.new(fault.replace(" ", "-").replace(",", ""))
        camera, parent, server = None, place, None
        frames = int(self.seconds * FPS)
        if fault in ("camera silent", "camera unplugged", "driver hangs"):
            name = {"camera silent": "SilentAfter", "camera unplugged": "BreaksAfter"}.get(
                fault, "HangsAfter"
            )
            more = {"HangSeconds": 12} if name == "HangsAfter" else {}
            camera = self.bench.camera(**{name: frames}, **more)[0]
        elif fault.startswith("Micro-Manager"):
            camera, server = self.bench.server()
        elif fault == "disk full":
            disk = self.bench.small_disk()
            if disk is None:
                return {"fault": fault, "left_out": "no small disk can be mounted here"}
            parent = disk
        camera = camera or self.bench.camera()[0]
        session = parent / "session"
        run = self.screen.start(RunRequest(camera, session, RunSettings(device="cpu", ring_seconds=2.0)))
        worker = self.screen.widget._parts.worker
        pid = worker.pid
        until(lambda: run.ended or goes(session), PATIENCE_S, 0.05)
        began = time.monotonic()
        below: dict[int, str] = {}
        with contextlib.suppress(psutil.Error):
            below = children(pid)
        said = self.provoke(fault, run, pid, parent, server)
        at = time.monotonic()
        until(lambda: run.ended, PATIENCE_S)
        ended_s = time.monotonic() - at
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
        if fault == "disk full":
            (parent / "filler").unlink(missing_ok=True)
        seen = Seen(fault, "napari")
        seen.look_into(session)
        row: dict[str, Any] = {
            **{"fault": fault, "seconds": round(at - began, 1), "ended_s": round(ended_s, 1)},
            **{"status": seen.status, "verify": seen.verify, "frames": seen.frames, "cells": seen.cells},
            "sentence": (run.sentence or " ".join(run.outcome or ())).replace(str(session), "SESSION"),
            "longest_stall_s": round(self.screen.stall_s, 2),
            **said,
        }
        self.screen.stall_s = 0.0
        if fault in ("window closed", "dock closed"):
            self.open_again(fault)
        # Nobody presses Start before the dock shows the end; what ended with the run is given back there.
        until(lambda: not self.screen.widget._going and self.screen.widget._parts.worker.ready, PATIENCE_S)
        below.pop(pid, None)
        row["left"] = still_there(below, 8.0)
        row |= held(self.screen.widget._parts.worker.pid)
        row["wrong"] = wrong(row, seen, ENDS.get(fault, "stopped" if fault.startswith("clock") else "failed"))
        if not row["wrong"]:
            shutil.rmtree(session, ignore_errors=True)
        return row

    def provoke(self, fault: str, run: Any, pid: int, parent: Path, server: Any) -> dict[str, Any]:
        """Measure for the time, then bring the fault about."""
        if fault.startswith("clock"):
            first = 3600 if fault.startswith("clock +") else -3600
            for by_s in (first, 0):
                self.wait(self.seconds / 3, run)
                self.clock.step(by_s)
            self.wait(self.seconds / 3, run)
            self.screen.widget.stop_button.click()
        elif fault in ("camera silent", "camera unplugged", "driver hangs"):
            self.wait(self.seconds + PATIENCE_S, run)
        else:
            self.wait(min(self.seconds, 20.0) if fault == "disk full" else self.seconds, run)
            if fault == "person stops":
                self.screen.widget.stop_button.click()
            elif fault == "Micro-Manager killed":
                server.kill()
            elif fault == "Micro-Manager hangs":
                os.kill(server.pid, signal.SIGSTOP)
            elif fault == "disk full":
                fill(parent)
            elif fault == "worker killed":
                os.kill(pid, signal.SIGKILL)
            elif fault == "window closed":
                self.screen.viewer.close()
            else:
                frame, _ = frame_of(self.screen.widget)
                frame.destroyOnClose()  # type: ignore[union-attr]
        return {}

    def open_again(self, fault: str) -> None:
        """Open what was closed."""
        if fault == "window closed":
            waits.pop()
            self.screen = Screen(self.folder, None)
            self.windows += 1
        else:
            self.screen.widget = docked(self.screen.viewer)


def wrong(row: dict[str, Any], seen: Seen, ends: str) -> str:
    """Say what of a run is not as it must be; empty where all is well."""
    said = []
    if not seen.status.startswith(ends):
        said.append(f"it must end as {ends}")
    if not seen.frames or not seen.adds_up:
        said.append("the frames do not add up")
    if seen.verify != "whole" and ends == "stopped":
        said.append("verify finds something")
    if seen.verify.startswith("2"):
        said.append("not a session any more")
    # The clock counts its seconds from the fault that it brings about itself.
    if row["ended_s"] > 15:
        said.append(f"ended after {row['ended_s']:.0f} s")
    if row["left"]:
        said.append("processes were left")
    return "; ".join(said)


def rows_of(soak: Soak, hours: float, faults: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run fault after fault until the hours are over."""
    until_s = time.monotonic() + hours * 3600
    number = 0
    while time.monotonic() < until_s:
        row = soak.go(faults[number % len(faults)])
        number += 1
        yield {"at": time.strftime("%H:%M"), **row}


def main() -> int:
    """Soak, print a line a run, and what grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=3.0, help="from a start to the fault")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only these; may be given again")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="for scratch; kept")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="rbcflow-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["RBCFLOW_CONFIG"] = str(folder / "config")
    os.environ["NAPARI_CONFIG"] = ""
    soak = Soak(folder, given.minutes * 60)
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    with contextlib.closing(soak.bench):
        for row in rows_of(soak, given.hours, given.fault or FAULTS):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if given.json:
                given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        soak.screen.viewer.close()
    runs = [row for row in rows if "left_out" not in row]
    frames = [row["frames"] for row in runs if row["frames"]]
    print(
        f"{(time.monotonic() - began) / 3600:.2f} h, {len(runs)} runs, {soak.windows} windows;"
        f" received {sum(f['received'] for f in frames)}, processed {sum(f['processed'] for f in frames)},"
        f" dropped {sum(sum(f['dropped'].values()) for f in frames)},"
        f" missed {sum(sum(f['missed'].values()) for f in frames)}"
    )
    for name in (
        "napari_mb",
        "napari_threads",
        "napari_files",
        "worker_mb",
        "worker_threads",
        "worker_files",
    ):
        values = [row[name] for row in runs if name in row]
        third = max(1, len(values) // 3)
        print(
            f"{name:15} first third {statistics.median(values[:third]):.0f},"
            f" last third {statistics.median(values[-third:]):.0f}, most {max(values)}"
        )
    bad = [f"{row['at']} {row['fault']}: {row['wrong']}" for row in runs if row["wrong"]]
    print(f"not as they must be: {len(bad)}", *bad, sep="\n- ")
    if not given.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
