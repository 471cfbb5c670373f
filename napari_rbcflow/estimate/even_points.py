"""Points that fill the unit cube evenly: a Sobol sequence, the same as `scipy.stats.qmc.Sobol`'s.

Importing `scipy.stats` takes half a second of CPU, which each run would pay at its end.

References
----------
Joe, S., Kuo, F. Y. (2008). Constructing Sobol sequences with better two-dimensional projections. SIAM Journal
on Scientific Computing 30, 2635-2654: the direction numbers (new-joe-kuo-6.21201).
Antonov, I. A., Saleev, V. M. (1979). An economic method of computing LP-tau sequences. USSR Computational
Mathematics and Mathematical Physics 19, 252-256: the order, by Gray's code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = 30
_POLYNOMIALS = (
    (0, (1,)),
    (1, (1, 3)),
    (1, (1, 3, 1)),
    (2, (1, 1, 1)),
    (1, (1, 1, 3, 3)),
    (4, (1, 3, 5, 13)),
    (2, (1, 1, 5, 5, 17)),
    (4, (1, 1, 5, 5, 5)),
    (7, (1, 1, 7, 11, 19)),
    (11, (1, 1, 5, 1, 1)),
)
"""Of the second dimension on: the polynomial, its inner coefficients as bits, and the first directions."""
MOST_DIMENSIONS = len(_POLYNOMIALS) + 1


def sobol(dimensions: int, n: int) -> NDArray[np.float64]:
    """Return the first `n` points of the sequence, not scrambled.

    Parameters
    ----------
    dimensions : int
        At most `MOST_DIMENSIONS`.
    n : int

    Returns
    -------
    ndarray of float64, shape (dimensions, n)
        In [0, 1); the first point is 0.

    Raises
    ------
    ValueError
        For too many dimensions.
    """
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"this Sobol sequence has 1 to {MOST_DIMENSIONS} dimensions, not {dimensions}")
    k = np.arange(n, dtype=np.int64)
    gray = k ^ (k >> 1)
    out = np.zeros((dimensions, n), np.int64)
    for row, direction in zip(out, [_first(), *map(_directions, _POLYNOMIALS)], strict=False):
        for bit in range(int(n).bit_length()):
            row ^= ((gray >> bit) & 1) * (direction[bit] << (_BITS - 1 - bit))
    return out / 2.0**_BITS


def _first() -> list[int]:
    return [1] * _BITS


def _directions(polynomial: tuple[int, tuple[int, ...]]) -> list[int]:
    """Direction numbers, continued by the polynomial's recurrence."""
    inner, first = polynomial
    m, degree = list(first), len(first)
    for i in range(degree, _BITS):
        following = m[i - degree] ^ (m[i - degree] << degree)
        for j in range(1, degree):
            if inner >> (degree - 1 - j) & 1:
                following ^= m[i - j] << j
        m.append(following)
    return m
