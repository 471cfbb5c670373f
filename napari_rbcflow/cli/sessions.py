"""`verify` and `trend`: what became of a run, and a patient over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, must_be_makeable
from napari_rbcflow.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from napari_rbcflow.trend import Trend, TrendRun


@cli.command(short_help="Check a session folder.")
@click.argument("folder", type=PATH)
@debug_option
def verify(folder: Path) -> int:
    """Check a session folder: 0 whole, 1 recovered or incomplete (says what), 2 not a session.

    Example: rbcflow verify monday
    """
    from napari_rbcflow.session import verify as check

    verdict = check(folder)
    for finding in verdict.findings:
        click.echo(finding, err=verdict.code == 2)
    if verdict.code == 0:
        click.echo(f"{folder} is whole")
    return verdict.code


@cli.command(short_help="Show a patient's sessions over the dates.")
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="DIR...")
@click.option("--csv", "csv_file", type=PATH, help="Write a table here, a row a session; opens in Excel.")
@click.option("--png", "png_file", type=PATH, help="Draw the picture here, to be printed.")
@click.option("--patient", help="Whose sessions to take [default: all must be of one patient].")
@click.option(
    "--crisis",
    "crises",
    multiple=True,
    metavar="FROM:TO",
    help="Days of a crisis, such as 2026-03-02:2026-03-09; they make no baseline. May be given again.",
)
@click.option("--baseline", "baseline_days", metavar="FROM:TO", help="Only these days make the baseline.")
@click.option(
    "--keep-low",
    is_flag=True,
    help="Let days make the baseline even where they lie clearly below the others.",
)
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
    """Show a patient's sessions over the dates, the patient's own baseline, and what lies below it.

    DIR is a session, or a folder that holds sessions. The baseline is the mean and two standard deviations
    over the days outside crises. Left out of it are the days that --crisis names, and those that lie
    clearly below the others. A run lies below where its whole interval does and a baseline from so few days
    carries that, or where two of three days, measured one after the other, lie far below; perhaps below
    where only its number does.

    Example: rbcflow trend sessions --patient BG --png bg.png --csv bg.csv
    """
    from napari_rbcflow.trend import Choices, as_csv, as_png, gather, parse_span, trend_of

    choices = Choices(
        crises=tuple(parse_span(text) for text in crises),
        baseline_days=None if baseline_days is None else parse_span(baseline_days),
        automatic=not keep_low,
    )
    for wanted in (csv_file, png_file):
        if wanted is not None:
            must_be_makeable(wanted)
    if csv_file is not None and png_file is not None and csv_file.resolve() == png_file.resolve():
        raise BadInput(f"{csv_file} cannot be both the table and the picture: give two names")
    found = trend_of(gather(folders), patient=patient, choices=choices)
    _say(found)
    for file, make in ((csv_file, as_csv), (png_file, as_png)):
        if file is not None:
            _write(file, make(found))


def _say(trend: Trend) -> None:
    from napari_rbcflow.trend import summary

    click.echo(f"patient {trend.patient}")
    for run in trend.runs:
        click.echo(_line(run))
    for sentence in summary(trend):
        click.echo(sentence)
    if trend.baseline is not None and trend.baseline.low > 0:
        click.echo(f"For live runs that stop at the limit: --stop-baseline {trend.baseline.low:.3f}")
    for note in trend.notes:
        click.echo(f"note: {note}", err=True)


def _line(run: TrendRun) -> str:
    from napari_rbcflow.trend import below_words, number_words, use_words

    record = run.record
    said = f"{record.started:%Y-%m-%d %H:%M}  {number_words(record.figure)}"
    if record.by_hand is not None:
        said += f"  with changes by hand {number_words(record.by_hand)}"
    said += f"  {record.named}" + (f" ({record.sample})" if record.sample else "")
    return f"{said}: {'; '.join(words for words in (below_words(run), use_words(run)) if words)}"


def _write(file: Path, data: bytes) -> None:
    from napari_rbcflow.ring import replace_file

    try:
        replace_file(file, data)
    except OSError as error:
        raise RunFailed(f"{file} cannot be written ({error.strerror or error}): check the disk.") from error
