"""The squared difference from the background, and its maxima: what detection does to every pixel."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def peak_between(below: float, at: float, above: float) -> float:
    """Top of the parabola through three neighbours, -0.5 to 0.5 from the middle one; 0 without one."""
    bend = 2 * at - below - above
    return min(0.5, max(-0.5, 0.5 * (above - below) / bend)) if bend > 0 else 0.0


@njit(cache=True, fastmath=True, nogil=True)
def block_energy(
    image: NDArray[np.uint8],
    background: NDArray[np.uint8],
    gain: np.float32,
    block: int,
    row: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the squares of the differences' sums over blocks into `out`; `row` is room for one line."""
    height, width = out.shape
    for i in range(height):
        for x in range(width * block):
            row[x] = np.float32(0)
        for r in range(i * block, i * block + block):
            a = image[r]
            b = background[r]
            for x in range(width * block):
                row[x] += np.float32(a[x]) - gain * np.float32(b[x])
        o = out[i]
        if block == 2:
            for x in range(width):
                s = row[2 * x] + row[2 * x + 1]
                o[x] = s * s
        else:
            for x in range(width):
                s = np.float32(0)
                for q in range(block):
                    s += row[block * x + q]
                o[x] = s * s


@njit(cache=True, nogil=True)
def maxima(
    energy: NDArray[np.float32],
    threshold: np.float32,
    reach: int,
    ys: NDArray[np.float32],
    xs: NDArray[np.float32],
    es: NDArray[np.float32],
) -> tuple[int, int]:
    """Maxima within `reach`, refined by a parabola along each axis; how many, and cells above threshold."""
    height, width = energy.shape
    n = 0
    above = 0
    may_be = np.zeros(width, np.uint8)
    for i in range(1, height - 1):
        # Without a branch, so that it is done for many pixels at once: there are few maxima.
        upper, at, lower = energy[i - 1], energy[i], energy[i + 1]
        many = 0
        count = 0
        for j in range(1, width - 1):
            e = at[j]
            higher = e > threshold
            may_be[j] = higher & (e >= at[j - 1]) & (e > at[j + 1]) & (e >= upper[j]) & (e > lower[j])
            count += higher
            many += may_be[j]
        above += count
        if not many:
            continue
        for j in range(1, width - 1):
            if not may_be[j]:
                continue
            e = at[j]
            greatest = True
            for a in range(max(0, i - reach), min(height, i + reach + 1)):
                for c in range(max(0, j - reach), min(width, j + reach + 1)):
                    if (a - i) ** 2 + (c - j) ** 2 > reach * reach:
                        continue
                    # Of two equal maxima the first in reading order stands.
                    if energy[a, c] > e or (energy[a, c] == e and (a < i or (a == i and c < j))):
                        greatest = False
                        break
                if not greatest:
                    break
            if greatest and n < len(ys):
                ys[n] = i + peak_between(energy[i - 1, j], e, energy[i + 1, j])
                xs[n] = j + peak_between(energy[i, j - 1], e, energy[i, j + 1])
                es[n] = e
                n += 1
    return n, above


@njit(cache=True, nogil=True)
def standing_apart(
    energy: NDArray[np.float32],
    ys: NDArray[np.float32],
    xs: NDArray[np.float32],
    es: NDArray[np.float32],
    reach: float,
    saddle: float,
    apart: NDArray[np.bool_],
) -> None:
    """Clear `apart` for maxima that a greater one within `reach` overshadows without a valley between."""
    n = len(ys)
    for k in range(n):
        apart[k] = True
        for g in range(n):
            if es[g] < es[k] or (es[g] == es[k] and g <= k):
                continue
            dy = ys[g] - ys[k]
            dx = xs[g] - xs[k]
            distance = np.sqrt(dy * dy + dx * dx)
            if distance > reach:
                continue
            steps = int(np.ceil(distance))
            lowest = es[k]
            for s in range(1, steps):
                i = int(np.rint(ys[k] + dy * s / steps))
                j = int(np.rint(xs[k] + dx * s / steps))
                lowest = min(lowest, energy[i, j])
            if lowest > saddle * es[k]:
                apart[k] = False
                break
