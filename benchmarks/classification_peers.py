"""Other ways to tell the cells, one patient held back at a time, beside our networks' figures.

    OMP_NUM_THREADS=1 python benchmarks/classification_peers.py DATASET... [--seeds 3]

MiniRocket (Dempster, Schmidt and Webb, "MINIROCKET: a very fast (almost) deterministic transform for time
series classification", KDD 2021), written anew for sequences of many channels and any length, with
scikit-learn's `RidgeClassifierCV`: a crop, made coarse, is as many series as it has pixels. The 84 kernels,
dilations and the share of positive values are the paper's; each feature has a channel of its own, drawn at
random. Beside it a measure that no label has taught: a cell that tank-treads looks the same all the time, one
that flips shows its face and its edge in turn, so the score is how much its middle changes. That is
FlowMorph's idea and not FlowMorph, which fits a contour to each frame. Stage 1: reliable or not. Stage 2:
tank-treading or flipping.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_rbcflow.classification.dataset import LabelledSequence
from napari_rbcflow.classification.training.fitting import targets
from napari_rbcflow.classification.training.train import gather

Floats = NDArray[np.float32]
SIDE = 7  # pixels of a coarse crop
DILATIONS = (1, 2, 3)
PER_KERNEL = 24  # features of a kernel at a dilation
KERNELS = np.array(list(itertools.combinations(range(9), 3)))


def series(one: LabelledSequence) -> Floats:
    """Return a sequence as series (frames, channels), of mean 0 and deviation 1."""
    coarse = [cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for crop in one.crops]
    values = np.stack(coarse).reshape(len(coarse), -1).astype(np.float32)
    return (values - values.mean()) / max(float(values.std()), 1e-6)


class MiniRocket:
    """The transform: biases from what it is fitted on, features the shares of values above them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._channel = self._rng.integers(0, SIDE * SIDE, (len(DILATIONS), len(KERNELS), PER_KERNEL))
        self._bias = np.zeros(self._channel.shape, np.float32)

    def fit(self, some: Sequence[Floats]) -> MiniRocket:
        for d, k in np.ndindex(self._bias.shape[:2]):
            example = some[int(self._rng.integers(len(some)))]
            out = _convolved(example, DILATIONS[d])[k]
            places = (np.arange(PER_KERNEL) * 0.618034 + 0.5 / PER_KERNEL) % 1  # low discrepancy, as theirs
            for at, (channel, place) in enumerate(zip(self._channel[d, k], places, strict=True)):
                self._bias[d, k, at] = np.quantile(out[:, channel], place)
        return self

    def transform(self, some: Sequence[Floats]) -> Floats:
        rows = []
        for one in some:
            parts = []
            for d, dilation in enumerate(DILATIONS):
                out = _convolved(one, dilation)
                chosen = np.take_along_axis(out, self._channel[d][:, None, :], axis=2)
                parts.append((chosen > self._bias[d][:, None, :]).mean(axis=1).ravel())
            rows.append(np.concatenate(parts))
        return np.stack(rows).astype(np.float32)


def _convolved(one: Floats, dilation: int) -> Floats:
    """Return the series under each kernel (weights -1, three of them 2), shape (84, frames, channels)."""
    reach = 4 * dilation
    padded = np.pad(one, ((reach, reach), (0, 0)))
    taps = np.stack([padded[k * dilation : k * dilation + len(one)] for k in range(9)])
    result: Floats = 3 * taps[KERNELS].sum(axis=1) - taps.sum(axis=0)
    return result


def restlessness(one: LabelledSequence) -> float:
    """Return how much the middle of a cell changes in time, of all that its pictures vary."""
    crops = np.stack([cv2.GaussianBlur(crop, (0, 0), 1.5) for crop in one.crops.astype(np.float32)])
    return float(crops[:, 13:18, 13:18].mean(axis=(1, 2)).std() / max(float(crops.std()), 1e-6))


def compare(datasets: Sequence[Path], stage: int, seeds: int) -> None:
    """Print a row for each patient held back, and one for all."""
    sequences = [one for part in gather(datasets, stage) for one in part]
    sequences = [one for one in sequences if one.named]
    truth = targets(sequences, stage)
    patients = np.array([one.patient for one in sequences])
    ready = [series(one) for one in sequences]
    score = np.zeros(len(sequences))
    spent = 0.0
    for patient in np.unique(patients):
        held = patients == patient
        if len(np.unique(truth[~held])) < 2:
            continue
        for seed in range(seeds):
            rocket = MiniRocket(seed).fit([ready[k] for k in np.flatnonzero(~held)])
            features = rocket.transform([ready[k] for k in np.flatnonzero(~held)])
            model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-1, 5, 13)))
            model.fit(features, truth[~held])
            start = time.process_time()
            score[held] += model.decision_function(rocket.transform([ready[k] for k in np.flatnonzero(held)]))
            spent += time.process_time() - start
    print(f"stage {stage}: MiniRocket, {1e3 * spent / len(sequences) / seeds:.1f} ms CPU a sequence to judge")
    physics = np.array([restlessness(one) for one in sequences])
    for name, values, cut in (
        ("MiniRocket", score, 0.0),
        ("change of the middle, unsupervised", physics, None),
    ):
        if stage == 1 and cut is None:
            continue
        # Scores of different folds are on one scale only where the classes are as many in each.
        for patient in (*np.unique(patients), *(["all"] if stage == 2 else [])):
            of = (patients == patient) | (patient == "all")
            n = f"{int((truth[of] == 0).sum())} + {int((truth[of] == 1).sum())}"
            both = len(np.unique(truth[of])) == 2
            auc = f"{roc_auc_score(truth[of], values[of]):.3f}" if both else "-"
            right = (
                f"{balanced_accuracy_score(truth[of], values[of] > cut):.3f}"
                if both and cut is not None
                else "-"
            )
            print(f"| {stage} | {name} | {patient} | {n} | {auc} | {right} |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print("| stage | who | patient | of either class | AUC | balanced accuracy |\n|---|---|---|---|---|---|")
    for stage in (2, 1):
        compare(given.datasets, stage, given.seeds)


if __name__ == "__main__":
    main()
