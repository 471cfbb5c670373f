"""Score both stages on labelled sequences, each by itself and in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification.evaluation.pictures import draw_confusion, draw_errors
from napari_rbcflow.classification.evaluation.scores import Counts, auc
from napari_rbcflow.classification.published import (
    FLIPPING,
    TANK_TREADING,
    UNRELIABLE,
    Sequence31,
    choose_split,
    read_dataset,
    refuse_unknown,
)
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.types import LEAST_FRAMES, Label

_STAGE1 = ("unreliable", "reliable")
_STAGE2 = ("tank-treading", "flipping")
_ALL = ("tank-treading", "flipping", "unreliable")
_NUMBERS = {
    Label.TANK_TREADING: TANK_TREADING,
    Label.FLIPPING: FLIPPING,
    Label.UNRELIABLE: UNRELIABLE,
}


def evaluate(
    dataset: Path,
    two_stage: TwoStage,
    *,
    pictures: Path | None = None,
    split: str | None = None,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Judge every sequence of a dataset and score the judgements.

    Stage 1 judges all rows, those under six frames too; stage 2 the truly reliable ones, as in the paper.
    In a row, sequences under six frames are discarded and stage 2 judges what stage 1 lets through; what
    stage 2 cannot tell is unreliable there, as in a run. By itself stage 2 names the likelier class always.

    Parameters
    ----------
    dataset : Path
        A folder in the published layout (`napari_rbcflow.classification.published`).
    two_stage : TwoStage
    pictures : Path, optional
        Folder, made if it does not exist, for the confusion matrices and the worst errors as strips.
    split : {'train', 'validation', 'test'}, optional
        Of a folder that holds several; ``test`` by default.
    only : sequence of str
        Patients (``BG``), dates (``BG1017``) or acquisitions to evaluate on; by default all.

    Returns
    -------
    dict
        ``stage1`` and ``stage2``: ``n``, ``confusion`` (rows true, columns predicted, negative class first),
        ``f1``, ``accuracy``, ``precision``, ``recall``, ``auc``, ``threshold``, ``predictions``; the positive
        class is reliable and flipping; a score that is undefined is None; ``seen_in_training`` names the
        acquisitions that the weights were trained on, whose figures are no test of them.
        ``end_to_end``: ``n``, ``undecided`` (let through by stage 1, not told by stage 2), ``classes``,
        ``confusion``, ``accuracy``, ``fraction`` over all, ``acquisitions`` with the fraction of each,
        ``predictions``. ``table5``: for each acquisition and all, in per cent and percentage points, the
        tank-treading share of the ``n`` truly reliable cells, true and by stage 2, and ``in_a_row`` that of
        the ``n`` cells which both stages judged.
        ``models``, ``split``, ``only``. Only JSON types.

    Raises
    ------
    BadInput
        For a dataset that cannot be used.
    """
    folder, split = choose_split(Path(dataset), split)
    sequences = read_dataset(folder)
    if only:
        refuse_unknown(only, sequences)
        sequences = [s for s in sequences if set(s.groups) & set(only)]
    crops = [s.crops for s in sequences]
    p_reliable = two_stage.reliable(crops)
    reliable = [s for s in sequences if s.reliable]
    p_flipping_by_name = dict(
        zip([s.name for s in sequences], two_stage.flipping(crops).tolist(), strict=True)
    )
    p_flipping = np.asarray([p_flipping_by_name[s.name] for s in reliable], np.float64)
    stage1 = _score(
        sequences,
        np.asarray([int(s.reliable) for s in sequences], np.int64),
        p_reliable,
        two_stage.stage1.threshold,
        _STAGE1,
    )
    stage2 = _score(
        reliable,
        np.asarray([int(s.label == FLIPPING) for s in reliable], np.int64),
        p_flipping,
        two_stage.stage2.threshold,
        _STAGE2,
    )
    kinds = [
        None
        if len(s.crops) < LEAST_FRAMES or p < two_stage.stage1.threshold
        else two_stage.kind(p_flipping_by_name[s.name])
        for s, p in zip(sequences, p_reliable, strict=True)
    ]
    final = np.asarray(
        [
            UNRELIABLE
            if kind is None or not two_stage.stage1.passes(p, flipping=kind[0] is Label.FLIPPING)
            else _NUMBERS[kind[0]]
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
    sequences: Sequence[Sequence31],
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


def _in_a_row(sequences: Sequence[Sequence31], final: NDArray[np.int64]) -> dict[str, Any]:
    truth = np.asarray([s.label for s in sequences], np.int64)
    confusion = [[int(((truth == a) & (final == b)).sum()) for b in range(3)] for a in range(3)]
    acquisitions = sorted({s.acquisition for s in sequences})
    where = np.asarray([s.acquisition for s in sequences])
    return {
        "n": len(sequences),
        "classes": list(_ALL),
        "confusion": confusion,
        "accuracy": float((truth == final).mean()),
        "fraction": _fractions(truth, final),
        "acquisitions": [
            {"acquisition": name} | _fractions(truth[where == name], final[where == name])
            for name in acquisitions
        ],
        "predictions": [
            {"sequence_name": s.name, "true_label": _ALL[s.label], "predicted_label": _ALL[int(label)]}
            for s, label in zip(sequences, final, strict=True)
        ],
    }


def _table5(
    reliable: Sequence[Sequence31], judged: NDArray[np.int64], in_a_row: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return Table 5: the truly reliable cells' share by stage 2, and beside it that of both stages."""
    truth = np.asarray([s.label for s in reliable], np.int64)
    where = np.asarray([s.acquisition for s in reliable], dtype=object)
    rows: list[dict[str, Any]] = []
    for both in (*in_a_row["acquisitions"], {"acquisition": "all", **in_a_row["fraction"]}):
        of = where == both["acquisition"] if len(rows) < len(in_a_row["acquisitions"]) else where == where
        share = _fractions(truth[of], judged[of])
        rows.append(
            {
                "acquisition": both["acquisition"],
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
    """Return the tank-treading share of the reliable: true, and as both stages have it."""

    def share(labels: NDArray[np.int64]) -> tuple[float | None, int]:
        n = int((labels != UNRELIABLE).sum())
        return (int((labels == TANK_TREADING).sum()) / n if n else None), n

    (true, n_true), (estimate, n_estimate) = share(truth), share(final)
    error = None if true is None or estimate is None else estimate - true
    return {"true": true, "n_true": n_true, "estimate": estimate, "n_estimate": n_estimate, "error": error}
