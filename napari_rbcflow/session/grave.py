"""What forbids acting on a run's number without a second thought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GRAVE_LOSS = 0.01
"""Share of all frames, dropped or missed, from which on the loss is a grave warning: tracks of about
30 frames are then cut by a lost frame in a quarter of the cases."""
FEW_CELLS = 30
"""Below that the interval spans most of what a patient's fraction could be."""


def grave_warnings(run: Mapping[str, Any]) -> list[str]:
    """Return, in plain sentences, what forbids acting on the number without a second thought."""
    grave = []
    frames, cells = run["frames"], run["cells"]
    if run["status"] == "failed":
        grave.append(f"The run failed: {run['stop_reason']}")
    elif run["status"] == "running":
        grave.append("The run has not ended: this is how it stood.")
    dropped = sum(n for reason, n in frames["dropped"].items() if reason != "after-stop")
    lost, all_frames = (
        dropped + sum(frames["missed"].values()),
        frames["received"] + sum(frames["missed"].values()),
    )
    if all_frames and lost / all_frames >= GRAVE_LOSS:
        grave.append(
            f"{lost:,} of {all_frames:,} frames ({percent(lost / all_frames)}) were lost: cells were cut or"
            " overlooked. Close other programs or lower the frame rate, and measure again."
        )
    if not all_frames:
        grave.append("No frame came: check that the camera is connected and running.")
    elif not cells["tracked"]:
        grave.append("No cell was seen: check focus, light and flow, and measure again.")
    elif not run["fraction"]["n"]:
        grave.append(
            "Cells were seen, but none could be counted: check the focus (60 µm above the wall) and measure"
            " again."
        )
    elif run["fraction"]["n"] < FEW_CELLS:
        grave.append(
            f"Only {run['fraction']['n']} cells were counted: the true fraction may lie anywhere in the"
            " interval. Measure longer."
        )
    return grave


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
