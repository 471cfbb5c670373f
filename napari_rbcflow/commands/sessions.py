"""`verify`: what became of a run."""

from __future__ import annotations

from pathlib import Path

import click

from napari_rbcflow.commands.group import cli
from napari_rbcflow.commands.options import PATH, debug_option


@cli.command(short_help="Check a session folder.")
@click.argument("folder", type=PATH)
@debug_option
def verify(folder: Path) -> int:
    """Check a session folder: 0 whole, 1 recovered or incomplete (says what), 2 not a session.

    Example: rbcflow verify monday
    """
    from napari_rbcflow.session.verify import verify as check

    verdict = check(folder)
    for finding in verdict.findings:
        click.echo(finding, err=verdict.code == 2)
    if verdict.code == 0:
        click.echo(f"{folder} is whole")
    return verdict.code
