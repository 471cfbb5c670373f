"""How fast this machine does the work, part by part and as a whole, and what memory it takes.

`suite.benchmark` measures and returns everything; `report.as_text` writes it for a person. What counts as a
frame's time is 1 / 60 s, whatever is measured. Every figure is taken in a process of its own (`child`),
so that neither a progress bar nor an earlier part's memory counts.
"""

from __future__ import annotations

from napari_rbcflow.benchmark.child import Effort
from napari_rbcflow.benchmark.report import as_text
from napari_rbcflow.benchmark.suite import benchmark

__all__ = ["Effort", "as_text", "benchmark"]
