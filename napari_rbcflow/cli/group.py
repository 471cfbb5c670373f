"""The group that every command joins, the exit codes, and the options that commands share."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from napari_rbcflow.cli.process import leave, output_fault, told_to_end
from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sentences import name_settings, say
from napari_rbcflow.version import __version__

if TYPE_CHECKING:
    from napari_rbcflow.quality import SetFlow
    from napari_rbcflow.session import RunRecord


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help=say("cli.rbcflow"),
)
@click.version_option(__version__, prog_name="rbcflow")
@click.option("--debug", is_flag=True, help=say("cli.debug"))
def cli(debug: bool) -> None:
    """``rbcflow``."""


def run(arguments: Sequence[str] | None) -> None:
    """Run a command, and end the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Taken out beforehand, so that it may stand anywhere and covers the parsing too.
    debug = "--debug" in words
    code = _exit_code([word for word in words if word != "--debug"], debug)
    if (fault := output_fault()) is not None:
        code = _fail(say("cli.output-lost", why=fault.strerror or fault), code or 1, debug)
    leave(code, own_process=arguments is None)


_NOT_USABLE = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EEXIST", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS")
)
"""What the system says of a path that the user gave and that cannot be used."""


_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, None})
"""What it says of a disk; a library that wrote less than it should names no error."""


def _exit_code(arguments: list[str], debug: bool) -> int:
    try:
        with told_to_end():
            result = cli.main(arguments, prog_name="rbcflow", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), 2, debug)
    except (BadInput, RunFailed) as error:
        command = next((cli.commands[name] for name in arguments if name in cli.commands), cli)
        return _fail(_name_options(str(error), command), 2 if isinstance(error, BadInput) else 1, debug)
    except (KeyboardInterrupt, click.Abort):
        return _fail(say("cli.stopped"), 1, debug)
    except OSError as error:
        why = error.strerror or error
        if error.errno in _NOT_USABLE and error.filename is not None:
            return _fail(say("cli.path-fault", path=error.filename, why=why), 2, debug)
        if error.errno in _OF_THE_DISK:
            return _fail(say("cli.disk-fault", why=why), 1, debug)
        return _fail(say("cli.unexpected", kind=type(error).__name__, why=error), 1, debug)
    except Exception as error:
        return _fail(say("cli.unexpected", kind=type(error).__name__, why=error), 1, debug)


def _fail(sentence: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo("rbcflow: " + " ".join(sentence.split()), err=True)
    return code


def echo(sentence: str, *, err: bool = False) -> None:
    click.echo(as_options(sentence), err=err)


def as_options(sentence: str) -> str:
    """Return what another package says, with settings named as options of the command that runs."""
    context = click.get_current_context(silent=True)
    return _name_options(sentence, context.command if context else cli)


def _name_options(sentence: str, command: click.Command) -> str:
    options = {p.name: max(p.opts, key=len) for p in command.params if isinstance(p, click.Option)}
    return name_settings(sentence, lambda name: options.get(name, name))


FIXED_N = ("wilson", "jeffreys", "clopper-pearson")
"""As in `estimate`, which takes SciPy's half a second to import."""

F = TypeVar("F", bound=Callable[..., Any])


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Stack options into one decorator."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


PATH = click.Path(path_type=Path)
debug_option = click.option("--debug", is_flag=True, expose_value=False, help=say("cli.debug"))
output_option = click.option("-o", "--output", required=True, type=PATH, help=say("cli.output"))
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help=say("cli.device")
)
flow_option = click.option(
    "--flow",
    type=click.Choice(["left-to-right", "right-to-left"]),
    default="left-to-right",
    show_default=True,
    help=say("cli.flow"),
)
rotate_option = click.option("--rotate", type=int, default=0, metavar="DEGREES", help=say("cli.rotate"))
chamber_options = options(
    click.option("--seed", type=int, default=0, show_default=True, help=say("cli.seed")),
    click.option(
        "--tank-fraction",
        type=click.FloatRange(0, 1),
        default=0.8,
        show_default=True,
        help=say("cli.tank-fraction"),
    ),
)
set_flow_options = options(
    click.option("--shear-rate", type=float, help=say("cli.shear-rate")),
    click.option("--focus-height-um", type=float, help=say("cli.focus-height")),
)
record_options = options(
    click.option("--patient", default="", help=say("cli.patient")),
    click.option("--sample", default="", help=say("cli.sample")),
)
run_record_options = options(
    click.option("--record", "records", multiple=True, metavar="NAME=VALUE|FILE", help=say("cli.record")),
    click.option("--record-template", type=PATH, metavar="FILE", help=say("cli.record-template")),
)
stop_options = options(
    click.option("--stop-reliable", type=int, metavar="N", help=say("cli.stop-reliable")),
    click.option("--stop-halfwidth", type=float, metavar="H", help=say("cli.stop-halfwidth")),
    click.option("--stop-seconds", type=float, metavar="S", help=say("cli.stop-seconds")),
    click.option("--stop-tracks", type=int, metavar="M", help=say("cli.stop-tracks")),
    click.option("--stop-baseline", type=float, metavar="B", help=say("cli.stop-baseline")),
)
interval_option = click.option(
    "--interval", type=click.Choice(FIXED_N), default="wilson", show_default=True, help=say("cli.interval")
)
calibration_option = click.option("--calibration", type=PATH, metavar="FILE", help=say("cli.calibration"))
series_option = click.option("--series", type=int, metavar="N", help=say("cli.series"))
viewer_option = click.option("--viewer/--no-viewer", default=None, help=say("cli.viewer"))
intruded_option = click.option(
    "--leave-out-intruded/--keep-intruded",
    default=True,
    show_default=True,
    help=say("cli.leave-out-intruded"),
)
# Without a default, as numpy would be imported for it, which takes longer than all the rest.
least_frames_option = click.option("--least-frames", type=int, metavar="N", help=say("cli.least-frames"))
ring_option = click.option(
    "--ring-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help=say("cli.ring-seconds"),
)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given or have a default."""
    return {name: value for name, value in options.items() if value is not None}


def set_flow(options: dict[str, Any]) -> SetFlow:
    """Take the flow as it was set out of `options`; the paper's if it was not."""
    from napari_rbcflow.quality import SetFlow

    names = {"shear_rate": "shear_rate_per_s", "focus_height_um": "focus_height_um"}
    return SetFlow(**given({name: options.pop(option) for option, name in names.items()}))


def run_record(options: dict[str, Any], *, complete: bool = True) -> RunRecord:
    """Take the run's record out of `options`, checked; `complete` where nothing else can add to it."""
    from napari_rbcflow.session import RunRecord

    record = RunRecord.parse(options.pop("records"), options.pop("record_template"))
    if complete:
        record.refuse_incomplete()
    return record


def must_be_new(file: Path) -> None:
    """Refuse a file or folder that exists or cannot be created: now, not after the work."""
    folder = file.absolute().parent
    try:
        if os.path.lexists(file):
            raise BadInput("cli.file-exists", file=file)
        file.with_name(f"{file.name}.new").lstat()  # as `replace_file` calls it: the name may be too long
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise BadInput("cli.path-fault", path=file, why=getattr(error, "strerror", "") or error) from None
    if not folder.is_dir():
        raise BadInput("cli.no-folder-for-file", file=file, folder=folder)
    if not os.access(folder, os.W_OK):
        raise BadInput("cli.folder-read-only", file=file, folder=folder)


def write_file(file: Path, data: bytes) -> None:
    """Write a file whole, or not at all."""
    from napari_rbcflow.ring import replace_file

    try:
        replace_file(file, data)
    except OSError as error:
        raise RunFailed("cli.file-not-written", file=file, why=error.strerror or error) from error
