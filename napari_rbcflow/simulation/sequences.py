"""Single labelled sequences for training: what a tracker would cut out of a simulated chamber."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label, uniform_filter

from napari_rbcflow.errors import BadInput
from napari_rbcflow.simulation.canvas import GREY_ONE, Canvas, add_cells, add_library_cells
from napari_rbcflow.simulation.cells import FLIPPING, NOT_JUDGEABLE, TANK_TREADING, Cell, Motion, draw_cell
from napari_rbcflow.simulation.library import (
    VISIBLE_FROM,
    SpriteLibrary,
    build_library,
    half_pixel_phases,
    label_as_seen,
    motion_shares,
    peak_contrast,
    render_cell,
)
from napari_rbcflow.simulation.optics import MAX_ASLANT
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.types import CROP_SIDE, Floats, Floats32, Grey, Ints

NEAR_PX = 26.0
_FARTHEST_PX = 14
_WINDOW = 5
_SPREAD_GREY = 2.5


class Neighbours:
    """Neighbours as seen by a cell of speed `v`: those at other heights overtake it or fall back."""

    _REACH = 48.0

    def __init__(
        self,
        length: int,
        v: float,
        library: SpriteLibrary,
        settings: ChamberSettings,
        density: float,
        rng: np.random.Generator,
    ) -> None:
        self._length = length
        speed = np.array([settings.speed_px_per_frame(c.z_um) for c in library.cells])
        far = self._REACH + float(np.abs(speed - v).max()) * length
        area = 2 * far * 2 * self._REACH
        share = library.weight / library.weight.sum()
        a_frame = settings.cells_per_frame * float(library.weight.sum())
        mean = density * a_frame / (settings.height * settings.width) * area
        n = int(rng.poisson(mean))
        self._kind = rng.choice(len(speed), size=n, p=share)
        self._speed, self._v = speed, v
        self._drift = speed[self._kind] * (1 + 0.015 * rng.standard_normal(n)) - v
        self._dx = rng.uniform(-far, far, n)
        self._dy = np.rint(rng.uniform(-2 * self._REACH, 2 * self._REACH, n)) / 2.0
        self._phase = rng.random(n)
        self._tracked: int | None = None
        self._tracked_frames = range(0)
        cycle_s = np.array([c.cycle_s for c in library.cells])
        self._turn_of = 1.0 / (cycle_s * settings.fps)
        self._turn = self._turn_of[self._kind]

    def at(self, t: int) -> tuple[Ints, Floats, Floats, Floats]:
        """Return kinds, offsets x and y from the cell, and phases of those near the tracked place."""
        dx = self._dx + self._drift * t
        near = np.abs(dx - self.tracked_place(t)[0]) < self._REACH
        phase = (self._phase[near] + self._turn[near] * t) % 1.0
        return self._kind[near], dx[near], self._dy[near], phase

    def lead_astray(self, library: SpriteLibrary, rng: np.random.Generator) -> None:
        """Let a visible cell meet this one near an end of the track, and the tracker take it for this one."""
        share = library.weight * library.visible
        kind = int(rng.choice(len(share), p=share / share.sum()))
        n = max(1, round(self._length * rng.uniform(0.03, 0.25)))
        at_start = rng.random() < 0.5
        meets = n - 0.5 if at_start else self._length - n - 0.5
        self._tracked_frames = range(n) if at_start else range(self._length - n, self._length)
        self._tracked = len(self._kind)
        drift = float(self._speed[kind] * (1 + 0.015 * rng.standard_normal()) - self._v)
        self._kind = np.append(self._kind, kind)
        self._drift = np.append(self._drift, drift)
        self._dx = np.append(self._dx, rng.uniform(-4.0, 4.0) - drift * meets)
        self._dy = np.append(self._dy, round(2 * rng.normal(0.0, 4.0)) / 2.0)
        self._phase = np.append(self._phase, rng.random())
        self._turn = np.append(self._turn, self._turn_of[kind])

    def tracked_place(self, t: int) -> tuple[float, float]:
        """Return the place that is tracked in frame `t`, x and y relative to the cell."""
        if (k := self._tracked) is None or t not in self._tracked_frames:
            return 0.0, 0.0
        return float(self._dx[k] + self._drift[k] * t), float(self._dy[k])


def blob_centre(drawn: Floats) -> tuple[int, int]:
    """Return how far from the middle a variance filter sees the object in `drawn`, pixels x and y.

    `drawn` is the grey of the cells alone, of odd side. The published tracks were made like this: objects
    that touch are one, and the crop is centred on both.
    """
    mean = uniform_filter(drawn, _WINDOW)
    spread = uniform_filter(drawn * drawn, _WINDOW) - mean * mean
    blobs, n = label(spread > _SPREAD_GREY**2)
    half = drawn.shape[0] // 2
    reach = CROP_SIDE // 4
    inside = blobs[half - reach : half + reach + 1, half - reach : half + reach + 1]
    if n == 0 or not inside.any():
        return 0, 0
    rows, columns = find_objects(blobs)[int(np.bincount(inside[inside > 0]).argmax()) - 1]
    x = round((columns.start + columns.stop - 1) / 2 - half)
    y = round((rows.start + rows.stop - 1) / 2 - half)
    return int(np.clip(x, -_FARTHEST_PX, _FARTHEST_PX)), int(np.clip(y, -_FARTHEST_PX, _FARTHEST_PX))


class Passage(NamedTuple):
    """A cell in focus, tracked for a given time.

    Attributes
    ----------
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
    cell : Cell
    phase : ndarray of float64, shape (n,)
        Of its cycle in each frame, 0 to 1.
    """

    crops: Grey
    cell: Cell
    phase: Floats


def simulate_passages(
    motion: Motion,
    frames: Sequence[int],
    *,
    seed: int,
    neighbours: float = 1.0,
    settings: ChamberSettings | None = None,
) -> list[Passage]:
    """Draw tracks of given lengths of cells in focus, at any phase of their turn, whether it shows or not.

    As `simulate_sequences`, but cut as this project's tracker does: on the cell, also where cells meet.

    Parameters
    ----------
    motion : Motion
    frames : sequence of int
        Length of each track.
    seed : int
    neighbours : float, optional
        Density of the passing cells, relative to `settings.cells_per_frame`.
    settings : ChamberSettings, optional
        The field must be wide enough for the longest track; the seed does not matter.

    Returns
    -------
    list of Passage

    Raises
    ------
    BadInput
        If a track has no frames, or the field is too narrow for it.
    """
    base = ChamberSettings() if settings is None else settings
    sharp = base.sharp_heights_um
    longest = int((base.width - CROP_SIDE - 1) / (1.06 * base.speed_px_per_frame(sharp[1])))
    if min(frames, default=1) < 1 or max(frames, default=1) > longest:
        raise BadInput("simulation.passage-length", longest=longest)
    rng = np.random.default_rng([seed, 8])
    library = build_library(base)
    canvases = [Canvas(replace(base, seed=1000 * seed + k), library) for k in range(4)]
    passages = []
    for k, length in enumerate(frames):
        for tried in itertools.count():
            if tried == _MAX_TRIES:
                raise BadInput("simulation.no-cell-judgeable")
            cell = draw_cell(motion, rng.uniform(*sharp), base, rng)
            phase = (rng.random() + np.arange(length) / (cell.cycle_s * base.fps)) % 1.0
            drawn = render_cell(cell, phase, base, height_drift(length, rng))
            if label_as_seen(cell, drawn, base) == cell.label and peak_contrast(drawn).min() >= VISIBLE_FROM:
                break
        v = base.speed_px_per_frame(cell.z_um) * (1 + 0.015 * float(np.clip(rng.standard_normal(), -3, 3)))
        canvas, layers = canvases[k % len(canvases)], [(1.0, library)]
        crops = cut_crops(drawn, phase, v, canvas, layers, base, neighbours, rng, as_published=False)
        passages.append(Passage(crops, cell, phase))
    return passages


_PATCH = 71  # pixels around the cell that are drawn, for the tracker to cut a crop from
_ASTRAY = 0.15
"""Share of the judged tracks that begin or end on another cell that they met; experts judge by the rest."""
_ELIMINATED = 0.3  # chance that a frame in which two cells are one object is left out, as the paper reports
_MAX_TRIES = 5000
SWITCHED = "switched"  # motion of a sequence that goes on with another cell, as poor linking leaves it


class SimulatedSequence(NamedTuple):
    """One track's crops and what is true of it.

    Attributes
    ----------
    crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
    label : int
        0 tank-treading, 1 flipping, 2 unreliable.
    motion : str
        A `Motion`, or ``switched``.
    """

    crops: Grey
    label: int
    motion: str


def simulate_sequences(
    n: int,
    *,
    seed: int,
    shares: tuple[float, float, float] = (0.35, 0.25, 0.40),
    neighbours: float = 1.5,
    settings: ChamberSettings | None = None,
    aslant: float = 0.0,
    straight: float = 0.25,
) -> list[SimulatedSequence]:
    """Draw labelled sequences: each cell is rendered on its own, its neighbours come from a library.

    Parameters
    ----------
    n : int
    seed : int
    shares : tuple of three floats, optional
        Of tank-treading, flipping and unreliable sequences. The face of a flipping cell changes by at least
        0.2 within its frames, as an expert cannot see less; unreliable ones are out of focus, roll, are
        debris or were switched by the tracker.
    neighbours : float, optional
        Density of the passing cells, relative to `settings.cells_per_frame`.
    settings : ChamberSettings, optional
        Its field and seed do not matter.
    aslant : float, optional
        If not 0, each sequence has its own illumination, for the cell and its neighbours alike:
        `Optics.aslant` evenly between 0 and this, lit from any side, in place of that in `settings`.
    straight : float, optional
        Share of these sequences whose illumination is straight all the same.

    Returns
    -------
    list of SimulatedSequence

    Raises
    ------
    BadInput
        If `aslant` or `straight` is out of range, or no cell of these settings can be judged.
    """
    if not 0.0 <= aslant <= MAX_ASLANT:
        raise BadInput("simulation.aslant-range", most=MAX_ASLANT, aslant=aslant)
    if not 0.0 <= straight <= 1.0:
        raise BadInput("simulation.straight-range", straight=straight)
    base = ChamberSettings() if settings is None else settings
    rng = np.random.default_rng([seed, 7])
    relief: list[SpriteLibrary] = []
    if aslant:
        base = _lit(base, 0.0, 0.0)
    library = build_library(base)
    if aslant:
        # Brightness is linear in `aslant`: two reliefs make that of any side and strength.
        for side_deg in (0.0, 90.0):
            pictures = build_library(_lit(base, 1.0, side_deg)).pictures - library.pictures
            relief.append(replace(library, pictures=pictures))
    canvases = [Canvas(replace(base, seed=1000 * seed + k), library) for k in range(4)]
    labels = rng.choice(3, size=n, p=np.asarray(shares) / np.sum(shares))
    lights = np.random.default_rng([seed, 9])
    made = []
    for k, kind in enumerate(labels):
        layers: list[tuple[float, SpriteLibrary]] = [(1.0, library)]
        here = base
        if aslant and lights.random() >= straight:
            how_far, side_deg = lights.uniform(0.0, aslant), lights.uniform(0.0, 360.0)
            here = _lit(base, how_far, side_deg)
            parts = math.cos(math.radians(side_deg)), math.sin(math.radians(side_deg))
            layers += [(how_far * part, one) for part, one in zip(parts, relief, strict=True)]
        canvas = canvases[k % len(canvases)]
        made.append(_sequence(int(kind), canvas, layers, here, neighbours, rng))
    return made


def _lit(settings: ChamberSettings, aslant: float, lit_from_deg: float) -> ChamberSettings:
    """Return the settings with another illumination."""
    return replace(settings, optics=replace(settings.optics, aslant=aslant, lit_from_deg=lit_from_deg))


def _draw_target(
    label: int, library: SpriteLibrary, settings: ChamberSettings, rng: np.random.Generator
) -> Cell:
    if label != NOT_JUDGEABLE:
        motion = Motion.TANK_TREADING if label == TANK_TREADING else Motion.TUMBLING
        return draw_cell(motion, rng.uniform(*settings.sharp_heights_um), settings, rng)
    motion_share = motion_shares(settings)
    motions = list(motion_share)
    speed = np.array([settings.speed_um_per_s(c.z_um) for c in library.cells])
    arriving = library.weight * library.visible * speed
    arriving /= arriving.sum()
    while True:
        motion = motions[rng.choice(len(motions), p=list(motion_share.values()))]
        # More cells that are nearly in focus than there really are: they are the hard ones.
        if rng.random() < 0.35:
            z = settings.focus_um + rng.normal(5.0, 15.0)
        else:
            z = library.cells[rng.choice(len(arriving), p=arriving)].z_um + rng.normal(0.0, 1.0)
        if not settings.lowest_um <= z <= settings.highest_um:
            continue
        return draw_cell(motion, z, settings, rng)


def _sequence(
    label: int,
    canvas: Canvas,
    layers: Sequence[tuple[float, SpriteLibrary]],
    settings: ChamberSettings,
    neighbours: float,
    rng: np.random.Generator,
) -> SimulatedSequence:
    half = CROP_SIDE // 2
    library = layers[0][1]
    switched = label == NOT_JUDGEABLE and rng.random() < 0.15
    for tried in itertools.count():
        if tried == _MAX_TRIES:
            raise BadInput("simulation.no-cell-judgeable")
        cell = _draw_target(int(rng.integers(0, 3)) if switched else label, library, settings, rng)
        v = settings.speed_px_per_frame(cell.z_um) * (1 + 0.015 * rng.standard_normal())
        longest = max(6, min(105, int((settings.width - 2 * half - 2) / v)))
        wanted = rng.gamma(6.0, 6.0) if label != NOT_JUDGEABLE else rng.gamma(3.0, 12.0)
        length = int(np.clip(wanted, 6, longest))
        phase = (rng.random() + np.arange(length) / (cell.cycle_s * settings.fps)) % 1.0
        face = np.abs(cell.axes(phase)[:, 2])
        drawn = render_cell(cell, phase, settings, height_drift(length, rng))
        judged = label_as_seen(cell, drawn, settings)
        if judged != (cell.label if switched else label):
            continue
        shows = judged != FLIPPING or np.ptp(face) >= 0.2
        if shows and peak_contrast(drawn).min() >= VISIBLE_FROM:
            break
    of_label = {"switched": switched, "judgeable": label != NOT_JUDGEABLE}
    crops = cut_crops(drawn, phase, v, canvas, layers, settings, neighbours, rng, **of_label)
    return SimulatedSequence(crops, label, SWITCHED if switched else str(cell.motion))


def height_drift(length: int, rng: np.random.Generator) -> Floats:
    """Return a slow drift of a cell's height, which changes focus and contrast along its track."""
    return rng.normal(0.0, 1.5) * np.linspace(-1, 1, length) + 0.5 * np.sin(
        2 * np.pi * (rng.random() + np.arange(length) / rng.uniform(20.0, 60.0))
    )


def cut_crops(
    images: Floats32,
    phase: Floats,
    v: float,
    canvas: Canvas,
    layers: Sequence[tuple[float, SpriteLibrary]],
    settings: ChamberSettings,
    neighbours: float,
    rng: np.random.Generator,
    *,
    judgeable: bool = True,
    switched: bool = False,
    as_published: bool = True,
) -> Grey:
    """Cut the crops of a cell (`images` as `render_cell` returns them) that moves by `v` px a frame.

    Its neighbours are the sum of `layers`: the library, and its reliefs by their shares. With `as_published`
    the crops show what the published tracker did when cells met.
    """
    library = layers[0][1]
    half, length = CROP_SIDE // 2, len(phase)
    x0 = rng.uniform(half, max(half + 1, settings.width - 1 - half - v * (length - 1)))
    y = rng.integers(2 * half, 2 * (settings.height - 1 - half)) / 2.0
    x = x0 + v * np.arange(length)
    start = int(rng.integers(0, 100_000))
    mine = half_pixel_phases(images)
    side = images.shape[1] // 2
    change = int(rng.uniform(0.15, 0.85) * length) if switched else length
    share = library.weight * library.visible
    share = share / share.sum()
    passing = Neighbours(length, v, library, settings, neighbours, rng)
    if as_published and judgeable and rng.random() < _ASTRAY:
        passing.lead_astray(library, rng)
    # Where the tracker switched, another cell takes this one's place.
    other = int(rng.choice(len(library.weight), p=share))
    # A tracker cuts at whole pixels, and not always at the right one.
    jitter = 0.3 * rng.standard_normal((length, 2))
    crops: list[Grey] = []
    for t in range(length):
        kinds, dx, dy, phases = passing.at(t)
        to_x, to_y = passing.tracked_place(t)
        centre_x = int(np.rint(x[t] + to_x + jitter[t, 0]))
        centre_y = int(np.rint(y + to_y + jitter[t, 1]))
        left, top = centre_x - _PATCH // 2, centre_y - _PATCH // 2
        rows = np.clip(np.arange(top, top + _PATCH), 0, settings.height - 1)
        columns = np.clip(np.arange(left, left + _PATCH), 0, settings.width - 1)
        light = canvas.light[rows[:, None], columns]
        lit = np.rint(light * GREY_ONE).astype(np.int16)
        drawn = np.zeros((_PATCH, _PATCH), np.int16)
        here = np.array([x[t] - left]), np.array([y - top])
        if t < change:
            add_cells(drawn, lit, mine, np.array([t * 4 * side * side]), np.array([side]), *here)
        else:
            _add_layers(drawn, lit, layers, np.array([other]), *here, phase[t : t + 1])
        _add_layers(drawn, lit, layers, kinds, x[t] + dx - left, y + dy - top, phases)
        off_x, off_y = 0, 0
        if as_published and (np.hypot(dx - to_x, dy - to_y) < NEAR_PX).any():
            off_x, off_y = blob_centre(drawn / GREY_ONE)
            merged = max(abs(off_x), abs(off_y)) > 3
            if merged and len(crops) >= 6 and rng.random() < _ELIMINATED:
                continue
        cut = np.s_[
            _PATCH // 2 - half + off_y : _PATCH // 2 + half + 1 + off_y,
            _PATCH // 2 - half + off_x : _PATCH // 2 + half + 1 + off_x,
        ]
        noise = canvas.noise_grey * rng.standard_normal((CROP_SIDE, CROP_SIDE))
        grey = light[cut] * canvas.gain(start + t) + drawn[cut] / GREY_ONE + noise
        crops.append(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    return np.stack(crops)


def _add_layers(
    drawn: NDArray[np.int16],
    lit: NDArray[np.int16],
    layers: Sequence[tuple[float, SpriteLibrary]],
    kinds: Ints,
    x: Floats,
    y: Floats,
    phases: Floats,
) -> None:
    """Add cells of the library, and of its reliefs by their shares."""
    for share, library in layers:
        add_library_cells(drawn, np.rint(share * lit).astype(np.int16), library, kinds, x, y, phases)
