"""How thick a red cell is along the line of sight, whichever way it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

DEPTH_STEPS = 40


@dataclass(frozen=True)
class CellShape:
    """A biconcave disc, or one stretched to an elliptic disc.

    Attributes
    ----------
    diameter_um : float
    thickness_um : float
        At the thickest ring.
    dimple : float
        0: no dimple (an ellipsoid); 1: that of Evans and Fung's resting cell; between: shallower.
    stretch : float
        Length along the flow over width across it, at equal area.
    skew_long, skew_wide : float
        How much thicker one half is than the other, along and across the flow: no cell is perfect, and
        stiff ones are the least so.

    References
    ----------
    Evans and Fung, Microvasc. Res. 4 (1972) 335: the mean resting cell (7.82 um, 2.56 um thick).
    """

    diameter_um: float = 7.82
    thickness_um: float = 2.56
    dimple: float = 1.0
    stretch: float = 1.0
    skew_long: float = 0.0
    skew_wide: float = 0.0


@numba.njit(cache=True, nogil=True, fastmath=True)
def _half_thickness(u2: float, dimple: float) -> float:
    """Half the thickness at squared relative radius `u2`, in units of the thickest ring."""
    if u2 >= 1.0:
        return -1.0
    root = np.sqrt(1.0 - u2)
    resting = root * (0.81 + 7.83 * u2 - 4.39 * u2 * u2) / 2.565
    return float(0.5 * (dimple * resting + (1.0 - dimple) * root))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _project(
    out: NDArray[np.float32],
    pixel: float,
    axis: NDArray[np.float64],
    long_axis: NDArray[np.float64],
    radius_long: float,
    radius_wide: float,
    thickness: float,
    dimple: float,
    skew_long: float,
    skew_wide: float,
) -> None:
    side = out.shape[0]
    centre = side // 2
    wide = np.array(
        [
            axis[1] * long_axis[2] - axis[2] * long_axis[1],
            axis[2] * long_axis[0] - axis[0] * long_axis[2],
            axis[0] * long_axis[1] - axis[1] * long_axis[0],
        ]
    )
    reach = max(radius_long, radius_wide) + 0.5 * pixel
    step = 2.0 * reach / DEPTH_STEPS
    # A boundary crossed obliquely is softened over one step, or the edge of the disc would be jagged.
    for i in range(side):
        y = (i - centre) * pixel
        for j in range(side):
            x = (j - centre) * pixel
            if x * x + y * y > reach * reach:
                continue
            inside = 0.0
            for k in range(DEPTH_STEPS):
                z = -reach + (k + 0.5) * step
                up = abs(x * axis[0] + y * axis[1] + z * axis[2])
                if up > 0.8 * thickness + step:
                    continue
                a = (x * long_axis[0] + y * long_axis[1] + z * long_axis[2]) / radius_long
                b = (x * wide[0] + y * wide[1] + z * wide[2]) / radius_wide
                half = (
                    thickness * _half_thickness(a * a + b * b, dimple) * (1.0 + skew_long * a + skew_wide * b)
                )
                if half > 0.0:
                    inside += min(1.0, max(0.0, (half - up) / step + 0.5))
            out[i, j] = inside * step


def projected_thickness(
    shape: CellShape, axis: NDArray[np.float64], *, side: int, pixel_um: float
) -> NDArray[np.float32]:
    """Length of the line of sight that runs through the cell, pixel by pixel.

    Parameters
    ----------
    shape : CellShape
    axis : ndarray of float64, shape (3,)
        Unit vector of the disc's axis (x flow, y vorticity, z line of sight).
    side : int
        Of the square picture, in samples.
    pixel_um : float
        Sample spacing.

    Returns
    -------
    ndarray of float32, shape (side, side)
        Micrometres, the cell's centre at index side // 2.
    """
    axis = np.asarray(axis, dtype=np.float64)
    # The stretched direction is the one in the disc that lies nearest the flow.
    long_axis = np.array([1.0, 0.0, 0.0]) - axis[0] * axis
    length = float(np.linalg.norm(long_axis))
    long_axis = long_axis / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    out = np.zeros((side, side), dtype=np.float32)
    radius = shape.diameter_um / 2.0
    root = float(np.sqrt(shape.stretch))
    _project(
        out,
        pixel_um,
        axis,
        long_axis,
        radius * root,
        radius / root,
        shape.thickness_um,
        shape.dimple,
        shape.skew_long,
        shape.skew_wide,
    )
    return out
