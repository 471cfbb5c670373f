"""Which tracks may be pieces of one cell: those that ended are remembered while their cell is in the field.

A track that is lost in mid field, or ended because it could not be told from another, is often followed
by a second track of the same cell. A cell keeps its speed and its height, so the end of one and the
beginning of the other fit each other. That is looked at when the later one ends, as its speed is known
best then. Two tracks may also share one cell and see it by turns; they run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_rbcflow.conventions import LEAST_FRAMES
from napari_rbcflow.tracking.motion import MEASUREMENT_VARIANCE, SPEED_WALK_VARIANCE, Floats, Ints, Motion
from napari_rbcflow.tracks import PIECES_REMEMBERED

GREATEST_COST = 36.0
"""Greatest cost of a pair: six standard deviations in all."""
_HEIGHT_VARIANCE = 2.5**2
_ENERGY_VARIANCE = 1.0**2
_TWINS_PX = 18.0
"""Two tracks that are followed at once may be of one cell where they are never farther apart: the
detection can find a cell far out of focus now on its one side, now on the other."""
_BY_TURNS = 1.5
"""Shares of frames in which each was found, together: two cells side by side are both found in most."""
_FARTHEST_SIGMA = 4.0
"""A cell has left the field when it must have, at so many standard deviations."""


class EndedTracks:
    """Tracks that ended while their cell may still be in the field.

    Parameters
    ----------
    length : float
        Of the field along the flow, reference pixels.
    """

    def __init__(self, length: float) -> None:
        self._length = length
        self._ended = Motion.empty()
        self._when = np.empty(0, np.int64)
        self._group = np.empty(0, np.int64)
        self._groups = 0

    def __len__(self) -> int:
        return len(self._ended)

    def end(self, frame: int, ended: Motion, alike: Sequence[tuple[int, int]] = ()) -> list[tuple[int, ...]]:
        """Take in tracks that end together, and say of each which earlier ones may be of its cell.

        Parameters
        ----------
        frame : int
            Now.
        ended : Motion
            Their states now, in the order in which they are handed over.
        alike : sequence of (int, int)
            Pairs, as indices into `ended`, that none can tell apart: what may continue one of them may
            continue the other.

        Returns
        -------
        list of tuple of int
            Numbers, ascending, for each.
        """
        group = np.zeros(len(ended), np.int64)
        for i, j in alike:
            if not (group[i] or group[j]):
                self._groups += 1
                group[[i, j]] = self._groups
            elif group[i] and group[j]:
                group[group == group[j]] = group[i]
            else:
                group[[i, j]] = max(group[i], group[j])
        first = len(self._ended)
        self._ended.extend(ended)
        when = np.full(len(ended), frame)
        self._when = np.concatenate([self._when, when])
        self._group = np.concatenate([self._group, group])
        before = np.arange(len(self._ended)) < first + np.arange(len(ended))[:, None]
        fits = before & (
            (continuing_cost(self._ended, self._when, ended, when) < GREATEST_COST)
            | (continuing_cost(ended, when, self._ended, self._when).T < GREATEST_COST)
        )
        found = []
        for k in range(len(ended)):
            of_group = np.isin(self._group, self._group[fits[k]]) & (self._group > 0) & before[k]
            fits[k] |= of_group & (self._ended.found < ended.first[k])
            found.append(tuple(sorted(self._ended.cell[fits[k]].tolist())))
        self._forget(frame)
        return found

    def _forget(self, frame: int) -> None:
        x, pxx, _, _ = self._ended.ahead(frame - self._when)
        there = x - _FARTHEST_SIGMA * np.sqrt(pxx) < self._length
        there[: max(0, len(there) - PIECES_REMEMBERED)] = False
        if not there.all():
            self._ended.keep(there)
            self._when = self._when[there]
            self._group = self._group[there]


def continuing_cost(earlier: Motion, when: Ints, later: Motion, when_later: Ints) -> Floats:
    """How badly each of `later` begins where each of `earlier` goes: rows later, columns earlier.

    Infinite where `later` begins first, or where the two are found at once too far apart; nothing where
    they run side by side for long. `earlier` stands where it is or would have been at its `when`, and so
    does `later`.
    """
    first = later.first[:, None]
    gap = first - when
    x, xx, xv, vv = earlier.ahead(gap)
    dx = later.x_first[:, None] - x
    dv = later.v[:, None] - earlier.v
    dy = later.y[:, None] - earlier.y
    xx = xx + MEASUREMENT_VARIANCE
    vv = vv + (later.pvv + SPEED_WALK_VARIANCE * (later.found - later.first))[:, None]
    cost: Floats = (vv * dx * dx - 2 * xv * dx * dv + xx * dv * dv) / (xx * vv - xv * xv)
    cost += dy**2 / _HEIGHT_VARIANCE
    cost += (later.log_energy[:, None] - earlier.log_energy) ** 2 / _ENERGY_VARIANCE
    # Where both are followed at once: how far apart they were at the first and at the last.
    last = np.minimum(later.found[:, None], earlier.found)
    at_last = earlier.x + earlier.v * (last - when)
    apart = at_last - later.x[:, None] - later.v[:, None] * (last - when_later[:, None])
    share = (first - earlier.first) / np.maximum(last - earlier.first, 1)
    apart_first = earlier.x_first + share * (at_last - earlier.x_first) - later.x_first[:, None]
    both = first <= last
    near = np.hypot(np.maximum(np.abs(apart_first), np.abs(apart)), dy) < _TWINS_PX
    by_turns = (later.sights / (later.found - later.first + 1))[:, None] + earlier.sights / (
        earlier.found - earlier.first + 1
    ) < _BY_TURNS
    for_long = last - first + 1 >= LEAST_FRAMES
    cost[for_long] = 0.0
    cost[(both & ~near) | (for_long & ~by_turns)] = np.inf
    cost[first < earlier.first] = np.inf
    return cost
