"""The folder of a grid: what it was begun with, the cells that are there, and their tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from napari_rbcflow.classification.grid.splits import Split
from napari_rbcflow.classification.sampling import Sampling
from napari_rbcflow.classification.training import default_recipe
from napari_rbcflow.classification.training.fitting import Recipe
from napari_rbcflow.classification.training.model_card import count_labels
from napari_rbcflow.errors import BadInput

METRICS = (("f1", "F1-score"), ("accuracy", "Accuracy"), ("precision", "Precision"), ("recall", "Recall"))
_MODELS = {"cnn": "A: CNN", "c-rnn": "B: C-RNN"}
_SAMPLINGS = {"uniform": "uni.", "similarity": "sim."}
_STAGES = {
    1: ("Table 3. Stage 1", "reliable"),
    2: ("Table 4. Stage 2", "flipping"),
}
_SETS = {
    "validation": "on the validation set, which chose the epoch",
    "test": "on the test set, which chose nothing",
}
DASH = "-"

Row = tuple[str, str, list[str]]


def as_text(tables: Mapping[str, Any]) -> str:
    """Return the grid's tables for a terminal; the best of each metric has a star.

    Parameters
    ----------
    tables : mapping
        What `grid.write_tables` returns.
    """
    parts = []
    for stage in _stages(tables):
        for of in _SETS:
            rows = _rows(tables, stage, of, "*{}")
            if not rows:
                continue
            lines = [_title(tables, stage, of)]
            lines.append(f"{'':10s} {'':>3s}" + "".join(f"{_MODELS[m]:>18s}" for m in tables["models"]))
            lines.append(
                f"{'':10s} {'K':>3s}"
                + "".join(f"{_SAMPLINGS[s]:>9s}" for _ in tables["models"] for s in tables["samplings"])
            )
            lines += [f"{metric:10s} {k:>3s}" + "".join(f"{v:>9s}" for v in row) for metric, k, row in rows]
            parts.append("\n".join(lines))
        parts.append("\n".join(_below(tables, stage)))
    return "\n\n".join(parts) or "No cell of the grid is there yet."


def as_markdown(tables: Mapping[str, Any]) -> str:
    """Return the same in Markdown; the best of each metric is bold."""
    parts = []
    for stage in _stages(tables):
        for of in _SETS:
            rows = _rows(tables, stage, of, "**{}**")
            if not rows:
                continue
            heads = [f"{_MODELS[m]}, {_SAMPLINGS[s]}" for m in tables["models"] for s in tables["samplings"]]
            lines = [f"**{_title(tables, stage, of)}**", ""]
            lines.append("| | K | " + " | ".join(heads) + " |")
            lines.append("|---|---|" + "---|" * len(heads))
            lines += [f"| {metric} | {k} | " + " | ".join(row) + " |" for metric, k, row in rows]
            parts.append("\n".join(lines))
        parts.append("\n".join(f"- {line}" for line in _below(tables, stage)))
    return "\n\n".join(parts) or "No cell of the grid is there yet."


def _stages(tables: Mapping[str, Any]) -> list[int]:
    return sorted({int(cell["stage"]) for cell in tables["cells"]})


def _title(tables: Mapping[str, Any], stage: int, of: str) -> str:
    name, positive = _STAGES[stage]
    n = tables["stages"][f"stage{stage}"][of]
    counts = ", ".join(f"{number} {label}" for label, number in n.items() if number)
    return f"{name} {_SETS[of]} ({counts}); positive class: {positive}"


def _rows(tables: Mapping[str, Any], stage: int, of: str, best_as: str) -> list[Row]:
    found = {
        (c["model"], c["sampling"], c["frames"]): c[of]
        for c in tables["cells"]
        if c["stage"] == stage and c[of] is not None
    }
    if not found:
        return []
    columns = [(m, s) for m in tables["models"] for s in tables["samplings"]]
    rows: list[Row] = []
    for key, metric in METRICS:
        values = {at: scores[key] for at, scores in found.items() if scores[key] is not None}
        best = f"{max(values.values()):.2f}" if values else ""
        for k in tables["frames"]:
            shown = [f"{values[m, s, k]:.2f}" if (m, s, k) in values else DASH for m, s in columns]
            rows.append((metric, str(k), [best_as.format(v) if v == best else v for v in shown]))
    return rows


def _below(tables: Mapping[str, Any], stage: int) -> list[str]:
    """Say what was held back, what a dash means, and how the chosen cell does on the test set."""
    said = tables["stages"][f"stage{stage}"]
    trained = ", ".join(f"{number} {label}" for label, number in said["train"].items() if number)
    lines = [
        f"Stage {stage} trained on {trained}, {tables['epochs']} epochs, seed {tables['seed']}; "
        f"{said['split']}."
    ]
    lines += [f"{note[:1].upper()}{note[1:]}." for note in said["notes"]]
    cells = [c for c in tables["cells"] if c["stage"] == stage]
    size = len(tables["models"]) * len(tables["samplings"])
    lacking = size * sum(k <= said["most_frames"] for k in tables["frames"]) - len(cells)
    if lacking:
        lines.append(f"{lacking} cells of the grid are not there yet: a dash.")
    chosen = _chosen(cells)
    if chosen is not None:
        name = f"{_MODELS[chosen['model']][3:]}, {chosen['sampling']} sampling, K = {chosen['frames']}"
        lines.append(f"Best F1-score on the validation set: {name}.")
        if chosen["test"] is not None:
            scores = ", ".join(f"{metric} {_two(chosen['test'][key])}" for key, metric in METRICS)
            lines.append(f"Its test set: {scores}, confusion (rows true) {chosen['test']['confusion']}.")
    return lines


def _chosen(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    scored = [c for c in cells if c["validation"]["f1"] is not None]
    return max(scored, key=lambda c: float(c["validation"]["f1"]), default=None)


def _two(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


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
                    model: asdict(Cell(number, model, "uniform", 10).recipe(epochs)) for model in MODELS
                },
                "said": {
                    "train": count_labels(split.train),
                    "validation": count_labels(split.validation),
                    "test": count_labels(split.test),
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
