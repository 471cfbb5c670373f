"""The whole pipeline: a movie, a camera, and whether an hour costs what a minute does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_rbcflow.benchmark.child import PlayedFilm, Stopwatch, since_first, stepwise
from napari_rbcflow.benchmark.machine import peak_mb, resident_mb
from napari_rbcflow.benchmark.parts import RING_FRAMES, Film, tracker_of
from napari_rbcflow.errors import RunFailed
from napari_rbcflow.estimate import StopRules
from napari_rbcflow.pipeline import Run, RunSettings, Stages, analyze
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.types import DEFAULT_FPS, Frame, RunStatus

Progress = Callable[[float, float], None]
"""Takes the share done, 0 to 1, and the seconds or frames that it is about."""
A_BLOCK = 40  # frames between readings of the clock and the memory
_LEAST_BLOCKS = 8  # two a quarter
_WARM_FRAMES = 90
"""Not counted: nothing is tracked before there is a background, and then the waiting frames are caught up."""


def endless(
    film: Film,
    pixel_size_um: float,
    *,
    frames: int,
    most_s: float | None,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Track a film in a loop, for `frames` frames or `most_s` seconds, and keep its frames in the ring.

    ``late_to_early`` is the CPU time per frame of the last quarter over that of the second (the first warms
    up), each the lower quartile of its blocks, because other programs only ever add time, and at random;
    ``late_to_early_mean`` is the same of the means. ``growth_mb_per_1000_frames`` is the growth of memory
    between the same two quarters.
    """
    _, height, width = film.shape
    tracker = tracker_of(film, pixel_size_um)
    ring = FrameRing.create(
        folder / "endless.zarr",
        height=height,
        width=width,
        capacity=RING_FRAMES,
        crop_capacity=1,
        fps=DEFAULT_FPS,
        pixel_size_um=pixel_size_um,
    )
    blocks = max(_LEAST_BLOCKS, frames // A_BLOCK)
    ends = np.linspace(0, max(frames, blocks), blocks + 1).astype(int)[1:].tolist()
    # Allocated beforehand, so that measuring does not itself take memory.
    ms, memory_mb = np.zeros(blocks), np.zeros(blocks)
    t = tracks = done = 0

    def work_until(end: int) -> None:
        nonlocal t, tracks
        while t < _WARM_FRAMES + end:
            frame = Frame(t, t / DEFAULT_FPS, film[t % len(film)])
            tracks += len(tracker.process(frame))
            ring.append(frame)
            t += 1

    try:
        work_until(0)
        whole = Stopwatch()
        for done, end in enumerate(ends, 1):
            before, watch = t, Stopwatch()
            work_until(end)
            ms[done - 1] = 1e3 * watch.cpu_s / (t - before)
            memory_mb[done - 1] = resident_mb()
            of_time = 0.0 if most_s is None else whole.wall_s / most_s
            progress(min(1.0, max(done / blocks, of_time)), end / DEFAULT_FPS)
            if of_time > 1 and done >= _LEAST_BLOCKS:
                break
    finally:
        ring.close()
    quarters = np.array_split(np.arange(done), 4)
    by_quarter = [float(np.percentile(ms[q], 25)) for q in quarters]
    mean = [float(ms[q].mean()) for q in quarters]
    held = [float(memory_mb[q].mean()) for q in quarters]
    counted = ends[done - 1]
    apart = counted / done * float(quarters[3].mean() - quarters[1].mean())
    return {
        "frames": counted,
        "minutes_of_frames": counted / DEFAULT_FPS / 60,
        "tracks": tracks,
        "cpu_ms_by_quarter": by_quarter,
        "cpu_ms_by_quarter_mean": mean,
        "late_to_early": by_quarter[3] / by_quarter[1],
        "late_to_early_mean": mean[3] / mean[1],
        "resident_mb_by_quarter": held,
        "growth_mb_per_1000_frames": 1000 * (held[3] - held[1]) / apart,
    }


THREADS = {
    "source": (Stages, "receive"),
    "tracking": (Stages, "track"),
    "judging": (Stages, "judge"),
    "ring": (Stages, "keep_frames"),
}
"""With enough cores, a run is as fast as the busiest of them."""


def analysed(movie: Path, out: Path, device: str, progress: Progress) -> dict[str, Any]:
    """Analyse a movie, as ``rbcflow analyze`` does: what each frame cost.

    From the first frame that is read until the session is closed. What comes before (networks, kernels, the
    movie's background) is ``start_up_s``.
    """
    whole = Stopwatch()
    with since_first(Stages, "receive") as begun, stepwise(THREADS, time.thread_time) as threads:
        session = analyze(
            movie,
            out,
            device=device,
            progress=lambda p, info: progress(p.processed / (info.n_frames or 1), p.processed),
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
    film: Film, pixel_size_um: float, seconds: float, out: Path, device: str, progress: Progress
) -> dict[str, Any]:
    """Run live on a film played at 60 frames/s: what was lost, and how late the labels came."""
    settings = RunSettings(stop=StopRules(), device=device, ring_seconds=2.0)
    run = Run(PlayedFilm(film, pixel_size_um, seconds), out, settings)
    run.start()
    try:
        watch = Stopwatch()
        while not run.wait(0.2):
            now_s = run.progress().seconds
            progress(min(1.0, now_s / seconds), now_s)
        wall_s, cpu_s = watch.wall_s, watch.cpu_s
    except BaseException:
        run.stop()
        run.wait()
        raise
    status, reason = run.outcome
    if status == RunStatus.FAILED:
        raise RunFailed("benchmark.live-failed", reason=reason)
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
