"""Messages over a pair of byte streams, each with its length before it.

They are pickled, for both ends are this program and its own child; nothing that comes from anywhere
else is ever read this way.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import struct
import threading
from typing import BinaryIO

from napari_rbcflow.worker.messages import Message

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<Q")


class Pipe:
    """One end of the connection; `send` from any thread, `receive` from one.

    Parameters
    ----------
    incoming, outgoing : binary file
    """

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._lock = threading.Lock()

    def send(self, message: Message) -> bool:
        """Send; return False where the other end is gone."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with self._lock:
            try:
                self._outgoing.write(_LENGTH.pack(len(data)) + data)
                self._outgoing.flush()
            except (OSError, ValueError):
                return False
        return True

    def receive(self) -> Message | None:
        """Wait for a message; None where the other end is gone, or says what nobody understands.

        The latter where the package was updated between the start of the two processes.
        """
        head = self._read(_LENGTH.size)
        data = self._read(_LENGTH.unpack(head)[0]) if head else None
        try:
            return pickle.loads(data) if data else None
        except Exception:
            log.exception("a message cannot be read: restart the program")
            return None

    def _read(self, n: int) -> bytes | None:
        try:
            data = self._incoming.read(n)
        except (OSError, ValueError):
            return None
        return data if len(data) == n else None

    def close_outgoing(self) -> None:
        """Tell the other end that nothing more comes."""
        with self._lock, contextlib.suppress(OSError):
            self._outgoing.close()
