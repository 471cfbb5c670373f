"""An order, carried out to its end: in napari where that can open, else in the terminal."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from napari_rbcflow.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from napari_rbcflow.pipeline.messages import Order
    from napari_rbcflow.pipeline.status import Progress
    from napari_rbcflow.quality import RunWarning


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
    from napari_rbcflow.commands.opening import begin
    from napari_rbcflow.commands.terminal import follow
    from napari_rbcflow.pipeline.run import Run
    from napari_rbcflow.sources.base import amiss_words, took_words

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
    from napari_rbcflow.commands.result import say_notes, say_number
    from napari_rbcflow.estimate.reported import fraction_text
    from napari_rbcflow.session.counting import words_of

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
    from napari_rbcflow.quality.monitor import by_reason

    return f"{n} ({by_reason(counts)})" if counts else f"{n}"


def warnings_in(folder: Path, told: Sequence[str]) -> list[RunWarning]:
    """Return what a session says that a person must be told; `told` where it cannot be read."""
    from napari_rbcflow.errors import RbcflowError
    from napari_rbcflow.quality import RunWarning, Severity
    from napari_rbcflow.quality.monitor import warnings_of_run
    from napari_rbcflow.session.schema import read_run

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
