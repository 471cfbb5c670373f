"""Score both stages on labelled sequences, in figures, tables and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_rbcflow.classification.dataset import (
    FLIPPING,
    LABELS,
    TANK_TREADING,
    UNRELIABLE,
    LabelledSequence,
    choose_split,
    partition,
    read_dataset,
    refuse_unknown,
)
from napari_rbcflow.classification.evaluation.scores import Counts, auc
from napari_rbcflow.classification.sampling import sample
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.sentences import say
from napari_rbcflow.types import CROP_SIDE, LEAST_FRAMES, Label


def table5(result: Mapping[str, Any]) -> str:
    """Return Table 5 for a terminal: the tank-treading share per acquisition, true and estimated.

    `result` is what `evaluate` returns.
    """
    name = max([11, *(len(row["acquisition"]) for row in result["table5"])])
    estimated, error = say("classification.table-5-estimated"), say("classification.table-5-error")
    heads = (say("classification.table-5-acquisition"), say("classification.table-5-true"))
    stage_2, both_stages = say("classification.table-5-stage-2"), say("classification.table-5-both-stages")
    rows = [(*heads, estimated, error, "n", estimated, error, "n")]
    for row in result["table5"]:
        figures = [
            (_points(one["estimated_percent"]), _points(one["error_points"], "+.1f"), str(one["n"]))
            for one in (row, row["in_a_row"])
        ]
        rows.append((row["acquisition"], _points(row["true_percent"]), *figures[0], *figures[1]))
    lines = [
        f"{a:{name}s} {b:>8s} {c:>11s} {d:>9s} {e:>6s}   | {f:>10s} {g:>7s} {h:>6s}"
        for a, b, c, d, e, f, g, h in rows
    ]
    groups = f"{'':{name}s} {'':>8s}  {stage_2:29s}  |  {both_stages}"
    return "\n".join([say("classification.table-5"), groups, *lines])


def _points(value: float | None, spec: str = ".1f") -> str:
    return "-" if value is None else format(value, spec)


_SCALE, _SHOWN, _WORST = 2, 20, 12  # pixels of a crop's pixel, frames of a strip, strips in an image


def draw_confusion(path: Path, confusion: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Draw a confusion matrix (rows true, columns predicted): shares as shades, counts as numbers."""
    side, left, top = 120, 150, 50
    picture = Image.new("RGB", (left + side * len(names) + 10, top + side * len(names) + 10), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((10, 5), say("classification.confusion-axes"), fill="black")
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
    sequences: Sequence[LabelledSequence],
    predictions: Sequence[Mapping[str, Any]],
    p: NDArray[np.float64],
    names: tuple[str, str],
) -> None:
    """Draw a stage's most confident errors as strips of 20 frames: ``errors-stageN-false-CLASS.png``."""
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


def _strips(path: Path, strips: Sequence[tuple[LabelledSequence, float]], positive: str) -> None:
    margin, height = 16, CROP_SIDE * _SCALE
    picture = Image.new("L", (_SHOWN * CROP_SIDE * _SCALE, len(strips) * (height + margin)), 255)
    pen = ImageDraw.Draw(picture)
    for row, (sequence, p) in enumerate(strips):
        y = row * (height + margin)
        name, frames = sequence.name, len(sequence.crops)
        text = say("classification.error-strip", name=name, frames=frames, positive=positive, p=p)
        pen.text((2, y + 2), text, fill=0)
        crops = sequence.crops[sample(sequence.crops, _SHOWN, "similarity")].astype(np.float32)
        grey = np.clip((crops - np.median(crops)) * 3 + 128, 0, 255).astype(np.uint8)
        strip = Image.fromarray(np.concatenate(list(grey), axis=1))
        picture.paste(strip.resize((strip.width * _SCALE, height)), (0, y + margin))
    picture.save(path)


_STAGE1 = ("unreliable", "reliable")
_STAGE2 = ("tank-treading", "flipping")


def evaluate(
    dataset: Path,
    two_stage: TwoStage,
    *,
    pictures: Path | None = None,
    split: str | None = None,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Judge every sequence of a dataset and score the judgements.

    Stage 1 judges all rows, including those under six frames; stage 2 the truly reliable ones, as in the
    paper. In a row, sequences under six frames are discarded, stage 2 judges what passes stage 1, and what is
    undecided there is unreliable, as in a run. Alone, stage 2 always names the likelier class.

    Parameters
    ----------
    dataset : Path
        A folder in the published layout (`napari_rbcflow.classification.dataset`).
    pictures : Path, optional
        Folder for the confusion matrices and the worst errors as strips; created if it does not exist.
    split : {'train', 'validation', 'test'}, optional
        Of a folder that holds several; ``test`` by default.
    only : sequence of str
        Patients (``BG``), dates (``BG1017``) or acquisitions to evaluate on; by default all.

    Returns
    -------
    dict
        ``stage1`` and ``stage2``: ``n``, ``confusion`` (rows true, columns predicted, negative class first),
        ``f1``, ``accuracy``, ``precision``, ``recall``, ``auc``, ``threshold``, ``predictions``; the positive
        class is reliable and flipping; an undefined score is None; ``seen_in_training`` names the
        acquisitions that the weights were trained on, whose scores are not a test of them.
        ``end_to_end``: ``n``, ``undecided`` (passed by stage 1, undecided in stage 2), ``classes``,
        ``confusion``, ``accuracy``, ``fraction`` over all, ``acquisitions`` with the fraction of each,
        ``predictions``. ``table5``: for each acquisition and all, in per cent and percentage points, the
        tank-treading share of the ``n`` truly reliable cells, true and by stage 2, and ``in_a_row`` that of
        the ``n`` cells that both stages judged.
        ``models``, ``split``, ``only``. Only JSON types.
    """
    folder, split = choose_split(Path(dataset), split)
    sequences = read_dataset(folder)
    if only:
        refuse_unknown(only, sequences)
        sequences, _ = partition(sequences, only)
    crops = [s.crops for s in sequences]
    p_reliable, p_flipping_of_all = two_stage.reliable(crops), two_stage.flipping(crops)
    is_reliable = np.asarray([s.reliable for s in sequences], np.int64)
    reliable, p_flipping = [s for s in sequences if s.reliable], p_flipping_of_all[is_reliable == 1]
    is_flipping = np.asarray([s.label == FLIPPING for s in reliable], np.int64)
    stage1 = _score(sequences, is_reliable, p_reliable, two_stage.stage1.threshold, _STAGE1)
    stage2 = _score(reliable, is_flipping, p_flipping, two_stage.stage2.threshold, _STAGE2)
    kinds = [
        None if len(s.crops) < LEAST_FRAMES or p < two_stage.stage1.threshold else two_stage.kind(q)
        for s, p, q in zip(sequences, p_reliable.tolist(), p_flipping_of_all.tolist(), strict=True)
    ]
    final = np.asarray(
        [
            UNRELIABLE
            if kind is None or not two_stage.stage1.passes(p, flipping=kind[0] is Label.FLIPPING)
            else LABELS.index(kind[0])
            for kind, p in zip(kinds, p_reliable.tolist(), strict=True)
        ],
        np.int64,
    )
    result: dict[str, Any] = {
        "dataset": str(dataset),
        "split": split,
        "only": list(only),
        "models": two_stage.models,
        "device": two_stage.device,
        "stage1": stage1,
        "stage2": stage2,
        "end_to_end": _in_a_row(sequences, final)
        | {"undecided": sum(kind[1] == "undecided" for kind in kinds if kind is not None)},
    }
    judged = np.where(p_flipping >= two_stage.stage2.threshold, FLIPPING, TANK_TREADING)
    result["table5"] = _table5(reliable, judged, result["end_to_end"])
    present = {s.acquisition for s in sequences}
    for name, trained in (("stage1", two_stage.stage1), ("stage2", two_stage.stage2)):
        result[name]["seen_in_training"] = sorted(present & set(trained.card.get("acquisitions", ())))
    if pictures is not None:
        drawn = Path(pictures)
        drawn.mkdir(parents=True, exist_ok=True)
        for number, stage, of, p, names in (
            (1, stage1, sequences, p_reliable, _STAGE1),
            (2, stage2, reliable, p_flipping, _STAGE2),
        ):
            draw_confusion(drawn / f"confusion-stage{number}.png", stage["confusion"], names)
            draw_errors(drawn, number, of, stage["predictions"], p, names)
    return result


def _score(
    sequences: Sequence[LabelledSequence],
    truth: NDArray[np.int64],
    p: NDArray[np.float64],
    threshold: float,
    names: tuple[str, str],
) -> dict[str, Any]:
    predicted = (p >= threshold).astype(np.int64)
    counts = Counts.of(truth, predicted)
    return {
        "n": counts.n,
        "classes": list(names),
        "confusion": counts.confusion,
        "f1": counts.f1,
        "accuracy": counts.accuracy,
        "balanced_accuracy": counts.balanced_accuracy,
        "precision": counts.precision,
        "recall": counts.recall,
        "auc": auc(truth, p),
        "threshold": threshold,
        "predictions": [
            {
                "sequence_name": s.name,
                "true_label": names[int(t)],
                "predicted_label": names[int(q)],
                "p": float(value),
            }
            for s, t, q, value in zip(sequences, truth, predicted, p, strict=True)
        ],
    }


def _in_a_row(sequences: Sequence[LabelledSequence], final: NDArray[np.int64]) -> dict[str, Any]:
    truth = np.asarray([s.label for s in sequences], np.int64)
    confusion = [[int(((truth == a) & (final == b)).sum()) for b in range(3)] for a in range(3)]
    acquisitions = sorted({s.acquisition for s in sequences})
    where = np.asarray([s.acquisition for s in sequences])
    return {
        "n": len(sequences),
        "classes": list(LABELS),
        "confusion": confusion,
        "accuracy": float((truth == final).mean()),
        "fraction": _fractions(truth, final),
        "acquisitions": [
            {"acquisition": name} | _fractions(truth[where == name], final[where == name])
            for name in acquisitions
        ],
        "predictions": [
            {"sequence_name": s.name, "true_label": LABELS[s.label], "predicted_label": LABELS[int(label)]}
            for s, label in zip(sequences, final, strict=True)
        ],
    }


def _table5(
    reliable: Sequence[LabelledSequence], judged: NDArray[np.int64], in_a_row: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return Table 5: the tank-treading share of the truly reliable cells by stage 2, and of both stages."""
    truth = np.asarray([s.label for s in reliable], np.int64)
    where = np.asarray([s.acquisition for s in reliable], dtype=object)
    both_stages = [
        *((where == row["acquisition"], row["acquisition"], row) for row in in_a_row["acquisitions"]),
        (np.ones(len(where), bool), "all", in_a_row["fraction"]),
    ]
    rows: list[dict[str, Any]] = []
    for of, name, both in both_stages:
        share = _fractions(truth[of], judged[of])
        rows.append(
            {
                "acquisition": name,
                "n": share["n_true"],
                "true_percent": _percent(share["true"]),
                "estimated_percent": _percent(share["estimate"]),
                "error_points": _percent(share["error"]),
                "in_a_row": {
                    "n": both["n_estimate"],
                    "estimated_percent": _percent(both["estimate"]),
                    "error_points": _percent(both["error"]),
                },
            }
        )
    return rows


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _fractions(truth: NDArray[np.int64], final: NDArray[np.int64]) -> dict[str, Any]:
    """Return the tank-treading share of the reliable cells, true and judged."""

    def share(labels: NDArray[np.int64]) -> tuple[float | None, int]:
        n = int((labels != UNRELIABLE).sum())
        return (int((labels == TANK_TREADING).sum()) / n if n else None), n

    (true, n_true), (estimate, n_estimate) = share(truth), share(final)
    error = None if true is None or estimate is None else estimate - true
    return {"true": true, "n_true": n_true, "estimate": estimate, "n_estimate": n_estimate, "error": error}
