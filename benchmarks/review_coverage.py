"""How often the interval of a review holds the truth, beside a person's labels alone and the machine's alone.

    OMP_NUM_THREADS=1 python benchmarks/review_coverage.py [--scenarios 160] [--runs 200] [--seed 1]

Each scenario is a movie of 200 to 6,000 judged tracks. 3.5, 10 or 40 % of them are reliable cells, of which
50 to 99 % tank-tread. Stage 1 lets 0 to 15 % of the unreliable through and finds 40 to 95 % of either kind,
not the same of both; stage 2 tells 97 % of the tank-treading and 95 % of the flipping cells right, and calls
what leaked tank-treading as often as not. Scores are normal: of reliable cells with 1.3 times the spread of
the others, and up to 5 % of the reliable cells have the scores of unreliable ones. 30 to 300 tracks are
checked, in one sample or (`--batch 12`) in batches, each chosen with the labels of those before.

The scenarios are drawn at random from all combinations. The worst ones are played again with other seeds,
five times as often, as the worst of many is by chance worse than it is.

Compared are: a plain random sample of as many tracks, of which only the person's labels are used (Wilson);
the same sample with the machine's labels of all tracks by `ppi_py.ppi_mean_ci` with power tuning, as a ratio
(the interval holds all R for which the mean of tank - R * reliable may be 0); and the machine's raw fraction
with Wilson's interval.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from multiprocessing import Pool
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from napari_rbcflow.estimate import ReviewPlan, wilson
from napari_rbcflow.estimate.review import KINDS

NAMES = [str(kind) for kind in KINDS]
try:
    from ppi_py import ppi_mean_ci
except ImportError:
    ppi_mean_ci = None


class Scenario(NamedTuple):
    """A movie, its networks, and how many tracks a person checks."""

    tracks: int
    reliable: float
    fraction: float
    leak: float
    found: tuple[float, float]
    checked: int
    hidden: float


GRID = [
    Scenario(*values)
    for values in itertools.product(
        (200, 600, 2000, 6000),
        (0.035, 0.1, 0.4),
        (0.5, 0.8, 0.95, 0.99),
        (0.0, 0.02, 0.05, 0.15),
        ((0.4, 0.95), (0.95, 0.4), (0.7, 0.7), (0.95, 0.95), (0.4, 0.4)),
        (30, 60, 150, 300),
        (0.0, 0.05),
    )
]


def movie(rng: np.random.Generator, of: Scenario) -> tuple[Any, Any, Any, Any]:
    """Draw what a person would say of each track, the machine's label, and its two probabilities."""
    n = of.tracks
    kind = np.where(rng.random(n) < of.reliable, (rng.random(n) >= of.fraction).astype(int), 2)
    threshold = norm.ppf(1 - max(of.leak, 5e-4))
    score = rng.normal(size=n)
    seen = rng.random(n) >= of.hidden
    for which, found in enumerate(of.found):
        middle = threshold + 1.3 * norm.ppf(min(found / (1 - of.hidden), 0.99))
        score = np.where((kind == which) & seen, middle + 1.3 * score, score)
    right = (norm.ppf(0.97), -norm.ppf(0.95), 0.0)
    second = np.take(right, kind) + rng.normal(size=n)
    passed = score >= threshold
    label = np.where(passed, (second < 0).astype(int), 2)
    p_reliable = np.round(expit(1.8 * (score - threshold) + 2), 4)
    p_tank = np.where(passed, np.round(expit(3 * second), 4), np.nan)
    return kind, label, p_reliable, p_tank


def alone(kind: Any) -> tuple[float, float]:
    """The interval of a person's labels of a plain random sample."""
    tank, flip = int((kind == 0).sum()), int((kind == 1).sum())
    return wilson(tank, tank + flip) if tank + flip else (0.0, 1.0)


def powered(kind: Any, of_these: Any, of_others: Any) -> tuple[float, float]:
    """The same with the machine's labels, by `ppi_py`."""
    inside = []
    for ratio in np.linspace(0, 1, 51):
        value = [
            np.where(k == 0, 1 - ratio, np.where(k == 1, -ratio, 0.0)) for k in (kind, of_these, of_others)
        ]
        if value[0].std() == 0 and value[1].std() == 0:
            return 0.0, 1.0
        low, high = (float(end[0]) for end in ppi_mean_ci(*value, alpha=0.05))
        if low <= 0 <= high:
            inside.append(ratio)
    return (min(inside), max(inside)) if inside else (0.0, 0.0)


def play(job: tuple[Scenario, int, int, int]) -> tuple[Scenario, dict[str, tuple[float, float, float]]]:
    """Play a scenario; for each method: how often it holds the patient's fraction, the movie's, its width."""
    of, runs, batch, seed = job
    rng = np.random.default_rng(seed)
    sums: dict[str, list[Any]] = {}
    for _ in range(runs):
        kind, label, p_reliable, p_tank = movie(rng, of)
        if not (kind < 2).any():
            continue
        exact = (kind == 0).sum() / (kind < 2).sum()
        n = min(of.checked, of.tracks)
        names = [NAMES[k] for k in label]
        plan = ReviewPlan(np.arange(of.tracks), names, p_reliable, p_tank, int(rng.integers(2**31)))
        labels: dict[int, list[str]] = {}
        while len(labels) < n:
            labels |= {c: [NAMES[kind[c]]] for c in plan.next(min(batch, n - len(labels)), labels)}
        got = plan.estimate(labels)
        ends = (0.0, 1.0) if got.low is None else (got.low, got.high)  # no reliable cell seen: no number
        sums.setdefault("review", []).append((*ends, exact, got.estimate))
        at = rng.permutation(of.tracks)
        mine, rest = at[:n], at[n:]
        sums.setdefault("person alone", []).append((*alone(kind[mine]), exact, np.nan))
        if ppi_mean_ci is not None and len(rest) > 1:
            sums.setdefault("ppi_py", []).append(
                (*powered(kind[mine], label[mine], label[rest]), exact, np.nan)
            )
        sums.setdefault("machine alone", []).append((*alone(label), exact, np.nan))
    found = {}
    for name, rows in sums.items():
        low, high, exact, estimate = np.array(rows, np.float64).T
        holds = ((low <= of.fraction) & (of.fraction <= high)).mean()
        exactly = ((low <= exact) & (exact <= high)).mean()
        found[name] = (
            float(holds),
            float(exactly),
            float((high - low).mean()),
            float((estimate - of.fraction).mean()),
        )
    return of, found


def table(results: list[tuple[Scenario, dict[str, Any]]], by: Callable[[Scenario], Any], head: str) -> None:
    """Print coverage and width by one property of the scenarios."""
    names = [n for n in ("review", "person alone", "ppi_py", "machine alone") if n in results[0][1]]
    print(f"\n| {head} | scenarios | " + " | ".join(f"{n}: holds, width" for n in names) + " |")
    print("|---|---|" + "---|" * len(names))
    for value in sorted({by(of) for of, _ in results}):
        rows = [found for of, found in results if by(of) == value]
        cells = []
        for name in names:
            of_name = np.array([row[name] for row in rows if name in row])
            holds, _, width, _ = of_name.mean(axis=0)
            cells.append(f"{holds:.3f}, {width:.2f}")
        print(f"| {value} | {len(rows)} | " + " | ".join(cells) + " |")


def main() -> None:
    """Play the scenarios and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenarios", type=int, default=160)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    picked = rng.choice(len(GRID), options.scenarios, replace=False)
    jobs = [(GRID[k], options.runs, options.batch, int(k)) for k in picked]
    with Pool(2) as pool:
        results = pool.map(play, jobs, chunksize=1)
        worst = sorted(results, key=lambda r: r[1]["review"][0])[:8]
        again = pool.map(
            play, [(of, 5 * options.runs, options.batch, 10**6 + k) for k, (of, _) in enumerate(worst)]
        )
    holds, exactly, width, bias = np.array([found["review"] for _, found in results]).T
    print(f"{len(results)} scenarios of {options.runs} movies, 95 % intervals, batches of {options.batch}")
    print(f"the patient's fraction held: mean {holds.mean():.4f}, worst scenario {holds.min():.3f}")
    print(f"the movie's own fraction held: mean {exactly.mean():.4f}, worst {exactly.min():.3f}")
    print(
        f"width {width.mean():.3f}; bias mean {bias.mean():+.4f}, largest {bias[np.abs(bias).argmax()]:+.3f}"
    )
    table(results, lambda of: of.checked, "checked")
    table(results, lambda of: of.tracks, "tracks")
    table(results, lambda of: of.reliable, "share reliable")
    table(results, lambda of: of.fraction, "fraction")
    table(results, lambda of: of.leak, "leak")
    table(results, lambda of: of.found, "found")
    print("\nthe worst scenarios, played again:")
    for (of, first), (_, more) in zip(worst, again, strict=True):
        print(f"{first['review'][0]:.3f} then {more['review'][0]:.3f} (movie's {more['review'][1]:.3f}) {of}")


if __name__ == "__main__":
    main()
