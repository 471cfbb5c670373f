"""Whether a frame shows what those before it showed: its light, and how sharp its cells are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.tracking.background import median
from napari_rbcflow.tracking.positions import difference
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

    The light multiplies what it falls on, so that dust and vignetting keep their share.
    """

    def __init__(self) -> None:
        self._background: NDArray[np.uint8] | None = None
        self._coarse = np.empty((0, 0), np.uint8)
        self._level = 1.0

    def gain(self, image: NDArray[np.uint8], background: NDArray[np.uint8]) -> float:
        """Return the factor by which `image` is brighter than `background`, both shape (height, width)."""
        if background is not self._background:
            self._background = background
            self._coarse = background[::_STEP, ::_STEP].copy()
            self._level = max(1.0, float(np.median(self._coarse)))
        # The median of whole grey levels is one itself; the middle half's mean resolves a tenth of one.
        return 1.0 + float(_middle_half(image[::_STEP, ::_STEP], self._coarse)) / self._level


@njit(cache=True, nogil=True)
def _levels(image: NDArray[np.uint8]) -> tuple[float, int, int]:
    """Median, least and greatest grey."""
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
def _middle_half(image: NDArray[np.uint8], background: NDArray[np.uint8]) -> np.float32:
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
    if gain < _LEAST_GAIN:
        return "too-dark"
    if gain > _GREATEST_GAIN:
        return "too-bright"
    return None


Floats = NDArray[np.float64]

_LEAST_CELLS, _LEAST_CELLS_ONCE_LOST = 25, 8
"""Detections of which the sharpest quarter says something."""
_LEAST_SHARPNESS = 0.55
"""Fine over whole energy of the sharpest quarter. Movies composed of unreliable real cells only: 1.3 and
more; the chamber 0.9 and more; 0.35 where the focus stands far above the cells."""
_LEAST_OF_USUAL = 0.5
_MEMORY = 50.0
_LEAST_LOOKS = 8
"""Looks over which the usual sharpness is averaged, and the fewest that say something."""
_POOLED_LOOKS, _LEAST_POOLED, _LEAST_POOLED_ONCE_LOST = 15, 400, 100
"""Looks of a second, whose cells together tell of a slow change. Ten of them are one cell: with 250 a field
of 25 cells was called out of focus for 11 frames in 40 s."""
_POOLED_QUANTILE = 0.85
_LEAST_POOLED_SHARPNESS = 0.85
"""Of that quantile. Healthy movies: 1.36 and more on the chamber, 2.5 on real cells; 0.8 and less where the
focus stands 75 um under the usual or 140 above."""
_LEAST_OF_SLOW = 0.6
"""Of what is usual over `_SLOW_LOOKS`, a minute: healthy movies keep 0.85 and more of their mean."""
_SLOW_LOOKS = 900.0
_ANOTHER_FOCUS_LOOKS = 600
"""Looks, ten seconds of them, that are only less sharp than those before, and not blurred: then somebody
set another focus, and that is what is usual from now on."""
_RADIUS = 9


class UsualSharpness:
    """Remembers how sharp the sharpest cells of one run are, over a few seconds and over a minute."""

    def __init__(self) -> None:
        self._looks = 0
        self._usual = 0.0
        self._pool: deque[Floats] = deque(maxlen=_POOLED_LOOKS)
        self._pooled = 0
        self._slow = 0.0
        self._only_less = 0

    def gone(self, sharpness: Floats, *, lost: bool) -> bool:
        """Say whether the sharpness is gone, at once or slowly.

        Parameters
        ----------
        sharpness : ndarray of float64, shape (n,)
            `sharpness_of` the detections of one more frame.
        lost : bool
            Whether the focus was lost in the frame before: then fewer cells must do.
        """
        self._pool.append(sharpness)
        slowly = self._slowly_gone(lost)
        gone = self._gone_at_once(sharpness, lost) or slowly
        if gone and self._blurred(sharpness):
            self._only_less = 0
        else:
            # At the limit of what is usual a look now and then passes.
            self._only_less = max(0, self._only_less + (1 if gone else -2))
        if self._only_less > _ANOTHER_FOCUS_LOOKS:
            self._looks = self._pooled = self._only_less = 0
            self._usual = self._slow = 0.0
        return gone

    def _blurred(self, sharpness: Floats) -> bool:
        """Whether the cells are not sharp, whatever is usual."""
        if len(sharpness) >= _LEAST_CELLS_ONCE_LOST and np.quantile(sharpness, 0.75) < _LEAST_SHARPNESS:
            return True
        together = np.concatenate(self._pool)
        return len(together) >= _LEAST_POOLED_ONCE_LOST and bool(
            np.quantile(together, _POOLED_QUANTILE) < _LEAST_POOLED_SHARPNESS
        )

    def _gone_at_once(self, sharpness: Floats, lost: bool) -> bool:
        if len(sharpness) < (_LEAST_CELLS_ONCE_LOST if lost else _LEAST_CELLS):
            return False
        now = float(np.quantile(sharpness, 0.75))
        if now < _LEAST_SHARPNESS:
            return True
        if self._looks >= _LEAST_LOOKS and now < _LEAST_OF_USUAL * self._usual:
            return True
        self._looks += 1
        self._usual += (now - self._usual) / min(self._looks, _MEMORY)
        return False

    def _slowly_gone(self, lost: bool) -> bool:
        together = np.concatenate(self._pool)
        if len(together) < (_LEAST_POOLED_ONCE_LOST if lost else _LEAST_POOLED):
            return False
        now = float(np.quantile(together, _POOLED_QUANTILE))
        if now < max(_LEAST_POOLED_SHARPNESS, _LEAST_OF_SLOW * self._slow):
            return True
        self._pooled += 1
        self._slow += (now - self._slow) / min(self._pooled, _SLOW_LOOKS)
        return False


@njit(cache=True, fastmath=True, nogil=True)
def _fine_shares(
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: np.float32,
    block: int,
    noise: float,
    y_px: NDArray[np.float32],
    x_px: NDArray[np.float32],
    out: NDArray[np.float64],
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
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: float,
    *,
    noise: float,
    pixel_size_um: float,
    y_px: NDArray[np.float32],
    x_px: NDArray[np.float32],
) -> Floats:
    """Fine over whole energy of the detections that are well above the noise and whole in the field.

    Parameters
    ----------
    image, background : ndarray of uint8, shape (height, width)
    gain : float
    noise : float
        Standard deviation of a pixel, grey levels.
    pixel_size_um : float
        Of the camera, in the field.
    y_px, x_px : ndarray of float32, shape (n,)
        Camera pixels.

    Returns
    -------
    ndarray of float64, shape (m,)
        Squared differences over two reference pixels, along either axis, over the squares themselves.
    """
    block = max(1, round(CROP_PIXEL_SIZE_UM / pixel_size_um))
    out = np.empty(len(y_px))
    n = _fine_shares(image, background, np.float32(gain), block, (noise * block) ** 2, y_px, x_px, out)
    return out[:n]


_SETTLED_SIGHTS = 5
_LEAST_KNOWN, _LEAST_KNOWN_ONCE_LOST = 8, 3
"""Cells that must be seen again, as well as the share below, to compare them."""
_LEAST_SHARE = 0.15
_NEAR_PX = 6.0
_CHANGED = 0.6
"""Median change of the energy's logarithm. On composed movies of real cells and on the simulated chamber at
most 0.2 from frame to frame; 0.75 and more after 20 um of the knob or a blur of 2 px."""
_CHANGED_A_FRAME, _GREATEST_CHANGED = 0.01, 1.0
"""Cells turn while they are not looked at: more is allowed for each frame left out."""
_SHARE_OF_SEEN = 0.6
"""Cells that are still detected changed less than those that sank into the noise."""
_LOOKED_AT_EVERY = 4
_LEAST_OF_MARKS = 0.67
_LONGEST_BY_MARKS = 120
"""Frames after which marks that stay changed are those of the field."""


@dataclass(slots=True, frozen=True, eq=False)
class KnownCells:
    """Open tracks, put forward to the frame at hand: positions in reference pixels, settled or not."""

    x: Floats
    y: Floats
    log_energy: Floats
    sights: Floats

    def settled(self, length: float) -> NDArray[np.bool_]:
        """Those seen often enough, and not about to leave the field."""
        inside: NDArray[np.bool_] = (
            (self.sights >= _SETTLED_SIGHTS) & (self.x > _NEAR_PX) & (self.x < length - 2 * _NEAR_PX)
        )
        return inside


class Focus:
    """Watches the focus of one run.

    Parameters
    ----------
    length : float
        Of the field along the flow, reference pixels.
    """

    def __init__(self, length: float) -> None:
        self._length = length
        self._lost = False
        self._gain = 1.0
        self._sharpness = UsualSharpness()
        self._since_look = _LOOKED_AT_EVERY
        self._marks = 0.0
        self._frames = 0
        self._by_marks = 0

    def lost(
        self,
        x: Floats,
        y: Floats,
        known: KnownCells,
        *,
        elapsed: int,
        gain: float,
        marks: float | None,
        energy_at: Callable[[Floats, Floats], Floats],
        sharpness: Callable[[], Floats],
    ) -> bool:
        """Say whether a frame is out of focus.

        Parameters
        ----------
        x, y : ndarray of float64, shape (n,)
            Detections, reference pixels.
        known : KnownCells
        elapsed : int
            Frames since `known` were last seen.
        gain : float
            Of the frame's light over the background's: energies go with its square.
        marks : float or None
            `Marks.seen_in` this frame.
        energy_at : callable
            Gives the logarithm of the energy at any x and y of this frame.
        sharpness : callable
            Gives the sharpness of each detection, only where it is asked for.
        """
        brighter = 2 * float(np.log(gain / self._gain))
        changed = self._changed(x, y, known, elapsed, lambda x, y: energy_at(x, y) - brighter)
        smeared = self._smeared(marks)
        self._since_look += 1
        if changed or smeared:
            self._lost = True
        elif self._lost or self._since_look >= _LOOKED_AT_EVERY:
            self._since_look = 0
            self._lost = self._sharpness.gone(sharpness(), lost=self._lost)
        if not self._lost:
            self._gain += (gain - self._gain) / 12.0
        return self._lost

    def _changed(
        self,
        x: Floats,
        y: Floats,
        known: KnownCells,
        elapsed: int,
        energy_at: Callable[[Floats, Floats], Floats],
    ) -> bool:
        settled = np.flatnonzero(known.settled(self._length))
        kx, ky = known.x[settled], known.y[settled]
        again = np.empty(len(kx), np.bool_)
        _found_near(kx, ky, x, y, again)  # for few cells, too, so that `warming` compiles it
        least = _LEAST_KNOWN_ONCE_LOST if self._lost else _LEAST_KNOWN
        if len(settled) < least or not len(x):
            return False
        if again.sum() < max(least, _LEAST_SHARE * len(settled)):
            return False  # the flow changed, or the cells are gone: not the focus
        change = np.abs(energy_at(kx, ky) - known.log_energy[settled])
        most = min(_GREATEST_CHANGED, _CHANGED + _CHANGED_A_FRAME * (elapsed - 1))
        # Of those that are still to be seen, too: where cells only vanish, the focus is not the cause.
        return median(change) > most and median(change[again]) > _SHARE_OF_SEEN * most

    def _smeared(self, marks: float | None) -> bool:
        if marks is None:
            return False
        usual = self._marks
        if self._frames and marks < _LEAST_OF_MARKS * usual and self._by_marks < _LONGEST_BY_MARKS:
            self._by_marks += 1
            return True
        if self._by_marks >= _LONGEST_BY_MARKS:
            self._frames = 0
        self._by_marks = 0
        self._frames += 1
        self._marks += (marks - usual) / min(self._frames, _MEMORY)
        return False


@njit(cache=True, nogil=True)
def _found_near(known_x: Floats, known_y: Floats, x: Floats, y: Floats, near: NDArray[np.bool_]) -> None:
    """Where a detection lies near a known cell."""
    for i in range(len(known_x)):
        near[i] = False
        for k in range(len(x)):
            if abs(known_x[i] - x[k]) < _NEAR_PX and abs(known_y[i] - y[k]) < _NEAR_PX:
                near[i] = True
                break
