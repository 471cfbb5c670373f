"""Which detection belongs to which track: the least total cost within gates."""

from __future__ import annotations

import numpy as np
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
    open_ = cost < miss_cost
    of_row = open_.sum(axis=1)
    of_column = open_.sum(axis=0)
    i, j = np.nonzero(open_)
    lone = (of_row[i] == 1) & (of_column[j] == 1)
    rows, columns = i[lone], j[lone]
    if not lone.all():
        ri = np.unique(i[~lone])
        cj = np.unique(j[~lone])
        # A row's miss is a column of its own, at its price.
        square = np.full((len(ri), len(cj) + len(ri)), miss_cost)
        square[:, : len(cj)] = np.where(open_[np.ix_(ri, cj)], cost[np.ix_(ri, cj)], 2 * miss_cost)
        a, b = linear_sum_assignment(square)
        real = b < len(cj)
        a, b = a[real], b[real]
        taken = square[a, b] < miss_cost
        rows = np.concatenate([rows, ri[a[taken]]])
        columns = np.concatenate([columns, cj[b[taken]]])
        order = np.argsort(rows, kind="stable")
        rows, columns = rows[order], columns[order]
    return rows.astype(np.int64), columns.astype(np.int64)
