"""`analyze`, `batch` and `simulate`: movies in and out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from napari_rbcflow.cli.group import (
    PATH,
    calibration_option,
    chamber_options,
    cli,
    debug_option,
    device_option,
    flow_option,
    given,
    interval_option,
    intruded_option,
    least_frames_option,
    options,
    output_option,
    record_options,
    rotate_option,
    run_record,
    run_record_options,
    series_option,
    set_flow,
    set_flow_options,
)
from napari_rbcflow.errors import RunFailed
from napari_rbcflow.sentences import say

analysis_options = options(
    click.option("--fps", type=float, help=say("cli.movie-fps")),
    click.option("--pixel-size-um", type=float, help=say("cli.movie-pixel-size-um")),
    series_option,
    device_option,
    click.option(
        "--background",
        type=click.Choice(["movie", "sliding"]),
        default="movie",
        show_default=True,
        help=say("cli.background"),
    ),
    intruded_option,
    least_frames_option,
    interval_option,
    flow_option,
    rotate_option,
    set_flow_options,
    calibration_option,
    record_options,
    run_record_options,
)


@cli.command(help=say("cli.analyze"), short_help=say("cli.analyze-short"))
@click.argument("movie", type=PATH)
@output_option
@analysis_options
@debug_option
def analyze(movie: Path, output: Path, **options: Any) -> None:
    from napari_rbcflow import pipeline
    from napari_rbcflow.cli.terminal import bar, print_result
    from napari_rbcflow.estimate import fraction_text
    from napari_rbcflow.quality import warnings_of_run

    record = run_record(options)
    with bar(say("cli.analysing")) as show, saved_when_interrupted(output):
        session = pipeline.analyze(
            movie,
            output,
            set_flow=set_flow(options),
            run_record=record,
            progress=lambda p, info: show(
                p.processed, info.n_frames, say("cli.tracks-so-far", tracks=p.cells["tracked"])
            ),
            **given(options),
        )
    figure = session.fraction
    interval = (figure.low or 0.0, 1.0 if figure.high is None else figure.high)
    number = fraction_text(figure.estimate or 0.0, interval, figure.n, figure.level, figure.method)
    print_result(output, warnings_of_run(session.run), number)


@cli.command(help=say("cli.batch"), short_help=say("cli.batch-short"))
@click.argument("movies", nargs=-1, metavar="[MOVIE...]")
@click.option("-o", "--output", required=True, metavar="DIR", help=say("cli.batch-output"))
@click.option("--scheduler", metavar="ADDRESS", help=say("cli.scheduler"))
@click.option("--workers", type=int, metavar="N", help=say("cli.workers"))
@click.option("--memory-gb", type=float, metavar="GB", help=say("cli.memory-gb"))
@analysis_options
@debug_option
def batch(movies: tuple[str, ...], output: str, **options: Any) -> int:
    from napari_rbcflow import pipeline
    from napari_rbcflow.cli.terminal import bar
    from napari_rbcflow.estimate import time_words

    record, given_flow = run_record(options, complete=False), set_flow(options)
    with bar(say("cli.batch-going"), time_left=False) as show:

        def so_far(done: int, of: int, left_s: float) -> str:
            if done < of and math.isfinite(left_s):
                return say("cli.batch-left", done=done, of=of, time=time_words(left_s))
            return say("cli.batch-last", done=done, of=of)

        def look(rows: Sequence[Mapping[str, Any]], left_s: float) -> None:
            count = pipeline.BatchCount.of(rows)
            note = so_far(count.done, count.movies, left_s)
            note = say("cli.batch-note", failed=count.failed, note=note) if count.failed else note
            show(count.share * count.movies, count.movies, note)

        def progress(row: Mapping[str, Any], done: int, of: int, left_s: float) -> None:
            words = {"note": so_far(done, of, left_s), "movie": row["movie"]}
            if row["reason"]:
                key = "cli.batch-failed" if row["status"] == "failed" else "cli.batch-remark"
                show.tell(say(key, **words, why=row["reason"]))
            elif not show.shown:
                show.tell(say("cli.batch-finished", **words))

        try:
            table = pipeline.analyze_many(
                movies,
                output,
                set_flow=given_flow,
                run_record=record,
                progress=progress,
                look=look,
                **given(options),
            )
        except KeyboardInterrupt:
            raise RunFailed("cli.batch-stopped", folder=output) from None
    failed = int((table["status"] == "failed").sum())
    click.echo(say("cli.batch-ended", finished=len(table) - failed, movies=len(table), failed=failed))
    click.echo(say("cli.batch-table", folder=output.rstrip("/")))
    return 1 if failed else 0


@cli.command(help=say("cli.simulate"), short_help=say("cli.simulate-short"))
@click.argument("out", type=PATH)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help=say("cli.seconds"),
)
@chamber_options
@click.option(
    "--cells-per-frame",
    type=click.FloatRange(min=0, max=1000),
    default=115.0,
    show_default=True,
    help=say("cli.cells-per-frame"),
)
@click.option("--aslant", type=click.FloatRange(0, 2), default=0.0, show_default=True, help=say("cli.aslant"))
@click.option("--lit-from-deg", type=float, default=0.0, show_default=True, help=say("cli.lit-from-deg"))
@debug_option
def simulate(out: Path, **options: Any) -> None:
    from napari_rbcflow.cli.terminal import bar
    from napari_rbcflow.simulation import simulate_movie, truth_path

    with bar(say("cli.simulating")) as show:
        truth = simulate_movie(out, progress=lambda done, of: show(done, of), **options)
    counts = {"out": out, "frames": truth.frames, "cells": truth.cells, "truth": truth_path(out)}
    if truth.fraction is None:
        click.echo(say("cli.simulated-none", **counts))
    else:
        click.echo(
            say(
                "cli.simulated",
                **counts,
                tank_treading=truth.tank_treading,
                flipping=truth.flipping,
                fraction=100 * truth.fraction,
            )
        )


@contextlib.contextmanager
def saved_when_interrupted(folder: Path) -> Iterator[None]:
    """Say where the results so far are, if Ctrl-C ends an analysis."""
    try:
        yield
    except KeyboardInterrupt:
        if not folder.exists():
            raise RunFailed("cli.stopped") from None
        raise RunFailed("cli.stopped-saved", folder=folder) from None
