"""A measured figure, beside real time, its aim and its physical floor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_rbcflow.types import DEFAULT_FPS

FRAME_MS = 1e3 / DEFAULT_FPS
"""What a frame may take where frames come at 60 a second."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What a step cannot do without.

    Attributes
    ----------
    bytes : float
        That must be read and written a frame.
    operations : float
        Floating-point, a frame.
    """

    bytes: float
    operations: float = 0.0

    def __add__(self, other: Floor) -> Floor:
        return Floor(self.bytes + other.bytes, self.operations + other.operations)

    def times(self, factor: float) -> Floor:
        """Return `factor` times as much."""
        return Floor(factor * self.bytes, factor * self.operations)

    def ms(self, gb_per_s: float, gflop_per_s: float) -> float:
        """Time that one core takes for it at the rates measured here; they do not overlap in ours."""
        return 1e3 * (self.bytes / (1e9 * gb_per_s) + self.operations / (1e9 * gflop_per_s))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes
    ----------
    name : str
        What was measured, for a person.
    ms : float
        Milliseconds a frame.
    clock : {"cpu", "wall"}
        CPU time of all threads together, or time by the clock.
    aim_ms : float or None
        What the project set itself, on a two-core machine.
    floor : Floor or None
    note : str
        What else is to be known.
    """

    name: str
    ms: float
    clock: Literal["cpu", "wall"] = "cpu"
    aim_ms: float | None = None
    floor: Floor | None = None
    note: str = ""

    def record(self, gb_per_s: float, gflop_per_s: float) -> dict[str, Any]:
        """Return the figure as JSON has it; ratios are of unrounded milliseconds."""
        floor_ms = None if self.floor is None else self.floor.ms(gb_per_s, gflop_per_s)
        return {
            "name": self.name,
            "ms_per_frame": self.ms,
            "clock": self.clock,
            "share_of_frame": self.ms / FRAME_MS,
            "ratio_to_real_time": FRAME_MS / self.ms,
            "aim_ms": self.aim_ms,
            "aim_met": None if self.aim_ms is None else self.ms <= self.aim_ms,
            "floor": None if self.floor is None else asdict(self.floor),
            "floor_ms": floor_ms,
            "times_floor": self.ms / floor_ms if floor_ms else None,
            "note": self.note,
        }
