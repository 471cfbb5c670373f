"""What forbids acting on a run's number without a second thought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_rbcflow.quality.monitor import warnings_of_run
from napari_rbcflow.quality.rules import FEW_CELLS
from napari_rbcflow.quality.rules import percent as percent


def grave_warnings(run: Mapping[str, Any]) -> list[str]:
    """Return, in plain sentences, what forbids acting on the number (`warnings_of_run`, the grave ones)."""
    return [w.sentence for w in warnings_of_run(run) if w.grave]


def too_few_words(n: int) -> str:
    """Say, of a number with changes by hand, that it is of too few cells to act on; empty where it is not."""
    if n >= FEW_CELLS:
        return ""
    return f"Only {n} {'cell' if n == 1 else 'cells'}: too few to act on, {FEW_CELLS} are needed at least."


def mild_warnings(run: Mapping[str, Any]) -> list[str]:
    """Return the other things that a person must be told of a run."""
    return [w.sentence for w in warnings_of_run(run) if not w.grave]
