"""How good a run is: measures of light, focus, flow and cells, and warnings in plain words.

`meter` measures, `rules` say what that means, `drift` whether the fraction changed, `monitor` follows a run
and holds its one list of warnings, `summary` gives the measures in words.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
