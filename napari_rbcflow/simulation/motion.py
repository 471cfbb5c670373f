"""How a red cell turns in shear: tank-treading, tumbling, rolling.

Axes: x along the flow, y along the vorticity, z along the gradient, which is also the line of sight.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

FLIPS_SHOW_FROM_ORBIT = 0.5
"""Least orbit constant of a cell that is called flipping: on it the face seen opens from an edge to
0.45 of a full disc. Below, the axis hardly leaves the vorticity: the cell rolls like a wheel."""


class Motion(StrEnum):
    """What a cell does, by its name in the truth."""

    TANK_TREADING = "tank-treading"
    TUMBLING = "tumbling"
    ROLLING = "rolling"
    DEBRIS = "debris"


def jeffery_period_s(aspect_ratio: float, shear_rate_per_s: float) -> float:
    """Time of a whole turn of a rigid spheroid, 2 pi (r + 1/r) / shear rate.

    The projection of a disc repeats every half of it.

    References
    ----------
    Jeffery, Proc. R. Soc. Lond. A 102 (1922) 161.
    """
    return 2.0 * np.pi * (aspect_ratio + 1.0 / aspect_ratio) / shear_rate_per_s


def jeffery_axis(phase: NDArray[np.float64], aspect_ratio: float, orbit: float) -> NDArray[np.float64]:
    """Direction of a spheroid's axis on a Jeffery orbit.

    Parameters
    ----------
    phase : ndarray of float64, shape (n,)
        Time in whole periods; at 0 the axis stands nearest the line of sight.
    aspect_ratio : float
        Thickness over diameter, below 1 for a disc.
    orbit : float
        Jeffery's orbit constant C: 0 is rolling (axis along the vorticity), infinite is tumbling
        in the plane of shear.

    Returns
    -------
    ndarray of float64, shape (n, 3)
        Unit vectors (x flow, y vorticity, z gradient).
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
    phase: NDArray[np.float64], aspect_ratio: float, orbit: float, side: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axis of a spheroid on a Jeffery orbit, and a direction that is fixed in its equator.

    A spheroid also spins about its axis, at half the shear rate times the axis' part along the
    vorticity. The spin is stretched or slowed by less than half a turn a period, so that a period
    ends as it began and a cell can be rendered once.

    Parameters
    ----------
    phase : ndarray of float64, shape (n,)
        Time in whole periods.
    aspect_ratio, orbit : float
        As in `jeffery_axis`.
    side : float
        -1 for the orbit mirrored in the plane of shear.

    Returns
    -------
    tuple of two ndarrays of float64, shape (n, 3)
    """
    axis = jeffery_axis(phase, aspect_ratio, orbit)
    axis[:, 1] *= side
    # Euler's angles about the vorticity: the axis goes round it by phi, and what the body turns about
    # its axis is (shear rate / 2 - dphi/dt) times the axis' part along it.
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


def _around(phase: NDArray[np.float64], aspect_ratio: float) -> NDArray[np.float64]:
    """Angle of the axis about the vorticity, from the gradient, without jumps; radians."""
    turn = 2.0 * np.pi * phase
    angle: NDArray[np.float64] = np.unwrap(np.arctan2(aspect_ratio * np.sin(turn), np.cos(turn)))
    return angle


def swinging_axis(
    phase: NDArray[np.float64], inclination: float, swing: float, lean: float = 0.0
) -> NDArray[np.float64]:
    """Axis of a tank-treading cell: fixed in the plane of shear but for a small swinging.

    Parameters
    ----------
    phase : ndarray of float64, shape (n,)
        Time in whole periods of the swinging.
    inclination, swing : float
        Mean angle between disc and flow, and the amplitude about it, radians.
    lean : float, optional
        Mean angle out of the plane of shear, radians; it swings by half as much as the inclination.

    Returns
    -------
    ndarray of float64, shape (n, 3)

    References
    ----------
    Abkarian, Faivre, Viallat, Phys. Rev. Lett. 98 (2007) 188302: swinging of red cells under shear.
    """
    turn = 2.0 * np.pi * np.asarray(phase, dtype=np.float64)
    angle, aside = inclination + swing * np.sin(turn), lean + 0.5 * swing * np.cos(turn)
    return np.stack([-np.sin(angle) * np.cos(aside), np.sin(aside), np.cos(angle) * np.cos(aside)], axis=-1)
