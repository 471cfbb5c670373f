"""Plays all and lays it out; `benchmarks/interval_coverage.py` says how."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coverage_corrected import Corner, Ends, Method, Played, Result, Tables, grid, ours, study
from coverage_raw import exact, outcomes
from coverage_rivals import RIVALS
from coverage_tables import (
    CORRIDOR,
    corrected_table,
    exact_table,
    inside,
    outside,
    raw_table,
    rivals_table,
    stops_table,
)

FRACTIONS = (0.5, 0.7, 0.86, 0.95, 0.99)
WIDTHS = (0.05, 0.03)
MOST_CELLS = 2000
ASKED_FIXED = dict(zip(FRACTIONS, (1.1, 1.1, 1.1, 1.25, 1.5), strict=True))
ASKED_ANYTIME = 2.5
LABELLED = (100, 300, 1000, 2000)
LEAKS = (0.003, 0.01, 0.03)
STOP = "0.05"


def compare(runs: int, seed: int, tables: Tables) -> dict[str, list[Result]]:
    """Play every way to an interval on the same part of the grid."""
    corners = [
        c for c in grid((100, 500, 2000), (0.5, 0.86, 0.99), (0.003, 0.03)) if c.tank_right == c.flip_right
    ]
    ways: dict[str, Method] = {**RIVALS, "ours: the same, never shorter than of possible draws": ours}
    return {name: [study(c, STOP, runs, seed, tables, way) for c in corners] for name, way in ways.items()}


def stopping(runs: int, seed: int, tables: Tables) -> dict[str, list[Result]]:
    """Play the same networks, well known, with different stops."""
    corner = Corner(0.5, 0.003, 0.99, 0.99, 2000, 0.3)
    corners = [replace(corner, p=p) for p in (0.5, 0.7, 0.86)]

    def flat(of: Played, tables: Tables) -> Ends:
        return ours(of, tables, flat=True)

    found = {
        f"at a half-width of {w}": [study(c, w, runs, seed, tables) for c in corners]
        for w in ("0.05", "0.03")
    }
    found["at 200 cells"] = [study(c, "200 cells", runs, seed, tables) for c in corners]
    for stop, said in (
        ("baseline", "8 points below the baseline, by the rule"),
        ("person", "by a person who stops when Wilson's interval excludes the baseline"),
    ):
        found[f"{said}; counts as they are"] = [study(c, stop, runs, seed, tables, flat) for c in corners]
        found[f"{said}; anytime interval handed over"] = [study(c, stop, runs, seed, tables) for c in corners]
    return found


def main(described: str, arguments: Sequence[str] | None = None) -> None:
    """Run from the command line; `described` is what --help says."""
    parser = argparse.ArgumentParser(
        description=described, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000, help="for each fraction")
    parser.add_argument(
        "--corner-runs", type=int, default=2_000, help="for each corner of the corrected's grid"
    )
    parser.add_argument(
        "--quick", action="store_true", help="300 runs and 60 a corner: only to see that it works"
    )
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args(arguments)
    runs, corner_runs = (300, 60) if given.quick else (given.runs, given.corner_runs)
    began = time.process_time()
    print("## Summed exactly\n\n" + exact_table(exact(WIDTHS, FRACTIONS), FRACTIONS) + "\n", flush=True)
    raw = [o for p in FRACTIONS for o in outcomes(p, WIDTHS, runs, MOST_CELLS, given.seed)]
    print(f"## Played, {runs:,} runs for each fraction\n\n" + raw_table(raw) + "\n", flush=True)
    tables = Tables()
    rivals = compare(corner_runs, given.seed, tables)
    print(
        f"## Ways to the corrected interval, {corner_runs:,} runs a corner\n\n{rivals_table(rivals)}\n",
        flush=True,
    )
    stops = stopping(corner_runs, given.seed, tables)
    print("## What stopping does to it: coverage, %\n\n" + stops_table(stops) + "\n", flush=True)
    corrected = [study(c, STOP, corner_runs, given.seed, tables) for c in grid(LABELLED, FRACTIONS, LEAKS)]
    print(f"## Corrected, {corner_runs:,} runs a corner\n\n{corrected_table(corrected)}\n")
    print(outside(corrected) + "\n")
    print(f"in the corridor: {inside(corrected)} of {len(corrected)} corners")
    print(f"{time.process_time() - began:.0f} s of one core")
    if given.picture:
        from coverage_picture import draw

        draw(raw, corrected, rivals, ASKED_FIXED, ASKED_ANYTIME, CORRIDOR, given.picture)
