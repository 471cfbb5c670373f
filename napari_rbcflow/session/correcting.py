"""The corrected fraction of a session: worked out, said, and checked again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.error_correction import corrected_fraction
from napari_rbcflow.estimate.network_rates import NetworkRates
from napari_rbcflow.estimate.reported import ANYTIME
from napari_rbcflow.session.account import NOT_CORRECTED, FractionFigure
from napari_rbcflow.session.runfile import read_run

_TOLERANCE = 1e-3
"""Of an end: another release of SciPy may round its quantiles otherwise."""


@dataclass(frozen=True)
class CorrectedFigure(FractionFigure):
    """A corrected fraction.

    Attributes
    ----------
    reason : str
        A sentence where there is none; else empty.
    """

    reason: str = ""


def corrected_figure(
    models: Mapping[str, Any],
    cells: Mapping[str, int],
    raw: FractionFigure,
    focus_speed: Mapping[str, Any] | None = None,
) -> CorrectedFigure:
    """Return the fraction corrected for the errors of a run's networks.

    Parameters
    ----------
    models : mapping
        As in ``run.json``, with the counts behind the rates.
    cells : mapping
        As in ``run.json``.
    raw : FractionFigure
        What is said without the correction. Where its interval holds whatever stopped the run, so does the
        corrected one.
    focus_speed : mapping, optional
        As in ``run.json``. Where the cells in focus share a speed, tracks at other speeds cannot have been
        counted by mistake, and are not among those of which some were.
    """
    level = raw.level
    handed = None
    if raw.method == ANYTIME and raw.low is not None and raw.high is not None:
        handed = raw.low, raw.high
    k, m = int(cells.get("tank_treading", 0)), int(cells.get("flipping", 0))
    try:
        rates = NetworkRates.of_models(models)
        there = (focus_speed or {}).get("unreliable_there")
        unreliable = there if isinstance(there, int) else int(cells.get("unreliable", 0))
        found = corrected_fraction(k, m, unreliable, rates, level, handed)
    except ValueError as error:  # of the card: a run's end is not the place to fail for it
        return CorrectedFigure(
            None, None, None, level, NOT_CORRECTED, k + m, f"No corrected number: {error}."
        )
    return CorrectedFigure(found.estimate, found.low, found.high, level, found.method, found.n, found.reason)


def corrected_words(told: Mapping[str, Any]) -> str:
    """Say the corrected fraction of ``run.json``, or why there is none; empty where neither is told."""
    estimate, low, high = (told.get(key) for key in ("estimate", "low", "high"))
    if estimate is None or low is None or high is None:
        return str(told.get("reason", ""))
    return (
        f"Corrected for the networks' known errors: {100 * estimate:.1f} %"
        f" ({100 * told['level']:g} % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )


def words_of(folder: Path) -> str:
    """Say it of a session folder; empty where that cannot be read, which others tell."""
    try:
        return corrected_words(read_run(folder).get("fraction_corrected") or {})
    except BadInput:
        return ""


def counts_words(models: Mapping[str, Any]) -> str:
    """Say on how many labelled cells the correction rests; empty where the models do not tell."""
    try:
        r = NetworkRates.of_models(models)
    except ValueError:
        return ""
    told = r.let_through_as
    first, second = (_on(r.patients_of(name)) for name in ("let_through", "tank_treading_told"))
    labels = f", labelled {told[0]} tank-treading and {told[1]} flipping" if sum(told) else ""
    return (
        f"The rates were counted on labelled cells that the networks had not seen: stage 1{first} found"
        f" {r.tank_treading_found.hits} of {r.tank_treading_found.of} tank-treading and"
        f" {r.flipping_found.hits} of {r.flipping_found.of} flipping ones and let {r.let_through.hits} of"
        f" {r.let_through.of} unreliable ones through{labels}; stage 2{second} was right on"
        f" {r.tank_treading_right.hits} of {r.tank_treading_right.of} tank-treading and"
        f" {r.flipping_right.hits} of {r.flipping_right.of} flipping ones."
    )


def _on(patients: list[str]) -> str:
    if len(patients) < 2:
        return f", on patient {patients[0]}," if patients else ""
    return f", on patients {', '.join(patients[:-1])} and {patients[-1]},"


def findings(run: Mapping[str, Any], found: Mapping[str, int]) -> Iterator[str]:
    """Work the corrected fraction out again from the cells `found` in ``cells.csv``, and compare.

    Only what is said is checked: a session of before the correction says nothing.
    """
    told = run.get("fraction_corrected") or {}
    if told.get("estimate") is None and not told.get("reason"):
        return
    right = corrected_figure(run["models"], found, FractionFigure(**run["fraction"]), run.get("focus_speed"))
    for name in ("estimate", "low", "high"):
        said, wanted = told.get(name), getattr(right, name)
        if (said is None) != (wanted is None):
            yield (
                "run.json gives a corrected fraction, but its counts and rates give none."
                if wanted is None
                else "run.json gives no corrected fraction, but its counts and rates give one."
            )
            return
        if said is not None and not math.isclose(said, wanted, abs_tol=_TOLERANCE):
            yield f"run.json gives the corrected fraction's {name} as {said:.6g}; it is {wanted:.6g}."
    if told.get("n") != right.n:
        yield f"run.json: the corrected fraction is of {told.get('n')} cells, cells.csv holds {right.n}."
