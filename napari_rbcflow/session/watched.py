"""How long the counted cells of a session were watched, and what that does to its number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from napari_rbcflow.estimate.reported import ANYTIME, FIXED_WIDTH
from napari_rbcflow.estimate.tally import TOO_FEW_FRAMES
from napari_rbcflow.estimate.unseen_flips import (
    MEASURED,
    TURNS_ONLY,
    FractionByLength,
    UnseenFlips,
    correct_unseen_flips,
    fraction_by_length,
)
from napari_rbcflow.types import DEFAULT_FPS, LEAST_FRAMES, Label

USUAL_SHEAR_PER_S = 10.0
"""At the wall (Darrin et al. 2023), where the session does not say."""
_TOLERANCE = 1e-4
"""Of a fraction, as in `verify`."""


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
    that was seen tells them. Where what was seen may have decided when the run stopped, neither is surer than
    the raw interval of ``run.json``, which holds for that.

    Parameters
    ----------
    run, cells
        As of `by_length`.
    """
    shear, fps, level = _conditions(run)
    stage2 = str(((run.get("models") or {}).get("stage2") or {}).get("hash") or "")
    raw = _stopped_by_labels(run)
    least, most = (
        correct_unseen_flips(
            cells, curve, shear_rate_per_s=shear, fps=fps, level=level, stage2=stage2, raw=raw
        )
        for curve in (MEASURED, TURNS_ONLY)
    )
    return least, most


def _stopped_by_labels(run: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the raw interval where it is one that allows for a stop by what was seen."""
    raw = run["fraction"]
    low, high = raw.get("low"), raw.get("high")
    if raw.get("method") not in (ANYTIME, FIXED_WIDTH) or low is None or high is None:
        return None
    return float(low), float(high)


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


def findings(run: Mapping[str, Any], cells: pd.DataFrame) -> list[str]:
    """Return where the least length of a counted track, or the correction, is not what the tables give.

    Parameters
    ----------
    run, cells
        As of `by_length`.
    """
    said, least = [], least_frames_of(run)
    counted = cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])
    held = cells["reason"] == TOO_FEW_FRAMES
    if (brief := cells["cell"][counted & (cells["frames"] < least)]).size:
        said.append(
            f"cells.csv counts {len(brief)} cells seen in under {least} frames, the least that run.json names"
            f" (first {brief.iloc[0]})."
        )
    wrong = held & ((cells["label"] != Label.UNCOUNTED) | ~cells["frames"].between(LEAST_FRAMES, least - 1))
    if (wrongly := cells["cell"][wrong]).size:
        said.append(
            f"cells.csv leaves out {len(wrongly)} cells as seen in too few frames that are not so"
            f" (first {wrongly.iloc[0]})."
        )
    told = run.get("fraction_unseen_flips")
    if told is not None:
        right = unseen_flips_record(run, cells)
        for figures, others in ((told, right), (told.get("turns_only") or {}, right["turns_only"])):
            if not _alike(figures, others):
                said.append("run.json: fraction_unseen_flips is not what cells.csv gives.")
                break
    return said


def _alike(told: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    for name in ("estimate", "low", "high", "seen"):
        a, b = told.get(name), right[name]
        if (a is None) != (b is None) or (a is not None and abs(a - b) > _TOLERANCE):
            return False
    return all(told.get(name) == right[name] for name in ("method", "n", "reason"))
