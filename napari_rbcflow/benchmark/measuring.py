"""What the two measuring processes do: the parts, and the whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import tifffile

from napari_rbcflow.benchmark import films, parts, whole
from napari_rbcflow.benchmark.child import Say
from napari_rbcflow.benchmark.effort import Order
from napari_rbcflow.benchmark.endless import endless
from napari_rbcflow.benchmark.machine import bandwidth_gb_per_s, facts, gflop_per_s
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline.stages import keep_freed_memory
from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.tracking.tracker import warm_up
from napari_rbcflow.types import DEFAULT_FPS

AIM_MS, AIM_CROWDED_MS, AIM_SENSOR_MS = 6.0, 9.0, 25.0
"""Of detection and linking: on two cores the last holds 60 frames/s at the full sensor."""
MOVIE = "chamber.tif"


def measure_parts(order: Order, say: Say) -> dict[str, Any]:
    """Measure each part for itself, late against early, and the machine; leaves `MOVIE` in the folder."""
    effort = order.effort
    keep_freed_memory()  # as a run does
    say(0.0, "loading the networks")
    two_stage = TwoStage.load(order.device)
    two_stage.warm_up()
    say(0.05, "measuring the memory")
    machine = {
        **facts(),
        "device": two_stage.device,
        "copy_gb_per_s": bandwidth_gb_per_s(effort.copied_bytes),
        "gflop_per_s": gflop_per_s(),
    }
    say(0.1, "simulating a chamber")
    usual = films.settings(effort, cells=effort.cells)
    seconds = effort.movie_frames / DEFAULT_FPS
    simulate_movie(
        order.folder / MOVIE,
        seconds=seconds,
        settings=usual,
        progress=lambda k, n: say(0.1 + 0.1 * k / n, "simulating a chamber"),
    )
    film = np.array(tifffile.memmap(order.folder / MOVIE, mode="r")[: effort.held_frames])
    say(0.22, "compiling")
    warm_up(effort.pixel_size_um)
    warm_up(effort.pixel_size_um / 2)
    say(0.25, f"tracking {effort.cells:.0f} cells")
    size, full = (f"{b * effort.width} x {b * effort.height}" for b in (1, 2))
    tracked = parts.track(film, effort.pixel_size_um, len(film))
    figures = parts.tracking_figures(film, tracked, effort.pixel_size_um, f"{effort.cells:.0f} cells", AIM_MS)
    tracking_floor = figures[-1].floor
    background_s = parts.movie_background_s(film)
    say(0.35, f"tracking {effort.many_cells:.0f} cells")
    crowd = films.settings(effort, cells=effort.many_cells)
    other = films.held(crowd, effort.crowded_frames)
    crowded = parts.track(other, effort.pixel_size_um, len(other))
    figures += parts.tracking_figures(
        other, crowded, effort.pixel_size_um, f"{effort.many_cells:.0f} cells", AIM_CROWDED_MS
    )
    say(0.45, f"simulating the full sensor of {full}")
    sensor = films.settings(effort, cells=effort.cells, binned=2)
    other = films.held(sensor, effort.sensor_frames)
    say(0.6, "tracking at the full sensor")
    full_tracked = parts.track(other, sensor.pixel_size_um, len(other))
    figures += parts.tracking_figures(other, full_tracked, sensor.pixel_size_um, "full sensor", AIM_SENSOR_MS)
    del other
    say(0.7, "writing to the ring")
    figures.append(
        parts.ring(film, effort.pixel_size_um, round(effort.cells), effort.ring_frames, order.folder)
    )
    say(0.72, "judging tracks")
    judged, track_floor = parts.judging(two_stage, tracked.tracks, effort.judged_tracks)
    figures += judged
    late = endless(
        film,
        effort.pixel_size_um,
        frames=effort.endless_frames,
        most_s=effort.endless_s,
        folder=order.folder,
        progress=lambda share, note: say(0.77 + 0.23 * share, f"late against early: {note}"),
    )
    return {
        "machine": machine,
        "size": size,
        "full_size": full,
        "figures": figures,
        "tracking_floor": tracking_floor,
        "track_floor": track_floor,
        "movie_background_s": background_s,
        "endless": late,
        "effort": asdict(effort),
    }


def measure_whole(order: Order, say: Say) -> dict[str, Any]:
    """Analyse `MOVIE` in the folder, and play it live."""
    effort, movie = order.effort, order.folder / MOVIE
    gpu = order.device != "cpu"
    found = {
        "analysed": whole.analysed(
            movie,
            order.folder / "analysed",
            "cpu",
            lambda share, note: say(0.5 * share, f"analysing: {note}"),
        )
    }
    if gpu:
        found["analysed_on_gpu"] = whole.analysed(
            movie, order.folder / "on-gpu", order.device, lambda share, note: say(0.5, f"on the GPU: {note}")
        )
    found["live"] = whole.live(
        tifffile.memmap(movie, mode="r"),
        effort.pixel_size_um,
        effort.live_s,
        order.folder / "live",
        order.device,
        lambda share, note: say(0.6 + 0.4 * share, f"live: {note}"),
    )
    return found
