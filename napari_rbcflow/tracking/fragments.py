"""Which tracks may be fragments of one cell: ended tracks are remembered while their cell is in the field.

A track that is lost in mid field, or ended as it could not be told from another, is often followed by a
second track of the same cell. A cell keeps its speed and its height, so the end of one fits the beginning of
the other. This is tested when the later one ends, as its speed is known best then. Two tracks that run side
by side may also share one cell and detect it in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_rbcflow.compiled import njit
from napari_rbcflow.tracking.motion import MEASUREMENT_VARIANCE, SPEED_WALK_VARIANCE, Motion
from napari_rbcflow.types import FRAGMENTS_REMEMBERED, LEAST_FRAMES, Bools, Floats, Ints

_MAX_COST = 36.0
"""Of a pair: six standard deviations in all. A lost track was often misled by its last detections."""
_HEIGHT_VARIANCE = 2.5**2
_ENERGY_VARIANCE = 1.0**2
_SAME_CELL_PX = 18.0
"""Two tracks at the same time may be of one cell if they are never farther apart: far out of focus,
detection can find a cell now on its one side, now on the other."""
_BY_TURNS = 1.5
"""Sum of the shares of frames in which each was detected: two cells side by side are detected in most."""
_MAX_SIGMA = 4.0  # a cell has left the field when it must have, at this many standard deviations
_MAX_TRACKS = FRAGMENTS_REMEMBERED // 2
"""Tracks remembered, whatever moves in the field; those that end at once come on top."""
# Columns: x, v and their covariance are those of frame `_WHEN`; tracks of a group are indistinguishable.
_CELL, _WHEN, _FIRST, _FOUND, _X_FIRST, _X, _V, _Y, _ENERGY, _PXX, _PXV, _PVV, _SHARE, _GROUP = range(14)


class EndedTracks:
    """Tracks that ended while their cell may still be in the field, `length` reference pixels long."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._rows = np.empty((0, 14))
        self._groups = 0

    def __len__(self) -> int:
        return len(self._rows)

    def end(
        self, frame: int, motion: Motion, ending: Ints, ambiguous: Sequence[tuple[int, int]] = ()
    ) -> list[tuple[int, ...]]:
        """Take in tracks that end together, and return for each which earlier ones may be of its cell.

        `ending` says which of the open tracks (`motion`, at `frame`) end. What may continue one of an
        `ambiguous` pair, indices into `motion`, may continue the other. Returns track numbers, ascending.
        """
        m, n = motion, len(self._rows)
        columns = (
            *(m.cell, np.full(len(m), frame), m.first, m.found, m.x_first, m.x, m.v, m.y, m.log_energy),
            *(m.pxx, m.pxv, m.pvv, m.n_detections / (m.found - m.first + 1), np.zeros(len(m))),
        )
        # Row by row in memory: for another order the kernels would be compiled again in mid run.
        new = np.stack([column[ending] for column in columns], -1, dtype=np.float64)
        if ambiguous:
            new[:, _GROUP] = self._grouped(ending.tolist(), ambiguous)
        self._rows = rows = np.concatenate([self._rows, new])
        fits = np.zeros((len(new), len(rows)), np.bool_)
        _fit(rows, n, fits)
        found = [
            tuple(sorted(rows[fit, _CELL].astype(np.int64).tolist())) if fit.any() else () for fit in fits
        ]
        self._forget(frame)
        return found

    def _grouped(self, ending: list[int], ambiguous: Sequence[tuple[int, int]]) -> list[int]:
        group = dict.fromkeys(ending, 0)
        for pair in ambiguous:
            self._groups += 1
            merged = {group[i] for i in pair} - {0}
            for i, g in group.items():
                if i in pair or g in merged:
                    group[i] = self._groups
        return list(group.values())

    def _forget(self, frame: int) -> None:
        there = np.zeros(len(self._rows), np.bool_)
        _may_be_in_field(self._rows, float(frame), self._length, there)
        there[: max(0, len(there) - _MAX_TRACKS)] = False
        if not there.all():
            self._rows = self._rows[there]


@njit(cache=True, nogil=True)
def _cost(early: Floats, late: Floats) -> float:
    """Return how badly `late` begins where `early` goes: 0 if they run side by side for long.

    It is infinite if `late` begins first, or if both are detected at once too far apart.
    """
    dy = late[_Y] - early[_Y]
    if abs(dy) >= _SAME_CELL_PX or late[_FIRST] < early[_FIRST]:
        return np.inf
    last = min(late[_FOUND], early[_FOUND])
    if late[_FIRST] <= last:
        # Both are tracked at once: how far apart are they in the first and last of these frames?
        at_last = early[_X] + early[_V] * (last - early[_WHEN])
        apart = abs(at_last - late[_X] - late[_V] * (last - late[_WHEN]))
        share = (late[_FIRST] - early[_FIRST]) / max(last - early[_FIRST], 1.0)
        apart = max(apart, abs(early[_X_FIRST] + share * (at_last - early[_X_FIRST]) - late[_X_FIRST]))
        if apart * apart + dy * dy >= _SAME_CELL_PX * _SAME_CELL_PX:
            return np.inf
        if last - late[_FIRST] + 1 >= LEAST_FRAMES:
            return 0.0 if early[_SHARE] + late[_SHARE] < _BY_TURNS else np.inf
    gap = late[_FIRST] - early[_WHEN]
    walk = SPEED_WALK_VARIANCE * abs(gap)
    dx = late[_X_FIRST] - early[_X] - early[_V] * gap
    dv = late[_V] - early[_V]
    de = late[_ENERGY] - early[_ENERGY]
    xx = early[_PXX] + 2 * gap * early[_PXV] + gap * gap * (early[_PVV] + walk / 3) + MEASUREMENT_VARIANCE
    xv = early[_PXV] + gap * early[_PVV] + walk * gap / 2
    vv = early[_PVV] + walk + late[_PVV] + SPEED_WALK_VARIANCE * (late[_FOUND] - late[_FIRST])
    cost = (vv * dx * dx - 2 * xv * dx * dv + xx * dv * dv) / (xx * vv - xv * xv)
    return cost + dy * dy / _HEIGHT_VARIANCE + de * de / _ENERGY_VARIANCE  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _fit(rows: Floats, n: int, fits: Bools) -> None:
    """For each row from `n` on, mark the earlier ones that may be of its cell."""
    for k in range(n, len(rows)):
        fit = fits[k - n]
        for j in range(k):
            fit[j] = _cost(rows[j], rows[k]) < _MAX_COST or _cost(rows[k], rows[j]) < _MAX_COST
        for j in range(k):
            if fit[j] and rows[j, _GROUP] > 0:
                for i in range(k):
                    if rows[i, _GROUP] == rows[j, _GROUP] and rows[i, _FOUND] < rows[k, _FIRST]:
                        fit[i] = True


@njit(cache=True, nogil=True)
def _may_be_in_field(rows: Floats, frame: float, length: float, there: Bools) -> None:
    for k in range(len(rows)):
        row = rows[k]
        gap = frame - row[_WHEN]
        xx = row[_PXX] + 2 * gap * row[_PXV] + gap * gap * (row[_PVV] + SPEED_WALK_VARIANCE * gap / 3)
        there[k] = row[_X] + row[_V] * gap - _MAX_SIGMA * np.sqrt(xx) < length
