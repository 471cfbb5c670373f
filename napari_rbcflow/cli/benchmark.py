"""`benchmark`: how fast this machine is, part by part."""

from __future__ import annotations

import json
from pathlib import Path

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, device_option, must_be_new, write_file
from napari_rbcflow.sentences import say


@cli.command(help=say("cli.benchmark"), short_help=say("cli.benchmark-short"))
@click.option("--json", "json_file", type=PATH, help=say("cli.json-too"))
@device_option
@click.option("--minutes", type=float, metavar="M", help=say("cli.minutes"))
@click.option("--folder", type=PATH, help=say("cli.benchmark-folder"))
@click.option("--quick", is_flag=True, help=say("cli.quick"))
@debug_option
def benchmark(
    json_file: Path | None, device: str, minutes: float | None, folder: Path | None, quick: bool
) -> None:
    from napari_rbcflow.benchmark import QUICK, as_text
    from napari_rbcflow.benchmark import benchmark as measure
    from napari_rbcflow.cli.terminal import bar

    if json_file is not None:
        must_be_new(json_file)
    with bar(say("cli.measuring")) as show:
        record = measure(
            device=device,
            minutes=minutes,
            folder=folder,
            effort=QUICK if quick else None,
            progress=lambda share, note: show(share, 1.0, note),
        )
    click.echo(as_text(record))
    if json_file is not None:
        write_file(json_file, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
