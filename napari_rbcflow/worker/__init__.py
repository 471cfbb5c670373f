"""A run in a process of its own, beside the one that shows it.

napari draws in Python, and Python runs one thread at a time: in one process a picture holds up the
frames. So whoever shows a run is told of it through a pipe (`pipe`, `messages`), gets the pictures out
of the ring on disk, and can neither slow it nor take it down: `orders` says what to run, `client` and
`worker_run` are the side that watches, `serving` the process that runs. No network is involved: the pipe
is the process's own standard input and output.
"""

from napari_rbcflow.worker.client import Worker, busy
from napari_rbcflow.worker.orders import Camera, MovieFile, Order
from napari_rbcflow.worker.worker_run import Phase, WorkerRun

__all__ = ["Camera", "MovieFile", "Order", "Phase", "Worker", "WorkerRun", "busy"]
