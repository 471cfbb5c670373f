"""Single labelled sequences for training: what a tracker would cut out of a simulated chamber."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.conventions import CROP_SIDE
from napari_rbcflow.sources.chamber.blood import FLIPPING, NOT_JUDGEABLE, TANK_TREADING, Cell, draw_cell
from napari_rbcflow.sources.chamber.canvas import GREY_ONE, Canvas, add_cells, add_library_cells
from napari_rbcflow.sources.chamber.library import (
    VISIBLE_FROM,
    SpriteLibrary,
    build_library,
    half_pixel_phases,
    motion_shares,
    picture,
    strength,
)
from napari_rbcflow.sources.chamber.motion import Motion
from napari_rbcflow.sources.chamber.settings import ChamberSettings

_TOUCHING_PX = 16.0
SWITCHED = "switched"
"""Motion of a sequence that begins with one cell and goes on with another, as poor linking leaves it."""


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

    crops: NDArray[np.uint8]
    label: int
    motion: str


def simulate_sequences(
    n: int,
    *,
    seed: int,
    shares: tuple[float, float, float] = (0.35, 0.25, 0.40),
    neighbours: float = 1.5,
    settings: ChamberSettings | None = None,
) -> list[SimulatedSequence]:
    """Draw labelled sequences: each cell is rendered for itself, neighbours come from a library.

    Parameters
    ----------
    n : int
    seed : int
    shares : tuple of three floats, optional
        Of tank-treading, flipping and unreliable sequences. Flipping ones show a change of face of at
        least 0.3 within their frames, since an expert sees no more than that; unreliable ones are out of
        focus, roll, are debris or were switched by the tracker.
    neighbours : float, optional
        How dense the passing cells are, relative to `settings.cells_per_frame`.
    settings : ChamberSettings, optional
        Its field and seed do not matter.

    Returns
    -------
    list of SimulatedSequence
    """
    base = ChamberSettings() if settings is None else settings
    rng = np.random.default_rng([seed, 7])
    library = build_library(base)
    canvases = [Canvas(replace(base, seed=1000 * seed + k), library) for k in range(4)]
    labels = rng.choice(3, size=n, p=np.asarray(shares) / np.sum(shares))
    return [
        _sequence(int(label), canvases[k % len(canvases)], library, base, neighbours, rng)
        for k, label in enumerate(labels)
    ]


def _draw_target(
    label: int, library: SpriteLibrary, settings: ChamberSettings, rng: np.random.Generator
) -> Cell:
    sharp = (settings.focus_um + settings.sharp_from_um, settings.focus_um + settings.sharp_to_um)
    if label == TANK_TREADING:
        return draw_cell(Motion.TANK_TREADING, rng.uniform(*sharp), settings, rng)
    if label == FLIPPING:
        return draw_cell(Motion.TUMBLING, rng.uniform(*sharp), settings, rng)
    motion_share = motion_shares(settings)
    motions = list(motion_share)
    speed = np.array([settings.speed_um_per_s(c.z_um) for c in library.cells])
    arriving = library.weight * library.visible * speed
    arriving /= arriving.sum()
    while True:
        motion = motions[rng.choice(len(motions), p=list(motion_share.values()))]
        # More of those that nearly are in focus than there are: they are the hard ones.
        if rng.random() < 0.35:
            z = settings.focus_um + rng.normal(5.0, 15.0)
        else:
            z = library.cells[rng.choice(len(arriving), p=arriving)].z_um + rng.normal(0.0, 1.0)
        if not settings.lowest_um <= z <= settings.highest_um:
            continue
        cell = draw_cell(motion, z, settings, rng)
        if cell.label == NOT_JUDGEABLE:
            return cell


class _Passers:
    """Neighbours as seen by a cell that moves with `v`: those of other heights overtake or fall back."""

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
        speed = np.array([settings.speed_px_per_frame(c.z_um) for c in library.cells])
        far = self._REACH + float(np.abs(speed - v).max()) * length
        area = 2 * far * 2 * self._REACH
        share = library.weight / library.weight.sum()
        a_frame = settings.cells_per_frame * float(library.weight.sum())
        mean = density * a_frame / (settings.height * settings.width) * area
        n = int(rng.poisson(mean))
        self._kind = rng.choice(len(speed), size=n, p=share)
        self._drift = speed[self._kind] * (1 + 0.015 * rng.standard_normal(n)) - v
        self._dx = rng.uniform(-far, far, n)
        self._dy = np.rint(rng.uniform(-2 * self._REACH, 2 * self._REACH, n)) / 2.0
        self._phase = rng.random(n)
        cycle_s = np.array([c.cycle_s for c in library.cells])
        self._turn = 1.0 / (cycle_s[self._kind] * settings.fps)

    def at(
        self, t: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Kinds, offsets x and y from the cell, and phases of those near it in frame `t`."""
        dx = self._dx + self._drift * t
        near = np.abs(dx) < self._REACH
        phase = (self._phase[near] + self._turn[near] * t) % 1.0
        return self._kind[near], dx[near], self._dy[near], phase


def _pull(dx: NDArray[np.float64], dy: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float]:
    """Return how far a tracker's centre is drawn towards a neighbour that touches the cell, pixels."""
    away = np.hypot(dx, dy)
    if not len(away) or away.min() > _TOUCHING_PX or rng.random() < 0.5:
        return 0.0, 0.0
    nearest, share = int(away.argmin()), float(rng.uniform(0.1, 0.5))
    return round(share * dx[nearest]), round(share * dy[nearest])


def _sequence(
    label: int,
    canvas: Canvas,
    library: SpriteLibrary,
    settings: ChamberSettings,
    neighbours: float,
    rng: np.random.Generator,
) -> SimulatedSequence:
    half = CROP_SIDE // 2
    switched = label == NOT_JUDGEABLE and rng.random() < 0.15
    while True:
        cell = _draw_target(int(rng.integers(0, 3)) if switched else label, library, settings, rng)
        v = settings.speed_px_per_frame(cell.z_um) * (1 + 0.015 * rng.standard_normal())
        longest = max(6, min(105, int((settings.width - 2 * half - 2) / v)))
        wanted = rng.gamma(6.0, 6.0) if label != NOT_JUDGEABLE else rng.gamma(3.0, 12.0)
        length = int(np.clip(wanted, 6, longest))
        phase = (rng.random() + np.arange(length) / (cell.cycle_s * settings.fps)) % 1.0
        face = np.abs(cell.axes(phase)[:, 2])
        # Cells do not keep their height to the micrometre: focus and contrast change along a track.
        drift = rng.normal(0.0, 1.5) * np.linspace(-1, 1, length) + 0.5 * np.sin(
            2 * np.pi * (rng.random() + np.arange(length) / rng.uniform(20.0, 60.0))
        )
        drawn_fine = picture(cell, phase, settings, drift)
        shows = label != FLIPPING or np.ptp(face) >= 0.3
        if shows and strength(drawn_fine).min() >= VISIBLE_FROM:
            break
    x0 = rng.uniform(half, max(half + 1, settings.width - 1 - half - v * (length - 1)))
    y = rng.integers(2 * half, 2 * (settings.height - 1 - half)) / 2.0
    x = x0 + v * np.arange(length)
    start = int(rng.integers(0, 100_000))
    mine = half_pixel_phases(drawn_fine)
    side = drawn_fine.shape[1] // 2
    change = int(rng.uniform(0.15, 0.85) * length) if switched else length
    share = library.weight * library.visible
    share = share / share.sum()
    passers = _Passers(length, v, library, settings, neighbours, rng)
    # Where the tracker switched, another cell stands in this one's place from then on.
    other = int(rng.choice(len(library.weight), p=share))
    # A tracker cuts at whole pixels, and not always at the right one.
    cut_x = np.rint(x + 0.3 * rng.standard_normal(length)).astype(int)
    cut_y = np.rint(y + 0.3 * rng.standard_normal(length)).astype(int)
    cut_x = np.clip(cut_x, half, settings.width - 1 - half)
    cut_y = np.clip(cut_y, half, settings.height - 1 - half)
    crops = np.empty((length, CROP_SIDE, CROP_SIDE), np.uint8)
    for t in range(length):
        kinds, dx, dy, phases = passers.at(t)
        off_x, off_y = _pull(dx, dy, rng)
        left = int(np.clip(cut_x[t] + off_x, half, settings.width - 1 - half)) - half
        top = int(np.clip(cut_y[t] + off_y, half, settings.height - 1 - half)) - half
        light = canvas.light[top : top + CROP_SIDE, left : left + CROP_SIDE]
        lit = np.rint(light * GREY_ONE).astype(np.int16)
        drawn = np.zeros((CROP_SIDE, CROP_SIDE), np.int16)
        here = np.array([x[t] - left]), np.array([y - top])
        if t < change:
            add_cells(drawn, lit, mine, np.array([t * 4 * side * side]), np.array([side]), *here)
        else:
            add_library_cells(drawn, lit, library, np.array([other]), *here, phase[t : t + 1])
        add_library_cells(drawn, lit, library, kinds, x[t] + dx - left, y + dy - top, phases)
        noise = canvas.noise_grey * rng.standard_normal((CROP_SIDE, CROP_SIDE))
        grey = light * canvas.gain(start + t) + drawn / GREY_ONE + noise
        crops[t] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return SimulatedSequence(crops, label, SWITCHED if switched else str(cell.motion))
