"""Every colour that we draw with, and how each label is drawn.

No other module names a colour, so that a test computes the contrast of each with all that it may lie on: 4.5
for words and 3 for marks, frames and curves (WCAG 2.2, AA), in napari's dark theme and in its light one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_rbcflow.sentences import say
from napari_rbcflow.session import STRUCK_OUT
from napari_rbcflow.types import Label

if TYPE_CHECKING:
    from qtpy.QtGui import QColor, QPalette

NOT_YET = "not yet"
# What the middle of a picture is shown as: dark enough for marks that still differ in hue.
PICTURE_GREY = "#666666"
MIDDLE_OF_RANGE = int(PICTURE_GREY[1:3], 16) / 255
BLACK, WHITE = "#000000", "#ffffff"


@dataclass(frozen=True)
class Ink:
    """Words, marks and curves on a ground that is not ours: bright on a picture and in the dark theme."""

    bright: str
    deep: str

    def on(self, palette: QPalette) -> QColor:
        """Return the one for a widget's ground."""
        from qtpy.QtGui import QColor, QPalette  # not needed to read a session without a window

        light = palette.color(QPalette.ColorRole.Window).lightnessF() > 0.5
        return QColor(self.deep if light else self.bright)


@dataclass(frozen=True)
class Chip:
    """Words on a ground of their own, the same in every theme."""

    ground: str
    text: str = BLACK

    @property
    def css(self) -> str:
        """The colours for a style sheet."""
        return f"background: {self.ground}; color: {self.text};"

    def html(self, words: str) -> str:
        """Return words as a chip in rich text."""
        return f"<span style='background-color: {self.ground}; color: {self.text}'>&nbsp;{words}&nbsp;</span>"


@dataclass(frozen=True)
class LabelStyle:
    """How a label is drawn: a colour, a symbol of napari's Points, one character, and words."""

    ink: Ink
    symbol: str
    sign: str
    words: str

    @property
    def colour(self) -> str:
        """The colour on a picture."""
        return self.ink.bright

    @property
    def chip(self) -> Chip:
        """Where the label is named in words."""
        return Chip(self.ink.bright)


_GREY = Ink("#d0d0d0", "#4a4a4a")
# Blue and orange as in Okabe and Ito's palette: told apart by the colour-blind.
LABEL_STYLES: dict[str, LabelStyle] = {
    NOT_YET: LabelStyle(Ink("#e8e8e8", "#333333"), "disc", "○", say("forms.label-not-yet")),
    Label.TANK_TREADING: LabelStyle(Ink("#7cc8f5", "#00548a"), "ring", "◉", say("forms.label-tank-treading")),
    Label.FLIPPING: LabelStyle(Ink("#f5b041", "#7d4100"), "diamond", "◆", say("forms.label-flipping")),
    Label.UNRELIABLE: LabelStyle(_GREY, "cross", "✕", say("forms.label-unreliable")),
    Label.TOO_SHORT: LabelStyle(_GREY, "cross", "✕", say("forms.label-too-short")),
    Label.UNCOUNTED: LabelStyle(_GREY, "cross", "–", say("forms.label-uncounted")),
    STRUCK_OUT: LabelStyle(Ink("#f0aecb", "#7f2a62"), "cross", "⌫", say("forms.label-excluded")),
}
INKS: dict[str, Ink] = {
    "quiet": Ink("#b9bec4", "#4a4e54"),  # what nobody may copy as the result
    "pointed-out": Ink(WHITE, BLACK),
    **{name: style.ink for name, style in LABEL_STYLES.items()},
}
CHIPS: dict[str, Chip] = {
    "grave": Chip("#ff6b5e"),
    "note": Chip("#f0e442"),
    "simulated": Chip("#b34c00", WHITE),
    "start": Chip("#1b6fa8", WHITE),
    "stop": Chip("#b3462f", WHITE),
    "selected": Chip("#3b63c9", WHITE),
    "on-picture": Chip(BLACK, "#f0e442"),
    "no-crop": Chip("#808080"),
    **{name: style.chip for name, style in LABEL_STYLES.items()},
}
# Frames, stripes, bands, and buttons that are off: in the middle between the two themes, and seen in both.
EDGES: dict[str, str] = {
    "good": "#178f60",
    "caution": "#a87900",
    "bad": "#d9402f",
    "none": "#7a7f85",
    "band": "#57839f",
}
