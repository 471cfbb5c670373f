"""What a worker and who watches it say to each other, over the pipe of `ipc`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.status import Outcome, Snapshot
from napari_rbcflow.sources import FrameSource
from napari_rbcflow.types import SourceInfo


@dataclass(frozen=True)
class Camera:
    """A live source: `spec` as after ``--camera``, and keyword arguments of `sources.open_source`."""

    spec: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> FrameSource:
        """Return the source, not yet open; raises `BadInput`."""
        from napari_rbcflow.sources import open_source

        return open_source(self.spec, **self.options)

    @property
    def device(self) -> str:
        """What no other run can use meanwhile: Micro-Manager at its port, a configuration; else empty."""
        if self.spec == "running":
            from napari_rbcflow.sources import USUAL_PORT

            return f"{self.spec} {self.options.get('port') or USUAL_PORT}"
        return str(Path(self.spec).resolve()) if Path(self.spec).suffix.lower() == ".cfg" else ""


@dataclass(frozen=True)
class MovieFile:
    """A recorded movie, with what `open_movie` takes of it."""

    path: Path
    fps: float | None = None
    pixel_size_um: float | None = None
    series: int | None = None

    def make(self) -> FrameSource:
        """Return the source, not yet open; raises `BadInput`."""
        from napari_rbcflow.sources import open_movie

        return open_movie(self.path, fps=self.fps, pixel_size_um=self.pixel_size_um, series=self.series)


@dataclass(frozen=True)
class RunRequest:
    """One run: from which source, into which session folder (which must not exist), and how."""

    source: Camera | MovieFile
    folder: Path
    settings: RunSettings


@dataclass(frozen=True)
class Begin:
    """To the worker: run this."""

    request: RunRequest


@dataclass(frozen=True)
class Stop:
    """To the worker: end the run. The end of the pipe says: end the run, and yourself."""


@dataclass(frozen=True)
class Ready:
    """From the worker: everything is loaded, a run would begin at once."""


@dataclass(frozen=True)
class Step:
    """From the worker: what it does now, before the first frame comes."""

    sentence: str


@dataclass(frozen=True)
class Refused:
    """From the worker: the run cannot begin, and nothing was made; `key` as in `RbcflowError`."""

    sentence: str
    key: str = ""


@dataclass(frozen=True)
class Began:
    """From the worker: the session folder is there and frames come."""

    info: SourceInfo


@dataclass(frozen=True, eq=False)
class Polled:
    """From the worker: how the run stands."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Ended:
    """From the worker: the session is closed.

    `remarks` is what else is to be said, such as a simulation's own fraction. `leaving`: the worker's process
    ends with this run, because something in it hangs.
    """

    outcome: Outcome
    remarks: tuple[str, ...] = ()
    leaving: bool = False


Message = Begin | Stop | Ready | Step | Refused | Began | Polled | Ended
