"""Confusion matrices and the worst errors as strips, as in Figure 3 of Darrin et al. (2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_rbcflow.classification.published import Sequence31
from napari_rbcflow.classification.sampling import sample
from napari_rbcflow.types import CROP_SIDE

_SCALE, _SHOWN, _WORST = 2, 20, 12


def draw_confusion(path: Path, confusion: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Draw a confusion matrix, each row's shares as shades and its counts in figures.

    Parameters
    ----------
    path : Path
        A PNG to write.
    confusion : sequence of sequences of int
        Rows true, columns predicted.
    names : sequence of str
    """
    side, left, top = 120, 150, 50
    picture = Image.new("RGB", (left + side * len(names) + 10, top + side * len(names) + 10), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((10, 5), "rows: true, columns: judged", fill="black")
    for r, row in enumerate(confusion):
        pen.text((10, top + side * r + side // 2), names[r], fill="black")
        pen.text((left + side * r + 10, top - 18), names[r], fill="black")
        for c, count in enumerate(row):
            share = count / max(1, sum(row))
            shade = (int(255 - 200 * share), int(255 - 140 * share), 255)
            x, y = left + side * c, top + side * r
            pen.rectangle((x, y, x + side, y + side), fill=shade, outline="black")
            pen.text((x + 30, y + 45), f"{share:.3f}\n({count})", fill="white" if share > 0.6 else "black")
    picture.save(path)


def draw_errors(
    folder: Path,
    stage: int,
    sequences: Sequence[Sequence31],
    predictions: Sequence[Mapping[str, Any]],
    p: NDArray[np.float64],
    names: tuple[str, str],
) -> None:
    """Draw the most confident errors of a stage, a strip of up to 20 frames each, one file a kind.

    Writes ``errors-stageN-false-CLASS.png`` where there are such errors.
    """
    for kind, worst_first in ((names[1], -1.0), (names[0], 1.0)):
        wrong = [
            i
            for i, row in enumerate(predictions)
            if row["predicted_label"] == kind and row["true_label"] != kind
        ]
        wrong.sort(key=lambda i: worst_first * float(p[i]))
        if wrong:
            strips = [(sequences[i], float(p[i])) for i in wrong[:_WORST]]
            _strips(folder / f"errors-stage{stage}-false-{kind}.png", strips, names[1])


def _strips(path: Path, strips: Sequence[tuple[Sequence31, float]], positive: str) -> None:
    margin, height = 16, CROP_SIDE * _SCALE
    picture = Image.new("L", (_SHOWN * CROP_SIDE * _SCALE, len(strips) * (height + margin)), 255)
    pen = ImageDraw.Draw(picture)
    for row, (sequence, p) in enumerate(strips):
        y = row * (height + margin)
        pen.text(
            (2, y + 2), f"{sequence.name}  {len(sequence.crops)} frames  p({positive}) = {p:.4f}", fill=0
        )
        crops = sequence.crops[sample(sequence.crops, _SHOWN, "similarity")].astype(np.float32)
        grey = np.clip((crops - np.median(crops)) * 3 + 128, 0, 255).astype(np.uint8)
        strip = Image.fromarray(np.concatenate(list(grey), axis=1))
        picture.paste(strip.resize((strip.width * _SCALE, height)), (0, y + margin))
    picture.save(path)
