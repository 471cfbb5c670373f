"""A simulated chamber for runs in another process: few cells, which are rendered in a moment."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber


@dataclass(frozen=True)
class SmallChamber:
    """In a `Camera`'s place in a worker's order: half the field, a fifth of the different cells."""

    seed: int = 3
    seconds: float | None = None
    cells_per_frame: float = 60.0

    def make(self) -> SimulatedChamber:
        """Return the source, not yet open."""
        return SimulatedChamber(
            ChamberSettings(
                height=548,
                seed=self.seed,
                seconds=self.seconds,
                cells_per_frame=self.cells_per_frame,
                variety=0.2,
            )
        )
