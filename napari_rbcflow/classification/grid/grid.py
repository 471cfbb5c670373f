"""The grid of Tables 3 and 4 of Darrin et al. (2023): two models, two samplings, four K, both stages."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_rbcflow.classification.dataset import LabelledSequence
from napari_rbcflow.classification.evaluation.scores import Counts, auc
from napari_rbcflow.classification.grid.folder import (
    FRAMES,
    MODELS,
    SAMPLINGS,
    Cell,
    PaperModel,
    Progress,
    begin,
    cell_name,
    identity_of,
    is_whole,
    replace_text,
    write_tables,
)
from napari_rbcflow.classification.grid.splits import Split, make_splits
from napari_rbcflow.classification.networks import n_parameters
from napari_rbcflow.classification.sampling import Sampling
from napari_rbcflow.classification.training.fitting import fit, logits, targets
from napari_rbcflow.classification.training.model_card import count_labels, figures, make_card
from napari_rbcflow.classification.two_stage import choose_device
from napari_rbcflow.classification.weight_files import save_weights
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

# Million multiplications for a sequence, and for each of its K frames. Used only to estimate the time left.
_COST = {"cnn": (40.0, 0.8), "c-rnn": (0.0, 22.0)}
_EVERY_S = 10.0


class _ProgressReporter:
    """Reports where the grid is, and the time left, from what its cells took so far."""

    def __init__(
        self, todo: Sequence[Cell], splits: Mapping[int, Split], epochs: int, progress: Progress
    ) -> None:
        self._todo, self._splits, self._epochs, self._progress = list(todo), splits, epochs, progress
        self._at, self._started, self._reported = 0, 0.0, 0.0
        self._pace: dict[str, float] = {}

    def started(self, cell: Cell) -> None:
        self._started = self._reported = time.monotonic()
        name = cell_name(cell.model, cell.sampling, cell.frames)
        at = {"number": self._at + 1, "cells": len(self._todo), "stage": cell.stage}
        self._progress(say("classification.grid-cell-starts", **at, cell=name, left=self._left(0.0)))

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        now = time.monotonic()
        share = epoch / epochs
        cell = self._todo[self._at]
        self._pace[cell.model] = (now - self._started) / (share * self._cost(cell))
        if now - self._reported >= _EVERY_S:
            self._reported = now
            at = {"epoch": epoch, "epochs": epochs, "loss": loss}
            self._progress(say("classification.grid-cell-epoch", **at, left=self._left(share)))

    def ended(self, cell: Cell) -> None:
        self._pace[cell.model] = (time.monotonic() - self._started) / self._cost(cell)
        self._at += 1

    def _cost(self, cell: Cell) -> float:
        own, each = _COST[cell.model]
        split = self._splits[cell.stage]
        return (own + each * cell.frames) * (3 * len(split.train) + len(split.validation)) * self._epochs

    def _left(self, share: float) -> str:
        if not self._pace:
            return ""
        known = max(self._pace.values())
        rest = [1 - share, *[1.0] * (len(self._todo) - self._at - 1)]
        seconds = sum(
            part * self._cost(cell) * self._pace.get(cell.model, known)
            for part, cell in zip(rest, self._todo[self._at :], strict=True)
        )
        if seconds < 90:
            return say("classification.grid-seconds-left", time=seconds)
        if seconds < 5400:
            return say("classification.grid-minutes-left", time=seconds / 60)
        return say("classification.grid-hours-left", time=seconds / 3600)


def run_grid(
    datasets: Sequence[Path],
    out: Path,
    *,
    stages: Sequence[int] = (1, 2),
    models: Sequence[PaperModel] = MODELS,
    samplings: Sequence[Sampling] = SAMPLINGS,
    frames: Sequence[int] = FRAMES,
    epochs: int = 30,
    seed: int = 0,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and score the cells of the grid that are not there yet, and write the tables.

    The cheapest cells come first: a stage's CNNs, then its C-RNNs from small K upwards. What narrows the grid
    (`stages`, `models`, `samplings`, `frames`) may differ from call to call; what a score depends on
    (datasets, split, `epochs`, `seed`) may not. Returns what ``tables.json`` holds.

    Parameters
    ----------
    datasets : sequence of Path
        As for `training.train`. The splits of a folder with ``train``, ``validation`` and ``test`` are kept.
    out : Path
        A new folder, or that of an earlier call. Holds ``grid.json`` (what the scores depend on), a folder
        for each cell, and ``tables.txt``, ``tables.md``, ``tables.json``, rewritten after each cell.
    validation, test : sequence of str
        Patients, dates or acquisitions to hold back (`splits.make_splits`) if the data has no splits.
    """
    report: Progress = progress or (lambda _: None)
    out, wanted = Path(out), _wanted(stages, models, samplings, frames)
    if epochs < 1:
        raise BadInput("classification.no-epochs")
    where = torch.device(choose_device(device))
    splits = make_splits(datasets, sorted(set(stages)), validation, test)
    identity = identity_of(splits, epochs, seed)
    begin(out, identity)
    for stage in splits.values():
        for note in stage.notes:
            report(note)
    possible = [cell for cell in wanted if cell.frames <= splits[cell.stage].most_frames]
    todo = [cell for cell in possible if not is_whole(out / cell.name, report)]
    if done := len(possible) - len(todo):
        report(say("classification.grid-cells-there", done=done, cells=len(possible)))
    reporter = _ProgressReporter(todo, splits, epochs, report)
    for cell in todo:
        reporter.started(cell)
        _train(cell, splits[cell.stage], out, epochs, seed, where, reporter)
        reporter.ended(cell)
        write_tables(out)
    return write_tables(out)


def _wanted(
    stages: Sequence[int], models: Sequence[PaperModel], samplings: Sequence[Sampling], frames: Sequence[int]
) -> list[Cell]:
    for setting, values, possible in (
        ("stages", stages, (1, 2)),
        ("models", models, MODELS),
        ("samplings", samplings, SAMPLINGS),
        ("frames", frames, FRAMES),
    ):
        if not values:
            raise BadInput("classification.grid-none-chosen", setting=setting)
        for value in values:
            if value not in possible:
                known = ", ".join(map(str, possible))
                raise BadInput("classification.grid-unknown-value", setting=setting, value=value, known=known)
    cells = {Cell(s, m, p, k) for s in stages for m in models for p in samplings for k in frames}
    return sorted(cells, key=lambda c: (c.model == "c-rnn", c.frames, c.stage, c.sampling))


def _train(
    cell: Cell,
    split: Split,
    out: Path,
    epochs: int,
    seed: int,
    where: torch.device,
    reporter: _ProgressReporter,
) -> None:
    recipe = cell.recipe(epochs)
    started = time.monotonic()
    fitted = fit(split.train, split.validation, recipe, seed, where, reporter.epoch)
    seconds = time.monotonic() - started
    judged: dict[str, NDArray[np.float64]] = {
        name: logits(fitted.network, part, recipe)
        for name, part in (("validation", split.validation), ("test", split.test))
        if part
    }
    card = make_card(
        recipe, split.validation, judged["validation"], judged["validation"][None], [seed], split.description
    )
    card |= {
        "name": f"darrin-2023-{cell.name}",
        "slope": 1.0,
        "offset": 0.0,
        "threshold": 0.5,
        "told_from": 0.5,
        "threshold_rule": say("classification.threshold-of-paper"),
        "figures": {
            f"{name} ({'chose the epoch' if name == 'validation' else 'chose nothing'})": figures(
                recipe, part, judged[name], judged[name][None], 1.0, 0.0, 0.5
            )
            for name, part in (("validation", split.validation), ("test", split.test))
            if part
        },
        "parameters": n_parameters(fitted.network),
        "trained_on": count_labels(split.train),
        "acquisitions": sorted({s.acquisition for s in (*split.train, *split.validation)}),
        "epochs_kept": [fitted.epoch],
        "device": where.type if where.type == "cpu" else torch.cuda.get_device_name(where),
    }
    scores = {
        "epoch": fitted.epoch,
        "learning_rate": fitted.learning_rate,
        "train_loss": fitted.train_loss,
        "validation_loss": fitted.validation_loss,
        "seconds": round(seconds, 1),
        "validation": _scores(split.validation, judged["validation"], cell.stage),
        "test": _scores(split.test, judged["test"], cell.stage) if split.test else None,
    }
    making = out / f".making-{cell.name}"
    shutil.rmtree(making, ignore_errors=True)  # of a call that was killed while it wrote
    making.mkdir()
    try:
        written = save_weights(making / f"stage{cell.stage}.safetensors", [fitted.network], card)
        replace_text(
            making / "figures.json",
            json.dumps(scores | {"sha256": written["sha256"]}, indent=1, allow_nan=False) + "\n",
        )
        for file in making.iterdir():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        if (out / cell.name).exists():  # damaged, or another process finished it first
            shutil.rmtree(out / cell.name)
        making.rename(out / cell.name)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _scores(sequences: Sequence[LabelledSequence], judged: NDArray[np.float64], stage: int) -> dict[str, Any]:
    truth = targets(sequences, stage)
    counts = Counts.of(truth, (judged >= 0).astype(np.int64))
    return {
        "n": counts.n,
        "confusion": counts.confusion,
        "f1": counts.f1,
        "accuracy": counts.accuracy,
        "precision": counts.precision,
        "recall": counts.recall,
        "auc": auc(truth, judged),
    }
