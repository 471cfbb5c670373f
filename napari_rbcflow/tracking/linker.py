"""Detections of successive frames linked to tracks, online, at the minimum total cost within gates."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.optimize import linear_sum_assignment

from napari_rbcflow.compiled import njit
from napari_rbcflow.tracking.fragments import EndedTracks
from napari_rbcflow.tracking.initiation import (
    EDGE_PX,
    Candidate,
    FreeDetections,
    backfilled,
    find_candidates,
    initial_motion,
)
from napari_rbcflow.tracking.motion import (
    MEASUREMENT_VARIANCE,
    End,
    FlowDetections,
    FrameProbe,
    Linked,
    Motion,
    TrackPositions,
)
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.types import Bools, Floats, Ints


def assign(cost: Floats, miss_cost: float) -> tuple[Ints, Ints]:
    """Match rows to columns at the minimum total cost; return matched rows, ascending, and their columns.

    A row without a column costs `miss_cost`, and costs at or above it are never taken. Most pairs have no
    rival and are taken directly; the rest is one assignment problem (`scipy.optimize.linear_sum_assignment`).
    """
    i, j, lone = _open_pairs(cost, miss_cost)
    rows, columns = i[lone], j[lone]
    if not lone.all():
        ri = np.unique(i[~lone])
        cj = np.unique(j[~lone])
        # A row's miss is a column of its own, at its price.
        square = np.full((len(ri), len(cj) + len(ri)), miss_cost)
        among = cost[np.ix_(ri, cj)]
        square[:, : len(cj)] = np.where(among < miss_cost, among, 2 * miss_cost)
        a, b = linear_sum_assignment(square)
        real = b < len(cj)
        a, b = a[real], b[real]
        taken = square[a, b] < miss_cost
        rows = np.concatenate([rows, ri[a[taken]]])
        columns = np.concatenate([columns, cj[b[taken]]])
        order = np.argsort(rows, kind="stable")
        rows, columns = rows[order], columns[order]
    return rows.astype(np.int64), columns.astype(np.int64)


@njit(cache=True, nogil=True)
def _open_pairs(cost: Floats, miss_cost: float) -> tuple[Ints, Ints, Bools]:
    """Return rows and columns of the costs below a miss's, by row, and which of them have no rival."""
    rows, columns = cost.shape
    of_row = np.zeros(rows, np.int64)
    of_column = np.zeros(columns, np.int64)
    n = 0
    for i in range(rows):
        for j in range(columns):
            if cost[i, j] < miss_cost:
                of_row[i] += 1
                of_column[j] += 1
                n += 1
    at_row = np.empty(n, np.int64)
    at_column = np.empty(n, np.int64)
    lone = np.empty(n, np.bool_)
    k = 0
    for i in range(rows):
        for j in range(columns):
            if of_row[i] and cost[i, j] < miss_cost:
                at_row[k] = i
                at_column[k] = j
                lone[k] = of_row[i] == 1 and of_column[j] == 1
                k += 1
    return at_row, at_column, lone


_HEIGHT_VARIANCE = 2.0**2
_ENERGY_VARIANCE = 0.5**2
_MISS_COST = 25.0
"""Five standard deviations: beyond, a track is better without a detection than with this one."""
_MAX_GATE_PX = 14.0
_NEAR_PX = 16.0  # two cells nearer than this may have one maximum between them
_CONTESTED_VARIANCE = 16 * MEASUREMENT_VARIANCE
_SHARED_ENERGY = 0.5
"""A track without a maximum of its own is seen where at least this share of its energy is found."""
_MAX_SHARED = 20  # frames after which a track without a detection of its own ends all the same
_TELLING_COST = 4.0  # if swapping two tracks' detections costs no more than this, nobody can tell them apart
_TELLING_SPEED_PX = 1.5  # two cells whose speeds differ by more separate again, so that a mistake would show
_MAX_GAP_S = 1 / 6
"""Without frames (10 at 60 a second), beyond which no track continues: another cell may have taken its
place, and a flip may have gone unseen."""
_PAST = 7  # frames whose free detections are kept, so that a new track finds its beginning


class Linker:
    """Links the detections of one run.

    Parameters
    ----------
    length : float
        Of the field along the flow, reference pixels.
    fps : float
        Frames per second; the range of the speed is given for 60.
    settings : TrackingSettings

    Attributes
    ----------
    motion : Motion
        State of the open tracks.
    """

    def __init__(self, length: float, *, fps: float, settings: TrackingSettings) -> None:
        self._length = length
        self._least = settings.least_speed_px * 60 / fps
        self._greatest = settings.greatest_speed_px * 60 / fps
        self._most_misses = settings.most_misses
        self._longest_gap = max(1, round(_MAX_GAP_S * fps))
        self.motion = Motion.empty()
        self._past_tracks = EndedTracks(length)
        self._past: deque[FreeDetections] = deque(maxlen=_PAST)
        self._frame: int | None = None
        self._next_cell = 1
        self._free_slots: list[int] = []
        self._slots = 0

    def step(self, detections: FlowDetections, probe: FrameProbe) -> Linked:
        """Take in the detections of a frame after the last one; `probe` measures in it and those before."""
        m = self.motion
        frame, x, y, log_energy = detections.frame, detections.x, detections.y, detections.log_energy
        lost: list[End] = []
        if self._frame is not None and frame - self._frame - 1 > self._longest_gap:
            lost = self.finish("lost")
            self._free_slots += [end.slot for end in lost]
            self._past.clear()
            m = self.motion
        elif self._frame is not None:
            m.predict(frame - self._frame)
        self._frame = frame
        cost = np.empty((len(m), len(x)))
        _costs(m.x, m.y, m.log_energy, m.pxx, m.n_detections, x, y, log_energy, cost)
        tracks, found = assign(cost, _MISS_COST)
        seen = np.zeros(len(m), np.bool_)
        seen[tracks] = True
        ambiguous = self._ambiguous_pairs(cost, tracks, found)
        contested = self._contested(seen)
        variance = np.where(contested[tracks], _CONTESTED_VARIANCE, MEASUREMENT_VARIANCE)
        m.update(tracks, x[found], y[found], log_energy[found], variance)
        m.found[tracks] = frame
        m.undetected = np.where(seen, 0, m.undetected + 1)
        # A cell that goes out over the edge has no maximum there.
        inside = m.x <= self._length - 1.5
        leaving = ~seen & (m.undetected == 1) & (m.x > self._length - EDGE_PX) & inside
        in_sight = seen | leaving | self._shared(seen, probe)
        m.misses = np.where(in_sight, 0, m.misses + 1)
        m.last_seen[in_sight] = frame
        free = np.ones(len(x), np.bool_)
        free[found] = False
        ended, still = self._end(seen, ambiguous)
        m.keep(still)
        now = FreeDetections(frame, x, y, log_energy, free, np.full(len(x), np.nan))
        seen = seen[still]
        earlier = list(self._past)[::-1]
        candidates = find_candidates(now, earlier, self._least, self._greatest, probe)
        born, past = self._begin(candidates, [s.frame for s in earlier], probe)
        self._past.append(now)
        seen = np.concatenate([seen, np.ones(len(born), np.bool_)])
        return Linked(
            born, past, TrackPositions(frame, m.slot.copy(), m.x.copy(), m.y.copy(), seen), lost + ended
        )

    def finish(self, reason: str) -> list[End]:
        """End all open tracks, by number."""
        m = self.motion
        ends = self._ends(np.arange(len(m)), [reason] * len(m), [])
        self.motion = Motion.empty()
        return ends

    def _contested(self, seen: Bools) -> Bools:
        """Tracks that were detected while a near one was not: the detection may belong to both."""
        m = self.motion
        undetected = np.flatnonzero(~seen)
        if not len(undetected):
            return np.zeros(len(m), np.bool_)
        near = (np.abs(m.x[:, None] - m.x[undetected]) < _NEAR_PX) & (
            np.abs(m.y[:, None] - m.y[undetected]) < _NEAR_PX
        )
        contested: Bools = near.any(axis=1) & seen
        return contested

    def _shared(self, seen: Bools, probe: FrameProbe) -> Bools:
        """Tracks without a detection whose energy is there all the same, in a maximum shared with others."""
        m = self.motion
        shared = np.zeros(len(m), np.bool_)
        unseen = np.flatnonzero(~seen & (m.undetected <= _MAX_SHARED))
        if len(unseen):
            there = probe.log_energy_at(m.x[unseen], m.y[unseen])
            shared[unseen] = there > m.log_energy[unseen] + np.log(_SHARED_ENERGY)
        return shared

    def _ambiguous_pairs(self, cost: Floats, tracks: Ints, found: Ints) -> list[tuple[int, int]]:
        """Pairs of tracks that separate after an overlap and could as well be each other."""
        m = self.motion
        pairs = []
        column = np.full(len(m), -1, np.int64)
        column[tracks] = found
        for i in tracks[m.undetected[tracks] > 0]:
            for j in tracks[
                (np.abs(m.x[tracks] - m.x[i]) < _NEAR_PX)
                & (np.abs(m.y[tracks] - m.y[i]) < _NEAR_PX)
                & (np.abs(m.v[tracks] - m.v[i]) < _TELLING_SPEED_PX)
            ]:
                if i == j:
                    continue
                kept = cost[i, column[i]] + cost[j, column[j]]
                swapped = cost[i, column[j]] + cost[j, column[i]]
                if swapped - kept < _TELLING_COST:
                    pairs.append((int(i), int(j)))
        return pairs

    def _end(self, seen: Bools, pairs: list[tuple[int, int]]) -> tuple[list[End], Bools]:
        """Return the tracks that end now, by number, and which go on."""
        m = self.motion
        left = (m.x > self._length - 1) | ((m.undetected > 1) & (m.x > self._length - 4))
        lost = m.misses >= self._most_misses
        ambiguous = np.zeros(len(m), np.bool_)
        ambiguous[[i for pair in pairs for i in pair]] = True
        ending = np.flatnonzero(left | lost | ambiguous)
        reasons = ["left-field" if left[i] else "ambiguous" if ambiguous[i] else "lost" for i in ending]
        ends = self._ends(ending, reasons, pairs)
        self._free_slots += [e.slot for e in ends]
        still = np.ones(len(m), np.bool_)
        still[ending] = False
        return ends, still

    def _ends(self, ending: Ints, reasons: list[str], pairs: list[tuple[int, int]]) -> list[End]:
        """End tracks, by number."""
        if self._frame is None or not len(ending):
            return []
        m = self.motion
        order = np.argsort(m.cell[ending])
        ending = ending[order]
        may_continue = self._past_tracks.end(self._frame, m, ending, pairs)
        return [
            End(int(m.slot[i]), int(m.cell[i]), int(m.last_seen[i]), reasons[k], before)
            for i, k, before in zip(ending, order, may_continue, strict=True)
        ]

    def _begin(
        self, candidates: list[Candidate], past: list[int], probe: FrameProbe
    ) -> tuple[list[tuple[int, int]], list[TrackPositions]]:
        m = self.motion
        born: list[tuple[int, int]] = []
        rows: dict[int, list[tuple[int, float, float, bool]]] = {}
        if not candidates:
            return [], []
        for candidate in candidates:
            slot = self._free_slots.pop() if self._free_slots else self._slots
            self._slots = max(self._slots, slot + 1)
            born.append((slot, self._next_cell))
            self._next_cell += 1
            for frame, (x, y, seen) in backfilled(candidate, past, probe).items():
                rows.setdefault(frame, []).append((slot, x, y, seen))
        m.extend(initial_motion(candidates, born))
        made = [
            TrackPositions(
                frame,
                np.array([r[0] for r in rows[frame]], np.int64),
                np.array([r[1] for r in rows[frame]], np.float64),
                np.array([r[2] for r in rows[frame]], np.float64),
                np.array([r[3] for r in rows[frame]], np.bool_),
            )
            for frame in sorted(rows)
        ]
        return born, made


@njit(cache=True, nogil=True)
def _costs(
    track_x: Floats, track_y: Floats, track_energy: Floats, pxx: Floats, n_detections: Floats,
    x: Floats, y: Floats, log_energy: Floats, out: Floats,
) -> None:  # fmt: skip
    """How badly each detection (column) fits each track (row)."""
    for i in range(len(track_x)):
        variance = pxx[i] + MEASUREMENT_VARIANCE
        height_variance = _HEIGHT_VARIANCE * (1 + 1 / min(n_detections[i], 12.0))
        for k in range(len(x)):
            dx = x[k] - track_x[i]
            if abs(dx) > _MAX_GATE_PX:
                out[i, k] = np.inf
            else:
                dy = y[k] - track_y[i]
                de = log_energy[k] - track_energy[i]
                out[i, k] = dx * dx / variance + dy * dy / height_variance + de * de / (_ENERGY_VARIANCE * 4)
