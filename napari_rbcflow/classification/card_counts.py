"""The counts behind a card's rates: on how many labelled cells the weights were right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FOUND = {"tank_treading_found": "tank-treading found, of", "flipping_found": "flipping found, of"}
LET_THROUGH = "let through, of"
LET_THROUGH_AS = "let through, as tank-treading, flipping, not told"
TOLD = {"tank_treading_told": "tank-treading told, of", "flipping_told": "flipping told, of"}
RIGHT = {
    "tank_treading_right": "tank-treading right, of those told",
    "flipping_right": "flipping right, of those told",
}
GROUPS = {"by patient": "patient", "by day": "date", "by run": "acquisition"}
"""What a card gives its counts by, and the attribute of `Sequence31` that says to which one it belongs."""
_SHARES = "tank-treading share: true, and judged of those told"
_ACCURACY = "balanced accuracy of those told"


def held_back_counts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of held-back cells that a card holds, by the names of `estimate.rates`.

    Parameters
    ----------
    card : mapping
        Of either stage. What it does not say is left out; nothing here raises.

    Returns
    -------
    dict of str to list of int
        Hits and cells each; under ``by_patient`` the same of each patient, where the card says it. A card
        of before these counts were written gives stage 2's from its shares, of which they are the only
        whole numbers that fit.
    """
    for figures in dict(card.get("figures") or {}).values():
        wanted = FOUND if card.get("stage") == 1 else TOLD | RIGHT
        found = {name: list(figures[key]) for name, key in wanted.items() if _counts(figures.get(key))}
        if card.get("stage") == 1:
            found |= _let_through(figures)
        elif len(found) == len(TOLD):
            found |= _right(figures, found)
        if found:
            patients = _by_patient(figures.get("by patient"), int(card.get("stage") or 0))
            return found | ({"by_patient": patients} if patients else {})
    return {}


def _by_patient(groups: Any, stage: int) -> dict[str, dict[str, list[int]]]:
    wanted = FOUND | {"let_through": LET_THROUGH} if stage == 1 else TOLD | RIGHT
    found = {
        str(patient): {name: list(own[key]) for name, key in wanted.items() if _counts(own.get(key))}
        for patient, own in (groups.items() if isinstance(groups, dict) else ())
        if isinstance(own, dict)
    }
    return {patient: own for patient, own in found.items() if own}


def _let_through(figures: Mapping[str, Any]) -> dict[str, list[int]]:
    found = {}
    wrong, right = figures.get("FP"), figures.get("TN")
    if _counts(figures.get(LET_THROUGH)):
        found["let_through"] = list(figures[LET_THROUGH])
    elif _counts([wrong, right]):
        found["let_through"] = [int(wrong or 0), int(wrong or 0) + int(right or 0)]
    if _counts(figures.get(LET_THROUGH_AS), 3):
        found["let_through_as"] = list(figures[LET_THROUGH_AS])
    return found


def _right(figures: Mapping[str, Any], told: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Solve for the cells told right from their balanced accuracy and the share called tank-treading."""
    tank, flip = told["tank_treading_told"][0], told["flipping_told"][0]
    accuracy, shares = figures.get(_ACCURACY), figures.get(_SHARES)
    if not (tank and flip and isinstance(accuracy, float) and isinstance(shares, list) and len(shares) == 2):
        return {}
    if not isinstance(shares[1], float):
        return {}
    called = shares[1] * (tank + flip)
    flip_right = (2 * accuracy - (called - flip) / tank) / (1 / tank + 1 / flip)
    tank_right = called - flip + flip_right
    found = {"tank_treading_right": [round(tank_right), tank], "flipping_right": [round(flip_right), flip]}
    close = abs(tank_right - round(tank_right)) + abs(flip_right - round(flip_right)) < 1e-6
    return found if close and all(0 <= hits <= of for hits, of in found.values()) else {}


def _counts(value: Any, n: int = 2) -> bool:
    if not isinstance(value, list) or len(value) != n:
        return False
    return all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in value)
