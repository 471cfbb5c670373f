"""The group that every command joins, the exit codes, and the options that commands share."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.types import LEAST_FRAMES
from napari_rbcflow.version import __version__

if TYPE_CHECKING:
    from napari_rbcflow.quality import SetFlow


_IN_A_DRIVER = ("rbcflow-opening", "rbcflow-source", "rbcflow-close", "rbcflow-camera")
"""Threads that call into a camera; when a command ends, only one that hangs still lives."""


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
    code = _exit_code([a for a in given if a != "--debug"], debug)
    if any(thread.name in _IN_A_DRIVER for thread in threading.enumerate()):
        # A driver that does not return would hold up the end of Python for as long.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


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
        return _say("stopped", 1, debug)
    except Exception as error:
        return _say(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1, debug)
    return result if isinstance(result, int) else 0


def _say(sentence: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo("rbcflow: " + " ".join(sentence.split()), err=True)
    return code


FIXED_N = ("wilson", "jeffreys", "clopper-pearson")
"""As in `estimate.fixed_n`, which takes SciPy's half a second to import."""

F = TypeVar("F", bound=Callable[..., Any])


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Stack options into one decorator."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


PATH = click.Path(path_type=Path)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback on an error."
)
output_option = click.option(
    "-o", "--output", required=True, type=PATH, help="Session folder to make; must not exist yet."
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where the networks run."
)
flow_option = click.option(
    "--flow",
    type=click.Choice(["left-to-right", "right-to-left"]),
    default="left-to-right",
    show_default=True,
    help="Where cells flow to in the picture.",
)
set_flow_options = options(
    click.option("--shear-rate", type=float, help="At the wall, as the pump is set, 1/s [default: 10]."),
    click.option(
        "--focus-height-um",
        type=float,
        help="Travel of the objective from the wall to the focus [default: 60]. A flow that fits not both "
        "is warned of.",
    ),
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
        help="Stop where the interval is +-H (0.05: 5 points) or less, at N cells or more.",
    ),
    click.option("--stop-seconds", type=float, metavar="S", help="Stop after S seconds."),
    click.option("--stop-tracks", type=int, metavar="M", help="Stop at M tracks, counted or not."),
    click.option(
        "--stop-baseline",
        type=float,
        metavar="B",
        help="Stop where the fraction surely lies below or above B (0.86 for 86 %).",
    ),
)
interval_option = click.option(
    "--interval",
    type=click.Choice(FIXED_N),
    default="wilson",
    show_default=True,
    help="Where what was seen did not decide when to stop; elsewhere, the one that holds there is said. "
    "wilson and jeffreys cover in 95 of 100 runs in the mean, near 0 and 100 % in as few as 84; "
    "clopper-pearson never in fewer than 95, and is wider.",
)
viewer_option = click.option(
    "--viewer/--no-viewer", default=None, help="Open napari [default: where there is a display]."
)
intruded_option = click.option(
    "--leave-out-intruded/--keep-intruded",
    default=True,
    show_default=True,
    help="Judge a track without the frames in which another cell stands in its crop, as the paper did.",
)
least_frames_option = click.option(
    "--least-frames",
    type=int,
    default=LEAST_FRAMES,
    show_default=True,
    metavar="N",
    help="Count only cells seen in N frames or more: a flip shows more surely in a long track.",
)
ring_option = click.option(
    "--ring-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Raw frames that frames.zarr keeps, in seconds.",
)


def flow_set(shear_rate: float | None, focus_height_um: float | None) -> SetFlow:
    """Return the flow as it was set; the paper's where nobody says."""
    from napari_rbcflow.quality import SetFlow

    said = {"shear_rate_per_s": shear_rate, "focus_height_um": focus_height_um}
    return SetFlow(**{name: value for name, value in said.items() if value is not None})


def must_be_makeable(file: Path) -> None:
    """Refuse a file or folder that is there or cannot be made: now, not after the work."""
    folder = file.absolute().parent
    if file.exists():
        raise BadInput(f"{file} exists already: choose another name, or move it away")
    if not folder.is_dir():
        raise BadInput(f"{file} cannot be made: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{file} cannot be made: the folder {folder} cannot be written to")
