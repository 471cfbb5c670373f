"""Frames over a pipe, from a process that may be killed at any moment to the one that wants them.

Each message is a line of JSON, after its length, and where it brings a frame the pixels behind it.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_LENGTHS = struct.Struct("<II")


def send(pipe: IO[bytes], said: dict[str, Any], image: NDArray[np.uint8] | None = None) -> None:
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


def receive(
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
