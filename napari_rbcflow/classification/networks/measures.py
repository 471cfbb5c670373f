"""What `handcrafted` measures with, in numpy: the graph for ONNX Runtime needs it without PyTorch."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import CROP_SIDE

# A red cell's dark rim is at 6 px; beyond 12.5 px there are only neighbours.
_RINGS_PX = (0.0, 1.6, 3.2, 4.8, 6.4, 8.0, 10.0, 12.5, 23.0)
_DISC_PX, _CELL_PX, _CORE_PX = 10.5, 8.5, 4.0
# Quantiles over time of a feature, of its steps, and of the frames' distance from the mean image.
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
STEP_SHARES, AWAY_SHARES = (0.5, 0.9), (0.1, 0.5, 0.9)
TINY = 1e-8
FARTHEST = 5.0  # standard deviations at which a feature is clipped: a neighbour raises some to twenty
USUAL_STRIDES = (2, 2, 2)


@cache
def maps() -> dict[str, NDArray[Any]]:
    """Return maps of a crop's pixels, a row each: light of rings and waves, moments; the disc, the cell."""
    y, x = np.mgrid[:CROP_SIDE, :CROP_SIDE] - (CROP_SIDE - 1) / 2
    far, angle = np.hypot(y, x), np.arctan2(y, x)
    rings = [(far >= a) & (far < b) for a, b in pairwise(_RINGS_PX)]
    harmonics = [
        where * wave(order * angle) / where.sum()
        for where in (far < _CORE_PX, (far >= _CORE_PX) & (far < 8.0))
        for order in (1, 2)
        for wave in (np.cos, np.sin)
    ]
    disc = (far < _DISC_PX).astype(np.float64)
    means = [ring / ring.sum() for ring in rings]
    return {
        "light": _rows([*means, *harmonics]),
        "rings": _rows(means),
        "moments": _rows([disc * of for of in (1.0, y, x, y * y, x * x, y * x)]),
        "disc": disc.astype(np.float32),
        "cell": np.flatnonzero(far.ravel() < _CELL_PX),
    }


def _rows(pictures: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    return np.stack([m.ravel() for m in pictures]).astype(np.float32)
