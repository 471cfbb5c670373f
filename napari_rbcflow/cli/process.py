"""The command as a process: where it speaks, what it hears, and how it leaves."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

_IN_A_DRIVER = ("rbcflow-opening", "rbcflow-source", "rbcflow-close", "rbcflow-camera")
"""Threads that call into a camera; when a command ends, only one that hangs still lives."""
_LOADS = "rbcflow-networks"
"""The thread that loads the networks; it still lives where the movie was refused meanwhile."""
_TOLD_TO_END = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_AGAIN_S = 0.05  # seconds until an interrupt that Python dropped is raised again


class Stream:
    """Standard output or error: what it does not take (a full disk, a reader that is gone) ends no run.

    `fault` is that of the first words that were lost; all that follow are lost too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.fault: OSError | None = None
        if stream.errors == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lost():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lost():
            self._stream.flush()

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fault = self.fault or error
            # What is still in Python's buffer has to go somewhere, or Python says so as it ends.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


def guard_streams() -> None:
    """Make standard input, output and error usable whatever the command was started with.

    A closed one gets the null device: else the next file that is opened takes its number, and what a library
    prints goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
        if getattr(sys, name) is None:  # Python found it closed as it began
            nowhere = Path(os.devnull).open("w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)
    sys.stdout, sys.stderr = Stream(sys.stdout), Stream(sys.stderr)


def output_fault() -> OSError | None:
    """Return why standard output did not take all of the result; a reader that has enough is no fault."""
    sys.stdout.flush()
    fault = getattr(sys.stdout, "fault", None)
    return None if fault is None or fault.errno == errno.EPIPE else fault


@contextlib.contextmanager
def nothing_made_yet() -> Iterator[None]:
    """Leave at once when told to end, in a process of its own (`guard_streams`).

    A Ctrl-C as Python raises it may fall into a lock of its imports, which then holds up all for ever.
    """
    from napari_rbcflow.sentences import say

    said = f"rbcflow: {say('cli.stopped')}\n".encode()

    def leave_at_once(*_: object) -> None:
        with contextlib.suppress(OSError):
            os.write(2, said)
        os._exit(1)

    own = isinstance(sys.stderr, Stream) and threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, *_TOLD_TO_END) if own else ()
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: was for number, was in before.items() if was is not signal.SIG_IGN}  # under nohup
    for number in before:
        signal.signal(number, leave_at_once)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


@contextlib.contextmanager
def told_to_end() -> Iterator[None]:
    """Hear SIGTERM and SIGHUP as a Ctrl-C, so that each command clears away what is half made; once.

    Where one falls into a finalizer or a callback, Python drops what it raised: it is raised again.
    """

    def end(number: int, _: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(_AGAIN_S, _thread.interrupt_main).start()
        else:
            said(unraisable)

    numbers = [n for n in _TOLD_TO_END if signal.getsignal(n) is signal.SIG_DFL]  # not under nohup
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, end)
    said, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
    finally:
        sys.unraisablehook = said
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def stopped_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C, and being told to end, call `end`, which stops the run; a second one interrupts."""

    def stop(number: int, _: object) -> None:
        end()
        signal.signal(number, before[number])

    numbers = (signal.SIGINT, *_TOLD_TO_END)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]  # under nohup
    before = {number: signal.signal(number, stop) for number in numbers if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int, *, own_process: bool) -> None:
    """End the process, also where a driver does not return: it would hold up the end of Python as long.

    Nor may Python itself end it: after a Ctrl-C that came while a library was loading it ends by the signal,
    whatever the exit code.
    """
    waits = (*_IN_A_DRIVER, _LOADS) if own_process else _IN_A_DRIVER
    hangs = any(thread.name in waits for thread in threading.enumerate())
    if not own_process and not hangs:
        sys.exit(code)
    # Of all that waits for the end of Python only this is ours; a library's may wait for a thread for ever.
    client = sys.modules.get("napari_rbcflow.pipeline.client")
    if client is not None and not hangs:
        client.close_all()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
