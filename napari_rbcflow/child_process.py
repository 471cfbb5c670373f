"""Start a process of our own that speaks over its standard input and output."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any


def launch(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` with its three streams as pipes.

    What lies in the folder where the user stands is not imported, and a Ctrl-C in the terminal is for us to
    hear and to pass on.
    """
    own_group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        own_group = {
            "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.ABOVE_NORMAL_PRIORITY_CLASS
        }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        **own_group,
    )


def drain(stream: IO[bytes], hear: Callable[[str], None]) -> None:
    """Hand over each line of `stream` until it ends; a pipe that nobody reads stops who writes."""
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            hear(line.decode(errors="replace").rstrip())
