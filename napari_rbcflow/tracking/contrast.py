"""How clearly a cell stands out: its contrast, as an eye would see it.

Energy says that something is there, and where. But a suspension is full of cells so far out of focus that
they are no more than mottle, and a wide, pale ring has as much energy as a small cell that everyone sees.
The greatest difference from the background, averaged over some five pixels, as a share of the light, tells
them apart: in one frame roughly, in the mean picture of a whole track well, as its noise is gone.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.tracking.middle import median
from napari_rbcflow.types import CROP_SIDE

RADIUS_PX = 10.0
"""Reference pixels from a detection within which it is looked for: a far cell's ring is that wide."""
_Y, _X = np.mgrid[:CROP_SIDE, :CROP_SIDE] - CROP_SIDE // 2
_NEAR = np.hypot(_Y, _X) <= 12.0
_SMOOTH_PX = 1.5
_LEAST_PICTURES = 3

_Bools = NDArray[np.bool_]


def contrast_of(crops: NDArray[np.uint8], seen: _Bools, intruded: _Bools, edge: _Bools) -> float:
    """Contrast of the mean of a track's pictures; of those without a neighbour, where there are enough.

    Parameters
    ----------
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
    seen, intruded, edge : ndarray of bool, shape (n,)
        As in `Track`; at least one picture was seen.

    Returns
    -------
    float
        Greatest absolute difference from the picture's median grey, smoothed with a standard deviation of
        1.5 pixels, as a share of that grey.
    """
    for chosen in (seen & ~edge & ~intruded, seen & ~edge, seen):
        if np.count_nonzero(chosen) >= _LEAST_PICTURES:
            break
    mean = np.empty(crops.shape[1:], np.float32)
    _mean_picture(crops, chosen, mean)
    level = max(1.0, median(mean))
    smooth = cv2.GaussianBlur(mean - level, (0, 0), _SMOOTH_PX, borderType=cv2.BORDER_REPLICATE)
    return float(np.abs(smooth[_NEAR]).max()) / level


@njit(cache=True, nogil=True)
def _mean_picture(crops: NDArray[np.uint8], chosen: _Bools, out: NDArray[np.float32]) -> None:
    height, width = out.shape
    total = np.zeros((height, width), np.int64)
    n = 0
    for k in range(len(crops)):
        if chosen[k]:
            n += 1
            for i in range(height):
                for j in range(width):
                    total[i, j] += crops[k, i, j]
    for i in range(height):
        for j in range(width):
            out[i, j] = np.float32(total[i, j] / n)


@njit(cache=True, fastmath=True, nogil=True)
def greatest_contrast(
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: np.float32,
    block: int,
    radius: int,
    ys: NDArray[np.float32],
    xs: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the greatest contrast within `radius` blocks of each place into `out`.

    Parameters
    ----------
    image, background : ndarray of uint8, shape (height, width)
    gain : float32
        Of the frame's light over the background's.
    block : int
        Side of the blocks that pixels are summed over, about two reference pixels; the sums are
        smoothed by 1 2 1 along either axis.
    radius : int
    ys, xs : ndarray of float32, shape (n,)
        In blocks.
    out : ndarray of float32, shape (n,)
        Absolute difference over the background's mean grey there; of blocks within the field.
    """
    height, width = image.shape[0] // block, image.shape[1] // block
    side = 2 * radius + 3
    sums = np.zeros((side, side), np.float32)
    rows = np.zeros((side, side), np.float32)
    for k in range(len(ys)):
        top = int(np.rint(ys[k])) - radius - 1
        left = int(np.rint(xs[k])) - radius - 1
        light = np.float32(0)
        counted = 0
        for i in range(side):
            inside = 0 <= top + i < height
            for j in range(side):
                total = np.float32(0)
                if inside and 0 <= left + j < width:
                    empty = np.float32(0)
                    y, x = (top + i) * block, (left + j) * block
                    for a in range(y, y + block):
                        for c in range(x, x + block):
                            total += np.float32(image[a, c])
                            empty += np.float32(background[a, c])
                    total -= gain * empty
                    light += empty
                    counted += 1
                sums[i, j] = total
        for i in range(side):
            for j in range(1, side - 1):
                rows[i, j] = sums[i, j - 1] + 2 * sums[i, j] + sums[i, j + 1]
        greatest = np.float32(0)
        for i in range(1, side - 1):
            for j in range(1, side - 1):
                if (i - radius - 1) ** 2 + (j - radius - 1) ** 2 <= radius * radius:
                    smooth = rows[i - 1, j] + 2 * rows[i, j] + rows[i + 1, j]
                    greatest = max(greatest, abs(smooth))
        out[k] = greatest * counted / (16 * gain * max(light, np.float32(1)))
