"""`review`: a person's check of a random sample of a session's tracks."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, echo, must_be_new, write_file
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from napari_rbcflow.session import Review


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
