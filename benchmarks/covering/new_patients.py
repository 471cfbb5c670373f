"""What the corrected interval covers on a patient who is not in the card: patients drawn from a population.

Each card is made from a few patients, whose true rates are drawn and whose cells are labelled in the numbers
that there are of the published ones; then a further patient is measured. `rbcflow` corrects by what it knows
of patients, and, for comparison, by all cells together as it did before. Each column: the mean leak and the
spread between patients (log odds; that of the ratio of two rates is half of it), the patients of a card, the
share of reliable tracks; then the share of intervals that hold the truth, of runs that say no number, of said
intervals that hold it, and the median width. From the repository's root::

    OMP_NUM_THREADS=1 nice python benchmarks/covering/new_patients.py
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from napari_rbcflow.estimate.error_correction import (
    LEAST_POSSIBLE,
    MOST_WIDTH,
    Draws,
    draw,
    draw_new_patient,
    interval_of,
    interval_of_new_patient,
    points,
    quantiles,
)
from napari_rbcflow.estimate.intervals import FEW_CELLS
from napari_rbcflow.estimate.network_rates import NetworkRates, Rate

DRAWS = 1024
"""An eighth of those of a real run, where the ends move by a thousandth or two."""
LABELLED = (45, 50, 100)
"""Tank-treading, flipping and unreliable cells of a patient, to within a factor of two: of BG there are 43,
51 and 138, of LJ 57, 49 and 60."""
TRACKS = {0.4: 1300, 0.05: 6000, 0.034: 6000}
"""Judged in a run, by the share of reliable ones: a composed movie, and a run of ten minutes."""


@dataclass(frozen=True)
class Population:
    """Means and standard deviations of the patients' rates.

    Attributes
    ----------
    leak : float
        Median of the patients'.
    spread, of_ratio : float
        Standard deviations between patients: of each rate's log odds, and of the log odds ratio of two
        that move together.
    found, ratio, told, right : float
        Means in log odds: 0.78 and 0.85 found, 0.955 told, 0.98 right.
    """

    leak: float = 0.03
    spread: float = 0.7
    of_ratio: float = 0.35
    found: float = 1.5
    ratio: float = -0.5
    told: float = 3.05
    right: float = 3.9

    def patient(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw one patient's true rates."""
        z = rng.normal(size=7)
        found, apart = self.found + self.spread * z[0], self.ratio + self.of_ratio * z[1]
        told, told_apart = self.told + self.spread * z[2], self.of_ratio * z[3]
        logits = {
            "tank_treading_found": found + apart / 2,
            "flipping_found": found - apart / 2,
            "let_through": np.log(self.leak / (1 - self.leak)) + self.spread * z[4],
            "tank_treading_told": told + told_apart / 2,
            "flipping_told": told - told_apart / 2,
            "tank_treading_right": self.right + self.spread * z[5],
            "flipping_right": self.right + self.spread * z[6],
        }
        return {name: float(expit(x)) for name, x in logits.items()}


def label(truth: dict[str, float], rng: np.random.Generator) -> dict[str, Rate]:
    """Count a patient's rates on as many cells as somebody labels."""
    tank, flip, unreliable = (int(n * 2 ** rng.uniform(-1, 1)) for n in LABELLED)
    cells = {"tank_treading_found": tank, "flipping_found": flip, "let_through": unreliable}
    cells |= {"tank_treading_told": tank, "flipping_told": flip}
    rates = {name: Rate(int(rng.binomial(n, truth[name])), n) for name, n in cells.items()}
    for kind in ("tank_treading", "flipping"):
        n = rates[f"{kind}_told"].hits
        rates[f"{kind}_right"] = Rate(int(rng.binomial(n, truth[f"{kind}_right"])), n)
    return rates


def card_of(patients: list[dict[str, Rate]]) -> NetworkRates:
    """Add up the patients."""
    total: dict[str, Any] = {
        n: Rate(sum(p[n].hits for p in patients), sum(p[n].of for p in patients)) for n in patients[0]
    }
    return NetworkRates(**total, by_patient={str(i): p for i, p in enumerate(patients)})


def measure(
    truth: dict[str, float], p: float, reliable: float, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Count a run of the new patient: tank-treading, flipping, and what is not counted."""
    tracks = TRACKS[reliable]
    tank, flip = (
        truth[f"{kind}_found"] * truth[f"{kind}_told"] * share * reliable
        for kind, share in (("tank_treading", p), ("flipping", 1 - p))
    )
    leak, as_tank = (1 - reliable) * truth["let_through"] * 0.8, rng.uniform(0.2, 0.8)
    k = tank * truth["tank_treading_right"] + flip * (1 - truth["flipping_right"]) + leak * as_tank
    m = flip * truth["flipping_right"] + tank * (1 - truth["tank_treading_right"]) + leak * (1 - as_tank)
    n_k, n_m, rest = rng.multinomial(tracks, [k, m, 1 - k - m])
    return int(n_k), int(n_m), int(rest)


def recounted(drawn: Draws, k: int, m: int, others: int) -> Draws:
    """The same rates with another run's counts."""
    u = points(DRAWS)
    return drawn._replace(counted=quantiles(u[0], k + m, others), raw=quantiles(u[1], k, m))


class Outcome(NamedTuple):
    """Of many runs by one correction: shares that hold, say no number, and hold of those that say one."""

    holds: float
    no_number: float
    holds_of_said: float
    width: float


def study(
    population: Population, patients: int, runs: int, seed: int, fraction: float | None = None
) -> dict[tuple[float, str], Outcome]:
    """Return what comes of either correction at each share of reliable tracks; `fraction`: of every run."""
    rng = np.random.default_rng([seed, patients])
    found: dict[tuple[float, str], list[tuple[bool, bool, float]]] = {}
    while runs:
        try:
            card = card_of([label(population.patient(rng), rng) for _ in range(patients)])
        except ValueError:  # no card that anybody would use
            continue
        runs -= 1
        truth, p = population.patient(rng), float(np.clip(rng.normal(0.75, 0.12), 0.3, 0.97))
        p = p if fraction is None else fraction
        together = draw(1, 1, 1, card, draws=DRAWS)
        new = draw_new_patient(together, card)
        for reliable in TRACKS:
            counts = measure(truth, p, reliable, rng)
            before, now = recounted(together, *counts), recounted(new, *counts)
            for name, ends in (
                ("by patient", interval_of_new_patient(now, before)),
                ("all together", interval_of(before)),
            ):
                _, low, high, possible = (float(x) for x in ends)
                said = counts[0] + counts[1] >= FEW_CELLS and possible >= LEAST_POSSIBLE
                said = said and high - low <= MOST_WIDTH
                found.setdefault((reliable, name), []).append((low <= p <= high, said, high - low))
    return {key: _outcome(rows) for key, rows in found.items()}


def _outcome(rows: list[tuple[bool, bool, float]]) -> Outcome:
    held, said, width = np.array(rows).T
    of_said = float(held[said > 0].mean()) if said.any() else float("nan")
    return Outcome(float(held.mean()), float(1 - said.mean()), of_said, float(np.median(width)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patients", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--leaks", type=float, nargs="+", default=[0.003, 0.03])
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--fraction", type=float, help="the true one; by default drawn for each patient")
    options = parser.parse_args()
    print("  leak spread patients reliable  corrected     holds no number of said   width")
    for leak in options.leaks:
        for spread in options.spreads:
            for patients in options.patients:
                population = Population(leak, spread, spread / 2)
                found = study(population, patients, options.runs, options.seed, options.fraction)
                for (reliable, name), of in found.items():
                    print(
                        f"{leak:6.3f} {spread:6.2f} {patients:8d} {reliable:8.1%}  {name:12s} {of.holds:6.1%}"
                        f" {of.no_number:9.0%} {of.holds_of_said:8.0%} {of.width:7.3f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
