"""Crops of 31 x 31 pixels of 0.605 um around cells, raw grey, whatever the camera's own pixel."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.conventions import CROP_PIXEL_SIZE_UM, CROP_SIDE

_SAME_PIXEL = 0.01
"""Within one per cent of the reference a crop is a plain cut: over 31 pixels that is a third of one."""


@njit(cache=True, nogil=True)
def _cut(
    image: NDArray[np.uint8],
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    out: NDArray[np.uint8],
    edge: NDArray[np.bool_],
) -> None:
    height, width = image.shape
    side = out.shape[1]
    for k in range(len(tops)):
        top, left = tops[k], lefts[k]
        edge[k] = top < 0 or left < 0 or top + side > height or left + side > width
        if edge[k]:
            for i in range(side):
                y = min(max(top + i, 0), height - 1)
                for j in range(side):
                    out[k, i, j] = image[y, min(max(left + j, 0), width - 1)]
        else:
            for i in range(side):
                for j in range(side):
                    out[k, i, j] = image[top + i, left + j]


@njit(cache=True, nogil=True)
def _resample(
    image: NDArray[np.uint8],
    tops: NDArray[np.float64],
    lefts: NDArray[np.float64],
    ratio: float,
    out: NDArray[np.uint8],
    edge: NDArray[np.bool_],
) -> None:
    """Area means of `ratio` pixels for ratio >= 1, linear interpolation below. Origins in pixel edges."""
    height, width = image.shape
    side = out.shape[1]
    for k in range(len(tops)):
        top, left = tops[k], lefts[k]
        edge[k] = top < 0 or left < 0 or top + side * ratio > height or left + side * ratio > width
        for i in range(side):
            for j in range(side):
                y0 = top + i * ratio
                x0 = left + j * ratio
                total = 0.0
                if ratio >= 1:
                    for y in range(int(np.floor(y0)), int(np.ceil(y0 + ratio))):
                        share_y = min(y + 1.0, y0 + ratio) - max(float(y), y0)
                        line = image[min(max(y, 0), height - 1)]
                        for x in range(int(np.floor(x0)), int(np.ceil(x0 + ratio))):
                            share = share_y * (min(x + 1.0, x0 + ratio) - max(float(x), x0))
                            total += share * line[min(max(x, 0), width - 1)]
                    total /= ratio * ratio
                else:
                    yc = y0 + ratio / 2 - 0.5
                    xc = x0 + ratio / 2 - 0.5
                    y = int(np.floor(yc))
                    x = int(np.floor(xc))
                    for a in range(2):
                        wy = yc - y if a else 1 - (yc - y)
                        line = image[min(max(y + a, 0), height - 1)]
                        for b in range(2):
                            wx = xc - x if b else 1 - (xc - x)
                            total += wy * wx * line[min(max(x + b, 0), width - 1)]
                out[k, i, j] = np.uint8(min(255.0, max(0.0, total + 0.5)))


class Cropper:
    """Cuts the crops of one camera.

    Parameters
    ----------
    pixel_size_um : float
        Of the camera, in the field.
    """

    def __init__(self, pixel_size_um: float) -> None:
        self._ratio = CROP_PIXEL_SIZE_UM / pixel_size_um
        self._plain = abs(self._ratio - 1) <= _SAME_PIXEL

    def cut(
        self, image: NDArray[np.uint8], y_px: NDArray[np.float32], x_px: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Cut a crop around every centre.

        The crop's corner lies on a pixel's corner, so that 2 x 2 pixels of a sensor read in full are
        binned and not interpolated.

        Parameters
        ----------
        image : ndarray of uint8, shape (height, width)
        y_px, x_px : ndarray of float32, shape (n,)
            Centres in camera pixels; may lie at or beyond the field's edge, which is replicated.

        Returns
        -------
        crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
        edge : ndarray of bool, shape (n,)
            Where the edge was replicated.
        """
        crops = np.empty((len(y_px), CROP_SIDE, CROP_SIDE), np.uint8)
        edge = np.empty(len(y_px), np.bool_)
        if self._plain:
            half = CROP_SIDE // 2
            _cut(
                image,
                np.rint(y_px).astype(np.int64) - half,
                np.rint(x_px).astype(np.int64) - half,
                crops,
                edge,
            )
        else:
            half_width = CROP_SIDE * self._ratio / 2
            tops = np.rint(y_px.astype(np.float64) + 0.5 - half_width)
            lefts = np.rint(x_px.astype(np.float64) + 0.5 - half_width)
            _resample(image, tops, lefts, self._ratio, crops, edge)
        return crops, edge
