"""What cameras call their pixels (``8bit-MONO``, ``8bit``, ``32bitRGB``, ``Mono16``), and what is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable

USUAL = ("8bit-MONO", "16bit-MONO", "8bit-COLOR")
"""As the Infinity calls them; `matching` finds what another camera calls the same."""

_COLOUR = re.compile(r"rgb|bgr|colou?r", re.IGNORECASE)
_BITS_OF_ALL_CHANNELS = {24: 8, 32: 8, 48: 16, 64: 16}
"""A colour pixel is often named by the bits of its three or four channels together."""


def matching(wanted: str, allowed: Iterable[str]) -> str | None:
    """Return the camera's own name of a pixel type; None where it has none that is meant.

    Parameters
    ----------
    wanted : str
        As written by a person: case, spaces and dashes do not matter, and where the camera has no
        such name, the one with as many bits a channel, in grey or in colour, is meant.
    allowed : iterable of str
        The camera's names.
    """
    names = list(allowed)
    same = [name for name in names if _letters(name) == _letters(wanted)]
    meant = _kind(wanted)
    alike = [name for name in names if meant is not None and _kind(name) == meant]
    return next(iter([*same, *alike]), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _kind(name: str) -> tuple[int, bool] | None:
    """Return bits a channel, and whether there is colour; None for a name that says no bits."""
    number = re.search(r"\d+", name)
    if number is None:
        return None
    bits, colour = int(number[0]), _COLOUR.search(name) is not None
    return (_BITS_OF_ALL_CHANNELS.get(bits, bits) if colour else bits), colour
