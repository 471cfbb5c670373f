"""Whether a frame shows the same as those before it: its light, and how sharp its cells are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from napari_rbcflow.compiled import njit
from napari_rbcflow.tracking.background import median
from napari_rbcflow.tracking.motion import Motion
from napari_rbcflow.tracking.positions import difference
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, Bools, Floats, Floats32, Grey

_MIN_STEP = 8  # grey levels over two reference pixels: many times the noise of a background
_MIN_PIXELS, _MIN_SQUARES, _SQUARE_PX = 60, 6, 32
"""Pixels of static features, and the squares that hold them: one cell must not hide half of them."""


class StaticFeatures:
    """Dust, scratches and stuck cells: where the background has detail, and how much of it a frame shows."""

    def __init__(self, pixel_size_um: float) -> None:
        self._step = max(1, round(CROP_PIXEL_SIZE_UM / pixel_size_um))
        self._background: Grey | None = None
        self._left = self._right = np.empty(0, np.int64)
        self._steps = np.empty(0, np.float32)

    def visible_share(self, image: Grey, background: Grey) -> float | None:
        """Return the share of the background's steps along x that a frame shows; None if there are few.

        It is the median over the features, since a passing cell hides some.
        """
        span = 2 * self._step
        if background is not self._background:
            self._background = background
            there = cv2.absdiff(background[:, span:], background[:, :-span]) >= _MIN_STEP
            y, x = np.nonzero(there)
            # Each square's number: a row holds fewer than a thousand.
            squares = len(np.unique(y // (_SQUARE_PX * self._step) * 1000 + x // (_SQUARE_PX * self._step)))
            enough = len(y) >= _MIN_PIXELS and squares >= _MIN_SQUARES
            self._left = (y * background.shape[1] + x)[: len(y) if enough else 0]
            flat = background.ravel()
            self._right = self._left + span
            self._steps = flat[self._right].astype(np.float32) - flat[self._left]
        if not len(self._left):
            return None
        flat = image.ravel()
        steps = flat[self._right].astype(np.float32) - flat[self._left]
        return median(steps / self._steps)


_STEP = 16  # every 16th pixel each way: 6,000 pixels of a frame, of which cells cover a tenth
_DARK_GREY = 12.0
_BRIGHT_GREY = 250.0
_MIN_GAIN, _MAX_GAIN = 0.6, 1.6


def exposure_fault(image: Grey) -> str | None:
    """Say why a frame shows nothing by itself (``dark``, ``saturated``, ``uniform``); None if it may."""
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

    Light multiplies, so that dust and vignetting keep their share.
    """

    def __init__(self) -> None:
        self._background: Grey | None = None
        self._coarse = np.empty((0, 0), np.uint8)
        self._level = 1.0

    def gain(self, image: Grey, background: Grey) -> float:
        """Return the factor by which `image` is brighter than `background`, both shape (height, width)."""
        if background is not self._background:
            self._background = background
            self._coarse = background[::_STEP, ::_STEP].copy()
            self._level = max(1.0, float(np.median(self._coarse)))
        # The median of whole grey levels is whole; the middle half's mean resolves a tenth of a level.
        return 1.0 + float(_middle_half(image[::_STEP, ::_STEP], self._coarse)) / self._level


@njit(cache=True, nogil=True)
def _levels(image: Grey) -> tuple[float, int, int]:
    """Median, minimum and maximum grey."""
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
def _middle_half(image: Grey, background: Grey) -> np.float32:
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
    if gain < _MIN_GAIN:
        return "too-dark"
    if gain > _MAX_GAIN:
        return "too-bright"
    return None


_MIN_CELLS, _MIN_CELLS_ONCE_LOST = 25, 8  # detections of which the sharpest quarter is meaningful
_MIN_SHARPNESS = 0.55
"""Of the sharpest quarter. Movies composed of unreliable real cells have 1.3 and more, the chamber 0.9
and more; 0.35 with the focus far above the cells."""
_MIN_OF_USUAL = 0.5
_MEMORY = 50.0
_MIN_MEASURED = 8  # frames after which the usual sharpness, averaged over at most `_MEMORY`, is meaningful
_POOLED_FRAMES, _MIN_POOLED, _MIN_POOLED_ONCE_LOST = 15, 400, 100
"""Frames of a second, whose cells together show a slow change. Ten detections are one cell: with 250, a field
of 25 cells was called out of focus for 11 frames in 40 s."""
_POOLED_QUANTILE = 0.85
_MIN_POOLED_SHARPNESS = 0.85
"""Of that quantile. Healthy movies: 1.36 and more on the chamber, 2.5 on real cells; 0.8 and less with the
focus 75 um below the usual or 140 above."""
_MIN_OF_SLOW = 0.6
"""Of the average over `_SLOW_FRAMES`, a minute: healthy movies keep 0.85 and more of their mean."""
_SLOW_FRAMES = 900.0
_ANOTHER_FOCUS_FRAMES = 600
"""Measured frames, ten seconds of them, that are less sharp than those before, but not blurred: then
somebody has set another focus, which is the usual one from now on."""
_RADIUS = 9


class SharpnessHistory:
    """The sharpness of the sharpest cells of one run, over a few seconds and over a minute."""

    def __init__(self) -> None:
        self._measured = 0
        self._usual = 0.0
        self._pool: deque[Floats] = deque(maxlen=_POOLED_FRAMES)
        self._pooled = 0
        self._slow = 0.0
        self._less_sharp = 0

    def lost(self, sharpness: Floats, *, already: bool) -> bool:
        """Say whether sharpness was lost, suddenly or slowly, by the `sharpness_of` a frame's detections.

        Fewer cells are enough if the focus was `already` lost in the frame before.
        """
        self._pool.append(sharpness)
        slowly = self._slowly_lost(already)
        gone = self._suddenly_lost(sharpness, already) or slowly
        if gone and self._blurred(sharpness):
            self._less_sharp = 0
        else:
            # At the limit of the usual sharpness a frame passes now and then.
            self._less_sharp = max(0, self._less_sharp + (1 if gone else -2))
        if self._less_sharp > _ANOTHER_FOCUS_FRAMES:
            self._measured = self._pooled = self._less_sharp = 0
            self._usual = self._slow = 0.0
        return gone

    def _blurred(self, sharpness: Floats) -> bool:
        """Whether the cells are not sharp, whatever is usual."""
        if len(sharpness) >= _MIN_CELLS_ONCE_LOST and np.quantile(sharpness, 0.75) < _MIN_SHARPNESS:
            return True
        together = np.concatenate(self._pool)
        return len(together) >= _MIN_POOLED_ONCE_LOST and bool(
            np.quantile(together, _POOLED_QUANTILE) < _MIN_POOLED_SHARPNESS
        )

    def _suddenly_lost(self, sharpness: Floats, already: bool) -> bool:
        if len(sharpness) < (_MIN_CELLS_ONCE_LOST if already else _MIN_CELLS):
            return False
        now = float(np.quantile(sharpness, 0.75))
        if now < _MIN_SHARPNESS:
            return True
        if self._measured >= _MIN_MEASURED and now < _MIN_OF_USUAL * self._usual:
            return True
        self._measured += 1
        self._usual += (now - self._usual) / min(self._measured, _MEMORY)
        return False

    def _slowly_lost(self, already: bool) -> bool:
        together = np.concatenate(self._pool)
        if len(together) < (_MIN_POOLED_ONCE_LOST if already else _MIN_POOLED):
            return False
        now = float(np.quantile(together, _POOLED_QUANTILE))
        if now < max(_MIN_POOLED_SHARPNESS, _MIN_OF_SLOW * self._slow):
            return True
        self._pooled += 1
        self._slow += (now - self._slow) / min(self._pooled, _SLOW_FRAMES)
        return False


@njit(cache=True, fastmath=True, nogil=True)
def _fine_shares(
    image: Grey,
    background: Grey,
    gain: np.float32,
    block: int,
    noise: float,
    y_px: Floats32,
    x_px: Floats32,
    out: Floats,
) -> int:
    """Write fine over whole energy of each cell that is well above the noise; return how many."""
    side = 2 * _RADIUS + 3
    height, width = image.shape
    d = np.zeros((side, side), np.float32)
    n = 0
    half = block * side / 2
    pixels = (side - 2) * (side - 2)
    for k in range(len(y_px)):
        top = int(np.rint(y_px[k] + 0.5 - half))
        left = int(np.rint(x_px[k] + 0.5 - half))
        if top < 0 or left < 0 or top + side * block > height or left + side * block > width:
            continue
        difference(image, background, gain, block, top, left, d)
        fine = np.float32(0)
        whole = np.float32(0)
        for i in range(1, side - 1):
            above, at, under = d[i - 1], d[i], d[i + 1]
            for j in range(1, side - 1):
                gy = under[j] - above[j]
                gx = at[j + 1] - at[j - 1]
                fine += gy * gy + gx * gx
                whole += at[j] * at[j]
        energy = whole - pixels * noise
        if energy > pixels * noise:
            out[n] = (fine - 4 * pixels * noise) / energy
            n += 1
    return n


def sharpness_of(
    image: Grey,
    background: Grey,
    gain: float,
    *,
    noise: float,
    pixel_size_um: float,
    y_px: Floats32,
    x_px: Floats32,
) -> Floats:
    """Return fine over whole energy of the detections well above the noise and wholly in the field.

    Fine energy is the squared differences over two reference pixels, along either axis. `noise` is a pixel's
    standard deviation, grey levels; places are camera pixels.
    """
    block = max(1, round(CROP_PIXEL_SIZE_UM / pixel_size_um))
    out = np.empty(len(y_px))
    n = _fine_shares(image, background, np.float32(gain), block, (noise * block) ** 2, y_px, x_px, out)
    return out[:n]


_SETTLED_DETECTIONS = 5
# cells that must be detected again, as well as the share below, to compare them
_MIN_KNOWN, _MIN_KNOWN_ONCE_LOST = 8, 3
_MIN_SHARE = 0.15
_NEAR_PX = 6.0
_CHANGED = 0.6
"""Median change of the energy's logarithm. From frame to frame at most 0.2 on composed movies of real cells
and on the simulated chamber; 0.75 and more after 20 um of the knob or a blur of 2 px."""
# cells turn while they are not observed: more is allowed for each frame left out
_CHANGED_A_FRAME, _MAX_CHANGED = 0.01, 1.0
_SHARE_OF_SEEN = 0.6  # cells that are still detected changed less than those that sank into the noise
_MEASURED_EVERY = 4
_MIN_OF_STATIC = 0.67
_MAX_BY_STATIC = 120  # frames after which static features that stay changed are those of the field


class Focus:
    """Watches the focus of one run; the field is `length` reference pixels along the flow."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._lost = False
        self._gain = 1.0
        self._sharpness = SharpnessHistory()
        self._since_measured = _MEASURED_EVERY
        self._static = 0.0
        self._frames = 0
        self._by_static = 0

    def lost(
        self,
        x: Floats,
        y: Floats,
        tracks: Motion,
        *,
        elapsed: int,
        gain: float,
        static: float | None,
        log_energy_at: Callable[[Floats, Floats], Floats],
        sharpness: Callable[[], Floats],
    ) -> bool:
        """Say whether a frame is out of focus.

        `x`, `y` are its detections, reference pixels; `tracks` are as `elapsed` frames before; `gain` is that
        of its light over the background's; `static` is its `StaticFeatures.visible_share`; `log_energy_at`
        takes x and y; `sharpness` is only called when it is needed.
        """
        brighter = 2 * float(np.log(gain / self._gain))  # energies go with the square of the light
        changed = self._changed(x, y, tracks, elapsed, lambda x, y: log_energy_at(x, y) - brighter)
        smeared = self._smeared(static)
        self._since_measured += 1
        if changed or smeared:
            self._lost = True
        elif self._lost or self._since_measured >= _MEASURED_EVERY:
            self._since_measured = 0
            self._lost = self._sharpness.lost(sharpness(), already=self._lost)
        if not self._lost:
            self._gain += (gain - self._gain) / 12.0
        return self._lost

    def _changed(
        self,
        x: Floats,
        y: Floats,
        tracks: Motion,
        elapsed: int,
        log_energy_at: Callable[[Floats, Floats], Floats],
    ) -> bool:
        x_now = tracks.x + tracks.v * elapsed
        inside = (x_now > _NEAR_PX) & (x_now < self._length - 2 * _NEAR_PX)
        known = (tracks.misses == 0) & (tracks.n_detections >= _SETTLED_DETECTIONS)
        settled = np.flatnonzero(inside & known)
        kx, ky = x_now[settled], tracks.y[settled]
        again = np.empty(len(kx), np.bool_)
        _found_near(kx, ky, x, y, again)  # for few cells, too, so that `warm_up` compiles it
        least = _MIN_KNOWN_ONCE_LOST if self._lost else _MIN_KNOWN
        if len(settled) < least or not len(x):
            return False
        if again.sum() < max(least, _MIN_SHARE * len(settled)):
            return False  # not the focus: the flow changed, or the cells are gone
        change = np.abs(log_energy_at(kx, ky) - tracks.log_energy[settled])
        most = min(_MAX_CHANGED, _CHANGED + _CHANGED_A_FRAME * (elapsed - 1))
        # Also of those still detected: where cells only vanish, the focus is not the cause.
        return median(change) > most and median(change[again]) > _SHARE_OF_SEEN * most

    def _smeared(self, static: float | None) -> bool:
        if static is None:
            return False
        usual = self._static
        if self._frames and static < _MIN_OF_STATIC * usual and self._by_static < _MAX_BY_STATIC:
            self._by_static += 1
            return True
        if self._by_static >= _MAX_BY_STATIC:
            self._frames = 0
        self._by_static = 0
        self._frames += 1
        self._static += (static - usual) / min(self._frames, _MEMORY)
        return False


@njit(cache=True, nogil=True)
def _found_near(known_x: Floats, known_y: Floats, x: Floats, y: Floats, near: Bools) -> None:
    """Mark known cells that have a detection near them."""
    for i in range(len(known_x)):
        near[i] = False
        for k in range(len(x)):
            if abs(known_x[i] - x[k]) < _NEAR_PX and abs(known_y[i] - y[k]) < _NEAR_PX:
                near[i] = True
                break
