"""From a finished track to a label: `two_stage` is the entry.

`sampling` chooses the frames and removes the background light, `weight_files` reads ``weights/`` into the
`networks`, `batches` runs a stage over many tracks (`onnx_graph` on a CPU, `gpu` on a graphics card).

`dataset` reads labelled sequences, `training` makes weights from them, `evaluation` scores these, and `grid`
reproduces the paper's tables.
"""

import lazy_loader

# __init__.pyi lists what others may use; each part is imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
