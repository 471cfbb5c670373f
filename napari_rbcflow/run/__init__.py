"""The one place that wires the stages together: from a source to a session.

`wiring` holds the threads and queues (`channel`), `stages` what each thread does, `outcome` how a run
ended, `progress` how it stands, `watching` looks at it, `analysis` is the run over a recorded movie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_rbcflow.run.analysis import analyze as analyze
    from napari_rbcflow.run.progress import Progress as Progress
    from napari_rbcflow.run.settings import RunSettings as RunSettings
    from napari_rbcflow.run.wiring import Run as Run

__all__ = ["Progress", "Run", "RunSettings", "analyze"]

_PLACES = {"Progress": "progress", "Run": "wiring", "RunSettings": "settings", "analyze": "analysis"}


def __getattr__(name: str) -> Any:
    # Lazy: whoever only watches a run must not load the networks.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"napari_rbcflow.run.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
