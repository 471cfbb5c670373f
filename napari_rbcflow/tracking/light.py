"""How bright a frame is against the background, and whether there is light on it at all."""

from __future__ import annotations

import numpy as np
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
    level = float(np.median(coarse))
    if level < _DARK_GREY:
        return "dark"
    if level > _BRIGHT_GREY:
        return "saturated"
    if int(coarse.max()) == int(coarse.min()):
        return "uniform"
    return None


class Light:
    """Follows flicker and drift of the light: one gain a frame, robust to cells.

    The light multiplies what it falls on, so that dust and vignetting keep their share.
    """

    def __init__(self) -> None:
        self._background: NDArray[np.uint8] | None = None
        self._coarse = np.empty(0, np.float32)
        self._level = 1.0

    def gain(self, image: NDArray[np.uint8], background: NDArray[np.uint8]) -> float:
        """Return the factor by which `image` is brighter than `background`, both shape (height, width)."""
        if background is not self._background:
            self._background = background
            self._coarse = background[::_STEP, ::_STEP].astype(np.float32)
            self._level = max(1.0, float(np.median(self._coarse)))
        # The median of whole grey levels is one itself; the middle half's mean resolves a tenth of one.
        difference = np.sort((image[::_STEP, ::_STEP] - self._coarse).ravel())
        quarter = len(difference) // 4
        return 1.0 + float(difference[quarter : len(difference) - quarter].mean()) / self._level


def gain_fault(gain: float) -> str | None:
    """Say why a frame of this gain cannot be compared with the background; None if it can."""
    if gain < _LEAST_GAIN:
        return "too-dark"
    if gain > _GREATEST_GAIN:
        return "too-bright"
    return None
