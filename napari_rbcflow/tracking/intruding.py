"""Which tracks' crops hold another cell."""

from __future__ import annotations

import numpy as np
from numba import njit

from napari_rbcflow.tracking.motion import Bools, Floats
from napari_rbcflow.types import CROP_SIDE

_INTRUSION_PX = CROP_SIDE / 2 + 3
"""Nearer than this along both axes, another cell's body reaches into the crop."""


def intruded(y: Floats, x: Floats, found_y: Floats, found_x: Floats) -> Bools:
    """Where a track's crop holds another track, or a detection that is not its own.

    Parameters
    ----------
    y, x : ndarray of float64, shape (n,)
        Tracks in one frame, reference pixels.
    found_y, found_x : ndarray of float64, shape (m,)
        Detections in that frame.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    out = np.empty(len(y), np.bool_)
    _count(y, x, found_y, found_x, out)
    return out


@njit(cache=True, nogil=True)
def _count(y: Floats, x: Floats, found_y: Floats, found_x: Floats, out: Bools) -> None:
    for i in range(len(y)):
        tracks = 0
        for k in range(len(y)):
            tracks += (abs(y[i] - y[k]) < _INTRUSION_PX) & (abs(x[i] - x[k]) < _INTRUSION_PX)
        found = 0
        for k in range(len(found_y)):
            found += (abs(y[i] - found_y[k]) < _INTRUSION_PX) & (abs(x[i] - found_x[k]) < _INTRUSION_PX)
        out[i] = tracks > 1 or found > 1
