"""Python's search for garbage, kept off what was there before a run."""

from __future__ import annotations

import gc

_holders: set[int] = set()


def hold(holder: object) -> None:
    """Leave all objects that exist now out of the search, until `holder` lets go.

    napari has so many of them that one full search takes 0.2 s (measured), every few seconds while
    pictures come and go: nobody could press Stop meanwhile.
    """
    _holders.add(id(holder))
    gc.freeze()


def let_go(holder: object) -> None:
    """Search through everything again, once the last holder has let go; may be called more than once."""
    if id(holder) in _holders:
        _holders.discard(id(holder))
        if not _holders:
            gc.unfreeze()
