"""What a simulated chamber can be asked for, and what follows from that."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from napari_rbcflow.errors import BadInput
from napari_rbcflow.simulation.optics import Optics
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM


@dataclass(frozen=True)
class ChamberSettings:
    """Chamber, flow, blood, microscope and camera.

    Attributes
    ----------
    height, width : int
        Of a frame, pixels.
    fps, pixel_size_um, exposure_ms : float
    seed : int
        Everything drawn follows from it; frame k is the same however it is asked for.
    tank_fraction : float
        Chance that a cell (no debris) tank-treads; else it turns as a rigid disc does.
    rolling_fraction : float
        Share of the cells that turn rigidly whose orbit lies so near the vorticity that they roll. The
        default is what the orbits drawn for tumbling cells leave below `motion.FLIPS_SHOW_FROM_ORBIT`.
    debris_fraction : float
        Share of all cells.
    cells_per_frame : float
        Visible cells whose centre is in the field, mean.
    shear_rate_per_s : float
        At the wall.
    chamber_height_um : float
    focus_um : float
        Height of the plane in focus over the wall: the paper's 60 um of objective travel are 81 um
        in a medium of index 1.35. At 60 um cells would move 15 px a frame, the published ones in
        focus move 20 to 30, as they do at 80 to 120 um (docs/decisions/chamber.md).
    lowest_um, highest_um : float
        Heights between which cells are simulated: beyond, no picture of them is left, or they creep.
    sharp_from_um, sharp_to_um : float
        Defocus between which an expert calls a cell reliable, where it is clear enough.
    judged_from : float
        Least `library.clearness` of a cell that an expert calls reliable: the fiftieth part of the
        published reliable ones has 0.31.
    seconds : float or None
        Length; None goes on until stopped.
    variety : float
        How many different cells are rendered beforehand: 1 is some 540, in five seconds of CPU and 116 MB.
    optics : Optics

    Raises
    ------
    BadInput
        On a setting that no chamber can have.
    """

    height: int = 1096
    width: int = 1376
    fps: float = DEFAULT_FPS
    pixel_size_um: float = DEFAULT_PIXEL_SIZE_UM
    exposure_ms: float = 2.2
    seed: int = 0
    tank_fraction: float = 0.8
    rolling_fraction: float = 0.04
    debris_fraction: float = 0.04
    cells_per_frame: float = 115.0
    shear_rate_per_s: float = 10.0
    chamber_height_um: float = 1000.0
    focus_um: float = 81.0
    lowest_um: float = 19.0
    highest_um: float = 300.0
    sharp_from_um: float = 2.0
    sharp_to_um: float = 11.0
    judged_from: float = 0.33
    seconds: float | None = None
    variety: float = 1.0
    optics: Optics = field(default_factory=Optics)

    def __post_init__(self) -> None:
        def need(good: bool, what: str) -> None:
            if not good:
                raise BadInput(f"simulated chamber: {what}")

        numbers = [v for v in vars(self).values() if isinstance(v, float)]
        need(all(math.isfinite(v) for v in numbers), "every number must be finite.")
        need(self.height >= 64 and self.width >= 64, "the field must be at least 64 x 64 px.")
        need(1.0 <= self.fps <= 1000.0, "the frame rate must lie between 1 and 1000 frames/s.")
        need(0.2 <= self.pixel_size_um <= 2.0, "the pixel size must lie between 0.2 and 2 um.")
        need(0.0 <= self.exposure_ms <= 1000.0 / self.fps, "the exposure must be shorter than a frame.")
        need(self.seed >= 0, "the seed must be 0 or more.")
        need(0.0 <= self.tank_fraction <= 1.0, "the tank-treading fraction must lie between 0 and 1.")
        need(0.0 <= self.rolling_fraction <= 1.0, "the share of rolling cells must lie between 0 and 1.")
        need(0.0 <= self.debris_fraction < 1.0, "the share of debris must be 0 or more and under 1.")
        need(0.0 < self.cells_per_frame <= 2000.0, "cells per frame must lie between 0 and 2000.")
        need(self.shear_rate_per_s > 0.0, "the shear rate must be positive.")
        need(
            0.0 < self.lowest_um < self.focus_um + self.sharp_from_um
            and self.focus_um + self.sharp_from_um < self.focus_um + self.sharp_to_um
            and self.focus_um + self.sharp_to_um < self.highest_um <= self.chamber_height_um / 2,
            "heights must rise from wall to lowest cell, focus, highest cell and half the chamber.",
        )
        need(0.0 <= self.judged_from < 2.0, "the clearness of judged cells must lie between 0 and 2.")
        need(0.01 <= self.variety <= 20.0, "the variety must lie between 0.01 and 20.")
        need(self.seconds is None or self.seconds * self.fps >= 1.0, "it must last at least one frame.")

    @property
    def n_frames(self) -> int | None:
        """Frames until it ends by itself; None where it does not."""
        return None if self.seconds is None else round(self.seconds * self.fps)

    def speed_um_per_s(self, z_um: float) -> float:
        """Speed of a cell at height `z_um`: shear rate x z (1 - z / H), plane Poiseuille flow."""
        return self.shear_rate_per_s * z_um * (1.0 - z_um / self.chamber_height_um)

    def speed_px_per_frame(self, z_um: float) -> float:
        """The same in pixels a frame."""
        return self.speed_um_per_s(z_um) / (self.pixel_size_um * self.fps)

    def local_shear_per_s(self, z_um: float) -> float:
        """Shear rate at height `z_um`, the slope of the speed there."""
        return self.shear_rate_per_s * (1.0 - 2.0 * z_um / self.chamber_height_um)

    def generator(self, *stream: int) -> np.random.Generator:
        """Return random numbers for one purpose, the same whenever asked."""
        return np.random.default_rng([self.seed, *stream])
