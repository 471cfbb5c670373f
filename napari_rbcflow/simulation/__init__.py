"""A flow chamber that is simulated from the physics up: the only source of whole fields with truth.

How a cell becomes grey: `cells` (where its axis points, how thick it is along the line of sight) -> `optics`
(what the camera sees of that) -> `library` (a few hundred cells rendered beforehand) -> `population` (who
flows by when) -> `canvas` (the frame) -> `chamber` (a source, a movie). `sequences` are single labelled cells
to train on.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
