"""A stand-in for an open Micro-Manager: its ZMQ server as pycromanager's client sees it, with one camera.

``python server.py ORDER``, ORDER being JSON (see `Order`). It plays a known movie at an exact rate through a
buffer like the core's. To be killed without ado, it is a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import zmq

VERSION = "5.1.0"
CORE, STUDIO = "mmcorej.CMMCore", "org.micromanager.Studio"
_KINDS = {"8bit": (1, "byte-array"), "16bit": (2, "short-array"), "32bitRGB": (4, "byte-array")}


@dataclass
class Order:
    """What to play. Frames count from the start of a sequence; -1: never."""

    movie: str
    width: int
    height: int
    port: int
    kind: str = "8bit"
    fps: float = 60.0
    buffer_frames: int = 200
    ends_after: int = -1
    dies_after: int = -1
    hangs_after: int = -1
    live: bool = False
    pixel_size_um: float = 0.0

    def text(self) -> str:
        return json.dumps(asdict(self))


class Thing:
    """Something of Java's that the client may hold: its methods are those that stand in `api`."""

    java = "java.lang.Object"
    api: tuple[tuple[str, tuple[str, ...]], ...] = ()
    fields: tuple[str, ...] = ()


class Names(Thing):
    java, api = "mmcorej.StrVector", (("size", ()), ("get", ("int",)))

    def __init__(self, *names: str) -> None:
        self._names = names

    def size(self) -> int:
        return len(self._names)

    def get(self, i: int) -> str:
        return self._names[i]


class Field(Thing):
    java, fields = "java.awt.Rectangle", ("x", "y", "width", "height")

    def __init__(self, width: int, height: int) -> None:
        self.x, self.y, self.width, self.height = 0, 0, width, height


class Tagged(Thing):
    java, fields = "mmcorej.TaggedImage", ("pix", "tags")

    def __init__(self, pix: bytes, tags: dict[str, Any]) -> None:
        self.pix, self.tags = pix, tags


class Live(Thing):
    java, api = "org.micromanager.LiveManager", (("isLiveModeOn", ()), ("setLiveModeOn", ("boolean",)))

    def __init__(self, on: bool) -> None:
        self.on = on

    def isLiveModeOn(self) -> bool:
        return self.on

    def setLiveModeOn(self, on: bool) -> None:
        self.on = on


class Studio(Thing):
    java, api = STUDIO, (("live", ()),)

    def __init__(self, on: bool) -> None:
        self._live = Live(on)

    def live(self) -> Live:
        return self._live


class Core(Thing):
    java = CORE
    api = (
        ("setIncludeSystemStateCache", ("boolean",)),
        ("getIncludeSystemStateCache", ()),
        ("getNumberOfCameraChannels", ()),
        ("getCameraDevice", ()),
        ("isSequenceRunning", ()),
        ("startSequenceAcquisition", ("int", "double", "boolean")),
        ("stopSequenceAcquisition", ()),
        ("getRemainingImageCount", ()),
        ("popNextTaggedImage", ()),
        ("isBufferOverflowed", ()),
        ("clearCircularBuffer", ()),
        ("getCircularBufferMemoryFootprint", ()),
        ("setCircularBufferMemoryFootprint", ("int",)),
        ("snapImage", ()),
        ("getImageWidth", ()),
        ("getImageHeight", ()),
        ("getBytesPerPixel", ()),
        ("getImageBitDepth", ()),
        ("getExposure", ()),
        ("setExposure", ("double",)),
        ("getPixelSizeUm", ()),
        ("getROI", ()),
        ("getDeviceLibrary", ("java.lang.String",)),
        ("getDeviceName", ("java.lang.String",)),
        ("getVersionInfo", ()),
        ("getAPIVersionInfo", ()),
        ("hasProperty", ("java.lang.String", "java.lang.String")),
        ("getProperty", ("java.lang.String", "java.lang.String")),
        ("setProperty", ("java.lang.String", "java.lang.String", "java.lang.String")),
        ("isPropertyReadOnly", ("java.lang.String", "java.lang.String")),
        ("getDevicePropertyNames", ("java.lang.String",)),
        ("getAllowedPropertyValues", ("java.lang.String", "java.lang.String")),
    )

    def __init__(self, order: Order) -> None:
        self._order, self._exposure, self._megabytes = order, 2.2, 16
        self._properties = {"FrameRate": f"{order.fps:g}", "Binning": "2", "PixelType": order.kind}
        size = order.width * order.height * _KINDS[order.kind][0]
        data = Path(order.movie).read_bytes()
        self._frames = [data[i : i + size] for i in range(0, len(data), size)]
        self._waiting: deque[tuple[int, float, bytes]] = deque()
        self._running = self._overflowed = False
        self._began, self._began_at, self._sent, self._numbered = 0.0, 0.0, 0, 0

    def _catch_up(self) -> None:
        """Put into the buffer what the camera has sent by now."""
        order = self._order
        while self._running and time.monotonic() >= self._began + self._sent / order.fps:
            i = self._sent
            if i == order.dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if i == order.hangs_after:
                time.sleep(3600)
            if i == order.ends_after or i >= len(self._frames):
                self._running = i < len(self._frames) and i != order.ends_after
                return
            if len(self._waiting) >= order.buffer_frames:
                self._overflowed, self._running = True, False
                return
            self._waiting.append((self._numbered, 1000 * i / order.fps, self._frames[i]))
            self._sent, self._numbered = i + 1, self._numbered + 1

    def startSequenceAcquisition(self, n: int, interval_ms: float, stop_on_overflow: bool) -> None:
        if self._running:
            raise RuntimeError("Camera busy acquiring")
        self._waiting.clear()
        self._running, self._overflowed = True, False
        self._began, self._sent, self._numbered = time.monotonic(), 0, 0
        self._began_at = time.time()

    def stopSequenceAcquisition(self) -> None:
        self._running = False

    def isSequenceRunning(self) -> bool:
        self._catch_up()
        return self._running

    def getRemainingImageCount(self) -> int:
        self._catch_up()
        return len(self._waiting)

    def popNextTaggedImage(self) -> Tagged:
        self._catch_up()
        if not self._waiting:
            raise RuntimeError("Circular buffer is empty")
        number, time_ms, pix = self._waiting.popleft()
        # As the server sends them: sizes as numbers, the rest as text.
        tags: dict[str, Any] = {
            "Width": self._order.width,
            "Height": self._order.height,
            "ImageNumber": str(number),
        }
        received = datetime.fromtimestamp(self._began_at + time_ms / 1000).isoformat(" ")
        tags |= {"ElapsedTime-ms": f"{time_ms:.4f}", "TimeReceivedByCore": received, "PixelType": "GRAY8"}
        return Tagged(pix, tags)

    def isBufferOverflowed(self) -> bool:
        return self._overflowed

    def clearCircularBuffer(self) -> None:
        self._waiting.clear()

    def setIncludeSystemStateCache(self, on: bool) -> None: ...

    def getIncludeSystemStateCache(self) -> bool:
        return True

    def getNumberOfCameraChannels(self) -> int:
        return 1

    def snapImage(self) -> None: ...

    def getCameraDevice(self) -> str:
        return "Infinity"

    def getCircularBufferMemoryFootprint(self) -> int:
        return self._megabytes

    def setCircularBufferMemoryFootprint(self, megabytes: int) -> None:
        self._megabytes = megabytes

    def getImageWidth(self) -> int:
        return self._order.width

    def getImageHeight(self) -> int:
        return self._order.height

    def getBytesPerPixel(self) -> int:
        return _KINDS[self._order.kind][0]

    def getImageBitDepth(self) -> int:
        return 12 if self._order.kind == "16bit" else 8

    def getExposure(self) -> float:
        return self._exposure

    def setExposure(self, ms: float) -> None:
        self._exposure = ms

    def getPixelSizeUm(self) -> float:
        return self._order.pixel_size_um

    def getROI(self) -> Field:
        return Field(self._order.width, self._order.height)

    def getDeviceLibrary(self, label: str) -> str:
        return "Lumenera"

    def getDeviceName(self, label: str) -> str:
        return "LumeneraCamera"

    def getVersionInfo(self) -> str:
        return "MMCore version of a stand-in"

    def getAPIVersionInfo(self) -> str:
        return "Device API of a stand-in"

    def hasProperty(self, label: str, name: str) -> bool:
        return name in self._properties

    def getProperty(self, label: str, name: str) -> str:
        return self._properties[name]

    def setProperty(self, label: str, name: str, value: str) -> None:
        self._properties[name] = value

    def isPropertyReadOnly(self, label: str, name: str) -> bool:
        return False

    def getDevicePropertyNames(self, label: str) -> Names:
        return Names(*self._properties)

    def getAllowedPropertyValues(self, label: str, name: str) -> Names:
        return Names(*{"Binning": ("1", "2", "4")}.get(name, ()))


class Server:
    """Answers on the main port and on those that a client asked for, a thread each."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._one = {CORE: Core(order), STUDIO: Studio(order.live)}
        self._held: dict[str, Thing] = {}
        self._lock = threading.Lock()
        self._next_port = order.port

    def serve(self, port: int) -> None:
        socket = zmq.Context.instance().socket(zmq.REP)
        socket.bind(f"tcp://127.0.0.1:{port}")
        while True:
            message = json.loads(socket.recv_multipart()[0].decode("iso-8859-1"))
            with self._lock:
                try:
                    reply, data = self._answer(message)
                except Exception as error:
                    reply, data = {"type": "exception", "value": str(error)}, []
            socket.send_multipart([json.dumps(reply).encode("iso-8859-1"), *data])

    def _answer(self, said: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        command = said["command"]
        if command == "connect":
            return {"type": "none", "version": VERSION}, []
        if command == "get-constructors":
            return {"type": "none", "api": [{"name": said["classpath"], "arguments": []}]}, []
        if command == "constructor":
            reply = self._hold(self._one[said["classpath"]])
            if said.get("new-port"):
                self._next_port += 1
                reply["port"] = self._next_port
                threading.Thread(target=self.serve, args=(self._next_port,), daemon=True).start()
            return reply, []
        thing = self._held.get(said["hash-code"])
        if command == "destructor":
            self._held.pop(said["hash-code"], None)
            return {"type": "none"}, []
        if command == "get-field":
            return self._as_reply(getattr(thing, said["name"]))
        if command == "run-method":
            return self._as_reply(getattr(thing, said["name"])(*said["arguments"]))
        raise ValueError(f"unknown command {command}")

    def _as_reply(self, value: Any) -> tuple[dict[str, Any], list[bytes]]:
        if value is None:
            return {"type": "null"}, []
        if isinstance(value, Thing):
            return self._hold(value), []
        if isinstance(value, dict):
            return {"type": "object", "class": "JSONObject", "value": json.dumps(value)}, []
        if isinstance(value, bytes):
            mark = 77
            kind = _KINDS[self._order.kind][1]
            return {"type": kind, "value": f"@{mark:x}"}, [mark.to_bytes(4, sys.byteorder), value]
        return {"type": "string" if isinstance(value, str) else "primitive", "value": value}, []

    def _hold(self, thing: Thing) -> dict[str, Any]:
        code = f"{id(thing):x}"
        self._held[code] = thing
        api = [
            {"name": name, "arguments": list(arguments), "return-type": "java.lang.Object"}
            for name, arguments in thing.api
        ]
        return {
            "type": "unserialized-object",
            "class": thing.java,
            "hash-code": code,
            "interfaces": [],
            "fields": list(thing.fields),
            "api": api,
        }


if __name__ == "__main__":
    ordered = Order(**json.loads(sys.argv[1]))
    print("ready", flush=True)
    Server(ordered).serve(ordered.port)
