"""What goes through the pipe between a worker and who watches it: orders, news, and the pipe."""

from __future__ import annotations

import contextlib
import logging
import pickle
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.status import Snapshot
from napari_rbcflow.sources import FrameSource
from napari_rbcflow.types import SourceInfo


@dataclass(frozen=True)
class Camera:
    """A live source.

    Attributes
    ----------
    spec : str
        As after ``--camera``.
    options : mapping
        Keyword arguments of `sources.opening.open_source`; what is left out, the source decides.
    """

    spec: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> FrameSource:
        """Return the source, not yet open.

        Raises
        ------
        BadInput
        """
        from napari_rbcflow.sources import open_source

        return open_source(self.spec, **self.options)


@dataclass(frozen=True)
class MovieFile:
    """A recorded movie.

    Attributes
    ----------
    path : Path
    fps, pixel_size_um : float or None
        Override what the file says.
    """

    path: Path
    fps: float | None = None
    pixel_size_um: float | None = None

    def make(self) -> FrameSource:
        """Return the source, not yet open.

        Raises
        ------
        BadInput
        """
        from napari_rbcflow.sources import open_movie

        return open_movie(self.path, fps=self.fps, pixel_size_um=self.pixel_size_um)


@dataclass(frozen=True)
class Order:
    """One run: from where, into which folder, and how.

    Attributes
    ----------
    source : Camera or MovieFile
    folder : Path
        The session folder; must not exist.
    settings : RunSettings
    """

    source: Camera | MovieFile
    folder: Path
    settings: RunSettings


@dataclass(frozen=True)
class Begin:
    """To the worker: run this."""

    order: Order


@dataclass(frozen=True)
class Stop:
    """To the worker: end the run. The pipe's end says: end the run, and yourself."""


@dataclass(frozen=True)
class Ready:
    """From the worker: everything is loaded, a run would begin at once."""


@dataclass(frozen=True)
class Refused:
    """From the worker: the run cannot begin, and nothing was made.

    Attributes
    ----------
    sentence : str
    code : str
        `RbcflowError.code`: why, for a program.
    """

    sentence: str
    code: str = ""


@dataclass(frozen=True)
class Began:
    """From the worker: the session folder is there and frames come."""

    info: SourceInfo


@dataclass(frozen=True, eq=False)
class Looked:
    """From the worker: how the run stands."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Ended:
    """From the worker: the session is closed.

    Attributes
    ----------
    status, reason : str
        As in ``run.json``.
    remarks : tuple of str
        What else is to be said, such as a simulation's own fraction.
    leaving : bool
        The worker's process ends with this run, for something in it hangs.
    """

    status: str
    reason: str
    remarks: tuple[str, ...] = ()
    leaving: bool = False


Message = Begin | Stop | Ready | Refused | Began | Looked | Ended


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
