"""Draw one figure a stage, of a simulated chamber's own movie: the pictures of docs/how-it-works.md.

    python benchmarks/stage_figures.py docs/img

Takes about two minutes. Everything drawn comes out of the same run, through the functions that users call.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from napari_rbcflow import analyze, open_session
from napari_rbcflow.session import FLIPPING_COLOUR, TANK_TREADING_COLOUR, Session
from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.sources import open_movie
from napari_rbcflow.tracking import MovieBackground

PX_UM = 0.605
FRAME = 240
SIZE = {"figsize": (10, 4.2), "dpi": 110, "layout": "constrained"}
COLOURS = {"tank-treading": TANK_TREADING_COLOUR, "flipping": FLIPPING_COLOUR, "unreliable": "#888888"}

Image = NDArray[np.uint8]


def show(axes: Axes, image: NDArray[np.generic], title: str, **how: object) -> None:
    """Draw a grey picture without ticks."""
    axes.imshow(image, cmap=how.pop("cmap", "gray"), **how)  # type: ignore[arg-type]
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_frame(frame: Image, out: Path) -> None:
    """Stage 1: the whole frame, and a part of it enlarged."""
    figure = Figure(**SIZE)
    whole, part = figure.subplots(1, 2, width_ratios=[1.3, 1])
    show(whole, frame, f"one frame: {frame.shape[1]} x {frame.shape[0]} px, 8-bit grey", vmin=60, vmax=170)
    top, left, side = 300, 500, 260
    whole.plot(
        [left, left + side, left + side, left, left], [top, top, top + side, top + side, top], color="#0072b2"
    )
    show(part, frame[top : top + side, left : left + side], "sharp cells and blurred ones", vmin=60, vmax=170)
    figure.savefig(out / "stage-frame.png")


def draw_background(frame: Image, background: Image, out: Path) -> None:
    """Stage 2a: the frame, the empty field, and what is left."""
    figure = Figure(**{**SIZE, "figsize": (10, 3.2)})
    part = (slice(250, 650), slice(400, 900))
    left = frame.astype(np.int16) - background
    pictures = (
        (frame, "frame"),
        (background, "background: the median of 100 frames"),
        (left, "difference: only cells"),
    )
    for axes, (picture, title) in zip(figure.subplots(1, 3), pictures, strict=True):
        limits = {"vmin": -40, "vmax": 40} if picture is left else {"vmin": 60, "vmax": 170}
        show(axes, picture[part], title, **limits)
    figure.savefig(out / "stage-background.png")


def draw_tracks(frame: Image, tracks: pd.DataFrame, out: Path) -> None:
    """Stage 2b: the positions linked from frame to frame, up to the frame that is shown."""
    figure = Figure(**SIZE)
    axes = figure.subplots()
    shown = (slice(250, 700), slice(300, 1376))
    show(axes, frame[shown], "detections of one cell, linked over the last 25 frames", vmin=60, vmax=170)
    recent = tracks[(tracks["frame"] <= FRAME) & (tracks["frame"] > FRAME - 25)]
    colours = colormaps["tab20"]
    for number, (_, track) in enumerate(recent.groupby("cell")):
        if track["frame"].max() == FRAME:
            axes.plot(track["x_px"] - 300, track["y_px"] - 250, "-", color=colours(number % 20), lw=1.2)
            axes.plot(
                track["x_px"].iloc[-1] - 300,
                track["y_px"].iloc[-1] - 250,
                "o",
                mfc="none",
                color="white",
                ms=9,
            )
    axes.set_xlim(0, 1076)
    axes.set_ylim(450, 0)
    figure.savefig(out / "stage-tracks.png")


def draw_crops(session: Session, out: Path) -> None:
    """Stage 3a: what the networks see of one cell of each kind."""
    cells = session.cells
    figure = Figure(**{**SIZE, "figsize": (10, 3.3)})
    for axes, label in zip(figure.subplots(3, 1), COLOURS, strict=True):
        of_kind = cells[(cells["label"] == label) & (cells["frames"] >= 20)]
        sure = of_kind["p_reliable"] > 0.99 if label != "unreliable" else of_kind["p_reliable"] < 0.01
        cell = int(of_kind.loc[of_kind["frames"][sure].idxmax(), "cell"])
        crops = session.crops(cell)
        crops = crops[np.linspace(0, len(crops) - 1, 20).astype(int)]
        show(
            axes,
            np.hstack(list(crops)),
            f"{label} (20 crops of cell {cell})",
            vmin=50,
            vmax=180,
        )
    figure.savefig(out / "stage-crops.png")


def draw_labels(session: Session, out: Path) -> None:
    """Stage 3b: what the two networks say of every track."""
    cells = session.cells
    figure = Figure(**SIZE)
    reliable, kind = figure.subplots(1, 2)
    bins = np.linspace(0, 1, 41)
    reliable.hist(cells["p_reliable"].dropna(), bins, color="#888888")
    reliable.set(yscale="log", xlabel="probability that the track is reliable", ylabel="tracks")
    reliable.set_title("first network: is the track reliable?", fontsize=10, loc="left")
    for label in ("tank-treading", "flipping"):
        of_kind = cells.loc[cells["label"] == label, "p_tank_treading"].dropna()
        kind.hist(of_kind, bins, color=COLOURS[label], label=f"{label} ({len(of_kind)})")
    kind.set(xlabel="probability that the cell tank-treads", ylabel="reliable tracks")
    kind.set_title("second network: does the cell tank-tread or flip?", fontsize=10, loc="left")
    kind.legend(frameon=False)
    for axes in (reliable, kind):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "stage-labels.png")


def draw_number(session: Session, out: Path) -> None:
    """Stage 4: the fraction and its interval as cells are counted."""
    from napari_rbcflow.estimate import RunningFraction

    fraction, rows = RunningFraction(), []
    for tank_treading in session.counted:
        fraction.update(tank_treading=int(tank_treading), flipping=int(not tank_treading))
        rows.append((fraction.estimate, *fraction.anytime_interval()))
    estimate, low, high = 100 * np.array(rows).T
    n = np.arange(1, len(rows) + 1)
    figure = Figure(**{**SIZE, "figsize": (10, 3.6)})
    axes = figure.subplots()
    axes.fill_between(
        n, low, high, color="#0072b2", alpha=0.2, lw=0, label="95 % interval, valid at any moment"
    )
    axes.plot(n, estimate, color="#0072b2", label="tank-treading fraction")
    axes.set(xlabel="reliable cells counted", ylabel="%", ylim=(0, 101), xlim=(1, len(n)))
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "stage-number.png")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder for the pictures")
    out = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as beside:
        movie, folder = Path(beside) / "chamber.tif", Path(beside) / "session"
        simulate_movie(movie, seconds=20, seed=7)
        analyze(movie, folder, fps=60, pixel_size_um=PX_UM)
        session = open_session(folder)
        with closing(open_movie(movie)) as source:
            source.open()
            background = MovieBackground(source.sample(100)).image
            frame = next(f.image for f in source.frames() if f.index == FRAME)
        draw_frame(frame, out)
        draw_background(frame, background, out)
        draw_tracks(frame, session.tracks, out)
        draw_crops(session, out)
        draw_labels(session, out)
        draw_number(session, out)


if __name__ == "__main__":
    main()
