"""Everything that is measured, as one record."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_rbcflow.benchmark.child import Say, in_child
from napari_rbcflow.benchmark.effort import Effort, Order
from napari_rbcflow.benchmark.figures import FRAME_MS, Figure, Floor
from napari_rbcflow.errors import BadInput
from napari_rbcflow.types import DEFAULT_FPS

AIM_ANALYSED_MS = FRAME_MS / 2
"""Analysing is to run at twice real time or more."""
MOST_MINUTES = 24.0 * 60
_MEASURING = "napari_rbcflow.benchmark.measuring"
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
