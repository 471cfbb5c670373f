"""A Micro-Manager that is already open, over pycromanager's ZMQ server.

If that Micro-Manager dies, a call to it never returns, and the program that called could not exit. So the
calls are made in a process of their own (`remote_child`), which can be killed; frames come from it over a
pipe (`ipc`).
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from napari_rbcflow.errors import BadInput, LiveModeOn, RunFailed
from napari_rbcflow.ipc import Child
from napari_rbcflow.sources.base import FrameSource
from napari_rbcflow.sources.camera_settings import CameraSettings
from napari_rbcflow.types import Frame, SourceInfo

USUAL_PORT = 4827
_TO_OPEN_S = 30.0
_SILENT_S, _SILENT_FRAMES = 3.0, 30
"""After this time without a message, the server is gone or hangs: if only the camera sends nothing, the
process says so earlier."""
_TO_END_S = 2.0
_TO_LEAVE_S = 0.5
_POLL_S = 0.1
_WAITING = 8  # frames between the pipe and the run, which has a queue of its own


@dataclass(frozen=True)
class Opened:
    """From the child: the camera is open."""

    info: SourceInfo


@dataclass(frozen=True, eq=False)
class Sent:
    """From the child: a frame, and how many were missed up to it."""

    frame: Frame
    missed: dict[str, int]


@dataclass(frozen=True)
class Starting:
    """From the child: a sequence is being started, and nothing more may come for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Over:
    """From the child: no more frames come. If something broke, the sentence says what."""

    missed: dict[str, int] = field(default_factory=dict)
    sentence: str = ""
    key: str = ""


_Message = Opened | Sent | Starting | Over


class RunningMicroManager(FrameSource):
    """The camera of a Micro-Manager that is already open, with its ZMQ server at `port` of this computer.

    With `end_live`, its Live mode is stopped if it is on; else that is an error.
    """

    def __init__(self, settings: CameraSettings, port: int, end_live: bool) -> None:
        self._settings = settings
        self._order = {"port": port, "end_live": end_live, **asdict(settings)}
        self._child: Child | None = None
        self._info: SourceInfo | None = None
        self._messages: queue.Queue[_Message | None] = queue.Queue(_WAITING)
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._missed: dict[str, int] = {}

    def open(self) -> SourceInfo:
        if self._info is not None:
            return self._info
        self._settings.check()
        self._child = Child("napari_rbcflow.sources.remote_child", json.dumps(self._order))
        threading.Thread(target=self._read, args=(self._child,), name="rbcflow-running", daemon=True).start()
        if self._stopped.is_set():
            self.stop()
        message = self._next(_TO_OPEN_S)
        if not isinstance(message, Opened):
            self.close()
            if isinstance(message, Over) and message.sentence:
                kind = LiveModeOn if message.key == LiveModeOn.KEY else BadInput
                raise kind.told(message.sentence, message.key)
            raise BadInput("sources.micro-manager-silent-at-open")
        self._info = message.info
        return self._info

    def frames(self) -> Iterator[Frame]:
        if self._info is None:
            raise RuntimeError("open the camera first")
        usual_s = patience_s = max(_SILENT_S, _SILENT_FRAMES / self._info.fps)
        if self._child is not None:
            # What the camera sent earlier would have to wait, and be old.
            self._child.pipe.send("go")
        while True:
            message = self._next(_TO_END_S if self._stopped.is_set() else patience_s)
            if self._stopped.is_set() and message is None:
                return
            if message is None:
                self.stop()
                self._end_child(_TO_LEAVE_S)
                raise RunFailed("sources.micro-manager-gone")
            if isinstance(message, Over):
                self._missed = message.missed or self._missed
                if message.sentence:
                    raise RunFailed.told(message.sentence, message.key)
                return
            patience_s = message.seconds if isinstance(message, Starting) else usual_s
            if isinstance(message, Sent):
                self._missed = message.missed
                yield message.frame

    def stop(self) -> None:
        self._stopped.set()
        if self._child is not None:
            self._child.pipe.close_outgoing()

    def close(self) -> None:
        self.stop()
        self._closed.set()
        self._end_child(_TO_END_S)

    @property
    def missed(self) -> Mapping[str, int]:
        return dict(self._missed)

    def _read(self, child: Child) -> None:
        """Take all messages, even those after `close`, which nobody wants but the sender must get rid of."""
        while True:
            message: _Message | None = child.pipe.receive()
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._messages.put(message, timeout=_POLL_S)
                    break
            if message is None:
                return

    def _next(self, patience_s: float) -> _Message | None:
        """Return the next message; None if none comes in time, or the process is gone."""
        until = time.monotonic() + patience_s
        while not self._closed.is_set() and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                return self._messages.get(timeout=_POLL_S)
        return None

    def _end_child(self, patience_s: float) -> None:
        if self._child is not None:
            self._child.end(patience_s)
