"""Tables 3 and 4 of Darrin et al. (2023), in the paper's own columns, for whatever data was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
