"""Where frames come from: one contract, and behind it the chamber, movies and Micro-Manager.

`base` is the contract, `factory` opens what a person names, `grey` makes every picture 8-bit grey. Then a
file a kind of source: `tiff` (with `tiff_metadata`), `ndtiff`, `pictures`, `video`, `zarr_movie` behind
`movie`; `camera` over `mm_core`, `camera_settings` and `frame_loss`; `remote` for a Micro-Manager that is
already open; `rotation` turns what any of them gives; `lazy` reads a frame when it is looked at.
"""

import lazy_loader

# What others may use of this package stands in __init__.pyi; each part is imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
