"""A process of our own that speaks over its standard input and output: started, listened to, read.

Frames come through the pipe of a process that may be killed at any moment. Each message is a line of JSON,
after its length, and where it brings a frame the pixels behind it.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


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


_LENGTHS = struct.Struct("<II")


def send_frame(pipe: IO[bytes], said: dict[str, Any], image: NDArray[np.uint8] | None = None) -> None:
    """Write one message.

    Raises
    ------
    OSError
        Where nobody reads any more.
    """
    text = json.dumps(said).encode()
    pipe.write(_LENGTHS.pack(len(text), 0 if image is None else image.nbytes))
    pipe.write(text)
    if image is not None:
        pipe.write(np.ascontiguousarray(image).data.cast("B"))
    pipe.flush()


def receive_frame(
    pipe: IO[bytes], shape: tuple[int, int]
) -> tuple[dict[str, Any], NDArray[np.uint8] | None] | None:
    """Wait for a message, and return it with its frame of `shape`; None where the sender is gone."""
    head = pipe.read(_LENGTHS.size)
    if len(head) < _LENGTHS.size:
        return None
    n_text, n_image = _LENGTHS.unpack(head)
    text = pipe.read(n_text)
    if len(text) < n_text:
        return None
    if not n_image:
        return json.loads(text), None
    image = np.empty(shape, np.uint8)
    if n_image != image.nbytes or _fill(pipe, image.data.cast("B")) < n_image:
        return None
    return json.loads(text), image


def _fill(pipe: IO[bytes], room: memoryview) -> int:
    got = 0
    while got < len(room):
        n = pipe.readinto(room[got:])  # type: ignore[attr-defined]
        if not n:
            break
        got += n
    return got
