"""The cells: how they turn in shear, their size, shape and content, their thickness along the line of sight.

Axes: x along the flow, y along the vorticity, z along the gradient, which is also the line of sight.

Jeffery, Proc. R. Soc. Lond. A 102 (1922) 161: the orbits of a rigid spheroid. Abkarian, Faivre, Viallat,
Phys. Rev. Lett. 98 (2007) 188302: swinging of red cells under shear. Evans and Fung, Microvasc. Res. 4 (1972)
335: the mean resting cell (7.82 um, 2.56 um thick).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from napari_rbcflow.compiled import njit
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.types import Floats, Floats32

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


DEPTH_STEPS = 40


@dataclass(frozen=True)
class CellShape:
    """A biconcave disc, or one that is stretched, thickened, dented or bent."""

    diameter_um: float = 7.82
    thickness_um: float = 2.56  # at the thickest ring
    dimple: float = 1.0  # 0: an ellipsoid, 1: as deep as the resting cell's
    stretch: float = 1.0  # length over width, at equal area
    skew_long: float = 0.0  # how much thicker one half is, along the length; stiff cells are the least even
    skew_wide: float = 0.0  # the same across the length
    dimple_below: float | None = None  # of the other face, None: as `dimple`; a stomatocyte has only one
    shift_long: float = 0.0  # of the dimples from the centre, in radii
    shift_wide: float = 0.0
    bend_long_um: float = 0.0  # how far the rim rises over the centre; a cup where both are alike
    bend_wide_um: float = 0.0
    corner_cos: float = 0.0  # share of the radius by which the outline has three corners
    corner_sin: float = 0.0

    @property
    def reach_um(self) -> float:
        """Radius of a sphere that holds the cell."""
        corner = 1.0 + np.hypot(self.corner_cos, self.corner_sin)
        radius = 0.5 * self.diameter_um * np.sqrt(max(self.stretch, 1.0 / self.stretch)) * corner
        return float(np.hypot(radius, 0.5 * max(abs(self.bend_long_um), abs(self.bend_wide_um))))


@njit(cache=True, nogil=True, fastmath=True)
def _half_thickness(u2: float, d2: float, dimple: float) -> float:
    """Half the thickness, in thickest rings, at squared radii from the cell's and the dimple's centre."""
    if u2 >= 1.0:
        return -1.0
    d2 = min(d2, 1.0)
    resting = (0.81 + 7.83 * d2 - 4.39 * d2 * d2) / 2.565
    return float(0.5 * np.sqrt(1.0 - u2) * (dimple * resting + 1.0 - dimple))


@njit(cache=True, nogil=True, fastmath=True)
def _project(
    out: Floats32,
    pixel: float,
    axis: Floats,
    long_axis: Floats,
    radius_long: float,
    radius_wide: float,
    reach: float,
    thickness: float,
    form: Floats,
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
    # A boundary that is crossed obliquely is softened over one step, or the disc's edge would be jagged.
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
    shape: CellShape, axis: Floats, *, side: int, pixel_um: float, long_axis: Floats | None = None
) -> Floats32:
    """Return the length in micrometres of each line of sight within the cell, centred at index side // 2.

    `axis` is the unit vector of the disc's axis (x flow, y vorticity, z line of sight), `long_axis` one at a
    right angle to it, along the cell's length.
    """
    axis = np.asarray(axis, dtype=np.float64)
    if long_axis is None:  # as in a cell whose membrane goes round: the direction nearest the flow
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


TANK_TREADING, FLIPPING, NOT_JUDGEABLE = 0, 1, 2  # labels of the truth, as in the published data
_STEEPEST_DEG = 45.0


@dataclass(frozen=True)
class Cell:
    """One cell at its height."""

    motion: Motion
    shape: CellShape
    content: float  # haemoglobin relative to the mean cell
    z_um: float  # height over the wall
    defocus_um: float  # height over the focal plane
    label: int  # an expert's: `TANK_TREADING`, `FLIPPING` or `NOT_JUDGEABLE`
    cycle_s: float  # time after which its image repeats
    # Of the Jeffery orbit (`jeffery_axis`); of a tank-treading cell inclination and swing, radians.
    aspect_ratio: float
    orbit: float
    side: float  # +1 or -1: the side of the shear plane that the axis leans to
    lean: float = 0.0  # of a tank-treading cell out of the shear plane, radians
    roll: float = 0.0  # direction of its length in the disc, radians: from the flow in a tank-treading cell

    def axes(self, phases: Floats) -> Floats:
        """Return the axis at phases (0 to 1) of its cycle, shape (n, 3)."""
        return self.frames(phases)[0]

    def frames(self, phases: Floats) -> tuple[Floats, Floats]:
        """Return axis and direction of the length, each of shape (n, 3), at phases of its cycle."""
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
    """Draw a cell of a given motion at a given height."""
    defocus = z_um - settings.focus_um
    shear = settings.local_shear_per_s(z_um)
    # Sizes, contents and inclinations fit the published cells of one test day (docs/decisions/simulation.md);
    # neither the other day nor the other patients were used for the fit.
    content = float(np.clip(rng.normal(1.05, 0.16), 0.6, 1.5))
    lean, roll = 0.0, 0.0
    if motion is Motion.TANK_TREADING:
        shape = _soft_shape(rng)
        roll = float(rng.normal(0.0, 0.4))
        content *= 1.12
        inclination, swing = rng.normal(27.0, 14.0), rng.uniform(1.0, 9.0)
        # Shear turns every disc back from 45 degrees, the direction in which it stretches: no tank-treading
        # cell is steeper (Keller and Skalak 1982; docs/decisions/simulation.md).
        ratio = float(np.deg2rad(np.clip(inclination, 3.0, _STEEPEST_DEG - swing)))
        orbit = float(np.deg2rad(swing))
        lean = float(np.deg2rad(abs(rng.normal(0.0, 10.0))))
        # The membrane goes round in about 2 x 2 pi / shear rate; the cell swings twice in that time.
        cycle = 2.0 * np.pi / shear
    elif motion is Motion.DEBRIS:
        diameter = float(rng.uniform(2.0, 5.0))
        shape = CellShape(diameter, diameter * float(rng.uniform(0.6, 1.0)), 0.0)
        ratio, orbit, cycle = float(rng.uniform(0.0, 0.6)), 0.0, 1.0
    else:
        shape = _stiff_shape(rng)
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


def _soft_shape(rng: np.random.Generator) -> CellShape:
    """Draw a cell whose membrane goes round: a disc, slightly uneven, oval in any direction."""
    return CellShape(
        diameter_um=float(np.clip(rng.normal(6.5, 0.55), 5.2, 8.0)),
        thickness_um=float(np.clip(rng.normal(2.4, 0.25), 1.8, 3.0)),
        dimple=float(rng.uniform(0.1, 0.9)),
        stretch=float(np.clip(rng.normal(1.0, 0.15), 0.72, 1.6)),
        skew_long=_around_zero(0.08, rng),
        skew_wide=_around_zero(0.08, rng),
        dimple_below=float(rng.uniform(0.1, 0.9)),
    )


def _stiff_shape(rng: np.random.Generator) -> CellShape:
    """Draw a cell that turns rigidly: thicker, dented on one or both sides, cupped, long, with corners."""
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
