"""A stand-in for an open Micro-Manager: its ZMQ server as pycromanager's client sees it, with one camera.

``python server.py ORDER``, ORDER being JSON (see `Order`): a process of its own, to be killed without ado.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))
from stand_in.camera import Core, Order, Thing

__all__ = ["Order"]

CORE, STUDIO = Core.java, "org.micromanager.Studio"
VITAL = frozenset(
    {
        "getCameraDevice",
        "isSequenceRunning",
        "startSequenceAcquisition",
        "stopSequenceAcquisition",
        "getRemainingImageCount",
        "popNextTaggedImage",
        "isBufferOverflowed",
        "getImageWidth",
        "getImageHeight",
        "getBytesPerPixel",
    }
)


class Live(Thing):
    java, api = "org.micromanager.LiveManager", (("isLiveModeOn", ()), ("setLiveModeOn", ("boolean",)))

    def __init__(self, core: Core, on: bool) -> None:
        self._core, self._on = core, on

    def isLiveModeOn(self) -> bool:
        return self._on

    def setLiveModeOn(self, on: bool) -> None:
        self._on = on
        self._core.end_live_soon()


class Studio(Thing):
    java, api = STUDIO, (("live", ()),)

    def __init__(self, core: Core, on: bool) -> None:
        self._live = Live(core, on)

    def live(self) -> Live:
        return self._live


class Server:
    """Answers on the main port and on those that a client asked for, a thread each."""

    def __init__(self, order: Order) -> None:
        core = Core(order)
        self._one: dict[str, Thing] = {CORE: core}
        if order.older:
            core.api = tuple(method for method in core.api if method[0] in VITAL)
        else:
            self._one[STUDIO] = Studio(core, order.live)
        self._held: dict[str, Thing] = {}
        self._lock = threading.Lock()
        self._next_port, self._order = order.port, order

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
            version = {"version": self._order.version} if self._order.version else {}
            return {"type": "none", **version}, []
        if self._order.speaks == "silent":
            time.sleep(3600)
        if self._order.speaks == "other":
            return {"type": "none", "constructors": []}, []
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
        if isinstance(value, np.ndarray):
            mark = 77
            kind = "short-array" if value.dtype == np.uint16 else "byte-array"
            data = [mark.to_bytes(4, sys.byteorder), np.ascontiguousarray(value).tobytes()]
            return {"type": kind, "value": f"@{mark:x}"}, data
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
