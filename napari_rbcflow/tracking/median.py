"""The exact median over frames, pixel by pixel, for a stripe of rows at a time.

A sorting network (Batcher, AFIPS 1968, odd-even merge) pruned to the wires that the middle one depends
on. Each comparator is one `np.minimum` or `np.maximum` over a stripe of bytes, 32 or 64 pixels an
instruction: thirty times faster than `np.partition` (docs/decisions/tracking.md).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 32
"""Rows worked on at once: the stripes of 25 samples stay in the second-level cache."""

_Comparator = tuple[int, int, bool, bool]
"""Wires a < b, and whether the smaller (to a) and the greater (to b) are needed further on."""


@lru_cache(maxsize=128)
def _median_network(n: int) -> tuple[_Comparator, ...]:
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    needed = {(n - 1) // 2}
    kept: list[_Comparator] = []
    for a, b in reversed(pairs):
        if a in needed or b in needed:
            kept.append((a, b, a in needed, b in needed))
            needed |= {a, b}
    return tuple(reversed(kept))


def median_rows(samples: NDArray[np.uint8], out: NDArray[np.uint8], first: int, last: int) -> None:
    """Write the median over samples of rows `first` to `last` (exclusive) into `out`.

    Parameters
    ----------
    samples : ndarray of uint8, shape (m, height, width)
        For an even m the lower of the two middle values is taken, a grey level that was really seen.
    out : ndarray of uint8, shape (height, width)
    first, last : int
    """
    n = len(samples)
    network = _median_network(n)
    for row in range(first, last, _ROWS_AT_ONCE):
        end = min(row + _ROWS_AT_ONCE, last)
        wires = [samples[i, row:end].copy() for i in range(n)]
        spare = np.empty_like(wires[0])
        for a, b, smaller, greater in network:
            if smaller and greater:
                np.minimum(wires[a], wires[b], out=spare)
                np.maximum(wires[a], wires[b], out=wires[b])
                wires[a], spare = spare, wires[a]
            elif smaller:
                np.minimum(wires[a], wires[b], out=wires[a])
            else:
                np.maximum(wires[a], wires[b], out=wires[b])
        out[row:end] = wires[(n - 1) // 2]
