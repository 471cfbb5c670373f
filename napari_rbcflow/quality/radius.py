"""How wide a cell is, from its crops: to tell a wrong pixel size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, Track

_AVERAGED = 5
_HALF = CROP_SIDE // 2
_Y, _X = np.mgrid[-_HALF : _HALF + 1, -_HALF : _HALF + 1]
_R2 = (_X * _X + _Y * _Y).astype(np.float32)
_INSIDE = _R2 <= (_HALF - 0.5) ** 2
_CHI2_MEDIAN = 2 * np.log(2) / 2
"""Median over mean of the square of a gradient's two components where there is only noise."""


def rim_radius_um(track: Track) -> float | None:
    """Return the radius at which a cell's edges lie, as its crops are scaled.

    The root mean square distance from the crop's middle, weighted by the squared gradient of the mean of
    up to five frames in which no other cell stands and the field's edge is far. A cell in focus has its
    dark rim there.

    Returns
    -------
    float or None
        In um; None where no frame serves, or nothing stands above the noise.
    """
    alone = np.flatnonzero(~track.intruded & ~track.edge)
    if not len(alone):
        return None
    chosen = alone[np.linspace(0, len(alone) - 1, min(len(alone), _AVERAGED)).astype(np.int64)]
    mean = track.crops[chosen].mean(axis=0, dtype=np.float32)
    squared = _squared_gradient(mean)
    noise = float(np.median(squared[~_INSIDE])) / _CHI2_MEDIAN
    weight = np.where(_INSIDE, squared - noise, 0.0)
    total = float(weight.sum())
    moment = float((weight * _R2).sum())
    # Where noise is all there is, the weights cancel and their mean says nothing.
    if total < 2 * noise * np.sqrt(_INSIDE.sum()) or moment <= 0:
        return None
    return CROP_PIXEL_SIZE_UM * float(np.sqrt(moment / total))


def _squared_gradient(image: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.zeros_like(image)
    out[1:-1] += (image[2:] - image[:-2]) ** 2
    out[:, 1:-1] += (image[:, 2:] - image[:, :-2]) ** 2
    return out
