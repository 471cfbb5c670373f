"""The whole pipeline: a recorded movie as fast as it goes, and a film in a camera's place at its pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_rbcflow.benchmark.clock import Stopwatch, since_first, stepwise
from napari_rbcflow.benchmark.films import PlayedFilm
from napari_rbcflow.benchmark.machine import peak_mb
from napari_rbcflow.benchmark.parts import Film
from napari_rbcflow.errors import RunFailed
from napari_rbcflow.estimate import StopRules
from napari_rbcflow.pipeline import Run, RunSettings, analyze
from napari_rbcflow.pipeline.stages import Stages

THREADS = {
    "source": (Stages, "receive"),
    "tracking": (Stages, "track"),
    "judging": (Stages, "judge"),
    "ring": (Stages, "keep_frames"),
}
"""The busiest is what a machine with cores enough would wait for."""

Say = Callable[[float, str], None]


def analysed(movie: Path, out: Path, device: str, progress: Say) -> dict[str, Any]:
    """Analyse a movie, as ``rbcflow analyze`` does, and tell what each frame cost.

    Counted is from the first frame that is read until the session is closed. What comes before
    (networks, kernels, the movie's background) is told apart, as ``start_up_s``.
    """
    whole = Stopwatch()
    with since_first(Stages, "receive") as begun, stepwise(THREADS, time.thread_time) as threads:
        session = analyze(
            movie,
            out,
            device=device,
            progress=lambda p, info: progress(p.processed / (info.n_frames or 1), f"{p.processed} frames"),
        )
        (watch,) = begun
        wall_s, cpu_s = watch.wall_s, watch.cpu_s
    n = session.run["frames"]["processed"]
    return {
        "device": session.run["parameters"]["device"],
        "frames": n,
        "tracks": session.run["cells"]["tracked"],
        "wall_ms_per_frame": 1e3 * wall_s / n,
        "cpu_ms_per_frame": 1e3 * cpu_s / n,
        "thread_cpu_ms_per_frame": {name: 1e3 * seconds / n for name, seconds in threads.items()},
        "start_up_s": whole.wall_s - wall_s,
        "peak_mb": peak_mb(),
    }


def live(
    film: Film, pixel_size_um: float, seconds: float, out: Path, device: str, progress: Say
) -> dict[str, Any]:
    """Run live on a film played at 60 frames/s: what was lost, and how late the labels came."""
    settings = RunSettings(stop=StopRules(), device=device, ring_seconds=2.0)
    run = Run(PlayedFilm(film, pixel_size_um, seconds), out, settings)
    run.start()
    try:
        watch = Stopwatch()
        while not run.wait(0.2):
            now_s = run.progress().seconds
            progress(min(1.0, now_s / seconds), f"{now_s:.0f} s live")
        wall_s, cpu_s = watch.wall_s, watch.cpu_s
    except BaseException:
        run.stop()
        run.wait()
        raise
    status, reason = run.outcome
    if status == "failed":
        raise RunFailed(f"the benchmark's live run failed: {reason}")
    account = run.account(whole=True)
    said = account.as_dict()
    return {
        "seconds": seconds,
        **said["frames"],
        "ring_skipped": run.stages.ring_skipped,
        "tracks": said["cells"]["tracked"],
        "cpu_ms_per_frame": 1e3 * cpu_s / max(1, account.received),
        "took_s": wall_s,
        "latency_ms": said["latency_ms"],
    }
