"""A flow chamber that is simulated from the physics up: the only source of whole fields with truth.

How a cell becomes grey: `motion` (where its axis points) -> `shape` (how thick it is along the line of
sight) -> `optics` (what the camera sees of that) -> `library` (a few hundred cells rendered beforehand)
-> `population` (who flows by when) -> `canvas` (the frame) -> `source` and `simulate`.
"""

from __future__ import annotations

from napari_rbcflow.simulation.chamber import SimulatedChamber, simulate_movie
from napari_rbcflow.simulation.optics import Optics
from napari_rbcflow.simulation.population import TruthSummary
from napari_rbcflow.simulation.sequences import (
    Passage,
    SimulatedSequence,
    simulate_passages,
    simulate_sequences,
)
from napari_rbcflow.simulation.settings import ChamberSettings

__all__ = [
    "ChamberSettings",
    "Optics",
    "Passage",
    "SimulatedChamber",
    "SimulatedSequence",
    "TruthSummary",
    "simulate_movie",
    "simulate_passages",
    "simulate_sequences",
]
