"""From a finished track to a label: `two_stage` is the door.

On the way there, in this order: `sampling` chooses the frames and takes the light out of them,
`weight_files` reads what lies in ``weights/`` and `networks` makes of it, `batches` runs a stage over many
tracks (`onnx_graph` on a CPU, `gpu` on a graphics card).

Before and beside it: `dataset` reads labelled sequences, `training` makes weights of them, `evaluation`
says how good these are, `grid` makes the paper's tables anew.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
