"""What a laboratory's calibration is worth: reviewed runs of a few days, then runs of other days.

Laboratories are simulated track by track. Each day has its own shares found, leak and so on: its log odds lie
around the laboratory's with a standard deviation that is given. On three days a person checks 100 tracks of a
run, chosen by the real plan; the rates that follow then correct runs of further days with other true
fractions, without a review. A row a kind of laboratory, share of reliable tracks and spread between days: the
share of runs that get a corrected number, the share of those whose interval holds the truth, their median
width in points; the same with the shipped card in the place of the calibration; and how often Wilson's
interval of the raw count holds the truth. From the repository's root::

    OMP_NUM_THREADS=1 nice python benchmarks/calibration.py
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.estimate import (
    NetworkRates,
    ReviewedRun,
    ReviewPlan,
    corrected_fraction,
    known_well_enough,
    laboratory_rates,
    rates_of_review,
    try_on_held_back_days,
    wilson,
)
from napari_rbcflow.types import Label

KINDS = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
THRESHOLD, TOLD = 0.9, 0.7
SCALE = 1.5
"""Of the logistic scores of stage 1 around a kind's mean, in log odds."""


LEAKS_TOLD = 0.62
"""Share of the unreliable tracks that pass stage 1 of which stage 2 then names a kind."""


@dataclass(frozen=True)
class Laboratory:
    """The mean rates of a laboratory's networks; `leak` is of the tracks that end up counted."""

    name: str
    tank_found: float
    flip_found: float
    leak: float
    tank_right: float = 0.98
    flip_right: float = 0.97
    leaks_as_tank: float = 0.65


LABORATORIES = (
    Laboratory("as the card says", 0.78, 0.80, 0.02),
    Laboratory("leak of 0.10", 0.78, 0.80, 0.10),
    Laboratory("aslant light", 0.60, 0.80, 0.05, tank_right=0.96, flip_right=0.95, leaks_as_tank=0.5),
)
TRACKS = {0.4: 1300, 0.1: 3000, 0.034: 6000}
"""Judged in a run, by the share of reliable ones: a composed movie, and runs of five and ten minutes."""


class Day(NamedTuple):
    """The tracks of a run: what they are, and what the machine says."""

    truth: NDArray[np.intp]
    label: list[str]
    p_reliable: NDArray[np.float64]
    p_tank: NDArray[np.float64]


def a_day(
    rng: np.random.Generator, laboratory: Laboratory, reliable: float, fraction: float, spread: float
) -> Day:
    """Draw a day's rates, then its run."""
    z = rng.normal(size=5) * spread
    apart = z[1] / 4  # both shares found move together; their ratio varies half as much
    tank, flip = logit(laboratory.tank_found) + z[0] + apart, logit(laboratory.flip_found) + z[0] - apart
    passing = np.array([tank, flip, logit(laboratory.leak / LEAKS_TOLD) + z[2]])
    turned = np.array(
        [logit(laboratory.tank_right), -logit(laboratory.flip_right), logit(laboratory.leaks_as_tank)]
    )
    turned = turned + np.array([z[3], -z[3], z[4]])
    n = TRACKS[reliable]
    truth = rng.choice(3, n, p=[reliable * fraction, reliable * (1 - fraction), 1 - reliable])
    score = logit(THRESHOLD) + SCALE * (passing[truth] + rng.logistic(size=n))
    p_reliable = np.round(expit(score), 4)
    p_tank = np.round(expit(turned[truth] + rng.logistic(size=n)), 4)
    passes = p_reliable >= THRESHOLD
    told = np.maximum(p_tank, 1 - p_tank) >= TOLD
    machine = np.where(~passes | ~told, 2, np.where(p_tank >= 0.5, 0, 1))
    p_tank[~passes] = np.nan
    return Day(truth, [str(KINDS[k]) for k in machine], p_reliable, p_tank)


def reviewed(day: Day, checks: int, seed: int) -> tuple[ReviewPlan, dict[int, list[str]]]:
    """Check tracks as a person does, ten at a time, never wrongly."""
    plan = ReviewPlan(np.arange(1, len(day.truth) + 1), day.label, day.p_reliable, day.p_tank, seed)
    labels: dict[int, list[str]] = {}
    while len(labels) < checks:
        for cell in plan.next(min(10, checks - len(labels)), labels):
            labels[cell] = [str(KINDS[day.truth[cell - 1]])]
    return plan, labels


@cache
def card() -> NetworkRates:
    """Return the shipped card's rates."""
    return NetworkRates.of_models(TwoStage.load("cpu").models)


def one(given: tuple[int, Laboratory, float, float, int, int]) -> list[list[float]]:
    """Calibrate one laboratory and measure on further days; a row a day."""
    seed, laboratory, reliable, spread, days, checks = given
    rng = np.random.default_rng([917, seed])
    runs = []
    for day in range(days):
        run = a_day(rng, laboratory, reliable, rng.uniform(0.5, 0.95), spread)
        counts = [run.label.count(str(kind)) for kind in KINDS]
        runs.append(ReviewedRun(f"day {day}", *counts, rates_of_review(*reviewed(run, checks, seed=day))))
    rates = None
    with contextlib.suppress(ValueError):
        if known_well_enough(try_on_held_back_days(runs)):
            rates = laboratory_rates(runs)
    rows = []
    for fraction in rng.uniform(0.5, 0.95, 2):
        run = a_day(rng, laboratory, reliable, float(fraction), spread)
        k, m = run.label.count("tank-treading"), run.label.count("flipping")
        row = []
        for known in (rates, card()):
            found = None if known is None else corrected_fraction(k, m, len(run.label) - k - m, known)
            if found is None or found.low is None or found.high is None:
                row += [0.0, np.nan, np.nan]
            else:
                row += [1.0, float(found.low <= fraction <= found.high), 100 * (found.high - found.low)]
        low, high = wilson(k, k + m) if k + m else (0.0, 1.0)
        rows.append([*row, float(low <= fraction <= high)])
    return rows


def say(name: str, rows: Sequence[Sequence[float]]) -> None:
    """Print a row."""
    table = np.array(rows)
    cells = []
    for first in (0, 3):
        said = table[:, first] == 1
        cells.append(f"{said.mean():.3f}")
        cells += (
            [f"{table[said, first + 1].mean():.3f}", f"{np.median(table[said, first + 2]):.1f}"]
            if said.any()
            else ["-", "-"]
        )
    print(f"| {name} | {' | '.join(cells)} | {table[:, 6].mean():.3f} |", flush=True)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--laboratories", type=int, default=60, help="for each row")
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--checks", type=int, default=100, help="tracks checked on each day")
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.3, 0.6])
    parser.add_argument("--reliable", type=float, nargs="+", default=list(TRACKS))
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    print(
        "| laboratory, reliable, spread | number | holds | width | card: number | holds | width | raw holds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(given.jobs) as pool:
        for laboratory in LABORATORIES:
            for reliable in given.reliable:
                for spread in given.spreads:
                    tasks = [
                        (seed, laboratory, reliable, spread, given.days, given.checks)
                        for seed in range(given.laboratories)
                    ]
                    rows = [row for some in pool.map(one, tasks, chunksize=4) for row in some]
                    say(f"{laboratory.name}, {reliable:.1%}, {spread:g}", rows)


if __name__ == "__main__":
    main()
