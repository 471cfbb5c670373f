"""Draw what `rbcflow benchmark --json` and `peers.py --json` wrote.

    python benchmarks/benchmark_pictures.py benchmark.json docs/img/benchmark.png
    python benchmarks/benchmark_pictures.py peers.json docs/img/peers.png

Needs matplotlib, which the extra `peers` brings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

FRAME_MS = 1e3 / 60
# Okabe and Ito's: told apart by the colour-blind.
BLUE, VERMILION, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#555555"
MARKS = "osD^v"


def draw_peers(figures: list[dict[str, Any]], out: Path) -> None:
    """Draw cells tracked whole against CPU time a frame."""
    names = list(dict.fromkeys(f["who"] for f in figures))
    colours = dict(zip(names, (BLUE, VERMILION, GREEN, "#cc79a7"), strict=False))
    movies = list(dict.fromkeys(f["movie"] for f in figures))
    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120, layout="constrained")
    axes.axvspan(FRAME_MS, 1e3, color="black", alpha=0.05, lw=0)
    axes.axvline(FRAME_MS, color=GREY, ls="--", lw=1)
    axes.text(FRAME_MS * 1.06, 2, f"over {FRAME_MS:.1f} ms: slower\nthan 60 frames/s", color=GREY)
    for f in figures:
        axes.scatter(
            f["cpu_ms_per_frame"],
            100 * f["whole"],
            s=110,
            color=colours[f["who"]],
            marker=MARKS[movies.index(f["movie"]) % len(MARKS)],
            edgecolors="black",
            linewidths=0.6,
            zorder=3,
        )
    for who, colour in colours.items():
        own = [f for f in figures if f["who"] == who]
        x = sum(f["cpu_ms_per_frame"] for f in own) / len(own)
        top = max(100 * f["whole"] for f in own)
        axes.annotate(
            f"{who}\n{x:.1f} ms",
            (x, top),
            xytext=(6, 12),
            textcoords="offset points",
            ha="left",
            color=colour,
            weight="bold",
        )
    for k, movie in enumerate(movies):
        axes.scatter([], [], s=80, color="#bbbbbb", edgecolors="black", marker=MARKS[k % 5], label=movie)
    axes.legend(title="movie of real cells", loc="center left", frameon=False)
    axes.set_xscale("log")
    axes.set_xlim(1, 400)
    ticks = [1, 2, 5, 10, 20, 50, 100, 200]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_ylim(0, 115)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xlabel("CPU time a frame of 1376 x 1096, ms, logarithmic")
    axes.set_ylabel("cells tracked whole, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)


def draw_benchmark(record: dict[str, Any], out: Path) -> None:
    """Draw what each part takes of a frame's time; the figures stand in columns beside the bars."""
    figures = record["figures"]
    figure, axes = pyplot.subplots(figsize=(11, 0.34 * len(figures) + 1.9), dpi=110)
    figure.subplots_adjust(left=0.31, right=0.76, top=0.94, bottom=0.09)
    beside = axes.get_yaxis_transform()
    columns = ((1.11, "ms"), (1.31, "x real time"), (1.47, "x floor"))
    for x, heading in columns:
        axes.text(x, -1.0, heading, transform=beside, ha="right", fontsize=9, color=GREY)
    for k, f in enumerate(figures):
        part = f["name"].startswith(("detection", "background", "crops", "..."))
        colour = VERMILION if f["aim_met"] is False else BLUE
        axes.barh(k, f["ms_per_frame"], height=0.7, color=colour, alpha=0.55 if part else 1.0)
        if f["aim_ms"] is not None:
            axes.plot([f["aim_ms"]] * 2, [k - 0.45, k + 0.45], color="black", lw=2.2)
        floor = "" if f["times_floor"] is None else f"{f['times_floor']:.0f}"
        said = (f"{f['ms_per_frame']:.2f}", f"{f['ratio_to_real_time']:.1f}", floor)
        for (x, _), words in zip(columns, said, strict=True):
            axes.text(x, k, words, transform=beside, va="center", ha="right", fontsize=9)
    axes.axvline(FRAME_MS, color=GREY, ls="--", lw=1)
    axes.text(FRAME_MS, -0.75, f"a frame's time, {FRAME_MS:.1f} ms ", color=GREY, ha="right", fontsize=9)
    axes.plot([], [], color="black", lw=2.2, label="aim")
    axes.barh([0], [0], color=VERMILION, label="aim not met here")
    axes.legend(loc="lower right", frameon=False)
    names = [f["name"] + (" (clock)" if f["clock"] == "wall" else "") for f in figures]
    axes.set_yticks(range(len(figures)), names, fontsize=9)
    axes.set_ylim(len(figures) - 0.4, -1.4)
    axes.set_xlim(0, max(26.0, 1.02 * max(f["ms_per_frame"] for f in figures)))
    axes.set_xlabel("CPU time a frame of all threads, ms; where it says (clock), time by the clock")
    machine = record["machine"]
    axes.set_title(
        f"{machine['cpu']}, {machine['cores_allowed']} cores, networks on {machine['device']}; "
        f"{record['size']}, full sensor {record['full_size']}; load {machine['load']:.1f} by other programs",
        fontsize=9,
        x=1.5,
        ha="right",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, help="JSON of `rbcflow benchmark` or of peers.py")
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    figures = json.loads(given.figures.read_text(encoding="utf-8"))
    if isinstance(figures, list):
        draw_peers(figures, given.picture)
    else:
        draw_benchmark(figures, given.picture)


if __name__ == "__main__":
    main()
