"""An interval that holds at every look at once, whatever stops the run: a confidence sequence.

For every fraction p that might be the true one, the cells seen so far are weighed: how likely they are
under a mixture of fractions around p, against how likely under p. Under the true p this ratio is a
nonnegative martingale of mean 1, so that it ever exceeds 1 / (1 - level) with a probability of at most
1 - level (Ville). The interval is the set of p for which it does not.

The mixture for p is Beta(c p, c (1 - p)) with c = `_CELLS` p (1 - p), at least 1: as wide as what is still
open after some 50 to 500 cells, when a run is usually stopped. A mixture that leaves more open pays for it.

References
----------
Robbins, H. (1970). Statistical methods related to the law of the iterated logarithm. Annals of Mathematical
Statistics 41, 1397-1409: the mixture martingale.
Ville, J. (1939). Etude critique de la notion de collectif: the inequality.
Howard, S. R., Ramdas, A., McAuliffe, J., Sekhon, J. (2021). Time-uniform, nonparametric, nonasymptotic
confidence sequences. Annals of Statistics 49, 1055-1080: a mixture tuned to a sample size.
"""

from __future__ import annotations

import math
from math import lgamma

_CELLS = 400.0
_STEPS = 60
_MOST_CELLS = 1e6


class ConfidenceSequence:
    """The interval after every cell so far, and what all the looks before left of it.

    Lifecycle: `update` with the counts after each cell or batch -> `interval`. Looking changes nothing.

    Parameters
    ----------
    level : float
        In (0, 1).
    """

    def __init__(self, level: float) -> None:
        self._bound = -math.log1p(-level)
        self._low, self._high = 0.0, 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """What is left of 0 to 1: low, high."""
        return self._low, self._high

    def update(self, k: int, n: int) -> None:
        """Take in that there are `n` cells now, `k` of them tank-treading.

        What is cut off stays cut off (running intersection): each look's interval holds with all others, so
        their common part does. Where nothing were left, which has the chance of an error, the
        newest look's interval stands.
        """
        m = n - k
        if not n:
            return
        peak = k / n
        low = high = None
        # Most cells move neither end: two weighings, and no search.
        if self._low >= peak or _ratio(self._low, k, m) > self._bound:
            low = _edge(self._bound, k, m, 0.0, peak) if k else 0.0
        if self._high <= peak or _ratio(self._high, k, m) > self._bound:
            high = _edge(self._bound, k, m, 1.0, peak) if m else 1.0
        if low is not None:
            self._low = max(low, self._low)
        if high is not None:
            self._high = min(high, self._high)
        if self._low > self._high:
            self._low = _edge(self._bound, k, m, 0.0, peak) if k else 0.0
            self._high = _edge(self._bound, k, m, 1.0, peak) if m else 1.0


def cells_to_leave(p: float, estimate: float, level: float) -> float | None:
    """Return how many cells with a fraction of `estimate` it takes until the interval leaves `p`.

    None where that is more than a million, as where the two are the same.
    """
    bound = -math.log1p(-level)
    low, high = 0.0, 1.0
    while _ratio(p, estimate * high, (1 - estimate) * high) <= bound:
        low, high = high, 2 * high
        if high > _MOST_CELLS:
            return None
    while high - low > 0.5:
        n = (low + high) / 2
        if _ratio(p, estimate * n, (1 - estimate) * n) > bound:
            high = n
        else:
            low = n
    return high


def _ratio(p: float, k: float, m: float) -> float:
    """Logarithm of the mixture's likelihood over that of `p`."""
    if p <= 0.0:
        return math.inf if k else 0.0
    if p >= 1.0:
        return math.inf if m else 0.0
    cells = max(_CELLS * p * (1 - p), 1.0)
    a, b = cells * p, cells * (1 - p)
    mixture = lgamma(k + a) - lgamma(a) + lgamma(m + b) - lgamma(b) + lgamma(cells) - lgamma(cells + k + m)
    return mixture - k * math.log(p) - m * math.log1p(-p)


def _edge(bound: float, k: int, m: int, out: float, inside: float) -> float:
    """Bisect for the edge of the interval, and return the side that is outside: never too narrow."""
    for _ in range(_STEPS):
        middle = (out + inside) / 2
        if middle in (out, inside):
            break
        if _ratio(middle, k, m) > bound:
            out = middle
        else:
            inside = middle
    return out
