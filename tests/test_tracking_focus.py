"""A frame out of focus is left out and said so; a field with few cells or none is not called so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_rbcflow.simulation.canvas import Canvas
from napari_rbcflow.simulation.library import SpriteLibrary, half_pixel_phases, render_cell
from napari_rbcflow.simulation.population import Scene
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.tracking.background import Background, MovieBackground, SlidingBackground
from napari_rbcflow.tracking.focus import Focus, SharpnessHistory
from napari_rbcflow.tracking.motion import Motion
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import Frame

Images = NDArray[np.uint8]
HEIGHT, WIDTH, FRAMES = 500, 900, 130
TURNED = range(70, 85)
"""Frames in which the knob is turned."""


def refocused(library: SpriteLibrary, settings: ChamberSettings, by_um: float) -> SpriteLibrary:
    """The same cells, seen with the focus elsewhere."""
    parts = [
        half_pixel_phases(
            render_cell(replace(cell, defocus_um=cell.defocus_um - by_um), np.arange(n) / n, settings)
        )
        for cell, n in zip(library.cells, library.count, strict=True)
    ]
    sizes = np.array([part.size for part in parts])
    return replace(
        library,
        pictures=np.concatenate(parts),
        first=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        side=np.sqrt(sizes // library.count // 4).round().astype(np.int64),
    )


def film(cells_per_frame: float, turned: dict[int, float], *, seed: int = 3) -> Images:
    """A chamber whose focus stands elsewhere, by so many micrometres, in the frames named."""
    settings = ChamberSettings(
        height=HEIGHT, width=WIDTH, cells_per_frame=cells_per_frame, seed=seed, variety=0.15
    )
    scene = Scene(settings)
    usual = scene._canvas
    canvases = {um: Canvas(settings, refocused(scene.library, settings, um)) for um in set(turned.values())}
    images = []
    for t in range(FRAMES):
        scene._canvas = canvases[turned[t]] if t in turned else usual
        images.append(scene.next_frame())
    return np.stack(images)


def left_out(images: Images, background: Background | None = None) -> tuple[list[int], Tracker]:
    """Frames in which nothing was looked for."""
    tracker = Tracker(
        *images.shape[1:], fps=60, pixel_size_um=0.605, background=background or MovieBackground(images[::2])
    )
    out = []
    for t, image in enumerate(images):
        before = sum(tracker.not_analysed.values())
        tracker.process(Frame(t, t / 60, image))
        if sum(tracker.not_analysed.values()) > before:
            out.append(t)
    tracker.finish("source-ended")
    assert set(tracker.not_analysed) <= {"out-of-focus"}
    return out, tracker


def blurred(images: Images, frames: range, sigma: float, noise: float) -> Images:
    rng = np.random.default_rng(0)
    out = images.copy()
    for t in frames:
        smooth = gaussian_filter(images[t].astype(np.float64), sigma)
        out[t] = np.clip(smooth + rng.normal(0, noise, smooth.shape), 0, 255).astype(np.uint8)
    return out


@pytest.fixture(scope="module")
def usual() -> Images:
    return film(45, {})


def test_a_normal_movie_has_no_frame_out_of_focus(usual: Images) -> None:
    assert left_out(usual)[0] == []
    assert left_out(usual, SlidingBackground(HEIGHT, WIDTH, fps=60))[0] == []


@pytest.mark.parametrize("by_um", [-50.0, 60.0])
def test_frames_in_which_someone_turned_the_knob_are_left_out(by_um: float) -> None:
    images = film(45, dict.fromkeys(TURNED, by_um))
    out, tracker = left_out(images)
    assert set(out) <= set(TURNED)
    assert len(out) > 0.6 * len(TURNED)
    assert tracker.processed == FRAMES


def test_a_stage_that_drops_leaves_nothing_to_analyse() -> None:
    out, _ = left_out(film(45, dict.fromkeys(range(60, FRAMES), 200.0)))
    assert set(out) == set(range(60, FRAMES))
    never, _ = left_out(film(45, dict.fromkeys(range(FRAMES), 200.0)))
    assert len(never) > 0.9 * FRAMES


@pytest.mark.parametrize(("sigma", "noise"), [(2.0, 0.0), (3.0, 2.3), (8.0, 2.3)])
def test_blurred_frames_are_left_out(usual: Images, sigma: float, noise: float) -> None:
    out, _ = left_out(blurred(usual, TURNED, sigma, noise))
    assert out == list(TURNED)


@pytest.mark.parametrize("cells_per_frame", [0.5, 4.0, 10.0])
def test_a_field_with_few_cells_is_not_out_of_focus(cells_per_frame: float) -> None:
    images = film(cells_per_frame, {}, seed=7)
    assert left_out(images)[0] == []


def test_cells_that_end_at_once_or_stand_still_are_no_matter_of_focus(usual: Images) -> None:
    """An empty field after a full one, and a pump that stops."""
    empty = film(0.5, {}, seed=3)
    gone = np.concatenate([usual[:70], empty[70:]])
    assert left_out(gone)[0] == []
    stopped = np.concatenate([usual[:70], np.repeat(usual[70:71], 40, axis=0)])
    background = MovieBackground(usual[::2])
    assert left_out(stopped, background)[0] == []


def test_a_focus_that_drifts_away_slowly_is_noticed(usual: Images) -> None:
    """A blur that grows by a fiftieth of a pixel a frame: no two frames differ by much."""
    images, rng = usual.copy(), np.random.default_rng(1)
    for t in range(30, FRAMES):
        smooth = gaussian_filter(images[t].astype(np.float64), 0.03 * (t - 30))
        images[t] = np.clip(smooth + rng.normal(0, 1.6, smooth.shape), 0, 255).astype(np.uint8)
    out, _ = left_out(images, MovieBackground(usual[::2]))
    assert min(out) > 60
    assert set(range(FRAMES - 20, FRAMES)) <= set(out)


def sharpness(rng: np.random.Generator, cells: int, sharp: float) -> NDArray[np.float64]:
    """A suspension's sharpness, as the chamber has it: median 0.75, upper quarter 1.3 and more."""
    return 0.75 * sharp * rng.lognormal(0.0, 0.77, cells)


@pytest.mark.parametrize("cells", [60, 200])
def test_sharpness_that_ebbs_over_ten_seconds_is_gone_and_comes_back(cells: int) -> None:
    rng, watched = np.random.default_rng(cells), SharpnessHistory()
    lost = [watched.lost(sharpness(rng, cells, 1.0), already=False) for _ in range(900)]
    assert not any(lost)  # a minute in which nothing happens
    for sharp in np.linspace(1.0, 0.3, 150):
        lost.append(watched.lost(sharpness(rng, cells, sharp), already=lost[-1]))
    assert all(lost[-30:])
    assert not any(lost[:930])
    for _ in range(30):
        lost.append(watched.lost(sharpness(rng, cells, 1.0), already=lost[-1]))
    assert not lost[-1]


def test_a_picture_that_shakes_again_and_again_is_left_out_each_time_and_a_field_that_changed_is_not() -> (
    None
):
    focus, none = Focus(1000.0), np.empty(0)

    def lost(visible: float, frames: int) -> list[bool]:
        """Frames that show so much of the dust; no cell is seen."""
        return [
            focus.lost(
                *(none, none, Motion.empty()),
                elapsed=1, gain=1.0, static=visible, log_energy_at=lambda x, y: x, sharpness=lambda: none,
            )
            for _ in range(frames)
        ]  # fmt: skip

    for _ in range(20):
        assert not any(lost(1.0, 10))
        assert all(lost(0.4, 10))
    assert not lost(1.0, 10)[-1]
    changed = lost(0.4, 400)
    assert all(changed[:100])
    assert not any(changed[200:])


def test_of_few_cells_nothing_is_said() -> None:
    rng, watched = np.random.default_rng(2), SharpnessHistory()
    assert not any(
        watched.lost(sharpness(rng, 20, sharp), already=False) for sharp in [1.0] * 60 + [0.3] * 60
    )


def test_a_focus_set_anew_is_the_usual_one_after_a_while_but_a_blur_never() -> None:
    for sharp, comes_back in ((0.55, True), (0.3, False)):
        rng, watched, lost = np.random.default_rng(4), SharpnessHistory(), [False]
        for _ in range(450):
            lost.append(watched.lost(sharpness(rng, 60, 1.4), already=lost[-1]))
        assert not any(lost)
        for _ in range(1500):
            lost.append(watched.lost(sharpness(rng, 60, 1.4 * sharp), already=lost[-1]))
        assert any(lost[450:900])
        assert lost[-1] is not comes_back
