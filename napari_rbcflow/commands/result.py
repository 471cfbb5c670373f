"""A run's number as a terminal says it: never without the warnings that forbid acting on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
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
