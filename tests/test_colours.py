"""Every colour is seen in napari's dark theme and in its light one: WCAG 2.2, level AA."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from napari.utils.theme import get_theme

import napari_rbcflow.widgets
from napari_rbcflow.widgets.label_styles import BLACK, CHIPS, EDGES, INKS, PICTURE_GREY

WORDS, MARKS = 4.5, 3.0
# What a dock's words and plots lie on: the ground itself, tables, and buttons and lists.
PLACES = ("background", "foreground", "primary")


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, brighter = sorted((luminance(one), luminance(other)))
    return (brighter + 0.05) / (darker + 0.05)


def of_theme(theme: str, name: str) -> str:
    return "#" + "".join(f"{part:02x}" for part in getattr(get_theme(theme), name).as_rgb_tuple()[:3])


def pairs() -> dict[str, tuple[str, str, float]]:
    """All colours that we use, each on all that it may lie on, with the least contrast that it needs."""
    found = {}
    for name, ink in INKS.items():
        found[f"{name} on a picture"] = ink.bright, PICTURE_GREY, MARKS
        for place in PLACES:
            found[f"{name}, dark {place}"] = ink.bright, of_theme("dark", place), WORDS
            found[f"{name}, light {place}"] = ink.deep, of_theme("light", place), WORDS
    for name, chip in CHIPS.items():
        found[f"{name} on its own ground"] = chip.text, chip.ground, WORDS
    for theme in ("dark", "light"):
        for name, edge in EDGES.items():
            found[f"{name}, {theme}"] = edge, of_theme(theme, "background"), MARKS
        found[f"curve on its band, {theme}"] = of_theme(theme, "text"), EDGES["band"], MARKS
    # What is drawn on a crop, whose middle is grey 128, has an edge of black.
    found["edge on a crop"] = BLACK, "#808080", MARKS
    return found


@pytest.mark.parametrize("what", pairs())
def test_a_colour_is_seen(what: str) -> None:
    colour, ground, least = pairs()[what]
    assert contrast(colour, ground) >= least


def test_no_other_module_names_a_colour() -> None:
    named = re.compile(
        r"#[0-9a-fA-F]{6}\b|(?:color|background): *[a-z]+;|QColor\(\s*[\"']|Qt\.GlobalColor\.(?!trans)"
    )
    allowed = "background: transparent;"
    for path in Path(napari_rbcflow.widgets.__file__).parent.glob("*.py"):
        if path.name != "label_styles.py":
            assert not [found for found in named.findall(path.read_text()) if found != allowed], path.name
