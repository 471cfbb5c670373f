"""Lays out in Markdown what coverage.py found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from coverage_corrected import Result
from coverage_raw import Exact, Outcome

CORRIDOR = (0.93, 0.98)
"""What the corrected interval's coverage is to be."""
LEAST_SAID = 100
"""Runs with a number that a coverage of these alone is worth saying."""


def inside(results: Sequence[Result]) -> int:
    """Count the corners in the corridor."""
    return sum(CORRIDOR[0] <= r.coverage <= CORRIDOR[1] for r in results)


def _percent(coverage: float, error: float, digits: int = 1) -> str:
    return f"{100 * coverage:.{digits}f} ± {100 * error:.{digits}f}"


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f}, {np.mean(values):.1f}, {max(values):.1f}"


def raw_table(found: Sequence[Outcome]) -> str:
    """Lay out what the intervals of the raw fraction did."""
    lines = [
        "| rule and interval | half-width | p | coverage, % | cells / Wilson's | not reached, % |",
        "|---" * 6 + "|",
    ]
    for o in sorted(found, key=lambda o: (o.rule, math.isnan(o.wanted), -o.wanted, o.p)):
        cells = "" if math.isnan(o.wanted) else f"{o.cells / o.needed:.2f}"
        wanted = "" if math.isnan(o.wanted) else f"{o.wanted:g}"
        met = f"{100 * o.unreached:.1f}" if o.unreached else ""
        lines.append(
            f"| {o.rule} | {wanted} | {o.p} | {_percent(o.coverage, o.error, 2)} | {cells} | {met} |"
        )
    return "\n".join(lines)


def exact_table(found: Sequence[Exact], fractions: Sequence[float]) -> str:
    """Lay out what was summed instead of played."""
    lines = [
        "| half-width | z | fixed-width: least coverage, any p | its cells / Wilson's at "
        + ", ".join(map(str, fractions))
        + " | Wilson stopped by its width: least coverage, any p |",
        "|---" * 5 + "|",
    ]
    for e in found:
        cells = ", ".join(f"{c:.2f}" for c in e.cells)
        lines.append(
            f"| {e.wanted:g} | {e.z:.3f} | {100 * e.least:.2f} % at {e.least_at:.3f} | {cells} |"
            f" {100 * e.naive_least:.2f} % at {e.naive_least_at:.3f} |"
        )
    return "\n".join(lines)


def corrected_table(found: Sequence[Result]) -> str:
    """Lay out the corrected interval's coverage by leak and number of labelled sequences."""
    lines = [
        "| labelled | leak | corners | least, mean, most coverage, % | below 93 % | above 98 % | mean width"
        " | a number is said, % | coverage of these, least | mean error of the estimate |",
        "|---" * 10 + "|",
    ]
    keys = dict.fromkeys((r.corner.labelled, r.corner.leak) for r in found)
    for labelled, leak in keys:
        own = [r for r in found if (r.corner.labelled, r.corner.leak) == (labelled, leak)]
        coverage = [100 * r.coverage for r in own]
        said = [100 * r.coverage_shown for r in own if r.shown * r.runs >= LEAST_SAID]
        lines.append(
            f"| {labelled} | {leak} | {len(own)} | {_spread(coverage)} |"
            f" {sum(c < 93 for c in coverage)} | {sum(c > 98 for c in coverage)} |"
            f" {np.mean([r.width for r in own]):.2f} | {100 * np.mean([r.shown for r in own]):.0f} |"
            f" {f'{min(said):.1f}' if said else ''} | {np.mean([abs(r.bias) for r in own]):.3f} |"
        )
    return "\n".join(lines)


def outside(found: Sequence[Result]) -> str:
    """Name the corners below the corridor, and say what is covered where a number is said."""

    def named(r: Result) -> str:
        c = r.corner
        return (
            f"p {c.p}, leak {c.leak}, specificity {c.tank_right}, sensitivity {c.flip_right}, labelled"
            f" {c.labelled}, let through as tank-treading {c.tank_of_leak}"
        )

    below = sorted((r for r in found if r.coverage < CORRIDOR[0]), key=lambda r: r.coverage)
    lines = [f"- {100 * r.coverage:.1f} ± {100 * r.error:.1f} %: {named(r)}" for r in below]
    for least in (0.9, 0.5):
        often = [100 * r.coverage_shown for r in found if r.shown >= least]
        if often:
            lines.append(
                f"- {min(often):.1f} % at least, of runs with a number, where {least:.0%} or more have one"
            )
    said = [r for r in found if r.shown * r.runs >= LEAST_SAID]
    for r in sorted(said, key=lambda r: r.coverage_shown)[:5]:
        lines.append(
            f"- {100 * r.coverage_shown:.1f} % of the {100 * r.shown:.0f} % of runs with a number: {named(r)}"
        )
    return "\n".join(lines)


def rivals_table(found: Mapping[str, Sequence[Result]]) -> str:
    """Compare ways to an interval."""
    lines = [
        "| interval | least, mean, most coverage, % | corners in 93 to 98 % | mean width | mean error |",
        "|---" * 5 + "|",
    ]
    for name, results in found.items():
        coverage = [100 * r.coverage for r in results]
        lines.append(
            f"| {name} | {_spread(coverage)} |"
            f" {inside(results)} of {len(results)} | {np.mean([r.width for r in results]):.2f} |"
            f" {np.mean([abs(r.bias) for r in results]):.3f} |"
        )
    return "\n".join(lines)


def stops_table(found: Mapping[str, Sequence[Result]]) -> str:
    """Say what stopping does to the corrected interval."""
    lines = [
        "| the run stops | cells | "
        + " | ".join(f"p = {r.corner.p}" for r in next(iter(found.values())))
        + " |"
    ]
    lines.append("|---" * (2 + len(next(iter(found.values())))) + "|")
    for name, results in found.items():
        cells = ", ".join(f"{r.cells:.0f}" for r in results)
        lines.append(
            f"| {name} | {cells} | "
            + " | ".join(f"{100 * r.coverage:.1f} ± {100 * r.error:.1f}" for r in results)
            + " |"
        )
    return "\n".join(lines)
