"""How fast cells in focus should flow, and which shear rate their speed tells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_rbcflow.errors import BadInput

MEDIUM_INDEX = 1.35
"""Refractive index of the dextran solution: a focus that the objective's travel puts at 60 um lies 1.35
times as high in it (docs/decisions/chamber.md). That the published 60 um are such travel is inferred from
the speed of the published cells."""
ABOVE_FOCUS_UM = 6.5
"""Cells that an expert judges stand 2 to 11 um over the plane in focus: the fit of the simulated chamber to
the published crops (docs/decisions/chamber.md)."""


@dataclass(frozen=True)
class SetFlow:
    """The flow as it was set, after Darrin et al. 2023.

    Attributes
    ----------
    shear_rate_per_s : float
        At the wall.
    focus_height_um : float
        From the wall to where the focus is set. It is taken for the objective's own travel: the paper says
        "60 um from the bottom wall" and not how that was measured, but its cells move as if it were.
    chamber_height_um : float

    Raises
    ------
    BadInput
        On what no chamber can have.
    """

    shear_rate_per_s: float = 10.0
    focus_height_um: float = 60.0
    chamber_height_um: float = 1000.0

    def __post_init__(self) -> None:
        for option, value, most in (
            ("--shear-rate", self.shear_rate_per_s, 10_000.0),
            ("--focus-height-um", self.focus_height_um, 300.0),
        ):
            if not (math.isfinite(value) and 0 < value <= most):
                raise BadInput(f"{option} must lie above 0 and be at most {most:,.0f}, not {value:g}")
        if not self.chamber_height_um > 2 * self.height_um:
            raise BadInput("the focus must lie in the lower half of the chamber")

    @property
    def height_um(self) -> float:
        """Height over the wall at which the cells that are judged reliable are taken to stand."""
        return MEDIUM_INDEX * self.focus_height_um + ABOVE_FOCUS_UM

    @property
    def expected_speed_um_per_s(self) -> float:
        """Speed of the cells that are judged reliable: shear z (1 - z / H), plane Poiseuille flow."""
        return self.shear_rate_per_s * self._speed_per_shear_um

    def shear_rate_of(self, speed_um_per_s: float) -> float:
        """Return the wall shear rate that a speed of the reliable cells tells, 1/s."""
        return speed_um_per_s / self._speed_per_shear_um

    @property
    def _speed_per_shear_um(self) -> float:
        return self.height_um * (1.0 - self.height_um / self.chamber_height_um)
