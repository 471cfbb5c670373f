"""Which cells there are: how large, how full, how they lie and turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.sources.chamber.motion import (
    FLIPS_SHOW_FROM_ORBIT,
    Motion,
    jeffery_frame,
    jeffery_period_s,
    swinging_axis,
)
from napari_rbcflow.sources.chamber.settings import ChamberSettings
from napari_rbcflow.sources.chamber.shape import CellShape

TANK_TREADING, FLIPPING, NOT_JUDGEABLE = 0, 1, 2
"""Labels of the truth, as in the published data."""
_STEEPEST_DEG = 45.0


@dataclass(frozen=True)
class Cell:
    """One cell at its height.

    Attributes
    ----------
    motion : Motion
    shape : CellShape
    content : float
        Haemoglobin relative to the mean cell.
    z_um, defocus_um : float
        Height over the wall, and over the plane in focus.
    label : int
        What an expert would call it: 0 tank-treading, 1 flipping, 2 neither can be told.
    cycle_s : float
        Time after which its picture repeats.
    aspect_ratio, orbit : float
        Of the Jeffery orbit (`jeffery_axis`); of a tank-treading cell: inclination and swing, radians.
    side : float
        +1 or -1: on which side of the plane of shear the axis leans.
    lean : float
        How far a tank-treading cell leans out of the plane of shear, radians.
    roll : float
        Where its length lies in the disc, radians: from the flow in a tank-treading cell.
    """

    motion: Motion
    shape: CellShape
    content: float
    z_um: float
    defocus_um: float
    label: int
    cycle_s: float
    aspect_ratio: float
    orbit: float
    side: float
    lean: float = 0.0
    roll: float = 0.0

    def axes(self, phases: NDArray[np.float64]) -> NDArray[np.float64]:
        """Axis at phases (0 to 1) of the cycle after which the picture repeats, shape (n, 3)."""
        return self.frames(phases)[0]

    def frames(self, phases: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Axis and length, each (n, 3), at phases of the cycle."""
        if self.motion in (Motion.TANK_TREADING, Motion.DEBRIS):
            axes = swinging_axis(phases, self.aspect_ratio, self.orbit, self.lean)
            axes[:, 1] *= self.side
            # The length is the direction in the disc that lies nearest the flow, not one of the membrane.
            long = np.array([1.0, 0.0, 0.0]) - axes[:, :1] * axes
            long /= np.linalg.norm(long, axis=1, keepdims=True)
        else:
            axes, long = jeffery_frame(phases, self.aspect_ratio, self.orbit, self.side)
        return axes, np.cos(self.roll) * long + np.sin(self.roll) * np.cross(axes, long)


def draw_cell(motion: Motion, z_um: float, settings: ChamberSettings, rng: np.random.Generator) -> Cell:
    """Draw a cell of a given motion at a given height.

    Returns
    -------
    Cell
    """
    defocus = z_um - settings.focus_um
    shear = settings.local_shear_per_s(z_um)
    # Sizes, contents and inclinations are those that fit the published cells of one test day
    # (docs/decisions/chamber.md); the other day and the other patients were not looked at for it.
    content = float(np.clip(rng.normal(1.05, 0.16), 0.6, 1.5))
    lean, roll = 0.0, 0.0
    if motion is Motion.TANK_TREADING:
        shape = _soft(rng)
        roll = float(rng.normal(0.0, 0.4))
        content *= 1.12
        inclination, swing = rng.normal(27.0, 14.0), rng.uniform(1.0, 9.0)
        # Shear turns every disc back from 45 degrees, the direction in which it stretches: no cell that
        # tank-treads stands steeper (Keller and Skalak 1982; docs/decisions/demo-bias.md).
        ratio = float(np.deg2rad(np.clip(inclination, 3.0, _STEEPEST_DEG - swing)))
        orbit = float(np.deg2rad(swing))
        lean = float(np.deg2rad(abs(rng.normal(0.0, 10.0))))
        # The membrane goes round in about 2 x 2 pi / shear rate and the cell swings twice in that.
        cycle = 2.0 * np.pi / shear
    elif motion is Motion.DEBRIS:
        diameter = float(rng.uniform(2.0, 5.0))
        shape = CellShape(diameter, diameter * float(rng.uniform(0.6, 1.0)), 0.0)
        ratio, orbit, cycle = float(rng.uniform(0.0, 0.6)), 0.0, 1.0
    else:
        shape = _stiff(rng)
        content = float(
            np.clip(np.exp(rng.normal(np.log(1.02 * (2.7 / shape.thickness_um) ** 0.7), 0.2)), 0.5, 2.0)
        )
        ratio = shape.thickness_um / shape.diameter_um
        roll = float(rng.uniform(0.0, 2.0 * np.pi))
        if motion is Motion.TUMBLING:
            orbit = float(np.clip(np.exp(rng.normal(np.log(2.5), 0.9)), FLIPS_SHOW_FROM_ORBIT, 30.0))
        else:
            orbit = float(rng.uniform(0.0, 0.3))
        cycle = jeffery_period_s(ratio, shear)
    sharp = settings.sharp_from_um <= defocus <= settings.sharp_to_um
    label = {Motion.TANK_TREADING: TANK_TREADING, Motion.TUMBLING: FLIPPING}.get(motion, NOT_JUDGEABLE)
    return Cell(
        motion=motion,
        shape=shape,
        content=content,
        z_um=z_um,
        defocus_um=defocus,
        label=label if sharp else NOT_JUDGEABLE,
        cycle_s=cycle,
        aspect_ratio=ratio,
        orbit=orbit,
        side=float(rng.choice([-1.0, 1.0])),
        lean=lean,
        roll=roll,
    )


def _around_zero(spread: float, rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(0.0, spread), -2.5 * spread, 2.5 * spread))


def _soft(rng: np.random.Generator) -> CellShape:
    """A cell whose membrane goes round: a disc, a little uneven, oval in any direction."""
    return CellShape(
        diameter_um=float(np.clip(rng.normal(6.5, 0.55), 5.2, 8.0)),
        thickness_um=float(np.clip(rng.normal(2.4, 0.25), 1.8, 3.0)),
        dimple=float(rng.uniform(0.1, 0.9)),
        stretch=float(np.clip(rng.normal(1.0, 0.15), 0.72, 1.6)),
        skew_long=_around_zero(0.08, rng),
        skew_wide=_around_zero(0.08, rng),
        dimple_below=float(rng.uniform(0.1, 0.9)),
    )


def _stiff(rng: np.random.Generator) -> CellShape:
    """A cell that turns rigidly: thicker, dented on one side or both, cupped, long, with corners."""
    thickness = float(rng.uniform(1.8, 4.6))
    return CellShape(
        diameter_um=float(np.clip(rng.normal(6.2 - 0.45 * (thickness - 2.4), 0.6), 4.4, 8.0)),
        thickness_um=thickness,
        dimple=float(rng.uniform(0.0, 1.25)),
        stretch=float(np.clip(np.exp(abs(rng.normal(0.0, 0.3))), 1.0, 2.2)),
        skew_long=_around_zero(0.2, rng),
        skew_wide=_around_zero(0.2, rng),
        dimple_below=float(rng.uniform(0.0, 1.0)),
        shift_long=_around_zero(0.15, rng),
        shift_wide=_around_zero(0.15, rng),
        bend_long_um=_around_zero(0.6, rng),
        bend_wide_um=_around_zero(0.6, rng),
        corner_cos=_around_zero(0.03, rng),
        corner_sin=_around_zero(0.03, rng),
    )
