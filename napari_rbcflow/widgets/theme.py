"""How each label looks, everywhere: told apart by the colour-blind, and without colour by its symbol."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.types import Label

NOT_YET = "not yet"
STRUCK_OUT = "struck-out"


@dataclass(frozen=True)
class Look:
    """One label's colour and mark.

    Attributes
    ----------
    colour : str
        Of Okabe and Ito's palette, bright enough for a grey picture and for a dark panel.
    symbol : str
        Of napari's Points.
    sign : str
        One character, for where there is only text.
    words : str
        For a person.
    """

    colour: str
    symbol: str
    sign: str
    words: str


LOOKS: dict[str, Look] = {
    NOT_YET: Look("#e8e8e8", "disc", "○", "not judged yet"),
    Label.TANK_TREADING: Look("#56b4e9", "ring", "◉", "tank-treading"),
    Label.FLIPPING: Look("#e69f00", "diamond", "◆", "flipping"),
    Label.UNRELIABLE: Look("#d0d0d0", "cross", "✕", "unreliable"),
    Label.TOO_SHORT: Look("#d0d0d0", "cross", "✕", "too short"),
    Label.UNCOUNTED: Look("#d0d0d0", "cross", "–", "not counted"),
    STRUCK_OUT: Look("#cc79a7", "cross", "⌫", "struck out by hand"),
}
WARNING_COLOUR = "#f0e442"
FAULT_COLOUR = "#ff6b5e"
