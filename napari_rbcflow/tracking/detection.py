"""Cells in one frame: the variance filter of Darrin et al. 2023, its noise, maxima and contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.compiled import njit
from napari_rbcflow.tracking.background import median
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, Bools, Floats, Floats32, Grey


@njit(cache=True, nogil=True)
def peak_between(below: float, at: float, above: float) -> float:
    """Return the top of the parabola through three neighbours, -0.5 to 0.5 from the middle one; 0 if none."""
    bend = 2 * at - below - above
    return min(0.5, max(-0.5, 0.5 * (above - below) / bend)) if bend > 0 else 0.0


@njit(cache=True, fastmath=True, nogil=True)
def block_energy(
    image: Grey, background: Grey, gain: np.float32, block: int, row: Floats32, out: Floats32
) -> None:
    """Write the squares of the differences' sums over blocks into `out`; `row` is a buffer for one line."""
    height, width = out.shape
    for i in range(height):
        for x in range(width * block):
            row[x] = np.float32(0)
        for r in range(i * block, i * block + block):
            a = image[r]
            b = background[r]
            for x in range(width * block):
                row[x] += np.float32(a[x]) - gain * np.float32(b[x])
        o = out[i]
        if block == 2:
            for x in range(width):
                s = row[2 * x] + row[2 * x + 1]
                o[x] = s * s
        else:
            for x in range(width):
                s = np.float32(0)
                for q in range(block):
                    s += row[block * x + q]
                o[x] = s * s


@njit(cache=True, nogil=True)
def maxima(
    energy: Floats32, threshold: np.float32, reach: int, ys: Floats32, xs: Floats32, es: Floats32
) -> tuple[int, int]:
    """Find maxima within `reach`, refined by a parabola along each axis.

    Returns how many there are, and how many blocks lie above the threshold.
    """
    height, width = energy.shape
    n = 0
    above = 0
    may_be = np.zeros(width, np.uint8)
    for i in range(1, height - 1):
        # Without a branch, so that it is vectorised: there are few maxima.
        upper, at, lower = energy[i - 1], energy[i], energy[i + 1]
        many = 0
        count = 0
        for j in range(1, width - 1):
            e = at[j]
            higher = e > threshold
            may_be[j] = higher & (e >= at[j - 1]) & (e > at[j + 1]) & (e >= upper[j]) & (e > lower[j])
            count += higher
            many += may_be[j]
        above += count
        if not many:
            continue
        for j in range(1, width - 1):
            if not may_be[j]:
                continue
            e = at[j]
            greatest = True
            for a in range(max(0, i - reach), min(height, i + reach + 1)):
                for c in range(max(0, j - reach), min(width, j + reach + 1)):
                    if (a - i) ** 2 + (c - j) ** 2 > reach * reach:
                        continue
                    # Of two equal maxima the first in reading order counts.
                    if energy[a, c] > e or (energy[a, c] == e and (a < i or (a == i and c < j))):
                        greatest = False
                        break
                if not greatest:
                    break
            if greatest and n < len(ys):
                ys[n] = i + peak_between(energy[i - 1, j], e, energy[i + 1, j])
                xs[n] = j + peak_between(energy[i, j - 1], e, energy[i, j + 1])
                es[n] = e
                n += 1
    return n, above


@njit(cache=True, nogil=True)
def mark_separate(
    energy: Floats32, ys: Floats32, xs: Floats32, es: Floats32, reach: float, saddle: float, separate: Bools
) -> None:
    """Clear `separate` for maxima near a greater one (within `reach`) without a valley between them."""
    n = len(ys)
    for k in range(n):
        separate[k] = True
        for g in range(n):
            if es[g] < es[k] or (es[g] == es[k] and g <= k):
                continue
            dy = ys[g] - ys[k]
            dx = xs[g] - xs[k]
            distance = np.sqrt(dy * dy + dx * dx)
            if distance > reach:
                continue
            steps = int(np.ceil(distance))
            lowest = es[k]
            for s in range(1, steps):
                i = int(np.rint(ys[k] + dy * s / steps))
                j = int(np.rint(xs[k] + dx * s / steps))
                lowest = min(lowest, energy[i, j])
            if lowest > saddle * es[k]:
                separate[k] = False
                break


RADIUS_PX = 10.0
"""Reference pixels from a detection within which contrast is measured: a far cell's ring is that wide."""
_Y, _X = np.mgrid[:CROP_SIDE, :CROP_SIDE] - CROP_SIDE // 2
_NEAR = np.hypot(_Y, _X) <= 12.0
_SMOOTH_PX = 1.5
_MIN_PICTURES = 3


def contrast_of(crops: Grey, seen: Bools, intruded: Bools, edge: Bools) -> float:
    """Return the contrast of a track's mean image, of frames without a neighbour if there are enough.

    It is the maximum absolute difference from the image's median grey, smoothed with a standard deviation of
    1.5 pixels, as a share of that grey. At least one frame was seen.
    """
    for chosen in (seen & ~edge & ~intruded, seen & ~edge, seen):
        if np.count_nonzero(chosen) >= _MIN_PICTURES:
            break
    mean = np.empty(crops.shape[1:], np.float32)
    _mean_picture(crops, chosen, mean)
    level = max(1.0, median(mean))
    smooth = cv2.GaussianBlur(mean - level, (0, 0), _SMOOTH_PX, borderType=cv2.BORDER_REPLICATE)
    return float(np.abs(smooth[_NEAR]).max()) / level


@njit(cache=True, nogil=True)
def _mean_picture(crops: Grey, chosen: Bools, out: Floats32) -> None:
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
def peak_contrasts(
    image: Grey,
    background: Grey,
    gain: np.float32,
    block: int,
    radius: int,
    ys: Floats32,
    xs: Floats32,
    out: Floats32,
) -> None:
    """Write the maximum contrast within `radius` blocks of each place (in blocks) into `out`.

    It is the absolute difference over the background's mean grey there, of blocks within the field. Blocks
    are sums over about two reference pixels, smoothed by 1 2 1 along either axis.
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


_MIN_FIELD_UM2 = 500.0  # field area for each detection: four times as dense as the paper's densest frames
_SAME_CELL_PX = 20.0  # maxima of one cell, such as the rings of a defocused one, are no farther apart
_MIN_NOISE = 0.02  # grey levels squared: a camera without noise still rounds to whole levels
_UNLIKE = 4.0
"""A frame of which half has this many times the noise's energy does not belong to its background."""
_MAX_COVER = 0.5
"""Share of the field above the threshold beyond which a frame does not belong to its background."""


@dataclass(slots=True, frozen=True, eq=False)
class Detections:
    """Cells in one frame."""

    y_px: Floats32  # centres in camera pixels
    x_px: Floats32
    energy: Floats32  # blurred squared difference there, in multiples of the noise's


class Detector:
    """Finds cells in frames of one size; not to be shared by threads, as it keeps buffers.

    Parameters
    ----------
    height, width : int
        Of every frame, pixels.
    pixel_size_um : float
        Of the camera, in the field.
    settings : TrackingSettings
    """

    def __init__(self, height: int, width: int, *, pixel_size_um: float, settings: TrackingSettings) -> None:
        scale = CROP_PIXEL_SIZE_UM / pixel_size_um
        self._block = max(1, round(2 * scale))
        self._settings = settings
        unit = self._block / scale  # reference pixels a block
        self._sigma = settings.smoothing_px / unit
        self._kernel = 2 * int(np.ceil(2.5 * self._sigma)) + 1
        self._reach = max(1, round(settings.separation_px / unit))
        shape = (height // self._block, width // self._block)
        self._row = np.empty(shape[1] * self._block, np.float32)
        self._energy = np.empty(shape, np.float32)
        self._blurred = np.empty(shape, np.float32)
        self._most = 100 + int(height * width * pixel_size_um**2 / _MIN_FIELD_UM2)
        self._found = np.empty((3, self._most), np.float32)
        self._radius = max(1, round(RADIUS_PX / unit))
        self._same_cell = _SAME_CELL_PX / unit
        self._separate = np.empty(self._most, np.bool_)
        self._noise = 0.0

    @property
    def noise(self) -> float:
        """Standard deviation of a pixel against the background, grey levels; 0 before the first frame."""
        return float(np.sqrt(self._noise)) / self._block

    def detect(self, image: Grey, background: Grey, gain: float) -> Detections | None:
        """Find the cells of one frame.

        Parameters
        ----------
        image, background : ndarray of uint8, shape (height, width)
        gain : float
            Of the frame's light over the background's.

        Returns
        -------
        Detections or None
            None if half the field differs, or there are more maxima than single cells: the frame does not
            belong to this background.
        """
        block_energy(image, background, np.float32(gain), self._block, self._row, self._energy)
        cv2.GaussianBlur(
            self._energy,
            (self._kernel, self._kernel),
            self._sigma,
            self._blurred,
            borderType=cv2.BORDER_REPLICATE,
        )
        # The median over the field is the noise's while cells cover less than half of it. Smoothed over
        # some fifty frames it follows a lasting change, and no single frame changes it much.
        now = max(median(self._blurred[::8, ::8]), _MIN_NOISE * self._block**2)
        if not self._noise:
            self._noise = now
        unlike = now > _UNLIKE * self._noise
        self._noise += 0.02 * (min(now, _UNLIKE * self._noise) - self._noise)
        if unlike:
            return None
        ys, xs, es = self._found
        n, above = maxima(
            self._blurred,
            np.float32(self._settings.threshold * max(now, self._noise)),
            self._reach,
            ys,
            xs,
            es,
        )
        if above > _MAX_COVER * self._energy.size or n == self._most:
            return None
        separate = self._separate[:n]
        mark_separate(self._blurred, ys[:n], xs[:n], es[:n], self._same_cell, self._settings.saddle, separate)
        centre = np.float32((self._block - 1) / 2)
        y_px = ys[:n][separate] * np.float32(self._block) + centre
        x_px = xs[:n][separate] * np.float32(self._block) + centre
        return Detections(y_px, x_px, es[:n][separate] / np.float32(self._noise))

    def contrasts(
        self, image: Grey, background: Grey, gain: float, y_px: Floats32, x_px: Floats32
    ) -> Floats32:
        """Return the `peak_contrasts` near places (camera pixels, shape (n,)) in any frame, shape (n,)."""
        ys, xs = self._to_blocks(y_px), self._to_blocks(x_px)
        out = np.empty(len(ys), np.float32)
        peak_contrasts(image, background, np.float32(gain), self._block, self._radius, ys, xs, out)
        return out

    def log_energy_at(self, y_px: Floats, x_px: Floats) -> Floats:
        """Return the logarithm of the last frame's blurred energy, in multiples of the noise's.

        Places are camera pixels, shape (n,); beyond the field the nearest place in it counts.
        """
        height, width = self._blurred.shape
        i = np.clip(np.rint(self._to_blocks(y_px)).astype(np.int64), 0, height - 1)
        j = np.clip(np.rint(self._to_blocks(x_px)).astype(np.int64), 0, width - 1)
        energy: Floats = np.log(np.maximum(self._blurred[i, j], 1e-6) / self._noise)
        return energy

    def _to_blocks(self, px: NDArray[Any]) -> NDArray[Any]:
        """Camera pixels to blocks, in the precision given."""
        return (px - (self._block - 1) / 2) / self._block
