"""How a red cell turns in shear: tank-treading, tumbling, rolling.

Axes: x along the flow, y along the vorticity, z along the gradient, which is also the line of sight.

Jeffery, Proc. R. Soc. Lond. A 102 (1922) 161: the orbits of a rigid spheroid. Abkarian, Faivre, Viallat,
Phys. Rev. Lett. 98 (2007) 188302: swinging of red cells under shear.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from napari_rbcflow.types import Floats

FLIPS_SHOW_FROM_ORBIT = 0.5
"""Minimum orbit constant of a flipping cell: its visible face opens from an edge to 0.45 of a full disc.

Below it the axis hardly leaves the vorticity: the cell rolls like a wheel."""


class Motion(StrEnum):
    """What a cell does, by its name in the truth."""

    TANK_TREADING = "tank-treading"
    TUMBLING = "tumbling"
    ROLLING = "rolling"
    DEBRIS = "debris"


def jeffery_period_s(aspect_ratio: float, shear_rate_per_s: float) -> float:
    """Return the time of a whole turn, 2 pi (r + 1/r) / shear rate; a disc looks the same after half."""
    return 2.0 * np.pi * (aspect_ratio + 1.0 / aspect_ratio) / shear_rate_per_s


def jeffery_axis(phase: Floats, aspect_ratio: float, orbit: float) -> Floats:
    """Return the axis of a spheroid on a Jeffery orbit at phases in whole periods, unit vectors (n, 3).

    At phase 0 the axis is nearest the line of sight. `aspect_ratio` is thickness over diameter, below 1 for a
    disc. `orbit` is Jeffery's constant C: 0 is rolling (axis along the vorticity), infinite is tumbling in
    the shear plane.
    """
    angle = 2.0 * np.pi * np.asarray(phase, dtype=np.float64)
    # tan(phi) = r tan(angle), phi from the gradient; written without the poles of the tangent.
    along_x, along_z = aspect_ratio * np.sin(angle), np.cos(angle)
    length = np.hypot(along_x, along_z)
    sin_phi, cos_phi = along_x / length, along_z / length
    tan_theta = orbit * aspect_ratio / np.hypot(aspect_ratio * cos_phi, sin_phi)
    sin_theta = tan_theta / np.hypot(1.0, tan_theta)
    cos_theta = 1.0 / np.hypot(1.0, tan_theta)
    return np.stack([sin_theta * sin_phi, cos_theta, sin_theta * cos_phi], axis=-1)


def jeffery_frame(
    phase: Floats, aspect_ratio: float, orbit: float, side: float = 1.0
) -> tuple[Floats, Floats]:
    """Return the axis of a spheroid on a Jeffery orbit, and a direction fixed in its equator, each (n, 3).

    A spheroid also spins about its axis, at half the shear rate times the axis' part along the vorticity. The
    spin is sped up or slowed by less than half a turn a period, so that a period ends as it began and a cell
    can be rendered once. `side` is -1 for the orbit mirrored in the shear plane.
    """
    axis = jeffery_axis(phase, aspect_ratio, orbit)
    axis[:, 1] *= side
    # Euler's angles about the vorticity: the axis goes round it by phi, and the body turns about its axis
    # by (shear rate / 2 - dphi/dt) times the axis' part along it.
    grid = np.linspace(0.0, 1.0, 513)
    along = side * jeffery_axis(grid, aspect_ratio, orbit)[:, 1]
    rate = along * (
        np.pi * (aspect_ratio + 1.0 / aspect_ratio) - np.gradient(_around(grid, aspect_ratio), grid)
    )
    turned = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2) / (len(grid) - 1)])
    turned += grid * (2.0 * np.pi * np.rint(turned[-1] / (2.0 * np.pi)) - turned[-1])
    angle = np.interp(np.asarray(phase, dtype=np.float64) % 1.0, grid, turned)[:, None]
    phi = _around(np.asarray(phase, dtype=np.float64), aspect_ratio)
    up = axis[:, 1]
    outward = np.stack([up * np.sin(phi), -np.sqrt(1.0 - up * up), up * np.cos(phi)], axis=-1)
    return axis, np.cos(angle) * outward + np.sin(angle) * np.cross(axis, outward)


def _around(phase: Floats, aspect_ratio: float) -> Floats:
    """Return the axis' angle about the vorticity, from the gradient, radians, without jumps."""
    turn = 2.0 * np.pi * phase
    angle: Floats = np.unwrap(np.arctan2(aspect_ratio * np.sin(turn), np.cos(turn)))
    return angle


def swinging_axis(phase: Floats, inclination: float, swing: float, lean: float = 0.0) -> Floats:
    """Return the axis of a tank-treading cell, shape (n, 3): fixed in the shear plane but for a small swing.

    `inclination` is the mean angle between disc and flow, `swing` the amplitude about it, `lean` the mean
    angle out of the shear plane, all in radians; the lean swings by half as much as the inclination.
    """
    turn = 2.0 * np.pi * np.asarray(phase, dtype=np.float64)
    angle, aside = inclination + swing * np.sin(turn), lean + 0.5 * swing * np.cos(turn)
    return np.stack([-np.sin(angle) * np.cos(aside), np.sin(aside), np.cos(angle) * np.cos(aside)], axis=-1)
