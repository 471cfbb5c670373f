"""How each label is drawn, in pictures, strips and plots: colour, symbol and words."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.sentences import say
from napari_rbcflow.session import STRUCK_OUT
from napari_rbcflow.types import Label

NOT_YET = "not yet"


@dataclass(frozen=True)
class LabelStyle:
    """How a label is drawn: a colour, a symbol of napari's Points, one character, and words."""

    colour: str
    symbol: str
    sign: str
    words: str


# Okabe and Ito's palette, bright enough for a grey picture and for a dark panel.
LABEL_STYLES: dict[str, LabelStyle] = {
    NOT_YET: LabelStyle("#e8e8e8", "disc", "○", say("forms.label-not-yet")),
    Label.TANK_TREADING: LabelStyle("#56b4e9", "ring", "◉", say("forms.label-tank-treading")),
    Label.FLIPPING: LabelStyle("#e69f00", "diamond", "◆", say("forms.label-flipping")),
    Label.UNRELIABLE: LabelStyle("#d0d0d0", "cross", "✕", say("forms.label-unreliable")),
    Label.TOO_SHORT: LabelStyle("#d0d0d0", "cross", "✕", say("forms.label-too-short")),
    Label.UNCOUNTED: LabelStyle("#d0d0d0", "cross", "–", say("forms.label-uncounted")),
    STRUCK_OUT: LabelStyle("#cc79a7", "cross", "⌫", say("forms.label-excluded")),
}
WARNING_COLOUR = "#f0e442"
FAULT_COLOUR = "#ff6b5e"
