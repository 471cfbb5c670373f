"""The field without cells: the pixelwise median of frames in which cells keep moving."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, Floats, Floats32, Grey


def median(values: NDArray[np.floating[Any]]) -> float:
    """Return the median of values without NaN, the same as `numpy.median`'s, but faster."""
    flat = values.ravel()
    half = len(flat) // 2
    parted = np.partition(flat, half)
    if len(flat) % 2:
        return float(parted[half])
    return float((parted[:half].max() + parted[half]) / 2)


_ROWS_AT_ONCE = 32  # the stripes of 25 samples stay in the second-level cache

_Comparator = tuple[int, int, bool, bool]
"""Wires a < b, and whether the smaller (to a) and the greater (to b) are needed later on."""


@lru_cache(maxsize=128)
def _median_network(n: int) -> tuple[_Comparator, ...]:
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    needed = {(n - 1) // 2}
    kept: list[_Comparator] = []
    for a, b in reversed(pairs):
        if a in needed or b in needed:
            kept.append((a, b, a in needed, b in needed))
            needed |= {a, b}
    return tuple(reversed(kept))


def median_rows(samples: Grey, out: Grey, first: int, last: int) -> None:
    """Write the median over m samples (m, height, width) of rows `first` to `last` (exclusive) into `out`.

    For an even m the lower of the two middle values is taken, a grey level that really occurred.
    """
    n = len(samples)
    network = _median_network(n)
    for row in range(first, last, _ROWS_AT_ONCE):
        end = min(row + _ROWS_AT_ONCE, last)
        wires = [samples[i, row:end].copy() for i in range(n)]
        spare = np.empty_like(wires[0])
        for a, b, smaller, greater in network:
            if smaller and greater:
                np.minimum(wires[a], wires[b], out=spare)
                np.maximum(wires[a], wires[b], out=wires[b])
                wires[a], spare = spare, wires[a]
            elif smaller:
                np.minimum(wires[a], wires[b], out=wires[a])
            else:
                np.maximum(wires[a], wires[b], out=wires[b])
        out[row:end] = wires[(n - 1) // 2]


MIN_SAMPLES = 20  # minimum frames of a background over a movie: with fewer, a slow cell can be the median


class Background(Protocol):
    """An estimate of the field without cells; it depends only on the frames added and their order."""

    @property
    def ready(self) -> bool:
        """Whether there is an `image`."""

    @property
    def image(self) -> Grey:
        """The present estimate, shape (height, width); read-only, and replaced on change."""

    def add(self, image: Grey) -> None:
        """Add a frame, shape (height, width), that has light on it, in the frames' order."""

    def settle(self) -> None:
        """Make an estimate from what was added so far, as no more will come."""


class MovieBackground:
    """The median of frames spread over a whole recorded movie, as in Darrin et al. 2023 (100 of them).

    Parameters
    ----------
    samples : ndarray of uint8, shape (m, height, width)
        As `RecordedSource.sample(100)` gives them.

    Raises
    ------
    BadInput
        If there are fewer than `MIN_SAMPLES` samples, or they are not 8-bit grey.
    """

    def __init__(self, samples: Grey) -> None:
        if samples.ndim != 3 or samples.dtype != np.uint8:
            raise BadInput("tracking.background-needs-grey")
        if len(samples) < MIN_SAMPLES:
            raise BadInput("tracking.movie-too-short", frames=len(samples), least=MIN_SAMPLES)
        self._image = np.empty(samples.shape[1:], np.uint8)
        median_rows(samples, self._image, 0, samples.shape[1])

    @property
    def ready(self) -> bool:
        """Always true."""
        return True

    @property
    def image(self) -> Grey:
        """The median, shape (height, width)."""
        return self._image

    def add(self, image: Grey) -> None:
        """Do nothing: the whole movie was seen."""

    def settle(self) -> None:
        """Do nothing."""


class SlidingBackground:
    """The median of frames spread over the last seconds, the only one possible live.

    The first estimate is ready after `first_s`, from densely spaced samples. From then on a frame replaces
    the oldest sample every `span_s` / `samples` seconds, and the next estimate is computed stripe by stripe
    as frames come in, so that no frame takes long. A stuck cell becomes background within half of `span_s`.

    Parameters
    ----------
    height, width : int
    fps : float
        Frames per second.
    samples : int
        Frames in the median; odd.
    span_s : float
        Time that they are spread over.
    first_s : float
        Time until the first estimate.

    Raises
    ------
    BadInput
        If `samples` is even or below 3, or a time or the frame rate is out of range.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        fps: float = 60.0,
        samples: int = 25,
        span_s: float = 8.0,
        first_s: float = 0.75,
    ) -> None:
        if samples < 3 or samples % 2 == 0:
            raise BadInput("tracking.samples-not-odd")
        if not 0 < first_s <= span_s or fps <= 0:
            raise BadInput("tracking.background-times")
        self._spacing = max(1, round(span_s * fps / samples))
        # Dense for the first estimate, then stretched to the span.
        self._first_spacing = max(1, -(-round(first_s * fps) // samples))
        self._ring = np.empty((samples, height, width), np.uint8)
        self._kept = 0
        self._added = 0
        self._image: Grey | None = None
        self._next = np.empty((height, width), np.uint8)
        self._rows_done = height
        self._rows_a_frame = -(-height // self._spacing)

    @property
    def ready(self) -> bool:
        """Whether the samples of the first estimate are complete."""
        return self._image is not None

    @property
    def image(self) -> Grey:
        """The present estimate, shape (height, width)."""
        if self._image is None:
            raise RuntimeError(say("tracking.background-not-ready"))
        return self._image

    def add(self, image: Grey) -> None:
        """Add a frame, shape (height, width)."""
        spacing = self._spacing if self.ready else self._first_spacing
        if self._added % spacing == 0:
            self._advance(len(self._next))
            self._ring[self._kept % len(self._ring)] = image
            self._kept += 1
            if self.ready:
                self._rows_done = 0
        self._added += 1
        if self.ready:
            self._advance(self._rows_a_frame)
        elif self._kept == len(self._ring):
            self._settle_on(self._ring)

    def settle(self) -> None:
        """Make the first estimate from the samples so far, if there are any."""
        if not self.ready and self._kept:
            self._settle_on(self._ring[: self._kept])

    def _settle_on(self, samples: Grey) -> None:
        first = np.empty_like(self._next)
        median_rows(samples, first, 0, len(first))
        self._image = first
        self._added = 1

    def _advance(self, rows: int) -> None:
        height = len(self._next)
        if self._rows_done < height:
            last = min(self._rows_done + rows, height)
            median_rows(self._ring, self._next, self._rows_done, last)
            self._rows_done = last
            if last == height:
                # A new array, as the old estimate may still be in use.
                self._image, self._next = self._next, np.empty_like(self._next)


_TILE_PX, _COARSE_PX = 32, 8
_LEAST_TILT = 0.02
"""Change of the light across a cell's picture from which on the light is evened out: the networks then take
fewer cells for reliable ones. Composed movies of real cells and simulated chambers have 0.003 and less."""
_DEGREES = np.add.outer(np.arange(5), np.arange(5)) <= 4  # powers of y and x in the smooth surface


class Evenness:
    """Evens out light that falls off steeply towards a side or the edges; leaves any other light alone.

    Once it was steep, every frame of the run is evened out. The fall-off is a smooth surface through the
    background: what is smaller than a field's half, such as dust, stays.
    """

    def __init__(self, pixel_size_um: float) -> None:
        self._crop_px = CROP_SIDE * CROP_PIXEL_SIZE_UM / pixel_size_um
        self._background: Grey | None = None
        self._even: Grey | None = None
        self._gain: Floats32 | None = None
        self.falloff: float | None = None
        """Share by which the darkest part of the field is darker than the brightest; None before a frame."""

    def of(self, image: Grey, background: Grey) -> tuple[Grey, Grey]:
        """Return a frame and its background, both in even light: themselves if theirs is."""
        if background is not self._background:
            self._background = background
            fit, (height, width) = _fit_light(background), background.shape
            coarse = _surface(fit, height // _COARSE_PX, width // _COARSE_PX)
            self.falloff = float(1 - np.exp(coarse.min() - coarse.max()))
            tilt = np.hypot(*np.gradient(coarse)) * (self._crop_px / _COARSE_PX)
            if self._gain is not None or tilt.max() > _LEAST_TILT:
                # What is bright stays as it is.
                gain = np.exp(np.quantile(coarse, 0.9) - _surface(fit, height, width))
                self._gain = gain.astype(np.float32)
                self._even = self._evened(background)
        if self._even is None:
            return image, background
        return self._evened(image), self._even

    def _evened(self, image: Grey) -> Grey:
        assert self._gain is not None
        return cv2.multiply(image, self._gain, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def _fit_light(image: Grey) -> Floats:
    """Fit a polynomial to the logarithm of the light; return its coefficients by power of y and x."""
    rows, columns = (max(2, side // _TILE_PX) for side in image.shape)
    side_y, side_x = image.shape[0] // rows, image.shape[1] // columns
    tiles = image[: rows * side_y, : columns * side_x].reshape(rows, side_y, columns, side_x)
    level = np.median(tiles[:, 2::4, :, 2::4], axis=(1, 3))  # of which dirt is no part
    y, x = _powers(rows), _powers(columns)
    terms = np.einsum("ri,cj->rcij", y, x)[:, :, _DEGREES].reshape(rows * columns, -1)
    light = np.log(np.maximum(level, 1.0)).ravel()
    coefficients = np.zeros(_DEGREES.shape)
    coefficients[_DEGREES] = np.linalg.lstsq(terms, light, rcond=None)[0]
    return coefficients


def _surface(coefficients: Floats, height: int, width: int) -> Floats:
    """Return such a polynomial at the middles of so many rows and columns over the whole field."""
    surface: Floats = _powers(height) @ coefficients @ _powers(width).T
    return surface


def _powers(n: int) -> Floats:
    return np.vander((2 * np.arange(n) + 1) / n - 1, len(_DEGREES), increasing=True)
