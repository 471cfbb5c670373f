"""The process that talks to an open Micro-Manager: ``python -m napari_rbcflow.sources.running.child ORDER``.

It ends when its standard input does, whether the run ended or the program died, and stops the camera first.
A frame that nobody takes from the pipe waits here, while the core's buffer fills; its overflow is counted.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import IO

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.ipc import send_frame
from napari_rbcflow.sources.mm_wanted import CameraSettings
from napari_rbcflow.sources.running.camera import RunningCamera
from napari_rbcflow.sources.sentences import in_a_line

_TO_STOP_S = 1.5
"""A stop that takes longer, for the server hangs, is not waited for."""


def main() -> None:
    """Open the camera, say so, wait for the word to go, stream until told to stop."""
    order = json.loads(sys.argv[1])
    port, end_live = order.pop("port"), order.pop("end_live")
    roi = tuple(order.pop("roi") or ()) or None
    # Whatever a library prints, in Python or in C, must not stand among the frames.
    incoming, outgoing = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    # On Windows a library that is loaded while a thread waits for the pipe may wait with it.
    with contextlib.suppress(ImportError):
        importlib.import_module("pycromanager")
    camera = RunningCamera(CameraSettings(**order, roi=roi), port, end_live)
    go = threading.Event()
    threading.Thread(target=_listen, args=(incoming, camera, go), daemon=True).start()
    try:
        _stream(camera, outgoing, go)
    finally:
        # pycromanager's own farewells wait for a server that may be gone.
        os._exit(0)


def _stream(camera: RunningCamera, outgoing: IO[bytes], go: threading.Event) -> None:
    try:
        send_frame(outgoing, {"opened": asdict(camera.open())})
        go.wait()
        for frame in camera.frames():
            said = {"index": frame.index, "time_s": frame.time_s, "missed": dict(camera.missed)}
            send_frame(outgoing, said, frame.image)
        camera.close()
        send_frame(outgoing, {"ended": "", "missed": dict(camera.missed)})
    except OSError:
        camera.close()  # nobody listens
    except Exception as error:
        camera.close()
        kind = "refused" if isinstance(error, BadInput) else "failed"
        why = str(error) if isinstance(error, RbcflowError) else f"Micro-Manager failed: {in_a_line(error)}"
        code = getattr(error, "code", "")
        send_frame(outgoing, {kind: why, "code": code, "missed": dict(camera.missed)})


def _listen(incoming: IO[bytes], camera: RunningCamera, go: threading.Event) -> None:
    """Hear the word to go, and the pipe's end, which says: stop, and leave."""
    while incoming.read(1):
        go.set()
    camera.stop()
    go.set()
    time.sleep(_TO_STOP_S)
    os._exit(0)


if __name__ == "__main__":
    main()
