"""The counts that ``run.json`` holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.reported import ANYTIME, Said

CELL_COUNTS = ("tracked", "too_short", "unreliable", "tank_treading", "flipping", "uncounted")
"""`tracked` is every finished track, a row of ``cells.csv`` each; the others add up to it."""
NOT_CORRECTED = "none"


@dataclass(frozen=True)
class FractionFigure:
    """A fraction with its interval.

    Attributes
    ----------
    estimate, low, high : float or None
        In [0, 1]; None where nothing was counted.
    level : float
        Confidence level of the interval.
    method : str
        Which interval: ``wilson``, ``fixed-width``, ``anytime``, ... (`estimate.said`); ``none`` where there
        is none.
    n : int
        Cells counted.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    n: int

    @classmethod
    def of(
        cls,
        fraction: RunningFraction,
        interval: tuple[float, float] | None = None,
        method: str = "wilson",
    ) -> FractionFigure:
        """Take the figure from the running fraction.

        Parameters
        ----------
        fraction : RunningFraction
        interval : (float, float), optional
            Default: Wilson's.
        method : str
            The name of `interval`.
        """
        if not fraction.n:
            return cls(None, None, None, fraction.level, method, 0)
        low, high = fraction.interval() if interval is None else interval
        return cls(fraction.estimate, low, high, fraction.level, method, fraction.n)

    @classmethod
    def saying(cls, fraction: RunningFraction, said: Said) -> FractionFigure:
        """Take the figure from the running fraction, with the interval that belongs to how the run stands."""
        return cls.of(fraction, said.interval, said.method)


@dataclass(frozen=True)
class Account:
    """How a run stands: every frame and every cell accounted for.

    Attributes
    ----------
    received, processed : int
        Frames; ``received = processed + sum(dropped)`` once the run has ended.
    dropped, missed : mapping of str to int
        Frames by reason: lost by us, and never having reached us.
    cells : mapping of str to int
        `CELL_COUNTS`.
    fraction, fraction_corrected : FractionFigure
    latency_ms : mapping of str to (float or None)
        ``p50``, ``p95``, ``p99``: from a finished track's hand-over to its label.
    warnings : tuple of str
        Plain sentences, for a person.
    quality : mapping
        Further numbers about the run's quality, by a name that carries its unit.
    focus_speed : mapping
        What the speed of the cells in focus said (`FocusSpeed.as_dict`), and how many cells were set aside.
    """

    received: int = 0
    processed: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    fraction: FractionFigure = FractionFigure(None, None, None, 0.95, ANYTIME, 0)
    fraction_corrected: FractionFigure = FractionFigure(None, None, None, 0.95, NOT_CORRECTED, 0)
    latency_ms: Mapping[str, float | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)
    focus_speed: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        received: int,
        processed: int,
        dropped: Mapping[str, int],
        missed: Mapping[str, int],
        cells: Mapping[str, int],
        fraction: RunningFraction | FractionFigure,
        latencies_ms: Sequence[float] = (),
        warnings: Sequence[str] = (),
        fraction_corrected: FractionFigure | None = None,
        quality: Mapping[str, Any] | None = None,
        focus_speed: Mapping[str, Any] | None = None,
    ) -> Account:
        """Make an account from what a run counts.

        Parameters
        ----------
        received, processed, dropped, missed, cells, warnings, fraction_corrected, quality, focus_speed
            As the attributes; counts that are not given are 0.
        fraction : RunningFraction or FractionFigure
            With the former, the interval is Wilson's: for a number of cells that was fixed beforehand.
        latencies_ms : sequence of float
            One for each label, warm-up left out.
        """
        figure = fraction if isinstance(fraction, FractionFigure) else FractionFigure.of(fraction)
        latencies = np.asarray(list(latencies_ms), dtype=np.float64)
        levels = np.percentile(latencies, (50, 95, 99)) if len(latencies) else (None, None, None)
        return cls(
            received=int(received),
            processed=int(processed),
            dropped={str(k): int(v) for k, v in dropped.items()},
            missed={str(k): int(v) for k, v in missed.items()},
            cells={name: int(cells.get(name, 0)) for name in CELL_COUNTS},
            fraction=figure,
            fraction_corrected=fraction_corrected
            or FractionFigure(None, None, None, figure.level, NOT_CORRECTED, 0),
            latency_ms={
                name: None if value is None else round(float(value), 3)
                for name, value in zip(("p50", "p95", "p99"), levels, strict=True)
            },
            warnings=tuple(str(w) for w in warnings),
            quality=dict(quality or {}),
            focus_speed=dict(focus_speed or {}),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the part of ``run.json`` that this is; what is not a finite number is None."""
        return {
            "frames": {
                "received": self.received,
                "processed": self.processed,
                "dropped": dict(self.dropped),
                "missed": dict(self.missed),
            },
            "cells": {name: self.cells.get(name, 0) for name in CELL_COUNTS},
            "fraction": plain(asdict(self.fraction)),
            "fraction_corrected": plain(asdict(self.fraction_corrected)),
            "latency_ms": {name: plain(self.latency_ms.get(name)) for name in ("p50", "p95", "p99")},
            "warnings": list(self.warnings),
            "quality": plain(dict(self.quality)),
            "focus_speed": plain(dict(self.focus_speed)),
        }


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: numpy numbers as Python's, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
