"""A known movie, streamed by a camera of our own through the real Micro-Manager core."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from factories import a_movie
from replay_camera.building import Replay
from sentence_keys import is_said

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.pipeline import Run, RunSettings, analyze
from napari_rbcflow.sentences import say
from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.sources.factory import open_source
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.types import Frame

pytestmark = pytest.mark.slow

# `open` runs the camera for half a second to measure it: faults come after the frames of that.


def played(config: Path, replay: Replay) -> tuple[list[Frame], dict[str, int]]:
    """Return the frames that came, and what was missed."""
    camera = open_source(str(config), mm_path=replay.adapters)
    with camera:
        got = list(camera.frames())
    return got, dict(camera.missed)


def test_every_frame_of_the_movie_arrives_as_it_is(replay: Replay, tmp_path: Path) -> None:
    movie = a_movie(150)
    got, missed = played(replay.config(tmp_path, movie, EndsAfter=150), replay)
    assert missed == {}
    assert [frame.index for frame in got] == list(range(150))
    assert all(np.array_equal(frame.image, movie[frame.index]) for frame in got)


def test_frames_lost_in_the_camera_are_counted_and_leave_their_places_empty(
    replay: Replay, tmp_path: Path
) -> None:
    movie = a_movie(160)
    config = replay.config(tmp_path, movie, EndsAfter=160, LostInCamera="60 75-79 120")
    got, missed = played(config, replay)
    assert missed == {"time-gap": 7}
    assert [f.index for f in got] == [i for i in range(160) if i not in (60, 75, 76, 77, 78, 79, 120)]
    assert all(np.array_equal(frame.image, movie[frame.index]) for frame in got)


_HOURS = "2:60:3600000 2:90:-3600000"  # in the sequence after that of `open`


@pytest.mark.parametrize(
    "fault",
    [
        {"ClockSteps": _HOURS},
        {"ClockSteps": "1:12:3600000 2:70:300 2:100:-300"},
        *({"Times": times} for times in ("us", "s", "comma", "unit", "negative", "wraps", "some")),
        *({"Times": times, "Chunk": 1} for times in ("zero", "nan", "text", "repeated")),
        {"Times": "stops"},
        {"FrameRate": 30, "FirstLate": 3000},
    ],
    ids=str,
)
def test_whatever_its_clock_says_no_frame_is_lost_that_came_and_each_that_the_camera_lost_is_counted(
    replay: Replay, tmp_path: Path, fault: dict[str, object]
) -> None:
    config = replay.config(tmp_path, a_movie(120), EndsAfter=120, LostInCamera="50 105-107", **fault)
    camera = open_source(str(config), mm_path=replay.adapters)
    with camera as info:
        assert info.fps == pytest.approx(fault.get("FrameRate", 60), rel=0.02)
        assert info.details["times_from"] == ("ChunkTimestamp" if "Chunk" in fault else "ElapsedTime-ms")
        got = list(camera.frames())
    assert camera.missed == {"time-gap": 4}
    assert [f.index for f in got] == [i for i in range(120) if i not in (50, 105, 106, 107)]
    assert got[-1].time_s == pytest.approx(119 / info.fps, abs=0.15)


def test_where_the_camera_says_no_time_the_core_does(replay: Replay, tmp_path: Path) -> None:
    config = replay.config(tmp_path, a_movie(120), EndsAfter=120, Times="zero")
    camera = open_source(str(config), mm_path=replay.adapters)
    with camera as info:
        assert info.details["times_from"] == "TimeReceivedByCore"
        got = list(camera.frames())
    assert camera.missed == {}
    assert [frame.index for frame in got] == list(range(120))


def test_the_second_overflow_counts_as_the_first_whatever_the_clock_is_set_to(
    replay: Replay, tmp_path: Path
) -> None:
    """At 40 frames/s; the clock is set forward an hour at one restart, back at the next."""
    config = replay.config(
        tmp_path, a_movie(60, 500, 700), Loop=1, FrameRate=40, ClockSteps="3:0:3600000 4:0:-3600000"
    )
    camera = open_source(str(config), mm_path=replay.adapters)
    got: list[Frame] = []
    slept: list[float] = []
    with camera:
        camera._core.set_circular_buffer_memory_footprint(4)  # type: ignore[attr-defined]  # 11 frames
        for frame in camera.frames():
            got.append(Frame(frame.index, frame.time_s, frame.image[:1]))
            if len(got) in (30, 70):
                began = time.monotonic()
                time.sleep(1.2)
                slept.append(time.monotonic() - began)
            if len(got) == 110:
                camera.stop()
    missed = camera.missed["overflow"]
    assert sum(camera.missed.values()) + len(got) == got[-1].index + 1
    assert missed == pytest.approx(40 * sum(slept) - 2 * 11, abs=12)
    gaps = [b.time_s - a.time_s for a, b in itertools.pairwise(got)]
    assert min(gaps) >= 0
    assert sorted(gaps)[-2:] == pytest.approx([s - 11 / 40 for s in slept], abs=0.3)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
def test_16_bits_and_colour_arrive_as_the_same_grey(replay: Replay, tmp_path: Path, kind: type) -> None:
    grey = a_movie(60)
    wide = grey.astype(kind)
    movie = wide * 16 if kind is np.uint16 else wide * 0x010101 + np.uint32(0xFF000000)
    got, _ = played(replay.config(tmp_path, movie, EndsAfter=60), replay)
    assert len(got) == 60
    assert all(np.array_equal(frame.image, grey[frame.index]) for frame in got)


@pytest.mark.parametrize(
    ("fault", "key", "words"),
    [
        ({"SilentAfter": 60}, "sources.camera-silent", "Cam .* 2 s"),
        ({"BreaksAfter": 60}, "sources.camera-failed", "Cam .*pulled out"),
    ],
)
def test_a_camera_that_goes_away_fails_the_run_in_a_sentence(
    replay: Replay, tmp_path: Path, fault: dict[str, int], key: str, words: str
) -> None:
    config = replay.config(tmp_path, a_movie(100), **fault)
    camera = open_source(str(config), mm_path=replay.adapters)
    got: list[int] = []
    with camera, pytest.raises(RunFailed, match=words) as failed:
        got.extend(frame.index for frame in camera.frames())
    assert failed.value.key == key
    assert got == list(range(60))
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        # What adapters, and the makers' libraries below them, say of a camera that another program has.
        ("Cannot connect to camera; it may be in use", "device-in-use"),
        ("Failed to open. The device is controlled by another application. (0xE1018006)", "device-in-use"),
        ("Device is exclusively opened by another client.", "device-in-use"),
        ("Spinnaker: Resource in use [-1004]", "device-in-use"),
        ("Camera already opened", "device-in-use"),
        ("Device or resource busy", "device-in-use"),
        # What may mean that, and may not.
        ("Unknown error in the device", "device-not-started"),
        ("Native module failed to load", "device-not-started"),
        ("No Cameras Attached!", "device-not-started"),
    ],
)
def test_a_camera_that_another_program_has_is_told_from_one_that_does_not_start(
    replay: Replay, tmp_path: Path, words: str, key: str
) -> None:
    config = replay.config(tmp_path, a_movie(2), refuses=words)
    with pytest.raises(BadInput) as caught:
        open_source(str(config), mm_path=replay.adapters).open()
    assert caught.value.key == f"sources.{key}"
    assert is_said(caught.value.key, str(caught.value), device="Cam", why=f"{words} (103)")


def test_through_the_camera_a_movie_gives_the_cells_of_the_file(replay: Replay, tmp_path: Path) -> None:
    movie = tmp_path / "m.tif"
    simulate_movie(movie, seconds=2, seed=8, tank_fraction=0.6, height=384, width=640, cells_per_frame=30)
    analyze(movie, tmp_path / "disk", background="sliding", device="cpu")
    source = open_movie(movie)
    with source as info:
        frames = np.stack([frame.image for frame in source.frames()])
    config = replay.config(tmp_path, frames, EndsAfter=len(frames))
    camera = open_source(str(config), mm_path=replay.adapters, fps=info.fps, pixel_size_um=info.pixel_size_um)
    run = Run(camera, tmp_path / "live", RunSettings(background="sliding", device="cpu"))
    run.start()
    assert run.wait(90)
    assert run.outcome == ("finished", "source-ended")
    for name in ("cells.csv", "tracks.csv"):
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes()
    assert len((tmp_path / "live" / "cells.csv").read_text().splitlines()) > 30


def test_a_command_whose_camera_hangs_ends_all_the_same(replay: Replay, tmp_path: Path) -> None:
    """Neither frames come any more, nor does a call to stop it return; Python itself would wait for that."""
    config = replay.config(tmp_path, a_movie(200), HangsAfter=100, HangSeconds=90)
    command = [sys.executable, "-m", "napari_rbcflow.cli", "live", "--no-viewer", "--device", "cpu"]
    command += ["--camera", str(config), "--mm-path", str(replay.adapters), "-o", str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert "does not answer" in said or "sent no frame" in said
    record = json.loads((tmp_path / "s" / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["stop_reason"] in said
    assert record["frames"]["received"] == record["frames"]["processed"] == 100


def test_ctrl_c_is_heard_while_the_camera_does_not_answer_to_being_opened(
    replay: Replay, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    config = replay.config(tmp_path, a_movie(60), StartHangs=1, HangSeconds=90, Mark=mark)
    program = "import sys; from napari_rbcflow.cli import main, live as o; o.PATIENCE_S = 0.5; main()"
    command = [sys.executable, "-c", program, "live", "--no-viewer", "--device", "cpu"]
    command += ["--camera", str(config), "--mm-path", str(replay.adapters), "-o", str(tmp_path / "s")]
    opening = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    opening.send_signal(signal.SIGINT)
    _, said = opening.communicate(timeout=60)
    assert opening.returncode == 2, said
    assert said.splitlines()[-1] == f"rbcflow: {say('cli.source-silent')}"
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_a_camera_that_was_closed_leaves_no_thread(replay: Replay, tmp_path: Path) -> None:
    config, threads = replay.config(tmp_path, a_movie(60), Loop=1), []
    for _ in range(3):
        camera = open_source(str(config), mm_path=replay.adapters)
        with camera:
            next(iter(camera.frames()))
        threads.append(len(list(Path("/proc/self/task").iterdir())))
    assert threads[2] <= threads[0]
