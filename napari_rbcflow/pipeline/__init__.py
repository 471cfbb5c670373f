"""The one place that wires the stages together: from a source to a session.

`run` holds the threads and queues (`channel`), `stages` what each thread does, `status` how a run stands,
`analysis` is the run over a recorded movie.

napari draws in Python, and Python runs one thread at a time: in one process a picture holds up the frames. So
whoever shows a run is told of it through a pipe (`messages`), gets the pictures out of the ring on disk, and
can neither slow it nor take it down: `client` is the side that watches, `worker` the process that runs. No
network is involved: the pipe is the process's own standard input and output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_rbcflow.pipeline.analysis import analyze as analyze
    from napari_rbcflow.pipeline.client import Phase as Phase
    from napari_rbcflow.pipeline.client import Worker as Worker
    from napari_rbcflow.pipeline.client import WorkerRun as WorkerRun
    from napari_rbcflow.pipeline.client import busy as busy
    from napari_rbcflow.pipeline.messages import Camera as Camera
    from napari_rbcflow.pipeline.messages import MovieFile as MovieFile
    from napari_rbcflow.pipeline.messages import Order as Order
    from napari_rbcflow.pipeline.run import Run as Run
    from napari_rbcflow.pipeline.settings import RunSettings as RunSettings
    from napari_rbcflow.pipeline.status import Progress as Progress

_PLACES = {
    "Camera": "messages",
    "MovieFile": "messages",
    "Order": "messages",
    "Phase": "client",
    "Progress": "status",
    "Run": "run",
    "RunSettings": "settings",
    "Worker": "client",
    "WorkerRun": "client",
    "analyze": "analysis",
    "busy": "client",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    # Lazy: whoever only watches a run must not load the networks.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"napari_rbcflow.pipeline.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
