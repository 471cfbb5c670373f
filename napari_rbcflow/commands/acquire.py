"""`demo` and `live`: from a camera, simulated or real."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from napari_rbcflow.commands.carrying_out import carry_out
from napari_rbcflow.commands.group import cli
from napari_rbcflow.commands.options import (
    PATH,
    debug_option,
    device_option,
    flow_option,
    flow_set,
    interval_option,
    intruded_option,
    least_frames_option,
    output_option,
    record_options,
    ring_option,
    set_flow_options,
    stop_options,
    viewer_option,
)

DEMO_STOP_RELIABLE = 50


@cli.command(short_help="Run the whole instrument on a simulated chamber.")
@click.option("-o", "--output", type=PATH, help="Session folder [default: rbcflow-demo-DATE-TIME].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the simulation.")
@click.option(
    "--tank-fraction",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="The simulation's own fraction.",
)
@stop_options
@interval_option
@least_frames_option
@viewer_option
@device_option
@debug_option
def demo(
    output: Path | None,
    seed: int,
    tank_fraction: float,
    stop_reliable: int | None,
    stop_halfwidth: float | None,
    stop_seconds: float | None,
    stop_tracks: int | None,
    stop_baseline: float | None,
    interval: Any,
    least_frames: int,
    viewer: bool | None,
    device: str,
) -> int:
    """Run the whole instrument on a simulated flow chamber, at 60 frames/s.

    Example: rbcflow demo --stop-reliable 100 --tank-fraction 0.9
    """
    from napari_rbcflow.pipeline.messages import Camera, Order
    from napari_rbcflow.pipeline.settings import RunSettings

    folder = output or Path(time.strftime("rbcflow-demo-%Y%m%d-%H%M%S"))
    rules = stop_rules(
        stop_reliable, stop_halfwidth, stop_seconds, stop_tracks, stop_baseline, default=DEMO_STOP_RELIABLE
    )
    chamber = Camera("simulated", {"seed": seed, "tank_fraction": tank_fraction})
    settings = RunSettings(
        sample="simulated flow chamber",
        device=device,
        stop=rules,
        interval=interval,
        least_frames=least_frames,
    )
    return carry_out(Order(chamber, folder, settings), viewer)


@cli.command(short_help="Acquire from a camera until there are enough cells.")
@output_option
@click.option(
    "--camera",
    required=True,
    metavar="SPEC",
    help="simulated; demo (Micro-Manager's DemoCamera); FILE.cfg (a Micro-Manager configuration); "
    "a movie file, played at its own pace; running (a Micro-Manager that is open already). "
    "DemoCamera shows no cells: it tests the way of the frames.",
)
@click.option("--mm-path", type=PATH, help="Micro-Manager's folder, with its device adapters.")
@click.option("--port", type=int, help="Of the running Micro-Manager's server [default: 4827].")
@click.option(
    "--end-live-mode", is_flag=True, default=None, help="End the running Micro-Manager's Live mode."
)
@click.option("--exposure-ms", type=float, help="[default: as the camera is set].")
@click.option("--fps", type=float, help="Frames per second to ask for, or of the movie.")
@click.option("--binning", type=int, help="1, 2, 4, ...")
@click.option("--roi", metavar="X,Y,WIDTH,HEIGHT", help="Region of interest, in pixels of the camera.")
@click.option(
    "--pixel-type", metavar="TYPE", help="8bit-MONO, 16bit-MONO, 8bit-COLOR, ...: what the camera has."
)
@click.option("--pixel-size-um", type=float, help="Of one pixel in the sample, in um.")
@click.option("--seed", type=int, help="Of the simulated camera [default: 0].")
@click.option("--tank-fraction", type=click.FloatRange(0, 1), help="Of the simulated camera [default: 0.8].")
@click.option(
    "--cells-per-frame", type=click.FloatRange(0, 1000), help="Of the simulated camera [default: 115]."
)
@flow_option
@set_flow_options
@device_option
@record_options
@stop_options
@interval_option
@intruded_option
@least_frames_option
@ring_option
@viewer_option
@debug_option
def live(
    output: Path,
    camera: str,
    mm_path: Path | None,
    port: int | None,
    end_live_mode: bool | None,
    exposure_ms: float | None,
    fps: float | None,
    binning: int | None,
    roi: str | None,
    pixel_type: str | None,
    pixel_size_um: float | None,
    seed: int | None,
    tank_fraction: float | None,
    cells_per_frame: float | None,
    flow: Any,
    shear_rate: float | None,
    focus_height_um: float | None,
    device: str,
    patient: str,
    sample: str,
    stop_reliable: int | None,
    stop_halfwidth: float | None,
    stop_seconds: float | None,
    stop_tracks: int | None,
    stop_baseline: float | None,
    interval: Any,
    ring_seconds: float,
    leave_out_intruded: bool,
    least_frames: int,
    viewer: bool | None,
) -> int:
    """Acquire from a camera until a stop rule is met (without one: at 200 reliable cells).

    Example: rbcflow live -o session1 --camera demo --stop-seconds 20
    """
    from napari_rbcflow.pipeline.messages import Camera, Order
    from napari_rbcflow.pipeline.settings import RunSettings
    from napari_rbcflow.sources.camera_settings import parse_roi

    options = {
        "port": port,
        "end_live_mode": end_live_mode,
        "mm_path": mm_path,
        "exposure_ms": exposure_ms,
        "fps": fps,
        "binning": binning,
        "roi": parse_roi(roi),
        "pixel_type": pixel_type,
        "pixel_size_um": pixel_size_um,
        "seed": seed,
        "tank_fraction": tank_fraction,
        "cells_per_frame": cells_per_frame,
    }
    source = Camera(camera, {name: value for name, value in options.items() if value is not None})
    settings = RunSettings(
        patient=patient,
        sample=sample,
        flow=flow,
        set_flow=flow_set(shear_rate, focus_height_um),
        device=device,
        stop=stop_rules(stop_reliable, stop_halfwidth, stop_seconds, stop_tracks, stop_baseline),
        interval=interval,
        ring_seconds=ring_seconds,
        leave_out_intruded=leave_out_intruded,
        least_frames=least_frames,
    )
    return carry_out(Order(source, output, settings), viewer)


def stop_rules(
    reliable: int | None,
    halfwidth: float | None,
    seconds: float | None,
    tracks: int | None,
    baseline: float | None,
    *,
    default: int | None = None,
) -> Any:
    """Return the rules, with a number of cells where none is given."""
    from napari_rbcflow.estimate.stopping import USUAL_RELIABLE, StopRules

    if all(rule is None for rule in (reliable, halfwidth, seconds, tracks, baseline)):
        reliable = default or USUAL_RELIABLE
    return StopRules(reliable, halfwidth, seconds, tracks, baseline)
