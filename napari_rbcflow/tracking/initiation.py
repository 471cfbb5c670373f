"""New tracks: three free detections on a level line at a steady speed.

At 250 cells a frame a chance triple within these tolerances comes once in some ten thousand frames of
free detections, so that three sights are enough and no list of maybes has to be carried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEVEL_PX = 4.0
"""Two sights of one cell differ by no more in y."""
STEADY_PX = 4.5
"""A third sight lies no farther from where the other two put it."""
_ENERGY_WEIGHT = 2.0
_MOST_LOG_ENERGY = 1.2
"""Greatest change of the energy's logarithm between sights: a factor of three."""


@dataclass(slots=True, eq=False)
class FreeSights:
    """Detections of one past frame that belong to no track yet.

    Attributes
    ----------
    frame : int
    x, y, log_energy : ndarray of float64, shape (n,)
    free : ndarray of bool, shape (n,)
        Cleared as a track takes them.
    """

    frame: int
    x: Floats
    y: Floats
    log_energy: Floats
    free: Bools


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
