"""A Micro-Manager that is already open: its server's wire, spoken by a stand-in that can be killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from factories import a_movie
from stand_in.opening import Open, free_port

from napari_rbcflow.errors import BadInput, LiveModeOn, RunFailed
from napari_rbcflow.ipc import Child
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import remote, remote_child
from napari_rbcflow.sources.factory import open_source
from napari_rbcflow.sources.frame_loss import ARRIVAL
from napari_rbcflow.types import Frame

pytestmark = pytest.mark.slow

pytest.importorskip("pycromanager", reason="pycromanager is not installed")
pytest.importorskip("zmq", reason="pyzmq is not installed")


@pytest.mark.parametrize(
    ("asked", "took"), [(None, "8bit-MONO"), ("16BIT mono", "16bit-MONO"), ("32bitRGB", "8bit-COLOR")]
)
def test_every_frame_arrives_as_the_same_grey(micro_manager: Open, asked: str | None, took: str) -> None:
    grey = a_movie(90)
    port, _ = micro_manager(grey, ends_after=90, pixel_size_um=0.605, bits=14, fps=100)
    camera = open_source("running", port=port, fps=100, exposure_ms=2.5, pixel_type=asked)
    with camera as info:
        assert (info.name, info.width, info.height, info.live) == ("Infinity", 128, 96, True)
        assert (info.fps, info.exposure_ms, info.pixel_size_um, info.pixel_size_known) == (
            100,
            2.5,
            0.605,
            True,
        )
        assert info.details["pixel_type"] == took
        assert info.details["pixel_size_from"] == "calibration"
        assert "not_as_asked" not in info.details
        got = list(camera.frames())
    assert camera.missed == {}
    assert [frame.index for frame in got] == list(range(90))
    assert all(np.array_equal(frame.image, grey[frame.index]) for frame in got)


def test_what_was_set_there_is_read_back_and_what_differs_is_told(micro_manager: Open) -> None:
    grey = a_movie(60, 160, 320)
    port, _ = micro_manager(grey, fps=30, ends_after=30, pixel_size_um=0.605, roi_step=16)
    asked = {"binning": 4, "roi": (8, 4, 100, 70), "pixel_type": "16bit-MONO", "fps": 60}
    camera = open_source("running", port=port, exposure_ms=40, **asked)  # type: ignore[arg-type]
    with camera as info:
        frame = next(iter(camera.frames()))
    assert np.array_equal(frame.image, grey[0, ::2, ::2][4 : 4 + 64, 8 : 8 + 96])
    assert (info.width, info.height, info.fps) == (96, 64, pytest.approx(30, rel=0.01))
    details = info.details
    assert (details["binning"], details["roi_px"], details["pixel_type"]) == ("4", "8,4,96,64", "16bit-MONO")
    assert info.pixel_size_um == 1.21  # Micro-Manager's calibration minds the binning
    assert info.exposure_ms == pytest.approx(1000 / 60, abs=0.01)
    assert details["not_as_asked"] == (
        f"field 8,4,96,64, not 8,4,100,70; exposure 16.67 ms, not 40; {info.fps:.4g} frames/s, not 60"
    )
    field, exposure, rate = (say(f"sources.setting-{name}") for name in ("field", "exposure", "fps"))
    for key, values in (
        ("not-as-asked", {"setting": field, "asked": "8,4,100,70", "actual": "8,4,96,64"}),
        (
            "not-as-asked-because",
            {
                "setting": exposure,
                "asked": "40",
                "actual": "16.67 ms",
                "why": say("sources.because-of-setting", setting=rate),
            },
        ),
        ("not-as-asked", {"setting": rate, "asked": "60", "actual": f"{info.fps:.4g} frames/s"}),
    ):
        assert say(f"sources.{key}", camera="Infinity", **values) in info.warnings

    # It all stays set there; what was not asked for and changed is told too.
    with open_source("running", port=port, exposure_ms=50) as info:
        assert info.details["roi_px"] == "8,4,96,64"
        changed = {"setting": exposure, "other": rate, "before": "60 frames/s", "after": "20 frames/s"}
        assert say("sources.setting-changed", camera="Infinity", **changed) in info.warnings
    # Exposure fits the rate that is asked for, not the one that was set: it is set again behind it.
    with open_source("running", port=port, exposure_ms=2.2, fps=60) as info:
        assert info.exposure_ms == 2.2


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_of_an_older_micro_manager_only_what_frames_need_is_asked(micro_manager: Open, kind: type) -> None:
    grey = a_movie(60)
    scale = {np.uint8: 1, np.uint16: 256, np.uint32: 0x010101}[kind]
    port, _ = micro_manager(grey.astype(kind) * kind(scale), ends_after=60, older=True)
    camera = open_source("running", port=port, fps=60)
    with camera as info:
        got = list(camera.frames())
    assert (info.width, info.height, info.pixel_size_known) == (128, 96, False)
    assert [frame.index for frame in got] == list(range(60))
    assert all(np.array_equal(frame.image, grey[frame.index]) for frame in got)


@pytest.mark.parametrize(
    "fault",
    [
        {"times": "wall", "clock_steps": [(2, 40, 3.6e6), (2, 60, -3.6e6)]},
        {"times": "comma", "binning_as": "{0}x{0}"},
        {"times": "zero", "clock_steps": [(2, 40, 3.6e6)], "binning_as": "({0}, {0})"},
        {"times": "zero", "tags": "text", "binning_as": "{0}X{0}"},
        {"tags": "none", "pixel_size_um": "", "fps": 40},
        {"tags": "null", "pixel_size_um": "nan"},
        {"tags": "some", "pixel_size_um": -1.0, "exposure_as": "nan"},
        {"tags": "nested", "numbers": "text", "exposure_as": ""},
        {"numbers": "none", "times": "us"},
        {"numbers": "same", "exposure_as": "2,2"},
        {"numbers": "some", "version": "4.2.0"},
        {"first_late_s": 3.0, "version": ""},
        {"first_late_s": 4.0, "late_sequence": 2},
    ],
    ids=str,
)
def test_whatever_is_said_of_them_the_frames_arrive_once_and_none_is_missed(
    micro_manager: Open, fault: dict[str, object]
) -> None:
    grey = a_movie(90)
    port, _ = micro_manager(grey, ends_after=90, **fault)
    camera = open_source("running", port=port, binning="2x2")  # type: ignore[arg-type]
    with camera as info:
        # Where no tag tells the time, a busy machine's own moments do.
        off = 0.25 if info.details["times_from"] == ARRIVAL else 0.05
        assert info.fps == pytest.approx(fault.get("fps", 60), rel=off)
        assert info.details["binning"] == "2"
        assert "not_as_asked" not in info.details
        assert (info.pixel_size_um, info.pixel_size_known) == (0.605, False)
        assert info.exposure_ms == (None if fault.get("exposure_as") in ("nan", "") else 2.2)
        told = say("sources.no-times", camera="Infinity") in info.warnings
        assert (
            told
            == (fault.get("tags") in ("none", "null", "some"))
            == (info.details["times_from"] == "arrival")
        )
        got = list(camera.frames())
    assert camera.missed == {}
    assert [frame.index for frame in got] == list(range(90))
    assert all(np.array_equal(frame.image, grey[frame.index]) for frame in got)
    assert got[-1].time_s == pytest.approx(89 / info.fps, abs=0.2)


@pytest.mark.parametrize("speaks", ["other", "silent"])
def test_a_server_of_another_version_is_named_if_it_is_not_understood(
    micro_manager: Open, monkeypatch: pytest.MonkeyPatch, speaks: str
) -> None:
    if speaks == "silent":
        assert remote_child._TO_UNDERSTAND_S < remote._TO_OPEN_S
        monkeypatch.setattr(remote, "Child", lambda _, order: Child("impatient_child", order))
    port, _ = micro_manager(a_movie(30), version="6.0.0", speaks=speaks)
    with pytest.raises(BadInput) as refused, open_source("running", port=port):
        pass
    assert refused.value.key == "sources.other-server"
    assert "6.0.0" in str(refused.value)
    assert "\n" not in str(refused.value)


_CONTINUOUS = """
import json, os, sys, time
from napari_rbcflow.sources.frame_loss import CoreClock, LossLedger
from napari_rbcflow.sources.remote_child import JavaCore
core, clock, ledger, places = JavaCore(int(sys.argv[1])), CoreClock(), LossLedger(1000 / 60), []
core.start_continuous_sequence_acquisition(0)
while len(places) < 60:
    if not core.get_remaining_image_count():
        time.sleep(0.005)
        continue
    tagged = core.pop_next_tagged_image()
    places += [frame.index for frame in ledger.take(*clock.read(tagged.tags), tagged.pix)]
    if len(places) == 30:
        time.sleep(1.5)
core.stop_sequence_acquisition()
print(json.dumps([core.is_buffer_overflowed(), ledger.missed, places]), flush=True)
os._exit(0)
"""


def test_a_buffer_that_was_cleared_without_a_flag_shows_in_the_numbers(micro_manager: Open) -> None:
    """As in a continuous sequence, which is why a run does not take one."""
    port, _ = micro_manager(a_movie(600), buffer_frames=40)
    done = subprocess.run(
        [sys.executable, "-c", _CONTINUOUS, str(port)], capture_output=True, text=True, timeout=60, check=True
    )
    flagged, missed, places = json.loads(done.stdout)
    assert not flagged
    assert missed == {"image-number": places[-1] + 1 - len(places)}
    assert missed["image-number"] >= 40


def test_an_overflow_there_is_counted_and_the_run_goes_on(micro_manager: Open) -> None:
    """Twice, while the computer's clock is set forward an hour, then back: neither is counted."""
    steps = [(3, 0, 3.6e6), (4, 0, -7.2e6)]
    port, _ = micro_manager(a_movie(600, 400, 600), buffer_frames=20, times="wall", clock_steps=steps)
    camera = open_source("running", port=port)
    got: list[Frame] = []
    began = time.monotonic()
    with camera:
        for frame in camera.frames():
            got.append(Frame(frame.index, frame.time_s, frame.image[:1]))
            if len(got) in (40, 100):
                time.sleep(1.5)  # the pipe fills, then the queues before it, then Micro-Manager's buffer
            if len(got) == 150:
                camera.stop()
    assert 20 < camera.missed.get("overflow", 0) < 60 * (time.monotonic() - began)
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(got))
    assert got[-1].index + 1 == len(got) + sum(camera.missed.values())


@pytest.mark.parametrize("how", ["killed", "hangs"])
def test_a_server_that_dies_ends_the_run_in_a_sentence(micro_manager: Open, how: str) -> None:
    # Up to four late frames are held back until the next ones come: with these, 90 are sure to arrive.
    port, server = micro_manager(a_movie(600), hangs_after=94 if how == "hangs" else -1)
    camera = open_source("running", port=port)
    got: list[int] = []

    last = [0.0]

    def until_dead() -> None:
        for frame in camera.frames():
            got.append(frame.index)
            last[0] = time.monotonic()
            if how == "killed" and len(got) == 90:
                server.kill()

    with camera, pytest.raises(RunFailed) as failed:
        until_dead()
    assert failed.value.key == "sources.micro-manager-gone"
    assert "\n" not in str(failed.value)
    assert len(got) >= 90
    assert time.monotonic() - last[0] < 5  # calls into a dead server hang for ever
    assert camera._child is not None  # type: ignore[attr-defined]
    assert camera._child.process.poll() is not None  # type: ignore[attr-defined]


def test_what_was_sent_before_the_run_was_ready_is_not_taken(micro_manager: Open) -> None:
    """Networks are loaded between `open` and `frames`; the buffer there holds half a second."""
    port, _ = micro_manager(a_movie(600), buffer_frames=30)
    camera = open_source("running", port=port)
    with camera:
        time.sleep(2)
        got = []
        for frame in camera.frames():
            got.append(frame)
            if len(got) == 40:
                camera.stop()
    assert camera.missed == {}
    assert got[0].index == 0
    assert got[0].image[0, 0] == 0


def test_a_stop_before_the_camera_is_open_is_heard(micro_manager: Open) -> None:
    port, _ = micro_manager(a_movie(300))
    camera = open_source("running", port=port)
    camera.stop()
    with contextlib.suppress(BadInput), camera:
        assert len(list(camera.frames())) < 60


def test_where_nobody_answers_a_sentence_says_what_to_tick() -> None:
    with pytest.raises(BadInput) as refused, open_source("running", port=free_port()):
        pass
    assert refused.value.key == "sources.no-micro-manager"
    assert "\n" not in str(refused.value)


def test_live_mode_is_ended_only_where_one_says_so(micro_manager: Open) -> None:
    port, _ = micro_manager(a_movie(90), live=True, ends_after=90)
    with pytest.raises(LiveModeOn) as refused, open_source("running", port=port):
        pass
    assert refused.value.key == "sources.live-mode-on"
    camera = open_source("running", port=port, end_live_mode=True)
    with camera:
        assert len(list(camera.frames())) == 90


def test_stop_ends_the_stream_and_the_next_run_starts(micro_manager: Open) -> None:
    port, _ = micro_manager(a_movie(600))
    for _ in range(2):
        camera = open_source("running", port=port)
        with camera:
            got = []
            for frame in camera.frames():
                got.append(frame.index)
                if len(got) == 30:
                    camera.stop()
        assert 30 <= len(got) < 200


def test_the_command_keeps_what_came_until_the_server_was_killed(micro_manager: Open, tmp_path: Path) -> None:
    port, server = micro_manager(a_movie(600, 256, 640), longest_ms=9)
    folder = tmp_path / "session"
    command = [sys.executable, "-m", "napari_rbcflow.cli", "live", "-o", str(folder), "--no-viewer"]
    command += ["--camera", "running", "--port", str(port), "--device", "cpu"]
    command += ["--pixel-type", "16bit-mono", "--binning", "2", "--roi", "0,0,320,256"]
    command += ["--exposure-ms", "12.5"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (folder / "run.json").is_file():
        time.sleep(0.1)
    time.sleep(2)
    server.kill()
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert say("sources.micro-manager-gone") in said
    assert "Infinity: 320 x 256 px · 60 frames/s · 9 ms · binning 2 · 16bit-MONO" in said
    different = say(
        "sources.difference", setting=say("sources.setting-exposure"), actual="9 ms", asked="12.5"
    )
    assert say("sources.line-not-as-asked", differences=different) in said
    kept = json.loads((folder / "run.json").read_text())
    assert kept["status"] == "failed"
    took = kept["parameters"]["source_details"]
    assert (took["pixel_type"], took["binning"], took["roi_px"]) == ("16bit-MONO", "2", "0,0,320,256")
    frames = kept["frames"]
    assert frames["received"] == frames["processed"] + sum(frames["dropped"].values()) > 30
