"""`demo` and `live`: from a camera, simulated or real."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_rbcflow.commands.group import cli
from napari_rbcflow.commands.options import (
    PATH,
    debug_option,
    device_option,
    flow_option,
    output_option,
    parse_roi,
    record_options,
    ring_option,
    stop_options,
    viewer_option,
)
from napari_rbcflow.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from napari_rbcflow.run import Run

DEFAULT_STOP_RELIABLE = 200
"""Where no stop rule is given: about what one acquisition of Darrin et al. 2023 holds (120 to 270)."""
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
    viewer: bool | None,
    device: str,
) -> int:
    """Run the whole instrument on a simulated flow chamber, at 60 frames/s.

    Example: rbcflow demo --stop-reliable 100 --tank-fraction 0.9
    """
    from napari_rbcflow.run import Run, RunSettings
    from napari_rbcflow.sources.chamber import ChamberSettings, SimulatedChamber

    folder = output or Path(time.strftime("rbcflow-demo-%Y%m%d-%H%M%S"))
    rules = stop_rules(stop_reliable, stop_halfwidth, stop_seconds, DEMO_STOP_RELIABLE)
    chamber = SimulatedChamber(ChamberSettings(seed=seed, tank_fraction=tank_fraction))
    run = Run(chamber, folder, RunSettings(sample="simulated flow chamber", device=device, stop=rules))
    code = go(run, viewer)
    truth = chamber.truth_summary
    share = "none yet" if truth.fraction is None else f"{100 * truth.fraction:.1f} %"
    click.echo(
        f"the simulation's own fraction: {share} of its {truth.tank_treading + truth.flipping} cells "
        f"in focus until then ({100 * tank_fraction:.1f} % set)"
    )
    return code


@cli.command(short_help="Acquire from a camera until there are enough cells.")
@output_option
@click.option(
    "--camera",
    required=True,
    metavar="SPEC",
    help="simulated; demo (Micro-Manager's DemoCamera); FILE.cfg (a Micro-Manager configuration); "
    "a movie file, played at its own pace; running (Micro-Manager already open: not in this version). "
    "DemoCamera shows no cells: it tests the way of the frames.",
)
@click.option("--mm-path", type=PATH, help="Micro-Manager's folder, with its device adapters.")
@click.option("--port", type=int, help="Of the running Micro-Manager's server.")
@click.option("--exposure-ms", type=float, help="[default: as the camera is set].")
@click.option("--fps", type=float, help="Frames per second to ask for, or of the movie.")
@click.option("--binning", type=int, help="1, 2, 4, ...")
@click.option("--roi", metavar="X,Y,WIDTH,HEIGHT", help="Region of interest, in pixels of the camera.")
@click.option("--pixel-size-um", type=float, help="Of one pixel in the sample, in um.")
@click.option("--seed", type=int, help="Of the simulated camera [default: 0].")
@click.option("--tank-fraction", type=click.FloatRange(0, 1), help="Of the simulated camera [default: 0.8].")
@click.option(
    "--cells-per-frame", type=click.FloatRange(0, 1000), help="Of the simulated camera [default: 115]."
)
@flow_option
@device_option
@record_options
@stop_options
@ring_option
@viewer_option
@debug_option
def live(
    output: Path,
    camera: str,
    mm_path: Path | None,
    port: int | None,
    exposure_ms: float | None,
    fps: float | None,
    binning: int | None,
    roi: str | None,
    pixel_size_um: float | None,
    seed: int | None,
    tank_fraction: float | None,
    cells_per_frame: float | None,
    flow: Any,
    device: str,
    patient: str,
    sample: str,
    stop_reliable: int | None,
    stop_halfwidth: float | None,
    stop_seconds: float | None,
    ring_seconds: float,
    viewer: bool | None,
) -> int:
    """Acquire from a camera until a stop rule is met (without one: at 200 reliable cells).

    Example: rbcflow live -o session1 --camera demo --stop-seconds 20
    """
    from napari_rbcflow.run import Run, RunSettings
    from napari_rbcflow.sources.opening import open_source

    source = open_source(
        camera,
        port=port,
        mm_path=mm_path,
        exposure_ms=exposure_ms,
        fps=fps,
        binning=binning,
        roi=parse_roi(roi),
        pixel_size_um=pixel_size_um,
        seed=seed,
        tank_fraction=tank_fraction,
        cells_per_frame=cells_per_frame,
    )
    settings = RunSettings(
        patient=patient,
        sample=sample,
        flow=flow,
        device=device,
        stop=stop_rules(stop_reliable, stop_halfwidth, stop_seconds, DEFAULT_STOP_RELIABLE),
        ring_seconds=ring_seconds,
    )
    return go(Run(source, output, settings), viewer)


def go(run: Run, viewer: bool | None) -> int:
    """Run to the end, in napari or in the terminal, print the result and return the exit code."""
    from napari_rbcflow.commands.terminal import follow
    from napari_rbcflow.estimate.fraction import fraction_text

    wanted = viewer is not False
    if wanted and (problem := no_viewer()):
        if viewer:
            raise BadInput(problem)
        wanted = False
    if sys.stderr.isatty():
        click.echo("opening the source and the networks ...", err=True)
    run.start()
    try:
        if wanted:
            from napari_rbcflow.widgets.live_view import close_window, watch

            with stopped_by_signals(run, close_window):
                watch(run)
        else:
            with stopped_by_signals(run):
                follow(run)
    finally:
        run.stop()
        run.wait()
    status, reason = run.outcome
    fraction = run.stages.tally.fraction
    click.echo(fraction_text(fraction.estimate, fraction.interval(), fraction.n, fraction.level))
    account = run.progress()
    click.echo(
        f"{status} ({reason}); {account.received} frames received, {account.dropped} dropped, "
        f"{account.missed} missed; {account.cells['tracked']} tracks, "
        f"{account.cells['unreliable']} unreliable, {account.cells['too_short']} too short, "
        f"{account.cells['uncounted']} not counted (open at the stop, or after it)"
    )
    for warning in run.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"session: {run.folder}")
    if status == "failed":
        raise RunFailed(f"the run failed: {reason} (what it had is in {run.folder})")
    return 0


def stop_rules(reliable: int | None, halfwidth: float | None, seconds: float | None, default: int) -> Any:
    """Return the rules, with a number of cells where none is given."""
    from napari_rbcflow.estimate import StopRules

    if reliable is None and halfwidth is None and seconds is None:
        reliable = default
    return StopRules(reliable, halfwidth, seconds)


def no_viewer() -> str | None:
    """Say why napari cannot open here, or return None where it can."""
    if not any(importlib.util.find_spec(name) for name in ("PySide6", "PyQt6")):
        return (
            "no viewer can open, for no Qt is installed: pip install napari-rbcflow[all], or give --no-viewer"
        )
    if not sys.platform.startswith("linux"):
        return None
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        # Qt aborts the whole process where the display does not answer, so another one tries it first.
        probe = "from qtpy.QtWidgets import QApplication; QApplication([])"
        with contextlib.suppress(subprocess.TimeoutExpired):
            tried = subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=30)
            if tried.returncode == 0:
                return None
    return "there is no display that a viewer could open on: give --no-viewer"


@contextlib.contextmanager
def stopped_by_signals(run: Run, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let Ctrl-C, and being told to end, stop the run and close its session; a second one interrupts."""

    def stop(number: int, _: object) -> None:
        run.stop()
        then()
        signal.signal(number, before[number])

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
