"""`calibrate` and `export`: what reviewed sessions are good for beyond themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, echo, must_be_new
from napari_rbcflow.cli.process import nothing_made_yet
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from napari_rbcflow.session import Calibration

_RATES = (
    "tank_treading_found",
    "flipping_found",
    "let_through",
    "tank_treading_right",
    "flipping_right",
)


@cli.command(help=say("cli.calibrate"), short_help=say("cli.calibrate-short"))
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="DIR...")
@click.option("-o", "--output", required=True, type=PATH, metavar="FILE", help=say("cli.calibrate-output"))
@debug_option
def calibrate(folders: tuple[Path, ...], output: Path) -> None:
    with nothing_made_yet():
        from napari_rbcflow.session import Calibration

    must_be_new(output)
    found = Calibration.of_sessions(folders, output)
    found.write()
    print_calibration(found)


def print_calibration(found: Calibration) -> None:
    """Print what a calibration says."""
    for run in found.runs:
        values = {name: run[name] for name in ("day", "reviewed", "judged")}
        click.echo(say("cli.calibrate-run", run=run["folder"], **values))
    for name in _RATES:
        rate = getattr(found.rates, name)
        click.echo(
            say("cli.calibrate-rate", rate=say(f"cli.rate-{name}"), value=100 * rate.value, of=rate.of)
        )
    widths = []
    for one in found.trial:
        if one.corrected is None or one.reviewed is None:
            click.echo(say("cli.calibrate-trial-none", run=one.run))
            continue
        (low, high), (own_low, own_high) = one.corrected, one.reviewed
        widths.append(100 * (high - low))
        own = {"own_low": 100 * own_low, "own_high": 100 * own_high}
        click.echo(say("cli.calibrate-trial", run=one.run, low=100 * low, high=100 * high, **own))
    known = {"file": found.file, "days": len(found.days), "tracks": found.tracks}
    if not found.enough:
        echo(say("cli.calibrate-not-enough", **known), err=True)
        return
    click.echo(say("cli.calibrate-enough", **known, width=max(widths, default=0.0)))
    click.echo(say("cli.calibrate-hint", file=found.file))


@cli.command(help=say("cli.export"), short_help=say("cli.export-short"))
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="DIR...")
@click.option("-o", "--output", required=True, type=PATH, metavar="OUT", help=say("cli.export-output"))
@click.option(
    "--as",
    "kind",
    type=click.Choice(["dataset", "table", "fhir", "ome-zarr", "geff", "ro-crate"]),
    default="dataset",
    show_default=True,
    help=say("cli.export-as"),
)
@debug_option
def export(folders: tuple[Path, ...], output: Path, kind: str) -> None:
    must_be_new(output)
    if kind != "dataset":
        _export_as(kind, folders, output)
        return
    with nothing_made_yet():
        from napari_rbcflow.session import export_reviewed

    found = export_reviewed(folders, output)
    if found.ties:
        echo(say("cli.export-ties", cells=found.ties), err=True)
    counts = {"tank_treading": found.labels[0], "flipping": found.labels[1], "unreliable": found.labels[2]}
    click.echo(say("cli.exported", out=output, sessions=len(folders), **counts))


def _export_as(kind: str, folders: tuple[Path, ...], output: Path) -> None:
    with nothing_made_yet():
        from napari_rbcflow import exchange

    write = {
        "table": exchange.write_table,
        "fhir": exchange.write_fhir,
        "ome-zarr": exchange.write_ome_zarr,
        "geff": exchange.write_geff,
        "ro-crate": exchange.write_crate,
    }[kind]
    click.echo(say(f"cli.exported-{kind}", out=output, count=write(folders, output)))
