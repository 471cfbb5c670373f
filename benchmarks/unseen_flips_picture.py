"""Draw what `unseen_flips.py` wrote: how often a flipping cell is called so, by how long it was watched."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot
from numpy.typing import NDArray

from napari_rbcflow.conventions import Label
from napari_rbcflow.estimate.fraction import wilson
from napari_rbcflow.estimate.seen_flips import MEASURED
from napari_rbcflow.estimate.turning import repeat_frames, turn_seen

BLUE, VERMILION, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#555555"
RUN_GROUPS = ((6, 17), (18, 34), (35, 51), (52, 80))


def own_turns(cells: pd.DataFrame, reach: float) -> NDArray[np.bool_]:
    """Whether each track holds the middle of its own cell's turn, or (reach 1) any part of it."""
    repeat = cells.cycle_frames / 2
    # The turn: the axis more than 45 degrees from the line of sight, tan(phase) > 1 / aspect ratio.
    half_turn = (0.25 - np.arctan(1 / cells.aspect_ratio) / (2 * np.pi)) * 2 * repeat * reach
    # Frames from the track's first to the middle of the next turn, at a quarter of the cycle.
    ahead = ((0.25 - cells.phase0) % 0.5) * 2 * repeat
    seen = (ahead - half_turn < cells.frames) | (ahead - repeat + half_turn > 0)
    return seen.to_numpy(np.bool_)


def draw(passages: pd.DataFrame, cells: pd.DataFrame, windows: pd.DataFrame, out: Path) -> None:
    """Draw the measured curve with its intervals, and the theory."""
    figure, axes = pyplot.subplots(figsize=(8.6, 5.6), dpi=120, layout="constrained")
    frames = np.arange(6, 81)
    repeats = frames / repeat_frames()
    axes.fill_between(
        frames,
        turn_seen(repeats),
        turn_seen(repeats, reach=1.0),
        color="black",
        alpha=0.08,
        lw=0,
        label="theory: some of the turn, or its middle, was seen (L / 68 to (L + 13) / 68)",
    )
    tumbling = passages[passages.motion == "tumbling"]
    for reach, style in ((0.0, ":"), (1.0, "--")):
        own = tumbling.assign(seen=own_turns(tumbling, reach)).groupby("frames").seen.mean()
        name = "the same by each simulated cell's own turn" if reach else None
        axes.plot(own.index, own, style, color=GREY, lw=1.2, label=name)
    low, high = MEASURED.interval(repeats)
    axes.fill_between(frames, low, high, color=VERMILION, alpha=0.25, lw=0)
    axes.plot(
        frames,
        MEASURED.chance(repeats),
        color=VERMILION,
        lw=1.5,
        label="corrected with: their rates, and a turn as long as theory has it at 68 frames",
    )
    _points(axes, tumbling, "o", VERMILION, "simulated flipping cells called flipping")
    treading = passages[passages.motion == "tank-treading"]
    _points(axes, treading, "s", BLUE, "simulated tank-treading cells called flipping")
    grouped = cells[cells.motion == "tumbling"]
    ends = [0, *(longest for _, longest in RUN_GROUPS)]
    middle = pd.cut(grouped.frames, ends, labels=[(a + b) / 2 for a, b in RUN_GROUPS])
    _points(
        axes,
        grouped.assign(frames=middle.astype(float)),
        "D",
        "black",
        "flipping cells of four whole runs of the instrument",
    )
    real = windows[(windows.label == 1) & windows.said.isin([Label.FLIPPING, Label.TANK_TREADING])]
    each = (
        real.assign(flip=real.said == Label.FLIPPING).groupby(["frames", "name"]).flip.mean().unstack("name")
    )
    each = each[each.notna().sum(axis=1) >= 30]
    axes.plot(
        each.index,
        each.mean(axis=1),
        "^-",
        color=GREEN,
        ms=6,
        lw=1,
        label="real cells labelled flipping (51, patient unseen), cut short",
    )
    axes.set(
        xlabel="frames that the cell was watched (60 frames/s, 10 1/s at the wall)",
        ylabel="share of the counted cells called flipping",
        xlim=(4, 82),
        ylim=(-0.02, 1.04),
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8.5, loc="center right", framealpha=0.95)
    figure.savefig(out)


def _points(axes: pyplot.Axes, judged: pd.DataFrame, mark: str, colour: str, name: str) -> None:
    counted = judged[judged.label.isin([Label.FLIPPING, Label.TANK_TREADING])]
    table = counted.assign(flip=counted.label == Label.FLIPPING).groupby("frames").flip.agg(["sum", "size"])
    share = table["sum"] / table["size"]
    ends = np.array([wilson(int(k), int(n)) for k, n in table.to_numpy()])
    axes.errorbar(
        table.index,
        share,
        yerr=np.abs(ends.T - share.to_numpy()),
        fmt=mark,
        color=colour,
        ms=5,
        lw=1,
        capsize=2,
        label=name,
    )
