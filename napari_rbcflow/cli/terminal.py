"""What a person at a terminal sees: the running line, the result, one line for what went wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from napari_rbcflow.estimate import missing, time_words
from napari_rbcflow.quality import FEW_CELLS, LATE_LABELS_S, lost_words

if TYPE_CHECKING:
    from napari_rbcflow.pipeline import Progress as RunProgress
    from napari_rbcflow.pipeline import Run
    from napari_rbcflow.quality import RunWarning


READ_FIRST = " - read the warning above first"


def say_number(number: str, warnings: Sequence[RunWarning]) -> None:
    """Print the grave warnings, then the number, on the same stream: who keeps one keeps both.

    Parameters
    ----------
    number : str
        With its interval.
    warnings : sequence of RunWarning
        All that must be said of the run.
    """
    grave = [warning for warning in warnings if warning.grave]
    for warning in grave:
        click.echo(warning.said)
    click.echo(number + (READ_FIRST if grave else ""))


def say_notes(warnings: Sequence[RunWarning]) -> None:
    """Print the other warnings, beside the result."""
    for warning in warnings:
        if not warning.grave:
            click.echo(warning.said, err=True)


REFRESH_S = 0.2
PLAIN_EVERY_S = 5.0
"""Between lines where the output is no terminal, so that a log stays readable."""


def running_line(p: RunProgress) -> str:
    """Return the one line that is shown while a run goes; what the window's edge may cut off comes last.

    The interval is the one that holds at every look, as whoever sees it may stop the run. A number that
    must not be acted on is behind that word, as what the edge cuts off is the end of the line.
    """
    lost = ""
    if n := p.dropped + p.missed:
        why = lost_words(dropped=p.dropped_by, missed=p.missed_by)
        lost = f"  {n} frame{'' if n == 1 else 's'} lost{f' ({why})' if why else ''}"
    if p.labels_behind_s >= LATE_LABELS_S:
        lost += f"  labels {p.labels_behind_s:.0f} s behind"
    said = "no reliable cell yet"
    if p.n:
        low, high = p.interval
        said = f"tank-treading {100 * p.estimate:.1f} % ({100 * low:.1f}-{100 * high:.1f}, n {p.n})"
        if any(w.grave for w in p.warned or ()):
            return f"WARNING, read above  {_line(p, said + lost)}"
        if p.n < FEW_CELLS:
            return f"WARNING, too few cells  {_line(p, said + lost)}"
    return _line(p, said + lost)


def _line(p: RunProgress, said: str) -> str:
    tracks = p.cells["tracked"]
    return f"{p.seconds:.0f} s  {tracks} track{'' if tracks == 1 else 's'}  {said}  to go: {to_go(p)}"


def to_go(p: RunProgress) -> str:
    """Say how far it is to each stop rule, and how long that takes at the present rate."""
    if not p.rules:
        return p.missing
    timed = [
        replace(rule, missing=f"{rule.missing} (about {time_words(rule.seconds_left)})")
        if rule.missing and rule.seconds_left is not None and rule.name != "seconds"
        else rule
        for rule in p.rules
    ]
    return missing(timed)


def follow(run: Run) -> None:
    """Show the running line until the run has ended, and on lines of their own, once each, what is grave and
    what broke without ending the run.
    """  # noqa: D205
    terminal = sys.stderr.isatty()
    printed = time.monotonic()
    told: set[str] = set()
    while not run.wait(REFRESH_S):
        progress = run.progress()
        width = Console(stderr=True).width
        grave = {warning.key: warning.said for warning in progress.warned or () if warning.grave}
        also = {said: said for said in (*run.survived, progress.room) if said}
        for key, sentence in (grave | also).items():
            if key not in told:
                told.add(key)
                click.echo(("\r" + " " * (width - 1) + "\r" if terminal else "") + sentence, err=True)
        if terminal:
            click.echo("\r" + running_line(progress)[: width - 1].ljust(width - 1), nl=False, err=True)
        elif time.monotonic() - printed >= PLAIN_EVERY_S:
            printed = time.monotonic()
            click.echo(running_line(progress), err=True)
    if terminal:
        click.echo(err=True)


@contextmanager
def bar(title: str) -> Iterator[ProgressBar]:
    """Show a bar with the time left on a terminal, and nothing elsewhere."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        yield ProgressBar(progress, title)


class ProgressBar:
    """Moves a bar; call it with how much is done, of how much, and a note."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="")

    def __call__(self, done: float, of: float | None, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=of, note=note)
