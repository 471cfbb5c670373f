"""A finished track's positions, below a pixel: a smooth way, and where on the cell it lies.

`refined` finds the way. Along the flow a cell keeps its speed, across it its height. So the positions are
those that lie near the middles measured (`centring`) and bend little (along) or climb little (across): a
penalised fit (Whittaker 1923), the same as a Kalman smoother over the whole track. Middles far off, on a
neighbour say, lose their weight (Cauchy's, reweighted). Where no middle was measured the fit follows from
the others.

`centre_offset` finds the cell's centre beside that way. Light that comes in aslant makes one side of a cell
bright and the other dark; a middle found from the light itself then lies up to 6 px off, by the same amount
all along the track. How much the grey varies within 5 x 5 pixels does not care which side is bright, and
a threshold on it leaves the cell's outline. Darrin et al. (2023) detect cells by such a threshold, so the
middle of the outline is where their crops, and the experts who labelled them, have a cell's centre. It is
found by mean shift (Comaniciu and Meer 2002), so that a neighbour beyond the disc does not pull. A picture
that falls on itself when turned about the way is in the middle already, and stays there.
"""

from __future__ import annotations

import numpy as np
from numba import njit
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


MOST_OFFSET_PX = 7.0
"""Crop pixels from the way within which the centre is looked for: about a cell's radius."""
_PICTURES = 16
"""Of a track that are looked at: more tell no more."""
_ALONE = 5
"""Pictures without a neighbour that are enough."""
_FROM = 0.015
"""Standard deviation of the grey beyond the noise's, as a share of the light, from which it is a cell's."""
_FROM_OF_GREATEST = 0.3
"""The same of a pale cell, as a share of its own greatest."""
_HALF_WINDOW = 2
_CELL_PX = 12.0
"""Radius of the disc laid on the outline: a cell out of focus is as wide."""
_MOST_SHIFTS, _STAYS_PX = 15, 0.02
_SYMMETRIC = (0.8, 0.95)
"""Correlation of a track's mean picture with itself, half turned about the way, up to which only the outline
counts, and from which only the way does: where the light is straight the way is more exact."""
_SYMMETRY_PX = 10.0
_HALF = 21
_MAP_SIDE = 2 * _HALF + 1


def centre_offset(
    pictures: NDArray[np.uint8],
    centres: NDArray[np.int64],
    seen: _Bools,
    intruded: _Bools,
    edge: _Bools,
) -> tuple[float, float]:
    """Find how far a cell's centre lies from the way of its track, the same in all frames.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (n, side, side)
        Around the cell, wider than a crop.
    centres : ndarray of int64, shape (n, 2)
        y and x of the way's position in each picture, pixels of the picture.
    seen, intruded, edge : ndarray of bool, shape (n,)
        As in `Track`.

    Returns
    -------
    dy, dx : float
        Pixels of the pictures, each within `MOST_OFFSET_PX`.
    """
    for chosen in (seen & ~edge & ~intruded, seen & ~edge, seen):
        if np.count_nonzero(chosen) >= _ALONE:
            break
    else:
        chosen = np.ones(len(seen), np.bool_)
    at = np.flatnonzero(chosen)
    if len(at) > _PICTURES:
        at = at[np.linspace(0, len(at) - 1, _PICTURES).round().astype(np.int64)]
    outline = np.zeros((_MAP_SIDE, _MAP_SIDE), np.float32)
    mean = np.zeros((_MAP_SIDE, _MAP_SIDE), np.float32)
    _add_outlines(pictures, centres, at, outline, mean)
    low, high = _SYMMETRIC
    share = min(max((high - _symmetry(mean)) / (high - low), 0.0), 1.0)
    if share == 0:
        return 0.0, 0.0
    dy, dx = _middle_of(outline)
    return float(share * dy), float(share * dx)


@njit(cache=True, fastmath=True, nogil=True)
def _add_outlines(
    pictures: NDArray[np.uint8],
    centres: NDArray[np.int64],
    at: NDArray[np.int64],
    out: NDArray[np.float32],
    mean: NDArray[np.float32],
) -> None:
    """Add each picture's variation within 5 x 5 pixels, thresholded and nearly flat above, to `out`.

    The pictures themselves are added to `mean`.
    """
    side, width = len(out), 2 * _HALF_WINDOW + 1
    last = pictures.shape[1] - 1
    whole = side + 2 * _HALF_WINDOW
    n = np.float32(width * width)
    grey = np.empty((whole, whole), np.float32)
    sums = np.empty((whole, side), np.float32)
    squares = np.empty((whole, side), np.float32)
    variance = np.empty((side, side), np.float32)
    for k in at:
        picture = pictures[k]
        top, left = centres[k, 0] - _HALF - _HALF_WINDOW, centres[k, 1] - _HALF - _HALF_WINDOW
        light = np.float32(0)
        for i in range(whole):
            row = picture[min(max(top + i, 0), last)]
            for j in range(whole):
                grey[i, j] = np.float32(row[min(max(left + j, 0), last)])
                light += grey[i, j]
        light = max(light / np.float32(whole * whole), np.float32(1))
        for i in range(whole):
            for j in range(side):
                s = q = np.float32(0)
                for d in range(width):
                    g = grey[i, j + d] - light
                    s += g
                    q += g * g
                sums[i, j], squares[i, j] = s, q
        for i in range(side):
            for j in range(side):
                s = q = np.float32(0)
                for d in range(width):
                    s += sums[i + d, j]
                    q += squares[i + d, j]
                variance[i, j] = max(q / n - (s / n) ** 2, np.float32(0))
        for i in range(side):
            for j in range(side):
                mean[i, j] += grey[i + _HALF_WINDOW, j + _HALF_WINDOW] - light
        # Most of the picture is background: the median is the noise's variance.
        noise = np.float32(np.median(variance))
        greatest = np.sqrt(max(variance.max() - noise, np.float32(0))) / light
        least = min(np.float32(_FROM), np.float32(_FROM_OF_GREATEST) * greatest)
        for i in range(side):
            for j in range(side):
                beyond = np.sqrt(max(variance[i, j] - noise, np.float32(0))) / light - least
                if beyond > 0:
                    out[i, j] += np.sqrt(np.sqrt(beyond))


@njit(cache=True, nogil=True)
def _symmetry(picture: NDArray[np.float32]) -> float:
    """Correlation of the picture's middle, a disc, with itself when half turned."""
    reach = int(_SYMMETRY_PX)
    total, n = 0.0, 0
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            if i * i + j * j <= reach * reach:
                total += picture[_HALF + i, _HALF + j]
                n += 1
    mean, square, product = total / n, 0.0, 0.0
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            if i * i + j * j <= reach * reach:
                value = picture[_HALF + i, _HALF + j] - mean
                square += value * value
                product += value * (picture[_HALF - i, _HALF - j] - mean)
    return product / square if square > 0 else 0.0


@njit(cache=True, nogil=True)
def _middle_of(outline: NDArray[np.float32]) -> tuple[float, float]:
    """Shift a disc from the way onto what lies in it, until it stays; where that is, from the way."""
    y = x = 0.0
    for _ in range(_MOST_SHIFTS):
        total = sum_y = sum_x = 0.0
        for i in range(len(outline)):
            dy = i - _HALF - y
            for j in range(len(outline)):
                dx = j - _HALF - x
                if dy * dy + dx * dx < _CELL_PX * _CELL_PX:
                    weight = outline[i, j]
                    total += weight
                    sum_y += weight * dy
                    sum_x += weight * dx
        if total <= 0:
            return 0.0, 0.0
        dy, dx = sum_y / total, sum_x / total
        y = min(max(y + dy, -MOST_OFFSET_PX), MOST_OFFSET_PX)
        x = min(max(x + dx, -MOST_OFFSET_PX), MOST_OFFSET_PX)
        if abs(dy) + abs(dx) < _STAYS_PX:
            break
    return y, x
