"""Measuring in a process of its own: fresh memory, and nobody else's CPU time in it."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from napari_rbcflow.errors import BadInput, RunFailed

_PATIENCE_S = 5.0
Say = Callable[[float, str], None]


def in_child(work: str, order: Any, progress: Say) -> dict[str, Any]:
    """Do `work` in a fresh Python process, and return what it returns.

    Parameters
    ----------
    work : str
        ``module:function``, so that nobody here need load what it needs; it gets the order, and whom to
        tell how far it is.
    order : object
        That can be pickled.
    progress : callable
        Called here with the share that is done, and a note.

    Raises
    ------
    BadInput, RunFailed
        As `work` raised them; `RunFailed` too where the process breaks or dies.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(there, work, order), daemon=True)
    process.start()
    there.close()
    try:
        while True:
            try:
                kind, said = here.recv()
            except EOFError:
                process.join()
                raise RunFailed(
                    f"the measuring process died (exit code {process.exitcode}): close other programs, "
                    "it may have run out of memory, and try again"
                ) from None
            if kind == "progress":
                progress(*said)
            elif kind == "result":
                result: dict[str, Any] = said
                return result
            elif kind == "bad-input":
                raise BadInput(said)
            else:
                raise RunFailed(said)
    except BaseException:  # an interrupt too: nothing that it does is wanted any more
        process.kill()
        raise
    finally:
        process.join(_PATIENCE_S)
        process.kill()
        process.join()
        here.close()


def _serve(there: Connection, work: str, order: Any) -> None:
    # Ctrl-C is for the parent to hear, which then ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing of a library's chatter may stand in the parent's terminal.
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    said: tuple[str, Any]
    try:
        module, _, function = work.partition(":")
        measure = getattr(importlib.import_module(module), function)
        said = ("result", measure(order, lambda share, note: there.send(("progress", (share, note)))))
    except BadInput as error:
        said = ("bad-input", str(error))
    except RunFailed as error:
        said = ("failed", str(error))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = ("failed", f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})")
    with contextlib.suppress(OSError):
        there.send(said)
