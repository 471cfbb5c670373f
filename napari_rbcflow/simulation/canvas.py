"""Light, dust, noise and cells, summed to a frame in integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.compiled import njit
from napari_rbcflow.simulation.library import SpriteLibrary
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.types import Floats, Floats32, Grey, Ints

GREY_ONE = 16  # one grey value in the integers of the canvas
_GAIN_ONE = 4096
_CONTRAST_SHIFT = 12


@njit(cache=True, nogil=True)
def add_cells(
    canvas: NDArray[np.int16],
    light: NDArray[np.int16],
    pictures: NDArray[np.int16],
    start: Ints,
    sides: Ints,
    x: Floats,
    y: Floats,
) -> None:
    """Add sprites to a canvas (`GREY_ONE` a grey value), each scaled by the light at its place.

    `start` and `sides` say where each sprite begins in `pictures` (as in `SpriteLibrary`) and how wide it is;
    `x`, `y` are centres in pixels, y on the half-pixel grid.
    """
    height, width = canvas.shape
    for c in range(len(x)):
        side = sides[c]
        area = side * side
        # Sprites hold every second sample in each of four phases: find the two to the left and right
        # of this cell's pixels, and their weights.
        twice = 2.0 * x[c]
        ceiling = int(np.ceil(twice))
        right = np.int32(256 * (ceiling - twice) + 0.5)
        left = np.int32(256) - right
        if ceiling % 2 == 0:
            x_first, near, far, step = ceiling // 2 - side // 2, 0, 1, 0
        else:
            x_first, near, far, step = (ceiling + 1) // 2 - side // 2, 1, 0, 1
        row = int(np.round(2.0 * y[c]))
        if row % 2 == 0:
            y_first, phase = row // 2 - side // 2, 0
        else:
            y_first, phase = (row + 1) // 2 - side // 2, 1
        base = start[c] + phase * 2 * area
        yy = min(max(int(y[c]), 0), height - 1)
        xx = min(max(int(x[c]), 0), width - 1)
        bright = np.int32(light[yy, xx])
        j_low = max(0, -x_first)
        n = min(side - step, width - x_first) - j_low
        if n <= 0:
            continue
        for i in range(max(0, -y_first), min(side, height - y_first)):
            # Slices that all begin at 0, or the compiler does not vectorise.
            first_a = base + near * area + i * side + j_low
            first_b = base + far * area + i * side + j_low + step
            a = pictures[first_a : first_a + n]
            b = pictures[first_b : first_b + n]
            line = canvas[y_first + i, x_first + j_low : x_first + j_low + n]
            for j in range(n):
                value = (np.int32(a[j]) * left + np.int32(b[j]) * right) >> 8
                line[j] += np.int16((value * bright) >> _CONTRAST_SHIFT)


@njit(cache=True, nogil=True)
def _develop(
    out: Grey, canvas: NDArray[np.int16], light: NDArray[np.int16], noise: NDArray[np.int8], gain: int
) -> None:
    """Sum to grey, and clear the canvas for the next frame."""
    lit, drawn, grey = light.ravel(), canvas.ravel(), out.ravel()
    factor = np.int32(gain)
    for k in range(grey.size):
        value = ((np.int32(lit[k]) * factor) >> 12) + np.int32(drawn[k]) + np.int32(noise[k]) + 8
        grey[k] = np.uint8(min(max(int(value) >> 4, 0), 255))
        drawn[k] = 0


def add_library_cells(
    canvas: NDArray[np.int16],
    light: NDArray[np.int16],
    library: SpriteLibrary,
    kind: Ints,
    x: Floats,
    y: Floats,
    phase: Floats,
) -> None:
    """Add cells of the library, each in the image nearest its phase, as `add_cells` does."""
    count, side = library.count[kind], library.side[kind]
    which = np.rint(phase * count).astype(np.int64) % count
    start = library.first[kind] + which * (4 * side * side)
    add_cells(canvas, light, library.pictures, start, side, x, y)


class Canvas:
    """Renders the frames of one chamber.

    Overlapping cells add their contrasts: to first order thin phase objects do, and their order along the
    line of sight need not be known.
    """

    def __init__(self, settings: ChamberSettings, library: SpriteLibrary) -> None:
        self._settings = settings
        self._library = library
        rng = settings.generator(2)
        self.light = _light(settings, rng)
        # Shot noise: the published crops have 2.3 grey at a light of 103 and 2.6 at 130.
        self.noise_grey = 0.227 * float(np.sqrt(self.light.mean()))
        self._light = np.rint(self.light * GREY_ONE).astype(np.int16)
        self._canvas = np.zeros((settings.height, settings.width), np.int16)
        pixels = settings.height * settings.width
        self._pixels = pixels
        # Twice as long as a frame, and read from a random place each time.
        noise = rng.standard_normal(2 * pixels, dtype=np.float32) * (self.noise_grey * GREY_ONE)
        self._noise = np.clip(np.rint(noise), -127, 127).astype(np.int8)
        self._drift_frames = settings.fps * rng.uniform(20.0, 60.0)
        self._flicker_frames = settings.fps * rng.uniform(2.0, 6.0)

    def gain(self, index: int) -> float:
        """Return the brightness of frame `index` over the mean: the lamp drifts and flickers by 0.5 %."""
        turn = 2.0 * np.pi * index
        return float(
            1.0 + 0.004 * np.sin(turn / self._drift_frames) + 0.0015 * np.sin(turn / self._flicker_frames)
        )

    def render(self, index: int, kind: Ints, x: Floats, y: Floats, phase: Floats) -> Grey:
        """Return frame `index`, a new array; centres `x`, `y` in pixels, y on the half-pixel grid."""
        add_library_cells(self._canvas, self._light, self._library, kind, x, y, phase)
        out = np.empty(self._canvas.shape, np.uint8)
        place = int(self._settings.generator(3, index).integers(self._pixels))
        noise = self._noise[place : place + self._pixels]
        _develop(out, self._canvas, self._light, noise, round(self.gain(index) * _GAIN_ONE))
        return out


def _light(settings: ChamberSettings, rng: np.random.Generator) -> Floats32:
    """Return uneven light between 101 and 141 grey, with dust that does not move."""
    height, width = settings.height, settings.width
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    y0, x0 = rng.uniform(-0.4, 0.4, 2)
    slope = rng.uniform(-1.5, 1.5, 2)
    even = rng.uniform(104.0, 135.0) - 2.0 * ((x - x0) ** 2 + (y - y0) ** 2)
    light: Floats32 = np.clip(even + slope[0] * x + slope[1] * y, 101.0, 141.0).astype(np.float32)
    for _ in range(int(rng.poisson(40e-6 * height * width))):
        radius = float(rng.uniform(1.0, 4.0))
        reach = int(5 * radius) + 2
        cy, cx = int(rng.integers(0, height)), int(rng.integers(0, width))
        rows = slice(max(0, cy - reach), min(height, cy + reach + 1))
        columns = slice(max(0, cx - reach), min(width, cx + reach + 1))
        yy, xx = np.mgrid[rows, columns]
        r2 = ((yy - cy) ** 2 + (xx - cx) ** 2) / radius**2
        # A speck is dark with a faint bright ring, as defocus leaves it.
        ring = np.exp(-((np.sqrt(r2) - 2.5) ** 2))
        light[rows, columns] -= float(rng.uniform(5.0, 25.0)) * (np.exp(-r2 / 2) - 0.25 * ring)
    return light
