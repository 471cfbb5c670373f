"""The group that every command joins, and the exit codes.

0: done. 1: the run failed, and what it had is kept. 2: bad input, one line on stderr, nothing made.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Sequence

import click

from napari_rbcflow import __version__
from napari_rbcflow.errors import BadInput, RunFailed

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
