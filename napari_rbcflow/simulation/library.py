"""A few hundred cells, each rendered beforehand in every position that it takes.

A frame of two hundred cells must cost a few milliseconds; a picture by diffraction costs one each.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from napari_rbcflow.simulation.cells import NOT_JUDGEABLE, Cell, draw_cell, projected_thickness
from napari_rbcflow.simulation.motion import Motion
from napari_rbcflow.simulation.optics import OVERSAMPLING, contrast
from napari_rbcflow.simulation.settings import ChamberSettings

CONTRAST_ONE = 4096
"""A relative contrast of 1 in the integers of a sprite."""
NEAR_SPAN_UM = 29.0
FAR_SPAN_UM = 38.7
NEAR_UM = 20.0
VISIBLE_FROM = 0.03
"""Least contrast, averaged over 3 x 3 pixels, of a cell that counts as visible: 3.6 grey of 120. The
faintest twentieth of the published sequences have 5 %; what lies between is drawn, and can be found."""

_LIFTED_UM = 80.0
_CLEAR_WITHIN_UM = 5.4
LEFT_OUT_BELOW = 0.012
"""A cell fainter than this, 1.5 grey, is not rendered at all."""


class Zone(Enum):
    """Where a cell stands: within the slab in focus, near it, where a network may err, or far from it."""

    SHARP = "sharp"
    NEAR = "near"
    FAR = "far"


_NEAR_BELOW_UM, _NEAR_ABOVE_UM = 9.0, 12.0

# How many different cells: (motion, zone) -> (cells, pictures of each over its cycle). Near the slab there
# must be many: of few, one that passes for a reliable cell would be counted again and again.
_CENSUS: dict[tuple[Motion, Zone], tuple[int, int]] = {
    (Motion.TANK_TREADING, Zone.SHARP): (160, 8),
    (Motion.TUMBLING, Zone.SHARP): (56, 32),
    (Motion.ROLLING, Zone.SHARP): (8, 16),
    (Motion.DEBRIS, Zone.SHARP): (8, 1),
    (Motion.TANK_TREADING, Zone.NEAR): (80, 6),
    (Motion.TUMBLING, Zone.NEAR): (40, 24),
    (Motion.ROLLING, Zone.NEAR): (6, 8),
    (Motion.DEBRIS, Zone.NEAR): (8, 1),
    (Motion.TANK_TREADING, Zone.FAR): (110, 1),
    (Motion.TUMBLING, Zone.FAR): (40, 16),
    (Motion.ROLLING, Zone.FAR): (8, 6),
    (Motion.DEBRIS, Zone.FAR): (18, 1),
}


@dataclass(frozen=True, eq=False)
class SpriteLibrary:
    """Pictures of cells, and what is true of each cell.

    Attributes
    ----------
    cells : tuple of Cell
    weight : ndarray of float64, shape (n,)
        How many of each stand in the field at a time, relative to all visible cells: the visible
        ones sum to 1, the others come on top.
    visible : ndarray of bool, shape (n,)
        False for those too far from the focus to be told from noise. They flow all the same: the
        mottle behind the others.
    pictures : ndarray of int16, shape (total,)
        All sprites end to end; each is (2, 2, side, side): half-pixel phase in y, in x, rows, columns.
    first, side, count : ndarray of int64, shape (n,)
        Where a cell's sprites begin in `pictures`, their side in pixels and how many there are.
    """

    cells: tuple[Cell, ...]
    weight: NDArray[np.float64]
    visible: NDArray[np.bool_]
    pictures: NDArray[np.int16]
    first: NDArray[np.int64]
    side: NDArray[np.int64]
    count: NDArray[np.int64]


def sprite_side(span_um: float, pixel_um: float) -> int:
    """Pixels of a sprite that spans at least `span_um`: a multiple of four, for the transforms."""
    return 4 * int(np.ceil(span_um / pixel_um / 4))


def picture(
    cell: Cell,
    phases: NDArray[np.float64],
    settings: ChamberSettings,
    drift_um: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Relative contrast of one cell at phases of its cycle.

    Parameters
    ----------
    cell : Cell
    phases : ndarray of float64, shape (n,)
        Of its cycle, 0 to 1.
    settings : ChamberSettings
    drift_um : ndarray of float64, shape (n,), optional
        What to add to its height in each picture.

    Returns
    -------
    ndarray of float32, shape (n, s, s)
        `OVERSAMPLING` samples a pixel, the centre at index s // 2, fading to 0 at the border.
    """
    fine = settings.pixel_size_um / OVERSAMPLING
    inner = 2 * int(np.ceil((cell.shape.reach_um + fine) / fine)) + 2
    axes, long = cell.frames(phases)
    thickness = np.stack(
        [
            projected_thickness(cell.shape, axis, side=inner, pixel_um=fine, long_axis=along)
            for axis, along in zip(axes, long, strict=True)
        ]
    )
    side = OVERSAMPLING * sprite_side(
        NEAR_SPAN_UM if abs(cell.defocus_um) <= NEAR_UM else FAR_SPAN_UM, settings.pixel_size_um
    )
    drawn = contrast(
        thickness,
        side=side,
        defocus_um=cell.defocus_um if drift_um is None else cell.defocus_um + drift_um,
        smear_um=settings.speed_um_per_s(cell.z_um) * settings.exposure_ms * 1e-3,
        content=cell.content,
        pixel_um=settings.pixel_size_um,
        optics=settings.optics,
    )
    # The transform is periodic: without a fade a far cell's rings would end in a visible square.
    away = np.abs(np.arange(side) - side // 2) / (side // 2)
    radius = np.hypot(away[:, None], away[None, :])
    fade = np.clip((1.0 - radius) / 0.2, 0.0, 1.0)
    return drawn * (fade * fade * (3.0 - 2.0 * fade)).astype(np.float32)


def strength(drawn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the greatest contrast of each picture, averaged over 3 x 3 pixels."""
    size = 3 * OVERSAMPLING
    smooth = uniform_filter(np.abs(uniform_filter(drawn, (0, 2, 2))), (0, size, size))
    greatest: NDArray[np.float32] = smooth.max(axis=(1, 2))
    return greatest


def clearness(drawn: NDArray[np.float32], pixel_um: float) -> float:
    """How much contrast a cell shows on the whole, as an expert who watches its track would see.

    Parameters
    ----------
    drawn : ndarray of float32, shape (n, s, s)
        Relative contrast, `OVERSAMPLING` samples a pixel.
    pixel_um : float

    Returns
    -------
    float
        Greatest less least value of the median picture, within 5.4 um of the centre.
    """
    whole = np.median(drawn[:, ::OVERSAMPLING, ::OVERSAMPLING], axis=0)
    side = len(whole)
    away = (np.arange(side) - side // 2) * pixel_um
    near = whole[np.hypot(away[:, None], away[None, :]) < _CLEAR_WITHIN_UM]
    return float(near.max() - near.min())


def label_as_seen(cell: Cell, drawn: NDArray[np.float32], settings: ChamberSettings) -> int:
    """Return a cell's label, or that it cannot be judged where its pictures are too pale."""
    if cell.label != NOT_JUDGEABLE and clearness(drawn, settings.pixel_size_um) < settings.judged_from:
        return NOT_JUDGEABLE
    return cell.label


def half_pixel_phases(drawn: NDArray[np.float32]) -> NDArray[np.int16]:
    """Split doubly sampled pictures into sprites, as `SpriteLibrary.pictures` holds them."""
    whole = np.clip(np.rint(drawn * CONTRAST_ONE), -32768, 32767).astype(np.int16)
    n, side = whole.shape[0], whole.shape[1] // 2
    return whole.reshape(n, side, 2, side, 2).transpose(0, 2, 4, 1, 3).ravel()


def build_library(
    settings: ChamberSettings, progress: Callable[[int, int], None] | None = None
) -> SpriteLibrary:
    """Draw and render the cells of a chamber; two or three seconds on two cores.

    Parameters
    ----------
    settings : ChamberSettings
    progress : callable, optional
        Called with (cells rendered, cells in all).

    Returns
    -------
    SpriteLibrary
    """
    rng = settings.generator(0)
    share = motion_shares(settings)
    depth = settings.highest_um - settings.lowest_um
    cells: list[Cell] = []
    counts: list[int] = []
    weights: list[float] = []
    zones = _zones(settings)
    for (motion, zone), (usual, pictures) in _CENSUS.items():
        number = max(4, round(usual * settings.variety))
        group = sum(to - start for start, to in zones[zone]) / depth
        for k in range(number):
            z = _height((k + rng.random()) / number, zones[zone])
            cells.append(draw_cell(motion, z, settings, rng))
            counts.append(pictures)
            weights.append(group * share[motion] / number * crowding(z))

    def render(k: int) -> tuple[NDArray[np.int16], float]:
        n = counts[k]
        drawn = picture(cells[k], np.arange(n) / n, settings)
        cells[k] = replace(cells[k], label=label_as_seen(cells[k], drawn, settings))
        return half_pixel_phases(drawn), float(strength(drawn).min())

    parts: list[NDArray[np.int16]] = []
    strengths: list[float] = []
    with ThreadPoolExecutor(2) as pool:
        for k, (part, least) in enumerate(pool.map(render, range(len(cells)))):
            parts.append(part)
            strengths.append(least)
            if progress is not None:
                progress(k + 1, len(cells))
    sizes = np.array([p.size for p in parts])
    count = np.array(counts)
    visible = np.array(strengths) >= VISIBLE_FROM
    weight = np.array(weights) * (np.array(strengths) >= LEFT_OUT_BELOW)
    return SpriteLibrary(
        cells=tuple(cells),
        weight=weight / weight[visible].sum(),
        visible=visible,
        pictures=np.concatenate(parts),
        first=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        side=np.sqrt(sizes // count // 4).round().astype(np.int64),
        count=count.astype(np.int64),
    )


def motion_shares(settings: ChamberSettings) -> dict[Motion, float]:
    """Chance of each motion for a cell at any height."""
    cells = 1.0 - settings.debris_fraction
    rigid = cells * (1.0 - settings.tank_fraction)
    return {
        Motion.TANK_TREADING: cells * settings.tank_fraction,
        Motion.TUMBLING: rigid * (1.0 - settings.rolling_fraction),
        Motion.ROLLING: rigid * settings.rolling_fraction,
        Motion.DEBRIS: settings.debris_fraction,
    }


def crowding(z_um: float) -> float:
    """Cells in a volume at height `z_um`, relative to the middle of the chamber: lift empties the wall.

    Of the published cells out of focus and of the neighbours in reliable crops, one in four is dark, that
    is between wall and focus; an even suspension would have more. Linear up to `_LIFTED_UM`.
    """
    return min(1.0, z_um / _LIFTED_UM)


def _zones(settings: ChamberSettings) -> dict[Zone, list[tuple[float, float]]]:
    """Heights of each zone, from and to, micrometres."""
    lowest, highest = settings.lowest_um, settings.highest_um
    low, high = settings.focus_um + settings.sharp_from_um, settings.focus_um + settings.sharp_to_um
    under, over = max(lowest, low - _NEAR_BELOW_UM), min(highest, high + _NEAR_ABOVE_UM)
    return {
        Zone.SHARP: [(low, high)],
        Zone.NEAR: [(under, low), (high, over)],
        Zone.FAR: [(lowest, under), (over, highest)],
    }


def _height(quantile: float, parts: list[tuple[float, float]]) -> float:
    """Return the height at a quantile of cells spread evenly over some stretches of height."""
    away = quantile * sum(to - start for start, to in parts)
    for start, to in parts:
        if away <= to - start:
            return start + away
        away -= to - start
    return parts[-1][1]
