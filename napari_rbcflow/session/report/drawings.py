"""The report's figures, each with what it shows in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from napari_rbcflow.session import figures
from napari_rbcflow.session.report.facts import Facts
from napari_rbcflow.types import Label


def curve(facts: Facts) -> str:
    """Return the fraction as cells were counted."""
    if not len(facts.counted):
        return ""
    fraction = facts.run["fraction"]
    low, high = fraction["low"], fraction["high"]
    said = None if low is None or high is None else (float(low), float(high))
    drawn = figures.curve(facts.counted, float(fraction["level"]), said)
    return (
        f"<figure>{drawn}<figcaption>The fraction as cells were counted. Band: the anytime interval, which"
        " holds at every look while one watches. Bar at the end: the interval beside the number. It should"
        " settle; if it drifts, the sample changed during the run.</figcaption></figure>"
    )


def speeds(facts: Facts) -> str:
    """Return how fast the counted cells were."""
    cells = facts.cells
    groups = [
        ("tank-treading", figures.TANK_TREADING_COLOUR, _speed(cells, Label.TANK_TREADING)),
        ("flipping", figures.FLIPPING_COLOUR, _speed(cells, Label.FLIPPING)),
    ]
    if not sum(len(values) for _, _, values in groups):
        return ""
    keys = " ".join(f'<span class="key" style="background:{c}"></span>{n}' for n, c, _ in groups)
    return (
        f"<figure>{figures.histogram(groups, 'speed, µm/s')}<figcaption>Counted cells by speed: {keys}."
        " Cells in the plane of focus should lie in one hill.</figcaption></figure>"
    )


def _speed(cells: pd.DataFrame, label: Label) -> np.ndarray[Any, np.dtype[np.float64]]:
    return cells["speed_um_per_s"][cells["label"] == label].dropna().to_numpy(np.float64)
