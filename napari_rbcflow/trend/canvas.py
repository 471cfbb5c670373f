"""Shapes and letters on a picture, smooth at the edges; all lengths in pixels of the finished picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from napari_rbcflow.trend.fonts import font_for

_FINE = 2
"""Drawn so many times larger and then reduced, which smooths lines: Pillow itself does not."""


class Canvas:
    """A white picture.

    Parameters
    ----------
    width, height : int
        In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._picture = Image.new("RGB", (width * _FINE, height * _FINE), "white")
        self._draw = ImageDraw.Draw(self._picture, "RGBA")

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 2.0) -> None:
        """Draw through all points."""
        self._draw.line(_fine(points), fill=colour, width=max(1, round(width * _FINE)), joint="curve")

    def dashes(self, x0: float, x1: float, y: float, colour: str, width: float = 2.0) -> None:
        """Draw a level line of dashes."""
        x = x0
        while x < x1:
            self.line([(x, y), (min(x + 14, x1), y)], colour, width)
            x += 24

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        """Fill a rectangle."""
        self._draw.rectangle([v * _FINE for v in (x0, y0, x1, y1)], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: str, *, filled: bool = True) -> None:
        """Draw a disc, or a ring that is white inside."""
        at = [v * _FINE for v in (x - radius, y - radius, x + radius, y + radius)]
        width = round(radius * 0.4 * _FINE)
        self._draw.ellipse(at, fill=colour if filled else "white", outline=colour, width=width)

    def shape(self, points: Sequence[tuple[float, float]], colour: str, *, filled: bool = True) -> None:
        """Draw a closed outline, filled or white inside."""
        self._draw.polygon(_fine(points), fill=colour if filled else "white")
        self.line([*points, points[0]], colour, 3)

    def text(
        self, x: float, y: float, text: str, size: int, colour: str = "#1a1a1a", *, anchor: str = "la",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """Write one line or several; `anchor` as Pillow's, ``ma``: centred, from the top."""
        for k, row in enumerate(text.split("\n")):
            font = font_for(row, size * _FINE, bold=bold)
            self._draw.text(
                (x * _FINE, (y + 1.25 * size * k) * _FINE), row, fill=colour, font=font, anchor=anchor
            )

    def width_of(self, text: str, size: int, *, bold: bool = False) -> float:
        """Return how wide a line would be."""
        return float(self._draw.textlength(text, font=font_for(text, size * _FINE, bold=bold))) / _FINE

    def wrapped(self, text: str, size: int, room: float, *, bold: bool = False) -> str:
        """Return a text broken between its words so that it fits into `room`."""
        rows = [""]
        for word in text.replace(" %", "\u00a0%").split(" "):
            longer = f"{rows[-1]} {word}".strip()
            if rows[-1] and self.width_of(longer, size, bold=bold) > room:
                rows.append(word)
            else:
                rows[-1] = longer
        return "\n".join(rows)

    def png(self, dpi: int) -> bytes:
        """Return the picture as PNG."""
        file = io.BytesIO()
        self._picture.reduce(_FINE).save(file, format="PNG", dpi=(dpi, dpi), optimize=True)
        return file.getvalue()


def _fine(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * _FINE, y * _FINE) for x, y in points]
