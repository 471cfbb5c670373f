"""Letters for pictures, from what every computer has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_REGULAR = (
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSans-Regular.ttf",
    "segoeui.ttf",
    "Arial.ttf",
)
_BOLD = (
    "DejaVuSans-Bold.ttf",
    "LiberationSans-Bold.ttf",
    "NotoSans-Bold.ttf",
    "segoeuib.ttf",
    "Arial Bold.ttf",
)
_WIDE = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "meiryo.ttc", "PingFang.ttc", "Arial Unicode.ttf")
"""For names in scripts that the others lack."""


@cache
def font_for(text: str, size: int, *, bold: bool = False) -> Font:
    """Return a font that has every letter of `text`; else one that has most of the Latin ones."""
    first: Font | None = None
    for font in _fonts(size, bold):
        first = first or font
        if _has(font, text):
            return font
    assert first is not None
    return first


def _fonts(size: int, bold: bool) -> Iterator[Font]:
    for name in (*(_BOLD if bold else ()), *_REGULAR, *_WIDE):
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            continue
    yield ImageFont.load_default(size)  # Pillow carries it: plain English letters


def _has(font: Font, text: str) -> bool:
    if not isinstance(font, ImageFont.FreeTypeFont):
        return text.isascii()
    nothing = bytes(font.getmask("\uffff"))
    return all(c.isspace() or bytes(font.getmask(c)) != nothing for c in set(text))
