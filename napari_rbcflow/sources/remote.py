"""A Micro-Manager that is already open, over pycromanager's ZMQ server.

If that Micro-Manager dies, a call to it hangs for ever, and so would the exit of the program that called.
So the calls are made in a process of their own (`remote_child`), which can be killed; frames come from it
over a pipe (`ipc`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, LiveModeOn, RunFailed
from napari_rbcflow.ipc import drain, launch, receive_frame
from napari_rbcflow.sources.base import FrameSource
from napari_rbcflow.sources.camera_settings import CameraSettings
from napari_rbcflow.types import Frame, SourceInfo

log = logging.getLogger(__name__)

USUAL_PORT = 4827
_TO_OPEN_S = 30.0
_SILENT_S, _SILENT_FRAMES = 3.0, 30
"""Without a word from the process, which itself complains earlier of a camera that sends nothing: the
server is gone, or hangs."""
_TO_END_S = 2.0
_TO_LEAVE_S = 0.5
_LOOK_S = 0.1
_LAST_WORDS = 20
_WAITING = 8
"""Frames between the pipe and the run, which has a queue of its own."""

_Message = tuple[dict[str, Any], NDArray[np.uint8] | None]


class RunningMicroManager(FrameSource):
    """The camera of a Micro-Manager that is already open.

    Parameters
    ----------
    port : int
        Of its ZMQ server, on this computer.
    exposure_ms, fps, binning, roi, pixel_size_um, pixel_type
        As in `MicroManagerCamera`.
    end_live : bool
        Stop Micro-Manager's Live mode where it is on; else that is an error.
    """

    def __init__(
        self,
        port: int = USUAL_PORT,
        *,
        exposure_ms: float | None = None,
        fps: float | None = None,
        binning: int | None = None,
        roi: tuple[int, int, int, int] | None = None,
        pixel_size_um: float | None = None,
        pixel_type: str | None = None,
        end_live: bool = False,
    ) -> None:
        self._settings = CameraSettings(exposure_ms, fps, binning, roi, pixel_size_um, pixel_type)
        self._order = {"port": port, "end_live": end_live, **asdict(self._settings)}
        self._child: subprocess.Popen[bytes] | None = None
        self._info: SourceInfo | None = None
        self._messages: queue.Queue[_Message | None] = queue.Queue(_WAITING)
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._missed: dict[str, int] = {}

    def open(self) -> SourceInfo:
        if self._info is not None:
            return self._info
        self._settings.check()
        self._child = child = launch("napari_rbcflow.sources.remote_child", json.dumps(self._order))
        assert child.stdout is not None
        assert child.stderr is not None
        for work in (self._read, child.stdout), (drain, child.stderr, self._last_words.append):
            threading.Thread(target=work[0], args=work[1:], name="rbcflow-running", daemon=True).start()
        if self._stopped.is_set():
            self.stop()
        try:
            said = self._next(_TO_OPEN_S)
            if said is None or "opened" not in said[0]:
                why = said[0].get("refused") or said[0].get("failed") if said else None
                kind = LiveModeOn if said and said[0].get("key") == LiveModeOn.KEY else BadInput
                raise kind.told(
                    why or "Micro-Manager does not answer: see that it is open and not busy, and start again."
                )
        except BaseException:
            self.close()
            raise
        opened = said[0]["opened"]
        self._info = SourceInfo(**{**opened, "warnings": tuple(opened["warnings"])})
        return self._info

    def frames(self) -> Iterator[Frame]:
        if self._info is None:
            raise RuntimeError("open the camera first")
        patience_s = max(_SILENT_S, _SILENT_FRAMES / self._info.fps)
        self._say_go()
        while True:
            said = self._next(_TO_END_S if self._stopped.is_set() else patience_s)
            if self._stopped.is_set() and said is None:
                return
            if said is None:
                self.stop()
                self._end_child(_TO_LEAVE_S)
                raise RunFailed(
                    "Micro-Manager does not answer any more: see whether it is still open and its camera "
                    "still on, and start again."
                )
            message, image = said
            self._missed = dict(message.get("missed", self._missed))
            if "ended" in message:
                return
            if image is None:
                raise RunFailed(str(message.get("failed") or message.get("refused")))
            yield Frame(int(message["index"]), float(message["time_s"]), image)

    def stop(self) -> None:
        self._stopped.set()
        child = self._child
        if child is not None and child.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                child.stdin.close()

    def close(self) -> None:
        self.stop()
        self._closed.set()
        self._end_child(_TO_END_S)

    @property
    def missed(self) -> Mapping[str, int]:
        return dict(self._missed)

    def _say_go(self) -> None:
        """Let the camera run from now on: what it sent before would wait, and be old."""
        child = self._child
        if child is not None and child.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                child.stdin.write(b"!")
                child.stdin.flush()

    def _read(self, pipe: IO[bytes]) -> None:
        """Take what comes until the end; after `close` nobody wants it, but the sender must get rid of it."""
        shape = (0, 0)
        while True:
            try:
                said = receive_frame(pipe, shape)
            except (OSError, ValueError):
                said = None
            if said is not None and "opened" in said[0]:
                shape = said[0]["opened"]["height"], said[0]["opened"]["width"]
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._messages.put(said, timeout=_LOOK_S)
                    break
            if said is None:
                return

    def _next(self, patience_s: float) -> _Message | None:
        """Return the next message; None where there is none in time, or the process is gone."""
        until = time.monotonic() + patience_s
        while not self._closed.is_set() and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                return self._messages.get(timeout=_LOOK_S)
        return None

    def _end_child(self, patience_s: float) -> None:
        child = self._child
        if child is None:
            return
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
