"""Tracks a second through both stages, and the time from a track's hand-over to its label, against the aims.

    python benchmarks/classification.py [--device auto] [--json FILE] [--reliable 1.0] [--rate 200]

Simulated tracks of 33 frames; `--reliable` is the share that reaches stage 2: 1.0 the worst case, 0.034 the
paper's blood. The latency is that of `--rate` tracks a second, of which the same share reaches stage 2.
Everything is measured quiet and beside a second process that tracks a simulated movie as fast as it can,
each on a core of its own where the system lets us choose (Linux). Rates are given by CPU time of the
judging thread and by the clock: on a machine that others use only the first says much; on a GPU only the
second. The latency is what a run writes into ``run.json``: its own judging and keeping threads, their
queues, the row on the disk; tracks come in bursts, 60 a second. On a GPU also how many labels are the
CPU's. On a CPU the same queue is also replayed with CPU time in place of the clock. A ratio of 1 or more
means that the aim is met.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from napari_rbcflow.classification.sampling import level, similarity
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.stages import MOST_TRACKS, Stages, keep_freed_memory
from napari_rbcflow.session.writer import SessionWriter
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber, simulate_sequences
from napari_rbcflow.tracking.background import SlidingBackground
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, SourceInfo, Track

AIM_CPU, AIM_GPU = 300.0, 20_000.0
AIM_P95_MS = {"cpu": 250.0, "cuda": 100.0}
TRACKS_PER_S = 200.0


def tracks_of(n: int, frames: int) -> list[Track]:
    """Return tracks of simulated cells, each of `frames` frames; 3.4 % of the cells can be judged."""
    drawn = [s.crops for s in simulate_sequences(118, seed=1, shares=(0.024, 0.010, 0.966))]
    cells = [np.concatenate([c] * (1 + frames // len(c)))[:frames] for c in drawn]
    flags, x_px = np.zeros(frames, bool), np.arange(frames, dtype=np.float32)
    return [
        Track(k, np.arange(frames), x_px, x_px, ~flags, flags, flags, cells[k % len(cells)], "left-field")
        for k in range(n)
    ]


def blood(two_stage: TwoStage, tracks: list[Track], reliable: float) -> list[Track]:
    """Return as many tracks, of which the share `reliable` passes stage 1, evenly mixed."""
    p = two_stage.reliable([t.crops for t in tracks])
    kinds = [
        [t for t, passes in zip(tracks, p >= two_stage.stage1.threshold, strict=True) if passes is wanted]
        for wanted in (np.False_, np.True_)
    ]
    if not all(kinds):
        raise SystemExit("The simulated tracks are all of one kind; give more of them with --tracks.")
    out = []
    for k in range(len(tracks)):
        good = int(int((k + 1) * reliable) > int(k * reliable))
        out.append(kinds[good][k % len(kinds[good])])
    return out


def on_core(core: int) -> None:
    """Keep this process to one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def keep_tracking(ready: Event, enough: Event, said: Any) -> None:
    """Track a simulated movie again and again until told; tell how many frames a second."""
    keep_freed_memory()
    chamber = SimulatedChamber(ChamberSettings(seconds=2.0, seed=3, cells_per_frame=115.0), paced=False)
    info = chamber.open()
    movie = [frame.image for frame in chamber.frames()]
    on_core(1)
    background = SlidingBackground(info.height, info.width, fps=info.fps)
    tracker = Tracker(
        info.height, info.width, fps=info.fps, pixel_size_um=info.pixel_size_um, background=background
    )
    k, started = 0, 0.0
    while not enough.is_set():
        tracker.process(Frame(k, k / info.fps, movie[k % len(movie)]))
        k += 1
        if k == len(movie):
            ready.set()
            started = time.perf_counter()
    said.send((k - len(movie)) / (time.perf_counter() - started))


@contextmanager
def tracking_beside(found: dict[str, Any]) -> Iterator[None]:
    """Have another process track meanwhile."""
    context = multiprocessing.get_context("spawn")
    ready, enough = context.Event(), context.Event()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=keep_tracking, args=(ready, enough, there), daemon=True)
    process.start()
    ready.wait()
    try:
        yield
    finally:
        enough.set()
        found["tracked_frames_per_s_beside"] = round(here.recv(), 1)
        process.join()


def rates(two_stage: TwoStage, tracks: list[Track], reliable: float) -> dict[str, float]:
    """Return tracks a second through both stages, by CPU time and by the clock."""
    crops = [t.crops for t in tracks]
    chunk = max(64, 8 * two_stage.batch)
    cpu, clock = time.thread_time(), time.perf_counter()
    for first in range(0, len(crops), chunk):
        some = crops[first : first + chunk]
        two_stage.reliable(some)
        two_stage.flipping(some[: round(len(some) * reliable)])
    cpu, clock = time.thread_time() - cpu, time.perf_counter() - clock
    aim, seconds = (AIM_GPU, clock) if two_stage.device != "cpu" else (AIM_CPU, cpu)
    return {
        "tracks_per_cpu_s": round(len(crops) / cpu, 1),
        "tracks_per_s": round(len(crops) / clock, 1),
        "ratio_to_aim": round(len(crops) / seconds / aim, 2),
    }


def latency(
    two_stage: TwoStage, tracks: list[Track], folder: Path, seconds: float, rate: float
) -> dict[str, float]:
    """Return the time from hand-over to the label on the disk, at `rate` tracks a second, in a run."""
    source = SimulatedChamber()
    info = SourceInfo("tracks", 1096, 1376, DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, live=True)
    settings = RunSettings(stop=StopRules())
    writer = SessionWriter.create(
        folder,
        source=info,
        parameters={},
        models=two_stage.models,
        patient="",
        sample="",
        ring_frames=settings.ring_frames(info),
    )
    tracker = Tracker(
        *(info.height, info.width),
        fps=info.fps,
        pixel_size_um=info.pixel_size_um,
        background=SlidingBackground(info.height, info.width, fps=info.fps),
    )
    stages = Stages(source, info, tracker, two_stage, writer, settings)
    spent: list[float] = []

    def judge() -> None:
        stages.judge()
        spent.append(time.thread_time())

    threads = [threading.Thread(target=judge), threading.Thread(target=stages.keep_tracks)]
    for thread in threads:
        thread.start()
    start, cell = time.perf_counter(), 0
    for frame in range(int(seconds * DEFAULT_FPS)):
        time.sleep(max(0.0, start + frame / DEFAULT_FPS - time.perf_counter()))
        ended = int((frame + 1) * rate / DEFAULT_FPS) - cell
        stages._hand_over(
            [replace(tracks[(cell + i) % len(tracks)], cell=cell + i + 1) for i in range(ended)]
        )
        cell += ended
    stages._tracks.close()
    for thread in threads:
        thread.join()
    writer.ring.close()
    late = np.asarray(stages.latencies_ms)
    p50, p95, p99 = (round(float(p), 1) for p in np.percentile(late, (50, 95, 99)))
    aim = AIM_P95_MS["cpu" if two_stage.device == "cpu" else "cuda"]
    return {
        "n": len(late),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "ratio_to_aim": round(aim / p95, 2),
        "judging_share_of_a_core": round(spent[0] / seconds, 3),
    }


def latency_by_cpu(two_stage: TwoStage, tracks: list[Track], seconds: float, rate: float) -> dict[str, float]:
    """Return the time from hand-over to label where the judging thread has a core of its own.

    The queue of a run (`Stages._next_tracks`) is replayed with the thread's CPU time in place of the clock:
    on a machine that others use, the clock tells of them.
    """
    handed_over = [
        (frame + 1) / DEFAULT_FPS
        for frame in range(int(seconds * DEFAULT_FPS))
        for _ in range(int((frame + 1) * rate / DEFAULT_FPS) - int(frame * rate / DEFAULT_FPS))
    ]
    now, busy, first = 0.0, 0.0, 0
    late: list[float] = []
    while first < len(handed_over):
        full = handed_over[min(first + two_stage.batch, len(handed_over)) - 1]
        now = max(now, min(full, handed_over[first] + two_stage.linger_s))
        waiting = bisect_right(handed_over, now) - first
        n = MOST_TRACKS if waiting >= MOST_TRACKS else min(waiting, two_stage.batch)
        start = time.thread_time()
        two_stage.judge([tracks[(first + k) % len(tracks)] for k in range(n)])
        took = time.thread_time() - start
        now, busy = now + took, busy + took
        late += [1e3 * (now - at) for at in handed_over[first : first + n]]
        first += n
    p50, p95, p99 = (round(float(p), 1) for p in np.percentile(late, (50, 95, 99)))
    return {
        "n": len(late),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "judging_share_of_a_core": round(busy / seconds, 3),
    }


def each(work: Callable[[], object], n: int) -> float:
    """Return the CPU milliseconds of one of the `n` that `work` does, the best of three times."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return round(1e3 * best / n, 4)


def agreement(gpu: TwoStage, n: int) -> dict[str, float]:
    """Return the share of simulated tracks to which the GPU gives the CPU's label; the aim is 0.999."""
    cpu = TwoStage.load("cpu")
    crops = [s.crops for s in simulate_sequences(n, seed=2)]
    found = {}
    for name, trained in (("reliable", cpu.stage1), ("flipping", cpu.stage2)):
        here, there = getattr(cpu, name)(crops), getattr(gpu, name)(crops)
        found[f"same_{name}"] = float(np.mean((here >= trained.threshold) == (there >= trained.threshold)))
        found[f"greatest_difference_{name}"] = float(np.abs(here - there).max())
    return found


def measure(
    device: str, n: int, frames: int, reliable: float, seconds: float, rate: float, folder: Path
) -> dict[str, Any]:
    """Measure everything."""
    keep_freed_memory()  # as a run does
    tracks = tracks_of(n, frames)
    two_stage = TwoStage.load(device)
    two_stage.warm_up()
    on_core(0)
    crops = [t.crops for t in tracks[:200]]
    mixed_tracks = blood(two_stage, tracks, reliable)
    out: dict[str, Any] = {
        "device": two_stage.device,
        "frames": frames,
        "reach_stage_2": reliable,
        "tracks_per_s_live": rate,
        "aims": {"tracks_per_s": {"cpu": AIM_CPU, "cuda": AIM_GPU}, "p95_ms": AIM_P95_MS},
        "similarity_sampling_ms": each(lambda: [similarity(c, 20) for c in crops], len(crops)),
        "levelling_ms": each(lambda: [level(c[:20]) for c in crops], len(crops)),
        "quiet": {"rate": rates(two_stage, tracks, reliable)},
    }
    out["quiet"]["latency"] = latency(two_stage, mixed_tracks, folder / "quiet", seconds, rate)
    if two_stage.device == "cpu":
        out["quiet"]["latency_by_cpu"] = latency_by_cpu(two_stage, mixed_tracks, seconds, rate)
    beside: dict[str, Any] = {}
    with tracking_beside(beside):
        beside["rate"] = rates(two_stage, tracks, reliable)
        beside["latency"] = latency(two_stage, mixed_tracks, folder / "beside", seconds, rate)
    out["beside_tracking"] = beside
    if two_stage.device != "cpu":
        mixed = TwoStage.load(device, mixed=True)
        mixed.warm_up()
        out["mixed"] = {"rate": rates(mixed, tracks, reliable), "agreement": agreement(mixed, 4000)}
        out["agreement"] = agreement(two_stage, 4000)
    return out


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--tracks", type=int, default=480, help="some 20,000 for a GPU")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--reliable", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=TRACKS_PER_S, help="tracks a second, handed over live")
    parser.add_argument("--seconds", type=float, default=10.0, help="of handing tracks over, twice")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            *(options.device, options.tracks, options.frames, options.reliable, options.seconds),
            options.rate,
            Path(folder),
        )
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
