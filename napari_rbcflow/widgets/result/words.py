"""A run's number, end and warnings in words, as the result panel says them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from napari_rbcflow.run.progress import Progress
from napari_rbcflow.session.grave import FEW_CELLS, grave_warnings

_ENDS = {
    "reliable": "Stopped: enough reliable cells ({n}).",
    "half-width": "Stopped: the interval is narrow enough ({n} cells).",
    "seconds": "Stopped: the set time is over.",
    "tracks": "Stopped: enough tracks were seen.",
    "baseline": "Stopped: the interval lies wholly on one side of the patient's baseline.",
    "source-ended": "Ended: the movie or the camera's sequence came to its end.",
    "user": "Stopped by you.",
}
_NO_RULE = ("", "nothing", "the source's end")
"""What `StopRules.missing` says where no rule is set, or where it is met."""
_SECONDS_TO_SEE_A_CELL = 10.0
"""Camera time. The background takes one second, a crossing another."""
_SECONDS_TO_COUNT_A_CELL = 60.0


def percent(share: float) -> str:
    """Return a share in whole per cent; with one decimal where that would pretend to be none or all."""
    whole = f"{100 * share:.0f}"
    if whole in ("0", "100") and 0 < share < 1:
        return f"{min(max(100 * share, 0.1), 99.9):.1f} %"
    return f"{whole} %"


def interval_words(low: float, high: float) -> str:
    """Return an interval in whole per cent, rounded outwards: never narrower than it is."""
    # A thousandth of a point is lost in floating point before it is rounded.
    return f"{math.floor(100 * low + 1e-3)} to {math.ceil(100 * high - 1e-3)} %"


def cells_words(level: float, n: int) -> str:
    """Say what stands under the interval."""
    cells = "1 reliable cell" if n == 1 else f"{n:,} reliable cells"
    return f"{100 * level:g} % interval, from {cells}"


def end_words(status: str, reason: str, n: int) -> str:
    """Say how a run ended.

    Parameters
    ----------
    status, reason : str
        As in ``run.json``.
    n : int
        Cells counted.
    """
    if status == "failed":
        return f"The run failed: {reason}"
    if status == "running":
        return "The run has not ended."
    return _ENDS.get(reason, f"Ended: {reason}.").format(n=f"{n:,}")


def time_words(seconds: float) -> str:
    """Say how long something will take, roughly."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def left_words(progress: Progress) -> str:
    """Say what will stop a run, and on a line of its own how long that may take."""
    if progress.total_frames:
        said = f"frame {progress.processed:,} of {progress.total_frames:,}"
        if progress.missing not in _NO_RULE:  # it may stop before the movie's end
            said += f", or still to go: {progress.missing}"
    elif progress.stop_share is None:
        return "goes on until you press Stop"
    else:
        said = f"still to go: {progress.missing}"
    if progress.seconds_left is not None:
        said += f"\nabout {time_words(progress.seconds_left)} left"
    return said


def too_few_words(n: int) -> str:
    """Say that there are too few cells to act on, where that is so."""
    return f"too few cells to act on yet: wait for {FEW_CELLS} at least" if n < FEW_CELLS else ""


def grave_so_far(progress: Progress) -> list[str]:
    """Return what already forbids acting on the number of a run that goes on.

    What is true of every run in its first seconds (it has not ended, nothing was seen, cells are few)
    is no warning yet, and is passed on as if it were well.
    """
    seen = progress.cells["tracked"] + progress.open_tracks or progress.seconds < _SECONDS_TO_SEE_A_CELL
    counted = progress.n or progress.seconds < _SECONDS_TO_COUNT_A_CELL
    run: Mapping[str, Any] = {
        "status": "finished",
        "frames": {
            "received": max(1, progress.received),
            "dropped": {"": progress.dropped},
            "missed": {"": progress.missed},
        },
        "cells": {"tracked": int(seen)},
        "fraction": {"n": FEW_CELLS if counted else 0},
    }
    return grave_warnings(run)
