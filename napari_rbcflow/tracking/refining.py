"""A finished track's positions, below a pixel: its cell's middles, smoothed by what the flow is.

Along the flow a cell keeps its speed, across it its height. So the positions are those that lie near the
middles measured (`centring`) and bend little (along) or climb little (across): a penalised fit (Whittaker
1923), the same as a Kalman smoother over the whole track. Middles far off, on a neighbour say, lose their
weight (Cauchy's, reweighted). Where no middle was measured the fit follows from the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpbsv

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]

_STIFFNESS_ALONG = 1e3
"""Of the second difference: a middle's standard deviation of 0.2 px against a speed that wanders by
0.006 px a frame each frame. A straight line is no more exact on the simulated chamber; real cells sway."""
_STIFFNESS_ACROSS = 1e2
"""Of the first difference: height wanders by 0.02 px a frame."""
_FAR_PX = 0.5
"""Middles farther than this from the fit weigh less than half."""
_CLOUDED = 0.1
"""Weight of a middle with another cell or the field's edge in its crop."""
_SIGHTED = 0.02
"""Weight of the tracker's own position: enough where there is no middle."""
_ROUNDS = 3


def _penalty(n: int, order: int) -> _Floats:
    """Return the upper band of D'D for differences of `order` (1 or 2) over `n` points."""
    d = np.array([-1.0, 1.0] if order == 1 else [1.0, -2.0, 1.0])
    band = np.zeros((order + 1, n))
    for a in range(order + 1):
        for b in range(a, order + 1):
            band[order - (b - a), b : n - order + b] += d[a] * d[b]
    return band


def _fit(
    at: NDArray[np.int64], values: _Floats, weights: _Floats, stiffness: float, order: int, far: float
) -> _Floats:
    n = int(at[-1]) + 1
    penalty = stiffness * _penalty(n, order)
    target = np.zeros(n)
    fitted = values
    now = weights
    for _ in range(_ROUNDS):
        target[at] = now * values
        band = penalty.copy()
        band[-1, at] += now
        # LAPACK itself: `scipy.linalg.solveh_banded` spends four times as long on its checks.
        _, everywhere, _ = dpbsv(band, target)
        fitted = everywhere[at]
        now = weights / (1 + ((values - fitted) / far) ** 2)
    return fitted


def refined(
    frames: NDArray[np.int64],
    x_px: NDArray[np.float32],
    y_px: NDArray[np.float32],
    middles: NDArray[np.float32],
    clouded: _Bools,
    *,
    unit_px: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Refine a track's positions.

    Parameters
    ----------
    frames : ndarray of int64, shape (n,)
        Ascending.
    x_px, y_px : ndarray of float32, shape (n,)
        As tracked, camera pixels.
    middles : ndarray of float32, shape (n, 2)
        y and x of the middles, camera pixels; not a number where none was measured.
    clouded : ndarray of bool, shape (n,)
        Where a middle is less sure.
    unit_px : float
        Camera pixels a reference pixel.

    Returns
    -------
    x_px, y_px : ndarray of float32, shape (n,)
        Those given where fewer than three frames.
    """
    measured = ~np.isnan(middles[:, 0])
    if len(frames) < 3 or not measured.any():
        return x_px, y_px
    at = frames - frames[0]
    weights = np.where(measured, np.where(clouded, _CLOUDED, 1.0), _SIGHTED)
    far = _FAR_PX * unit_px
    x = np.where(measured, middles[:, 1], x_px).astype(np.float64)
    y = np.where(measured, middles[:, 0], y_px).astype(np.float64)
    return (
        _fit(at, x, weights, _STIFFNESS_ALONG, 2, far).astype(np.float32),
        _fit(at, y, weights, _STIFFNESS_ACROSS, 1, far).astype(np.float32),
    )
