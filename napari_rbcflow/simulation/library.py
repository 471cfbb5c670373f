"""A few hundred cells, each rendered beforehand in all its positions.

A frame of two hundred cells must cost a few milliseconds, and diffraction takes one for each image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import platformdirs
from numpy.typing import NDArray

from napari_rbcflow.simulation.cells import NOT_JUDGEABLE, Cell, Motion, draw_cell, projected_thickness
from napari_rbcflow.simulation.optics import OVERSAMPLING, contrast
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.types import Bools, Floats, Floats32, Ints

CACHE_VARIABLE = "RBCFLOW_CACHE"
CONTRAST_ONE = 4096  # a relative contrast of 1 in the integers of a sprite
NEAR_SPAN_UM = 29.0
FAR_SPAN_UM = 38.7
NEAR_UM = 20.0
VISIBLE_FROM = 0.03
"""Minimum peak contrast of a visible cell: 3.6 grey of 120. The faintest twentieth of the published sequences
has 5 %; what lies between is drawn, and can be found."""
RENDERED_FROM = 0.012  # 1.5 grey: fainter cells are not rendered

_LIFTED_UM = 80.0
_CONTRAST_WITHIN_UM = 5.4


class Zone(Enum):
    """Where a cell is: in the focal slab, near it, where a network may err, or far from it."""

    SHARP = "sharp"
    NEAR = "near"
    FAR = "far"


_NEAR_BELOW_UM, _NEAR_ABOVE_UM = 9.0, 12.0

# How many different cells: (motion, zone) -> (cells, images of each over its cycle). Near the focal slab
# there must be many: with few, one that passes for a reliable cell would be counted again and again.
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
    """Images of cells, and the truth of each cell; arrays have one entry a cell, `pictures` apart."""

    cells: tuple[Cell, ...]
    # How many of each are in the field at a time, as a share of all visible ones.
    weight: Floats
    # False for those too far from the focus to be told from noise: they flow as the mottle behind the others.
    visible: Bools
    # All sprites end to end, each (2, 2, side, side): half-pixel phase in y, in x, rows, columns.
    pictures: NDArray[np.int16]
    first: Ints  # where a cell's sprites begin in `pictures`
    side: Ints  # of its sprites, pixels
    count: Ints  # of its sprites


def sprite_side(span_um: float, pixel_um: float) -> int:
    """Return the side in pixels of a sprite that spans `span_um`: a multiple of four, for the transforms."""
    return 4 * int(np.ceil(span_um / pixel_um / 4))


def render_cell(
    cell: Cell, phases: Floats, settings: ChamberSettings, drift_um: Floats | None = None
) -> Floats32:
    """Return the relative contrast of one cell at phases (0 to 1) of its cycle, shape (n, s, s).

    There are `OVERSAMPLING` samples a pixel; the centre is at index s // 2, and the image fades to 0 at the
    border. `drift_um` is added to the cell's height in each image.
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
    # The transform is periodic: without a fade, a far cell's rings would end in a visible square.
    away = np.abs(np.arange(side) - side // 2) / (side // 2)
    radius = np.hypot(away[:, None], away[None, :])
    fade = np.clip((1.0 - radius) / 0.2, 0.0, 1.0)
    return drawn * (fade * fade * (3.0 - 2.0 * fade)).astype(np.float32)


def peak_contrast(drawn: Floats32) -> Floats32:
    """Return the maximum contrast of each image, averaged over 3 x 3 pixels."""
    size = 3 * OVERSAMPLING

    def mean(image: Floats32, size: int) -> Any:
        return cv2.blur(image, (size, size), borderType=cv2.BORDER_REFLECT)

    return np.array([mean(np.abs(mean(image, 2)), size).max() for image in drawn], np.float32)


def contrast_range(drawn: Floats32, pixel_um: float) -> float:
    """Return the range of the median image within 5.4 um of the centre.

    This is the contrast that an expert who watches the whole track sees.
    """
    whole = np.median(drawn[:, ::OVERSAMPLING, ::OVERSAMPLING], axis=0)
    side = len(whole)
    away = (np.arange(side) - side // 2) * pixel_um
    near = whole[np.hypot(away[:, None], away[None, :]) < _CONTRAST_WITHIN_UM]
    return float(near.max() - near.min())


def label_as_seen(cell: Cell, drawn: Floats32, settings: ChamberSettings) -> int:
    """Return a cell's label, or `NOT_JUDGEABLE` if its images have too little contrast."""
    if cell.label != NOT_JUDGEABLE and contrast_range(drawn, settings.pixel_size_um) < settings.judged_from:
        return NOT_JUDGEABLE
    return cell.label


def half_pixel_phases(drawn: Floats32) -> NDArray[np.int16]:
    """Split doubly sampled images into sprites, as `SpriteLibrary.pictures` holds them."""
    whole = np.clip(np.rint(drawn * CONTRAST_ONE), -32768, 32767).astype(np.int16)
    n, side = whole.shape[0], whole.shape[1] // 2
    return whole.reshape(n, side, 2, side, 2).transpose(0, 2, 4, 1, 3).ravel()


def build_library(settings: ChamberSettings) -> SpriteLibrary:
    """Draw and render the cells of a chamber, in 2 to 3 s on two cores."""
    cells, counts, weights = _drawn_cells(settings)

    def render(k: int) -> tuple[NDArray[np.int16], float]:
        n = counts[k]
        drawn = render_cell(cells[k], np.arange(n) / n, settings)
        cells[k] = replace(cells[k], label=label_as_seen(cells[k], drawn, settings))
        return half_pixel_phases(drawn), float(peak_contrast(drawn).min())

    with ThreadPoolExecutor(2) as pool:
        parts, contrasts = zip(*pool.map(render, range(len(cells))), strict=True)
    sizes = np.array([p.size for p in parts])
    count = np.array(counts)
    visible = np.array(contrasts) >= VISIBLE_FROM
    weight = np.array(weights) * (np.array(contrasts) >= RENDERED_FROM)
    return SpriteLibrary(
        cells=tuple(cells),
        weight=weight / weight[visible].sum(),
        visible=visible,
        pictures=np.concatenate(parts),
        first=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        side=np.sqrt(sizes // count // 4).round().astype(np.int64),
        count=count.astype(np.int64),
    )


def _drawn_cells(settings: ChamberSettings) -> tuple[list[Cell], list[int], list[float]]:
    """Return the cells before they were seen, how many images each has, and its weight."""
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
    return cells, counts, weights


def kept_library(settings: ChamberSettings) -> SpriteLibrary:
    """Return what `build_library` does, from the user's cache where it is that of the last chamber.

    One is kept, of usual variety. What cannot be read is made anew, and what cannot be kept is not.
    """
    file = _kept_in(settings) if settings.variety == ChamberSettings.variety else None
    if file is not None:
        with suppress(Exception), np.load(file) as stored:  # none, or damaged
            arrays = dict(stored)
            labels = arrays.pop("label").tolist()
            drawn = zip(_drawn_cells(settings)[0], labels, strict=True)
            return SpriteLibrary(cells=tuple(replace(cell, label=label) for cell, label in drawn), **arrays)
    library = build_library(settings)
    if file is not None:
        with suppress(OSError):
            _keep(file, library)
    return library


def _kept_in(settings: ChamberSettings) -> Path | None:
    """Return the file of a library made by this code: another version, or another cell, has another name."""
    place = Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("napari-rbcflow", False))
    if not place.is_absolute():  # nobody's home
        return None
    told = hashlib.sha256(repr(settings_of_cells(settings)).encode())
    try:
        for module in sorted(Path(__file__).parent.glob("*.py")):
            told.update(module.read_bytes())
    except OSError:
        return None
    return place / f"cells-{told.hexdigest()[:16]}.npz"


def settings_of_cells(settings: ChamberSettings) -> ChamberSettings:
    """Return the settings with what the images of cells do not depend on as it usually is."""
    free = ("height", "width", "cells_per_frame", "seconds")
    return replace(settings, **{name: getattr(ChamberSettings, name) for name in free})


def _keep(file: Path, library: SpriteLibrary) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(file.parent).free < 20 * library.pictures.nbytes:
        return  # the room is for sessions
    for old in file.parent.glob("cells-*.npz*"):
        old.unlink(missing_ok=True)
    arrays = {of.name: getattr(library, of.name) for of in fields(library) if of.name != "cells"}
    new = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with new.open("wb") as stored:
            np.savez(stored, label=[cell.label for cell in library.cells], **arrays)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def motion_shares(settings: ChamberSettings) -> dict[Motion, float]:
    """Return the chance of each motion for a cell at any height."""
    cells = 1.0 - settings.debris_fraction
    rigid = cells * (1.0 - settings.tank_fraction)
    return {
        Motion.TANK_TREADING: cells * settings.tank_fraction,
        Motion.TUMBLING: rigid * (1.0 - settings.rolling_fraction),
        Motion.ROLLING: rigid * settings.rolling_fraction,
        Motion.DEBRIS: settings.debris_fraction,
    }


def crowding(z_um: float) -> float:
    """Return the density of cells at height `z_um` relative to mid-chamber: lift empties the wall.

    One in four of the published cells out of focus, and of the neighbours in reliable crops, is dark, that
    is, between wall and focus; an even suspension would have more. Linear up to `_LIFTED_UM`.
    """
    return min(1.0, z_um / _LIFTED_UM)


def _zones(settings: ChamberSettings) -> dict[Zone, list[tuple[float, float]]]:
    """Return the heights of each zone, from and to, micrometres."""
    lowest, highest = settings.lowest_um, settings.highest_um
    low, high = settings.sharp_heights_um
    under, over = max(lowest, low - _NEAR_BELOW_UM), min(highest, high + _NEAR_ABOVE_UM)
    return {
        Zone.SHARP: [(low, high)],
        Zone.NEAR: [(under, low), (high, over)],
        Zone.FAR: [(lowest, under), (over, highest)],
    }


def _height(quantile: float, parts: list[tuple[float, float]]) -> float:
    """Return the height at a quantile of cells spread evenly over some ranges of height."""
    away = quantile * sum(to - start for start, to in parts)
    for start, to in parts:
        if away <= to - start:
            return start + away
        away -= to - start
    return parts[-1][1]
