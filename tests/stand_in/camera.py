"""The camera of the stand-in: what an Infinity in an open Micro-Manager is to its client.

It plays a known movie at an exact rate through a buffer like the core's. What is set changes what comes, as
there: nothing of the picture while it streams, binning gives the whole field again, and exposure and frame
rate limit each other.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

KINDS = {"8bit": "8bit-MONO", "16bit": "16bit-MONO", "32bitRGB": "8bit-COLOR"}
_TYPES = {"8bit-MONO": np.uint8, "16bit-MONO": np.uint16, "8bit-COLOR": np.uint32}
_BINNING = 2
"""At which the movie was taken."""
_LIVE_LINGERS_S = 0.2


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
    loop: bool = False
    live: bool = False
    pixel_size_um: Any = 0.0
    bits: int = 12
    says_bits: int = 0
    roi_step: int = 1
    longest_ms: float = 1000
    times: str = "ms"  # how ElapsedTime-ms is said: see `Core._said`
    clock_steps: Sequence[tuple[int, int, float]] = ()  # (sequence, frame, ms): the computer's clock is set
    first_late_s: float = 0.0
    late_sequence: int = 0  # which one's first frame is late; 0: all
    tags: str = "all"  # "none", "null", "text" (JSON), "nested" (the camera's own in UserData), "some"
    numbers: str = "all"  # "none", "same", "some", "text"
    binning_as: str = "{0}"
    exposure_as: str = "{0}"
    version: str = "5.1.0"
    speaks: str = "all"  # "other": its replies are not understood; "silent": it answers only to be connected
    older: bool = False  # a server that has only what frames cannot be had without, and no windows

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


class Rectangle(Thing):
    java, fields = "java.awt.Rectangle", ("x", "y", "width", "height")

    def __init__(self, x: int, y: int, width: int, height: int) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height


class Tagged(Thing):
    java, fields = "mmcorej.TaggedImage", ("pix", "tags")

    def __init__(self, pix: np.ndarray, tags: Any) -> None:
        self.pix, self.tags = pix, tags


class Core(Thing):
    java = "mmcorej.CMMCore"
    api = (
        ("setIncludeSystemStateCache", ("boolean",)),
        ("getIncludeSystemStateCache", ()),
        ("getNumberOfCameraChannels", ()),
        ("getCameraDevice", ()),
        ("isSequenceRunning", ()),
        ("startSequenceAcquisition", ("int", "double", "boolean")),
        ("startContinuousSequenceAcquisition", ("double",)),
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
        ("getNumberOfComponents", ()),
        ("getImageBitDepth", ()),
        ("getExposure", ()),
        ("setExposure", ("double",)),
        ("getPixelSizeUm", ()),
        ("getROI", ()),
        ("getROI", ("java.lang.String",)),
        ("setROI", ("java.awt.Rectangle",)),
        ("setROI", ("int", "int", "int", "int")),
        ("setROI", ("java.lang.String", "int", "int", "int", "int")),
        ("clearROI", ()),
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
        self._properties = {
            "FrameRate": f"{order.fps:g}",
            "Binning": order.binning_as.format(_BINNING),
            "PixelType": KINDS[order.kind],
        }
        kind = _TYPES[KINDS[order.kind]]
        self._movie = np.fromfile(order.movie, kind).reshape(-1, order.height, order.width)
        self._roi: tuple[int, int, int, int] | None = None
        self._waiting: deque[tuple[int, float, int]] = deque()
        self._running = self._overflowed = False
        self._live_until = float("inf") if order.live else 0.0
        self._began, self._began_at, self._sent, self._numbered = 0.0, 0.0, 0, 0
        self._asked, self._overwrites, self._sequence = 0, False, 0

    # ------------------------------------------------------------------ frames

    def _rate(self) -> float:
        return min(self._order.fps, float(self._properties["FrameRate"]))

    def _catch_up(self) -> None:
        """Put into the buffer what the camera has sent by now."""
        order, rate = self._order, self._rate()
        late_s = order.first_late_s if order.late_sequence in (0, self._sequence) else 0.0
        while self._running and time.monotonic() >= self._began + late_s + self._sent / rate:
            i = self._sent
            if i == order.dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if i == order.hangs_after:
                time.sleep(3600)
            if i in (order.ends_after, self._asked) or (i >= len(self._movie) and not order.loop):
                self._running = i < len(self._movie) and i not in (order.ends_after, self._asked)
                return
            if len(self._waiting) >= order.buffer_frames and self._overwrites:
                self._waiting.clear()  # whole, and without a flag
            if len(self._waiting) >= order.buffer_frames:
                self._overflowed, self._running = True, False
                return
            self._waiting.append((self._numbered, 1000 * i / rate, i))
            self._sent, self._numbered = i + 1, self._numbered + 1

    def _picture(self, i: int) -> np.ndarray:
        """Return a frame as the camera is set now; as it stands in the movie where nothing was set."""
        order, frame, kind = self._order, self._movie[i % len(self._movie)], self._properties["PixelType"]
        binning = self._binning()
        frame = frame[:: binning // _BINNING, :: binning // _BINNING] if binning >= _BINNING else frame
        frame = frame.repeat(_BINNING, 0).repeat(_BINNING, 1) if binning < _BINNING else frame
        x, y, width, height = self._field()
        frame = frame[y : y + height, x : x + width]
        if kind == KINDS[order.kind]:
            return frame
        grey = (frame >> (order.bits - 8) if frame.dtype == np.uint16 else frame).astype(np.uint8)
        if kind == "16bit-MONO":
            return grey.astype(np.uint16) << (order.bits - 8)
        return grey.astype(np.uint32) * np.uint32(0x010101) if kind == "8bit-COLOR" else grey

    def startSequenceAcquisition(self, n: int, interval_ms: float, stop_on_overflow: bool) -> None:
        self._start(n, overwrites=not stop_on_overflow)

    def startContinuousSequenceAcquisition(self, interval_ms: float) -> None:
        self._start(-1, overwrites=True)

    def _start(self, n: int, *, overwrites: bool) -> None:
        self._must_stand_still()
        self._asked, self._overwrites = n, overwrites
        self._waiting.clear()
        self._running, self._overflowed = True, False
        self._began, self._sent, self._numbered = time.monotonic(), 0, 0
        self._began_at = time.time()
        self._sequence += 1

    def stopSequenceAcquisition(self) -> None:
        self._running = False

    def isSequenceRunning(self) -> bool:
        self._catch_up()
        return self._running or time.monotonic() < self._live_until

    def getRemainingImageCount(self) -> int:
        self._catch_up()
        return len(self._waiting)

    def popNextTaggedImage(self) -> Tagged:
        self._catch_up()
        if not self._waiting:
            raise RuntimeError("Circular buffer is empty")
        number, time_ms, i = self._waiting.popleft()
        pix, order = self._picture(i), self._order
        # As the server sends them: sizes as numbers, the rest as text.
        tags: dict[str, Any] = {"Width": pix.shape[1], "Height": pix.shape[0], "PixelType": "GRAY8"}
        if order.numbers != "none" and not (order.numbers == "some" and i % 4):
            tags["ImageNumber"] = {"same": "0", "text": f"{number}.0 "}.get(order.numbers, str(number))
        wall_ms = 1000 * self._began_at + time_ms + self._set_ms(i)
        received = datetime.fromtimestamp(wall_ms / 1000).isoformat(" ")
        tags |= {"ElapsedTime-ms": self._said(time_ms, i), "TimeReceivedByCore": received}
        if order.tags == "nested":
            del tags["ElapsedTime-ms"], tags["TimeReceivedByCore"]
            own = {"type": "STRING", "scalar": str(round(1e6 * time_ms) + 77)}
            tags["UserData"] = {"Infinity-TimeStamp": own}
        if order.tags == "none" or (order.tags == "some" and i % 3):
            tags = {}
        return Tagged(pix, {"null": None, "text": json.dumps(tags)}.get(order.tags, tags))

    def _set_ms(self, i: int) -> float:
        """Return by how much the computer's clock was set until then."""
        return sum(ms for *place, ms in self._order.clock_steps if place <= [self._sequence, i])

    def _said(self, ms: float, i: int) -> str:
        kind = self._order.times
        full = 2.0**32
        ms = {
            "wall": ms + self._set_ms(i),
            "zero": 0.0,
            "s": ms / 1000,
            "us": ms * 1000,
            "negative": ms - 5000,
            "repeated": ms * (i - i % 2) / max(i, 1),
            "stops": min(ms, 1500.0),
            "wraps": (full - 1200 + ms) % full,
        }.get(kind, ms)
        text = {"nan": "nan", "text": "later"}.get(kind, f"{ms:.4f}")
        if kind == "some" and i % 3 == 1:
            return ""
        return text.replace(".", ",") if kind == "comma" else f"{text} ms" if kind == "unit" else text

    def isBufferOverflowed(self) -> bool:
        return self._overflowed

    def clearCircularBuffer(self) -> None:
        self._waiting.clear()

    def snapImage(self) -> None: ...

    # ------------------------------------------------------------------ settings

    def _must_stand_still(self) -> None:
        if self.isSequenceRunning():
            raise RuntimeError("Camera busy acquiring")

    def end_live_soon(self) -> None:
        self._live_until = time.monotonic() + _LIVE_LINGERS_S

    def _binning(self) -> int:
        return int(re.findall(r"\d+", self._properties["Binning"])[0])

    def _size(self) -> tuple[int, int]:
        binning = self._binning()
        return self._order.width * _BINNING // binning, self._order.height * _BINNING // binning

    def _field(self) -> tuple[int, int, int, int]:
        return self._roi or (0, 0, *self._size())

    def getROI(self, *label: str) -> Rectangle:
        return Rectangle(*self._field())

    def setROI(self, x: int, y: int, width: int, height: int) -> None:
        self._must_stand_still()
        step = self._order.roi_step
        self._roi = x, y, width // step * step, height // step * step

    def clearROI(self) -> None:
        self._must_stand_still()
        self._roi = None

    def getImageWidth(self) -> int:
        return self._field()[2]

    def getImageHeight(self) -> int:
        return self._field()[3]

    def getBytesPerPixel(self) -> int:
        return np.dtype(_TYPES[self._properties["PixelType"]]).itemsize

    def getNumberOfComponents(self) -> int:
        return 4 if self._properties["PixelType"] == "8bit-COLOR" else 1

    def getImageBitDepth(self) -> int:
        order = self._order
        return (order.says_bits or order.bits) if self._properties["PixelType"] == "16bit-MONO" else 8

    def getExposure(self) -> Any:
        said = self._order.exposure_as
        return self._exposure if said == "{0}" else said.format(self._exposure)

    def setExposure(self, ms: float) -> None:
        self._exposure = ms = min(ms, self._order.longest_ms)
        self._properties["FrameRate"] = f"{min(float(self._properties['FrameRate']), 1000 / ms):g}"

    def hasProperty(self, label: str, name: str) -> bool:
        return name in self._properties

    def getProperty(self, label: str, name: str) -> str:
        return self._properties[name]

    def setProperty(self, label: str, name: str, value: str) -> None:
        if name != "FrameRate":
            self._must_stand_still()
            if value not in self.getAllowedPropertyValues(label, name)._names:
                raise RuntimeError(f"{value} is not allowed")
            self._roi = self._roi if name != "Binning" else None
        elif self._exposure > 1000 / float(value):
            self._exposure = 1000 / float(value)
        self._properties[name] = value

    def isPropertyReadOnly(self, label: str, name: str) -> bool:
        return False

    def getDevicePropertyNames(self, label: str) -> Names:
        return Names(*self._properties)

    def getAllowedPropertyValues(self, label: str, name: str) -> Names:
        binnings = tuple(self._order.binning_as.format(n) for n in (1, 2, 4))
        return Names(*{"Binning": binnings, "PixelType": tuple(_TYPES)}.get(name, ()))

    # ------------------------------------------------------------------ the rest

    def setIncludeSystemStateCache(self, on: bool) -> None: ...

    def getIncludeSystemStateCache(self) -> bool:
        return True

    def getNumberOfCameraChannels(self) -> int:
        return 1

    def getCameraDevice(self) -> str:
        return "Infinity"

    def getCircularBufferMemoryFootprint(self) -> int:
        return self._megabytes

    def setCircularBufferMemoryFootprint(self, megabytes: int) -> None:
        self._megabytes = megabytes

    def getPixelSizeUm(self) -> Any:
        size = self._order.pixel_size_um
        return size * self._binning() / _BINNING if isinstance(size, int | float) else size

    def getDeviceLibrary(self, label: str) -> str:
        return "Lumenera"

    def getDeviceName(self, label: str) -> str:
        return "LumeneraCamera"

    def getVersionInfo(self) -> str:
        return "MMCore version of a stand-in"

    def getAPIVersionInfo(self) -> str:
        return "Device API of a stand-in"
