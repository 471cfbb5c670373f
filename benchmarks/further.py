"""Whether going on from weights with a few labelled tracks helps on other runs, and harms on other patients.

    OMP_NUM_THREADS=1 nice python benchmarks/further.py WEIGHTS.safetensors --stage 1
        --train DATASET:RUN[,RUN] --test DATASET[:RUN,...]...

RUN is a part of an acquisition's name (`LJ0926_10s01`, `1017`). Trains as `rbcflow train --from` does,
without its trial. A row a test set, before and after: AUC, share found where 2 % are let through, and at the
card's own threshold the reliable (or flipping) found and the others let through.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from napari_rbcflow.classification.dataset import LabelledSequence, read_dataset
from napari_rbcflow.classification.evaluation.scores import auc, threshold_at_leak
from napari_rbcflow.classification.training.fitting import Recipe, logits, targets
from napari_rbcflow.classification.training.further import EPOCHS, go_on, recipe_of
from napari_rbcflow.classification.weight_files import TrainedStage, load_weights, shortness


def chosen(given: str, stage: int) -> list[LabelledSequence]:
    """Read a data set, or some runs of it."""
    folder, _, runs = given.partition(":")
    found = [s for s in read_dataset(Path(folder)) if stage == 1 or s.reliable]
    return [s for s in found if not runs or any(run in s.acquisition for run in runs.split(","))]


def say(
    name: str, networks: list[nn.Module], old: TrainedStage, tracks: list[LabelledSequence], recipe: Recipe
) -> None:
    """Print a row."""
    lengths = [len(s.crops) for s in tracks]
    z = np.mean([logits(network, tracks, recipe) for network in networks], axis=0)
    truth, p = targets(tracks, recipe.stage), old.probability(z, lengths)
    found = p[truth == 1] >= threshold_at_leak(truth, p, 0.02)
    kept = p >= old.threshold
    area = auc(truth, z - old.short * shortness(lengths, old.frames))
    counts = [f"{kept[truth == kind].sum()} of {(truth == kind).sum()}" for kind in (1, 0)]
    print(f"| {name} | {area:.3f} | {found.mean():.3f} | {counts[0]} | {counts[1]} |", flush=True)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--stage", type=int, default=1)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", nargs="+", required=True)
    given = parser.parse_args()
    old = load_weights(given.weights, given.stage)
    recipe = recipe_of(old, EPOCHS)
    new = go_on(old, chosen(given.train, given.stage), recipe, torch.device("cpu"), lambda _: None)
    print("| test set | AUC | found at 0.02 | found | let through |\n|---|---|---|---|---|")
    for test in given.test:
        tracks = chosen(test, given.stage)
        for when, networks in (("before", old.networks), ("after", new)):
            say(f"{Path(test).name}, {when}", networks, old, tracks, recipe)


if __name__ == "__main__":
    main()
