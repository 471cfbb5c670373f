"""What the speed of the cells in focus does to the number of sessions whose truth is known.

    python benchmarks/focus_speed.py SESSION MOVIE.truth.csv [SESSION MOVIE.truth.csv ...]

SESSION was made by ``rbcflow analyze``, of any version: labels are taken as the networks gave them, and the
speed is learnt from the finished table. The truth is that of ``compose_movie.py`` or ``rbcflow simulate``. A
row a session: the fraction of all cells the networks counted, of those left, of those that are truly
reliable; and how many of either kind, and of the unreliable ones, were set aside. A track is the cell on
which most of its positions lie.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from napari_rbcflow.estimate.focus_speed import FocusSpeed, SpeedsSeen

REACH_PX = 9.0


def truth_of(session: Path, truth: Path) -> dict[int, int]:
    """Return the true label of each track: 0 tank-treading, 1 flipping, 2 unreliable; none of dust."""
    tracks, cells = pd.read_csv(session / "tracks.csv"), pd.read_csv(truth, comment="#")
    votes: dict[int, Counter[int]] = {}
    for frame, at in tracks.groupby("frame"):
        there = cells[(cells["t0"] <= frame) & (frame < cells["t0"] + cells["frames"])]
        if there.empty:
            continue
        x = there["x0"] + there["v"] * (frame - there["t0"])
        away, which = cKDTree(np.column_stack([x, there["y"]])).query(at[["x_px", "y_px"]].to_numpy())
        for cell, near, label in zip(
            at["cell"], away <= REACH_PX, there["label"].to_numpy()[which], strict=True
        ):
            if near:
                votes.setdefault(int(cell), Counter())[int(label)] += 1
    return {cell: said.most_common(1)[0][0] for cell, said in votes.items()}


def learnt(cells: pd.DataFrame) -> FocusSpeed:
    """Learn the speed from a session's judged tracks."""
    seen = SpeedsSeen()
    judged = cells[cells["p_reliable"].notna()]
    passed = judged["p_tank_treading"].notna() & (judged["reason"] != "stage-1")
    for speed, p, good in zip(judged["speed_um_per_s"], judged["p_reliable"], passed, strict=True):
        seen.add(speed, p, bool(good))
    return seen.learn()


def main(arguments: list[str]) -> None:
    """Print a row a session, and the sums."""
    sums = np.zeros(6, np.int64)
    print(
        "session: fraction counted -> left (of the truly reliable ones; by the truth)"
        " | set aside: tank-treading, flipping, others"
    )
    for session, truth in zip(map(Path, arguments[::2]), map(Path, arguments[1::2]), strict=True):
        cells = pd.read_csv(session / "cells.csv", keep_default_na=False, na_values=[""])
        focus = learnt(cells)
        cells["truth"] = cells["cell"].map(truth_of(session, truth)).fillna(2).astype(int)
        of_speed = cells["reason"] == "other-speed"
        counted = cells[cells["label"].isin(["tank-treading", "flipping"]) | of_speed]
        tank = counted["p_tank_treading"] >= 0.5
        out = counted["speed_um_per_s"].map(focus.sets_aside)
        row = []
        for label in range(3):
            these = counted["truth"] == label
            row += [int((these & out).sum()), int(these.sum())]
        sums += row
        by_truth = (cells["truth"][cells["truth"] < 2] == 0).mean()
        aside = ", ".join(f"{a} of {b}" for a, b in zip(row[::2], row[1::2], strict=True))
        print(
            f"{session.name}: {tank.mean():.3f} -> {tank[~out].mean():.3f}"
            f" ({tank[counted['truth'] < 2].mean():.3f}; {by_truth:.3f}) | {aside} | {focus.as_dict()}"
        )
    print("all:", ", ".join(f"{a} of {b}" for a, b in zip(sums[::2], sums[1::2], strict=True)))


if __name__ == "__main__":
    main(sys.argv[1:])
