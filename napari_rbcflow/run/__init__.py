"""The one place that wires the stages together: from a source to a session.

`wiring` holds the threads and queues (`channel`), `outcome` how a run ended, `progress` how it
stands, `analysis` the run over a recorded movie.
"""

from napari_rbcflow.run.analysis import analyze
from napari_rbcflow.run.progress import Progress
from napari_rbcflow.run.settings import RunSettings
from napari_rbcflow.run.wiring import Run

__all__ = ["Progress", "Run", "RunSettings", "analyze"]
