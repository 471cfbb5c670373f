"""How bright a frame is against the background, and whether there is light on it at all."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_STEP = 16
"""Every 16th pixel each way: 6,000 pixels of a frame, of which cells cover a tenth."""
_DARK_GREY = 12.0
_BRIGHT_GREY = 250.0
_LEAST_GAIN, _GREATEST_GAIN = 0.6, 1.6


def unlit(image: NDArray[np.uint8]) -> str | None:
    """Say why a frame shows nothing by itself: ``dark``, ``saturated`` or ``uniform``; None if it may.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)
    """
    coarse = image[:: min(_STEP, len(image) // 2 or 1), :: min(_STEP, image.shape[1] // 2 or 1)]
    level, least, greatest = _levels(coarse)
    if level < _DARK_GREY:
        return "dark"
    if level > _BRIGHT_GREY:
        return "saturated"
    if least == greatest:
        return "uniform"
    return None


class Light:
    """Follows flicker and drift of the light: one gain a frame, robust to cells.

    The light multiplies what it falls on, so that dust and vignetting keep their share.
    """

    def __init__(self) -> None:
        self._background: NDArray[np.uint8] | None = None
        self._coarse = np.empty((0, 0), np.uint8)
        self._level = 1.0

    def gain(self, image: NDArray[np.uint8], background: NDArray[np.uint8]) -> float:
        """Return the factor by which `image` is brighter than `background`, both shape (height, width)."""
        if background is not self._background:
            self._background = background
            self._coarse = background[::_STEP, ::_STEP].copy()
            self._level = max(1.0, float(np.median(self._coarse)))
        # The median of whole grey levels is one itself; the middle half's mean resolves a tenth of one.
        return 1.0 + float(_middle_half(image[::_STEP, ::_STEP], self._coarse)) / self._level


@njit(cache=True, nogil=True)
def _levels(image: NDArray[np.uint8]) -> tuple[float, int, int]:
    """Median, least and greatest grey."""
    height, width = image.shape
    counts = np.zeros(256, np.int64)
    for i in range(height):
        for j in range(width):
            counts[image[i, j]] += 1
    n = height * width
    least, low, high, greatest = -1, -1, -1, 0
    passed = 0
    for grey in range(256):
        passed += counts[grey]
        if passed and least < 0:
            least = grey
        if low < 0 and passed > (n - 1) // 2:
            low = grey
        if high < 0 and passed > n // 2:
            high = grey
        if counts[grey]:
            greatest = grey
    return (low + high) / 2, least, greatest


@njit(cache=True, nogil=True)
def _middle_half(image: NDArray[np.uint8], background: NDArray[np.uint8]) -> np.float32:
    """Mean of the middle half of the differences."""
    height, width = image.shape
    counts = np.zeros(511, np.int64)
    for i in range(height):
        for j in range(width):
            counts[255 + np.int64(image[i, j]) - np.int64(background[i, j])] += 1
    n = height * width
    first, last = n // 4, n - n // 4
    total = 0
    passed = 0
    for k in range(511):
        within = min(passed + counts[k], last) - max(passed, first)
        if within > 0:
            total += within * (k - 255)
        passed += counts[k]
    return np.float32(total / (last - first))


def gain_fault(gain: float) -> str | None:
    """Say why a frame of this gain cannot be compared with the background; None if it can."""
    if gain < _LEAST_GAIN:
        return "too-dark"
    if gain > _GREATEST_GAIN:
        return "too-bright"
    return None
