"""The measures of a run's quality as ``run.json`` holds them, each name with its unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_rbcflow.quality.drift import Change
from napari_rbcflow.quality.flow import SetFlow
from napari_rbcflow.quality.meter import Meter
from napari_rbcflow.quality.sums import Sums, median_speed, radius_at
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE

PAPERS_FIELD_UM2 = 830.0 * 655.0
"""Field of Darrin et al. 2023, in which 100 to 250 cells stand."""
INTRUSION_UM = (CROP_SIDE / 2 + 3) * CROP_PIXEL_SIZE_UM
"""Nearer than this along both axes, the tracker marks another cell as standing in the crop."""
_LEAST_RADII = 20


def figures_of(sums: Sums, *, field_um2: float, flow: SetFlow) -> dict[str, Any]:
    """Return the measures of some seconds of a run.

    Parameters
    ----------
    sums : Sums
    field_um2 : float
        Area of the picture.
    flow : SetFlow

    Returns
    -------
    dict
        By the names of ``quality`` in ``run.json``; None where nothing was seen that tells.
    """
    sampled = int(sums.greys.sum())
    a_frame = _share(sums.open_tracks, sums.tracked_frames)
    speed = median_speed(sums.speeds)
    told: dict[str, Any] = {
        "frames": sums.frames,
        "tracks": sums.tracks,
        "tracks_judged": sums.judged,
        "tracks_reliable": sums.reliable,
        "reliable_share": _share(sums.reliable, sums.judged),
        "too_short_share": _share(sums.too_short, sums.tracks),
        "cells_per_frame": a_frame,
        "cells_per_papers_field": None if a_frame is None else a_frame * PAPERS_FIELD_UM2 / field_um2,
        "neighbour_share": _share(sums.intruded, sums.positions),
        "neighbour_share_by_chance": None if a_frame is None else by_chance(a_frame / field_um2),
        "light_grey": float(sums.greys @ np.arange(256)) / sampled if sampled else None,
        "saturated_share": _share(int(sums.greys[255]), sampled),
        "black_share": _share(int(sums.greys[0]), sampled),
        "flicker_share": (sums.flicker / sums.flicker_frames / 2) ** 0.5 if sums.flicker_frames else None,
        "speed_um_per_s": speed,
        "speed_expected_um_per_s": flow.expected_speed_um_per_s,
        "shear_rate_per_s": None if speed is None else flow.shear_rate_of(speed),
        "shear_rate_set_per_s": flow.shear_rate_per_s,
        "focus_height_um": flow.focus_height_um,
        "rim_radius_um": _radius(sums.radii, 0.5),
        "rim_radius_of_all_um": _radius(sums.radii + sums.other_radii, 0.1),
    }
    return told


def over_time(meter: Meter, change: Change | None) -> dict[str, Any]:
    """Return the measures that tell one time of a run from another."""
    least, most = meter.block_speeds or (None, None)
    darkest, brightest = meter.light or (None, None)
    return {
        "speed_least_um_per_s": least,
        "speed_most_um_per_s": most,
        "light_least_grey": darkest,
        "light_most_grey": brightest,
        "light_change_in_a_second_share": meter.light_change,
        "fraction_change": None
        if change is None
        else {
            "p_value": change.p_value,
            "at_cell": change.at_cell,
            "before": change.before,
            "after": change.after,
        },
    }


def by_chance(cells_per_um2: float) -> float:
    """Return the share of crops that hold another cell where cells stand anywhere, by Poisson's law."""
    return float(-np.expm1(-cells_per_um2 * (2 * INTRUSION_UM) ** 2))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _radius(radii: np.ndarray[Any, np.dtype[np.int64]], share: float) -> float | None:
    return radius_at(radii, share) if int(radii.sum()) >= _LEAST_RADII else None


def number(figures: Mapping[str, Any], name: str) -> float | None:
    """Return one of the measures where it is there and a number; an older session has fewer."""
    value = figures.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
