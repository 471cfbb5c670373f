"""Whether a frame is in the focus of those before it.

Three signs, since each is blind where another sees.

- *The same cells look different.* Between two frames a cell hardly changes its energy: half of them by less
  than a fifth. Where someone turns the knob or the stage drops, most change by half and more at once, in
  whatever direction. It needs open tracks, so it says nothing of a focus that was never right.
- *No cell is sharp.* Of a suspension some cells always stand near the focus. Where even the sharpest quarter
  has no fine detail, or half of what it had, the focus lies outside the suspension. So it does where that
  of a second's cells together is little, or much less than in the minute before: a focus that drifts.
- *The marks that never move are blurred.* Dust and scratches are as fine in every frame as in the
  background. Where they lose a third of that, the picture is blurred, with or without cells in it.

The first two need a number of cells: of a field with few cells or none they say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.tracking.middle import median
from napari_rbcflow.tracking.sharpness import UsualSharpness

Floats = NDArray[np.float64]

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
_MEMORY = 50.0
"""Frames over which the marks' usual share is averaged."""
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
