"""`review`, `calibrate` and `export`: a person's check of a random sample of tracks, and its uses."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, echo, must_be_new, write_file
from napari_rbcflow.cli.process import nothing_made_yet
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from napari_rbcflow.session import Calibration, Review


@cli.command(help=say("cli.review"), short_help=say("cli.review-short"))
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--sample", "n", type=click.IntRange(min=1), metavar="N", help=say("cli.review-sample"))
@click.option("--csv", "csv_file", type=PATH, metavar="FILE", help=say("cli.review-csv"))
@click.option("--labels", "labels_file", type=PATH, metavar="FILE", help=say("cli.review-labels"))
@click.option("--by", default="", metavar="NAME", help=say("cli.review-by"))
@debug_option
def review(folder: Path, n: int | None, csv_file: Path | None, labels_file: Path | None, by: str) -> None:
    from napari_rbcflow.session import LabelRefused, Review

    if labels_file is not None and (n is not None or csv_file is not None):
        raise BadInput("cli.review-sample-or-labels")
    if (n is None) != (csv_file is None):
        raise BadInput("cli.review-sample-and-csv")
    found = Review(folder)
    if n is not None and csv_file is not None:
        must_be_new(csv_file)
        _choose(found, n, csv_file, by)
        return
    if labels_file is not None:
        labels, lines = _labels_of(labels_file)
        try:
            found.add(labels, by)
        except LabelRefused as error:
            line = lines[error.cell]
            raise BadInput("cli.labels-line", file=labels_file, line=line, why=error) from None
    found.finish()  # also what a crash left undone
    if found.report_fault:
        echo(found.report_fault, err=True)
    _print(found)


def _choose(review: Review, n: int, file: Path, by: str) -> None:
    cells = review.sample(n, by)
    if not cells:
        raise BadInput("cli.review-all-checked", folder=review.folder)
    # Nothing but the numbers: whoever knows what the machine said sees it.
    write_file(file, "".join(f"{cell}\n" for cell in ("cell", *cells)).encode())
    key = "cli.review-chosen" if len(cells) == n else "cli.review-chosen-all"
    click.echo(say(key, file=file, cells=len(cells)))


def _labels_of(file: Path) -> tuple[dict[int, str], dict[int, int]]:
    """Return the labels of a table, and the line of each; refuse one that cannot be read, by its number."""
    labels: dict[int, str] = {}
    lines: dict[int, int] = {}
    for line, text, label in _rows(file):
        try:
            if not (text.isascii() and text.isdecimal()):
                raise BadInput("cli.labels-not-a-cell", text=text)
            cell = int(text)
            if cell in lines:
                raise BadInput("cli.labels-twice", cell=cell, first=lines[cell])
            lines[cell] = line
            if label:
                labels[cell] = label
        except BadInput as error:
            raise BadInput("cli.labels-line", file=file, line=line, why=error) from None
    if not labels:
        raise BadInput("cli.labels-none", file=file)
    return labels, lines


def _rows(file: Path) -> list[tuple[int, str, str]]:
    """Return number, cell and label of each line: from Excel, in any order of columns, among others."""
    from napari_rbcflow.session import spreadsheet_rows

    try:
        sheet = spreadsheet_rows(file.read_bytes())
        names = [name.casefold() for name in next(sheet, (0, []))[1]]
        if not {"cell", "label"} <= set(names):
            raise BadInput("cli.labels-no-columns", file=file)
        at, to = names.index("cell"), names.index("label")
        rows = []
        for line, cells in sheet:
            fields = cells + [""] * len(names)
            if any(fields):
                rows.append((line, fields[at], fields[to].casefold()))
        return rows
    except OSError as error:
        raise BadInput("cli.labels-unreadable", file=file, why=error.strerror or error) from None
    except (UnicodeError, csv.Error) as error:
        raise BadInput("cli.labels-unreadable", file=file, why=error) from None


def _print(review: Review) -> None:
    """Say how the review stands, and what to do next."""
    from napari_rbcflow.cli.terminal import verdict_words
    from napari_rbcflow.types import Label, Verdict

    figure, conclusion = review.figure, review.conclusion
    if review.labels:
        click.echo(say("cli.review-stands", reviewed=review.reviewed, chosen=review.chosen))
    else:
        click.echo(say("cli.review-none", folder=review.folder))
    for by, own in review.labels.items():
        counts = Counter(own.values())
        kinds = {label.replace("-", "_"): counts[label] for label in list(Label)[:3]}
        click.echo(say("cli.review-person", by=by, cells=len(own), **kinds))
    for pair in review.agreement:
        one, other = pair.between
        words = {"one": one, "other": other, "cells": pair.cells, "percent": 100 * pair.equal / pair.cells}
        if pair.kappa is None:
            click.echo(say("cli.review-agreement", **words))
        else:
            click.echo(say("cli.review-agreement-kappa", **words, kappa=pair.kappa))
    if passed := review.passed_over:
        click.echo(say("cli.review-passed-over", cells=", ".join(map(str, passed))))
    if conclusion.headline is None and figure.estimate is not None:
        shares = {"estimate": figure.estimate, "level": figure.level, "low": figure.low, "high": figure.high}
        click.echo(say("cli.review-so-far", **{name: 100 * (share or 0.0) for name, share in shares.items()}))
    echo(verdict_words(conclusion))
    if conclusion.verdict is Verdict.PROVISIONAL:
        click.echo(say("cli.review-choose", folder=review.folder))


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
