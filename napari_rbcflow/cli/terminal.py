"""What a person at a terminal sees: the running line, the result, one line for what went wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from napari_rbcflow.cli.group import as_options, echo
from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.estimate import FEW_CELLS, time_words
from napari_rbcflow.quality import LATE_LABELS_S, lost_words
from napari_rbcflow.sentences import say
from napari_rbcflow.types import StopReason

if TYPE_CHECKING:
    from napari_rbcflow.pipeline import Progress as RunProgress
    from napari_rbcflow.pipeline import Run
    from napari_rbcflow.quality import RunWarning
    from napari_rbcflow.session import Conclusion


def say_number(number: str, warnings: Sequence[RunWarning]) -> None:
    """Print the grave warnings, then the number, on the same stream: who keeps one keeps both."""
    grave = [warning for warning in warnings if warning.grave]
    for warning in grave:
        echo(warning.text)
    first, *method = number.split("\n")
    click.echo("\n".join((say("cli.read-first", number=first) if grave else first, *method)))


def verdict_words(conclusion: Conclusion) -> str:
    """Return the verdict, with the number where it is a result."""
    words = {"verdict": conclusion.word, "reason": conclusion.reason}
    figure = conclusion.headline
    if figure is None or figure.estimate is None or figure.low is None or figure.high is None:
        return say("cli.verdict", **words)
    estimate, low, high = (100 * share for share in (figure.estimate, figure.low, figure.high))
    level = 100 * figure.level
    return say("cli.verdict-number", **words, estimate=estimate, level=level, low=low, high=high)


def say_notes(warnings: Sequence[RunWarning]) -> None:
    """Print the other warnings on standard error."""
    for warning in warnings:
        if not warning.grave:
            echo(warning.text, err=True)


def print_result(
    folder: Path,
    warnings: Sequence[RunWarning],
    number: str,
    more: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> None:
    """Print the verdict, the machine's number unless it is empty, the warnings, and where the session is."""
    from napari_rbcflow.session import open_session, words_of
    from napari_rbcflow.trend import keep_control
    from napari_rbcflow.types import Verdict

    conclusion = None
    with suppress(RbcflowError):  # what cannot be read has its own sentence among the warnings
        conclusion = open_session(folder).conclusion
        click.echo(verdict_words(conclusion))
    if number:
        say_number(say("cli.machine-number", number=number), warnings)
        for line in (words_of(folder), *more):
            if line:
                echo(line)
    say_notes(warnings)
    if control := keep_control(folder):
        echo(control)
    for remark in remarks:
        echo(remark)
    if conclusion is not None and conclusion.verdict is Verdict.PROVISIONAL:
        click.echo(say("cli.how-to-check", folder=folder))
    click.echo(say("cli.session", folder=folder))


REFRESH_S = 0.2
PLAIN_EVERY_S = 5.0  # seconds between lines if the output is no terminal, so that a log stays readable


def running_line(p: RunProgress) -> str:
    """Return the one line that is shown during a run; what the window may cut off comes last.

    The interval is the one that is valid at any moment, because whoever sees it may stop the run. A number
    that must not be acted on comes after a warning.
    """
    number = say("cli.running-none-yet")
    if p.n:
        low, high = p.interval
        number = say(
            "cli.running-number", estimate=100 * p.estimate, low=100 * low, high=100 * high, cells=p.n
        )
    if frames := p.dropped + p.missed:
        if why := lost_words(dropped=p.dropped_by, missed=p.missed_by):
            number = say("cli.running-lost-why", number=number, frames=frames, why=why)
        else:
            number = say("cli.running-lost", number=number, frames=frames)
    if p.labels_behind_s >= LATE_LABELS_S:
        number = say("cli.running-behind", number=number, seconds=p.labels_behind_s)
    line = say("cli.running", seconds=p.seconds, tracks=p.cells["tracked"], number=number, missing=to_go(p))
    if p.n and any(w.grave for w in p.warned or ()):
        return say("cli.running-read-above", line=line)
    return say("cli.running-too-few", line=line) if 0 < p.n < FEW_CELLS else line


def to_go(p: RunProgress) -> str:
    """Say how far it is to each stop rule, and how long to the first at the present rate."""
    if p.seconds_left is None or all(rule.name == StopReason.SECONDS for rule in p.rules if rule.missing):
        return p.missing
    return say("cli.missing-timed", missing=p.missing, time=time_words(p.seconds_left))


def follow(run: Run) -> None:
    """Show the running line until the run has ended, and above it, once each, what is grave or broke."""
    terminal = sys.stderr.isatty()
    printed = time.monotonic()
    shown: set[str] = set()
    while not run.wait(REFRESH_S):
        progress = run.progress()
        width = Console(stderr=True).width
        grave = {warning.key: warning.text for warning in progress.warned or () if warning.grave}
        also = {sentence: sentence for sentence in (*run.survived, progress.room) if sentence}
        for key, sentence in (grave | also).items():
            if key not in shown:
                shown.add(key)
                echo(("\r" + " " * (width - 1) + "\r" if terminal else "") + sentence, err=True)
        if terminal:
            click.echo("\r" + running_line(progress)[: width - 1].ljust(width - 1), nl=False, err=True)
        elif time.monotonic() - printed >= PLAIN_EVERY_S:
            printed = time.monotonic()
            click.echo(running_line(progress), err=True)
    if terminal:
        click.echo(err=True)


@contextmanager
def bar(title: str, *, time_left: bool = True) -> Iterator[ProgressBar]:
    """Show a bar with the time left on a terminal, and nothing elsewhere; without it, the note tells."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        *([TimeRemainingColumn()] if time_left else []),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        yield ProgressBar(progress, title)


class ProgressBar:
    """Moves a bar; call it with how much is done, of how much, and a note."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="")

    @property
    def shown(self) -> bool:
        """Whether there is a terminal to show it."""
        return not self._progress.disable

    def tell(self, sentence: str) -> None:
        """Print a line above the bar."""
        line = as_options(sentence)
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, done: float, of: float | None, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=of, note=note)
