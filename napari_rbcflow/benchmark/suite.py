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
from napari_rbcflow.benchmark.child import Effort, Order, Report, in_child
from napari_rbcflow.benchmark.machine import bandwidth_gb_per_s, facts, gflop_per_s
from napari_rbcflow.benchmark.report import FRAME_MS, Figure, Floor
from napari_rbcflow.benchmark.whole import endless
from napari_rbcflow.classification import TwoStage
from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import keep_freed_memory
from napari_rbcflow.sentences import say
from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.tracking import warm_up
from napari_rbcflow.types import DEFAULT_FPS

AIM_MS, AIM_CROWDED_MS, AIM_SENSOR_MS = 6.0, 9.0, 25.0
"""Of detection and linking: on two cores the last holds 60 frames/s at the full sensor."""
MOVIE = "chamber.tif"


def measure_parts(order: Order, report: Report) -> dict[str, Any]:
    """Measure each part for itself, late against early, and the machine; leaves `MOVIE` in the folder."""
    effort = order.effort
    keep_freed_memory()  # as a run does
    report(0.0, say("benchmark.loading"))
    two_stage = TwoStage.load(order.device)
    two_stage.warm_up()
    report(0.05, say("benchmark.measuring-memory"))
    machine = {
        **facts(),
        "device": two_stage.device,
        "copy_gb_per_s": bandwidth_gb_per_s(effort.copied_bytes),
        "gflop_per_s": gflop_per_s(),
    }
    report(0.1, say("benchmark.simulating"))
    usual = child.settings(effort, cells=effort.cells)
    seconds = effort.movie_frames / DEFAULT_FPS
    simulate_movie(
        order.folder / MOVIE,
        seconds=seconds,
        settings=usual,
        progress=lambda k, n: report(0.1 + 0.1 * k / n, say("benchmark.simulating")),
    )
    film = np.array(tifffile.memmap(order.folder / MOVIE, mode="r")[: effort.held_frames])
    report(0.22, say("benchmark.compiling"))
    warm_up(effort.pixel_size_um)
    warm_up(effort.pixel_size_um / 2)
    report(0.25, say("benchmark.tracking", cells=effort.cells))
    size, full = (f"{b * effort.width} x {b * effort.height}" for b in (1, 2))
    tracked = parts.track(film, effort.pixel_size_um, len(film))
    figures = parts.tracking_figures(film, tracked, effort.pixel_size_um, f"{effort.cells:.0f} cells", AIM_MS)
    tracking_floor = figures[-1].floor
    background_s = parts.movie_background_s(film)
    report(0.35, say("benchmark.tracking", cells=effort.many_cells))
    crowd = child.settings(effort, cells=effort.many_cells)
    other = child.held(crowd, effort.crowded_frames)
    crowded = parts.track(other, effort.pixel_size_um, len(other))
    figures += parts.tracking_figures(
        other, crowded, effort.pixel_size_um, f"{effort.many_cells:.0f} cells", AIM_CROWDED_MS
    )
    report(0.45, say("benchmark.simulating-sensor", size=full))
    sensor = child.settings(effort, cells=effort.cells, binned=2)
    other = child.held(sensor, effort.sensor_frames)
    report(0.6, say("benchmark.tracking-sensor"))
    full_tracked = parts.track(other, sensor.pixel_size_um, len(other))
    figures += parts.tracking_figures(other, full_tracked, sensor.pixel_size_um, "full sensor", AIM_SENSOR_MS)
    del other
    report(0.7, say("benchmark.writing-ring"))
    figures.append(
        parts.ring(film, effort.pixel_size_um, round(effort.cells), effort.ring_frames, order.folder)
    )
    report(0.72, say("benchmark.judging"))
    judged, track_floor = parts.judging(two_stage, tracked.tracks, effort.judged_tracks)
    figures += judged
    late = endless(
        film,
        effort.pixel_size_um,
        frames=effort.endless_frames,
        most_s=effort.endless_s,
        folder=order.folder,
        progress=lambda share, seconds: report(
            0.77 + 0.23 * share, say("benchmark.late-early", seconds=seconds)
        ),
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


def measure_whole(order: Order, report: Report) -> dict[str, Any]:
    """Analyse `MOVIE` in the folder, and play it live."""
    effort, movie = order.effort, order.folder / MOVIE
    gpu = order.device != "cpu"
    found = {
        "analysed": whole.analysed(
            movie,
            order.folder / "analysed",
            "cpu",
            lambda share, frames: report(0.5 * share, say("benchmark.analysing", frames=frames)),
        )
    }
    if gpu:
        found["analysed_on_gpu"] = whole.analysed(
            movie,
            order.folder / "on-gpu",
            order.device,
            lambda share, frames: report(0.5, say("benchmark.analysing-gpu", frames=frames)),
        )
    found["live"] = whole.live(
        tifffile.memmap(movie, mode="r"),
        effort.pixel_size_um,
        effort.live_s,
        order.folder / "live",
        order.device,
        lambda share, seconds: report(0.6 + 0.4 * share, say("benchmark.live", seconds=seconds)),
    )
    return found


AIM_ANALYSED_MS = FRAME_MS / 2  # analysing is to run at twice real time or more
MOST_MINUTES = 24.0 * 60
_MEASURING = "napari_rbcflow.benchmark.suite"
_PARTS_SHARE = 0.7  # of the time, for the progress bar


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
        Minutes of frames tracked to compare late with early. Default: as many as fit into three minutes of
        measuring in all.
    folder : Path, optional
        For the movie, ring and sessions meanwhile, on the disk to be measured. Default: the system's folder
        for temporary files.
    effort : Effort, optional
        How much is measured.
    progress : callable
        Called with the share done, 0 to 1, and what is being measured.

    Returns
    -------
    dict
        Ready for JSON: ``frame_ms``, ``seconds`` (of measuring), ``machine``, ``figures`` (a list,
        each as `Figure.record`), ``endless``, ``analysed``, ``live``, ``memory``, ``movie_background_s``,
        ``effort``.

    Raises
    ------
    BadInput
        If the device or folder is not available, or the disk too full.
    RunFailed
        If measuring broke. Nothing is left behind either way.
    """
    effort = _effort(effort or Effort(), minutes)
    where = _place(folder, effort)
    started = time.perf_counter()
    try:
        place = tempfile.TemporaryDirectory(
            prefix="rbcflow-benchmark-", dir=where, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise BadInput("benchmark.folder-read-only", folder=where, why=error.strerror) from None
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
        raise BadInput("benchmark.minutes-outside", most=MOST_MINUTES, minutes=minutes)
    return replace(effort, endless_frames=round(minutes * 60 * DEFAULT_FPS), endless_s=None)


def _place(folder: Path | None, effort: Effort) -> Path:
    where = Path(tempfile.gettempdir()) if folder is None else folder
    if not where.is_dir():
        raise BadInput("benchmark.no-folder", folder=where)
    free, needed = shutil.disk_usage(where).free, 1.2 * effort.disk_bytes
    if free < needed:
        raise BadInput("benchmark.disk-too-small", needed=needed / 1e9, free=free / 1e9, folder=where)
    return where


def _within(progress: Callable[[float, str], None], first: float, last: float) -> Report:
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
            note=say("benchmark.note-start-up", seconds=analysed["start_up_s"]),
        ),
        Figure(
            "... its CPU time, all threads",
            analysed["cpu_ms_per_frame"],
            floor=floor,
            note=say("benchmark.note-tracks", tracks=60 * analysed["tracks"] / analysed["frames"]),
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
                note=say("benchmark.note-start-up", seconds=gpu["start_up_s"]),
            )
        )
    lost = sum(live["dropped"].values())
    figures.append(
        Figure(
            "a live run at 60 frames/s, CPU time, all threads",
            live["cpu_ms_per_frame"],
            note=say("benchmark.note-lost", lost=lost, received=live["received"]),
        )
    )
    return figures
