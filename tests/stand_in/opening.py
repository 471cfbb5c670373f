"""Stand-ins opened and killed: for a fixture."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from stand_in.camera import Order

SERVER = Path(__file__).with_name("server.py")
Open = Callable[..., tuple[int, "subprocess.Popen[bytes]"]]
"""Plays a movie as `Order` says; returns the port and the process."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def stand_ins(folder: Path) -> Iterator[Open]:
    """Open as many as wished; all are killed in the end."""
    opened: list[subprocess.Popen[bytes]] = []

    def open_one(movie: np.ndarray, **said: object) -> tuple[int, subprocess.Popen[bytes]]:
        raw, port = folder / f"{len(opened)}.raw", free_port()
        movie.tofile(raw)
        kind = {1: "8bit", 2: "16bit", 4: "32bitRGB"}[movie.dtype.itemsize]
        order = Order(str(raw), movie.shape[2], movie.shape[1], port, kind, **said)  # type: ignore[arg-type]
        server = subprocess.Popen([sys.executable, str(SERVER), order.text()], stdout=subprocess.PIPE)
        opened.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        return port, server

    try:
        yield open_one
    finally:
        for server in opened:
            server.kill()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()
