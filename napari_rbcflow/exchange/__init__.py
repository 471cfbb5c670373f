"""Sessions for other programs: tables, FHIR, OME-Zarr, tracks as a graph, RO-Crate.

`leaving` says which number of a session may leave it, and all others ask it. `table` writes one row a run,
`fhir` an Observation of a patient, `frames` the ring in the order of time, `tracks` a GEFF, `crate` what
describes a study's folder.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
