"""Draw what the screen should look like, for the laboratory's page: focus and light, simulated.

    python benchmarks/lab_picture.py docs/img/focus-and-light.png

Needs matplotlib, which the extra `peers` brings.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import tifffile

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.patches import Circle, Rectangle

from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.widgets.label_styles import EDGES

HEIGHT, WIDTH, AT = 1096, 1376, 50
FIELD = 360, 860
HALF, ALONE_PX = 20, 28
GOOD, BAD = EDGES["good"], EDGES["bad"]
LIGHTS = (
    ("too dark: 50 of 255", 0.4, False),
    ("right: 125", 1.0, True),
    ("too bright: white is cut off", 1.9, False),
)


def main() -> None:
    """Simulate, choose, draw."""
    with tempfile.TemporaryDirectory() as made:
        movie = Path(made) / "m.tif"
        simulate_movie(movie, seconds=1, seed=14, tank_fraction=0.65)
        frame = tifffile.imread(movie, key=AT)
        truth = pd.read_csv(movie.with_suffix(".truth.csv"))
    truth["x"] = truth.x0 + truth.v * (AT - truth.t0)
    here = truth[(truth.t0 <= AT) & (truth.t0 + truth.frames > AT)]
    here = here[here.x.between(HALF, WIDTH - HALF) & here.y.between(HALF, HEIGHT - HALF)]
    good = here[here.label != 2]
    apart = np.hypot(*(np.subtract.outer(v, v) for v in (here.x.to_numpy(), here.y.to_numpy())))
    alone = here[np.sort(apart, axis=1)[:, 1] > ALONE_PX]
    kinds = {
        "in focus: thin dark rim,\nbright middle. Judged": alone[alone.label == 0],
        "in focus, a stiff cell that\nturns. Judged": alone[alone.label == 1],
        "blurred, over the focus:\nseen, not judged": alone[
            (alone.label == 2) & (alone.defocus_um.between(25, 50))
        ],
        "blurred, under the focus:\nseen, not judged": alone[
            (alone.label == 2) & (alone.defocus_um.between(-40, -15))
        ],
    }
    top, left = max(
        ((y, x) for y in range(0, HEIGHT - FIELD[0], 40) for x in range(0, WIDTH - FIELD[1], 40)),
        key=lambda corner: (
            good.y.between(corner[0] + 20, corner[0] + FIELD[0] - 20)
            & good.x.between(corner[1] + 20, corner[1] + FIELD[1] - 20)
        ).sum(),
    )
    shown = frame[top : top + FIELD[0], left : left + FIELD[1]]
    figure = pyplot.figure(figsize=(10, 9), dpi=90, layout="constrained")
    rows = figure.subfigures(3, 1, height_ratios=(4.4, 3, 3))
    field = rows[0].subplots()
    field.imshow(shown, cmap="gray", vmin=70, vmax=180)
    for cell in good.itertuples():
        field.add_patch(Circle((cell.x - left, cell.y - top), 14, fill=False, color=GOOD, lw=2))
    field.set_xlim(0, FIELD[1])
    field.set_ylim(FIELD[0], 0)
    field.set_title(
        "Right (simulated): a few cells sharp (ringed here), many blurred ones over and under them",
        fontsize=11,
    )
    field.axis("off")
    for axes, (words, some) in zip(rows[1].subplots(1, len(kinds)), kinds.items(), strict=True):
        axes.axis("off")
        axes.set_title(words, fontsize=9)
        if len(some):
            x, y = (round(v) for v in some.iloc[0][["x", "y"]])
            axes.imshow(
                frame[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1], cmap="gray", vmin=70, vmax=180
            )
    part = shown[150:330, 430:730].astype(float)
    for axes, (words, gain, right) in zip(rows[2].subplots(1, len(LIGHTS)), LIGHTS, strict=True):
        light = np.clip(part * gain * 125 / np.median(part), 0, 255)
        axes.imshow(light, cmap="gray", vmin=0, vmax=255)
        axes.set_title(words, fontsize=10, color=GOOD if right else BAD)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.add_patch(
            Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, lw=4, ec=GOOD if right else BAD)
        )
    figure.savefig(sys.argv[1])


if __name__ == "__main__":
    main()
