"""The card beside a weight file: calibration, thresholds, and how good the weights are on unseen data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification import weight_files
from napari_rbcflow.classification.dataset import (
    FLIPPING,
    LABELS,
    TANK_TREADING,
    UNRELIABLE,
    LabelledSequence,
)
from napari_rbcflow.classification.evaluation.scores import (
    Counts,
    at_prevalence,
    auc,
    bootstrap,
    calibrate,
    calibration_error,
    perfect_calibration_error,
    threshold_at_leak,
)
from napari_rbcflow.classification.training.fitting import Recipe, targets
from napari_rbcflow.classification.weight_files import calibrated, shortness, tells
from napari_rbcflow.sentences import say

PREVALENCE = 0.034  # share of reliable sequences in the paper's acquisitions (Table 2)
TRACKS = 6000  # of an acquisition (Darrin et al. 2023, Table 5 and the length of its movies)
# Share found of each kind, averaged over the patients held back. Patients differ by 0.15, so for the next one
# about 0.6 are found. With fewer, the cells found are unusual ones, and a run takes too long.
LEAST_FOUND = 0.78
_MOST_FOUND = 0.95
# True fractions over which the error is averaged: those of patients and of healthy people.
_FRACTIONS = (0.6, 0.7, 0.8, 0.9, 0.95)
# Share of the false positives that are called tank-treading: 0.1 to 0.9 on two patients, so it is unknown.
_CALLED = (0.2, 0.5, 0.8)


class Thresholds(NamedTuple):
    """Least probabilities of being reliable, to four decimals, for the kind that stage 2 finds."""

    tank_treading: float
    flipping: float
    found: float  # share of each kind that they were chosen to find
    error: float  # expected root mean square error of the fraction in blood, on the patients held back


def cell_weights(sequences: Sequence[LabelledSequence]) -> NDArray[np.float64]:
    """Weight tracks so that every cell counts once, however often it flowed in composed movies."""
    times = Counter(s.cell for s in sequences)
    return np.asarray([1 / times[s.cell] for s in sequences])


def choose_thresholds(sequences: Sequence[LabelledSequence], p: NDArray[np.float64]) -> Thresholds | None:
    """Choose both thresholds from held-back judgements; None if a label is missing.

    The sequences are cut by our tracker, and `p` is the probability of being reliable by networks that have
    not seen the patient.
    """
    labels = np.asarray([s.label for s in sequences])
    patients = np.asarray([s.patient for s in sequences])
    if not all((labels == label).any() for label in (TANK_TREADING, FLIPPING, UNRELIABLE)):
        return None
    weights = cell_weights(sequences)
    every = sorted(set(patients.tolist()))
    held = {g: {label for label in range(3) if ((patients == g) & (labels == label)).any()} for g in every}
    # Patients without unreliable tracks show nothing about false positives, but do about what is found.
    of_both = [g for g in every if {TANK_TREADING, FLIPPING} <= held[g]]
    of_all = [g for g in of_both if UNRELIABLE in held[g]]
    if not of_all:
        return None
    best: Thresholds | None = None
    for found in np.arange(LEAST_FOUND, _MOST_FOUND + 1e-9, 0.01):
        line = [
            _threshold_for(p, weights, labels == kind, patients, of_both, float(found))
            for kind in (TANK_TREADING, FLIPPING)
        ]
        errors = [_squared_error(p, weights, labels, patients == group, line[0], line[1]) for group in of_all]
        error = float(np.sqrt(np.mean(errors)))
        if best is None or error < best.error:
            best = Thresholds(line[0], line[1], float(found), error)
    return best


def _threshold_for(
    p: NDArray[np.float64],
    weights: NDArray[np.float64],
    of_kind: NDArray[np.bool_],
    patients: NDArray[np.str_],
    groups: Sequence[str],
    found: float,
) -> float:
    """The highest threshold at which, averaged over the patients, this share of a kind is found."""
    values = np.unique(np.round(p[of_kind], 4))[::-1]
    shares = np.zeros(len(values))
    for group in groups:
        chosen = of_kind & (patients == group)
        order = np.argsort(-p[chosen])
        gathered = np.cumsum(weights[chosen][order]) / weights[chosen].sum()
        at = np.searchsorted(-p[chosen][order], -values + 5e-5, "right")
        shares += np.where(at > 0, gathered[np.maximum(at - 1, 0)], 0) / len(groups)
    enough = np.flatnonzero(shares >= found)
    return float(values[enough[0]]) if len(enough) else float(values[-1])


def _squared_error(
    p: NDArray[np.float64],
    weights: NDArray[np.float64],
    labels: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    of_tank: float,
    of_flip: float,
) -> float:
    """Mean squared error of the fraction on one patient: its bias, and the count statistics of one run."""

    def passed(label: int, threshold: float, prior: float = 0.0) -> float:
        at = chosen & (labels == label)
        total = float(weights[at].sum())
        return (float(weights[at & (p >= threshold)].sum()) + prior) / (total + 2 * prior)

    tank, flip = passed(TANK_TREADING, of_tank), passed(FLIPPING, of_flip)
    # No false positive among a few sequences is not a rate of zero.
    as_tank, as_flip = (passed(UNRELIABLE, t, 0.25) for t in (of_tank, of_flip))
    errors = []
    for true in _FRACTIONS:
        for called in _CALLED:
            tanks = PREVALENCE * true * tank + (1 - PREVALENCE) * called * as_tank
            flips = PREVALENCE * (1 - true) * flip + (1 - PREVALENCE) * (1 - called) * as_flip
            share = tanks / (tanks + flips)
            errors.append((share - true) ** 2 + share * (1 - share) / (TRACKS * (tanks + flips)))
    return float(np.mean(errors))


LEAK = 0.02  # share of the unreliable that stage 1 may let through
TOLD = 0.7  # a reliable cell is undecided, never guessed, if its likelier class is less probable than this


def make_card(
    recipe: Recipe,
    judged: Sequence[LabelledSequence],
    held_logits: NDArray[np.float64],
    per_seed: NDArray[np.float64],
    seeds: Sequence[int],
    split: str,
) -> dict[str, Any]:
    """Set calibration and thresholds from held-back judgements, and score these.

    If there are tracks that our own tracker cut, they decide, for they are what a run will judge.
    """
    known = np.isfinite(held_logits)
    sequences = [s for s, k in zip(judged, known, strict=True) if k]
    held_logits, per_seed = held_logits[known], per_seed[:, known]
    composed = np.asarray([s.composed for s in sequences])
    deciding = composed if composed.any() else ~composed
    if recipe.stage == 1:
        # Patients with only reliable sequences show nothing about the share of reliable ones.
        of_both = {s.patient for s in sequences if not s.reliable}
        deciding = deciding & np.asarray([s.patient in of_both for s in sequences])
    truth = targets(sequences, recipe.stage)
    short_by = shortness([len(s.crops) for s in sequences], recipe.frames)
    slope, offset, short = calibrate(
        truth[deciding],
        held_logits[deciding],
        short_by[deciding] if recipe.stage == 1 and recipe.scale == "level" else np.zeros(deciding.sum()),
        cell_weights([s for s, d in zip(sequences, deciding, strict=True) if d]),
    )
    held_logits, per_seed = held_logits - short * short_by, per_seed - short * short_by
    p = calibrated(held_logits, slope, offset)
    chosen = None
    if recipe.stage == 1 and composed.any():
        chosen = choose_thresholds([s for s in sequences if s.composed], p[composed])
    threshold, rule = _threshold(recipe, truth, p, chosen)
    titles = {f"held back ({split})": ~composed}
    if composed.any():
        # Counts must be of cells, not of each cell's many tracks.
        title = f"held back, one track of each cell as our tracker cuts it ({split})"
        titles = {title: composed & _first_of_each_cell(sequences)} | titles
    scored = {}
    for title, which in titles.items():
        some = [s for s, w in zip(sequences, which, strict=True) if w]
        if some:
            scored[title] = figures(
                *(recipe, some, held_logits[which], per_seed[:, which], slope, offset, threshold),
                thresholds=None if chosen is None else (chosen.tank_treading, chosen.flipping),
            )
    card: dict[str, Any] = {
        "name": f"rbcflow-stage{recipe.stage}-{recipe.model}",
        "stage": recipe.stage,
        "purpose": say(f"classification.card-purpose-stage{recipe.stage}"),
        "data": say("classification.card-data"),
        "licence": say("classification.card-licence"),
        "split": split,
        "caution": say("classification.card-caution"),
        "recipe": asdict(recipe),
        "seeds": list(seeds),
        "slope": slope,
        "offset": offset,
        "short": short,
        "threshold": threshold,
        "threshold_rule": rule,
        "told_from": TOLD if recipe.stage == 2 else 0.5,
        "figures": scored,
    }
    if chosen is not None:
        card["thresholds"] = [chosen.tank_treading, chosen.flipping]
        card["expected_error"] = chosen.error
    return card


def _threshold(
    recipe: Recipe, truth: NDArray[np.int64], p: NDArray[np.float64], chosen: Thresholds | None
) -> tuple[float, str]:
    """Return the threshold, the lower one if there are two, and the rule that gave it, in words."""
    if recipe.stage == 2:
        return 0.5, say("classification.threshold-likelier-class", told=TOLD)
    if chosen is None:
        rule = say("classification.threshold-at-leak", leak=LEAK, prevalence=PREVALENCE)
        return threshold_at_leak(truth, p, LEAK), rule
    shares = {"found": chosen.found, "prevalence": PREVALENCE, "least": LEAST_FOUND}
    rule = say("classification.threshold-equal-shares", **shares)
    return min(chosen.tank_treading, chosen.flipping), rule


def _first_of_each_cell(sequences: Sequence[LabelledSequence]) -> NDArray[np.bool_]:
    """Mark the first track of each cell in composed movies."""
    first: dict[str, int] = {}
    for i, sequence in enumerate(sequences):
        if sequence.composed:
            first.setdefault(sequence.cell, i)
    return np.isin(np.arange(len(sequences)), list(first.values()))


def figures(
    recipe: Recipe,
    sequences: Sequence[LabelledSequence],
    mean_logits: NDArray[np.float64],
    per_seed: NDArray[np.float64],
    slope: float,
    offset: float,
    threshold: float,
    thresholds: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Score judgements, with the counts behind every rate.

    With `thresholds`, a reliable track is found if it passes that of its own kind; an unreliable one passes
    if it does so as tank-treading, the kind that most are.
    """
    truth = targets(sequences, recipe.stage)
    p = calibrated(mean_logits, slope, offset)
    if thresholds is not None:
        of_kind = np.asarray([thresholds[s.label == FLIPPING] for s in sequences])
        # As if there were one threshold: what passes is at or above it.
        p = np.where(p >= of_kind, np.maximum(p, threshold), np.minimum(p, threshold - 1e-4))
    counts = Counts.of(truth, (p >= threshold).astype(np.int64))
    by_seed = [auc(truth, row) for row in per_seed]
    out: dict[str, Any] = {
        "n": counts.n,
        "TP": counts.true_positive,
        "FP": counts.false_positive,
        "TN": counts.true_negative,
        "FN": counts.false_negative,
        "AUC": auc(truth, mean_logits),
        "AUC 95 % bootstrap": list(bootstrap(truth, mean_logits, auc) or []),
        "AUC of each seed alone": by_seed,
        "AUC of the seeds, mean and standard deviation": _spread(by_seed),
        "accuracy": counts.accuracy,
        "balanced accuracy": counts.balanced_accuracy,
        "balanced accuracy, 95 % bootstrap": list(
            bootstrap(
                truth, p, lambda t, q: Counts.of(t, (q >= threshold).astype(np.int64)).balanced_accuracy
            )
            or []
        ),
        "precision": counts.precision,
        "recall": counts.recall,
        "recall, 95 % (Clopper-Pearson)": list(_interval(counts.true_positive, int(truth.sum()))),
        "F1": counts.f1,
        "expected calibration error": calibration_error(truth, p),
        "the same, 97.5th percentile of a perfectly calibrated net": perfect_calibration_error(p),
    }
    if recipe.stage == 1 and counts.recall is not None and counts.leak is not None:
        negatives = counts.true_negative + counts.false_positive
        at_leak = threshold_at_leak(truth, p, LEAK)
        out[f"recall at leak {LEAK}"] = float((p[truth == 1] >= at_leak).mean())
        out["leak"] = counts.leak
        out[weight_files.LET_THROUGH] = [counts.false_positive, negatives]
        out["leak, upper 95 % (Clopper-Pearson)"] = _interval(counts.false_positive, negatives)[1]
        out[f"precision at {PREVALENCE:.1%} reliable"] = at_prevalence(counts.recall, counts.leak, PREVALENCE)
        out["the same, at the leak's upper end"] = at_prevalence(
            counts.recall, _interval(counts.false_positive, negatives)[1], PREVALENCE
        )
        found = p >= threshold
        out |= _of_either_kind(sequences, found)
        out |= _by_group(sequences, lambda i: _leak_and_found([sequences[n] for n in i], found[i]))
    if recipe.stage == 2:
        out |= _told(truth, p, threshold)
        out |= _by_group(sequences, lambda i: _told_and_right(truth[i], p[i], threshold))
    return out


def count_labels(sequences: Sequence[LabelledSequence]) -> dict[str, int]:
    return {name: sum(s.label == label for s in sequences) for label, name in enumerate(LABELS)}


def _of_either_kind(sequences: Sequence[LabelledSequence], found: NDArray[np.bool_]) -> dict[str, Any]:
    """What stage 1 finds of each kind, and what the difference does to the tank-treading share."""
    labels = np.asarray([s.label for s in sequences])
    out: dict[str, Any] = {}
    for label, name in enumerate(LABELS[:2]):
        n = int((labels == label).sum())
        if n:
            k = int((found & (labels == label)).sum())
            out[f"recall of {name}"] = k / n
            out[f"recall of {name}, 95 % (Clopper-Pearson)"] = list(_interval(k, n))
            out[weight_files.FOUND[f"{name.replace('-', '_')}_found"]] = [k, n]
    reliable = labels != UNRELIABLE
    if (found & reliable).any():
        tank = labels == TANK_TREADING
        out["tank-treading share of the reliable, and of those found"] = [
            float(tank[reliable].mean()),
            float(tank[found & reliable].mean()),
        ]
    return out


def _leak_and_found(sequences: Sequence[LabelledSequence], found: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Of each label, the sequences that pass stage 1, and all."""
    names = (*weight_files.FOUND.values(), weight_files.LET_THROUGH)  # in the order of the labels
    labels = np.asarray([s.label for s in sequences])
    return {name: [int(found[labels == k].sum()), int((labels == k).sum())] for k, name in enumerate(names)}


def _by_group(
    sequences: Sequence[LabelledSequence], counts: Callable[[NDArray[np.intp]], dict[str, list[int]]]
) -> dict[str, Any]:
    """Counts of each patient, day and run, of the sequences whose names say these."""
    out: dict[str, Any] = {}
    for title, group_of in weight_files.GROUPS.items():
        groups: dict[str, list[int]] = {}
        for i, sequence in enumerate(sequences):
            if sequence.named:
                groups.setdefault(str(getattr(sequence, group_of)), []).append(i)
        if groups:
            out[title] = {
                group: {name: kn for name, kn in counts(np.asarray(rows)).items() if kn[1]}
                for group, rows in sorted(groups.items())
            }
    return out


def _told_and_right(
    truth: NDArray[np.int64], p: NDArray[np.float64], threshold: float
) -> dict[str, list[int]]:
    """Of each kind, the cells that stage 2 decides, and those that it decides correctly."""
    told, right = tells(p, TOLD), (p >= threshold) == (truth == 1)
    out = {}
    for kind, name in ((1, "flipping"), (0, "tank_treading")):
        own = told[truth == kind]
        out[weight_files.TOLD[f"{name}_told"]] = [int(own.sum()), len(own)]
        out[weight_files.RIGHT[f"{name}_right"]] = [int(right[told & (truth == kind)].sum()), int(own.sum())]
    return out


def _told(truth: NDArray[np.int64], p: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """The figures without undecided cells."""
    told = tells(p, TOLD)
    flipping = p >= threshold
    counts = Counts.of(truth[told], flipping[told].astype(np.int64))
    out: dict[str, Any] = {
        "told, of": [int(told.sum()), len(p)],
        **_told_and_right(truth, p, threshold),
        "balanced accuracy of those told": counts.balanced_accuracy,
    }
    if told.any():
        out["tank-treading share: true, and judged of those told"] = [
            float(1 - truth.mean()),
            float(1 - flipping[told].mean()),
        ]
    return out


def _spread(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None]
    return [float(np.mean(known)), float(np.std(known, ddof=1))] if len(known) > 1 else []


def _interval(k: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson interval of k in n, 95 %."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
    return low, high
