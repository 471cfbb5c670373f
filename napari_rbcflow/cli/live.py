"""`demo` and `live`: from a camera to the end of a run, in napari or in the terminal."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_rbcflow.cli.group import (
    PATH,
    cli,
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
from napari_rbcflow.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from napari_rbcflow.pipeline import Order, Progress, Run
    from napari_rbcflow.quality import RunWarning


THREAD = "rbcflow-opening"
PATIENCE_S = 8.0
"""That a camera which is being opened has to answer, once a person stopped it; as in `worker`."""
_LOOK_S = 0.1


def begin(run: Run) -> bool:
    """Start a run; return whether a person asked to stop meanwhile.

    Python hears a Ctrl-C only between its own steps, and in a call into a driver there are none: so the
    driver is called in another thread. One that never returns is left there; `group.main` ends all the same.

    Raises
    ------
    BadInput
        As `Run.start`; or where the source did not answer after a person asked to stop.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run.start()
        except BaseException as error:
            failed.append(error)

    asked = threading.Event()
    opening = threading.Thread(target=work, name=THREAD, daemon=True)
    with stopped_by_signals(asked.set):
        opening.start()
        while opening.is_alive() and not asked.is_set():
            opening.join(_LOOK_S)
        if asked.is_set():
            run.source.stop()
            opening.join(PATIENCE_S)
    if opening.is_alive():
        raise BadInput(
            "the source did not answer while it was being opened (nothing was made): check camera and path"
        )
    if failed:
        raise failed[0]
    return asked.is_set()


@dataclass(frozen=True)
class Result:
    """What is said of a run at its end."""

    outcome: tuple[str, str]
    progress: Progress | None
    warnings: Sequence[str]
    remarks: Sequence[str]
    folder: Path


def carry_out(order: Order, viewer: bool | None) -> int:
    """Run to the end, print the result and return the exit code.

    Parameters
    ----------
    order : Order
    viewer : bool or None
        None: in napari where there is a display.
    """
    if order.folder.exists():  # before a window opens for nothing
        raise BadInput(f"{order.folder} exists already: choose a folder that does not, or move that one away")
    wanted = viewer is not False
    if wanted and (problem := no_viewer()):
        if viewer:
            raise BadInput(problem)
        wanted = False
    if sys.stderr.isatty():
        click.echo("opening the source and the networks ...", err=True)
    say((_in_napari if wanted else _in_terminal)(order))
    return 0


def _in_terminal(order: Order) -> Result:
    from napari_rbcflow.cli.terminal import follow
    from napari_rbcflow.pipeline import Run
    from napari_rbcflow.sources import amiss_words, took_words

    source = order.source.make()
    run = Run(source, order.folder, order.settings)
    if begin(run):
        run.stop()
    for words in (f"{run.info.name}: {took_words(run.info)}", amiss_words(run.info)):
        if words:
            click.echo(words, err=True)
    try:
        with stopped_by_signals(run.stop):
            follow(run)
    finally:
        run.stop()
        run.wait()
    return Result(run.outcome, run.progress(), run.warnings, source.remarks, order.folder)


def _in_napari(order: Order) -> Result:
    from napari_rbcflow.widgets.window import close_windows, watch

    with stopped_by_signals(close_windows):
        run = watch(order)
    if not run.folder.exists():
        raise BadInput(run.sentence or "the window was closed before the run began: nothing was made")
    told = run.snapshot
    progress, warnings = (told.progress, told.warnings) if told else (None, ())
    return Result(run.outcome, progress, warnings, run.remarks, run.folder)


def say(result: Result) -> None:
    """Print what came of a run.

    Raises
    ------
    RunFailed
        Where it failed, after all else was said.
    """
    from napari_rbcflow.cli.terminal import say_notes, say_number
    from napari_rbcflow.estimate import fraction_text
    from napari_rbcflow.session import words_of

    (status, reason), folder = result.outcome, result.folder
    warnings = warnings_in(folder, result.warnings)
    if (p := result.progress) is not None:
        say_number(fraction_text(p.estimate, p.interval, p.n, p.level, p.method), warnings)
        if corrected := words_of(folder):
            click.echo(corrected)
        if p.stop_sentence:
            click.echo(p.stop_sentence)
        click.echo(
            f"{status} ({reason}); {p.received} frames received, {_lost(p.dropped, p.dropped_by)} dropped, "
            f"{_lost(p.missed, p.missed_by)} missed; {p.cells['tracked']} tracks, "
            f"{p.cells['unreliable']} unreliable, {p.cells['too_short']} too short, "
            f"{p.cells['uncounted']} not counted (open at the stop, after it, too brief, or pieces of others)"
        )
    say_notes(warnings)
    for remark in result.remarks:
        click.echo(remark)
    click.echo(f"session: {folder}")
    if status == "failed":
        raise RunFailed(f"the run failed: {reason} (what it had is in {folder})")


def _lost(n: int, counts: Mapping[str, int]) -> str:
    from napari_rbcflow.quality import by_reason

    return f"{n} ({by_reason(counts)})" if counts else f"{n}"


def warnings_in(folder: Path, told: Sequence[str]) -> list[RunWarning]:
    """Return what a session says that a person must be told; `told` where it cannot be read."""
    from napari_rbcflow.errors import RbcflowError
    from napari_rbcflow.quality import RunWarning, Severity, warnings_of_run
    from napari_rbcflow.session import read_run

    try:
        return warnings_of_run(read_run(folder))
    except RbcflowError:
        return [RunWarning("told", Severity.WARNING, sentence) for sentence in told]


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
def stopped_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C, and being told to end, call `end`, which stops the run; a second one interrupts."""

    def stop(number: int, _: object) -> None:
        end()
        signal.signal(number, before[number])

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    from napari_rbcflow.pipeline import Camera, Order, RunSettings

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
    from napari_rbcflow.pipeline import Camera, Order, RunSettings
    from napari_rbcflow.sources import parse_roi

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
    from napari_rbcflow.estimate import USUAL_RELIABLE, StopRules

    if all(rule is None for rule in (reliable, halfwidth, seconds, tracks, baseline)):
        reliable = default or USUAL_RELIABLE
    return StopRules(reliable, halfwidth, seconds, tracks, baseline)
