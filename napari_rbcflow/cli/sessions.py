"""`verify`, `sign`, `trend` and `control`: what became of a run, a patient over time, and the instrument."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, echo, given, must_be_new, write_file
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from napari_rbcflow.trend import ControlChart, ControlRun, Trend, TrendRun


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
        if len(folders) == 1:
            for step in verdict.chain:
                click.echo(say("cli.chain", step=step))
        codes.append(verdict.code)
    return max(codes)


@cli.command(help=say("cli.sign"), short_help=say("cli.sign-short"))
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--by", required=True, metavar="NAME", help=say("cli.sign-by"))
@debug_option
def sign(folder: Path, by: str) -> None:
    from napari_rbcflow.session import sign as sign_off

    signature = sign_off(folder, by)
    click.echo(signature.words([]))
    for part in signature.files.split(";"):
        click.echo(say("cli.chain", step=part))


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
    from napari_rbcflow.trend import (
        Choices,
        as_csv,
        as_png,
        control_charts,
        gather,
        parse_span,
        trend_of,
    )

    choices = Choices(
        crises=tuple(parse_span(text) for text in crises),
        baseline_days=None if baseline_days is None else parse_span(baseline_days),
        automatic=not keep_low,
    )
    _must_be_two_new(csv_file, png_file)
    gathered = gather(folders)
    found = trend_of(gathered, patient=patient, choices=choices)
    charts = control_charts(gathered) if gathered.controls else []
    _print(found, charts)
    if csv_file is not None:
        write_file(csv_file, as_csv(found, charts))
    if png_file is not None:
        write_file(png_file, as_png(found))


@cli.command(help=say("cli.control"), short_help=say("cli.control-short"))
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="DIR...")
@click.option("--csv", "csv_file", type=PATH, help=say("cli.control-csv"))
@click.option("--png", "png_file", type=PATH, help=say("cli.control-png"))
@click.option("--lot", help=say("cli.control-lot"))
@click.option("--instrument", help=say("cli.control-instrument"))
@click.option("--first", type=int, metavar="N", help=say("cli.control-first"))
@click.option("--target-mean", type=float, metavar="SHARE", help=say("cli.control-target-mean"))
@click.option("--target-sd", type=float, metavar="SHARE", help=say("cli.control-target-sd"))
@debug_option
def control(folders: tuple[Path, ...], csv_file: Path | None, png_file: Path | None, **options: Any) -> None:
    from napari_rbcflow.trend import control_charts, control_csv, control_png, gather

    _must_be_two_new(csv_file, png_file)
    gathered = gather(folders)
    charts = control_charts(gathered, **given(options))
    for chart in charts:
        click.echo(chart.title)
        for run in chart.runs:
            click.echo(_control_line(run))
        for sentence in chart.summary():
            echo(sentence)
    for note in gathered.notes:
        echo(say("cli.note", sentence=note), err=True)
    for file, make in ((csv_file, control_csv), (png_file, control_png)):
        if file is not None:
            write_file(file, make(charts))


def _must_be_two_new(csv_file: Path | None, png_file: Path | None) -> None:
    for wanted in (csv_file, png_file):
        if wanted is not None:
            must_be_new(wanted)
    if csv_file is not None and png_file is not None and csv_file.resolve() == png_file.resolve():
        raise BadInput("cli.table-and-picture", file=csv_file)


def _control_line(run: ControlRun) -> str:
    from napari_rbcflow.trend import number_words

    record = run.record
    z = "" if run.z is None else f"{run.z:+.2f} s"
    columns = [f"{record.started:%Y-%m-%d %H:%M}", number_words(record.figure), f"{z:>8}", record.named]
    return f"{'  '.join(columns)}: {' '.join((run.state.word, *run.rules))}"


def _print(trend: Trend, charts: Sequence[ControlChart]) -> None:
    from napari_rbcflow.trend import control_of_day, summary

    click.echo(say("cli.patient-is", patient=trend.patient))
    for run in trend.runs:
        _, control = control_of_day(charts, run.record.started, run.record.instrument)
        click.echo("; ".join(filter(None, (_line(run), control))))
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
