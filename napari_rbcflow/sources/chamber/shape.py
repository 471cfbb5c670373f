"""How thick a red cell is along the line of sight, whichever way it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

DEPTH_STEPS = 40


@dataclass(frozen=True)
class CellShape:
    """A biconcave disc, or one stretched, thickened, dented, bent.

    Attributes
    ----------
    diameter_um : float
    thickness_um : float
        At the thickest ring.
    dimple : float
        0: no dimple (an ellipsoid); 1: that of Evans and Fung's resting cell; between: shallower.
    stretch : float
        Length over width, at equal area.
    skew_long, skew_wide : float
        How much thicker one half is than the other, along and across the length: no cell is perfect, and
        stiff ones are the least so.
    dimple_below : float or None
        Of the other face; None: as `dimple`. A stomatocyte has one only.
    shift_long, shift_wide : float
        Of the dimples from the centre, in radii.
    bend_long_um, bend_wide_um : float
        How far the rim rises over the centre along and across the length: a cup where they are alike.
    corner_cos, corner_sin : float
        Share of the radius by which the outline has three corners.

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
    dimple_below: float | None = None
    shift_long: float = 0.0
    shift_wide: float = 0.0
    bend_long_um: float = 0.0
    bend_wide_um: float = 0.0
    corner_cos: float = 0.0
    corner_sin: float = 0.0

    @property
    def reach_um(self) -> float:
        """Radius of a ball that holds the cell."""
        corner = 1.0 + np.hypot(self.corner_cos, self.corner_sin)
        radius = 0.5 * self.diameter_um * np.sqrt(max(self.stretch, 1.0 / self.stretch)) * corner
        return float(np.hypot(radius, 0.5 * max(abs(self.bend_long_um), abs(self.bend_wide_um))))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _half_thickness(u2: float, d2: float, dimple: float) -> float:
    """Half the thickness, in thickest rings, at squared radii from the centre and from the dimple's."""
    if u2 >= 1.0:
        return -1.0
    d2 = min(d2, 1.0)
    resting = (0.81 + 7.83 * d2 - 4.39 * d2 * d2) / 2.565
    return float(0.5 * np.sqrt(1.0 - u2) * (dimple * resting + 1.0 - dimple))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _project(
    out: NDArray[np.float32],
    pixel: float,
    axis: NDArray[np.float64],
    long_axis: NDArray[np.float64],
    radius_long: float,
    radius_wide: float,
    reach: float,
    thickness: float,
    form: NDArray[np.float64],
) -> None:
    side = out.shape[0]
    centre = side // 2
    above, below, skew_long, skew_wide, shift_long, shift_wide = form[:6]
    bend_long, bend_wide, corner_cos, corner_sin = form[6:]
    wide = np.array(
        [
            axis[1] * long_axis[2] - axis[2] * long_axis[1],
            axis[2] * long_axis[0] - axis[0] * long_axis[2],
            axis[0] * long_axis[1] - axis[1] * long_axis[0],
        ]
    )
    reach = reach + 0.5 * pixel
    step = 2.0 * reach / DEPTH_STEPS
    thickest = 0.8 * thickness + step + abs(bend_long) + abs(bend_wide)
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
                up = x * axis[0] + y * axis[1] + z * axis[2]
                if abs(up) > thickest:
                    continue
                a = (x * long_axis[0] + y * long_axis[1] + z * long_axis[2]) / radius_long
                b = (x * wide[0] + y * wide[1] + z * wide[2]) / radius_wide
                u2 = a * a + b * b
                if u2 > 2.0:
                    continue
                corner = corner_cos * a * (a * a - 3.0 * b * b) + corner_sin * b * (3.0 * a * a - b * b)
                u2 *= 1.0 - 2.0 * corner
                # The centre of mass of a disc bent so lies a quarter of the way up.
                up -= bend_long * (a * a - 0.25) + bend_wide * (b * b - 0.25)
                d2 = (a - shift_long) ** 2 + (b - shift_wide) ** 2
                half = (
                    thickness
                    * _half_thickness(u2, d2, above if up > 0.0 else below)
                    * (1.0 + skew_long * a + skew_wide * b)
                )
                if half > 0.0:
                    inside += min(1.0, max(0.0, (half - abs(up)) / step + 0.5))
            out[i, j] = inside * step


def projected_thickness(
    shape: CellShape,
    axis: NDArray[np.float64],
    *,
    side: int,
    pixel_um: float,
    long_axis: NDArray[np.float64] | None = None,
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
    long_axis : ndarray of float64, shape (3,), optional
        Unit vector at a right angle to `axis`: the cell's length. By default the direction in the disc
        that lies nearest the flow, as in a cell whose membrane goes round.

    Returns
    -------
    ndarray of float32, shape (side, side)
        Micrometres, the cell's centre at index side // 2.
    """
    axis = np.asarray(axis, dtype=np.float64)
    if long_axis is None:
        long_axis = np.array([1.0, 0.0, 0.0]) - axis[0] * axis
        length = float(np.linalg.norm(long_axis))
        long_axis = long_axis / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    out = np.zeros((side, side), dtype=np.float32)
    radius = shape.diameter_um / 2.0
    root = float(np.sqrt(shape.stretch))
    form = np.array(
        [
            shape.dimple,
            shape.dimple if shape.dimple_below is None else shape.dimple_below,
            shape.skew_long,
            shape.skew_wide,
            shape.shift_long,
            shape.shift_wide,
            shape.bend_long_um,
            shape.bend_wide_um,
            shape.corner_cos,
            shape.corner_sin,
        ]
    )
    _project(
        out,
        pixel_um,
        axis,
        np.ascontiguousarray(long_axis),
        radius * root,
        radius / root,
        shape.reach_um,
        shape.thickness_um,
        form,
    )
    return out
