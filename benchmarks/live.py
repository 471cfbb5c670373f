"""Replay a camera at 60 frames a second for as long as one likes, through the real Micro-Manager core.

    python benchmarks/live.py MOVIE.tif [--minutes 10] [--json FILE]
    python benchmarks/live.py MOVIE.tif --minutes 1 --tracking-only
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/live.py MOVIE.tif --minutes 2 --viewer

The replay camera of the tests plays the movie again and again, at an exact rate, and `rbcflow live` runs on
it in a process of its own; with `--viewer`, `benchmarks/viewer.py` opens napari on it. With `--tracking-only`
nothing but detection and linking runs, a thread behind the camera's, on frames as large as the movie's.
Where a movie begins anew every cell jumps and all tracks end at once, so it should be a minute long.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile

from napari_rbcflow.pipeline.channel import Channel
from napari_rbcflow.pipeline.stages import FIRST_S, WAITING_BYTES, keep_freed_memory, touch_frames
from napari_rbcflow.sources.factory import open_source
from napari_rbcflow.tracking.background import SlidingBackground
from napari_rbcflow.tracking.tracker import Tracker, warm_up
from napari_rbcflow.types import Frame

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from replay_camera.building import Replay, build

FPS = 60
PIXEL_UM = {1376: 0.605, 2752: 0.3025}
LOOK_S = 5.0


def run_command(camera: list[str], minutes: float, folder: Path) -> dict[str, Any]:
    """Run `rbcflow live` on the camera without a viewer; return what it left and what it took."""
    command = [sys.executable, "-m", "napari_rbcflow.cli", "live", "-o", str(folder), "--no-viewer"]
    command += [*camera, "--device", "cpu", "--stop-seconds", f"{60 * minutes:g}"]
    child = psutil.Popen(command)
    memory: list[tuple[float, float]] = []
    course: list[dict[str, float]] = []
    cpu_s = began = 0.0
    psutil.cpu_times_percent()
    disk = psutil.disk_io_counters()
    while child.poll() is None:
        time.sleep(LOOK_S)
        if not (folder / "run.json").is_file():
            continue
        began = began or time.monotonic()
        try:
            memory.append((time.monotonic() - began, child.memory_info().rss / 1e6))
            before, cpu_s = cpu_s, sum(child.cpu_times()[:2])
            before = before or cpu_s  # opening a camera is not part of the run
        except psutil.Error:
            break
        machine = psutil.cpu_times_percent()
        disk, disk_before = psutil.disk_io_counters(), disk
        course.append(
            {
                "s": round(memory[-1][0]),
                "cores": round((cpu_s - before) / LOOK_S, 2),
                "machine_busy_percent": round(100 - machine.idle - getattr(machine, "iowait", 0.0)),
                "disk_wait_percent": round(getattr(machine, "iowait", 0.0)),
                "stolen_percent": round(getattr(machine, "steal", 0.0)),
                "disk_mb_s": round((disk.write_bytes - disk_before.write_bytes) / 1e6 / LOOK_S),
                "ms_a_write": round(
                    (disk.write_time - disk_before.write_time)
                    / max(1, disk.write_count - disk_before.write_count),
                    1,
                ),
                "mb_not_yet_on_disk": _dirty_mb(),
            }
        )
    child.wait()
    account = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    late = [mb for t, mb in memory if t > 60] or [mb for _, mb in memory]
    half = len(late) // 2
    return {
        "status": [account["status"], account["stop_reason"]],
        "frames": account["frames"],
        "cells": account["cells"],
        "latency_ms": account["latency_ms"],
        "fraction": account["fraction"],
        "warnings": account["warnings"],
        "cpu_cores": cpu_s / max(1.0, memory[-1][0]) if memory else None,
        "memory_mb": [round(mb) for _, mb in memory],
        "course": course,
        "memory_after_first_minute_mb": [float(np.mean(late[:half])), float(np.mean(late[half:]))],
        "session_mb": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6,
    }


def _dirty_mb() -> int:
    """Return what the system still owes the disk, of all programs; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Dirty:", "Writeback:"))) // 1024


def run_tracking(config: Path, adapters: Path, minutes: float, pixel_um: float) -> dict[str, Any]:
    """Only track what the camera sends."""
    keep_freed_memory()  # this, and `touch_frames`, as a run does
    camera = open_source(str(config), mm_path=adapters, fps=FPS, pixel_size_um=pixel_um)
    with camera as info:
        background = SlidingBackground(info.height, info.width, fps=info.fps)
        tracker = Tracker(
            info.height, info.width, fps=info.fps, pixel_size_um=info.pixel_size_um, background=background
        )
        warm_up(info.pixel_size_um)
        waiting: Channel[Frame] = Channel(WAITING_BYTES // (info.height * info.width))
        received = dropped = 0

        def receive() -> None:
            nonlocal received, dropped
            touch_frames(info.height, info.width, round(FIRST_S * info.fps))
            for frame in camera.frames():
                if frame.time_s >= 60 * minutes:
                    break
                received += 1
                dropped += not waiting.offer(frame)
            waiting.close()

        thread = threading.Thread(target=receive)
        thread.start()
        tracks = longest = n = 0
        cpu, began = 0.0, time.monotonic()
        for frame in waiting:
            before = time.thread_time()
            tracks += len(tracker.process(frame))
            n += len(tracker.open_tracks().cell)
            cpu += time.thread_time() - before
            longest = max(longest, len(waiting))
        thread.join()
    return {
        "frames": {"received": received, "processed": tracker.processed, "dropped": dropped},
        "missed": dict(camera.missed),
        "seconds": time.monotonic() - began,
        "cells_in_a_frame": n / max(1, tracker.processed),
        "tracks": tracks,
        "tracking_cpu_ms_a_frame": 1000 * cpu / max(1, tracker.processed),
        "most_frames_waiting": longest,
    }


def main() -> int:
    """Replay, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("movie", type=Path, help="8-bit TIFF stack")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tracking-only", action="store_true")
    parser.add_argument("--viewer", action="store_true", help="in napari, with the whole dock widget")
    parser.add_argument("--picture", type=Path, help="of the window in mid run, with --viewer")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    adapters = build(Path(tempfile.gettempdir()) / "rbcflow-replay-camera")
    with tempfile.TemporaryDirectory(prefix="rbcflow-live-") as made:
        folder = Path(made)
        movie = tifffile.memmap(args.movie, mode="r")
        config = Replay(adapters).config(folder, movie, Loop=1, FrameRate=FPS)
        pixel_um = PIXEL_UM.get(movie.shape[2], PIXEL_UM[1376])
        del movie
        if hasattr(os, "sync"):
            os.sync()  # the copy that the camera plays is gigabytes, and is none of the run's work
        camera = ["--camera", str(config), "--mm-path", str(adapters), "--fps", str(FPS)]
        camera += ["--pixel-size-um", str(pixel_um)]
        if args.viewer:
            command = [sys.executable, str(Path(__file__).with_name("viewer.py")), "--widget"]
            command += [*camera[:4], "--seconds", str(60 * args.minutes)]
            command += ["--picture", str(args.picture)] if args.picture else []
            return subprocess.run(command, check=False).returncode
        if args.tracking_only:
            found = run_tracking(config, adapters, args.minutes, pixel_um)
        else:
            found = run_command(camera, args.minutes, folder / "session")
    text = json.dumps(found, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
