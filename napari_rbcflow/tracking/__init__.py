"""From frames to finished tracks: start at `tracker`.

A frame goes through `focus` (is there light, is it sharp), `background`, `detection`, then `linker` (with
`motion`, and `initiation` for new tracks). At its end a track gets its `positions` and is cut into `crops`;
`fragments` says which tracks may be fragments of one cell.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
