"""What goes through the pipe between a worker and who watches it."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.run.snapshot import Snapshot
from napari_rbcflow.types import SourceInfo
from napari_rbcflow.worker.orders import Order


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
