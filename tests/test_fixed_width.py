"""The interval for a run that stops by its width: exact, so little of this is chance."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from napari_rbcflow.estimate import RunningFraction, wilson
from napari_rbcflow.estimate.intervals import critical_value, half_width, most_cells, stops
from napari_rbcflow.sentences import say

ASKED = {0.5: 1.1, 0.7: 1.1, 0.86: 1.1, 0.95: 1.25, 0.99: 1.5}
"""Cells in the mean at most, as a share of what Wilson's interval needs where p is known beforehand."""


def cells_for_wilson(p: float, wanted: float) -> float:
    """Cells, not a whole number, with which Wilson's interval about p is as narrow as wanted."""

    def too_wide(n: float) -> float:
        low, high = wilson(p * n, n)  # type: ignore[arg-type]
        return (high - low) / 2 - wanted

    return float(brentq(too_wide, 2.0, 1e5))


def mean_cells(at: Any, p: float) -> float:
    """Cells counted in the mean where the true fraction is `p`."""
    return float((at.chances(p) * at.n).sum())


@pytest.mark.parametrize("wanted", [0.05, 0.03])
def test_covers_for_every_fraction_and_needs_few_cells(wanted: float) -> None:
    at = stops(wanted, critical_value(wanted))
    for p in (0.02, 0.3, *ASKED):
        assert at.chances(p).sum() == pytest.approx(1.0, abs=1e-9)
    assert at.least_coverage()[0] >= 0.95
    every = np.linspace(0.001, 0.999, 1998)
    assert min(at.coverage(float(p)) for p in every) >= 0.95
    for p, most in ASKED.items():
        assert mean_cells(at, p) <= most * cells_for_wilson(p, wanted)
    # Not wider than it must be: a rule that stops a little earlier would not cover.
    assert stops(wanted, critical_value(wanted) - 0.03).least_coverage()[0] < 0.95


def test_a_run_that_is_played_gives_what_was_summed() -> None:
    """Two thousand runs cell by cell; and a least number of cells is kept."""
    wanted, p = 0.1, 0.86
    z = critical_value(wanted, at_least=30)
    at = stops(wanted, z, at_least=30)
    rng = np.random.default_rng(3)
    cells, held = [], 0
    for _ in range(2000):
        k = n = 0
        while n < 30 or half_width(k, n, z) > wanted:
            k, n = k + int(rng.random() < p), n + 1
        q = (k + 2) / (n + 4)
        held += q - wanted <= p <= q + wanted
        cells.append(n)
    assert min(cells) >= 30
    assert np.mean(cells) == pytest.approx(mean_cells(at, p), abs=4 * np.std(cells) / np.sqrt(2000))
    assert held / 2000 == pytest.approx(at.coverage(p), abs=4 * np.sqrt(0.05 / 2000))


@pytest.mark.parametrize("p", [0.5, 0.7, 0.86, 0.95])
def test_a_run_that_may_end_either_way_misses_no_more_often(
    p: float, coverage: dict[str, ModuleType]
) -> None:
    """By its width, then fixed-width is said, or at m cells (a time, tracks), then anytime."""
    wanted, runs = 0.05, 400
    z, rng = critical_value(wanted), np.random.default_rng(round(1000 * p))
    most = most_cells(wanted, z)
    k, n = np.cumsum(rng.random((runs, most)) < p, axis=1), np.arange(1, most + 1)
    # The package's own anytime interval after each cell, compiled (test_corrected.py compares them).
    low, high = coverage["coverage_raw"].Edges().sequence(k)
    lost_at = (p < low) | (high < p)
    narrow = np.vectorize(half_width)(k, n, z) <= wanted
    assert narrow.any(axis=1).all()
    missed_by_width = 0
    for run, at in enumerate(narrow.argmax(axis=1)):
        fraction = RunningFraction()
        fraction.update(tank_treading=int(k[run, at]), flipping=int(n[at] - k[run, at]))
        by_width = fraction.fixed_width_interval(wanted)
        lost_at[run, at:] = not by_width[0] <= p <= by_width[1]
        missed_by_width += lost_at[run, -1]
    assert missed_by_width <= 0.05 * runs + 3 * np.sqrt(0.05 * 0.95 * runs)
    # The same runs, cut short: three more misses in 400 would be a point.
    assert lost_at.sum(axis=0).max() <= missed_by_width + 2


def test_the_interval_at_the_stop_and_before() -> None:
    fraction = RunningFraction()
    assert fraction.fixed_width_interval(0.05) == (0.0, 1.0)
    fraction.update(tank_treading=40, flipping=10)
    low, high = fraction.fixed_width_interval(0.05)
    assert high - low > 0.15
    assert low < 0.8 < high
    fraction.update(tank_treading=300, flipping=60)
    low, high = fraction.fixed_width_interval(0.05)
    assert high - low == pytest.approx(0.1)
    fraction = RunningFraction()
    fraction.update(tank_treading=10**6)
    low, high = fraction.fixed_width_interval(0.05)
    assert low > 0.9
    assert high == 1.0
    for bad in (0.0, 0.5, -1.0, float("nan")):
        with pytest.raises(ValueError, match=say("estimate.half-width-outside", half_width=bad)):
            fraction.fixed_width_interval(bad)
