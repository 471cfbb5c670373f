"""The source that a run reads: frames from the process that talks to an open Micro-Manager."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sources.contract import Frame, FrameSource, SourceInfo
from napari_rbcflow.sources.mm_settings import CameraSettings
from napari_rbcflow.sources.running.stream import receive

USUAL_PORT = 4827
_TO_OPEN_S = 30.0
_SILENT_S = 3.5
"""Without a word from the process, which itself complains after 2 s of a camera that sends nothing: the
server is gone, or hangs."""
_TO_END_S = 2.0
_WAITING = 8
"""Frames between the pipe and the run, which has a queue of its own."""

_Message = tuple[dict[str, Any], NDArray[np.uint8] | None]


class RunningMicroManager(FrameSource):
    """The camera of a Micro-Manager that is already open.

    Parameters
    ----------
    port : int
        Of its ZMQ server, on this computer.
    exposure_ms, fps, binning, roi, pixel_size_um
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
        end_live: bool = False,
    ) -> None:
        self._settings = CameraSettings(exposure_ms, fps, binning, roi, pixel_size_um)
        self._order = {
            "port": port,
            "exposure_ms": exposure_ms,
            "fps": fps,
            "binning": binning,
            "roi": roi,
            "pixel_size_um": pixel_size_um,
            "end_live": end_live,
        }
        self._child: subprocess.Popen[bytes] | None = None
        self._info: SourceInfo | None = None
        self._messages: queue.Queue[_Message | None] = queue.Queue(_WAITING)
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._missed: dict[str, int] = {}

    def open(self) -> SourceInfo:
        if self._info is not None:
            return self._info
        self._settings.check()
        command = [sys.executable, "-m", "napari_rbcflow.sources.running.child", json.dumps(self._order)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        threading.Thread(target=self._read, name="rbcflow-running", daemon=True).start()
        try:
            said = self._next(_TO_OPEN_S)
            if said is None or "opened" not in said[0]:
                why = said[0].get("refused") or said[0].get("failed") if said else None
                raise BadInput(
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
        while True:
            said = self._next(_SILENT_S if not self._stopped.is_set() else _TO_END_S)
            if self._stopped.is_set() and said is None:
                return
            if said is None:
                self._end_child()
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
        self._end_child()

    @property
    def missed(self) -> Mapping[str, int]:
        return dict(self._missed)

    def _read(self) -> None:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        shape = (0, 0)
        while True:
            try:
                said = receive(child.stdout, shape)
            except (OSError, ValueError):
                said = None
            if said is not None and "opened" in said[0]:
                shape = said[0]["opened"]["height"], said[0]["opened"]["width"]
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._messages.put(said, timeout=0.1)
                    break
            if said is None or self._closed.is_set():
                return

    def _next(self, patience_s: float) -> _Message | None:
        """Return the next message; None where there is none in time, or the process is gone."""
        try:
            return self._messages.get(timeout=patience_s)
        except queue.Empty:
            return None

    def _end_child(self) -> None:
        child = self._child
        if child is None:
            return
        try:
            child.wait(_TO_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
