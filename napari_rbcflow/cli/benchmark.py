"""`benchmark`: how fast this machine is, part by part."""

from __future__ import annotations

import json
from pathlib import Path

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, device_option, must_be_makeable


@cli.command(short_help="Measure speed and memory on this machine.")
@click.option("--json", "json_file", type=PATH, help="Write all figures here too.")
@device_option
@click.option(
    "--minutes",
    type=float,
    metavar="M",
    help="Track M minutes of frames, late against early: 60 is an hour of them [default: what fits].",
)
@click.option(
    "--folder",
    type=PATH,
    help="Folder on the disk that sessions are written to [default: the system's for temporary files].",
)
@click.option("--quick", is_flag=True, help="Everything once on a small field: shows only that it works.")
@debug_option
def benchmark(
    json_file: Path | None, device: str, minutes: float | None, folder: Path | None, quick: bool
) -> None:
    """Measure speed and memory of each part and of the whole, in under three minutes.

    Each figure stands beside real time (a frame takes 16.67 ms at 60 frames/s), the project's aim, and the
    least that its bytes and operations would take here. Close other programs first: they take from the clock,
    and some from CPU time too.

    Example: rbcflow benchmark --json speed.json
    """
    from napari_rbcflow.benchmark import as_text
    from napari_rbcflow.benchmark import benchmark as measure
    from napari_rbcflow.benchmark.child import QUICK
    from napari_rbcflow.cli.terminal import bar

    if json_file is not None:
        must_be_makeable(json_file)
    with bar("measuring") as show:
        record = measure(
            device=device,
            minutes=minutes,
            folder=folder,
            effort=QUICK if quick else None,
            progress=lambda share, note: show(share, 1.0, note),
        )
    click.echo(as_text(record))
    if json_file is not None:
        json_file.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
