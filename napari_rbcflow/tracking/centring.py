"""Where the middle of a cell lies, below a pixel: the point about which its picture is most symmetric.

The maximum of the energy leans to the side that is brighter or darker, by up to two pixels for a cell in
focus that is tilted, and by six for one far out of focus that shows two lobes. But turn a red cell's
picture by 180 degrees about its middle, and outline and diffraction rings fall on themselves. So the middle
is where the picture's convolution with itself is greatest: its cross-correlation with itself, turned.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.tracking.energy import peak_between
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE

_SIDE = CROP_SIDE + 1
"""Of the window, reference pixels: even, so that it halves."""
_COARSE = _SIDE // 2
REACH_PX = 7
"""The middle is looked for no farther from the sight than this: about a cell's radius."""

_Floats32 = NDArray[np.float32]


@njit(cache=True, fastmath=True, nogil=True)
def _symmetry(picture: _Floats32, turned: _Floats32, p: int, q: int) -> np.float32:
    """Sum over products of pixels opposite each other about (p / 2, q / 2); each pair once or twice."""
    side = len(picture)
    top, bottom = max(0, p - side + 1), min(side - 1, p)
    left, right = max(0, q - side + 1), min(side - 1, q)
    total = np.float32(0)
    # Row i is opposite p - i: the upper half of the rows, and the middle one, hold every pair.
    for i in range(top, (top + bottom) // 2 + 1):
        a = picture[i, left : right + 1]
        b = turned[side - 1 - p + i, side - 1 - q + left : side - q + right]
        row = np.float32(0)
        for j in range(len(a)):
            row += a[j] * b[j]
        total += row if 2 * i == p else row + row
    return total


@njit(cache=True, fastmath=True, nogil=True)
def difference(
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: np.float32,
    block: int,
    top: int,
    left: int,
    out: _Floats32,
) -> None:
    """Write the sums over blocks of image less background into `out`, 0 beyond the field."""
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
def _middles(
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: np.float32,
    block: int,
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """Write each window's middle (y, x), in blocks from the window's first."""
    raw = np.zeros((_SIDE + 2, _SIDE + 2), np.float32)
    fine = np.zeros((_SIDE, _SIDE), np.float32)
    coarse = np.zeros((_COARSE, _COARSE), np.float32)
    near = np.empty((5, 5), np.float32)
    row = np.empty(_SIDE + 2, np.float32)
    for k in range(len(tops)):
        difference(image, background, gain, block, tops[k] - block, lefts[k] - block, raw)
        # A little blur, so that noise makes no peaks: 1 2 1 along either axis.
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
        # On the coarse picture one step of p is one pixel.
        turned = coarse[::-1, ::-1].copy()
        best = np.float32(-np.inf)
        at_p, at_q = _COARSE - 1, _COARSE - 1
        for p in range(_COARSE - 1 - REACH_PX, _COARSE + REACH_PX):
            for q in range(_COARSE - 1 - REACH_PX, _COARSE + REACH_PX):
                s = _symmetry(coarse, turned, p, q)
                if s > best:
                    best, at_p, at_q = s, p, q
        # The same place on the fine picture, where one step is half a pixel.
        at_p, at_q = 2 * at_p + 1, 2 * at_q + 1
        turned = fine[::-1, ::-1].copy()
        top, left = 2, 2
        best = np.float32(-np.inf)
        for i in range(5):
            for j in range(5):
                s = _symmetry(fine, turned, at_p + i - 2, at_q + j - 2)
                near[i, j] = s
                if s > best and 0 < i < 4 and 0 < j < 4:
                    best, top, left = s, i, j
        dy = peak_between(near[top - 1, left], near[top, left], near[top + 1, left])
        dx = peak_between(near[top, left - 1], near[top, left], near[top, left + 1])
        out[k, 0] = (at_p + top - 2 + dy) / 2
        out[k, 1] = (at_q + left - 2 + dx) / 2


class Centring:
    """Finds the middles of cells in the frames of one camera.

    Parameters
    ----------
    pixel_size_um : float
        Of the camera, in the field.
    """

    def __init__(self, pixel_size_um: float) -> None:
        # Finer pixels are summed to blocks of about the reference, so that the cost stays the same.
        self._block = max(1, round(CROP_PIXEL_SIZE_UM / pixel_size_um))

    def middles(
        self,
        image: NDArray[np.uint8],
        background: NDArray[np.uint8],
        gain: float,
        y_px: NDArray[np.float32],
        x_px: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Find the middle of each cell from where it was sighted.

        Parameters
        ----------
        image, background : ndarray of uint8, shape (height, width)
        gain : float
            Of the frame's light over the background's.
        y_px, x_px : ndarray of float32, shape (n,)
            Camera pixels.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            y and x, camera pixels.
        """
        b = self._block
        tops = np.rint(y_px.astype(np.float64) + 0.5 - b * _SIDE / 2).astype(np.int64)
        lefts = np.rint(x_px.astype(np.float64) + 0.5 - b * _SIDE / 2).astype(np.int64)
        out = np.empty((len(y_px), 2))
        _middles(image, background, np.float32(gain), b, tops, lefts, out)
        # The middle of a block, in the camera's pixels.
        return out * b + (b - 1) / 2 + np.stack([tops, lefts], axis=1)
