"""What holds of the parts of tracking for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_rbcflow.tracking.background import SlidingBackground, median_rows
from napari_rbcflow.tracking.crops import Cropper, FlowAxes
from napari_rbcflow.tracking.detection import contrast_of
from napari_rbcflow.tracking.initiation import backfilled
from napari_rbcflow.tracking.linker import Linker, assign
from napari_rbcflow.tracking.motion import FlowDetections
from napari_rbcflow.tracking.settings import TrackingSettings


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_median_is_numpys(n: int, seed: int) -> None:
    samples = np.random.default_rng(seed).integers(0, 256, (n, 37, 11)).astype(np.uint8)
    out = np.zeros((37, 11), np.uint8)
    median_rows(samples, out, 3, 37)
    np.testing.assert_array_equal(out[3:], np.sort(samples, axis=0)[(n - 1) // 2, 3:])
    assert not out[:3].any()


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_an_assignment_is_one_to_one_within_its_gates_and_the_least(
    rows: int, columns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cost = np.where(rng.random((rows, columns)) < 0.3, rng.uniform(0, 20, (rows, columns)), np.inf)
    i, j = assign(cost, 16.0)
    assert len(set(i.tolist())) == len(i) == len(j) == len(set(j.tolist()))
    assert (cost[i, j] < 16).all()
    total = cost[i, j].sum() + 16 * (rows - len(i))
    from scipy.optimize import linear_sum_assignment

    square = np.full((rows, columns + rows), 16.0)
    square[:, :columns] = np.minimum(cost, 1000)
    a, b = linear_sum_assignment(square)
    assert abs(square[a, b].sum() - total) < 1e-9


def test_the_sliding_background_follows_the_light_and_takes_in_what_stays() -> None:
    rng = np.random.default_rng(0)
    background = SlidingBackground(64, 80, fps=60)
    for t in range(1200):
        image = rng.normal(120 + t / 60, 1.6, (64, 80))
        if t > 300:
            image[20:30, 20:30] += 30  # a cell sticks
        background.add(np.clip(image, 0, 255).astype(np.uint8))
        if t == 59:
            assert background.ready  # within the first second
            early = background.image
            before = early.copy()
    assert abs(float(background.image[40:].mean()) - (120 + 1200 / 60 - 4)) < 1.5
    assert float(background.image[20:30, 20:30].mean()) - float(background.image[40:].mean()) > 25
    np.testing.assert_array_equal(early, before)  # what was handed out is never written into


def test_the_sliding_background_is_the_median_of_its_samples() -> None:
    frames = np.random.default_rng(2).integers(90, 160, (120, 50, 60)).astype(np.uint8)
    background = SlidingBackground(50, 60, fps=60, samples=5, span_s=0.5, first_s=0.2)
    for image in frames:
        background.add(image)
    windows = [np.median(frames[k : k + 25 : 6], axis=0) for k in range(60, 96)]
    assert any((background.image == w).all() for w in windows)


@given(st.sampled_from([0.605, 0.603, 0.3025, 0.4, 0.9, 1.21]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_crop_keeps_its_scale_and_its_grey(pixel_size_um: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ramp = np.tile(np.linspace(20, 220, 300), (260, 1))
    image = ramp.astype(np.uint8)
    y = rng.uniform(-5, 265, 6).astype(np.float32)
    x = rng.uniform(-5, 305, 6).astype(np.float32)
    cropper = Cropper(*image.shape, pixel_size_um)
    pictures, edge = cropper.cut(image, y, x)
    crops, same_edge = cropper.trim(pictures, y, x, np.zeros((6, 2), np.int64))
    np.testing.assert_array_equal(edge, same_edge)
    half = 15.5 * 0.605 / pixel_size_um
    for k in range(6):
        inside = half + 1 < x[k] < 298 - half and half + 1 < y[k] < 258 - half
        assert not (edge[k] and inside)
        if x[k] < half - 1.5 or y[k] > 260.5 - half:
            assert edge[k]
        if inside:
            slope = 200 / 299 * 0.605 / pixel_size_um
            line = crops[k].astype(float).mean(axis=0)
            assert abs(line[15] - (20 + 200 / 299 * float(x[k]))) < 1.5
            assert abs((line[30] - line[0]) / 30 - slope) < 0.05


@given(st.sampled_from([0.605, 0.603, 0.3025, 0.4, 0.9, 1.21]), st.floats(60, 200), st.floats(60, 240))
@settings(max_examples=40, deadline=None)
def test_a_cell_lies_in_its_crop_where_its_position_says(pixel_size_um: float, y: float, x: float) -> None:
    """Half a pixel at most from the middle, and as far as `shifts` says."""
    cropper = Cropper(260, 300, pixel_size_um)
    at_y, at_x = np.mgrid[:260, :300]
    blob = np.exp(-((at_y - y) ** 2 + (at_x - x) ** 2) / (2 * (3 * cropper.ratio) ** 2))
    at = np.float32([y]), np.float32([x])
    wide, _ = cropper.cut(np.rint(20 + 200 * blob).astype(np.uint8), *at)
    crop = cropper.trim(wide, *at, np.zeros((1, 2), np.int64))[0][0] - 20.0
    for axis, centre in zip((1, 0), at, strict=True):
        profile, shift = crop.sum(axis=axis), float(cropper.shifts(centre, centre)[0])
        assert abs(shift) <= 0.501 / cropper.ratio
        assert abs(profile @ np.arange(31) / profile.sum() - 15 - shift) < 0.05


@given(st.sampled_from([0.605, 0.6, 0.3025, 0.9]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_crop_taken_out_of_a_wide_picture_is_the_one_cut_there(pixel_size_um: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (260, 300)).astype(np.uint8)
    cropper = Cropper(*image.shape, pixel_size_um)
    # Within one per cent of the reference a camera's pixel is a crop's.
    unit = 1.0 if pixel_size_um in (0.605, 0.6) else 0.605 / pixel_size_um
    if unit == 1.0:
        assert cropper.shifts(np.float32([7]), np.float32([7])).tolist() == [0.0]
    shifts = rng.integers(-4, 5, (6, 2)) * (1 if unit != 0.605 / 0.9 else 0)
    y = rng.integers(-5, 265, 6).astype(np.float32)
    x = rng.integers(-5, 305, 6).astype(np.float32)
    there_y, there_x = (
        at + (unit * by).astype(np.float32) for at, by in ((y, shifts[:, 0]), (x, shifts[:, 1]))
    )
    np.testing.assert_allclose(cropper.shifts(y, there_y) - cropper.shifts(y, y), shifts[:, 0], atol=1e-4)
    none = np.zeros((6, 2), np.int64)
    moved = cropper.trim(cropper.cut(image, y, x)[0], y, x, shifts)
    cut = cropper.trim(cropper.cut(image, there_y, there_x)[0], there_y, there_x, none)
    for one, other in zip(moved, cut, strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.integers(64, 4000), st.sampled_from([0.5, 0.7, 1.0, 2.0]))
def test_a_flow_to_the_left_is_one_to_the_right_in_a_mirror(width: int, scale: float) -> None:
    right, left = (FlowAxes(width, scale, mirrored=mirrored) for mirrored in (False, True))
    y, x = np.float32([3, 4, 5]), np.float32([0, width / 3, width - 1])
    for one, other in zip(left.to_flow(y, x), right.to_flow(y, width - 1 - x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    np.testing.assert_allclose(left.to_camera(*left.to_flow(y, x))[1], x, atol=1e-3)


class Everywhere:
    """A field in which something is wherever one looks."""

    def log_energy_at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full(len(x), 3.0)

    def relative_contrasts(self, frame: int, detections: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full(len(detections), 2.0)

    def relative_contrast_at(self, frame: int, x: float, y: float) -> float:
        return 2.0


def test_two_cells_that_cannot_be_told_apart_are_ended_and_not_swapped() -> None:
    linker = Linker(1000.0, fps=60, settings=TrackingSettings())
    reasons = []
    for t in range(20):
        x = 20.0 + 10 * t
        if t < 10:
            detections = [(x, 100.0), (x + 10, 100.0)]
        elif t < 13:
            detections = [(x + 5, 100.0)]
        else:  # they part upwards and downwards: either can be either
            detections = [(x + 5, 96.0), (x + 5, 104.0)]
        linked = linker.step(
            FlowDetections(
                t,
                np.array([s[0] for s in detections]),
                np.array([s[1] for s in detections]),
                np.full(len(detections), 3.0),
            ),
            Everywhere(),
        )
        reasons += [end.reason for end in linked.ended]
        if t == 13:
            assert reasons == ["ambiguous", "ambiguous"]
    assert sorted(linker.motion.cell.tolist()) == [3, 4]


@pytest.mark.parametrize("fps", [24.0, 60.0, 150.0])
def test_speeds_and_gaps_are_those_of_time_and_not_of_frames(fps: float) -> None:
    """2 to 95 px in a 60th of a second are a cell's speed, and a sixth of a second is not too long a gap."""

    def linked(speed_px: float, gap_s: float = 0.0) -> list[int]:
        linker, step, gap = Linker(5000.0, fps=fps, settings=TrackingSettings()), speed_px * 60 / fps, 0
        for t in range(16):
            if t == 12:
                gap = round(gap_s * fps)
            x = np.array([20.0 + step * (t + gap)])
            linker.step(FlowDetections(t + gap, x, np.array([100.0]), np.array([3.0])), Everywhere())
        return linker.motion.cell.tolist()

    assert [linked(speed) for speed in (1.8, 2.2, 90.0, 100.0)] == [[], [1], [1], []]
    assert [linked(10.0, gap_s) for gap_s in (0.155, 0.22)] == [[1], [2]]


@given(st.floats(0.0, 0.12), st.integers(3, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_contrast_of_a_track_is_that_of_its_mean_picture(share: float, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:31, :31] - 15
    blob = np.exp(-(y**2 + x**2) / (2 * 5.0**2))
    light = rng.uniform(70, 200)
    crops = np.clip(np.rint(light * (1 - share * blob) + rng.normal(0, 1.6, (n, 31, 31))), 0, 255)
    alone = np.ones(n, np.bool_)
    intruded = rng.random(n) < 0.5
    crops[intruded, 5:9, 5:9] = 0  # a neighbour, which must not make a pale cell clear
    intruded[:3] = False
    crops[:3, 5:9, 5:9] = light
    contrast = contrast_of(crops.astype(np.uint8), alone, intruded, ~alone)
    noise = 5 * 1.6 * 0.19 / np.sqrt(np.count_nonzero(~intruded)) / light
    assert abs(contrast - share * 0.92) < 0.1 * share + noise


def test_a_track_is_carried_back_to_the_edge_and_no_farther_than_something_is_there() -> None:
    candidate = {t: (5.0 + 20 * t, 50.0, 3.0) for t in (3, 5, 6)}
    back = backfilled(candidate, [5, 4, 3, 2, 1, 0], Everywhere())
    assert back == {t: (5.0 + 20 * t, 50.0, t in candidate) for t in range(6)}

    class EmptyAtFirst(Everywhere):
        def relative_contrast_at(self, frame: int, x: float, y: float) -> float:
            return 2.0 if frame > 1 else 0.5

    assert min(backfilled(candidate, [5, 4, 3, 2, 1, 0], EmptyAtFirst())) == 2
    in_mid_field = {t: (400.0 + 20 * t, 50.0, 3.0) for t in (3, 5, 6)}
    assert min(backfilled(in_mid_field, [5, 4, 3, 2, 1, 0], Everywhere())) == 3
