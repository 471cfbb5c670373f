"""Cells in one frame: the variance filter of Darrin et al. 2023, its noise, and its maxima.

The difference from the background is summed over blocks of two reference pixels, squared and blurred:
the local variance about the empty field, which sees a faint cell, a defocused one of either sign and
one in focus alike. The sum comes first because a cell is wider than a block, so that it grows fourfold and
the noise only twofold. What stands above the noise and is a local maximum is a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.tracking.contrast import RADIUS_PX, greatest_contrast
from napari_rbcflow.tracking.energy import block_energy, maxima, standing_apart
from napari_rbcflow.tracking.middle import median
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM

_LEAST_FIELD_UM2 = 500.0
"""Field for each detection: four times as crowded as the paper's densest, no frame of single cells."""
_FAMILY_PX = 20.0
"""Maxima of one cell, the rings of a defocused one say, lie no farther apart than this."""
_LEAST_NOISE = 0.02
"""Grey levels squared: a camera without noise still rounds to whole levels."""
_ALIEN = 4.0
"""A frame of which half has this many times the noise's energy does not belong to its background."""
_GREATEST_COVER = 0.5
"""Share of the field above the threshold beyond which a frame is unlike its background."""


@dataclass(slots=True, frozen=True, eq=False)
class Detections:
    """Cells seen in one frame.

    Attributes
    ----------
    y_px, x_px : ndarray of float32, shape (n,)
        Centres in camera pixels.
    energy : ndarray of float32, shape (n,)
        Blurred squared difference at the centre, in multiples of the noise's.
    """

    y_px: NDArray[np.float32]
    x_px: NDArray[np.float32]
    energy: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.x_px)


class Detector:
    """Finds cells in frames of one size. Its buffers are its own: one detector, one thread.

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
        self._most = 100 + int(height * width * pixel_size_um**2 / _LEAST_FIELD_UM2)
        self._found = np.empty((3, self._most), np.float32)
        self._radius = max(1, round(RADIUS_PX / unit))
        self._family = _FAMILY_PX / unit
        self._apart = np.empty(self._most, np.bool_)
        self._noise = 0.0

    @property
    def noise(self) -> float:
        """Standard deviation of a pixel against the background, grey levels; 0 before the first frame."""
        return float(np.sqrt(self._noise)) / self._block

    def detect(
        self, image: NDArray[np.uint8], background: NDArray[np.uint8], gain: float
    ) -> Detections | None:
        """Find the cells of one frame.

        Parameters
        ----------
        image, background : ndarray of uint8, shape (height, width)
        gain : float
            Of the frame's light over the background's.

        Returns
        -------
        Detections or None
            None where half the field differs, or more is found than single cells could be: the frame does not
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
        # The median over the field is the noise's own while cells cover less than half of it; smoothed
        # over some fifty frames. It follows a lasting change, and no single frame moves it far.
        now = max(median(self._blurred[::8, ::8]), _LEAST_NOISE * self._block**2)
        if not self._noise:
            self._noise = now
        alien = now > _ALIEN * self._noise
        self._noise += 0.02 * (min(now, _ALIEN * self._noise) - self._noise)
        if alien:
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
        if above > _GREATEST_COVER * self._energy.size or n == self._most:
            return None
        apart = self._apart[:n]
        standing_apart(self._blurred, ys[:n], xs[:n], es[:n], self._family, self._settings.saddle, apart)
        centre = np.float32((self._block - 1) / 2)
        y_px = ys[:n][apart] * np.float32(self._block) + centre
        x_px = xs[:n][apart] * np.float32(self._block) + centre
        return Detections(y_px, x_px, es[:n][apart] / np.float32(self._noise))

    def contrasts(
        self,
        image: NDArray[np.uint8],
        background: NDArray[np.uint8],
        gain: float,
        y_px: NDArray[np.float32],
        x_px: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """How clearly something stands out near each place (`contrast.greatest_contrast`), of any frame.

        Parameters
        ----------
        image, background : ndarray of uint8, shape (height, width)
        gain : float
        y_px, x_px : ndarray of float32, shape (n,)
            Camera pixels.

        Returns
        -------
        ndarray of float32, shape (n,)
        """
        centre = np.float32((self._block - 1) / 2)
        ys = (y_px - centre) / np.float32(self._block)
        xs = (x_px - centre) / np.float32(self._block)
        out = np.empty(len(ys), np.float32)
        greatest_contrast(image, background, np.float32(gain), self._block, self._radius, ys, xs, out)
        return out

    def log_energy_at(self, y_px: NDArray[np.float64], x_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of the last frame's blurred energy at any place, in multiples of the noise's.

        Parameters
        ----------
        y_px, x_px : ndarray of float64, shape (n,)
            Camera pixels; beyond the field the nearest place in it counts.
        """
        height, width = self._blurred.shape
        centre = (self._block - 1) / 2
        i = np.clip(np.rint((y_px - centre) / self._block).astype(np.int64), 0, height - 1)
        j = np.clip(np.rint((x_px - centre) / self._block).astype(np.int64), 0, width - 1)
        energy: NDArray[np.float64] = np.log(np.maximum(self._blurred[i, j], 1e-6) / self._noise)
        return energy
