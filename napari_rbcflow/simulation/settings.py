"""Settings of the simulated chamber, and what follows from them."""

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
        All that is random follows from it: frame k is the same however it is asked for.
    tank_fraction : float
        Chance that a cell (not debris) tank-treads; the others turn like a rigid disc.
    rolling_fraction : float
        Share of the rigid cells whose orbit lies so near the vorticity axis that they roll. The default is
        the share of the orbits of tumbling cells below `cells.FLIPS_SHOW_FROM_ORBIT`.
    debris_fraction : float
        Share of all cells.
    cells_per_frame : float
        Mean number of visible cells whose centre is in the field.
    shear_rate_per_s : float
        At the wall.
    chamber_height_um : float
    focus_um : float
        Height of the focal plane over the wall: the paper's 60 um of objective travel are 81 um in a
        medium of index 1.35. At 60 um cells would move 15 px a frame; the published cells in focus move
        20 to 30, as they do at 80 to 120 um (docs/decisions/simulation.md).
    lowest_um, highest_um : float
        Heights between which cells are simulated; lower ones creep, higher ones leave no visible image.
    sharp_from_um, sharp_to_um : float
        Defocus between which an expert calls a cell reliable if it has enough contrast.
    judged_from : float
        Minimum `library.contrast_range` of a cell that an expert calls reliable; 2 % of the published
        reliable cells have less than 0.31.
    seconds : float or None
        Length; None runs until stopped.
    variety : float
        How many different cells are rendered: 1 is about 540, in five seconds of CPU and 116 MB.
    optics : Optics

    Raises
    ------
    BadInput
        If a setting is out of range.
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
        numbers = [v for v in vars(self).values() if isinstance(v, float)]
        low, high = self.sharp_heights_um
        for good, key in (
            (all(math.isfinite(v) for v in numbers), "simulation.not-finite"),
            (self.height >= 64 and self.width >= 64, "simulation.field-too-small"),
            (1.0 <= self.fps <= 1000.0, "simulation.fps-range"),
            (0.2 <= self.pixel_size_um <= 2.0, "simulation.pixel-size-range"),
            (0.0 <= self.exposure_ms <= 1000.0 / max(self.fps, 1.0), "simulation.exposure-too-long"),
            (self.seed >= 0, "simulation.seed-negative"),
            (0.0 <= self.tank_fraction <= 1.0, "simulation.tank-fraction-range"),
            (0.0 <= self.rolling_fraction <= 1.0, "simulation.rolling-fraction-range"),
            (0.0 <= self.debris_fraction < 1.0, "simulation.debris-fraction-range"),
            (0.0 < self.cells_per_frame <= 2000.0, "simulation.cells-per-frame-range"),
            (self.shear_rate_per_s > 0.0, "simulation.shear-rate-not-positive"),
            (
                0.0 < self.lowest_um < low < high < self.highest_um <= self.chamber_height_um / 2,
                "simulation.heights-out-of-order",
            ),
            (0.0 <= self.judged_from < 2.0, "simulation.judged-from-range"),
            (0.01 <= self.variety <= 20.0, "simulation.variety-range"),
            (self.seconds is None or self.seconds * self.fps >= 1.0, "simulation.too-short"),
        ):
            if not good:
                raise BadInput(key)

    @property
    def n_frames(self) -> int | None:
        """Number of frames; None for a chamber that runs until stopped."""
        return None if self.seconds is None else round(self.seconds * self.fps)

    @property
    def sharp_heights_um(self) -> tuple[float, float]:
        """Heights over the wall between which cells are in focus."""
        return self.focus_um + self.sharp_from_um, self.focus_um + self.sharp_to_um

    def speed_um_per_s(self, z_um: float) -> float:
        """Return a cell's speed at height `z_um`: shear rate x z (1 - z / H), plane Poiseuille flow."""
        return self.shear_rate_per_s * z_um * (1.0 - z_um / self.chamber_height_um)

    def speed_px_per_frame(self, z_um: float) -> float:
        """Return the same in pixels per frame."""
        return self.speed_um_per_s(z_um) / (self.pixel_size_um * self.fps)

    def local_shear_per_s(self, z_um: float) -> float:
        """Return the shear rate at height `z_um`: the slope of the speed there."""
        return self.shear_rate_per_s * (1.0 - 2.0 * z_um / self.chamber_height_um)

    def generator(self, *stream: int) -> np.random.Generator:
        """Return a random generator for one purpose, the same each time it is asked for."""
        return np.random.default_rng([self.seed, *stream])
