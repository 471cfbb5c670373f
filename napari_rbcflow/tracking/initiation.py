"""New tracks: three free detections on a level line at a steady speed, and where they were before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from napari_rbcflow.compiled import njit
from napari_rbcflow.tracking.motion import MEASUREMENT_VARIANCE, FlowDetections, FrameProbe, Motion
from napari_rbcflow.types import Bools, Floats

Candidate = dict[int, tuple[float, float, float]]
"""A new track's detections: x, y and the logarithm of the energy by frame."""

LEVEL_PX = 4.0  # maximum difference in y between two detections of a cell
STEADY_PX = 4.5  # maximum distance of a third detection from where the other two predict it
_ENERGY_WEIGHT = 2.0
_MAX_LOG_ENERGY = 1.2  # between detections: a factor of three
_MAX_LOG_ENERGY_BACK = 1.5  # against the first detection, farther back
_MIN_CONTRAST = 0.94
"""Median of a new track's detections. Whether it has enough contrast is decided at its end, by far more."""


@dataclass(slots=True, frozen=True, eq=False)
class FreeDetections(FlowDetections):
    """Detections of one frame that belong to no track yet."""

    free: Bools  # cleared as a track takes them
    contrast: Floats  # as `FrameProbe` gives it; NaN until it is needed


_Taken = dict[int, tuple[FreeDetections, int]]  # the detections of a candidate by frame


@njit(cache=True, nogil=True)
def _triples(
    xc: Floats, yc: Floats, ec: Floats, free_c: Bools,
    xb: Floats, yb: Floats, eb: Floats, free_b: Bools,
    xa: Floats, ya: Floats, ea: Floats, free_a: Bools,
    late: float, early: float, least: float, greatest: float,
    out: Floats,
) -> int:  # fmt: skip
    """Fill rows (cost, c, b, a) of `out`; `late` and `early` are the frames between c and b, b and a."""
    n = 0
    for c in range(len(xc)):
        if not free_c[c]:
            continue
        for b in range(len(xb)):
            if not free_b[b]:
                continue
            v = (xc[c] - xb[b]) / late
            if v < least or v > greatest or abs(yc[c] - yb[b]) > LEVEL_PX:
                continue
            if abs(ec[c] - eb[b]) > _MAX_LOG_ENERGY:
                continue
            for a in range(len(xa)):
                if not free_a[a]:
                    continue
                off = xa[a] - (xb[b] - v * early)
                if abs(off) > STEADY_PX or abs(yb[b] - ya[a]) > LEVEL_PX or abs(yc[c] - ya[a]) > LEVEL_PX:
                    continue
                if abs(eb[b] - ea[a]) > _MAX_LOG_ENERGY:
                    continue
                mean = (ea[a] + eb[b] + ec[c]) / 3
                spread = (ea[a] - mean) ** 2 + (eb[b] - mean) ** 2 + (ec[c] - mean) ** 2
                level = (ya[a] - yb[b]) ** 2 + (yb[b] - yc[c]) ** 2
                if n < len(out):
                    out[n, 0] = off * off / 4 + level + _ENERGY_WEIGHT * spread
                    out[n, 1] = c
                    out[n, 2] = b
                    out[n, 3] = a
                    n += 1
    return n


def find_triples(
    now: FreeDetections, middle: FreeDetections, early: FreeDetections, least: float, greatest: float
) -> list[tuple[int, int, int]]:
    """Choose triples of free detections, best first, each detection at most once; clears their `free`.

    The frames are given newest first, the speeds in reference pixels a frame. Returns indices into each.
    """
    if not (now.free.any() and middle.free.any() and early.free.any()):
        return []
    room = np.empty((4096, 4), np.float64)
    n = _triples(
        now.x, now.y, now.log_energy, now.free,
        middle.x, middle.y, middle.log_energy, middle.free,
        early.x, early.y, early.log_energy, early.free,
        float(now.frame - middle.frame), float(middle.frame - early.frame), least, greatest, room,
    )  # fmt: skip
    chosen: list[tuple[int, int, int]] = []
    for _, fc, fb, fa in room[:n][np.argsort(room[:n, 0], kind="stable")]:
        c, b, a = int(fc), int(fb), int(fa)
        if now.free[c] and middle.free[b] and early.free[a]:
            now.free[c] = middle.free[b] = early.free[a] = False
            chosen.append((c, b, a))
    return chosen


def find_candidates(
    now: FreeDetections, past: list[FreeDetections], least: float, greatest: float, probe: FrameProbe
) -> list[Candidate]:
    """Find new tracks among the free detections, in order of first detection, then from the top.

    `past` holds earlier frames, the latest first; the speeds are in reference pixels a frame. Clears `free`
    of what is taken.
    """
    found: list[_Taken] = []
    for i, k in ((0, 1), (0, 2), (1, 2)):
        if k >= len(past):
            continue
        for c, b, a in find_triples(now, past[i], past[k], least, greatest):
            found.append({s.frame: (s, j) for s, j in ((past[k], a), (past[i], b), (now, c))})
    candidates: list[Candidate] = []
    faint: list[_Taken] = []
    for taken in found:
        _trace_back(taken, past)
    _fill_contrast(found, probe)
    for taken in found:
        if median([float(s.contrast[j]) for s, j in taken.values()]) < _MIN_CONTRAST:
            faint.append(taken)
        else:
            candidates.append(
                {f: (float(s.x[j]), float(s.y[j]), float(s.log_energy[j])) for f, (s, j) in taken.items()}
            )
    # What is too faint to tell by these few detections may be told by later ones.
    for taken in faint:
        for detections, j in taken.values():
            detections.free[j] = True
    # The numbers depend on the frames alone.
    return sorted(candidates, key=lambda t: (min(t), t[min(t)][1], t[min(t)][0]))


def _fill_contrast(found: list[_Taken], probe: FrameProbe) -> None:
    """Measure the contrast of what was taken, a frame at once, where it is not known yet."""
    unknown: dict[int, tuple[FreeDetections, list[int]]] = {}
    for taken in found:
        for frame, (detections, j) in taken.items():
            if np.isnan(detections.contrast[j]):
                unknown.setdefault(frame, (detections, []))[1].append(j)
    for frame, (detections, which) in unknown.items():
        detections.contrast[which] = probe.relative_contrasts(frame, np.array(which))


@njit(cache=True, nogil=True)
def _nearest(
    x: Floats, y: Floats, log_energy: Floats, free: Bools, x_there: float, y_there: float, e_there: float
) -> int:
    """Return the index of the free detection nearest along the flow to an earlier place; -1 if none fits."""
    nearest = -1
    least = np.inf
    for j in range(len(x)):
        off = abs(x[j] - x_there)
        if (
            free[j]
            and off < STEADY_PX
            and off < least
            and abs(y[j] - y_there) < LEVEL_PX
            and abs(log_energy[j] - e_there) < _MAX_LOG_ENERGY_BACK
        ):
            nearest, least = j, off
    return nearest


def _trace_back(taken: _Taken, past: list[FreeDetections]) -> None:
    """Add earlier free detections on a new track's line."""
    first, last = min(taken), max(taken)
    detections, j = taken[first]
    x, y, e = float(detections.x[j]), float(detections.y[j]), float(detections.log_energy[j])
    newest, k = taken[last]
    x_last = float(newest.x[k])
    v = (x_last - x) / (last - first)
    for detections in past:
        if detections.frame in taken or detections.frame >= last:
            continue
        there = x + v * (detections.frame - first)
        j = int(_nearest(detections.x, detections.y, detections.log_energy, detections.free, there, y, e))
        if j >= 0:
            detections.free[j] = False
            taken[detections.frame] = detections, j
            if detections.frame < first:
                first = detections.frame
                x, y, e = float(detections.x[j]), float(detections.y[j]), float(detections.log_energy[j])
                v = (x_last - x) / (last - first)


def initial_motion(candidates: Sequence[Candidate], born: Sequence[tuple[int, int]]) -> Motion:
    """Return new tracks' state, by least squares through each; `born` holds their slots and numbers."""
    first = [min(candidate) for candidate in candidates]
    last = np.array([max(candidate) for candidate in candidates])
    lines = np.array([_line(candidate) for candidate in candidates]).T.copy()
    at, v, y, log_energy, pxx, pxv, pvv, n_detections, x_first = lines
    named = np.array(born)
    return Motion(
        slot=named[:, 0],
        cell=named[:, 1],
        x=at,
        v=v,
        y=y,
        log_energy=log_energy,
        pxx=pxx,
        pxv=pxv,
        pvv=pvv,
        n_detections=n_detections,
        undetected=np.zeros(len(candidates), np.int64),
        misses=np.zeros(len(candidates), np.int64),
        last_seen=last,
        first=np.array(first),
        found=last.copy(),
        x_first=x_first,
    )


def _line(candidate: Candidate) -> tuple[float, ...]:
    """Return x at the last detection, speed, y, energy, their covariance, detections, x at the first."""
    frames = sorted(candidate)
    n = len(frames)
    t = np.array([frame - frames[-1] for frame in frames], np.float64)
    x, y, log_energy = np.array([candidate[frame] for frame in frames]).T
    centre = float(np.add.reduce(t)) / n
    off = t - centre
    spread = float(np.add.reduce(off * off))
    v = float(np.add.reduce(off * x)) / spread
    at = float(np.add.reduce(x)) / n - v * centre
    r = MEASUREMENT_VARIANCE
    return (
        at,
        v,
        float(np.add.reduce(y)) / n,
        float(np.add.reduce(log_energy)) / n,
        r * (1 / n + centre**2 / spread),
        -r * centre / spread,
        r / spread,
        float(n),
        at + v * float(t[0]),
    )


EDGE_PX = 8.0  # nearer to the edge, a cell may have no maximum of its own
_INSIDE_PX = 0.5
_MIN_SHARE = 0.7
"""Of the contrast at its first detection, that a cell must have where its track is extended back."""


def backfilled(
    candidate: Candidate, processed: list[int], probe: FrameProbe
) -> dict[int, tuple[float, float, bool]]:
    """Return a candidate's x, y and whether it was seen, by frame, in processed frames before its newest.

    Between detections they are interpolated. `processed` holds the last analysed frames, the latest first.
    """
    frames = sorted(candidate)
    known: dict[int, tuple[float, float, bool]] = {}
    for frame in processed:
        if frame < frames[0] or frame >= frames[-1]:
            continue
        if frame in candidate:
            known[frame] = (candidate[frame][0], candidate[frame][1], True)
        else:
            before = max(f for f in frames if f < frame)
            after = min(f for f in frames if f > frame)
            share = (frame - before) / (after - before)
            xb, yb, _ = candidate[before]
            xa, ya, _ = candidate[after]
            known[frame] = (xb + share * (xa - xb), yb + share * (ya - yb), False)
    return known | _extrapolated_back(candidate, processed, probe)


def _extrapolated_back(
    candidate: Candidate, processed: list[int], probe: FrameProbe
) -> dict[int, tuple[float, float, bool]]:
    """Positions before the first detection of a cell that just came in, while the contrast is there."""
    first, last = min(candidate), max(candidate)
    x_first, y, _ = candidate[first]
    v = (candidate[last][0] - x_first) / (last - first)
    earlier = [frame for frame in processed if frame < first]
    back: dict[int, tuple[float, float, bool]] = {}
    if not earlier or x_first - v * (first - earlier[-1]) >= EDGE_PX:
        return back
    least = _MIN_SHARE * probe.relative_contrast_at(first, x_first, y)
    for frame in earlier:
        x = x_first - v * (first - frame)
        if x < _INSIDE_PX or probe.relative_contrast_at(frame, x, y) < least:
            break
        back[frame] = (x, y, False)
    return back
