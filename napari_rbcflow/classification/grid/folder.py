"""The folder of a grid: what it was begun with, its cells, and their tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from napari_rbcflow.classification.grid.splits import Split
from napari_rbcflow.classification.sampling import Sampling
from napari_rbcflow.classification.training import default_recipe
from napari_rbcflow.classification.training.fitting import Recipe
from napari_rbcflow.classification.training.model_card import count_labels
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

METRICS = ("f1", "accuracy", "precision", "recall")
_Row = tuple[str, str, list[str]]  # the score's name, K, and a cell for each model and sampling


def as_text(tables: Mapping[str, Any]) -> str:
    """Return what `write_tables` returned for a terminal; the best of each score has a star."""
    return _formatted(tables, "*{}", _text, "")


def as_markdown(tables: Mapping[str, Any]) -> str:
    """Return what `write_tables` returned in Markdown; the best of each score is bold."""
    return _formatted(tables, "**{}**", _markdown, "- ")


def _formatted(
    tables: Mapping[str, Any],
    best: str,
    table: Callable[[Mapping[str, Any], str, list[_Row]], list[str]],
    bullet: str,
) -> str:
    blocks = []
    for stage in sorted({int(cell["stage"]) for cell in tables["cells"]}):
        for of in ("validation", "test"):
            if rows := _rows(tables, stage, of, best):
                counts = _counts(tables["stages"][f"stage{stage}"][of])
                title = say(f"classification.grid-title-stage{stage}-{of}", counts=counts)
                blocks.append(table(tables, title, rows))
        blocks.append([bullet + line for line in _remarks(tables, stage)])
    return "\n\n".join("\n".join(block) for block in blocks) or say("classification.grid-empty")


def _text(tables: Mapping[str, Any], title: str, rows: list[_Row]) -> list[str]:
    models = "".join(f"{_column(m):>18s}" for m in tables["models"])
    samplings = "".join(f"{_column(s):>9s}" for _ in tables["models"] for s in tables["samplings"])
    heads = [f"{'':10s} {'':>3s}{models}", f"{'':10s} {'K':>3s}{samplings}"]
    return [
        title,
        *heads,
        *(f"{name:10s} {k:>3s}" + "".join(f"{v:>9s}" for v in row) for name, k, row in rows),
    ]


def _markdown(tables: Mapping[str, Any], title: str, rows: list[_Row]) -> list[str]:
    heads = [f"{_column(m)}, {_column(s)}" for m in tables["models"] for s in tables["samplings"]]
    lines = [f"**{title}**", "", f"| | K | {' | '.join(heads)} |", "|---|---|" + "---|" * len(heads)]
    return lines + [f"| {name} | {k} | " + " | ".join(row) + " |" for name, k, row in rows]


def _column(name: str) -> str:
    return say(f"classification.grid-column-{name}")


def _score_name(key: str) -> str:
    return say(f"classification.grid-score-{key}")


def _counts(of_labels: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {label}" for label, number in of_labels.items() if number)


def _rows(tables: Mapping[str, Any], stage: int, of: str, best_as: str) -> list[_Row]:
    found = {
        (c["model"], c["sampling"], c["frames"]): c[of]
        for c in tables["cells"]
        if c["stage"] == stage and c[of] is not None
    }
    if not found:
        return []
    columns = [(m, s) for m in tables["models"] for s in tables["samplings"]]
    rows: list[_Row] = []
    for key in METRICS:
        values = {at: scores[key] for at, scores in found.items() if scores[key] is not None}
        best = f"{max(values.values()):.2f}" if values else ""
        for k in tables["frames"]:
            shown = [_two_decimals(values.get((m, s, k))) for m, s in columns]
            rows.append((_score_name(key), str(k), [best_as.format(v) if v == best else v for v in shown]))
    return rows


def _remarks(tables: Mapping[str, Any], stage: int) -> list[str]:
    """Say what was held back, what a dash means, and how the chosen cell scores on the test set."""
    of = tables["stages"][f"stage{stage}"]
    run = {"epochs": tables["epochs"], "seed": tables["seed"], "split": of["split"]}
    lines = [say("classification.grid-trained-on", stage=stage, counts=_counts(of["train"]), **run)]
    lines += of["notes"]
    cells = [c for c in tables["cells"] if c["stage"] == stage]
    size = len(tables["models"]) * len(tables["samplings"])
    missing = size * sum(k <= of["most_frames"] for k in tables["frames"]) - len(cells)
    if missing:
        lines.append(say("classification.grid-cells-missing", cells=missing))
    scored = [c for c in cells if c["validation"]["f1"] is not None]
    chosen = max(scored, key=lambda c: float(c["validation"]["f1"]), default=None)
    if chosen is not None:
        name = cell_name(chosen["model"], chosen["sampling"], chosen["frames"])
        lines.append(say("classification.grid-best", cell=name))
        if (test := chosen["test"]) is not None:
            scores = ", ".join(f"{_score_name(key)} {_two_decimals(test[key])}" for key in METRICS)
            confusion = test["confusion"]
            lines.append(say("classification.grid-best-on-test", scores=scores, confusion=confusion))
    return lines


def cell_name(model: str, sampling: str, frames: int) -> str:
    name = say(f"classification.grid-model-{model}")
    return say("classification.grid-cell", model=name, sampling=sampling, frames=frames)


def _two_decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


PaperModel = Literal["cnn", "c-rnn"]
MODELS: tuple[PaperModel, ...] = get_args(PaperModel)
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
FRAMES = (10, 20, 30, 50)
Progress = Callable[[str], None]
_WRITING = ".writing-"  # prefix of an unfinished file; one that a killed call left is overwritten


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

    def recipe(self, epochs: int) -> Recipe:
        """Return the paper's recipe for this cell."""
        return replace(default_recipe(self.stage, self.model, self.sampling, self.frames), epochs=epochs)


def write_tables(out: Path) -> dict[str, Any]:
    """Write ``tables.txt``, ``tables.md`` and ``tables.json`` of a grid's folder; return the last."""
    out = Path(out)
    try:
        identity = json.loads((out / "grid.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadInput("classification.grid-missing", folder=out) from None
    if not isinstance(identity, dict) or {"epochs", "seed", "stages"} - set(identity):
        raise BadInput("classification.grid-file-damaged", file=out / "grid.json")
    cells = []
    for stage, model, sampling, k in product((1, 2), MODELS, SAMPLINGS, FRAMES):
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
    """Return everything that the scores depend on, with a description for people."""
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
                    "split": split.description,
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
    """Create the folder, or check that it was begun with the same data and options."""
    file = out / "grid.json"
    if not out.exists() or (out.is_dir() and all(p.name.startswith(_WRITING) for p in out.iterdir())):
        try:
            out.mkdir(parents=True, exist_ok=True)
            replace_text(file, json.dumps(identity, indent=1) + "\n")
        except OSError as error:
            why = error.strerror
            raise BadInput("classification.folder-cannot-be-made", folder=str(out), why=why) from None
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        for key in ("epochs", "seed"):
            was, now = before[key], identity[key]
            if was != now:
                raise BadInput(f"classification.grid-other-{key}", folder=out, before=was, now=now)
        for name, stage in identity["stages"].items():
            known = before["stages"].setdefault(name, stage)
            for key in ("data", "recipes"):
                if known[key] != stage[key]:
                    raise BadInput(f"classification.grid-other-{key}", folder=out, stage=name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput("classification.grid-not-a-grid", folder=out) from None
    replace_text(file, json.dumps(before, indent=1) + "\n")


def read_scores(folder: Path) -> dict[str, Any] | None:
    """Return the scores of a cell, or None if they cannot be read."""
    try:
        scores = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return scores if isinstance(scores, dict) and "validation" in scores else None


def is_whole(folder: Path, progress: Progress) -> bool:
    """Return whether a cell is there, with the weights that its scores are of; report a damaged one."""
    if not folder.exists():
        return False
    scores = read_scores(folder)
    weights = list(folder.glob("*.safetensors"))
    if scores is not None and len(weights) == 1:
        found = hashlib.sha256(weights[0].read_bytes()).hexdigest()
        if found == scores.get("sha256"):
            return True
    progress(say("classification.grid-cell-damaged", cell=folder.name))
    return False


def replace_text(path: Path, text: str) -> None:
    """Write a text file so that at every moment the old or the new one is there."""
    writing = path.with_name(_WRITING + path.name)
    with writing.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)
