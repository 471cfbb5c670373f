"""How sharp the cells of a frame are, and whether they still are as sharp as they used to be."""

from __future__ import annotations

from collections import deque

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.tracking.centring import difference
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM

Floats = NDArray[np.float64]

_LEAST_CELLS, _LEAST_CELLS_ONCE_LOST = 25, 8
"""Detections of which the sharpest quarter says something."""
_LEAST_SHARPNESS = 0.55
"""Fine over whole energy of the sharpest quarter. Movies composed of unreliable real cells only: 1.3 and
more; the chamber 0.9 and more; 0.35 where the focus stands far above the cells."""
_LEAST_OF_USUAL = 0.5
_MEMORY = 50.0
_LEAST_LOOKS = 8
"""Looks over which the usual sharpness is averaged, and the fewest that say something."""
_POOLED_LOOKS, _LEAST_POOLED, _LEAST_POOLED_ONCE_LOST = 15, 400, 100
"""Looks of a second, whose cells together tell of a slow change. Ten of them are one cell: with 250 a field
of 25 cells was called out of focus for 11 frames in 40 s."""
_POOLED_QUANTILE = 0.85
_LEAST_POOLED_SHARPNESS = 0.85
"""Of that quantile. Healthy movies: 1.36 and more on the chamber, 2.5 on real cells; 0.8 and less where the
focus stands 75 um under the usual or 140 above."""
_LEAST_OF_SLOW = 0.6
"""Of what is usual over `_SLOW_LOOKS`, a minute: healthy movies keep 0.85 and more of their mean."""
_SLOW_LOOKS = 900.0
_ANOTHER_FOCUS_LOOKS = 600
"""Looks, ten seconds of them, that are only less sharp than those before, and not blurred: then somebody
set another focus, and that is what is usual from now on."""
_RADIUS = 9


class UsualSharpness:
    """Remembers how sharp the sharpest cells of one run are, over a few seconds and over a minute."""

    def __init__(self) -> None:
        self._looks = 0
        self._usual = 0.0
        self._pool: deque[Floats] = deque(maxlen=_POOLED_LOOKS)
        self._pooled = 0
        self._slow = 0.0
        self._only_less = 0

    def gone(self, sharpness: Floats, *, lost: bool) -> bool:
        """Say whether the sharpness is gone, at once or slowly.

        Parameters
        ----------
        sharpness : ndarray of float64, shape (n,)
            `sharpness_of` the detections of one more frame.
        lost : bool
            Whether the focus was lost in the frame before: then fewer cells must do.
        """
        self._pool.append(sharpness)
        slowly = self._slowly_gone(lost)
        gone = self._gone_at_once(sharpness, lost) or slowly
        if gone and self._blurred(sharpness):
            self._only_less = 0
        else:
            # At the limit of what is usual a look now and then passes.
            self._only_less = max(0, self._only_less + (1 if gone else -2))
        if self._only_less > _ANOTHER_FOCUS_LOOKS:
            self._looks = self._pooled = self._only_less = 0
            self._usual = self._slow = 0.0
        return gone

    def _blurred(self, sharpness: Floats) -> bool:
        """Whether the cells are not sharp, whatever is usual."""
        if len(sharpness) >= _LEAST_CELLS_ONCE_LOST and np.quantile(sharpness, 0.75) < _LEAST_SHARPNESS:
            return True
        together = np.concatenate(self._pool)
        return len(together) >= _LEAST_POOLED_ONCE_LOST and bool(
            np.quantile(together, _POOLED_QUANTILE) < _LEAST_POOLED_SHARPNESS
        )

    def _gone_at_once(self, sharpness: Floats, lost: bool) -> bool:
        if len(sharpness) < (_LEAST_CELLS_ONCE_LOST if lost else _LEAST_CELLS):
            return False
        now = float(np.quantile(sharpness, 0.75))
        if now < _LEAST_SHARPNESS:
            return True
        if self._looks >= _LEAST_LOOKS and now < _LEAST_OF_USUAL * self._usual:
            return True
        self._looks += 1
        self._usual += (now - self._usual) / min(self._looks, _MEMORY)
        return False

    def _slowly_gone(self, lost: bool) -> bool:
        together = np.concatenate(self._pool)
        if len(together) < (_LEAST_POOLED_ONCE_LOST if lost else _LEAST_POOLED):
            return False
        now = float(np.quantile(together, _POOLED_QUANTILE))
        if now < max(_LEAST_POOLED_SHARPNESS, _LEAST_OF_SLOW * self._slow):
            return True
        self._pooled += 1
        self._slow += (now - self._slow) / min(self._pooled, _SLOW_LOOKS)
        return False


@njit(cache=True, fastmath=True, nogil=True)
def _fine_shares(
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: np.float32,
    block: int,
    noise: float,
    y_px: NDArray[np.float32],
    x_px: NDArray[np.float32],
    out: NDArray[np.float64],
) -> int:
    """Write fine over whole energy of each cell that is well above the noise; return how many."""
    side = 2 * _RADIUS + 3
    height, width = image.shape
    d = np.zeros((side, side), np.float32)
    n = 0
    half = block * side / 2
    pixels = (side - 2) * (side - 2)
    for k in range(len(y_px)):
        top = int(np.rint(y_px[k] + 0.5 - half))
        left = int(np.rint(x_px[k] + 0.5 - half))
        if top < 0 or left < 0 or top + side * block > height or left + side * block > width:
            continue
        difference(image, background, gain, block, top, left, d)
        fine = np.float32(0)
        whole = np.float32(0)
        for i in range(1, side - 1):
            above, at, under = d[i - 1], d[i], d[i + 1]
            for j in range(1, side - 1):
                gy = under[j] - above[j]
                gx = at[j + 1] - at[j - 1]
                fine += gy * gy + gx * gx
                whole += at[j] * at[j]
        energy = whole - pixels * noise
        if energy > pixels * noise:
            out[n] = (fine - 4 * pixels * noise) / energy
            n += 1
    return n


def sharpness_of(
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: float,
    *,
    noise: float,
    pixel_size_um: float,
    y_px: NDArray[np.float32],
    x_px: NDArray[np.float32],
) -> Floats:
    """Fine over whole energy of the detections that are well above the noise and whole in the field.

    Parameters
    ----------
    image, background : ndarray of uint8, shape (height, width)
    gain : float
    noise : float
        Standard deviation of a pixel, grey levels.
    pixel_size_um : float
        Of the camera, in the field.
    y_px, x_px : ndarray of float32, shape (n,)
        Camera pixels.

    Returns
    -------
    ndarray of float64, shape (m,)
        Squared differences over two reference pixels, along either axis, over the squares themselves.
    """
    block = max(1, round(CROP_PIXEL_SIZE_UM / pixel_size_um))
    out = np.empty(len(y_px))
    n = _fine_shares(image, background, np.float32(gain), block, (noise * block) ** 2, y_px, x_px, out)
    return out[:n]
