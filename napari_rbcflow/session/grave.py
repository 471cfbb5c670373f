"""What forbids acting on a run's number without a second thought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_rbcflow.quality.limits import FEW_CELLS as FEW_CELLS
from napari_rbcflow.quality.limits import LOST as GRAVE_LOSS  # noqa: F401
from napari_rbcflow.quality.of_run import warnings_of_run
from napari_rbcflow.quality.rules import percent as percent


def grave_warnings(run: Mapping[str, Any]) -> list[str]:
    """Return, in plain sentences, what forbids acting on the number (`warnings_of_run`, the grave ones)."""
    return [w.sentence for w in warnings_of_run(run) if w.grave]


def mild_warnings(run: Mapping[str, Any]) -> list[str]:
    """Return the other things that a person must be told of a run."""
    return [w.sentence for w in warnings_of_run(run) if not w.grave]
