"""A session's number, proved again from its cells: the fraction, its interval, and the stop behind both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from napari_rbcflow.estimate.intervals import wilson
from napari_rbcflow.estimate.reported import said
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.session.counting import (
    RuleMet,
    counted_cells,
    finished_labels,
    first_met,
    recount,
    rules_of,
)
from napari_rbcflow.session.reading import Session

_TOLERANCE = 1e-4
"""Of a fraction: ``run.json`` may hold it rounded to as little as four decimals."""
_MET_BY_CELLS = ("reliable", "half-width", "baseline", "tracks")


def findings_of_fraction(told: dict[str, Any], k: int, m: int) -> Iterator[str]:
    """Compare the fraction of ``run.json`` with `k` tank-treading and `m` flipping cells in ``cells.csv``."""
    n = k + m
    if told["n"] != n:
        yield f"run.json: the fraction is of {told['n']} cells, cells.csv holds {n} that count."
    estimate, low, high = told["estimate"], told["low"], told["high"]
    if not n:
        if estimate is not None:
            yield "run.json gives a fraction where no cell counts."
        return
    if estimate is None or not math.isclose(estimate, k / n, abs_tol=_TOLERANCE):
        yield f"run.json gives a fraction of {estimate}, cells.csv one of {k / n:.6g}."
    if low is None or high is None or not 0 <= low <= high <= 1:
        yield f"run.json: {low} to {high} is not an interval."
    elif told["method"] == "wilson":
        yield from _ends(told, "wilson", wilson(k, n, told["level"]))


def findings_of_interval(session: Session) -> Iterator[str]:
    """Count the cells again in their order, and work out the interval that belongs to how the run ended."""
    run = session.run
    told = run["fraction"]
    if told["low"] is None or told["high"] is None:
        return
    rules = rules_of(run["parameters"])
    if rules is None:
        if told["method"] != "wilson":
            yield (
                f"run.json gives the {told['method']} interval, but not the stop rules to which it belongs:"
                " it cannot be checked."
            )
        return
    if (again := session.counted_again) is not None:
        fraction = again.tally.fraction
    else:
        fraction = recount(counted_cells(session.folder, session.cells), told["level"])
    right = said(fraction, rules[0], run["status"], run["stop_reason"], rules[1])
    if told["method"] != right.method:
        yield (
            f"run.json gives the {told['method']} interval, but to a run that ended so"
            f" ({run['status']}, {run['stop_reason']}) belongs the {right.method} one."
        )
    elif right.method != "wilson":  # that one was looked at with the counts
        yield from _ends(told, right.method, right.interval)


def findings_of_stop(session: Session) -> Iterator[str]:
    """Count again until a stop rule is met: it must be the one that is named, and met by the last cell."""
    run = session.run
    chosen = rules_of(run["parameters"])
    if chosen is None:
        return
    rules: StopRules = chosen[0]
    reason = str(run["stop_reason"])
    labels = finished_labels(session.folder, session.cells)
    if (again := session.counted_again) is not None:
        enough = again.tally.enough
        met = None if enough is None else RuleMet(enough, again.tally.finished)
    else:
        met = first_met(rules, labels, run["fraction"]["level"])
    if reason in _MET_BY_CELLS:
        if met is None:
            yield f"run.json says that the rule {reason} stopped the run, but its cells do not meet it."
            return
        if met.reason != reason:
            yield f"run.json says that the rule {reason} stopped the run; its cells first met {met.reason}."
    elif met is not None and run["status"] == "finished":
        yield f"run.json says that {reason} ended the run, but its cells met the rule {met.reason} before."
    if met is not None and met.tracks != len(labels):
        yield (
            f"The rule {met.reason} was met by track {met.tracks} of those that ended before the stop,"
            f" but {len(labels)} are in the number."
        )


def findings_of_focus_speed(session: Session) -> Iterator[str]:
    """Learn the speed of the cells in focus again, and find the tracks whose labels do not follow from it."""
    again, told = session.counted_again, session.run.get("focus_speed") or {}
    if again is None:
        return
    right = {**again.tally.focus.as_dict(), "set_aside": again.tally.set_aside}
    if told != right:
        yield f"run.json gives the speed of cells in focus as {told}; its tracks give {right}."
    cells = session.cells
    rows = zip(cells["cell"], zip(cells["label"], cells["reason"], strict=True), strict=True)
    if wrong := [cell for cell, said in rows if again.labels.get(cell, said) != said]:
        yield (
            f"cells.csv: {len(wrong)} labels are not what the networks and the speed of cells in focus give"
            f" (first cell {wrong[0]})."
        )


def findings_of_corrected(session: Session) -> Iterator[str]:
    """Find where the corrected number is neither told nor is it said why there is none."""
    run = session.run
    told = run.get("fraction_corrected") or {}
    # A run that broke was perhaps closed by another process, which does not work it out.
    if rules_of(run["parameters"]) is None or run["status"] == "failed":
        return
    if told.get("estimate") is None and not told.get("reason"):
        yield "run.json gives neither a corrected fraction nor a reason why there is none."


def _ends(told: dict[str, Any], method: str, right: tuple[float, float]) -> Iterator[str]:
    for name, end in zip(("low", "high"), right, strict=True):
        if not math.isclose(told[name], end, abs_tol=_TOLERANCE):
            yield f"run.json gives the interval's {name} end as {told[name]:.6g}; {method} gives {end:.6g}."
