"""How a run of a trend looks: told apart by the colour-blind, and without colour by its symbol."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.trend import Below, TrendRun, Use
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.theme import LOOKS

BLUE = LOOKS[Label.TANK_TREADING].colour
ORANGE = LOOKS[Label.FLIPPING].colour
GREY = LOOKS[Label.UNRELIABLE].colour


@dataclass(frozen=True)
class Mark:
    """One run's mark.

    Attributes
    ----------
    symbol : str
        Of pyqtgraph.
    colour : str
    filled : bool
    size : int
        In pixels.
    sign : str
        One character, for the table.
    """

    symbol: str
    colour: str
    filled: bool
    size: int
    sign: str


_MARKS = {
    Below.NO: Mark("o", BLUE, True, 11, "●"),
    Below.PERHAPS: Mark("o", ORANGE, False, 12, "○"),
    Below.YES: Mark("t", ORANGE, True, 16, "▼"),
    Below.UNKNOWN: Mark("o", BLUE, False, 11, "○"),
}
NOT_USED = Mark("x", GREY, True, 11, "✕")


def mark_of(run: TrendRun) -> Mark:
    """Return the mark of a run."""
    return NOT_USED if run.use is Use.DOUBT else _MARKS[run.below]
