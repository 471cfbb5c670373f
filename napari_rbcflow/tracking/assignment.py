"""Which detection belongs to which track: the least total cost within gates."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def assign(cost: Floats, miss_cost: float) -> tuple[Ints, Ints]:
    """Match rows to columns so that the costs and those of rows left out are least in total.

    Most pairs have no rival and are taken as they are; the rest is solved as one assignment
    (`scipy.optimize.linear_sum_assignment`), which falls apart into its groups by itself.

    Parameters
    ----------
    cost : ndarray of float64, shape (rows, columns)
        Infinite outside the gate.
    miss_cost : float
        Of a row without a column. Costs at or above it are never taken.

    Returns
    -------
    rows, columns : ndarray of int64, shape (pairs,)
        Rows ascending.
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
def _open_pairs(cost: Floats, miss_cost: float) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Rows and columns of the costs below a miss's, by row, and which of them have no rival."""
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
