"""How often a control that is in order is rejected, and how soon each of Westgard's rules finds a fault.

    python benchmarks/control.py alarms [--series 20000]
    python benchmarks/control.py faults [--series 4000]
    python benchmarks/control.py repeatability [--series 2000]
    python benchmarks/control.py picture docs/img/control.png

A control is drawn as it is measured: each day has a true fraction, normal around the lot's mean; a run counts
cells of it, binomially. `alarms` takes days on which nothing is wrong: once with the true mean and standard
deviation as the target, beside the theory of independent normal values, and once with the target of the lot's
first 20 runs, as a laboratory has it. `faults` adds a fault that begins after those and prints the share of
series in which each rule fires within 20 days, and after how many days a run is first rejected.
`repeatability` draws days of two runs and says how far the standard deviations that come out are from those
put in. `picture` draws 20 days of a target and 20 with a lamp that ages, through the command's own chart.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from napari_rbcflow.estimate import wilson
from napari_rbcflow.session import FractionFigure
from napari_rbcflow.trend import Gathered, Precision, Record, Rule, control_charts, control_png, rules_broken
from napari_rbcflow.trend.baseline import Day
from napari_rbcflow.trend.control import FIRST_RUNS, REJECTS, Target

MEAN, BETWEEN, CELLS, DAYS = 0.80, 0.012, 400, 20
SD = np.sqrt(BETWEEN**2 + MEAN * (1 - MEAN) / CELLS)
"""Of a run: 2.3 points, of which counting is 2.0."""
FIRST = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

Floats = NDArray[np.float64]


def tail(z: float) -> float:
    return float(ndtr(-z))


THEORY = {
    Rule.R12S: 2 * tail(2),
    Rule.R13S: 2 * tail(3),
    Rule.R22S: 2 * tail(2) ** 2,
    Rule.R4S: 2 * tail(2) ** 2,
    Rule.R41S: 2 * tail(1) ** 4,
    Rule.R10X: 2 * 0.5**10,
}
"""Share of runs, far enough from the first, that a rule rejects where values are independent and normal."""

# What is added on each of 20 days, in standard deviations of a run, and the factor of the spread.
FAULTS: dict[str, tuple[Callable[[Floats], Floats], float]] = {
    "none": (lambda day: 0 * day, 1.0),
    "one day 4 s low": (lambda day: -4.0 * (day == 10), 1.0),
    "step of -1 s": (lambda day: 0 * day - 1.0, 1.0),
    "step of -2 s": (lambda day: 0 * day - 2.0, 1.0),
    "step of -3 s": (lambda day: 0 * day - 3.0, 1.0),
    "drift of -0.15 s a day": (lambda day: -0.15 * (day + 1), 1.0),
    "spread doubled": (lambda day: 0 * day, 2.0),
    "up and down, ±2.5 s": (lambda day: 2.5 * (-1) ** day, 1.0),
}


def draw(rng: np.random.Generator, days: int, offset: Floats | float = 0.0, spread: float = 1.0) -> Floats:
    true = rng.normal(MEAN, BETWEEN, days) + SD * offset
    if spread > 1:  # what makes the spread of the runs so many times as large
        true = true + rng.normal(0, SD * np.sqrt(spread**2 - 1), days)
    return np.asarray(rng.binomial(CELLS, np.clip(true, 0.01, 0.99)) / CELLS, np.float64)


def target(first: Floats) -> Target:
    return Target.of([Day(float(x), CELLS) for x in first])


def alarms(rng: np.random.Generator, series: int) -> None:
    kinds = {
        "normal, true target": lambda: rng.normal(0, 1, FIRST_RUNS + DAYS),
        "cells, true target": lambda: (draw(rng, FIRST_RUNS + DAYS) - MEAN) / SD,
        "cells, target of 20 runs": lambda: _judged_by_first(draw(rng, FIRST_RUNS + DAYS)),
    }
    names = [*Rule, "any rejection", "a rejection in 20 days"]
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    print("| theory | " + " | ".join(f"{100 * THEORY[rule]:.3f} %" for rule in Rule) + " | | |")
    for kind, make in kinds.items():
        counts, rejected, some = Counter[Rule](), 0, 0
        for _ in range(series):
            found = rules_broken(make().tolist())[FIRST_RUNS:]
            counts.update(rule for rules in found for rule in rules)
            bad = sum(bool(set(rules) & set(REJECTS)) for rules in found)
            rejected += bad
            some += bad > 0
        runs = series * DAYS
        shares = [*(counts[rule] / runs for rule in Rule), rejected / runs, some / series]
        print(f"| {kind} | " + " | ".join(f"{100 * share:.3f} %" for share in shares) + " |")


def _judged_by_first(values: Floats) -> Floats:
    made = target(values[:FIRST_RUNS])
    return (values - made.mean) / made.sd


def faults(rng: np.random.Generator, series: int) -> None:
    print(
        "| fault | "
        + " | ".join(Rule)
        + " | rejected in 20 days | first on day (median) |\n|---|"
        + "---|" * 8
    )
    for fault, (offset, spread) in FAULTS.items():
        counts, firsts = Counter[Rule](), []
        for _ in range(series):
            values = np.concatenate(
                [draw(rng, FIRST_RUNS), draw(rng, DAYS, offset(np.arange(DAYS, dtype=float)), spread)]
            )
            found = rules_broken(_judged_by_first(values).tolist())[FIRST_RUNS:]
            counts.update({rule for rules in found for rule in rules})
            days = [day for day, rules in enumerate(found, start=1) if set(rules) & set(REJECTS)]
            firsts += days[:1]
        shares = " | ".join(f"{100 * counts[rule] / series:.0f} %" for rule in Rule)
        first = f"{np.median(firsts):.0f}" if firsts else ""
        print(f"| {fault} | {shares} | {100 * len(firsts) / series:.0f} % | {first} |")


def repeatability(rng: np.random.Generator, series: int) -> None:
    print(
        "| put in: within, between, points | within | between | within the laboratory | its interval holds |"
    )
    print("|---|---|---|---|---|")
    for between in (0.0, 0.012, 0.03):
        found = []
        for _ in range(series):
            true = rng.normal(MEAN, between, DAYS)
            days = [[Day(rng.binomial(CELLS, p) / CELLS, CELLS) for _ in range(2)] for p in true]
            found.append(Precision.of(days))
        made = [one for one in found if one is not None]
        counting = np.sqrt((MEAN * (1 - MEAN) - between**2) / CELLS)
        whole = np.hypot(counting, between)
        held = np.mean([one.total_interval[0] <= whole <= one.total_interval[1] for one in made])
        means = [
            f"{100 * np.sqrt(np.mean([getattr(one, part) ** 2 for one in made])):.2f}"
            for part in ("within", "between", "total")
        ]
        print(
            f"| {100 * counting:.2f}, {100 * between:.2f} | " + " | ".join(means) + f" | {100 * held:.1f} % |"
        )


def picture(rng: np.random.Generator, file: Path) -> None:
    offset = np.concatenate(
        [np.zeros(FIRST_RUNS), FAULTS["drift of -0.15 s a day"][0](np.arange(DAYS, dtype=float))]
    )
    records = []
    for day, fraction in enumerate(draw(rng, FIRST_RUNS + DAYS, offset).tolist()):
        figure = FractionFigure(fraction, *wilson(round(fraction * CELLS), CELLS), 0.95, "wilson", CELLS)
        started = FIRST + timedelta(days=day)
        name = Path(f"control-{day:02d}")
        about = {"instrument": "A1", "control_lot": "C7"}
        records.append(Record(name, started, "", "", "finished", 0.605, figure, **about))  # type: ignore[arg-type]
    charts = control_charts(Gathered((), controls=tuple(records)))
    file.write_bytes(control_png(charts))
    print("\n".join(charts[0].summary()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    what = parser.add_subparsers(dest="what", required=True)
    for name, usual in (("alarms", 20000), ("faults", 4000), ("repeatability", 2000)):
        what.add_parser(name).add_argument("--series", type=int, default=usual)
    what.add_parser("picture").add_argument("file", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    if given.what == "picture":
        picture(rng, given.file)
    else:
        {"alarms": alarms, "faults": faults, "repeatability": repeatability}[given.what](rng, given.series)


if __name__ == "__main__":
    main()
