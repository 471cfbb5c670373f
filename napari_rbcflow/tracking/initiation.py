"""New tracks: three free detections on a level line at a steady speed.

At 250 cells a frame a chance triple within these tolerances comes once in some ten thousand frames of
free detections, so that three sights are enough and no list of maybes has to be carried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from napari_rbcflow.tracking.linked import Sights
from napari_rbcflow.tracking.motion import MEASUREMENT_VARIANCE, Bools, Floats, Motion

Trail = dict[int, tuple[float, float, float]]
"""A new track's sights: x, y and the logarithm of the energy by frame."""

LEVEL_PX = 4.0
"""Two sights of one cell differ by no more in y."""
STEADY_PX = 4.5
"""A third sight lies no farther from where the other two put it."""
_ENERGY_WEIGHT = 2.0
_MOST_LOG_ENERGY = 1.2
"""Greatest change of the energy's logarithm between sights: a factor of three."""
_BEGINS_AT = 0.94
"""Median clearness of a new track's sights. Whether it is clear enough is said at its end, by far more."""


@dataclass(slots=True, frozen=True, eq=False)
class FreeSights(Sights):
    """Detections of one frame that belong to no track yet.

    Attributes
    ----------
    free : ndarray of bool, shape (n,)
        Cleared as a track takes them.
    """

    free: Bools


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


def find_trails(now: FreeSights, past: list[FreeSights], least: float, greatest: float) -> list[Trail]:
    """Find new tracks among the free sights; clears their `free`.

    Parameters
    ----------
    now : FreeSights
    past : list of FreeSights
        Of earlier frames, the latest first.
    least, greatest : float
        Bounds of the speed, reference pixels a frame.

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
        if np.median([s.clearness[j] for s, j in taken.values()]) < _BEGINS_AT:
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


def _trace_back(taken: _Taken, past: list[FreeSights]) -> None:
    """Add earlier free sights that lie on a new track's line."""
    first, last = min(taken), max(taken)
    sights, j = taken[first]
    x, y, e = sights.x[j], sights.y[j], sights.log_energy[j]
    newest, k = taken[last]
    x_last = newest.x[k]
    v = (x_last - x) / (last - first)
    for sights in past:
        if sights.frame in taken or sights.frame >= last or not sights.free.any():
            continue
        ahead = sights.frame - first
        off = np.abs(sights.x - (x + v * ahead))
        fit = (
            sights.free
            & (off < STEADY_PX)
            & (np.abs(sights.y - y) < LEVEL_PX)
            & (np.abs(sights.log_energy - e) < 1.5)
        )
        if fit.any():
            j = int(np.argmin(np.where(fit, off, np.inf)))
            sights.free[j] = False
            taken[sights.frame] = sights, j
            if sights.frame < first:
                first = sights.frame
                x, y, e = sights.x[j], sights.y[j], sights.log_energy[j]
                v = (x_last - x) / (last - first)


def motion_of(trail: Trail, slot: int, cell: int) -> Motion:
    """Return a new track's state: the line of least squares through its sights."""
    frames = sorted(trail)
    t = np.array(frames, np.float64) - frames[-1]
    x = np.array([trail[f][0] for f in frames])
    n = len(t)
    centre = t.mean()
    spread = float(((t - centre) ** 2).sum())
    v = float(((t - centre) * x).sum()) / spread
    at = float(x.mean()) - v * centre
    r = MEASUREMENT_VARIANCE
    return Motion(
        slot=np.array([slot]),
        cell=np.array([cell]),
        x=np.array([at]),
        v=np.array([v]),
        y=np.array([np.mean([trail[f][1] for f in frames])]),
        log_energy=np.array([np.mean([trail[f][2] for f in frames])]),
        pxx=np.array([r * (1 / n + centre**2 / spread)]),
        pxv=np.array([-r * centre / spread]),
        pvv=np.array([r / spread]),
        sights=np.array([float(n)]),
        hidden=np.array([0]),
        misses=np.array([0]),
        last_seen=np.array([frames[-1]]),
        first=np.array([frames[0]]),
        found=np.array([frames[-1]]),
        x_first=np.array([at + v * t[0]]),
    )
