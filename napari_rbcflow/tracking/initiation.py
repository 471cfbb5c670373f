"""New tracks: three free detections on a level line at a steady speed, and where they were before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numba import njit

from napari_rbcflow.tracking.motion import MEASUREMENT_VARIANCE, Bools, Floats, Look, Motion, Sights

Trail = dict[int, tuple[float, float, float]]
"""A new track's sights: x, y and the logarithm of the energy by frame."""

LEVEL_PX = 4.0
"""Two sights of one cell differ by no more in y."""
STEADY_PX = 4.5
"""A third sight lies no farther from where the other two put it."""
_ENERGY_WEIGHT = 2.0
_MOST_LOG_ENERGY = 1.2
"""Greatest change of the energy's logarithm between sights: a factor of three."""
_MOST_LOG_ENERGY_BACK = 1.5
"""The same against the first sight, farther back."""
_BEGINS_AT = 0.94
"""Median clearness of a new track's sights. Whether it is clear enough is said at its end, by far more."""


@dataclass(slots=True, frozen=True, eq=False)
class FreeSights(Sights):
    """Detections of one frame that belong to no track yet.

    Attributes
    ----------
    free : ndarray of bool, shape (n,)
        Cleared as a track takes them.
    clearness : ndarray of float64, shape (n,)
        As `motion.Look` gives it; not a number until it was asked for, since few are ever needed.
    """

    free: Bools
    clearness: Floats


_Taken = dict[int, tuple[FreeSights, int]]
"""The sights of what may be a new track, by frame."""


@njit(cache=True, nogil=True)
def _triples(
    xc: Floats, yc: Floats, ec: Floats, free_c: Bools,
    xb: Floats, yb: Floats, eb: Floats, free_b: Bools,
    xa: Floats, ya: Floats, ea: Floats, free_a: Bools,
    late: float, early: float, least: float, greatest: float,
    out: Floats,
) -> int:  # fmt: skip
    """Rows (cost, c, b, a) of `out`; `late` and `early` are the frames between c and b, b and a."""
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
            if abs(ec[c] - eb[b]) > _MOST_LOG_ENERGY:
                continue
            for a in range(len(xa)):
                if not free_a[a]:
                    continue
                off = xa[a] - (xb[b] - v * early)
                if abs(off) > STEADY_PX or abs(yb[b] - ya[a]) > LEVEL_PX or abs(yc[c] - ya[a]) > LEVEL_PX:
                    continue
                if abs(eb[b] - ea[a]) > _MOST_LOG_ENERGY:
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
    now: FreeSights, middle: FreeSights, early: FreeSights, least: float, greatest: float
) -> list[tuple[int, int, int]]:
    """Choose triples of free sights, best first, each sight at most once; clears their `free`.

    Parameters
    ----------
    now, middle, early : FreeSights
        Of three frames, the newest first.
    least, greatest : float
        Bounds of the speed, reference pixels a frame.

    Returns
    -------
    list of (int, int, int)
        Indices into `now`, `middle` and `early`.
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


def find_trails(
    now: FreeSights, past: list[FreeSights], least: float, greatest: float, look: Look
) -> list[Trail]:
    """Find new tracks among the free sights; clears their `free`.

    Parameters
    ----------
    now : FreeSights
    past : list of FreeSights
        Of earlier frames, the latest first.
    least, greatest : float
        Bounds of the speed, reference pixels a frame.
    look : Look

    Returns
    -------
    list of dict
        In order of first sight, then from the top.
    """
    found: list[_Taken] = []
    for i, k in ((0, 1), (0, 2), (1, 2)):
        if k >= len(past):
            continue
        for c, b, a in find_triples(now, past[i], past[k], least, greatest):
            found.append({s.frame: (s, j) for s, j in ((past[k], a), (past[i], b), (now, c))})
    trails: list[Trail] = []
    unclear: list[_Taken] = []
    for taken in found:
        _trace_back(taken, past)
    _make_clear(found, look)
    for taken in found:
        if median([float(s.clearness[j]) for s, j in taken.values()]) < _BEGINS_AT:
            unclear.append(taken)
        else:
            trails.append(
                {f: (float(s.x[j]), float(s.y[j]), float(s.log_energy[j])) for f, (s, j) in taken.items()}
            )
    # What is too pale to tell by these few sights may be told by later ones.
    for taken in unclear:
        for sights, j in taken.values():
            sights.free[j] = True
    # The numbering follows from the frames alone.
    return sorted(trails, key=lambda t: (min(t), t[min(t)][1], t[min(t)][0]))


def _make_clear(found: list[_Taken], look: Look) -> None:
    """Ask for the clearness of what was taken, a frame at once, where it is not known yet."""
    unknown: dict[int, tuple[FreeSights, list[int]]] = {}
    for taken in found:
        for frame, (sights, j) in taken.items():
            if np.isnan(sights.clearness[j]):
                unknown.setdefault(frame, (sights, []))[1].append(j)
    for frame, (sights, which) in unknown.items():
        sights.clearness[which] = look.clearness_of(frame, np.array(which))


@njit(cache=True, nogil=True)
def _nearest(
    x: Floats, y: Floats, log_energy: Floats, free: Bools, x_there: float, y_there: float, e_there: float
) -> int:
    """Index of the free sight nearest along the flow to where a new track was; -1 where none fits."""
    nearest = -1
    least = np.inf
    for j in range(len(x)):
        off = abs(x[j] - x_there)
        if (
            free[j]
            and off < STEADY_PX
            and off < least
            and abs(y[j] - y_there) < LEVEL_PX
            and abs(log_energy[j] - e_there) < _MOST_LOG_ENERGY_BACK
        ):
            nearest, least = j, off
    return nearest


def _trace_back(taken: _Taken, past: list[FreeSights]) -> None:
    """Add earlier free sights that lie on a new track's line."""
    first, last = min(taken), max(taken)
    sights, j = taken[first]
    x, y, e = float(sights.x[j]), float(sights.y[j]), float(sights.log_energy[j])
    newest, k = taken[last]
    x_last = float(newest.x[k])
    v = (x_last - x) / (last - first)
    for sights in past:
        if sights.frame in taken or sights.frame >= last:
            continue
        there = x + v * (sights.frame - first)
        j = int(_nearest(sights.x, sights.y, sights.log_energy, sights.free, there, y, e))
        if j >= 0:
            sights.free[j] = False
            taken[sights.frame] = sights, j
            if sights.frame < first:
                first = sights.frame
                x, y, e = float(sights.x[j]), float(sights.y[j]), float(sights.log_energy[j])
                v = (x_last - x) / (last - first)


def motion_of(trails: Sequence[Trail], born: Sequence[tuple[int, int]]) -> Motion:
    """Return new tracks' state: the line of least squares through the sights of each.

    Parameters
    ----------
    trails : sequence of dict
    born : sequence of (int, int)
        Slot and number of each.
    """
    first = [min(trail) for trail in trails]
    last = np.array([max(trail) for trail in trails])
    lines = np.array([_line(trail) for trail in trails]).T.copy()
    at, v, y, log_energy, pxx, pxv, pvv, sights, x_first = lines
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
        sights=sights,
        hidden=np.zeros(len(trails), np.int64),
        misses=np.zeros(len(trails), np.int64),
        last_seen=last,
        first=np.array(first),
        found=last.copy(),
        x_first=x_first,
    )


def _line(trail: Trail) -> tuple[float, ...]:
    """Of a trail: x at its last sight, speed, y, energy, their covariance, sights, and x at the first."""
    frames = sorted(trail)
    n = len(frames)
    t = np.array([frame - frames[-1] for frame in frames], np.float64)
    x, y, log_energy = np.array([trail[frame] for frame in frames]).T
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


EDGE_PX = 8.0
"""Nearer than this to the edge a cell may have no maximum of its own."""
_INSIDE_PX = 0.5
_LEAST_SHARE = 0.7
"""Of the clearness at its first sight, that must be found where a cell is carried back to."""


def filled(trail: Trail, processed: list[int], look: Look) -> dict[int, tuple[float, float, bool]]:
    """Return a trail's positions in processed frames before its newest, along its line where it has no sight.

    Parameters
    ----------
    trail : Trail
    processed : list of int
        The last frames that were analysed, the latest first.
    look : Look

    Returns
    -------
    dict of int to (float, float, bool)
        x, y and whether it was seen, by frame.
    """
    frames = sorted(trail)
    known: dict[int, tuple[float, float, bool]] = {}
    for frame in processed:
        if frame < frames[0] or frame >= frames[-1]:
            continue
        if frame in trail:
            known[frame] = (trail[frame][0], trail[frame][1], True)
        else:
            before = max(f for f in frames if f < frame)
            after = min(f for f in frames if f > frame)
            share = (frame - before) / (after - before)
            xb, yb, _ = trail[before]
            xa, ya, _ = trail[after]
            known[frame] = (xb + share * (xa - xb), yb + share * (ya - yb), False)
    return known | _carried_back(trail, processed, look)


def _carried_back(trail: Trail, processed: list[int], look: Look) -> dict[int, tuple[float, float, bool]]:
    """Positions before the first sight, while something as clear is there: of cells that just came in."""
    first, last = min(trail), max(trail)
    x_first, y, _ = trail[first]
    v = (trail[last][0] - x_first) / (last - first)
    earlier = [frame for frame in processed if frame < first]
    back: dict[int, tuple[float, float, bool]] = {}
    if not earlier or x_first - v * (first - earlier[-1]) >= EDGE_PX:
        return back
    least = _LEAST_SHARE * look.clearness_at(first, x_first, y)
    for frame in earlier:
        x = x_first - v * (first - frame)
        if x < _INSIDE_PX or look.clearness_at(frame, x, y) < least:
            break
        back[frame] = (x, y, False)
    return back
