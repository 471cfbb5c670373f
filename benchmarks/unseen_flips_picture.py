"""Draw what `unseen_flips.py` wrote: how often a flipping cell is called so, by how long it was watched."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot
from unseen_flips import shown

from napari_rbcflow.estimate.intervals import wilson
from napari_rbcflow.estimate.unseen_flips import MEASURED, repeat_frames, turn_seen
from napari_rbcflow.types import Label

BLUE, VERMILION, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#555555"
RUN_GROUPS = ((6, 17), (18, 34), (35, 51), (52, 80))


def draw(passages: pd.DataFrame, cells: pd.DataFrame, windows: pd.DataFrame, out: Path) -> None:
    """Draw the measured curve with its intervals, and the theory."""
    figure, axes = pyplot.subplots(figsize=(9.6, 6.4), dpi=120, layout="constrained")
    frames = np.arange(6, 81)
    repeats = frames / repeat_frames()
    axes.fill_between(
        frames,
        turn_seen(repeats),
        turn_seen(repeats, reach=1.0),
        color="black",
        alpha=0.08,
        lw=0,
        label="theory: the turn's middle, or some of it, was seen (L / 68 to (L + 13) / 68)",
    )
    tumbling = passages[passages.motion == "tumbling"]
    turn = pd.Series(shown(tumbling), index=tumbling.frames)
    for seen, style in ((turn == "middle", ":"), (turn != "none", "--")):
        own = seen.groupby(level=0).mean()
        name = "the same, by each simulated cell's own turn" if style == "--" else None
        axes.plot(own.index, own, style, color=GREY, lw=1.2, label=name)
    chances, weights = MEASURED.possible(repeats)
    mean = weights @ chances
    spread = 2 * np.sqrt(np.maximum(weights @ (chances - mean) ** 2, 0.0))
    low, high = np.maximum(mean - spread, 0.0), np.minimum(mean + spread, 1.0)
    axes.fill_between(frames, low, high, color=VERMILION, alpha=0.25, lw=0)
    axes.plot(
        frames,
        MEASURED.chance(repeats),
        color=VERMILION,
        lw=1.5,
        label="used to correct: simulated cells' rates, with the slower turn of a real cell (68 frames)",
    )
    _points(axes, tumbling, "o", VERMILION, "simulated flipping cells called flipping")
    treading = passages[passages.motion == "tank-treading"]
    _points(axes, treading, "s", BLUE, "simulated tank-treading cells called flipping")
    grouped = cells[cells.motion == "tumbling"]
    ends = [0, *(longest for _, longest in RUN_GROUPS)]
    middle = grouped.groupby(pd.cut(grouped.frames, ends), observed=True).frames.transform("median")
    _points(
        axes,
        grouped.assign(frames=middle),
        "D",
        "black",
        "flipping cells of four whole runs of the instrument (451)",
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
    figure.legend(fontsize=8.5, loc="outside lower center", ncols=2, frameon=False)
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
