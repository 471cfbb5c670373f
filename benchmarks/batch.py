"""What many movies cost beside one: scaling over workers, and the scheduler's own share.

    python benchmarks/batch.py [MOVIE.tif] [--movies 12] [--frames 60] [--json batch.json]

From MOVIE.tif (by default the sample) parts of some frames are cut, each a movie. The clock is shared with
whatever else runs here, so beside it stand CPU times, which hardly are: of the process that hands out the
movies (client and scheduler), and of the processes that analyse them. `--empty` tasks that do nothing show
the scheduler alone: in this process, and over TCP to two worker processes on loopback.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
from distributed import Client, LocalCluster, as_completed

from napari_rbcflow import analyze_many
from napari_rbcflow.pipeline.batch_list import BatchMovie, list_movies
from napari_rbcflow.pipeline.client import Worker

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "flow_chamber.tif"
LOOPBACK = "127.0.0.1:0"


def cut(movie: Path, folder: Path, n: int, frames: int) -> None:
    film = tifffile.imread(movie)
    for k, first in enumerate(np.linspace(0, len(film) - frames, n).astype(int)):
        part = np.ascontiguousarray(film[first : first + frames])
        tifffile.imwrite(folder / f"part{k:03}.tif", part, photometric="minisblack")


def nothing(movie: BatchMovie) -> str:
    return movie.key


def empty_tasks(movie: BatchMovie, n: int, *, processes: bool) -> dict[str, float]:
    """Hand out tasks that do nothing but carry what a movie's task carries."""
    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=processes,
        dashboard_address=LOOPBACK,
        worker_dashboard_address=LOOPBACK,
        silence_logs=logging.ERROR,
    )
    with cluster, Client(cluster) as client:
        client.submit(nothing, movie, pure=False).result()
        began, cpu = time.perf_counter(), time.process_time()
        tasks = [client.submit(nothing, movie, pure=False) for _ in range(n)]
        for task in as_completed(tasks):
            task.result()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"wall_ms": 1e3 * wall / n, "cpu_ms": 1e3 * cpu / n}


def batch(folder: Path, n: int, workers: int) -> dict[str, Any]:
    """Analyse these movies on some workers; times from the first row on, when the networks are loaded."""
    rows: list[tuple[float, float, float]] = []  # clock, CPU time of this process, of those that analyse
    peak = 0

    def look(*_: Any) -> None:
        nonlocal peak
        spent = 0.0
        for child in psutil.Process().children():
            times, memory = child.cpu_times(), child.memory_info()
            spent += times.user + times.system
            peak = max(peak, memory.rss)
        rows.append((time.perf_counter(), time.process_time(), spent))

    with tempfile.TemporaryDirectory() as out:
        analyze_many(folder / "*.tif", Path(out) / "b", workers=workers, progress=look, fps=60, device="cpu")
    (t0, ours0, theirs0), (t1, ours1, theirs1) = rows[workers - 1], rows[-1]
    movies = n - workers
    return {
        "workers": workers,
        "wall_s_a_movie": (t1 - t0) / movies,
        "cpu_s_a_movie": (theirs1 - theirs0) / movies,
        "handing_out_cpu_ms_a_movie": 1e3 * (ours1 - ours0) / movies,
        "cores_busy": (theirs1 - theirs0) / (t1 - t0),
        "peak_process_gb": peak / 1e9,
    }


def start_of_a_process() -> dict[str, float]:
    """What a worker spends once, before its first movie."""
    began = time.perf_counter()
    with Worker() as worker:
        while not worker.ready:
            time.sleep(0.05)
        times = psutil.Process(worker.pid).cpu_times()
    return {"wall_s": time.perf_counter() - began, "cpu_s": times.user + times.system}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--movies", type=int, default=12)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--empty", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"load": os.getloadavg(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cut(given.movie, folder, given.movies, given.frames)
        movie = list_movies(folder / "part000.tif", fps=60)[0]
        found["empty, in this process"] = empty_tasks(movie, given.empty, processes=False)
        found["empty, over TCP"] = empty_tasks(movie, given.empty, processes=True)
        found["start of a process"] = start_of_a_process()
        for workers in (1, 2):
            found[f"{workers} workers"] = batch(folder, given.movies, workers)
    found["times as fast with 2"] = (
        found["1 workers"]["wall_s_a_movie"] / found["2 workers"]["wall_s_a_movie"]
    )
    print(json.dumps(found, indent=1, default=lambda value: round(value, 4)))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
