"""How long a flipping cell takes to turn, and what of that a track shows: theory alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_rbcflow.errors import BadInput

ASPECT_RATIO = 0.3
"""Thickness over diameter of a red cell."""
TURN_SHARE = 13.0 / 68.0
"""Of the time after which the picture repeats, the turn itself takes so much (Jeffery's orbit, the face seen
going from a flat disc to an edge and back)."""


def repeat_frames(shear_rate_per_s: float = 10.0, fps: float = 60.0) -> float:
    """Frames after which the picture of a flipping cell repeats: half of Jeffery's period.

    Parameters
    ----------
    shear_rate_per_s : float, optional
    fps : float, optional

    Returns
    -------
    float
        pi (r + 1 / r) / shear rate for the aspect ratio r = 0.3, in frames: 68.5 at 10 1/s and 60 frames/s.

    Raises
    ------
    BadInput
        For rates that are not above 0.

    References
    ----------
    Jeffery, Proc. R. Soc. Lond. A 102 (1922) 161.
    """
    for name, rate in (("shear rate", shear_rate_per_s), ("frame rate", fps)):
        if not (math.isfinite(rate) and rate > 0):
            raise BadInput(f"the {name} must be above 0, not {rate:g}")
    return math.pi * (ASPECT_RATIO + 1.0 / ASPECT_RATIO) * fps / shear_rate_per_s


def turn_seen(repeats: ArrayLike, *, reach: float = 0.0) -> NDArray[np.float64]:
    """Chance that a track shows a turn, for a cell at whatever phase.

    Parameters
    ----------
    repeats : array_like of float
        Length of the track over that after which the picture repeats.
    reach : float, optional
        How far the turn may reach out of the track: 0 where its middle must lie within, 1 where its first or
        its last frame is enough.

    Returns
    -------
    ndarray of float64
        From L / 68 to (L + 13) / 68, at most 1, for L frames at 10 1/s and 60 frames/s.
    """
    return np.clip(np.asarray(repeats, np.float64) + reach * TURN_SHARE, 0.0, 1.0)
