"""`demo` and `live`: from a camera to the end of a run, in napari or in the terminal."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_rbcflow.cli.group import (
    PATH,
    calibration_option,
    chamber_options,
    cli,
    debug_option,
    device_option,
    echo,
    flow_option,
    given,
    interval_option,
    intruded_option,
    least_frames_option,
    output_option,
    record_options,
    ring_option,
    rotate_option,
    run_record,
    run_record_options,
    series_option,
    set_flow,
    set_flow_options,
    stop_options,
    viewer_option,
)
from napari_rbcflow.cli.process import nothing_made_yet, stopped_by_signals
from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from napari_rbcflow.estimate import StopRules
    from napari_rbcflow.pipeline import Progress, Run, RunRequest
    from napari_rbcflow.quality import RunWarning


PATIENCE_S = 8.0
"""Seconds to wait for a camera that is being opened, once a person asked to stop; as in `pipeline`."""
_LOOK_S = 0.1


def begin(run: Run) -> bool:
    """Start a run; return whether a person asked to stop meanwhile.

    A driver that never returns is left in its thread; `group.main` ends all the same.
    """
    from napari_rbcflow.pipeline import Opening

    asked = threading.Event()
    with stopped_by_signals(asked.set):
        opening = Opening(run, _tell)
        while opening.is_alive() and not asked.is_set():
            opening.join(_LOOK_S)
        if asked.is_set():
            run.source.stop()
            opening.join(PATIENCE_S)
    if opening.is_alive():
        raise BadInput("cli.source-silent")
    if opening.error is not None:
        raise opening.error
    return asked.is_set()


def _tell(step: str) -> None:
    """Say to a person at a terminal what is being done, so that nobody waits before an empty line."""
    if _at_a_terminal():
        click.echo(step, err=True)


def _at_a_terminal() -> bool:
    return sys.stderr.isatty()


def carry_out(request: RunRequest, viewer: bool | None) -> None:
    """Run to the end and print the result; `viewer` None opens napari if there is a display."""
    if os.path.lexists(request.folder):  # before a window opens for nothing
        raise BadInput("session.exists", folder=request.folder)
    with nothing_made_yet():
        problem = "" if viewer is False else no_viewer(_load_napari)
    if viewer and problem:
        raise BadInput(problem)
    if viewer is False or problem:
        _in_terminal(request)
    else:
        _in_napari(request)


def _load_napari() -> None:
    """Import napari while the process that runs loads the networks."""
    from napari_rbcflow.pipeline import launch_ahead

    _tell(say("cli.opening-viewer"))
    launch_ahead()
    importlib.import_module("napari_rbcflow.widgets.window")


def _in_terminal(request: RunRequest) -> None:
    with nothing_made_yet():
        source = request.source.make()
        source.prepare()
        from napari_rbcflow.cli.terminal import follow
        from napari_rbcflow.pipeline import Run
        from napari_rbcflow.sources import not_as_asked_line, source_line

        run = Run(source, request.folder, request.settings)
    try:
        if begin(run):
            run.stop()
        for line in (f"{run.info.name}: {source_line(run.info)}", not_as_asked_line(run.info)):
            if line:
                echo(line, err=True)
        with stopped_by_signals(run.stop):
            follow(run)
    finally:
        run.stop()
        if run.started:
            run.wait()
    _print_end(request.folder, run.outcome, run.progress(), run.warnings, source.remarks)


def _in_napari(request: RunRequest) -> None:
    from napari_rbcflow.widgets.window import close_windows, watch

    with stopped_by_signals(close_windows):
        run = watch(request)
    if not os.path.lexists(run.folder):
        raise BadInput.told(run.sentence or say("cli.window-closed"))
    progress, warnings = (run.snapshot.progress, run.snapshot.warnings) if run.snapshot else (None, ())
    _print_end(run.folder, run.outcome, progress, warnings, run.remarks)


def _print_end(
    folder: Path,
    outcome: tuple[str, str],
    progress: Progress | None,
    warnings: Sequence[str],
    remarks: Sequence[str],
) -> None:
    """Print what came of a run, and raise `RunFailed` if it failed."""
    from napari_rbcflow.cli.terminal import print_result
    from napari_rbcflow.estimate import fraction_text
    from napari_rbcflow.types import RunStatus

    status, reason = outcome
    number, more = "", []
    if (p := progress) is not None:
        number = fraction_text(p.estimate, p.interval, p.n, p.level, p.method)
        counts = say(
            "cli.ended",
            status=status,
            reason=reason,
            received=p.received,
            dropped=_lost(p.dropped, p.dropped_by),
            missed=_lost(p.missed, p.missed_by),
            tracks=p.cells["tracked"],
            unreliable=p.cells["unreliable"],
            too_short=p.cells["too_short"],
            uncounted=p.cells["uncounted"],
        )
        more = [p.stop_sentence, counts]
    print_result(folder, _warnings_in(folder, warnings), number, more, remarks)
    if status == RunStatus.FAILED:
        raise RunFailed("cli.run-failed", reason=reason, folder=folder)


def _lost(n: int, counts: Mapping[str, int]) -> str:
    from napari_rbcflow.quality import by_reason

    return say("cli.lost-by-reason", frames=n, reasons=by_reason(counts)) if counts else f"{n:,}"


def _warnings_in(folder: Path, reported: Sequence[str]) -> list[RunWarning]:
    """Return the warnings of a session; those `reported` meanwhile if it cannot be read."""
    from napari_rbcflow.errors import RbcflowError
    from napari_rbcflow.quality import RunWarning, Severity, warnings_of_run
    from napari_rbcflow.session import read_run

    try:
        return warnings_of_run(read_run(folder))
    except RbcflowError:
        return [RunWarning("told", Severity.WARNING, sentence) for sentence in reported]


def no_viewer(meanwhile: Callable[[], object]) -> str:
    """Return the key of what keeps napari from opening here; empty if it can open.

    While a display is tried, `meanwhile` is called; where napari can open, it was called in any case.
    """
    if not any(importlib.util.find_spec(name) for name in ("PySide6", "PyQt6")):
        return "cli.no-qt"
    if not sys.platform.startswith("linux"):
        meanwhile()
        return ""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        # Qt aborts the whole process if the display does not answer, so another one tries it first.
        probe = "from qtpy.QtWidgets import QApplication; QApplication([])"
        nowhere = subprocess.DEVNULL
        with subprocess.Popen([sys.executable, "-c", probe], stdout=nowhere, stderr=nowhere) as tried:
            try:
                meanwhile()
                if tried.wait(30) == 0:
                    return ""
            except subprocess.TimeoutExpired:
                pass
            finally:
                tried.kill()
        from napari_rbcflow.pipeline import end_ahead

        end_ahead()
    return "cli.no-display"


DEMO_STOP_RELIABLE = 50
_OF_CAMERA = (
    *("mm_path", "port", "end_live_mode", "exposure_ms", "fps", "binning", "roi", "pixel_type"),
    *("pixel_size_um", "series", "seed", "tank_fraction", "cells_per_frame"),
)


@cli.command(help=say("cli.demo"), short_help=say("cli.demo-short"))
@click.option("-o", "--output", type=PATH, help=say("cli.demo-output"))
@chamber_options
@stop_options
@interval_option
@least_frames_option
@viewer_option
@device_option
@debug_option
def demo(output: Path | None, seed: int, tank_fraction: float, viewer: bool | None, **options: Any) -> None:
    _tell(say("pipeline.step-program"))
    with nothing_made_yet():
        from napari_rbcflow.pipeline import Camera, RunRequest, RunSettings

    folder = output or Path(time.strftime("rbcflow-demo-%Y%m%d-%H%M%S"))
    chamber = Camera("simulated", {"seed": seed, "tank_fraction": tank_fraction})
    stop = stop_rules(options, DEMO_STOP_RELIABLE)
    settings = RunSettings(sample=say("cli.demo-sample"), stop=stop, **given(options))
    carry_out(RunRequest(chamber, folder, settings), viewer)


@cli.command(help=say("cli.live"), short_help=say("cli.live-short"))
@output_option
@click.option("--camera", required=True, metavar="SPEC", help=say("cli.camera"))
@click.option("--mm-path", type=PATH, help=say("cli.mm-path"))
@click.option("--port", type=int, help=say("cli.port"))
@click.option("--end-live-mode", is_flag=True, default=None, help=say("cli.end-live-mode"))
@click.option("--exposure-ms", type=float, help=say("cli.exposure-ms"))
@click.option("--fps", type=float, help=say("cli.fps"))
@click.option("--binning", help=say("forms.binning-help"))
@click.option("--roi", metavar="X,Y,WIDTH,HEIGHT", help=say("cli.roi"))
@click.option("--pixel-type", metavar="TYPE", help=say("cli.pixel-type"))
@click.option("--pixel-size-um", type=float, help=say("cli.pixel-size-um"))
@series_option
@click.option("--seed", type=int, help=say("cli.live-seed"))
@click.option("--tank-fraction", type=click.FloatRange(0, 1), help=say("cli.live-tank-fraction"))
@click.option("--cells-per-frame", type=click.FloatRange(0, 1000), help=say("cli.live-cells-per-frame"))
@flow_option
@rotate_option
@set_flow_options
@device_option
@calibration_option
@record_options
@run_record_options
@stop_options
@interval_option
@intruded_option
@least_frames_option
@ring_option
@viewer_option
@debug_option
def live(output: Path, camera: str, viewer: bool | None, **options: Any) -> None:
    _tell(say("pipeline.step-program"))
    with nothing_made_yet():
        from napari_rbcflow.estimate import USUAL_RELIABLE
        from napari_rbcflow.pipeline import Camera, RunRequest, RunSettings
        from napari_rbcflow.sources import parse_roi

    options["roi"] = parse_roi(options["roi"])
    of_camera = {name: options.pop(name) for name in _OF_CAMERA}
    source = Camera(camera, given(of_camera))
    stop = stop_rules(options, USUAL_RELIABLE)
    given_flow, record = set_flow(options), run_record(options)
    settings = RunSettings(stop=stop, set_flow=given_flow, run_record=record, **given(options))
    carry_out(RunRequest(source, output, settings), viewer)


def stop_rules(options: dict[str, Any], default: int) -> StopRules:
    """Take the stop rules out of `options`; without any, `default` reliable cells."""
    from napari_rbcflow.estimate import StopRules

    names = ("reliable", "halfwidth", "seconds", "tracks", "baseline")
    rules = {name: options.pop(f"stop_{name}") for name in names}
    if all(rule is None for rule in rules.values()):
        rules["reliable"] = default
    return StopRules(**rules)
