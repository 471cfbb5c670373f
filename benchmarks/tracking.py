"""CPU time a frame of each step of tracking, as a ratio to real time, and the score where truth is given.

    python benchmarks/tracking.py [MOVIE.tif ...] [--background movie] [--score score_tracks.py]

Without a movie, three seconds of the simulated chamber with 115 cells a frame. CPU time is that of the
whole process (`time.process_time`), all threads together; the bandwidth floor is what it takes to read
the frame and its background once, at the rate measured here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_rbcflow.benchmark import parts
from napari_rbcflow.benchmark.child import Stopwatch, stepwise
from napari_rbcflow.tracking.background import Background, MovieBackground, SlidingBackground
from napari_rbcflow.tracking.detection import Detector
from napari_rbcflow.tracking.focus import Focus
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, Track

STEPS = parts.STEPS | {"focus": (Focus, "lost"), "contrast": (Detector, "contrasts")}
"""The contrast is a part of detection, and counted there too."""
WARM_UP = 10


def bandwidth_gb_per_s() -> float:
    """Bytes summed a second by one thread, best of five."""
    block = np.ones(64 << 20, np.uint8).view(np.uint64)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        block.max()
        best = max(best, block.nbytes / (time.perf_counter() - start) / 1e9)
    return best


def measure(movie: np.ndarray, kind: str, pixel_size_um: float) -> tuple[dict[str, Any], list[Track]]:
    """Track a movie and return CPU milliseconds a frame of each step, and the tracks."""
    n, height, width = movie.shape
    background: Background
    start = time.process_time()
    if kind == "movie":
        background = MovieBackground(movie[np.linspace(0, n - 1, min(n, 100)).astype(int)])
    else:
        background = SlidingBackground(height, width, fps=DEFAULT_FPS)
    making_s = time.process_time() - start
    tracker = Tracker(height, width, fps=DEFAULT_FPS, pixel_size_um=pixel_size_um, background=background)
    tracks: list[Track] = []
    with stepwise(STEPS) as spent:
        watch, first = Stopwatch(), 0
        for t in range(n):
            tracks += tracker.process(Frame(t, t / DEFAULT_FPS, movie[t]))
            if not first and tracker.processed >= WARM_UP:  # compiled by now
                spent.update(dict.fromkeys(spent, 0.0))
                watch, first = Stopwatch(), tracker.processed
        tracks += tracker.finish("source-ended")
        total_s = watch.cpu_s
    frames = tracker.processed - first
    total_ms = 1e3 * total_s / frames
    steps = {name: round(1e3 * seconds / frames, 3) for name, seconds in spent.items()}
    others_ms = sum(steps[name] for name in parts.NOT_DETECTION_OR_LINKING)
    floor_ms = 2 * height * width / bandwidth_gb_per_s() / 1e6
    return {
        "frames": n,
        "size": [height, width],
        "tracks": len(tracks),
        "reasons": dict(Counter(track.reason for track in tracks)),
        "cells_per_frame": round(sum(map(len, tracks)) / n, 1),
        "cpu_ms_per_frame": round(total_ms, 3),
        "steps_ms": steps,
        "detection_and_linking_ms": round(total_ms - others_ms, 3),
        "ratio_to_real_time": round(1e3 / DEFAULT_FPS / total_ms, 2),
        "background_s": round(making_s, 2),
        "bandwidth_floor_ms": round(floor_ms, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }, tracks


def score(tracks: list[Track], truth: Path, tool: Path) -> dict[str, float]:
    """Score with the shared tool."""
    spec = importlib.util.spec_from_file_location("score_tracks", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [
        (int(f), k.cell, float(x), float(y))
        for k in tracks
        for f, x, y in zip(k.frames, k.x_px, k.y_px, strict=True)
    ]
    figures: dict[str, float] = module.score(rows, truth)[0]
    return {name: round(float(value), 4) for name, value in figures.items()}


def main() -> None:
    """Run from the command line; prints one JSON object a movie."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("movies", nargs="*", type=Path)
    parser.add_argument("--background", choices=("movie", "sliding"), default="sliding")
    parser.add_argument("--pixel-size-um", type=float, default=DEFAULT_PIXEL_SIZE_UM)
    parser.add_argument("--score", type=Path, help="tools/score_tracks.py, for movies with a .truth.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        movies = options.movies
        if not movies:
            from napari_rbcflow.simulation import simulate_movie

            movies = [Path(folder) / "chamber.tif"]
            simulate_movie(movies[0], seconds=3.0, seed=1, tank_fraction=0.8, cells_per_frame=115.0)
        for path in movies:
            figures, tracks = measure(tifffile.imread(path), options.background, options.pixel_size_um)
            truth = path.with_suffix(".truth.csv")
            if options.score is not None and truth.exists():
                figures["score"] = score(tracks, truth, options.score)
            print(json.dumps({"movie": path.name, "background": options.background, **figures}), flush=True)


if __name__ == "__main__":
    main()
