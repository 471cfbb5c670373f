"""The process that talks to an open Micro-Manager: ``python -m napari_rbcflow.sources.running.child ORDER``.

It ends when its standard input does, whether the run ended or the program died, and stops the camera first.
A frame that nobody takes from the pipe waits here, while the core's buffer fills; its overflow is counted.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import BinaryIO

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.sources.mm_settings import CameraSettings
from napari_rbcflow.sources.running.camera import RunningCamera
from napari_rbcflow.sources.running.stream import send

_TO_STOP_S = 1.5
"""A stop that takes longer, for the server hangs, is not waited for."""


def main() -> None:
    """Open the camera, say so, stream until told to stop."""
    order = json.loads(sys.argv[1])
    port, end_live = order.pop("port"), order.pop("end_live")
    roi = tuple(order.pop("roi") or ()) or None
    outgoing = sys.stdout.buffer
    # Whatever a library prints must not stand among the frames.
    sys.stdout = sys.stderr
    camera = RunningCamera(CameraSettings(**order, roi=roi), port, end_live)
    threading.Thread(target=_leave_with_parent, args=(camera,), daemon=True).start()
    _stream(camera, outgoing)
    # pycromanager's own farewells wait for a server that may be gone.
    os._exit(0)


def _stream(camera: RunningCamera, outgoing: BinaryIO) -> None:
    try:
        send(outgoing, {"opened": asdict(camera.open())})
        for frame in camera.frames():
            said = {"index": frame.index, "time_s": frame.time_s, "missed": dict(camera.missed)}
            send(outgoing, said, frame.image)
        camera.close()
        send(outgoing, {"ended": "", "missed": dict(camera.missed)})
    except RbcflowError as error:
        kind = "refused" if isinstance(error, BadInput) else "failed"
        camera.close()
        send(outgoing, {kind: str(error), "missed": dict(camera.missed)})
    except OSError:
        camera.close()  # nobody listens


def _leave_with_parent(camera: RunningCamera) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    camera.stop()
    time.sleep(_TO_STOP_S)
    os._exit(0)


if __name__ == "__main__":
    main()
