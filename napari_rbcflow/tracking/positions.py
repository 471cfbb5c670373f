"""A finished track's positions to below a pixel: its cell's centroid in each frame, and a smooth track.

A centroid is the centre of point symmetry: the peak of the image's convolution with itself.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpbsv

from napari_rbcflow.compiled import njit
from napari_rbcflow.tracking.detection import peak_between
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, Bools, Floats, Floats32, Grey, Ints

_SIDE = CROP_SIDE + 1  # of the window, reference pixels; even, so that it halves
_COARSE = _SIDE // 2
REACH_PX = 7  # distance from the detection within which the centroid is searched: about a cell's radius


def window_start(centres_px: Floats32, side_px: float) -> Floats:
    """Return the first camera pixel of windows of `side_px` around some centres, along one axis."""
    return np.rint(centres_px.astype(np.float64) + 0.5 - side_px / 2)


@njit(cache=True, fastmath=True, nogil=True)
def _symmetry_about(image: Floats32, turned: Floats32, p: int, q: int) -> np.float32:
    """Sum products of pixels opposite each other about (p / 2, q / 2); each pair counts once or twice."""
    side = len(image)
    top, bottom = max(0, p - side + 1), min(side - 1, p)
    left, right = max(0, q - side + 1), min(side - 1, q)
    total = np.float32(0)
    # Row i is opposite p - i: the upper half of the rows and the middle one hold every pair.
    for i in range(top, (top + bottom) // 2 + 1):
        a = image[i, left : right + 1]
        b = turned[side - 1 - p + i, side - 1 - q + left : side - q + right]
        row = np.float32(0)
        for j in range(len(a)):
            row += a[j] * b[j]
        total += row if 2 * i == p else row + row
    return total


@njit(cache=True, fastmath=True, nogil=True)
def difference(
    image: Grey, background: Grey, gain: np.float32, block: int, top: int, left: int, out: Floats32
) -> None:
    """Write the sums over blocks of image minus background into `out`, 0 beyond the field."""
    height, width = image.shape
    side = len(out)
    out[:] = 0
    # Whole blocks within the field only.
    i0, i1 = max(0, -(top // block)), min(side, (height - top) // block)
    j0, j1 = max(0, -(left // block)), min(side, (width - left) // block)
    if j1 <= j0:
        return
    for i in range(i0, i1):
        to = out[i, j0:j1]
        for y in range(top + i * block, top + (i + 1) * block):
            a = image[y, left + j0 * block : left + j1 * block]
            b = background[y, left + j0 * block : left + j1 * block]
            if block == 1:
                for j in range(len(to)):
                    to[j] = np.float32(a[j]) - gain * np.float32(b[j])
            else:
                for j in range(len(to)):
                    for x in range(j * block, (j + 1) * block):
                        to[j] += np.float32(a[x]) - gain * np.float32(b[x])


@njit(cache=True, fastmath=True, nogil=True)
def _centroids(
    image: Grey, background: Grey, gain: np.float32, block: int, tops: Ints, lefts: Ints, out: Floats
) -> None:
    """Write each window's centroid (y, x), in blocks from the window's first."""
    raw = np.zeros((_SIDE + 2, _SIDE + 2), np.float32)
    fine = np.zeros((_SIDE, _SIDE), np.float32)
    coarse = np.zeros((_COARSE, _COARSE), np.float32)
    near = np.empty((5, 5), np.float32)
    row = np.empty(_SIDE + 2, np.float32)
    for k in range(len(tops)):
        difference(image, background, gain, block, tops[k] - block, lefts[k] - block, raw)
        # A slight blur against peaks of the noise: 1 2 1 along either axis.
        for i in range(_SIDE):
            above, at, under, to = raw[i], raw[i + 1], raw[i + 2], fine[i]
            for j in range(_SIDE + 2):
                row[j] = above[j] + 2 * at[j] + under[j]
            for j in range(_SIDE):
                to[j] = row[j] + 2 * row[j + 1] + row[j + 2]
        for i in range(_COARSE):
            for j in range(_COARSE):
                coarse[i, j] = (
                    fine[2 * i, 2 * j] + fine[2 * i, 2 * j + 1]
                    + fine[2 * i + 1, 2 * j] + fine[2 * i + 1, 2 * j + 1]
                )  # fmt: skip
        # On the coarse image a step of p is one pixel.
        turned = coarse[::-1, ::-1].copy()
        best = np.float32(-np.inf)
        at_p, at_q = _COARSE - 1, _COARSE - 1
        for p in range(_COARSE - 1 - REACH_PX, _COARSE + REACH_PX):
            for q in range(_COARSE - 1 - REACH_PX, _COARSE + REACH_PX):
                s = _symmetry_about(coarse, turned, p, q)
                if s > best:
                    best, at_p, at_q = s, p, q
        # The same place on the fine image, where a step is half a pixel.
        at_p, at_q = 2 * at_p + 1, 2 * at_q + 1
        turned = fine[::-1, ::-1].copy()
        top, left = 2, 2
        best = np.float32(-np.inf)
        for i in range(5):
            for j in range(5):
                s = _symmetry_about(fine, turned, at_p + i - 2, at_q + j - 2)
                near[i, j] = s
                if s > best and 0 < i < 4 and 0 < j < 4:
                    best, top, left = s, i, j
        dy = peak_between(near[top - 1, left], near[top, left], near[top + 1, left])
        dx = peak_between(near[top, left - 1], near[top, left], near[top, left + 1])
        out[k, 0] = (at_p + top - 2 + dy) / 2
        out[k, 1] = (at_q + left - 2 + dx) / 2


class CentroidFinder:
    """Finds the centroids of cells, their centres of point symmetry, in the frames of one camera.

    Parameters
    ----------
    pixel_size_um : float
        Of the camera, in the field.
    """

    def __init__(self, pixel_size_um: float) -> None:
        # Finer pixels are summed to blocks of about a reference pixel, so that the cost stays the same.
        self._block = max(1, round(CROP_PIXEL_SIZE_UM / pixel_size_um))

    def centroids(self, image: Grey, background: Grey, gain: float, y_px: Floats32, x_px: Floats32) -> Floats:
        """Return y and x of the centroids near detections, shape (n, 2), camera pixels."""
        b = self._block
        tops = window_start(y_px, b * _SIDE).astype(np.int64)
        lefts = window_start(x_px, b * _SIDE).astype(np.int64)
        out = np.empty((len(y_px), 2))
        _centroids(image, background, np.float32(gain), b, tops, lefts, out)
        return out * b + (b - 1) / 2 + np.stack([tops, lefts], axis=1)


_STIFFNESS_ALONG = 1e3
"""Of the second difference: a centroid's standard deviation of 0.2 px against a speed that changes by
0.006 px a frame each frame. A straight line is no more exact on the simulated chamber, and real cells sway.
"""
_STIFFNESS_ACROSS = 1e2  # of the first difference: height changes by 0.02 px a frame
_FAR_PX = 0.5  # centroids farther than this from the fit have less than half the weight
_UNCERTAIN_WEIGHT = 0.1  # weight of a centroid with another cell or the field's edge in its crop
_DETECTION_WEIGHT = 0.02  # weight of the tracker's own position, where there is no centroid
_ROUNDS = 3


def _penalty(n: int, order: int) -> Floats:
    """Return the upper band of D'D for differences of `order` (1 or 2) over `n` points."""
    d = np.array([-1.0, 1.0] if order == 1 else [1.0, -2.0, 1.0])
    band = np.zeros((order + 1, n))
    for a in range(order + 1):
        for b in range(a, order + 1):
            band[order - (b - a), b : n - order + b] += d[a] * d[b]
    return band


def _fit(at: Ints, values: Floats, weights: Floats, stiffness: float, order: int, far: float) -> Floats:
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
    frames: Ints, x_px: Floats32, y_px: Floats32, centroids: Floats32, uncertain: Bools, *, unit_px: float
) -> tuple[Floats32, Floats32]:
    """Return a track's refined x and y; those given if there are fewer than three frames.

    Positions are camera pixels, shape (n,); `centroids` are y and x, shape (n, 2), NaN where not measured,
    and `uncertain` where another cell or the edge is near. `unit_px` is the camera pixels in a reference
    pixel.
    """
    measured = ~np.isnan(centroids[:, 0])
    if len(frames) < 3 or not measured.any():
        return x_px, y_px
    at = frames - frames[0]
    weights = np.where(measured, np.where(uncertain, _UNCERTAIN_WEIGHT, 1.0), _DETECTION_WEIGHT)
    far = _FAR_PX * unit_px
    x = np.where(measured, centroids[:, 1], x_px).astype(np.float64)
    y = np.where(measured, centroids[:, 0], y_px).astype(np.float64)
    return (
        _fit(at, x, weights, _STIFFNESS_ALONG, 2, far).astype(np.float32),
        _fit(at, y, weights, _STIFFNESS_ACROSS, 1, far).astype(np.float32),
    )


MAX_OFFSET_PX = 7.0  # crop pixels from the track within which the centre is searched: about a cell's radius
_MAX_IMAGES = 16  # of a track that are used: more add nothing
_MIN_ALONE = 5  # images without a neighbour that are enough
_OUTLINE_FROM = 0.015
"""Standard deviation of the grey beyond the noise's, as a share of the light, from which it is a cell's."""
_OUTLINE_OF_MAX = 0.3  # the same of a faint cell, as a share of its own maximum
_HALF_WINDOW = 2
_CELL_PX = 12.0  # radius of the disc that is laid on the outline: a cell out of focus is this wide
_MAX_SHIFTS, _STAYS_PX = 15, 0.02
_SYMMETRIC = (0.8, 0.95)
"""Correlation of a track's mean image with itself, turned by 180 degrees about the track: up to the first
only the outline counts, from the second only the track, which is more exact in straight illumination."""
_SYMMETRY_PX = 10.0
_HALF = 21
_MAP_SIDE = 2 * _HALF + 1


def centre_offset(
    images: Grey, centres: Ints, seen: Bools, intruded: Bools, edge: Bools
) -> tuple[float, float]:
    """Return how far, y and x, a cell's centre is from its track, the same in all frames.

    `images`, shape (n, side, side), are wider than a crop; `centres`, shape (n, 2), are the track's y and x
    in them. The offset is in their pixels, at most `MAX_OFFSET_PX` along each axis.
    """
    for chosen in (seen & ~edge & ~intruded, seen & ~edge, seen):
        if np.count_nonzero(chosen) >= _MIN_ALONE:
            break
    else:
        chosen = np.ones(len(seen), np.bool_)
    at = np.flatnonzero(chosen)
    if len(at) > _MAX_IMAGES:
        at = at[np.linspace(0, len(at) - 1, _MAX_IMAGES).round().astype(np.int64)]
    outline = np.zeros((_MAP_SIDE, _MAP_SIDE), np.float32)
    mean = np.zeros((_MAP_SIDE, _MAP_SIDE), np.float32)
    _add_outlines(images, centres, at, outline, mean)
    low, high = _SYMMETRIC
    share = min(max((high - _symmetry(mean)) / (high - low), 0.0), 1.0)
    dy, dx = _centre_of(outline)  # also where the share is 0, so that it is compiled before frames come
    return float(share * dy), float(share * dx)


@njit(cache=True, fastmath=True, nogil=True)
def _add_outlines(images: Grey, centres: Ints, at: Ints, out: Floats32, mean: Floats32) -> None:
    """Add each image's variation within 5 x 5 pixels, thresholded and nearly flat above, to `out`.

    The images themselves are added to `mean`.
    """
    side, width = len(out), 2 * _HALF_WINDOW + 1
    last = images.shape[1] - 1
    whole = side + 2 * _HALF_WINDOW
    n = np.float32(width * width)
    grey = np.empty((whole, whole), np.float32)
    sums = np.empty((whole, side), np.float32)
    squares = np.empty((whole, side), np.float32)
    variance = np.empty((side, side), np.float32)
    for k in at:
        image = images[k]
        top, left = centres[k, 0] - _HALF - _HALF_WINDOW, centres[k, 1] - _HALF - _HALF_WINDOW
        light = np.float32(0)
        for i in range(whole):
            row = image[min(max(top + i, 0), last)]
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
        # Most of the image is background, so the median is the noise's variance.
        noise = np.float32(np.median(variance))
        greatest = np.sqrt(max(variance.max() - noise, np.float32(0))) / light
        least = min(np.float32(_OUTLINE_FROM), np.float32(_OUTLINE_OF_MAX) * greatest)
        for i in range(side):
            for j in range(side):
                beyond = np.sqrt(max(variance[i, j] - noise, np.float32(0))) / light - least
                if beyond > 0:
                    out[i, j] += np.sqrt(np.sqrt(beyond))


@njit(cache=True, nogil=True)
def _symmetry(image: Floats32) -> float:
    """Return the correlation of a disc in the image's middle with itself, turned by 180 degrees."""
    reach = int(_SYMMETRY_PX)
    total, n = 0.0, 0
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            if i * i + j * j <= reach * reach:
                total += image[_HALF + i, _HALF + j]
                n += 1
    mean, square, product = total / n, 0.0, 0.0
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            if i * i + j * j <= reach * reach:
                value = image[_HALF + i, _HALF + j] - mean
                square += value * value
                product += value * (image[_HALF - i, _HALF - j] - mean)
    return product / square if square > 0 else 0.0


@njit(cache=True, nogil=True)
def _centre_of(outline: Floats32) -> tuple[float, float]:
    """Shift a disc from the track onto its contents until it stays; return its offset from the track."""
    y = x = 0.0
    for _ in range(_MAX_SHIFTS):
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
        y = min(max(y + dy, -MAX_OFFSET_PX), MAX_OFFSET_PX)
        x = min(max(x + dx, -MAX_OFFSET_PX), MAX_OFFSET_PX)
        if abs(dy) + abs(dx) < _STAYS_PX:
            break
    return y, x
