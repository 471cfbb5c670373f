"""The simulated chamber: its physics, its truth, its files, its pace."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter
from sentence_keys import refused

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.simulation import (
    ChamberSettings,
    Optics,
    SimulatedChamber,
    simulate_movie,
    simulate_sequences,
)
from napari_rbcflow.simulation import library as library_module
from napari_rbcflow.simulation.cells import (
    FLIPS_SHOW_FROM_ORBIT,
    Cell,
    CellShape,
    Motion,
    draw_cell,
    jeffery_axis,
    jeffery_frame,
    jeffery_period_s,
    projected_thickness,
)
from napari_rbcflow.simulation.library import (
    CACHE_VARIABLE,
    build_library,
    contrast_range,
    kept_library,
    render_cell,
)
from napari_rbcflow.simulation.optics import OVERSAMPLING
from napari_rbcflow.simulation.population import Scene
from napari_rbcflow.simulation.sequences import blob_centre

SMALL = ChamberSettings(height=160, width=320, cells_per_frame=6.0, seed=3, variety=0.1)


@hypothesis_settings(deadline=None)
@given(aspect=st.floats(0.1, 0.9), orbit=st.floats(0.0, 20.0), phase=st.floats(0.0, 1.0))
def test_axis_obeys_jefferys_equation(aspect: float, orbit: float, phase: float) -> None:
    """The axis turns as Jeffery's equation of motion says, not only with the right period."""
    shear, step = 10.0, 1e-4
    period = jeffery_period_s(aspect, shear)
    before, here, after = jeffery_axis(np.array([phase - step, phase, phase + step]), aspect, orbit)
    rate = (after - before) / (2 * step * period)
    shape = (aspect**2 - 1) / (aspect**2 + 1)
    flow = shear * np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]])  # u_x = shear z
    spin, strain = (flow - flow.T) / 2, (flow + flow.T) / 2
    expected = spin @ here + shape * (strain @ here - here * (here @ strain @ here))
    np.testing.assert_allclose(rate, expected, atol=2e-3 * shear)


def test_period_and_rolling() -> None:
    """FACTS: 136 frames at aspect 0.3 and 10 1/s, half of it repeats the face; rolling shows nothing."""
    assert jeffery_period_s(0.3, 10.0) * 60 == pytest.approx(137, abs=1)
    phases = np.linspace(0, 0.5, 200)
    tumbling = np.abs(jeffery_axis(phases, 0.3, 5.0)[:, 2])
    assert np.ptp(tumbling) > 0.95
    assert ((tumbling < 0.7).mean() * 68) == pytest.approx(13, abs=3)  # the turn itself, in frames
    rolling = np.abs(jeffery_axis(phases, 0.3, 0.5 * FLIPS_SHOW_FROM_ORBIT)[:, 2])
    assert np.ptp(rolling) < 0.3


@hypothesis_settings(deadline=None)
@given(aspect=st.floats(0.2, 0.9), orbit=st.floats(0.0, 20.0), side=st.sampled_from([-1.0, 1.0]))
def test_a_stiff_cell_turns_as_one_body(aspect: float, orbit: float, side: float) -> None:
    """Its length stays at a right angle to its axis, a period ends as it began, a wheel rolls along."""
    phases = np.linspace(0.0, 1.0, 401)
    axis, long = jeffery_frame(phases, aspect, orbit, side)
    expected = jeffery_axis(phases, aspect, orbit) * [1.0, side, 1.0]
    np.testing.assert_allclose(axis, expected, atol=1e-9)
    np.testing.assert_allclose((axis * long).sum(1), 0.0, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(long, axis=1), 1.0, atol=1e-7)
    assert np.abs(np.diff(long, axis=0)).max() < 0.15
    np.testing.assert_allclose(long[0], long[-1], atol=1e-2)
    _, wheel = jeffery_frame(phases[:2], aspect, 0.0, side)
    assert np.cross(wheel[0], wheel[1])[1] > 0  # as the flow turns: from the gradient towards the flow


def test_what_touches_is_one_object() -> None:
    """A cell alone is where it stands; one that touches another draws the crop between the two."""
    yy, xx = np.mgrid[-35:36, -35:36]

    def cell(x: float, y: float) -> np.ndarray:
        return 30.0 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 18.0)

    assert blob_centre(cell(0, 0)) == (0, 0)
    assert blob_centre(cell(0, 0) + cell(30, 0)) == (0, 0)
    x, y = blob_centre(cell(0, 0) + cell(12, -6))
    assert x == pytest.approx(6, abs=1)
    assert y == pytest.approx(-3, abs=1)
    assert blob_centre(np.zeros((71, 71))) == (0, 0)


def test_speed_follows_depth() -> None:
    """Speed is shear z (1 - z / H); cells in focus move 20 to 30 px a frame, as the published do."""
    settings = ChamberSettings()
    assert settings.speed_um_per_s(60.0) == pytest.approx(564.0)
    sharp = [settings.focus_um + d for d in (settings.sharp_from_um, settings.sharp_to_um)]
    assert all(20.0 < settings.speed_px_per_frame(z) < 30.0 for z in sharp)


@hypothesis_settings(deadline=None)
@given(tilt=st.floats(0.0, np.pi / 2), around=st.floats(0.0, 2 * np.pi))
def test_projection_keeps_the_volume(tilt: float, around: float) -> None:
    """However a cell lies, the light crosses the same volume."""
    shape = CellShape()
    axis = np.array([np.sin(tilt) * np.cos(around), np.sin(tilt) * np.sin(around), np.cos(tilt)])
    volume = projected_thickness(shape, axis, side=60, pixel_um=0.2).sum() * 0.2**2
    assert volume == pytest.approx(94.0, rel=0.06)  # Evans and Fung: 94 um^3


@pytest.fixture(scope="module")
def small_scene() -> tuple[Scene, np.ndarray, pd.DataFrame]:
    """Return a small chamber, its first 150 frames and their truth."""
    scene = Scene(SMALL)
    images = np.stack([scene.next_frame() for _ in range(150)])
    return scene, images, scene.truth()


def test_truth_stands_where_the_pictures_are(small_scene: tuple[Scene, np.ndarray, pd.DataFrame]) -> None:
    """Along its true path a cell is seen; a few pixels beside it there is less, on either side alike."""
    _, images, truth = small_scene
    residue = images - np.median(images, axis=0)
    energy = uniform_filter(residue**2, (0, 9, 9))
    shifts = np.arange(-6, 7)
    profiles: dict[str, list[float]] = {f"{axis}{s}": [] for axis in "yx" for s in shifts}
    for row in truth.itertuples():
        for t in range(row.t0, row.t0 + row.frames):
            x, y = row.x0 + row.v * (t - row.t0), row.y
            assert 0 <= x <= SMALL.width - 1
            if 16 <= x <= SMALL.width - 17 and 16 <= y <= SMALL.height - 17:
                for s in shifts:
                    profiles[f"y{s}"].append(energy[t, round(y + s), round(x)])
                    profiles[f"x{s}"].append(energy[t, round(y), round(x + s)])
    for axis in "yx":
        mean = np.array([np.mean(profiles[f"{axis}{s}"]) for s in shifts])
        centre = (shifts * (mean - mean.min())).sum() / (mean - mean.min()).sum()
        assert abs(centre) < 0.35
        assert mean[6] > 2.0 * max(mean[0], mean[-1])
    assert (truth["frames"] >= 1).all()
    assert (truth["t0"] + truth["frames"] <= 150).all()
    assert list(truth.columns[:8]) == ["cell", "t0", "frames", "x0", "y", "v", "label", "sequence"]
    crowd = truth["frames"].sum() / 150
    assert crowd == pytest.approx(SMALL.cells_per_frame, rel=0.4)


def test_the_pictures_of_cells_follow_from_the_seed_and_not_from_the_field() -> None:
    """Whoever rendered them once for a seed has them for every size of the field: `conftest.py` does."""
    library = build_library(replace(SMALL, variety=0.02))
    again = build_library(
        replace(SMALL, variety=0.02, height=400, width=800, cells_per_frame=80.0, seconds=2.0)
    )
    assert again.cells == library.cells
    for name in ("weight", "visible", "pictures", "first", "side", "count"):
        np.testing.assert_array_equal(getattr(again, name), getattr(library, name))
    other = build_library(replace(SMALL, variety=0.02, seed=4))
    assert other.cells != library.cells


def test_the_rendered_cells_of_the_last_chamber_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this code and these settings only; a file that was damaged, or cannot be written, ends nothing."""
    few = {key: (1, min(n, 3)) for key, (_, n) in library_module._CENSUS.items()}
    monkeypatch.setattr(library_module, "_CENSUS", few)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    rendered: list[ChamberSettings] = []

    def counted(settings: ChamberSettings, progress: object = None) -> object:
        rendered.append(settings)
        return build_library(settings)

    monkeypatch.setattr(library_module, "build_library", counted)
    usual, other = ChamberSettings(), ChamberSettings(seed=9)
    first, again = kept_library(usual), kept_library(replace(usual, width=400, seconds=3.0))
    assert rendered == [usual]
    assert again.cells == first.cells
    for name in ("weight", "visible", "pictures", "first", "side", "count"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert getattr(again, name).dtype == getattr(first, name).dtype
    assert kept_library(other).cells != first.cells
    (file,) = (tmp_path / "cache").iterdir()
    for damage in (file.read_bytes()[:-3000], b"", b"no library"):
        file.write_bytes(damage)
        assert kept_library(other).cells == build_library(other).cells
    assert rendered == [usual, other, other, other, other]
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert kept_library(usual).cells == first.cells


def test_labels_follow_motion_focus_and_contrast() -> None:
    """0 and 1 only in focus, with enough contrast, and only for their motions; no expert judges others."""
    settings = ChamberSettings(height=160, width=320)
    library = build_library(settings)
    pale = 0
    for cell in library.cells:
        sharp = settings.sharp_from_um <= cell.defocus_um <= settings.sharp_to_um
        wanted = {Motion.TANK_TREADING: 0, Motion.TUMBLING: 1}.get(cell.motion, 2) if sharp else 2
        if wanted != 2:
            drawn = render_cell(cell, np.arange(12) / 12, settings)
            contrast = contrast_range(drawn, settings.pixel_size_um)
            # Of a tumbling cell another median is taken over another number of pictures.
            if contrast < 0.85 * settings.judged_from:
                assert cell.label == 2
            elif contrast > 1.15 * settings.judged_from:
                assert cell.label == wanted
            pale += cell.label == 2
        else:
            assert cell.label == 2
    assert 5 < pale < 60
    share = {label: library.weight[[c.label == label for c in library.cells]].sum() for label in (0, 1)}
    assert share[0] / (share[0] + share[1]) == pytest.approx(settings.tank_fraction, abs=0.05)
    speeds = [
        settings.speed_px_per_frame(c.z_um)
        for c, seen in zip(library.cells, library.visible, strict=True)
        if seen
    ]
    assert min(speeds) < 7.0
    assert max(speeds) > 38.0
    assert max(library.side) <= 64


def test_grey_of_cells_in_focus() -> None:
    """Dark ring 5 to 7 px out, bright ring within: -13 and +14 grey in the published crops' medians."""
    settings = ChamberSettings(seed=11)
    cells = [c for c in build_library(settings).cells if c.label == 0]
    yy, xx = np.mgrid[-15:16, -15:16]
    radius = np.hypot(yy, xx).round().astype(int)
    profiles = []
    for cell in cells:
        drawn = render_cell(cell, np.zeros(1), settings)[0][::OVERSAMPLING, ::OVERSAMPLING] * 120.0
        middle = drawn.shape[0] // 2
        crop = drawn[middle - 15 : middle + 16, middle - 15 : middle + 16]
        profiles.append([crop[radius == r].mean() for r in range(14)])
    mean = np.mean(profiles, axis=0)
    assert -19.0 < mean.min() < -9.0
    assert mean.argmin() in (5, 6, 7)
    assert 11.0 < mean[:4].max() < 23.0
    assert abs(mean[12:]).max() < 1.5


def _in_light(cell: Cell, aslant: float, lit_from_deg: float = 0.0) -> np.ndarray:
    """Return what the camera sees of a cell, 37 x 37 px around its true centre."""
    optics = Optics(aslant=aslant, lit_from_deg=lit_from_deg)
    drawn = render_cell(cell, np.zeros(1), ChamberSettings(optics=optics))[0][::OVERSAMPLING, ::OVERSAMPLING]
    middle = drawn.shape[0] // 2
    return drawn[middle - 18 : middle + 19, middle - 18 : middle + 19]


def test_cells_in_light_that_comes_in_aslant() -> None:
    """Bright on the side named, dark on the other, about a centre that stays; straight light is as before."""
    rng, settings = np.random.default_rng(4), ChamberSettings()
    yy, xx = np.mgrid[-18:19, -18:19]
    inside = np.hypot(yy, xx) <= 10
    turned: dict[float, list[float]] = {0.0: [], 0.25: [], 0.5: [], 1.0: []}
    for _ in range(20):
        cell = draw_cell(Motion.TANK_TREADING, settings.focus_um + rng.uniform(2.0, 11.0), settings, rng)
        straight = _in_light(cell, 0.0)
        np.testing.assert_array_equal(_in_light(cell, 0.0, 70.0), straight)
        right, left, below = (_in_light(cell, 1.0, side) - straight for side in (0.0, 180.0, 90.0))
        np.testing.assert_allclose(left, -right, atol=1e-5)
        # What neighbours in training sequences are made of: any light from straight light and two reliefs.
        angle = np.deg2rad(200.0)
        made = straight + 0.7 * (np.cos(angle) * right + np.sin(angle) * below)
        np.testing.assert_allclose(_in_light(cell, 0.7, 200.0), made, atol=1e-5)
        for relief, away in ((right, xx), (below, yy)):
            assert (relief * away)[inside].sum() > 0.6 * np.abs(relief * away)[inside].sum()
            assert abs(relief[inside].sum()) < 0.1 * np.abs(relief[inside]).sum()
        for aslant, found in turned.items():
            seen = _in_light(cell, aslant, 30.0)
            found.append(np.corrcoef(seen[inside], seen[::-1, ::-1][inside])[0, 1])
    falls = [float(np.mean(found)) for found in turned.values()]
    assert falls == sorted(falls, reverse=True)
    assert falls[0] > 0.9
    assert abs(falls[2]) < 0.25  # as the cells of patient LJ: 0.04
    assert falls[3] < -0.4


@pytest.mark.slow
def test_training_sequences_in_every_light() -> None:
    """Each has a light of its own, a share stays straight, the seed decides."""
    settings = replace(SMALL, height=400, width=1376, cells_per_frame=5.0)
    yy, xx = np.mgrid[-15:16, -15:16]
    inside = np.hypot(yy, xx) <= 10

    def sides(straight: float) -> tuple[np.ndarray, list[np.ndarray]]:
        drawn = simulate_sequences(
            40, seed=5, shares=(1, 0, 0), settings=settings, aslant=1.0, straight=straight
        )
        means = [np.median(s.crops, axis=0) - np.median(s.crops) for s in drawn]
        moments = np.array([[(m * away)[inside].sum() for away in (yy, xx)] for m in means])
        return moments / [[np.abs(m[inside]).sum()] for m in means], [s.crops for s in drawn]

    lit, crops = sides(0.25)
    none, _ = sides(1.0)
    assert np.median(np.hypot(*lit.T)) > 2.0 * np.median(np.hypot(*none.T))
    strongest = lit[np.hypot(*lit.T) > np.median(np.hypot(*lit.T))]
    assert len({(bool(y > 0), bool(x > 0)) for y, x in strongest}) == 4  # lit from all round
    for a, b in zip(crops, sides(0.25)[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_tank_treading_cell_stands_steeper_than_shear_lets_it() -> None:
    rng, settings = np.random.default_rng(3), ChamberSettings()
    cells = [draw_cell(Motion.TANK_TREADING, settings.focus_um, settings, rng) for _ in range(500)]
    steepest = np.rad2deg([cell.aspect_ratio + cell.orbit for cell in cells])
    assert steepest.max() <= 45 + 1e-9
    assert (steepest > 44).any()


def test_a_frame_is_the_same_whatever_the_pace() -> None:
    """By seed, not by clock; and every frame is an array of its own."""
    settings = replace(SMALL, seconds=0.3, fps=60.0)
    runs = []
    for paced in (True, False):
        source = SimulatedChamber(settings, paced=paced)
        with source as info:
            assert info.live is paced
            assert info.n_frames == 18
            runs.append(list(source.frames()))
        assert source.truth_summary.frames <= 18
    assert [f.index for f in runs[0]] == list(range(18))
    assert runs[0][6].time_s == pytest.approx(0.1)
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    assert not np.shares_memory(runs[0][0].image, runs[0][1].image)
    with SimulatedChamber(replace(settings, seed=4), paced=False) as _:
        other = SimulatedChamber(replace(settings, seed=4), paced=False)
        other.open()
        assert (next(other.frames()).image != runs[0][0].image).mean() > 0.5


@pytest.mark.slow
def test_stop_ends_a_paced_run_and_late_frames_still_come() -> None:
    """A consumer that slept finds every frame; `stop` from another thread wakes a waiting source."""
    source = SimulatedChamber(replace(SMALL, fps=50.0))
    source.open()
    frames = source.frames()
    first = next(frames)
    time.sleep(0.2)
    late = [next(frames).index for _ in range(5)]
    assert [first.index, *late] == list(range(6))

    slow = SimulatedChamber(replace(SMALL, fps=1.0))
    slow.open()
    seen: list[int] = []
    worker = threading.Thread(target=lambda: seen.extend(f.index for f in slow.frames()))
    worker.start()
    while not seen and worker.is_alive():
        time.sleep(0.01)
    slow.stop()
    slow.stop()
    worker.join(0.9)  # far less than the frame it was waiting for
    assert not worker.is_alive()
    slow.close()
    slow.close()
    assert len(slow.truth) > 0


def test_not_open_and_bad_settings() -> None:
    """Each is one sentence."""
    with refused(RunFailed, "simulation.not-open"):
        next(SimulatedChamber(SMALL).frames())
    for bad, key in (
        ({"fps": 0.0}, "simulation.fps-range"),
        ({"fps": math.nan}, "simulation.not-finite"),
        ({"exposure_ms": 17.0}, "simulation.exposure-too-long"),
        ({"tank_fraction": 1.2}, "simulation.tank-fraction-range"),
        ({"cells_per_frame": 0.0}, "simulation.cells-per-frame-range"),
        ({"height": 10}, "simulation.field-too-small"),
        ({"focus_um": -5.0}, "simulation.heights-out-of-order"),
    ):
        with refused(BadInput, key):
            replace(SMALL, **bad)
    for bad, key in (
        ({"aslant": -0.1}, "simulation.aslant-range"),
        ({"aslant": 2.5}, "simulation.aslant-range"),
        ({"aslant": math.nan}, "simulation.aslant-range"),
        ({"lit_from_deg": math.inf}, "simulation.lit-from-not-finite"),
    ):
        with refused(BadInput, key):
            Optics(**bad)
    for bad, key in (
        ({"aslant": 3.0}, "simulation.aslant-range"),
        ({"aslant": 0.5, "straight": 1.2}, "simulation.straight-range"),
    ):
        with refused(BadInput, key):
            simulate_sequences(1, seed=0, settings=SMALL, **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [".tif", ".avi", ".zarr"])
def test_movies_hold_every_grey_value(tmp_path: Path, ending: str) -> None:
    """What is read back is what the source yields, and the truth lies beside it."""
    out = tmp_path / f"chamber{ending}"
    settings = replace(SMALL, height=130, width=206)  # rows that are no multiple of four bytes
    done: list[tuple[int, int]] = []
    summary = simulate_movie(out, seconds=0.2, settings=settings, progress=lambda k, n: done.append((k, n)))
    source = SimulatedChamber(replace(settings, seconds=0.2), paced=False)
    source.open()
    expected = np.stack([f.image for f in source.frames()])
    if ending == ".tif":
        images = tifffile.imread(out)
    elif ending == ".zarr":
        array = zarr.open_array(str(out), mode="r")
        images = np.asarray(array[:])
        assert array.chunks == (1, 130, 206)
        assert array.attrs["fps"] == 60.0
        assert array.attrs["pixel_size_um"] == 0.605
    else:
        with av.open(str(out)) as container:
            assert float(container.streams.video[0].average_rate) == 60.0
            images = np.stack([f.to_ndarray(format="bgr24")[..., 0] for f in container.decode(video=0)])
    np.testing.assert_array_equal(images, expected)
    assert done == [(k + 1, 12) for k in range(12)]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "chamber.truth.csv"), source.truth, check_dtype=False, rtol=1e-9
    )
    assert summary.cells == len(source.truth)


def test_refuses_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    """Existing outputs, wrong endings, missing folders; an interrupt in mid movie."""

    def make(name: str, **more: object) -> None:
        simulate_movie(tmp_path / name, seconds=0.1, settings=SMALL, **more)  # type: ignore[arg-type]

    (tmp_path / "there.truth.csv").write_text("mine")
    for name, key in (
        ("there.tif", "simulation.exists"),
        ("movie.mp4", "simulation.wrong-ending"),
        ("nowhere/movie.tif", "simulation.no-folder"),
    ):
        with refused(BadInput, key):
            make(name)

    def interrupt(k: int, n: int) -> None:
        if k == 3:
            raise KeyboardInterrupt

    for ending in ("tif", "avi", "zarr"):
        with pytest.raises(KeyboardInterrupt):
            make(f"cut.{ending}", progress=interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["there.truth.csv"]
    assert (tmp_path / "there.truth.csv").read_text() == "mine"


@pytest.mark.slow
def test_sequences_for_training() -> None:
    """Crops of the right form; flipping ones change, tank-treading ones do not; the seed decides."""
    settings = replace(SMALL, height=400, width=1376, cells_per_frame=40.0)
    drawn = simulate_sequences(40, seed=5, settings=settings)
    again = simulate_sequences(40, seed=5, settings=settings)
    for a, b in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(a.crops, b.crops)
        assert a[1:] == b[1:]
    change: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for crops, label, motion in drawn:
        assert crops.dtype == np.uint8
        assert crops.shape[1:] == (31, 31)
        assert len(crops) >= 6
        assert motion in {0: {"tank-treading"}, 1: {"tumbling"}}.get(label, {*map(str, Motion), "switched"})
        core = crops[:, 8:23, 8:23].astype(float)
        # Median against passing neighbours, thirds against noise.
        thirds = [np.median(part, axis=0) for part in np.array_split(core, 3)]
        change[label].append(max(float(np.abs(a - b).mean()) for a in thirds for b in thirds))
    assert np.median(change[1]) > 1.3 * np.median(change[0])
