"""The card beside a weight file: calibration, threshold, and how good the weights are on unseen data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification.fitting import Recipe, targets
from napari_rbcflow.classification.published import Sequence31
from napari_rbcflow.classification.scores import (
    Counts,
    at_prevalence,
    auc,
    bootstrap_auc,
    calibrate,
    calibration_error,
    perfect_calibration_error,
    threshold_at_leak,
)

REAL_LIFE = 0.034
"""Share of reliable sequences in the paper's acquisitions (Table 2)."""
LEAK = 0.02
"""Share of the unreliable that stage 1 may let through."""

_DATA = (
    "Sequences published by Darrin et al., Scientific Reports 13 (2023) 745, doi 10.5281/zenodo.5723606, "
    "https://github.com/icannos/redbloodcells_disease_classification"
)


def make_card(
    recipe: Recipe,
    judged: Sequence[Sequence31],
    held_logits: NDArray[np.float64],
    per_seed: NDArray[np.float64],
    seeds: Sequence[int],
    split: str,
) -> dict[str, Any]:
    """Set calibration and threshold from held-back judgements, and tell how good they were."""
    known = np.isfinite(held_logits)
    sequences = [s for s, k in zip(judged, known, strict=True) if k]
    held_logits, per_seed = held_logits[known], per_seed[:, known]
    truth = targets(sequences, recipe.stage)
    slope, offset = calibrate(truth, held_logits)
    p = 1 / (1 + np.exp(-np.clip(slope * held_logits + offset, -60, 60)))
    if recipe.stage == 1:
        threshold = threshold_at_leak(truth, p, LEAK)
        rule = (
            f"lowest at which at most {LEAK:.0%} of the held-back unreliable pass; in real life "
            f"{REAL_LIFE:.1%} of the sequences are reliable, so a leak costs more than a miss"
        )
    else:
        threshold, rule = 0.5, "the likelier class, after calibration"
    scored = figures(recipe, sequences, held_logits, per_seed, slope, offset, threshold)
    return {
        "name": f"rbcflow-stage{recipe.stage}-{recipe.model}",
        "stage": recipe.stage,
        "purpose": "Reliable or not" if recipe.stage == 1 else "Flipping or tank-treading, of reliable cells",
        "data": _DATA + ", or what the user gave; only the weights are passed on, no picture",
        "licence": "article CC BY 4.0; the data's repository carries no licence file; weights as the package",
        "split": split,
        "recipe": recipe.as_dict(),
        "seeds": list(seeds),
        "slope": slope,
        "offset": offset,
        "threshold": threshold,
        "threshold_rule": rule,
        "figures": {f"held back ({split})": scored},
    }


def figures(
    recipe: Recipe,
    sequences: Sequence[Sequence31],
    mean_logits: NDArray[np.float64],
    per_seed: NDArray[np.float64],
    slope: float,
    offset: float,
    threshold: float,
) -> dict[str, Any]:
    """Score judgements, with the counts behind every rate."""
    truth = targets(sequences, recipe.stage)
    p = np.round(1 / (1 + np.exp(-np.clip(slope * mean_logits + offset, -60, 60))), 4)
    counts = Counts.of(truth, (p >= threshold).astype(np.int64))
    by_seed = [auc(truth, row) for row in per_seed]
    out: dict[str, Any] = {
        "n": counts.n,
        "TP": counts.true_positive,
        "FP": counts.false_positive,
        "TN": counts.true_negative,
        "FN": counts.false_negative,
        "AUC": auc(truth, mean_logits),
        "AUC 95 % bootstrap": list(bootstrap_auc(truth, mean_logits) or []),
        "AUC of each seed alone": by_seed,
        "accuracy": counts.accuracy,
        "balanced accuracy": counts.balanced_accuracy,
        "precision": counts.precision,
        "recall": counts.recall,
        "F1": counts.f1,
        "expected calibration error": calibration_error(truth, p),
        "the same, 97.5th percentile of a perfectly calibrated net": perfect_calibration_error(p),
    }
    if recipe.stage == 1 and counts.recall is not None and counts.leak is not None:
        negatives = counts.true_negative + counts.false_positive
        at_leak = threshold_at_leak(truth, p, LEAK)
        out[f"recall at leak {LEAK}"] = float((p[truth == 1] >= at_leak).mean())
        out["leak"] = counts.leak
        out["leak, upper 95 % (Clopper-Pearson)"] = _upper(counts.false_positive, negatives)
        out[f"precision at {REAL_LIFE:.1%} reliable"] = at_prevalence(counts.recall, counts.leak, REAL_LIFE)
        labels = np.asarray([s.label for s in sequences])
        for label, name in ((0, "tank-treading"), (1, "flipping")):
            of = labels == label
            if of.any():
                found = int((p[of] >= threshold).sum())
                out[f"recall of {name}"] = found / int(of.sum())
                out[f"{name} found, of"] = [found, int(of.sum())]
    return out


def count(sequences: Sequence[Sequence31]) -> dict[str, int]:
    """Sequences by label."""
    names = ("tank-treading", "flipping", "unreliable")
    return {name: sum(s.label == label for s in sequences) for label, name in enumerate(names)}


def _upper(passed: int, of: int) -> float:
    from scipy.stats import beta

    return float(beta.ppf(0.975, passed + 1, of - passed)) if passed < of else 1.0
