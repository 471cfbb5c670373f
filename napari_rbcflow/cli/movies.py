"""`analyze` and `simulate`: movies in and out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from napari_rbcflow.cli.group import (
    PATH,
    cli,
    debug_option,
    device_option,
    flow_option,
    flow_set,
    interval_option,
    intruded_option,
    least_frames_option,
    output_option,
    record_options,
    set_flow_options,
)
from napari_rbcflow.errors import RunFailed


@cli.command(short_help="Analyse a recorded movie.")
@click.argument("movie", type=PATH)
@output_option
@click.option("--fps", type=float, help="Frames per second [default: what the file says, else 60].")
@click.option("--pixel-size-um", type=float, help="[default: what the file says, else 0.605].")
@device_option
@click.option(
    "--background",
    type=click.Choice(["movie", "sliding"]),
    default="movie",
    show_default=True,
    help="Median of 100 frames spread over the movie, or of the last seconds as in a live run.",
)
@intruded_option
@least_frames_option
@interval_option
@flow_option
@set_flow_options
@record_options
@debug_option
def analyze(
    movie: Path,
    output: Path,
    fps: float | None,
    pixel_size_um: float | None,
    device: str,
    background: Any,
    flow: Any,
    shear_rate: float | None,
    focus_height_um: float | None,
    patient: str,
    sample: str,
    leave_out_intruded: bool,
    least_frames: int,
    interval: Any,
) -> None:
    """Analyse a recorded movie: AVI, TIFF stack or folder, OME-TIFF, (OME-)Zarr, or a session's ring.

    Example: rbcflow analyze monday.avi -o monday --fps 60
    """
    from napari_rbcflow import pipeline
    from napari_rbcflow.cli.terminal import bar, say_notes, say_number
    from napari_rbcflow.estimate import fraction_text
    from napari_rbcflow.quality import warnings_of_run
    from napari_rbcflow.session import words_of

    with bar("analysing") as show, kept_when_interrupted(output):
        session = pipeline.analyze(
            movie,
            output,
            fps=fps,
            pixel_size_um=pixel_size_um,
            device=device,
            background=background,
            flow=flow,
            set_flow=flow_set(shear_rate, focus_height_um),
            patient=patient,
            sample=sample,
            leave_out_intruded=leave_out_intruded,
            least_frames=least_frames,
            interval=interval,
            progress=lambda p, info: show(p.processed, info.n_frames, f"{p.cells['tracked']} tracks"),
        )
    said = session.fraction
    interval_said = (said.low or 0.0, 1.0 if said.high is None else said.high)
    warnings = warnings_of_run(session.run)
    say_number(fraction_text(said.estimate or 0.0, interval_said, said.n, said.level, said.method), warnings)
    if corrected := words_of(output):
        click.echo(corrected)
    say_notes(warnings)
    click.echo(f"session: {output}")


@cli.command(short_help="Write a movie of the simulated chamber.")
@click.argument("out", type=PATH)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--tank-fraction", type=click.FloatRange(0, 1), default=0.8, show_default=True)
@click.option(
    "--cells-per-frame",
    type=click.FloatRange(min=0, max=1000),
    default=115.0,
    show_default=True,
    help="In the mean.",
)
@click.option(
    "--aslant",
    type=click.FloatRange(0, 2),
    default=0.0,
    show_default=True,
    help="How far the light comes in from one side: 0 straight, 1 as a knife edge in the condenser makes it.",
)
@click.option(
    "--lit-from-deg",
    type=float,
    default=0.0,
    show_default=True,
    help="The side cells look lit from, with --aslant: 0 right, 90 below.",
)
@debug_option
def simulate(
    out: Path,
    seconds: float,
    seed: int,
    tank_fraction: float,
    cells_per_frame: float,
    aslant: float,
    lit_from_deg: float,
) -> None:
    """Write a movie of the simulated flow chamber (.tif, .avi or .zarr) with OUT.truth.csv beside it.

    Example: rbcflow simulate chamber.tif --seconds 5 --seed 3
    """
    from napari_rbcflow.cli.terminal import bar
    from napari_rbcflow.simulation import simulate_movie, truth_path

    with bar("simulating") as show:
        truth = simulate_movie(
            out,
            seconds=seconds,
            seed=seed,
            tank_fraction=tank_fraction,
            cells_per_frame=cells_per_frame,
            aslant=aslant,
            lit_from_deg=lit_from_deg,
            progress=lambda done, of: show(done, of),
        )
    share = "no cell in focus" if truth.fraction is None else f"fraction {100 * truth.fraction:.1f} %"
    click.echo(
        f"{out}: {truth.frames} frames, {truth.cells} cells, {truth.tank_treading} tank-treading and "
        f"{truth.flipping} flipping in focus ({share}); the truth is in {truth_path(out)}"
    )


@contextlib.contextmanager
def kept_when_interrupted(folder: Path) -> Iterator[None]:
    """Say where what was done lies, when Ctrl-C ends an analysis."""
    try:
        yield
    except KeyboardInterrupt:
        where = f": what was done is in {folder}" if folder.exists() else ""
        raise RunFailed(f"stopped{where}") from None
