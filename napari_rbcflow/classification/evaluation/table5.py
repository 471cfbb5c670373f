"""Table 5 of Darrin et al. (2023), in the paper's own columns, for whatever data was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "-"


def table5(result: Mapping[str, Any]) -> str:
    """Return Table 5 for a terminal: the tank-treading share per acquisition, true and estimated.

    Parameters
    ----------
    result : mapping
        What `evaluate` returns.
    """
    name = max([11, *(len(row["acquisition"]) for row in result["table5"])])
    lines = [
        "Table 5. Tank-treading cells, % of the reliable; errors in percentage points",
        f"{'':{name}s} {'':>8s}  stage 2 of the truly reliable  |  both stages in a row",
        f"{'acquisition':{name}s} {'true':>8s} {'estimated':>11s} {'error':>9s} {'n':>6s}   |"
        f" {'estimated':>10s} {'error':>7s} {'n':>6s}",
    ]
    for row in result["table5"]:
        both = row["in_a_row"]
        first, second = (
            (_points(one["estimated_percent"]), _points(one["error_points"], True), one["n"])
            for one in (row, both)
        )
        lines.append(
            f"{row['acquisition']:{name}s} {_points(row['true_percent']):>8s}"
            f" {first[0]:>11s} {first[1]:>9s} {first[2]:6d}   |"
            f" {second[0]:>10s} {second[1]:>7s} {second[2]:6d}"
        )
    return "\n".join(lines)


def _points(value: float | None, signed: bool = False) -> str:
    if value is None:
        return DASH
    return f"{value:+.1f}" if signed else f"{value:.1f}"
