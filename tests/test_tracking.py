"""Tracking through its door: frames in, tracks out, on movies whose truth is known."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_keys import refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.tracking.background import Background, MovieBackground, SlidingBackground
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import Frame, Track

HEIGHT, WIDTH = 200, 420
Way = tuple[int, float, float, float, float]
"""A cell: first frame, x there, y, speed a frame, contrast (negative: dark centre)."""


def ring(
    yy: NDArray[np.float64], xx: NDArray[np.float64], contrast: float, scale: float
) -> NDArray[np.float64]:
    """A cell in focus: a centre of 13 grey levels and a rim of -9 at six pixels, times contrast."""
    r = np.hypot(yy, xx) / scale
    return contrast * (13 * np.exp(-((r / 3) ** 2)) - 9 * np.exp(-(((r - 6) / 1.8) ** 2)))


def movie(
    ways: list[Way], n: int, *, seed: int = 0, height: int = HEIGHT, width: int = WIDTH, scale: float = 1.0
) -> NDArray[np.uint8]:
    """Cells on noise over uneven light with dust; lengths times `scale`."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width].astype(np.float64)
    field = (
        128 + 6 * np.cos(xx / width * 2) - 15 * np.exp(-((yy - height / 3) ** 2 + (xx - width / 2) ** 2) / 8)
    )
    frames = np.empty((n, height, width), np.uint8)
    for t in range(n):
        image = field + rng.normal(0, 1.6, field.shape)
        for t0, x0, y, v, contrast in ways:
            x = x0 + v * (t - t0)
            if t >= t0 and -20 < x < width / scale + 20:
                image += ring(yy - y * scale, xx - x * scale, contrast, scale)
        frames[t] = np.clip(image, 0, 255).astype(np.uint8)
    return frames


def tracks_of(
    frames: NDArray[np.uint8],
    *,
    background: Background | None = None,
    left_out: frozenset[int] = frozenset(),
    pixel_size_um: float = 0.605,
    settings: TrackingSettings | None = None,
    reason: str = "source-ended",
) -> tuple[list[Track], Tracker]:
    """Track a movie, and check on the way what holds for every run."""
    tracker = Tracker(
        *frames.shape[1:],
        fps=60.0,
        pixel_size_um=pixel_size_um,
        background=background or MovieBackground(frames),
        settings=settings,
    )
    tracks: list[Track] = []
    for t, image in enumerate(frames):
        if t in left_out:
            continue
        ended = tracker.process(Frame(t, t / 60, image))
        if not isinstance(background, SlidingBackground):
            for track in ended:
                # The end is known at most six frames after the last detection.
                assert t - int(track.frames[-1]) <= 6 + len(left_out)
        tracks += ended
    tracks += tracker.finish(reason)
    assert tracker.processed == len(frames) - len(left_out)
    assert len({track.cell for track in tracks}) == len(tracks)
    positions = set()
    for track in tracks:
        n = len(track)
        assert n >= 3
        assert (np.diff(track.frames) > 0).all()
        # Before its first detection it may be carried back to the edge where it came in.
        assert track.seen[:8].any()
        assert track.crops.shape == (n, 31, 31)
        assert track.crops.dtype == np.uint8
        for part in (track.y_px, track.x_px, track.seen, track.intruded, track.edge):
            assert len(part) == n
        # An entry for every processed frame between first and last detection.
        between = {f for f in range(int(track.frames[0]), int(track.frames[-1]) + 1) if f not in left_out}
        assert tracker.not_analysed or set(track.frames.tolist()) == between
        for frame, y, x in zip(track.frames, track.y_px, track.x_px, strict=True):
            assert (int(frame), float(y), float(x)) not in positions
            positions.add((int(frame), float(y), float(x)))
    return tracks, tracker


def of_way(tracks: list[Track], way: Way, within: float = 2.5) -> list[Track]:
    """Tracks that follow a cell's way all along."""
    t0, x0, y, v, _ = way
    return [
        k
        for k in tracks
        if np.abs(k.x_px - (x0 + v * (k.frames - t0))).max() < within and np.abs(k.y_px - y).max() < within
    ]


def test_lone_cells_are_tracked_over_their_whole_way() -> None:
    ways: list[Way] = [
        (0, 20, 40, 24, 1.0),  # in focus
        (8, 20, 90, 7, -1.5),  # dark centre
        (5, 20, 140, 45, 0.7),  # faint and fast
        (3, 20, 170, 80, 2.5),  # the fastest
    ]
    tracks, tracker = tracks_of(movie(ways, 60))
    assert len(tracks) == len(ways)
    assert tracker.not_analysed == {}
    for way in ways:
        (track,) = of_way(tracks, way, within=1.5)
        crossing = min(60 - way[0], int((WIDTH - 20) / way[3]))
        assert len(track) >= crossing - 1
        off = track.x_px - (way[1] + way[3] * (track.frames - way[0]))
        inside = (track.x_px > 20) & (track.x_px < WIDTH - 20)
        assert np.sqrt((off[inside] ** 2).mean()) < 0.5
        assert np.sqrt(((track.y_px - way[2])[inside] ** 2).mean()) < 0.5
        assert not track.intruded.any()
        assert track.reason == ("left-field" if way[1] + way[3] * (59 - way[0]) > WIDTH else "source-ended")


def test_an_overtaking_keeps_both_cells() -> None:
    slow: Way = (0, 40, 100, 6, 1.0)
    fast: Way = (10, 20, 103, 22, 1.3)
    tracks, _ = tracks_of(movie([slow, fast], 40))
    (of_slow,) = of_way(tracks, slow, within=6)
    (of_fast,) = of_way(tracks, fast, within=6)
    assert len(of_slow) >= 38
    assert len(of_fast) >= 16
    near = np.abs(of_slow.x_px - (20 + 22 * (of_slow.frames - 10))) < 12
    assert of_slow.intruded[near].all()
    assert of_fast.intruded.any()
    assert not of_slow.intruded[:1].any()
    assert of_slow.crops.shape[0] == len(of_slow.frames)


def test_missed_frames_leave_a_gap_and_not_a_break() -> None:
    way: Way = (0, 20, 100, 12, 1.0)
    tracks, _ = tracks_of(movie([way], 34), left_out=frozenset({12, 13, 14, 15}))
    (track,) = of_way(tracks, way)
    assert set(range(1, 33)) - {12, 13, 14, 15} <= set(track.frames.tolist())


def test_over_a_long_gap_no_track_goes_on_with_another_cell() -> None:
    """While nothing was seen, a cell of the same height came to where the first would be."""
    first: Way = (0, 20, 100, 6, 1.0)
    second: Way = (20, 20 + 6 * 20, 100, 6, 1.0)
    frames = np.concatenate([movie([first], 20)[:20], movie([second], 60)[20:]])
    tracks, _ = tracks_of(frames[:50], left_out=frozenset(range(10, 35)))
    assert len(tracks) == 2
    before, after = sorted(tracks, key=lambda t: t.frames[0])
    assert before.reason == "lost"
    assert before.frames.max() < 10
    assert after.frames.min() >= 35


def test_right_to_left_is_a_setting() -> None:
    frames = movie([(0, 20, 60, 24, 1.0), (0, 20, 150, 40, -1.5)], 30)
    right, _ = tracks_of(frames)
    left, _ = tracks_of(
        np.ascontiguousarray(frames[:, :, ::-1]), settings=TrackingSettings(direction="right-to-left")
    )
    assert len(right) == len(left) == 2
    for a, b in zip(sorted(right, key=len), sorted(left, key=len), strict=True):
        both, ia, ib = np.intersect1d(a.frames, b.frames, return_indices=True)
        assert len(both) >= len(a) - 1
        assert np.abs((WIDTH - 1 - b.x_px[ib]) - a.x_px[ia]).max() < 0.3
    wrong, _ = tracks_of(frames, settings=TrackingSettings(direction="right-to-left"))
    assert wrong == []


def test_a_stuck_cell_becomes_background() -> None:
    stuck: Way = (0, 200, 60, 0, 1.5)
    passing: Way = (10, 20, 140, 20, 1.0)
    tracks, _ = tracks_of(movie([stuck, passing], 50))
    assert len(tracks) == 1
    assert len(of_way(tracks, passing)) == 1


def test_flicker_and_drift_of_the_light_change_nothing() -> None:
    way: Way = (4, 20, 100, 15, 1.0)
    frames = movie([way], 60)
    flicker = 1 + 0.03 * np.sin(np.arange(60) * 1.7) + 0.05 * np.linspace(-1, 1, 60)
    moved = np.clip(frames * flicker[:, None, None], 0, 255).astype(np.uint8)
    tracks, tracker = tracks_of(moved)
    assert tracker.not_analysed == {}
    (track,) = tracks
    assert len(of_way([track], way)) == 1
    assert len(track) >= 24


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.full((HEIGHT, WIDTH), 2, np.uint8), "dark"),
        (np.full((HEIGHT, WIDTH), 255, np.uint8), "saturated"),
        (np.full((HEIGHT, WIDTH), 128, np.uint8), "uniform"),
        (np.random.default_rng(1).integers(60, 70, (HEIGHT, WIDTH)).astype(np.uint8), "too-dark"),
        (np.random.default_rng(1).integers(40, 220, (HEIGHT, WIDTH)).astype(np.uint8), "unlike-background"),
    ],
)
def test_a_frame_without_a_picture_is_reported_and_breaks_no_track(
    image: NDArray[np.uint8], why: str
) -> None:
    way: Way = (0, 20, 100, 12, 1.0)
    frames = movie([way], 34)
    frames[[10, 11, 20]] = image
    tracks, tracker = tracks_of(frames)
    assert tracker.not_analysed == {why: 3}
    (track,) = of_way(tracks, way)
    assert set(track.frames.tolist()) >= set(range(1, 33)) - {10, 11, 20}
    assert not {10, 11, 20} & set(track.frames.tolist())


def test_an_empty_field_has_no_tracks() -> None:
    tracks, tracker = tracks_of(movie([], 60))
    assert tracks == []
    assert tracker.not_analysed == {}


def test_crops_are_the_raw_grey_and_replicate_the_edge() -> None:
    frames = movie([(0, 4, 8, 20, 2.0), (0, 20, 100, 21, 1.0)], 30)
    tracks, _ = tracks_of(frames)
    for track in tracks:
        for frame, y, x, edge, crop in zip(
            track.frames, track.y_px, track.x_px, track.edge, track.crops, strict=True
        ):
            # Cut where the cell was detected, at whole pixels: the position was refined since.
            padded = np.pad(frames[frame], 64, mode="edge")
            places = [
                (cy, cx)
                for cy in range(round(float(y)) - 1, round(float(y)) + 2)
                for cx in range(round(float(x)) - 1, round(float(x)) + 2)
                if (crop == padded[cy + 49 : cy + 80, cx + 49 : cx + 80]).all()
            ]
            assert places
            cy, cx = places[0]
            assert edge == (cy < 15 or cx < 15 or cy > HEIGHT - 16 or cx > WIDTH - 16)
    assert any(track.edge.all() for track in tracks)  # eight pixels from the upper edge all the way
    assert any(not track.edge.all() for track in tracks)


def test_the_full_sensor_gives_the_same_tracks_and_crops() -> None:
    ways: list[Way] = [(0, 30, 50, 20, 1.0), (2, 30, 150, 33, -1.5)]
    fine = movie(ways, 26, height=2 * HEIGHT, width=2 * WIDTH, scale=2.0)
    tracks, _ = tracks_of(fine, pixel_size_um=0.3025)
    assert len(tracks) == 2
    for way in ways:
        (track,) = [k for k in tracks if abs(float(k.y_px.mean()) - 2 * way[2]) < 3]
        truth = 2 * (way[1] + way[3] * (track.frames - way[0]))
        assert np.abs(track.x_px - truth).max() < 4
        whole = ~track.edge
        # Two by two pixels binned: the crop's centre is the cell's, its noise is halved.
        middle = track.crops[whole].astype(float).mean(axis=0)
        yy, xx = np.mgrid[-15:16, -15:16].astype(float)
        assert np.corrcoef(middle.ravel(), ring(yy, xx, way[4], 1.0).ravel())[0, 1] > 0.9


def test_the_same_frames_give_the_same_tracks() -> None:
    rng = np.random.default_rng(5)
    ways: list[Way] = [
        (int(rng.integers(0, 60)), 10, float(rng.uniform(20, 180)), float(rng.uniform(5, 50)), 1.0)
        for _ in range(30)
    ]
    frames = movie(ways, 90)
    runs = [tracks_of(frames, background=SlidingBackground(HEIGHT, WIDTH, fps=60))[0] for _ in range(2)]
    assert len(runs[0]) == len(runs[1]) > 20
    for a, b in zip(*runs, strict=True):
        assert (a.cell, a.reason) == (b.cell, b.reason)
        for name in ("frames", "y_px", "x_px", "seen", "intruded", "edge", "crops"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_the_sliding_background_loses_no_frame_of_its_first_second() -> None:
    way: Way = (0, 20, 100, 12, 1.0)
    frames = movie([way, (40, 20, 50, 12, 1.0)], 90)
    tracks, tracker = tracks_of(frames, background=SlidingBackground(HEIGHT, WIDTH, fps=60))
    assert tracker.processed == 90
    (track,) = of_way(tracks, way)
    assert int(track.frames[0]) <= 1
    assert len(track) >= 30
    assert len(tracks) == 2


def test_a_live_run_stopped_within_its_first_second_is_closed() -> None:
    frames = movie([(0, 20, 100, 12, 1.0)], 12)
    tracks, tracker = tracks_of(
        frames, background=SlidingBackground(HEIGHT, WIDTH, fps=60), reason="cut-by-stop"
    )
    assert tracker.processed == 12
    assert all(track.reason == "cut-by-stop" for track in tracks)
    black, dark = tracks_of(
        np.zeros((5, HEIGHT, WIDTH), np.uint8), background=SlidingBackground(HEIGHT, WIDTH, fps=60)
    )
    assert black == []
    assert dark.not_analysed == {"dark": 5}


def test_a_camera_that_starts_in_the_dark_is_waited_for() -> None:
    frames = movie([(40, 20, 100, 12, 1.0)], 110)
    frames[:30] = 3
    tracks, tracker = tracks_of(frames, background=SlidingBackground(HEIGHT, WIDTH, fps=60))
    assert tracker.not_analysed == {"dark": 30}
    assert len(tracks) == 1
    assert len(tracks[0]) >= 30


def test_bad_input_is_one_sentence() -> None:
    frames = movie([], 19)
    with refused(BadInput, "tracking.movie-too-short"):
        MovieBackground(frames)
    frames = movie([], 20)
    background = MovieBackground(frames)
    tracker = Tracker(HEIGHT, WIDTH, fps=60, pixel_size_um=0.605, background=background)
    with refused(BadInput, "tracking.frame-changed"):
        tracker.process(Frame(0, 0.0, frames[0][:-1]))
    tracker.process(Frame(3, 0.0, frames[0]))
    with refused(BadInput, "tracking.frame-out-of-order"):
        tracker.process(Frame(3, 0.0, frames[1]))
    with refused(BadInput, "tracking.field-too-small"):
        Tracker(32, 400, fps=60, pixel_size_um=0.605, background=background)
    with refused(BadInput, "tracking.direction-unknown"):
        TrackingSettings(direction="up")  # type: ignore[arg-type]


def test_open_tracks_are_where_the_cells_are() -> None:
    way: Way = (0, 20, 100, 12, 1.0)
    frames = movie([way], 25)
    tracker = Tracker(HEIGHT, WIDTH, fps=60, pixel_size_um=0.605, background=MovieBackground(frames))
    assert tracker.open_tracks().frame is None
    for t in range(20):
        tracker.process(Frame(t, t / 60, frames[t]))
    now = tracker.open_tracks()
    assert now.frame is not None
    assert now.frame.index == 19
    assert now.cell.tolist() == [1]
    assert abs(float(now.x_px[0]) - (20 + 12 * 19)) < 2
    assert abs(float(now.y_px[0]) - 100) < 2


def test_memory_does_not_grow_with_the_run() -> None:
    frames = movie([(k * 12, -10, 40 + 60 * (k % 3), 25, 1.0) for k in range(8)], 100)
    tracker = Tracker(HEIGHT, WIDTH, fps=60, pixel_size_um=0.605, background=MovieBackground(frames))
    seen = set()
    for t in range(700):
        for track in tracker.process(Frame(t, t / 60, frames[t % 100])):
            seen.add(track.cell)
    assert len(seen) >= 50
    assert len(tracker._store._pages) <= 4
    assert len(tracker._store._wide) == 256


def test_real_cells_are_found_and_kept_whole(shared: Path, tmp_path: Path) -> None:
    """On a movie composed of the published cells, by the shared score."""
    out = tmp_path / "movie.tif"
    subprocess.run(
        [
            *(sys.executable, str(shared / "tools" / "compose_movie.py")),
            *(str(shared / "data" / "darrin2023" / "stage1"), str(out)),
            *["--frames", "60", "--width", "800", "--height", "600", "--per-frame", "36", "--seed", "21"],
        ],
        check=True,
        capture_output=True,
    )
    import tifffile

    frames = tifffile.imread(out)
    tracks, _ = tracks_of(frames)
    spec = importlib.util.spec_from_file_location("score_tracks", shared / "tools" / "score_tracks.py")
    assert spec is not None
    assert spec.loader is not None
    scoring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scoring)
    rows = [
        (int(f), k.cell, float(x), float(y))
        for k in tracks
        for f, x, y in zip(k.frames, k.x_px, k.y_px, strict=True)
    ]
    score, _ = scoring.score(rows, out.with_suffix(".truth.csv"))
    assert score["found"] > 0.90
    assert score["whole"] > 0.75
    assert score["spurious"] < 0.06
