"""The one place that wires the stages together: from a source to a session.

`run` holds the threads and queues (`channel`), `stages` what each thread does, `status` how a run stands,
`analysis` is the run over a recorded movie, `batch` that over many, on a cluster.

napari draws in Python, and Python runs one thread at a time: in one process a picture holds up the frames.
So whoever shows a run is told of it through a pipe (`messages`), gets the pictures out of the ring on disk,
and can neither slow it nor take it down: `client` is the side that watches, `worker` the process that runs.
No network is involved: the pipe is the process's own standard input and output.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
