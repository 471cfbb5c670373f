"""A Micro-Manager that is already open: its server's wire, spoken by a stand-in that can be killed."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stand_in.server import Order

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sources.contract import Frame
from napari_rbcflow.sources.opening import open_source

pytest.importorskip("pycromanager", reason="pycromanager is not installed")
pytest.importorskip("zmq", reason="pyzmq is not installed")

SERVER = Path(__file__).parent / "stand_in" / "server.py"
Open = Callable[..., tuple[int, "subprocess.Popen[bytes]"]]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def micro_manager(tmp_path: Path) -> Iterator[Open]:
    """Open stand-ins that play a movie; all are killed in the end."""
    opened: list[subprocess.Popen[bytes]] = []

    def open_one(movie: np.ndarray, **said: object) -> tuple[int, subprocess.Popen[bytes]]:
        raw, port = tmp_path / f"{len(opened)}.raw", free_port()
        movie.tofile(raw)
        kind = {1: "8bit", 2: "16bit", 4: "32bitRGB"}[movie.dtype.itemsize]
        order = Order(str(raw), movie.shape[2], movie.shape[1], port, kind, **said)  # type: ignore[arg-type]
        server = subprocess.Popen([sys.executable, str(SERVER), order.text()], stdout=subprocess.PIPE)
        opened.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        return port, server

    yield open_one
    for server in opened:
        server.kill()
        server.wait()


def a_movie(frames: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Every frame says which it is, and every pixel where."""
    place = np.arange(height)[:, None] + np.arange(width)[None, :]
    return ((place + np.arange(frames)[:, None, None] * 7) % 251).astype(np.uint8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_every_frame_arrives_as_it_is(micro_manager: Open, kind: type) -> None:
    grey = a_movie(120)
    scale = {np.uint8: 1, np.uint16: 16, np.uint32: 0x010101}[kind]
    movie = grey.astype(kind) * kind(scale)
    port, _ = micro_manager(movie, ends_after=120, pixel_size_um=0.605)
    camera = open_source("running", port=port, fps=60, exposure_ms=2.5)
    with camera as info:
        assert (info.name, info.width, info.height, info.live) == ("Infinity", 128, 96, True)
        assert (info.fps, info.exposure_ms, info.pixel_size_um, info.pixel_size_known) == (
            60,
            2.5,
            0.605,
            True,
        )
        got = list(camera.frames())
    assert camera.missed == {}
    assert [frame.index for frame in got] == list(range(120))
    assert all(np.array_equal(frame.image, grey[frame.index]) for frame in got)


def test_an_overflow_there_is_counted_and_the_run_goes_on(micro_manager: Open) -> None:
    port, _ = micro_manager(a_movie(600, 400, 600), buffer_frames=20)
    camera = open_source("running", port=port)
    got: list[Frame] = []
    with camera:
        for frame in camera.frames():
            got.append(Frame(frame.index, frame.time_s, frame.image[:1]))
            if len(got) == 40:
                time.sleep(1.5)  # the pipe fills, then the queues before it, then Micro-Manager's buffer
            if len(got) == 90:
                camera.stop()
    assert camera.missed.get("overflow", 0) > 10
    assert got[-1].index + 1 == len(got) + sum(camera.missed.values())


@pytest.mark.parametrize("how", ["killed", "hangs"])
def test_a_server_that_dies_ends_the_run_in_a_sentence(micro_manager: Open, how: str) -> None:
    port, server = micro_manager(a_movie(600), hangs_after=90 if how == "hangs" else -1)
    camera = open_source("running", port=port)
    got: list[int] = []

    last = [0.0]

    def until_dead() -> None:
        for frame in camera.frames():
            got.append(frame.index)
            last[0] = time.monotonic()
            if how == "killed" and len(got) == 90:
                server.kill()

    with camera, pytest.raises(RunFailed, match="does not answer any more") as failed:
        until_dead()
    assert "\n" not in str(failed.value)
    assert len(got) >= 90
    assert time.monotonic() - last[0] < 5  # calls into a dead server hang for ever
    assert camera._child is not None  # type: ignore[attr-defined]
    assert camera._child.poll() is not None  # type: ignore[attr-defined]


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
    with (
        pytest.raises(BadInput, match="Run server on port") as refused,
        open_source("running", port=free_port()),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_live_mode_is_ended_only_where_one_says_so(micro_manager: Open) -> None:
    port, _ = micro_manager(a_movie(90), live=True, ends_after=90)
    with pytest.raises(BadInput, match="Live mode is on"), open_source("running", port=port):
        pass
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
    port, server = micro_manager(a_movie(600, 256, 320))
    folder = tmp_path / "session"
    command = [sys.executable, "-m", "napari_rbcflow.commands", "live", "-o", str(folder), "--no-viewer"]
    command += ["--camera", "running", "--port", str(port), "--device", "cpu"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (folder / "run.json").is_file():
        time.sleep(0.1)
    time.sleep(2)
    server.kill()
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "Micro-Manager does not answer any more" in said
    kept = json.loads((folder / "run.json").read_text())
    assert kept["status"] == "failed"
    frames = kept["frames"]
    assert frames["received"] == frames["processed"] + sum(frames["dropped"].values()) > 30
