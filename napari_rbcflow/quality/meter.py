"""Takes the measures of a run as it goes: a few microseconds a frame and a track."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.quality.radius import rim_radius_um
from napari_rbcflow.quality.sums import RADIUS_BINS, RADIUS_STEP_UM, Sums, speed_bin
from napari_rbcflow.types import Judgement, Track

RECENT_S = 15
"""Seconds of camera time that "now" means: 1,500 tracks at the paper's load, 50 of them reliable."""
_SAMPLED_PX = 6000
_RADIUS_OF_EVERY = 8
"""Of unreliable tracks one in so many is measured; of reliable ones each."""
_BLOCK_TRACKS = 40
"""Reliable tracks whose median speed is compared with that of other times of the run."""


class Meter:
    """Adds up what tells a run's quality. Frames from one thread, tracks from another, read from any.

    Parameters
    ----------
    fps, pixel_size_um : float
        Of the camera.

    Attributes
    ----------
    block_speeds : (float, float) or None
        Least and greatest median speed of `_BLOCK_TRACKS` reliable tracks in a row, um/s.
    light : (float, float) or None
        Least and greatest light, the mean of a second, grey.
    light_change : float
        Greatest change of light from one second to the next, as a share of the light.
    """

    def __init__(self, *, fps: float, pixel_size_um: float) -> None:
        self._um_per_s_of_px = fps * pixel_size_um
        self._lock = threading.Lock()
        self._before = Sums()  # all but the seconds in `_recent` and the one at hand
        self._recent: deque[Sums] = deque()
        self._now = Sums()
        self._second = 0
        self._level: float | None = None
        self._levels = 0.0, 0
        self._last_second: float | None = None
        self._block: list[float] = []
        self._unreliable = 0
        self.block_speeds: tuple[float, float] | None = None
        self.light: tuple[float, float] | None = None
        self.light_change = 0.0

    # ------------------------------------------------------------------- frames

    def add_frame(self, image: NDArray[np.uint8], time_s: float, open_tracks: int | None) -> None:
        """Take in a frame that was tracked.

        Parameters
        ----------
        image : ndarray of uint8, shape (height, width)
        time_s : float
            Of the camera.
        open_tracks : int or None
            Cells that are followed in it; None while the background is not known yet.
        """
        step = max(1, int(np.sqrt(image.size / _SAMPLED_PX)))
        sampled = np.bincount(image[::step, ::step].ravel(), minlength=256)
        level = float(sampled @ _GREYS) / float(sampled.sum())
        with self._lock:
            if int(time_s) != self._second:
                self._turn(int(time_s))
            now = self._now
            now.frames += 1
            if open_tracks is not None:
                now.tracked_frames += 1
                now.open_tracks += open_tracks
            now.greys += sampled
            if self._level:
                now.flicker += (level / self._level - 1.0) ** 2
                now.flicker_frames += 1
            self._level = level
            self._levels = self._levels[0] + level, self._levels[1] + 1

    def _turn(self, second: int) -> None:
        """Close the second at hand."""
        self._second = second
        self._recent.append(self._now)
        self._now = Sums()
        while len(self._recent) > RECENT_S:
            self._before.add(self._recent.popleft())
        total, n = self._levels
        self._levels = 0.0, 0
        if not n:
            return
        mean = total / n
        least, most = self.light or (mean, mean)
        self.light = min(least, mean), max(most, mean)
        if self._last_second:
            self.light_change = max(self.light_change, abs(mean / self._last_second - 1.0))
        self._last_second = mean

    # ------------------------------------------------------------------- tracks

    def add_tracks(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        """Take in tracks that were judged, or left uncounted."""
        for track, judgement in pairs:
            judged, reliable = judgement.p_reliable is not None, judgement.p_tank_treading is not None
            speed = abs(track.speed_px_per_frame()) * self._um_per_s_of_px
            radius = None
            if judged:
                self._unreliable += not reliable
                if reliable or self._unreliable % _RADIUS_OF_EVERY == 0:
                    radius = rim_radius_um(track)
            with self._lock:
                now = self._now
                now.tracks += 1
                now.too_short += track.too_short
                if not judged:
                    continue
                now.judged += 1
                now.positions += len(track)
                now.intruded += int(np.count_nonzero(track.intruded))
                if radius is not None:
                    place = min(RADIUS_BINS - 1, int(radius / RADIUS_STEP_UM))
                    (now.radii if reliable else now.other_radii)[place] += 1
                if reliable:
                    now.reliable += 1
                    now.speeds[speed_bin(speed)] += 1
                    self._add_to_block(speed)

    def _add_to_block(self, speed: float) -> None:
        self._block.append(speed)
        if len(self._block) < _BLOCK_TRACKS:
            return
        median = float(np.median(self._block))
        self._block.clear()
        least, most = self.block_speeds or (median, median)
        self.block_speeds = min(least, median), max(most, median)

    # -------------------------------------------------------------------- views

    def sums(self, *, recent: bool = False) -> Sums:
        """Return what was added up, over the whole run or its last `RECENT_S` seconds."""
        total = Sums()
        with self._lock:
            if not recent:
                total.add(self._before)
            for second in (*self._recent, self._now):
                total.add(second)
        return total


_GREYS = np.arange(256, dtype=np.float64)
