"""The command line: the only place that reads arguments, prints results and chooses exit codes.

0: done. 1: the run failed, and what it had is kept. 2: bad input, one line on stderr, nothing made.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from napari_rbcflow import __version__
from napari_rbcflow.errors import BadInput, RunFailed

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_STOP_RELIABLE = 200
"""Where no stop rule is given: about what one acquisition of Darrin et al. 2023 holds (120 to 270)."""
DEMO_STOP_RELIABLE = 50


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rbcflow")
@click.option("--debug", is_flag=True, help="Show the traceback where something goes wrong.")
def cli(debug: bool) -> None:
    """Tank-treading fraction of red blood cells in shear flow, live or from a movie.

    Example: rbcflow demo
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``rbcflow``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Taken out beforehand, so that it may stand anywhere and covers the parsing too.
    debug = "--debug" in given
    sys.exit(_exit_code([a for a in given if a != "--debug"], debug))


def _exit_code(arguments: list[str], debug: bool) -> int:
    try:
        result = cli.main(arguments, prog_name="rbcflow", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _say(error.format_message(), 2, debug)
    except BadInput as error:
        return _say(str(error), 2, debug)
    except RunFailed as error:
        return _say(str(error), 1, debug)
    except (KeyboardInterrupt, click.Abort):
        return _say("stopped", 130, debug)
    except Exception as error:
        return _say(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1, debug)
    return result if isinstance(result, int) else 0


def _say(sentence: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo("rbcflow: " + " ".join(sentence.split()), err=True)
    return code


# -------------------------------------------------------------------------- options that commands share


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Stack options into one decorator."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


FOLDER = click.Path(path_type=Path)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback on an error."
)
output_option = click.option(
    "-o", "--output", required=True, type=FOLDER, help="Session folder to make; must not exist yet."
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where the networks run."
)
record_options = options(
    click.option("--patient", default="", help="Patient, for the record."),
    click.option("--sample", default="", help="Sample, for the record."),
)
stop_options = options(
    click.option("--stop-reliable", type=int, metavar="N", help="Stop at N reliable cells."),
    click.option(
        "--stop-halfwidth",
        type=float,
        metavar="H",
        help="Stop where the interval is +-H (0.05: 5 points) or less.",
    ),
    click.option("--stop-seconds", type=float, metavar="S", help="Stop after S seconds in any case."),
)
viewer_option = click.option(
    "--viewer/--no-viewer", default=None, help="Open napari [default: where there is a display]."
)
ring_option = click.option(
    "--ring-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Raw frames that frames.zarr keeps, in seconds.",
)


def stop_rules(reliable: int | None, halfwidth: float | None, seconds: float | None, default: int) -> Any:
    """Return the rules, with a number of cells where none is given."""
    from napari_rbcflow.estimate import StopRules

    if reliable is None and halfwidth is None and seconds is None:
        reliable = default
    return StopRules(reliable, halfwidth, seconds)


def has_display() -> bool:
    """Whether a window can be opened here."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def go(run: Any, viewer: bool | None) -> int:
    """Run to the end, in napari or in the terminal, print the result and return the exit code."""
    from napari_rbcflow.terminal import follow, fraction_text

    wanted = has_display() if viewer is None else viewer
    if wanted:
        from napari_rbcflow.widgets.live_view import qt_missing, watch

        if problem := qt_missing():
            if viewer:
                raise BadInput(problem)
            wanted = False
    run.start()
    if wanted:
        watch(run)
        run.wait()
    else:
        follow(run)
    status, reason = run.outcome
    fraction = run.tally.fraction
    click.echo(fraction_text(fraction.estimate, fraction.interval(), fraction.n, fraction.level))
    account = run.progress()
    click.echo(
        f"{status} ({reason}); {account.received} frames received, {account.dropped} dropped, "
        f"{account.missed} missed; {account.cells['tracked']} tracks, "
        f"{account.cells['unreliable']} unreliable, {account.cells['too_short']} too short, "
        f"{account.cells['uncounted']} uncounted"
    )
    click.echo(f"session: {run.folder}")
    if status == "failed":
        raise RunFailed(f"the run failed: {reason} (what it had is in {run.folder})")
    return 0


# -------------------------------------------------------------------------------------------- commands


@cli.command()
@click.option("-o", "--output", type=FOLDER, help="Session folder [default: rbcflow-demo-DATE-TIME].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the simulation.")
@click.option(
    "--tank-fraction",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="The simulation's own fraction.",
)
@stop_options
@viewer_option
@device_option
@debug_option
def demo(
    output: Path | None,
    seed: int,
    tank_fraction: float,
    stop_reliable: int | None,
    stop_halfwidth: float | None,
    stop_seconds: float | None,
    viewer: bool | None,
    device: str,
) -> int:
    """Run the whole instrument on a simulated flow chamber, at 60 frames/s.

    Example: rbcflow demo --stop-reliable 100 --tank-fraction 0.9
    """
    from napari_rbcflow.run import Run, RunSettings
    from napari_rbcflow.sources.chamber import ChamberSettings, SimulatedChamber

    folder = output or Path(time.strftime("rbcflow-demo-%Y%m%d-%H%M%S"))
    rules = stop_rules(stop_reliable, stop_halfwidth, stop_seconds, DEMO_STOP_RELIABLE)
    chamber = SimulatedChamber(ChamberSettings(seed=seed, tank_fraction=tank_fraction))
    run = Run(chamber, folder, RunSettings(sample="simulated flow chamber", device=device, stop=rules))
    code = go(run, viewer)
    click.echo(f"the simulation's own fraction: {100 * tank_fraction:.1f} %")
    return code


@cli.command()
@output_option
@click.option(
    "--camera",
    required=True,
    metavar="SPEC",
    help="simulated; demo (Micro-Manager's DemoCamera); FILE.cfg (a Micro-Manager configuration); "
    "running (Micro-Manager already open); or a movie file, played at its own pace.",
)
@click.option("--mm-path", type=FOLDER, help="Micro-Manager's folder, with its device adapters.")
@click.option("--port", type=int, help="Of the running Micro-Manager's server.")
@click.option("--exposure-ms", type=float, help="[default: 2.2 for a camera].")
@click.option("--fps", type=float, help="Frames per second to ask for, or of the movie.")
@click.option("--binning", type=int, help="1, 2, 4, ...")
@click.option("--roi", metavar="X,Y,WIDTH,HEIGHT", help="Region of interest, in pixels of the camera.")
@click.option("--pixel-size-um", type=float, help="Of one pixel in the sample, in um.")
@click.option("--seed", type=int, default=0, help="Of the simulated camera.")
@click.option("--tank-fraction", type=click.FloatRange(0, 1), default=0.8, help="Of the simulated camera.")
@device_option
@record_options
@stop_options
@ring_option
@viewer_option
@debug_option
def live(
    output: Path,
    camera: str,
    mm_path: Path | None,
    port: int | None,
    exposure_ms: float | None,
    fps: float | None,
    binning: int | None,
    roi: str | None,
    pixel_size_um: float | None,
    seed: int,
    tank_fraction: float,
    device: str,
    patient: str,
    sample: str,
    stop_reliable: int | None,
    stop_halfwidth: float | None,
    stop_seconds: float | None,
    ring_seconds: float,
    viewer: bool | None,
) -> int:
    """Acquire from a camera until a stop rule is met (without one: at 200 reliable cells).

    Example: rbcflow live -o session1 --camera demo --stop-seconds 20
    """
    from napari_rbcflow.run import Run, RunSettings
    from napari_rbcflow.sources.opening import open_source

    source = open_source(
        camera,
        port=port,
        mm_path=mm_path,
        exposure_ms=exposure_ms,
        fps=fps,
        binning=binning,
        roi=parse_roi(roi),
        pixel_size_um=pixel_size_um,
        seed=seed,
        tank_fraction=tank_fraction,
    )
    settings = RunSettings(
        patient=patient,
        sample=sample,
        device=device,
        stop=stop_rules(stop_reliable, stop_halfwidth, stop_seconds, DEFAULT_STOP_RELIABLE),
        ring_seconds=ring_seconds,
    )
    return go(Run(source, output, settings), viewer)


def parse_roi(text: str | None) -> tuple[int, int, int, int] | None:
    """Return (x, y, width, height) of ``X,Y,WIDTH,HEIGHT``."""
    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"--roi takes four whole numbers X,Y,WIDTH,HEIGHT, not {text!r}") from None
    return x, y, width, height


@cli.command()
@click.argument("movie", type=FOLDER)
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
@record_options
@debug_option
def analyze(
    movie: Path,
    output: Path,
    fps: float | None,
    pixel_size_um: float | None,
    device: str,
    background: Any,
    patient: str,
    sample: str,
) -> None:
    """Analyse a recorded movie: AVI, TIFF stack or folder, OME-TIFF, (OME-)Zarr, or a session's ring.

    Example: rbcflow analyze monday.avi -o monday --fps 60
    """
    from napari_rbcflow import run
    from napari_rbcflow.terminal import bar, fraction_text

    with bar("analysing") as show:
        session = run.analyze(
            movie,
            output,
            fps=fps,
            pixel_size_um=pixel_size_um,
            device=device,
            background=background,
            patient=patient,
            sample=sample,
            progress=lambda p, info: show(p.processed, info.n_frames, f"{p.cells['tracked']} tracks"),
        )
    fraction = session.run["fraction"]
    estimate = float("nan") if fraction["estimate"] is None else fraction["estimate"]
    click.echo(fraction_text(estimate, (fraction["low"], fraction["high"]), fraction["n"], fraction["level"]))
    for warning in session.run["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"session: {output}")


@cli.command()
@click.argument("out", type=FOLDER)
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
@debug_option
def simulate(out: Path, seconds: float, seed: int, tank_fraction: float, cells_per_frame: float) -> None:
    """Write a movie of the simulated flow chamber (.tif, .avi or .zarr) with OUT.truth.csv beside it.

    Example: rbcflow simulate chamber.tif --seconds 5 --seed 3
    """
    from napari_rbcflow.sources.chamber import simulate_movie
    from napari_rbcflow.terminal import bar

    with bar("simulating") as show:
        truth = simulate_movie(
            out,
            seconds=seconds,
            seed=seed,
            tank_fraction=tank_fraction,
            cells_per_frame=cells_per_frame,
            progress=lambda done, of: show(done, of),
        )
    click.echo(str(truth))


@cli.command()
@click.argument("dataset", type=FOLDER)
@click.option("--json", "json_file", type=FOLDER, help="Write all figures and predictions here.")
@click.option(
    "--pictures", type=FOLDER, help="Draw confusion matrices and the worst errors into this folder."
)
@click.option("--stage1", type=FOLDER, help="Other weights for stage 1 (.safetensors).")
@click.option("--stage2", type=FOLDER, help="Other weights for stage 2 (.safetensors).")
@device_option
@debug_option
def evaluate(
    dataset: Path,
    json_file: Path | None,
    pictures: Path | None,
    stage1: Path | None,
    stage2: Path | None,
    device: str,
) -> None:
    """Score both stages on labelled sequences in the published layout (dataset.csv, img/).

    Example: rbcflow evaluate ../shared/data/darrin2023/stage1 --json scores.json
    """
    from napari_rbcflow.classification.evaluation import evaluate as score
    from napari_rbcflow.classification.evaluation import summary
    from napari_rbcflow.classification.two_stage import TwoStage

    for made in (json_file, pictures):
        if made is not None and made.exists():
            raise BadInput(f"{made} exists already: choose another name, or move it away")
    result = score(dataset, TwoStage.load(device=device, stage1=stage1, stage2=stage2), pictures=pictures)
    click.echo(summary(result))
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1, allow_nan=False))


@cli.command()
@click.argument("datasets", nargs=-1, required=True, type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder for weights and model card.")
@click.option("--stage", type=click.Choice(["1", "2"]), required=True)
@click.option("--model", type=click.Choice(["small", "c-rnn", "cnn"]), default="small", show_default=True)
@click.option(
    "--sampling", type=click.Choice(["uniform", "similarity"]), default="uniform", show_default=True
)
@click.option(
    "--frames", type=click.IntRange(2), default=20, show_default=True, help="K, at most per sequence."
)
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@device_option
@debug_option
def train(
    datasets: tuple[Path, ...],
    output: Path,
    stage: str,
    model: str,
    sampling: str,
    frames: int,
    epochs: int,
    seed: int,
    device: str,
) -> None:
    """Train one stage on labelled sequences and write weights with their model card.

    Example: rbcflow train ../shared/data/darrin2023/stage1 -o stage1 --stage 1 --model c-rnn --frames 50
    """
    from napari_rbcflow.classification.training import train as fit
    from napari_rbcflow.terminal import bar

    with bar("training") as show:
        card = fit(
            list(datasets),
            output,
            stage=int(stage),
            model=model,
            sampling=sampling,
            frames=frames,
            epochs=epochs,
            seed=seed,
            device=device,
            progress=lambda done, of, note: show(done, of, note),
        )
    click.echo(f"weights and card: {card}")


@cli.command()
@click.argument("folder", type=FOLDER)
@debug_option
def verify(folder: Path) -> int:
    """Check a session folder: 0 whole, 1 recovered or incomplete (says what), 2 not a session.

    Example: rbcflow verify monday
    """
    from napari_rbcflow.session.verify import verify as check

    verdict = check(folder)
    for finding in verdict.findings:
        click.echo(finding, err=verdict.code == 2)
    if verdict.code == 0:
        click.echo(f"{folder} is whole")
    return verdict.code


if __name__ == "__main__":
    main()
