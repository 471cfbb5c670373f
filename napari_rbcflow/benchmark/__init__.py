"""How fast this machine does the work, part by part and as a whole, and what memory it takes.

`suite.benchmark` measures and returns everything; `report.as_text` writes it for a person. A frame's time is
1 / 60 s, whatever is measured. Every figure is taken in a process of its own (`child`), so that neither a
progress bar nor an earlier part's memory counts.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
