"""The process that talks to an open Micro-Manager: ``python -m napari_rbcflow.sources.remote_child``."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from napari_rbcflow.errors import BadInput, LiveModeOn, RbcflowError
from napari_rbcflow.ipc import Pipe, parent
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import in_a_line, number_in
from napari_rbcflow.sources.camera import CoreCamera
from napari_rbcflow.sources.camera_settings import CameraSettings
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.mm_core import one_camera
from napari_rbcflow.sources.remote import Opened, Over, Sent, Starting
from napari_rbcflow.types import SourceInfo

log = logging.getLogger(__name__)

_WITHOUT: dict[str, Any] = {
    "get_include_system_state_cache": False,
    "set_include_system_state_cache": None,
    "get_number_of_camera_channels": 1,
    "get_device_library": "",
    "get_device_name": "",
    "get_version_info": "",
    "get_api_version_info": "",
    "get_pixel_size_um": 0.0,
    "get_exposure": 0.0,
    "has_property": False,
    "is_property_read_only": True,
    "get_circular_buffer_memory_footprint": 0,
    "set_circular_buffer_memory_footprint": None,
    "clear_circular_buffer": None,
    "snap_image": None,
}
"""Answers assumed if that Micro-Manager, older or newer than those known here, has no such method."""


class TaggedImage(NamedTuple):
    """A frame as the core of pymmcore gives it: (height, width) of uint8 or uint16, or BGRA of uint8."""

    pix: Raw
    tags: dict[str, str]


class JavaCore:
    """The core of a running Micro-Manager, made to look like that of pymmcore.

    All other methods go to the server under the same name. From the server, arrays are flat, some tags are
    numbers, a field of view is a Rectangle, and a list of names is a Java object.
    """

    def __init__(self, port: int) -> None:
        from pycromanager import Core, Studio

        try:
            # A socket of its own, so that frames do not wait for other calls.
            self._core = Core(port=port, new_socket=True)
            self._studio: Callable[[], Any] = lambda: Studio(port=port)
        except Exception as error:
            raise BadInput("sources.no-micro-manager", port=port, why=in_a_line(error)) from error
        # These tags cost a millisecond per frame and nobody here reads them; the user may want them later.
        self._with_state = bool(self.get_include_system_state_cache())
        self.set_include_system_state_cache(False)

    def give_back(self) -> None:
        """Leave the core as it was found."""
        self.set_include_system_state_cache(self._with_state)

    def __getattr__(self, name: str) -> Any:
        if name in _WITHOUT:
            return getattr(self._core, name, lambda *_: _WITHOUT[name])
        return getattr(self._core, name)

    @property
    def live_mode(self) -> bool:
        """Whether Micro-Manager's own Live window runs the camera."""
        try:
            return bool(self._studio().live().is_live_mode_on())
        except Exception as error:
            # A core without its windows, as a headless one; that its camera runs is seen elsewhere.
            log.info("Micro-Manager does not say whether it is in Live mode: %s", in_a_line(error))
            return False

    def end_live_mode(self) -> None:
        """Stop the Live window, as its button does."""
        self._studio().live().set_live_mode_on(False)

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return x, y, width, height in binned pixels."""
        if not hasattr(self._core, "get_roi"):
            return 0, 0, int(self._core.get_image_width()), int(self._core.get_image_height())
        field = self._core.get_roi()
        return int(field.x), int(field.y), int(field.width), int(field.height)

    def get_device_property_names(self, label: str) -> list[str]:
        if not hasattr(self._core, "get_device_property_names"):
            return []
        return _strings(self._core.get_device_property_names(label))

    def get_allowed_property_values(self, label: str, name: str) -> list[str]:
        return _strings(self._core.get_allowed_property_values(label, name))

    def get_number_of_components(self) -> int:
        """Return 4 of colour, 1 of grey."""
        if hasattr(self._core, "get_number_of_components"):
            return int(self._core.get_number_of_components())
        return 4 if int(self._core.get_bytes_per_pixel()) >= 4 else 1

    def get_image_bit_depth(self) -> int:
        """Return the bits of a grey value."""
        if hasattr(self._core, "get_image_bit_depth"):
            return int(self._core.get_image_bit_depth())
        return 16 if int(self._core.get_bytes_per_pixel()) in (2, 8) else 8

    def pop_next_tagged_image(self) -> TaggedImage:
        """Return the oldest frame that waits, and take it out of the core's buffer."""
        tagged = self._core.pop_next_tagged_image()
        tags = tagged.tags
        with contextlib.suppress(ValueError):
            tags = json.loads(tags) if isinstance(tags, str) else tags
        flat = dict(_flat(tags))
        pix = np.asarray(tagged.pix)
        height, width = number_in(flat.get("Height")), number_in(flat.get("Width"))
        if not height or not width or pix.size not in (height * width, 4 * height * width):
            height, width = self._core.get_image_height(), self._core.get_image_width()
        shape: tuple[int, ...] = int(height), int(width)
        if pix.size == 4 * shape[0] * shape[1]:
            shape = (*shape, 4)
        return TaggedImage(pix.reshape(shape), flat)


def _flat(tags: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the tags, those within others too: some servers put the camera's own in ``UserData``."""
    if not isinstance(tags, dict):
        if name:
            yield name, str(tags)
        return
    for inner, value in tags.items():
        # A value with its type says {"type": ..., "scalar": ...}, or {"PropType": ..., "PropVal": ...}.
        yield from _flat(value, name if name and inner in ("scalar", "PropVal") else inner)


def _strings(vector: Any) -> list[str]:
    if isinstance(vector, list | tuple):
        return [str(one) for one in vector]
    return [str(vector.get(i)) for i in range(int(vector.size()))]


_TO_END_LIVE_S = 2.0  # Micro-Manager's window ends its sequence a frame or two later


class RunningCamera(CoreCamera):
    """The camera of the Micro-Manager whose server is at `port`; `pipe` hears when a sequence starts."""

    def __init__(self, settings: CameraSettings, port: int, end_live: bool, pipe: Pipe) -> None:
        super().__init__(settings)
        self.port, self._end_live, self._pipe = port, end_live, pipe

    def _connect(self) -> Any:
        return JavaCore(self.port)

    def _configure(self, core: Any) -> None:
        if core.live_mode:
            if not self._end_live:
                raise LiveModeOn(LiveModeOn.KEY)
            core.end_live_mode()
            _wait_for_sequence_end(core)
        one_camera(core, say("sources.running-configuration"))
        if core.is_sequence_running():
            raise BadInput("sources.micro-manager-acquiring")

    def _start_sequence(self) -> None:
        self._starting = True
        if self._info is not None:
            self._pipe.send(Starting(1.5 * self._silence_s()))
        super()._start_sequence()

    def _make_room(self, megabytes: int) -> None:
        # It is the user's own Micro-Manager: its buffer is kept if it is large enough.
        if self._core.get_circular_buffer_memory_footprint() < megabytes:
            super()._make_room(megabytes)

    def _disconnect(self, core: Any) -> None:
        """Leave Micro-Manager open, its camera stopped; the settings that were asked for stay."""
        core.give_back()


def _wait_for_sequence_end(core: Any) -> None:
    until = time.monotonic() + _TO_END_LIVE_S
    while core.is_sequence_running() and time.monotonic() < until:
        time.sleep(0.02)


_TO_STOP_S = 1.5  # if a stop takes longer, the server hangs


def main() -> None:
    """Open the camera, say so, wait for the word to go, then send frames until told to stop."""
    order = json.loads(sys.argv[1])
    port, end_live = order.pop("port"), order.pop("end_live")
    roi = tuple(order.pop("roi") or ()) or None
    pipe = parent()
    # On Windows a library that is loaded while a thread waits for the pipe may wait with it.
    with contextlib.suppress(ImportError):
        importlib.import_module("pycromanager")
    camera = RunningCamera(CameraSettings(**order, roi=roi), port, end_live, pipe)
    go = threading.Event()
    threading.Thread(target=_listen, args=(pipe, camera, go), daemon=True).start()
    try:
        _stream(camera, pipe, go)
    finally:
        # A normal exit of pycromanager waits for a server that may be gone.
        os._exit(0)


_TO_CONNECT_MS = 2000
_TO_UNDERSTAND_S = 20.0  # a server of another version may leave a call without an answer
_UNCLEAR = frozenset({"sources.no-micro-manager", "sources.camera-not-ready"})


def _open(camera: RunningCamera, pipe: Pipe) -> SourceInfo:
    """Open it; if that fails for no clear reason and the server is of another version, say so."""
    theirs, ours = _versions(camera.port)
    if theirs == ours:
        return camera.open()
    key, values = "sources.other-server", {"port": camera.port, "theirs": theirs, "ours": ours}

    def give_up() -> None:
        pipe.send(Over({}, say(key, **values, why=say("sources.no-answer")), key))
        os._exit(0)

    patience = threading.Timer(_TO_UNDERSTAND_S, give_up)
    patience.daemon = True
    patience.start()
    try:
        return camera.open()
    except BadInput as error:
        if error.key not in _UNCLEAR:
            raise
        raise BadInput(key, **values, why=in_a_line(error.__cause__ or error)) from error
    finally:
        patience.cancel()


def _versions(port: int) -> tuple[str, str]:
    """Return the version of the server at `port`, and that which pycromanager speaks."""
    try:
        import zmq

        bridge = importlib.import_module("pyjavaz.bridge").Bridge
        importlib.import_module("pycromanager")
    except ImportError as error:
        raise BadInput("sources.packages-missing", why=error) from error
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = _TO_CONNECT_MS
        try:
            socket.connect(f"tcp://127.0.0.1:{port}")
            socket.send_json({"command": "connect", "debug": False})
            reply = json.loads(socket.recv_multipart()[0].decode("iso-8859-1"))
            theirs = reply.get("version", "2.0.0")  # a server that does not say it is older
        except zmq.Again:
            raise BadInput("sources.no-micro-manager", port=port, why=say("sources.no-answer")) from None
        except (zmq.ZMQError, ValueError, AttributeError) as error:
            raise BadInput("sources.no-micro-manager", port=port, why=in_a_line(error)) from error
    return str(theirs), str(getattr(bridge, "_EXPECTED_ZMQ_SERVER_VERSION", theirs))


def _stream(camera: RunningCamera, pipe: Pipe, go: threading.Event) -> None:
    try:
        pipe.send(Opened(_open(camera, pipe)))
        go.wait()
        for frame in camera.frames():
            if not pipe.send(Sent(frame, dict(camera.missed))):
                break  # nobody listens
        camera.close()
        pipe.send(Over(dict(camera.missed)))
    except Exception as error:
        camera.close()
        known = isinstance(error, RbcflowError)
        why = str(error) if known else say("sources.micro-manager-failed", why=in_a_line(error))
        pipe.send(Over(dict(camera.missed), why, getattr(error, "key", "")))


def _listen(pipe: Pipe, camera: RunningCamera, go: threading.Event) -> None:
    """Hear the word to go, and the end of the pipe, which means stop and exit."""
    while pipe.receive() is not None:
        go.set()
    camera.stop()
    go.set()
    time.sleep(_TO_STOP_S)
    os._exit(0)


if __name__ == "__main__":
    main()
