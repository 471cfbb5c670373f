"""The session folder: written, read, verified, reported.

`writer` writes it while a run goes on (`tables`, `crops`, `schema` are its files, `growing` how they grow),
`reader` reads it, `verification` proves it, `report` prints it. `label_edits` are a person's changes,
`review` a person's check of a random sample; `append_only` is how both are kept. `verdict` says what may be
done with the number, `counting` what follows from the counted cells, `browse` goes from cell to cell,
`recovery` closes what a crash left open.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
