"""Where a track says that its cell was: below a pixel, and the same however its light is spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rbcflow.simulation.optics import Optics
from napari_rbcflow.simulation.population import Scene
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.tracking.background import MovieBackground
from napari_rbcflow.tracking.positions import CentroidFinder, centre_offset, refined
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import Frame


@pytest.mark.parametrize(("aslant", "rms_px"), [(0.0, 0.3), (0.5, 0.8)])
def test_positions_of_lone_cells_of_the_chamber_are_right_below_a_pixel(aslant: float, rms_px: float) -> None:
    # No cells so far above the focus that their picture is two lobes, which pass for two cells.
    chamber = ChamberSettings(
        height=400,
        width=900,
        cells_per_frame=20,
        seed=4,
        seconds=2.0,
        variety=0.3,
        highest_um=140,
        optics=Optics(aslant=aslant, lit_from_deg=250.0),
    )
    scene = Scene(chamber)
    images = np.stack([scene.next_frame() for _ in range(120)])
    truth = scene.truth()
    tracker = Tracker(
        400,
        900,
        fps=chamber.fps,
        pixel_size_um=chamber.pixel_size_um,
        background=MovieBackground(images[::2]),
    )
    tracks = [k for t, image in enumerate(images) for k in tracker.process(Frame(t, t / 60, image))]
    tracks += tracker.finish("source-ended")

    rows = truth.loc[truth.index.repeat(truth.frames)]
    frame = np.concatenate([np.arange(t, t + n) for t, n in zip(truth.t0, truth.frames, strict=True)])
    # Frames far apart, so that a neighbour in the tree is one of the same frame.
    places = np.column_stack([1e4 * frame, rows.y, rows.x0 + rows.v * (frame - rows.t0)])
    tree = cKDTree(places)
    lone = tree.query(places, k=2)[0][:, 1] > 25
    found = np.concatenate([np.column_stack([1e4 * k.frames, k.y_px, k.x_px]) for k in tracks])
    distance, which = tree.query(found)
    ours = (distance < 9) & lone[np.minimum(which, len(lone) - 1)]
    off = (found - places[which])[ours, 1:]
    assert len(off) > 1000
    assert (np.sqrt((off**2).mean(axis=0)) < rms_px).all()


def a_cell(side: int, y: float, x: float, unit: float, uneven: float = 8.0) -> NDArray[np.float64]:
    """A cell whose lower rim is three times as dark as its upper one, unless it is even; middle at (y, x)."""
    yy, xx = np.mgrid[:side, :side].astype(np.float64)
    r, turn = np.hypot(yy - y, xx - x) / unit, (yy - y) / unit / 6
    return 10 * np.exp(-((r / 3) ** 2)) - (15 + uneven * np.clip(turn, -1, 1)) * np.exp(
        -(((r - 6) / 1.8) ** 2)
    )


# A cell stands within two and a half pixels of where it is looked for.
@given(st.floats(-2.5, 2.5), st.floats(-2.5, 2.5), st.sampled_from([0.605, 0.3025, 0.9]))
@settings(max_examples=30, deadline=None)
def test_the_middle_is_that_of_the_outline_and_not_of_the_darkness(
    dy: float, dx: float, pixel_size_um: float
) -> None:
    unit = 0.605 / pixel_size_um
    at = 60.0
    noise = np.random.default_rng(3).normal(0, 1.8, (121, 121))
    for uneven, noisy, most in ((8.0, noise, 0.35), (0.0, 0.0, 0.1)):
        cell = a_cell(121, at + dy * unit, at + dx * unit, unit, uneven)
        image = np.clip(np.rint(128 + cell + noisy), 0, 255).astype(np.uint8)
        background = np.full_like(image, 128)
        where = np.array([at], np.float32)
        ((y, x),) = CentroidFinder(pixel_size_um).centroids(image, background, 1.0, where, where)
        assert abs(y - at - dy * unit) < most * unit
        assert abs(x - at - dx * unit) < most * unit


def test_a_middle_is_found_at_the_edge_and_beyond_it() -> None:
    image = np.full((40, 50), 100, np.uint8)
    where = np.array([-5, 0, 39, 44, 20], np.float32)
    found = CentroidFinder(0.3025).centroids(image, image, 1.0, where, where)
    assert np.isfinite(found).all()


@given(st.integers(3, 80), st.floats(3, 80), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_steady_way_is_found_through_gaps_and_wild_middles(n: int, speed: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = np.sort(rng.choice(2 * n, n, replace=False)).astype(np.int64) + 7
    x, y = 11.3 + speed * (frames - 7), np.full(n, 50.4)
    centroids = np.column_stack([y, x]) + rng.normal(0, 0.1, (n, 2))
    centroids[rng.random(n) < 0.5] = np.nan
    wild = rng.random(n) < 0.1 if n > 30 else np.zeros(n, bool)
    centroids[wild] += 6
    tracked = x + rng.normal(0, 0.5, n)
    xs, ys = refined(
        frames,
        tracked.astype(np.float32),
        y.astype(np.float32),
        centroids.astype(np.float32),
        wild & (rng.random(n) < 0.5),
        unit_px=1.0,
    )
    assert xs.dtype == ys.dtype == np.float32
    inner = slice(n // 4, n - n // 4)  # a wild middle near an end has only one side to mend it
    measured = (~np.isnan(centroids[:, 0])).sum()
    assert np.abs(xs - x)[inner].max() < (0.5 if measured > 2 else 2.0)
    assert np.abs(ys - y)[inner].max() < 0.5


@pytest.mark.parametrize("n", [1, 2])
def test_a_track_of_one_or_two_positions_stays_as_it_is(n: int) -> None:
    given_x = np.arange(n, dtype=np.float32)
    x, y = refined(
        np.arange(n), given_x, given_x, np.full((n, 2), 9, np.float32), np.zeros(n, bool), unit_px=1.0
    )
    np.testing.assert_array_equal(x, given_x)
    np.testing.assert_array_equal(y, given_x)


def relief(y: float, x: float, turn: float, share: float) -> NDArray[np.float64]:
    """A red cell in a wide picture, lit from a side: its blurred slope beside its own picture."""
    yy, xx = np.mgrid[:49, :49] - 24.0
    r = np.hypot(yy - y, xx - x)
    dome = np.exp(-((r / 6.5) ** 4)) - 0.45 * np.exp(-((r / 3) ** 2))
    slope_y, slope_x = np.gradient(dome)
    own = 13 * np.exp(-((r / 3) ** 2)) - 9 * np.exp(-(((r - 6) / 1.8) ** 2))
    return (1 - share) * own + 100 * share * (np.sin(turn) * slope_y + np.cos(turn) * slope_x)


@given(
    st.floats(-5, 5),
    st.floats(-5, 5),
    st.floats(0, 6.3),
    st.sampled_from([0.0, 0.05, 0.9, 1.0]),
    st.integers(6, 40),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_cell_is_centred_whichever_side_is_bright(
    dy: float, dx: float, turn: float, share: float, n: int
) -> None:
    rng = np.random.default_rng(n)
    pictures = 125 + relief(dy, dx, turn, share) + rng.normal(0, 2, (n, 49, 49))
    pictures = np.clip(np.rint(pictures), 0, 255).astype(np.uint8)
    seen, other = np.ones(n, bool), np.zeros(n, bool)
    y, x = centre_offset(pictures, np.full((n, 2), 24), seen, other, other)
    assert np.hypot(y - dy, x - dx) < 1.0


def test_a_track_without_a_cell_is_left_where_it_is() -> None:
    blank, none = np.full((3, 49, 49), 120, np.uint8), np.zeros(3, bool)
    assert centre_offset(blank, np.full((3, 2), 24), none, none, none) == (0.0, 0.0)
