"""A patient over time: sessions over the dates, the patient's own baseline, and what lies below it."""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
