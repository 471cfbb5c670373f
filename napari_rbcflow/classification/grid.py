"""The grid of Tables 3 and 4 of Darrin et al. (2023): two models, two samplings, four K, both stages.

Every cell of the grid is a folder of its own with weights, card and figures, made whole or not at all;
what is there already is not trained again, so that the same call goes on where the last one ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from napari_rbcflow.classification.fitting import Recipe, fit, logits, targets
from napari_rbcflow.classification.model_card import count, figures, make_card
from napari_rbcflow.classification.networks import n_parameters
from napari_rbcflow.classification.published import Sequence31
from napari_rbcflow.classification.sampling import Sampling
from napari_rbcflow.classification.scores import Counts, auc
from napari_rbcflow.classification.splits import Split, make_splits
from napari_rbcflow.classification.tables import as_markdown, as_text
from napari_rbcflow.classification.training import default_recipe
from napari_rbcflow.classification.two_stage import choose_device
from napari_rbcflow.classification.weight_files import save_weights
from napari_rbcflow.errors import BadInput

PaperModel = Literal["cnn", "c-rnn"]
MODELS: tuple[PaperModel, ...] = get_args(PaperModel)
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
FRAMES = (10, 20, 30, 50)
_COST = {"cnn": (40.0, 0.8), "c-rnn": (0.0, 22.0)}
"""Million multiplications a sequence: of itself, and for each of its K frames. Only for the time left."""
_EVERY_S = 10.0
Progress = Callable[[str], None]


@dataclass(frozen=True, order=True)
class Cell:
    """One network of the grid."""

    stage: int
    model: PaperModel
    sampling: Sampling
    frames: int

    @property
    def name(self) -> str:
        return f"stage{self.stage}-{self.model}-{self.sampling}-{self.frames}"

    @property
    def in_words(self) -> str:
        model = {"cnn": "CNN", "c-rnn": "C-RNN"}[self.model]
        return f"stage {self.stage}, {model}, {self.sampling} sampling, K = {self.frames}"

    def recipe(self, epochs: int) -> Recipe:
        """Return the paper's recipe for this cell."""
        return replace(default_recipe(self.stage, self.model, self.sampling, self.frames), epochs=epochs)


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
    """Train and score the cells of the grid that are not there yet, and lay all that are there into tables.

    Cells are taken cheapest first: a stage's CNNs, then its C-RNNs from small K upward. What narrows the
    grid (`stages`, `models`, `samplings`, `frames`) may differ from call to call; what a figure depends on
    (datasets, split, `epochs`, `seed`) may not.

    Parameters
    ----------
    datasets : sequence of Path
        As for `training.train`. A folder with ``train``, ``validation`` and ``test`` is taken as it is.
    out : Path
        A new folder, or that of an earlier call. Holds ``grid.json`` (what the figures depend on), a folder
        for each cell, and ``tables.txt``, ``tables.md``, ``tables.json``, renewed after each cell.
    stages, models, samplings, frames : sequence, optional
        Which cells to train.
    epochs, seed : int
    validation, test : sequence of str
        Patients, dates or acquisitions to hold back (`splits.make_splits`), where the data has no splits.
    device : {'auto', 'cpu', 'cuda'}
    progress : callable, optional
        Called with a sentence now and then.

    Returns
    -------
    dict
        What ``tables.json`` holds.

    Raises
    ------
    BadInput
        For data or options that cannot be used, or that are not those `out` was begun with.
    """
    say: Progress = progress or (lambda _: None)
    out, wanted = Path(out), _wanted(stages, models, samplings, frames)
    if epochs < 1:
        raise BadInput("At least one epoch is needed.")
    where = choose_device(device)
    splits = make_splits(datasets, sorted(set(stages)), validation, test)
    identity = _identity(splits, epochs, seed)
    _begin(out, identity)
    for stage in splits.values():
        for note in stage.notes:
            say(note)
    possible = [cell for cell in wanted if cell.frames <= splits[cell.stage].most_frames]
    todo = [cell for cell in possible if not _whole(out / cell.name, say)]
    if done := len(possible) - len(todo):
        say(f"{done} of {len(possible)} cells are there already")
    clock = _Clock(todo, splits, epochs, say)
    for cell in todo:
        clock.starts(cell)
        _train(cell, splits[cell.stage], out, epochs, seed, where, clock)
        clock.ended(cell)
        write_tables(out)
    return write_tables(out)


def write_tables(out: Path) -> dict[str, Any]:
    """Lay the cells that `out` holds into ``tables.txt``, ``tables.md`` and ``tables.json``; return the last.

    Raises
    ------
    BadInput
        Where `out` holds no grid.
    """
    out = Path(out)
    try:
        identity = json.loads((out / "grid.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadInput(f"{out} holds no grid; rbcflow grid DATASET... -o {out} makes one.") from None
    cells = []
    for stage in (1, 2):
        for model in MODELS:
            for sampling in SAMPLINGS:
                for k in FRAMES:
                    cell = Cell(stage, model, sampling, k)
                    if (scores := _read(out / cell.name)) is not None:
                        cells.append(asdict(cell) | scores)
    tables = {
        "epochs": identity["epochs"],
        "seed": identity["seed"],
        "stages": {name: stage["said"] for name, stage in identity["stages"].items()},
        "samplings": list(SAMPLINGS),
        "models": list(MODELS),
        "frames": list(FRAMES),
        "cells": cells,
    }
    for name, text in (
        ("tables.json", json.dumps(tables, indent=1, allow_nan=False) + "\n"),
        ("tables.md", as_markdown(tables) + "\n"),
        ("tables.txt", as_text(tables) + "\n"),
    ):
        _replace_text(out / name, text)
    return tables


def _wanted(
    stages: Sequence[int], models: Sequence[PaperModel], samplings: Sequence[Sampling], frames: Sequence[int]
) -> list[Cell]:
    for values, known, what in (
        (stages, (1, 2), "stage"),
        (models, MODELS, "model of the paper"),
        (samplings, SAMPLINGS, "sampling"),
        (frames, FRAMES, "K in the grid"),
    ):
        if not values:
            raise BadInput(f"Give at least one {what}.")
        for value in values:
            if value not in known:
                raise BadInput(f"There is no {what} {value}; choose from {', '.join(map(str, known))}.")
    cells = {Cell(s, m, p, k) for s in stages for m in models for p in samplings for k in frames}
    return sorted(cells, key=lambda c: (c.model == "c-rnn", c.frames, c.stage, c.sampling))


def _identity(splits: Mapping[int, Split], epochs: int, seed: int) -> dict[str, Any]:
    """Return all that the figures depend on, with a word for each that a person may read."""
    return {
        "epochs": epochs,
        "seed": seed,
        "stages": {
            f"stage{number}": {
                "data": _hash(split),
                "recipes": {
                    model: Cell(number, model, "uniform", 10).recipe(epochs).as_dict() for model in MODELS
                },
                "said": {
                    "train": count(split.train),
                    "validation": count(split.validation),
                    "test": count(split.test),
                    "split": split.said,
                    "most_frames": split.most_frames,
                    "notes": list(split.notes),
                },
            }
            for number, split in splits.items()
        },
    }


def _hash(split: Split) -> str:
    digest = hashlib.sha256()
    for name, part in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        digest.update(name.encode())
        for sequence in part:
            digest.update(f"{sequence.name},{sequence.label},{sequence.crops.shape}".encode())
            digest.update(np.ascontiguousarray(sequence.crops).tobytes())
    return digest.hexdigest()


def _begin(out: Path, identity: dict[str, Any]) -> None:
    """Make the folder, or see that it was begun with the same data and options."""
    file = out / "grid.json"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        try:
            out.mkdir(parents=True, exist_ok=True)
            _replace_text(file, json.dumps(identity, indent=1) + "\n")
        except OSError as error:
            raise BadInput(f"The folder {out} cannot be made ({error.strerror}); give another.") from None
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        for key, what in (("epochs", "epochs"), ("seed", "the seed")):
            if before[key] != identity[key]:
                raise BadInput(
                    f"The grid in {out} was begun with {what} {before[key]}, not {identity[key]}; "
                    "give the same, or another folder."
                )
        for name, stage in identity["stages"].items():
            known = before["stages"].setdefault(name, stage)
            for key, what in (
                ("data", "other data or another split"),
                ("recipes", "another version's recipes"),
            ):
                if known[key] != stage[key]:
                    raise BadInput(
                        f"The {name} of the grid in {out} was begun with {what}; "
                        "give the same datasets and options, or another folder."
                    )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(
            f"{out} exists already and holds no grid to go on with; give another folder."
        ) from None
    _replace_text(file, json.dumps(before, indent=1) + "\n")
    for left in out.glob(".making-*"):  # of a call that was killed while it wrote
        shutil.rmtree(left, ignore_errors=True)


def _train(
    cell: Cell, split: Split, out: Path, epochs: int, seed: int, where: torch.device, clock: _Clock
) -> None:
    recipe = cell.recipe(epochs)
    started = time.monotonic()
    fitted = fit(split.train, split.validation, recipe, seed, where, clock.epoch)
    seconds = time.monotonic() - started
    judged: dict[str, NDArray[np.float64]] = {
        name: logits(fitted.network, part, recipe)
        for name, part in (("validation", split.validation), ("test", split.test))
        if part
    }
    card = make_card(
        recipe, split.validation, judged["validation"], judged["validation"][None], [seed], split.said
    )
    card |= {
        "name": f"darrin-2023-{cell.name}",
        "slope": 1.0,
        "offset": 0.0,
        "threshold": 0.5,
        "threshold_rule": "the likelier class, not calibrated, as in the paper",
        "figures": {
            f"{name} ({'chose the epoch' if name == 'validation' else 'chose nothing'})": figures(
                recipe, part, judged[name], judged[name][None], 1.0, 0.0, 0.5
            )
            for name, part in (("validation", split.validation), ("test", split.test))
            if part
        },
        "parameters": n_parameters(fitted.network),
        "trained_on": count(split.train),
        "acquisitions": sorted({s.acquisition for s in split.train}),
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
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=out))
    try:
        written = save_weights(making / f"stage{cell.stage}.safetensors", [fitted.network], card)
        _replace_text(
            making / "figures.json", json.dumps(scores | {"sha256": written["sha256"]}, indent=1) + "\n"
        )
        for file in making.iterdir():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        if (out / cell.name).exists():  # damaged, or another process was faster
            shutil.rmtree(out / cell.name)
        making.chmod(0o755)
        making.rename(out / cell.name)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _scores(sequences: Sequence[Sequence31], judged: NDArray[np.float64], stage: int) -> dict[str, Any]:
    truth = targets(sequences, 1 if stage == 1 else 2)
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


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        scores = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return scores if isinstance(scores, dict) and "validation" in scores else None


def _whole(folder: Path, say: Progress) -> bool:
    """Return whether a cell is there, with the weights whose figures it tells."""
    if not folder.exists():
        return False
    scores = _read(folder)
    weights = list(folder.glob("*.safetensors"))
    if scores is not None and len(weights) == 1:
        found = hashlib.sha256(weights[0].read_bytes()).hexdigest()
        if found == scores.get("sha256"):
            return True
    say(f"{folder.name} is damaged: it is trained again")
    return False


def _replace_text(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=".writing-", delete=False
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


class _Clock:
    """Says where the grid is and how long it may still take, from what its cells took so far."""

    def __init__(self, todo: Sequence[Cell], splits: Mapping[int, Split], epochs: int, say: Progress) -> None:
        self._todo, self._splits, self._epochs, self._say = list(todo), splits, epochs, say
        self._at, self._started, self._said = 0, 0.0, 0.0
        self._pace: dict[str, float] = {}

    def starts(self, cell: Cell) -> None:
        self._started = self._said = time.monotonic()
        self._say(f"cell {self._at + 1} of {len(self._todo)}: {cell.in_words}{self._left(0.0)}")

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        now = time.monotonic()
        share = epoch / epochs
        cell = self._todo[self._at]
        self._pace[cell.model] = (now - self._started) / (share * self._cost(cell))
        if now - self._said >= _EVERY_S:
            self._said = now
            self._say(f"  epoch {epoch} of {epochs}, loss {loss:.4f}{self._left(share)}")

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
            return f"; about {seconds:.0f} s left"
        return (
            f"; about {seconds / 60:.0f} min left"
            if seconds < 5400
            else f"; about {seconds / 3600:.1f} h left"
        )
