"""The one protocol for processes of our own: started, spoken to over standard input and output, ended.

A message is any object that can be pickled. Large arrays in it, such as frames, go beside the pickle and are
copied once, into the receiver's memory (PEP 574). No socket is opened, and both ends are this program.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

log = logging.getLogger(__name__)

_LAST_WORDS = 20
_COUNT = struct.Struct("<I")
_SMALL_BYTES = 2**16  # smaller arrays stay in the pickle: each one beside it costs a read


class Pipe:
    """One end of the connection; `send` from any thread, `receive` from one."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._lock = threading.Lock()

    def send(self, message: object) -> bool:
        """Send; return False where the other end is gone."""
        beside: list[memoryview] = []

        def keep_in(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < _SMALL_BYTES:
                return True
            beside.append(raw)
            return False

        data = pickle.dumps(message, protocol=5, buffer_callback=keep_in)
        lengths = [len(data), *(raw.nbytes for raw in beside)]
        head = _COUNT.pack(len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths)
        with self._lock:
            try:
                self._outgoing.write(head + data)
                for raw in beside:
                    self._outgoing.write(raw)
                self._outgoing.flush()
            except (OSError, ValueError):
                return False
        return True

    def receive(self) -> Any | None:
        """Wait for a message; None where the other end is gone, or where nobody understands what it says.

        The latter where the package was updated between the start of the two processes.
        """
        try:
            (count,) = _COUNT.unpack(self._read(_COUNT.size))
            lengths = struct.unpack(f"<{count}Q", self._read(8 * count))
            data, *beside = [self._read(length) for length in lengths]
        except (OSError, ValueError, EOFError):
            return None
        try:
            return pickle.loads(data, buffers=beside)
        except Exception:
            log.exception("a message cannot be read: restart the program")
            return None

    def _read(self, n: int) -> memoryview:
        room = np.empty(n, np.uint8).data
        got = 0
        while got < n:
            more = self._incoming.readinto(room[got:])  # type: ignore[attr-defined]
            if not more:
                raise EOFError
            got += more
        return room

    def close_outgoing(self) -> None:
        """Tell the other end that nothing more comes."""
        with self._lock, contextlib.suppress(OSError):
            self._outgoing.close()


class Child:
    """``python -m module``, with a pipe to it.

    What lies in the folder where the user stands is not imported, and a Ctrl-C in the terminal is for us to
    hear and to pass on. `last_words` are the last lines of its standard error.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        hear: Callable[[str], None] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {
                "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.ABOVE_NORMAL_PRIORITY_CLASS
            }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **(env or {})},
            **own_group,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.pipe = Pipe(self.process.stdout, self.process.stdin)  # type: ignore[arg-type]
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._hear = hear
        self._listening = threading.Thread(target=self._listen, name="rbcflow-words", daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        """Take each line that it says until it ends: a pipe that nobody reads stops who writes."""
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stderr:
                words = line.decode(errors="replace").rstrip()
                self.last_words.append(words)
                if self._hear is not None:
                    self._hear(words)

    def wait(self) -> int:
        """Wait for its end, and for its last words; return the exit code."""
        code = self.process.wait()
        self._listening.join(1.0)
        return code

    def computed_s(self) -> float:
        """Return the seconds of CPU that it has taken so far; 0 where it has ended."""
        import psutil  # type: ignore[import-untyped]

        try:
            return float(sum(psutil.Process(self.process.pid).cpu_times()[:2]))
        except psutil.Error:
            return 0.0

    def end(self, patience_s: float) -> None:
        """Wait so long for its end, then kill it; may be called more than once."""
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def parent() -> Pipe:
    """Return the pipe to who launched this process; what a library prints goes to standard error."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return Pipe(incoming, outgoing)
