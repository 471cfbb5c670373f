"""`verify` and `trend`: what became of a run, and a patient over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, echo, must_be_new, write_file
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from napari_rbcflow.trend import Trend, TrendRun


@cli.command(help=say("cli.verify"), short_help=say("cli.verify-short"))
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="DIR...")
@debug_option
def verify(folders: tuple[Path, ...]) -> int:
    from napari_rbcflow.session import verify as check

    codes = []
    for folder in folders:
        verdict = check(folder)
        for finding in verdict.findings:
            one_of_many = len(folders) > 1 and verdict.code == 1  # the others name it themselves
            said = say("cli.verify-finding", folder=folder, finding=finding) if one_of_many else finding
            echo(said, err=verdict.code == 2)
        if verdict.code == 0:
            click.echo(say("cli.intact", folder=folder))
        codes.append(verdict.code)
    return max(codes)


@cli.command(help=say("cli.trend"), short_help=say("cli.trend-short"))
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="DIR...")
@click.option("--csv", "csv_file", type=PATH, help=say("cli.csv"))
@click.option("--png", "png_file", type=PATH, help=say("cli.png"))
@click.option("--patient", help=say("cli.whose"))
@click.option("--crisis", "crises", multiple=True, metavar="FROM:TO", help=say("cli.crisis"))
@click.option("--baseline", "baseline_days", metavar="FROM:TO", help=say("cli.baseline"))
@click.option("--keep-low", is_flag=True, help=say("cli.keep-low"))
@debug_option
def trend(
    folders: tuple[Path, ...],
    csv_file: Path | None,
    png_file: Path | None,
    patient: str | None,
    crises: tuple[str, ...],
    baseline_days: str | None,
    keep_low: bool,
) -> None:
    from napari_rbcflow.trend import Choices, as_csv, as_png, gather, parse_span, trend_of

    choices = Choices(
        crises=tuple(parse_span(text) for text in crises),
        baseline_days=None if baseline_days is None else parse_span(baseline_days),
        automatic=not keep_low,
    )
    for wanted in (csv_file, png_file):
        if wanted is not None:
            must_be_new(wanted)
    if csv_file is not None and png_file is not None and csv_file.resolve() == png_file.resolve():
        raise BadInput("cli.table-and-picture", file=csv_file)
    found = trend_of(gather(folders), patient=patient, choices=choices)
    _print(found)
    for file, make in ((csv_file, as_csv), (png_file, as_png)):
        if file is not None:
            write_file(file, make(found))


def _print(trend: Trend) -> None:
    from napari_rbcflow.trend import summary

    click.echo(say("cli.patient-is", patient=trend.patient))
    for run in trend.runs:
        click.echo(_line(run))
    for sentence in summary(trend):
        echo(sentence)
    if trend.baseline is not None and trend.baseline.low > 0:
        click.echo(say("cli.limit", limit=trend.baseline.low))
    for note in trend.notes:
        echo(say("cli.note", sentence=note), err=True)


def _line(run: TrendRun) -> str:
    from napari_rbcflow.trend import below_words, figure_words, number_words, use_words

    record = run.record
    columns = [f"{record.started:%Y-%m-%d %H:%M}", figure_words(run)]
    if record.by_hand is not None:
        columns.append(say("cli.trend-by-hand", number=number_words(record.by_hand)))
    columns.append(record.named + (f" ({record.sample})" if record.sample else ""))
    verdict = "; ".join(words for words in (below_words(run), use_words(run)) if words)
    return f"{'  '.join(columns)}: {verdict}"
