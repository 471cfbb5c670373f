"""Crops of 31 x 31 pixels of 0.605 um around cells, raw grey, whatever the camera's own pixel."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE

_SAME_PIXEL = 0.01
"""Within one per cent of the reference a crop is a plain cut: over 31 pixels that is a third of one."""
MARGIN_PX = 9
"""Crop pixels on every side that are kept beyond the crop while a track is open: what its centre may lie off
(`positions.MOST_OFFSET_PX`) and what smoothing may move a position."""
WIDE_SIDE = CROP_SIDE + 2 * MARGIN_PX


@njit(cache=True, nogil=True)
def _cut(
    image: NDArray[np.uint8],
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    height, width = image.shape
    side = out.shape[1]
    for k in range(len(tops)):
        top, left = tops[k], lefts[k]
        if top < 0 or left < 0 or top + side > height or left + side > width:
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
) -> None:
    """Area means of `ratio` pixels for ratio >= 1, linear interpolation below. Origins in pixel edges."""
    height, width = image.shape
    side = out.shape[1]
    for k in range(len(tops)):
        top, left = tops[k], lefts[k]
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


@njit(cache=True, nogil=True)
def _trim(pictures: NDArray[np.uint8], shifts: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    side = out.shape[1]
    for k in range(len(pictures)):
        top, left = MARGIN_PX + shifts[k, 0], MARGIN_PX + shifts[k, 1]
        for i in range(side):
            for j in range(side):
                out[k, i, j] = pictures[k, top + i, left + j]


class Cropper:
    """Cuts the crops of one camera: wide ones while a track is open, the crops proper when it has ended.

    Where a cell's centre lies is known from its whole track only (`positions.centre_offset`). So what is
    kept of each frame is `MARGIN_PX` wider on every side.

    Parameters
    ----------
    height, width : int
        Of every frame, pixels.
    pixel_size_um : float
        Of the camera, in the field.
    """

    def __init__(self, height: int, width: int, pixel_size_um: float) -> None:
        self._shape = (height, width)
        ratio = CROP_PIXEL_SIZE_UM / pixel_size_um
        self._plain = abs(ratio - 1) <= _SAME_PIXEL
        self.ratio = 1.0 if self._plain else ratio

    def cut(
        self, image: NDArray[np.uint8], y_px: NDArray[np.float32], x_px: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Cut a wide picture around every centre.

        Its corner lies on a pixel's corner, so that 2 x 2 pixels of a sensor read in full are binned and not
        interpolated.

        Parameters
        ----------
        image : ndarray of uint8, shape (height, width)
        y_px, x_px : ndarray of float32, shape (n,)
            Centres in camera pixels; may lie at or beyond the field's edge, which is replicated.

        Returns
        -------
        pictures : ndarray of uint8, shape (n, WIDE_SIDE, WIDE_SIDE)
        edge : ndarray of bool, shape (n,)
            Where a crop about that centre replicates the edge.
        """
        pictures = np.empty((len(y_px), WIDE_SIDE, WIDE_SIDE), np.uint8)
        tops, lefts = self._corner(y_px), self._corner(x_px)
        if self._plain:
            _cut(image, tops.astype(np.int64), lefts.astype(np.int64), pictures)
        else:
            _resample(image, tops, lefts, self.ratio, pictures)
        return pictures, self._beyond(tops, lefts, 0, 0)

    def trim(
        self,
        pictures: NDArray[np.uint8],
        y_px: NDArray[np.float32],
        x_px: NDArray[np.float32],
        shifts: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Take the crops proper out of wide pictures.

        Parameters
        ----------
        pictures : ndarray of uint8, shape (n, WIDE_SIDE, WIDE_SIDE)
        y_px, x_px : ndarray of float32, shape (n,)
            Where they were cut.
        shifts : ndarray of int64, shape (n, 2)
            y and x of the crops' centres from the pictures', crop pixels, each within `MARGIN_PX`.

        Returns
        -------
        crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
        edge : ndarray of bool, shape (n,)
            Where the field's edge is replicated.
        """
        crops = np.empty((len(pictures), CROP_SIDE, CROP_SIDE), np.uint8)
        _trim(pictures, shifts, crops)
        return crops, self._beyond(self._corner(y_px), self._corner(x_px), shifts[:, 0], shifts[:, 1])

    def shifts(self, cut_px: NDArray[np.float32], wanted_px: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far a wanted place lies from the centre of a picture cut at another, along one axis.

        Returns
        -------
        ndarray of float64
            Crop pixels.
        """
        centres = self._corner(cut_px) + WIDE_SIDE * self.ratio / 2 - 0.5
        return np.asarray((wanted_px - centres) / self.ratio, np.float64)

    def _corner(self, centres_px: NDArray[np.float32]) -> NDArray[np.float64]:
        """The first pixel of a wide picture along one axis."""
        return np.rint(centres_px.astype(np.float64) + 0.5 - WIDE_SIDE * self.ratio / 2)

    def _beyond(
        self,
        tops: NDArray[np.float64],
        lefts: NDArray[np.float64],
        dy: NDArray[np.int64] | int,
        dx: NDArray[np.int64] | int,
    ) -> NDArray[np.bool_]:
        top, left = tops + (MARGIN_PX + dy) * self.ratio, lefts + (MARGIN_PX + dx) * self.ratio
        height, width = self._shape
        side = CROP_SIDE * self.ratio
        return np.asarray((top < 0) | (left < 0) | (top + side > height) | (left + side > width))
