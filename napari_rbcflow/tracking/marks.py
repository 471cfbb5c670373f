"""Dust and scratches: what never moves is as fine in every frame as in the background."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.tracking.middle import median
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM

_LEAST_STEP = 8
"""Grey levels over two reference pixels that make a mark: many times the noise of a background."""
_LEAST_MARKS, _LEAST_PLACES, _PLACE_PX = 60, 6, 32
"""Pixels of them, and in how many squares of this side: one passing cell must not hide half of them."""


class Marks:
    """Dust, scratches and stuck cells: where the background is fine, and how fine a frame is there.

    Parameters
    ----------
    pixel_size_um : float
        Of the camera, in the field.
    """

    def __init__(self, pixel_size_um: float) -> None:
        self._step = max(1, round(CROP_PIXEL_SIZE_UM / pixel_size_um))
        self._background: NDArray[np.uint8] | None = None
        self._left = self._right = np.empty(0, np.int64)
        self._steps = np.empty(0, np.float32)

    def seen_in(self, image: NDArray[np.uint8], background: NDArray[np.uint8]) -> float | None:
        """Which share of the background's steps, along x, a frame has: 1 for all; None where they are few.

        The median over the marks, since a passing cell hides some.

        Parameters
        ----------
        image, background : ndarray of uint8, shape (height, width)
        """
        span = 2 * self._step
        if background is not self._background:
            self._background = background
            there = cv2.absdiff(background[:, span:], background[:, :-span]) >= _LEAST_STEP
            y, x = np.nonzero(there)
            # Which squares: a thousand of them fit in a row.
            places = len(np.unique(y // (_PLACE_PX * self._step) * 1000 + x // (_PLACE_PX * self._step)))
            enough = len(y) >= _LEAST_MARKS and places >= _LEAST_PLACES
            self._left = (y * background.shape[1] + x)[: len(y) if enough else 0]
            flat = background.ravel()
            self._right = self._left + span
            self._steps = flat[self._right].astype(np.float32) - flat[self._left]
        if not len(self._left):
            return None
        flat = image.ravel()
        steps = flat[self._right].astype(np.float32) - flat[self._left]
        return median(steps / self._steps)
