"""Crops as pictures that a person can judge: one contrast for all, whatever the lamp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QImage

GREY_EITHER_SIDE = 25
"""Around the background, which is the median of a crop. Cells in focus reach 9 below and 13 above."""


def grey_images(crops: NDArray[np.uint8]) -> list[QImage]:
    """Return crops as grey pictures in one contrast.

    Parameters
    ----------
    crops : ndarray of uint8, shape (n, h, w)
        Of one cell: the background is taken from all of them.
    """
    if not len(crops):
        return []
    levels = np.arange(256) - float(np.median(crops)) + GREY_EITHER_SIDE
    table = np.clip(levels * (255 / (2 * GREY_EITHER_SIDE)), 0, 255).astype(np.uint8)
    height, width = crops.shape[1:]
    return [
        QImage(crop.tobytes(), width, height, width, QImage.Format.Format_Grayscale8).copy()
        for crop in table[crops]
    ]
