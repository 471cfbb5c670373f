"""Cells that pass the one that is tracked, and what they do to the tracker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label, uniform_filter

from napari_rbcflow.sources.chamber.library import SpriteLibrary
from napari_rbcflow.sources.chamber.settings import ChamberSettings
from napari_rbcflow.types import CROP_SIDE

NEAR_PX = 26.0
_FARTHEST_PX = 14
_WINDOW = 5
_SPREAD_GREY = 2.5


class Passers:
    """Neighbours as seen by a cell that moves with `v`: those of other heights overtake or fall back."""

    _REACH = 48.0

    def __init__(
        self,
        length: int,
        v: float,
        library: SpriteLibrary,
        settings: ChamberSettings,
        density: float,
        rng: np.random.Generator,
    ) -> None:
        self._length = length
        speed = np.array([settings.speed_px_per_frame(c.z_um) for c in library.cells])
        far = self._REACH + float(np.abs(speed - v).max()) * length
        area = 2 * far * 2 * self._REACH
        share = library.weight / library.weight.sum()
        a_frame = settings.cells_per_frame * float(library.weight.sum())
        mean = density * a_frame / (settings.height * settings.width) * area
        n = int(rng.poisson(mean))
        self._kind = rng.choice(len(speed), size=n, p=share)
        self._speed, self._v = speed, v
        self._drift = speed[self._kind] * (1 + 0.015 * rng.standard_normal(n)) - v
        self._dx = rng.uniform(-far, far, n)
        self._dy = np.rint(rng.uniform(-2 * self._REACH, 2 * self._REACH, n)) / 2.0
        self._phase = rng.random(n)
        self.followed: int | None = None
        self.followed_frames = slice(0, 0)
        cycle_s = np.array([c.cycle_s for c in library.cells])
        self._turn_of = 1.0 / (cycle_s * settings.fps)
        self._turn = self._turn_of[self._kind]

    def at(
        self, t: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Kinds, offsets x and y from the cell, and phases of those near what is tracked in frame `t`."""
        dx = self._dx + self._drift * t
        near = np.abs(dx - self.place_of_followed(t)[0]) < self._REACH
        phase = (self._phase[near] + self._turn[near] * t) % 1.0
        return self._kind[near], dx[near], self._dy[near], phase

    def led_astray(self, library: SpriteLibrary, rng: np.random.Generator) -> None:
        """Let one visible cell meet the tracked one near an end of the track, and be followed beyond."""
        share = library.weight * library.visible
        kind = int(rng.choice(len(share), p=share / share.sum()))
        n = max(1, round(self._length * rng.uniform(0.03, 0.25)))
        at_start = rng.random() < 0.5
        meets = n - 0.5 if at_start else self._length - n - 0.5
        self.followed_frames = slice(0, n) if at_start else slice(self._length - n, self._length)
        self.followed = len(self._kind)
        drift = float(self._speed[kind] * (1 + 0.015 * rng.standard_normal()) - self._v)
        self._kind = np.append(self._kind, kind)
        self._drift = np.append(self._drift, drift)
        self._dx = np.append(self._dx, rng.uniform(-4.0, 4.0) - drift * meets)
        self._dy = np.append(self._dy, round(2 * rng.normal(0.0, 4.0)) / 2.0)
        self._phase = np.append(self._phase, rng.random())
        self._turn = np.append(self._turn, self._turn_of[kind])

    def place_of_followed(self, t: int) -> tuple[float, float]:
        """Where the tracker looks in frame `t`, relative to the cell."""
        if self.followed is None or not self.followed_frames.start <= t < self.followed_frames.stop:
            return 0.0, 0.0
        return float(self._dx[self.followed] + self._drift[self.followed] * t), float(self._dy[self.followed])


def blob_centre(drawn: NDArray[np.float64]) -> tuple[int, int]:
    """Return how far from the middle a tracker by local variance sees the object there, pixels x and y.

    The published tracks were made so: objects that touch are one, and the crop stands on the middle of
    both.

    Parameters
    ----------
    drawn : ndarray of float64, shape (n, n)
        Grey of the cells alone, n odd.
    """
    mean = uniform_filter(drawn, _WINDOW)
    spread = uniform_filter(drawn * drawn, _WINDOW) - mean * mean
    blobs, n = label(spread > _SPREAD_GREY**2)
    half = drawn.shape[0] // 2
    reach = CROP_SIDE // 4
    inside = blobs[half - reach : half + reach + 1, half - reach : half + reach + 1]
    if n == 0 or not inside.any():
        return 0, 0
    rows, columns = find_objects(blobs)[int(np.bincount(inside[inside > 0]).argmax()) - 1]
    x = round((columns.start + columns.stop - 1) / 2 - half)
    y = round((rows.start + rows.stop - 1) / 2 - half)
    return int(np.clip(x, -_FARTHEST_PX, _FARTHEST_PX)), int(np.clip(y, -_FARTHEST_PX, _FARTHEST_PX))
