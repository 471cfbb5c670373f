"""How long the counted cells of a session were watched, and what that does to its number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from napari_rbcflow.conventions import DEFAULT_FPS, LEAST_FRAMES
from napari_rbcflow.estimate.by_length import FractionByLength, fraction_by_length
from napari_rbcflow.estimate.seen_flips import MEASURED, TURNS_ONLY
from napari_rbcflow.estimate.unseen_flips import UnseenFlips, correct_unseen_flips

USUAL_SHEAR_PER_S = 10.0
"""At the wall (Darrin et al. 2023), where the session does not say."""


def least_frames_of(run: Mapping[str, Any]) -> int:
    """Return the least length of a counted track; sessions from before there was a choice had the paper's."""
    return int(run["parameters"].get("least_frames") or LEAST_FRAMES)


def by_length(run: Mapping[str, Any], cells: pd.DataFrame) -> FractionByLength:
    """Return a session's fraction by track length.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds.
    cells : DataFrame
        ``cells.csv``.
    """
    shear, fps, level = _conditions(run)
    return fraction_by_length(cells, shear_rate_per_s=shear, fps=fps, level=level)


def unseen_flips(run: Mapping[str, Any], cells: pd.DataFrame) -> tuple[UnseenFlips, UnseenFlips]:
    """Return a session's fraction corrected for unseen flips: the least correction, and the greatest.

    The first takes it that real stiff cells are told as often as simulated ones, the second that only a turn
    that was seen tells them.

    Parameters
    ----------
    run, cells
        As of `by_length`.
    """
    shear, fps, level = _conditions(run)
    stage2 = str(((run.get("models") or {}).get("stage2") or {}).get("hash") or "")
    least, most = (
        correct_unseen_flips(cells, curve, shear_rate_per_s=shear, fps=fps, level=level, stage2=stage2)
        for curve in (MEASURED, TURNS_ONLY)
    )
    return least, most


def unseen_flips_record(run: Mapping[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    """Return the same as ``fraction_unseen_flips`` of ``run.json``, the greatest under ``turns_only``."""
    least, most = unseen_flips(run, cells)
    return {**least.as_dict(), "turns_only": most.as_dict()}


def _conditions(run: Mapping[str, Any]) -> tuple[float, float, float]:
    """Shear rate at the wall, frame rate and level of a session."""
    parameters = run["parameters"]
    details = parameters.get("source_details") or {}
    shear = _above_0(parameters.get("shear_rate_per_s")) or _above_0(details.get("shear_rate_per_s"))
    fps = _above_0(parameters.get("fps"))
    return shear or USUAL_SHEAR_PER_S, fps or DEFAULT_FPS, float(run["fraction"]["level"])


def _above_0(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 and number != float("inf") else None
