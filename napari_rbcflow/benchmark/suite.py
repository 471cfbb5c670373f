"""Everything that is measured, as one record."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_rbcflow.benchmark import child, parts, whole
from napari_rbcflow.benchmark.child import Effort, Order, Say, in_child
from napari_rbcflow.benchmark.machine import bandwidth_gb_per_s, facts, gflop_per_s
from napari_rbcflow.benchmark.report import FRAME_MS, Figure, Floor
from napari_rbcflow.benchmark.whole import endless
from napari_rbcflow.classification import TwoStage
from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import keep_freed_memory
from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.tracking import warm_up
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
    usual = child.settings(effort, cells=effort.cells)
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
    crowd = child.settings(effort, cells=effort.many_cells)
    other = child.held(crowd, effort.crowded_frames)
    crowded = parts.track(other, effort.pixel_size_um, len(other))
    figures += parts.tracking_figures(
        other, crowded, effort.pixel_size_um, f"{effort.many_cells:.0f} cells", AIM_CROWDED_MS
    )
    say(0.45, f"simulating the full sensor of {full}")
    sensor = child.settings(effort, cells=effort.cells, binned=2)
    other = child.held(sensor, effort.sensor_frames)
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


AIM_ANALYSED_MS = FRAME_MS / 2
"""Analysing is to run at twice real time or more."""
MOST_MINUTES = 24.0 * 60
_MEASURING = "napari_rbcflow.benchmark.suite"
_PARTS_SHARE = 0.7
"""Of the time, for the progress bar."""


def benchmark(
    *,
    device: str = "auto",
    minutes: float | None = None,
    folder: Path | None = None,
    effort: Effort | None = None,
    progress: Callable[[float, str], None] = lambda share, note: None,
) -> dict[str, Any]:
    """Measure this machine.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where the networks run.
    minutes : float, optional
        Of frames that are tracked late against early, instead of what fits into three minutes in all.
    folder : Path, optional
        Where movie, ring and sessions lie meanwhile; on the disk that is meant. Default: the system's folder
        for temporary files.
    effort : Effort, optional
        How much is measured.
    progress : callable
        Called with the share that is done, and what is being measured.

    Returns
    -------
    dict
        Ready for JSON: ``frame_ms``, ``seconds`` (that measuring took), ``machine``, ``figures`` (a list,
        each as `Figure.record`), ``endless``, ``analysed``, ``live``, ``memory``, ``movie_background_s``,
        ``effort``.

    Raises
    ------
    BadInput
        For a device or folder that cannot be had, or a disk too full.
    RunFailed
        Where measuring broke. Nothing is left behind either way.
    """
    effort = _effort(effort or Effort(), minutes)
    where = _place(folder, effort)
    started = time.perf_counter()
    try:
        place = tempfile.TemporaryDirectory(
            prefix="rbcflow-benchmark-", dir=where, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise BadInput(f"{where} cannot be written to ({error.strerror}): choose another folder.") from None
    with place as made:
        order = Order(effort, device, Path(made))
        parts = in_child(f"{_MEASURING}:measure_parts", order, _within(progress, 0.0, _PARTS_SHARE))
        order = replace(order, device="cpu" if parts["machine"]["device"] == "cpu" else "cuda")
        whole = in_child(f"{_MEASURING}:measure_whole", order, _within(progress, _PARTS_SHARE, 1.0))
    return _record(parts, whole, time.perf_counter() - started)


def _effort(effort: Effort, minutes: float | None) -> Effort:
    if minutes is None:
        return effort
    if not 0 < minutes <= MOST_MINUTES:
        raise BadInput(f"minutes must lie above 0 and be at most {MOST_MINUTES:.0f}, not {minutes:g}.")
    return replace(effort, endless_frames=round(minutes * 60 * DEFAULT_FPS), endless_s=None)


def _place(folder: Path | None, effort: Effort) -> Path:
    where = Path(tempfile.gettempdir()) if folder is None else folder
    if not where.is_dir():
        raise BadInput(f"There is no folder {where}: make it first, or choose another.")
    free, needed = shutil.disk_usage(where).free, 1.2 * effort.disk_bytes
    if free < needed:
        raise BadInput(
            f"Measuring needs {needed / 1e9:.1f} GB for a while, but {where} has {free / 1e9:.1f} left: "
            "make room, or choose another folder."
        )
    return where


def _within(progress: Callable[[float, str], None], first: float, last: float) -> Say:
    return lambda share, note: progress(first + (last - first) * share, note)


def _record(parts: dict[str, Any], whole: dict[str, Any], seconds: float) -> dict[str, Any]:
    machine = parts["machine"]
    rates = (machine["copy_gb_per_s"], machine["gflop_per_s"])
    figures: list[Figure] = [*parts["figures"], *_of_whole(parts, whole)]
    return {
        "frame_ms": FRAME_MS,
        "seconds": seconds,
        "machine": machine,
        "size": parts["size"],
        "full_size": parts["full_size"],
        "figures": [figure.record(*rates) for figure in figures],
        "movie_background_s": parts["movie_background_s"],
        "endless": parts["endless"],
        **whole,
        "effort": parts["effort"],
    }


def _of_whole(parts: dict[str, Any], whole: dict[str, Any]) -> list[Figure]:
    analysed, live = whole["analysed"], whole["live"]
    height_width = parts["effort"]["height"] * parts["effort"]["width"]
    floor: Floor = Floor(2 * height_width) + parts["tracking_floor"]
    if parts["track_floor"] is not None:
        floor += parts["track_floor"].times(analysed["tracks"] / analysed["frames"])
    busiest = max(analysed["thread_cpu_ms_per_frame"].items(), key=lambda item: item[1])
    figures = [
        Figure(
            "the whole of analyze --device cpu",
            analysed["wall_ms_per_frame"],
            clock="wall",
            aim_ms=AIM_ANALYSED_MS,
            note=f"start-up of {analysed['start_up_s']:.1f} s apart",
        ),
        Figure(
            "... its CPU time, all threads",
            analysed["cpu_ms_per_frame"],
            floor=floor,
            note=f"{60 * analysed['tracks'] / analysed['frames']:.0f} tracks a second",
        ),
        Figure(f"... its busiest thread, {busiest[0]}", busiest[1]),
    ]
    if "analysed_on_gpu" in whole:
        gpu = whole["analysed_on_gpu"]
        figures.append(
            Figure(
                "the whole of analyze on the GPU",
                gpu["wall_ms_per_frame"],
                clock="wall",
                aim_ms=AIM_ANALYSED_MS,
                note=f"start-up of {gpu['start_up_s']:.1f} s apart",
            )
        )
    lost = sum(live["dropped"].values())
    figures.append(
        Figure(
            "a live run at 60 frames/s, CPU time, all threads",
            live["cpu_ms_per_frame"],
            note=f"{lost} of {live['received']} frames lost",
        )
    )
    return figures
