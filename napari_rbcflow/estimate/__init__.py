"""From labels to the number: `tally` counts the cells, `fraction` says how many of them tank-tread.

`intervals` are the intervals, `reported` chooses the one that is true of how a run ended. `focus_speed`
sets cells aside that move as cells out of focus do. `error_correction` takes out what the networks are
known to get wrong (`network_rates`), `unseen_flips` what was watched too briefly to be seen.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
