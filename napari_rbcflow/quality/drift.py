"""Whether the fraction changed within a run: a test that may be repeated while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import kolmogorov

ALPHA = 0.01  # share of steady runs that are reported as drifting, at most: all tests of a run together
FIRST_LOOK, GROWTH = 50, 1.5
"""Cells at the first test, and their growth from one to the next: a million cells are tested 25 times."""


@dataclass(frozen=True)
class FractionChange:
    """The point that best divides the counted cells into those before and those after."""

    p_value: float  # of the run's not having changed
    at_cell: int  # counted cells before
    before: float  # the fraction before
    after: float
    cells: int  # counted before and after


def change_in(counted: bytes | bytearray) -> FractionChange | None:
    """Compare the running count of tank-treading cells with a straight line.

    The greatest distance from the line from the first cell to the last, over its standard deviation if the
    cells were in random order, has Kolmogorov's distribution for many cells (the CUSUM test for one change at
    an unknown time). For few cells and fractions near 0 or 1 there are fewer false alarms than it says.
    `counted` holds the counted cells in order, 1 for tank-treading and 0 for flipping. None if nothing can
    have changed: under two cells, or all of one kind. Csorgo, Horvath, Limit Theorems in Change-Point
    Analysis (1997), section 1.1; Brown, Durbin, Evans, J. R. Stat. Soc. B 37 (1975) 149.
    """
    cells = np.frombuffer(bytes(counted), np.uint8)
    n, k = len(cells), int(cells.sum())
    if k in (0, n):
        return None
    share = k / n
    sums = np.cumsum(cells, dtype=np.int64)
    away = np.abs(sums - share * np.arange(1, n + 1))
    at = int(np.argmax(away[:-1]))
    distance = float(away[at]) / float(np.sqrt(share * (1 - share) * n * n / (n - 1)))
    before = int(sums[at])
    return FractionChange(
        p_value=float(kolmogorov(distance)),
        at_cell=at + 1,
        before=before / (at + 1),
        after=(k - before) / (n - at - 1),
        cells=n,
    )


class DriftWatch:
    """Tests a run's counted cells as they grow, and keeps the newest change that it found.

    The cell and the p value are kept as found; the fractions before and after that cell are updated with the
    cells counted since. If the cells before it are counted again otherwise, the change is dropped.

    Half of `ALPHA` belongs to the tests on the way, at `FIRST_LOOK` cells and each time there are `GROWTH`
    times as many (test j has the share 1 / (j (j + 1)) of it), the other half to the test at the end: by
    Bonferroni, the false alarms of all tests together stay below `ALPHA`.
    """

    def __init__(self) -> None:
        self.found: FractionChange | None = None
        self._looks = 0
        self._found_in = b""

    def look(self, counted: bytes | bytearray) -> FractionChange | None:
        """Test if a test is due, and return the change found so far."""
        if len(counted) >= FIRST_LOOK * GROWTH**self._looks:
            # Of tests that were skipped, only the last is made; their shares are not spent on it.
            while len(counted) >= FIRST_LOOK * GROWTH**self._looks:
                self._looks += 1
            self._test(counted, ALPHA / 2 / (self._looks * (self._looks + 1)))
        return self._updated(counted)

    def end(self, counted: bytes | bytearray) -> FractionChange | None:
        """Test for the last time, at a run's end, and return the change found."""
        self._test(counted, ALPHA / 2)
        return self._updated(counted)

    def _updated(self, counted: bytes | bytearray) -> FractionChange | None:
        """Return the change that was found, updated with the cells counted since; a few microseconds."""
        if not counted.startswith(self._found_in):
            self.found, self._found_in = None, b""
        found = self.found
        if found is not None and len(counted) > found.cells:
            new = sum(counted[found.cells :])
            after = found.after * (found.cells - found.at_cell) + new
            n = len(counted)
            self.found = replace(found, after=after / (n - found.at_cell), cells=n)
        return self.found

    def _test(self, counted: bytes | bytearray, alpha: float) -> None:
        change = change_in(counted)
        if change is not None and change.p_value < alpha:
            self.found, self._found_in = change, bytes(counted)
