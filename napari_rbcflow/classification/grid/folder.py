"""The folder of a grid: what it was begun with, the cells that are there, and their tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from napari_rbcflow.classification.grid.splits import Split
from napari_rbcflow.classification.grid.tables import as_markdown, as_text
from napari_rbcflow.classification.sampling import Sampling
from napari_rbcflow.classification.training import default_recipe
from napari_rbcflow.classification.training.fitting import Recipe
from napari_rbcflow.classification.training.model_card import count
from napari_rbcflow.errors import BadInput

PaperModel = Literal["cnn", "c-rnn"]
MODELS: tuple[PaperModel, ...] = get_args(PaperModel)
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
FRAMES = (10, 20, 30, 50)
Progress = Callable[[str], None]
_WRITING = ".writing-"
"""Before the name of a file that is not whole yet; one that a killed call left is written over."""


@dataclass(frozen=True, order=True)
class Cell:
    """One network of the grid."""

    stage: int
    model: PaperModel
    sampling: Sampling
    frames: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"stage{self.stage}-{self.model}-{self.sampling}-{self.frames}"

    @property
    def in_words(self) -> str:
        model = {"cnn": "CNN", "c-rnn": "C-RNN"}[self.model]
        return f"stage {self.stage}, {model}, {self.sampling} sampling, K = {self.frames}"

    def recipe(self, epochs: int) -> Recipe:
        """Return the paper's recipe for this cell."""
        return replace(default_recipe(self.stage, self.model, self.sampling, self.frames), epochs=epochs)


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
    if not isinstance(identity, dict) or {"epochs", "seed", "stages"} - set(identity):
        raise BadInput(f"{out / 'grid.json'} is not that of a grid; make another with rbcflow grid.")
    cells = []
    for stage in (1, 2):
        for model in MODELS:
            for sampling in SAMPLINGS:
                for k in FRAMES:
                    cell = Cell(stage, model, sampling, k)
                    if (scores := read_scores(out / cell.name)) is not None:
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
        replace_text(out / name, text)
    return tables


def identity_of(splits: Mapping[int, Split], epochs: int, seed: int) -> dict[str, Any]:
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


def begin(out: Path, identity: dict[str, Any]) -> None:
    """Make the folder, or see that it was begun with the same data and options.

    Raises
    ------
    BadInput
        Where it cannot be made, holds something else, or was begun with others.
    """
    file = out / "grid.json"
    if not out.exists() or (out.is_dir() and all(p.name.startswith(_WRITING) for p in out.iterdir())):
        try:
            out.mkdir(parents=True, exist_ok=True)
            replace_text(file, json.dumps(identity, indent=1) + "\n")
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
    replace_text(file, json.dumps(before, indent=1) + "\n")


def read_scores(folder: Path) -> dict[str, Any] | None:
    """Return the figures of a cell, or None where there are none to be read."""
    try:
        scores = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return scores if isinstance(scores, dict) and "validation" in scores else None


def is_whole(folder: Path, say: Progress) -> bool:
    """Return whether a cell is there, with the weights whose figures it tells."""
    if not folder.exists():
        return False
    scores = read_scores(folder)
    weights = list(folder.glob("*.safetensors"))
    if scores is not None and len(weights) == 1:
        found = hashlib.sha256(weights[0].read_bytes()).hexdigest()
        if found == scores.get("sha256"):
            return True
    say(f"{folder.name} is damaged: it is trained again")
    return False


def replace_text(path: Path, text: str) -> None:
    """Write a text file so that at every moment the old one or the new one is there."""
    writing = path.with_name(_WRITING + path.name)
    with writing.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)
