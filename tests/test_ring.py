"""The ring keeps exactly the last frames, whole, whoever reads and whatever kills the writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sentence_keys import refused

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.ring import FrameGone, FrameRing, disk_faults, open_ring
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Frame

HEIGHT, WIDTH = 13, 17

WRITER = """
import sys, itertools, numpy as np
from pathlib import Path
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.types import Frame

height, width = 600, 800
ring = FrameRing.create(
    Path(sys.argv[1]), height=height, width=width, capacity=4, crop_capacity=100, fps=60, pixel_size_um=0.605
)
base = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
for index in itertools.count():
    ring.append(Frame(3 * index, index / 60, base + np.uint8(index % 251)))
    crops = np.full((3, 31, 31), index % 256, np.uint8)
    ring.append_crops(3 * index, [1, 2, 3], [5, 6, 7], [8, 9, 10], crops)
    if index == 8:
        print("running", flush=True)
"""


def picture(index: int, height: int = 600, width: int = 800) -> NDArray[np.uint8]:
    """What WRITER wrote under `index`."""
    base = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    return base + np.uint8(index // 3 % 251)


def make(path: Path, capacity: int = 5, crop_capacity: int = 7) -> FrameRing:
    return FrameRing.create(
        path,
        height=HEIGHT,
        width=WIDTH,
        capacity=capacity,
        crop_capacity=crop_capacity,
        fps=60.0,
        pixel_size_um=0.605,
    )


def bytes_in(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@settings(max_examples=40, deadline=None)
@given(
    capacity=st.integers(1, 9), steps=st.lists(st.integers(1, 5), max_size=25), seed=st.integers(0, 2**32 - 1)
)
def test_the_last_frames_bit_exact(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, steps: list[int], seed: int
) -> None:
    path = tmp_path_factory.mktemp("ring") / "frames.zarr"
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(steps), HEIGHT, WIDTH), dtype=np.uint8)
    indices = np.cumsum(steps) - 1
    ring = make(path, capacity)
    size = bytes_in(path)
    for index, image in zip(indices.tolist(), images, strict=True):
        ring.append(Frame(index, index / 60, image))
    kept = min(len(steps), capacity)

    for reader in (open_ring(path), (ring.close(), open_ring(path))[1]):  # open and closed
        assert reader.indices.tolist() == indices[len(steps) - kept :].tolist()
        assert reader.times_s.tolist() == [i / 60 for i in reader.indices.tolist()]
        for index, image in zip(reader.indices.tolist(), images[len(steps) - kept :], strict=True):
            assert np.array_equal(reader.frame(index), image)
        assert reader.check() == []
        if len(steps) > capacity:
            with pytest.raises(FrameGone):
                reader.frame(int(indices[0]))
    assert bytes_in(path) == size  # never a byte more than it began with

    # Any zarr reader sees the same, by the ledger's word; empty slots read as zeros.
    group = zarr.open_group(path, mode="r")
    ledger = np.asarray(group["frame_ledger"])
    assert list(group["frame_ledger"].attrs["columns"]) == ["frame", "time_s", "crc32c", "row_crc32c"]
    frames = np.asarray(group["frames"])
    assert sorted(ledger[ledger[:, 0] >= 0, 0].tolist()) == indices[len(steps) - kept :].tolist()
    for slot, row in enumerate(ledger):
        expected = images[indices.tolist().index(row[0])] if row[0] >= 0 else np.zeros_like(frames[0])
        assert np.array_equal(frames[slot], expected)


@settings(max_examples=30, deadline=None)
@given(capacity=st.integers(1, 1500), batches=st.lists(st.integers(0, 700), max_size=6))
def test_the_last_crops_bit_exact(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, batches: list[int]
) -> None:
    path = tmp_path_factory.mktemp("ring") / "frames.zarr"
    rng = np.random.default_rng(len(batches))
    total = sum(batches)
    crops = rng.integers(0, 256, (total, 31, 31), dtype=np.uint8)
    y, x = rng.uniform(-5, 2000, (2, total)).astype(np.float32)
    cells = rng.integers(1, 10**9, total)
    ring = make(path, crop_capacity=capacity)
    done = 0
    for frame, n in enumerate(batches):
        part = slice(done, done + n)
        ring.append_crops(frame, cells[part], y[part], x[part], crops[part])
        done += n
    held = open_ring(path).crops()
    last = slice(max(0, total - capacity), total)
    assert np.array_equal(held.crops, crops[last])
    assert np.array_equal(held.cell, cells[last])
    assert np.array_equal(held.frame, np.repeat(np.arange(len(batches)), batches)[last])
    assert np.array_equal(held.y_px, y[last])
    assert np.array_equal(held.x_px, x[last])
    assert held.damaged == 0


def test_a_long_run_holds_no_more_than_a_short_one(tmp_path: Path) -> None:
    """Neither bytes nor open files grow as the ring goes round and round, a reader beside it."""
    path = tmp_path / "frames.zarr"
    ring = make(path, capacity=30)
    reader = open_ring(path)
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    held = []
    for index in range(6000):
        image[0, 0] = index % 251
        ring.append(Frame(index, index / 60, image))
        ring.append_crops(index, [1], [2], [3], np.full((1, 31, 31), index % 251, np.uint8))
        if index % 1500 == 100:
            reader.refresh()
            assert reader.indices.tolist() == list(range(index - 29, index + 1))
            assert reader.frame(index)[0, 0] == index % 251
            held.append((bytes_in(path), psutil.Process().num_fds() if os.name != "nt" else 0))
    assert len(set(held)) == 1
    ring.close()
    assert open_ring(path).check() == []


@pytest.fixture
def writing(tmp_path: Path) -> tuple[Path, subprocess.Popen[str]]:
    """A process that writes a ring for as long as it lives."""
    path = tmp_path / "frames.zarr"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            yield path, process
        finally:
            process.kill()


def test_reading_while_it_is_written(writing: tuple[Path, subprocess.Popen[str]]) -> None:
    path, process = writing
    whole = gone = 0
    deadline = time.monotonic() + 20
    while whole < 300 and time.monotonic() < deadline:
        reader = open_ring(path)
        assert np.all(np.diff(reader.indices) > 0)
        for index in reader.indices.tolist():
            try:
                frame = reader.frame(index)
            except FrameGone:
                gone += 1
            else:
                whole += 1
                assert np.array_equal(frame, picture(index)), f"frame {index} is torn or another's"
        crops = reader.crops()
        assert np.array_equal(crops.crops[:, 0, 0], crops.frame // 3 % 256)
        assert np.all(crops.crops == crops.crops[:, :1, :1])
    assert process.poll() is None
    assert whole >= 300
    assert gone > 0, "the writer never overtook the reader: nothing was tested"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("wait_s", [0.0, 0.0137, 0.0521])
def test_killed_while_writing(writing: tuple[Path, subprocess.Popen[str]], wait_s: float) -> None:
    path, process = writing
    time.sleep(wait_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reader = open_ring(path)
    assert reader.check() == []
    assert len(reader) >= 3  # of four slots, one may have been under the pen
    for index in reader.indices.tolist():
        assert np.array_equal(reader.frame(index), picture(index))
    crops = reader.crops()
    assert crops.damaged == 0
    assert np.array_equal(crops.crops[:, 0, 0], crops.frame // 3 % 256)


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "frames.zarr"
    ring = make(path)
    for index in range(5):
        ring.append(Frame(index, index / 60, np.full((HEIGHT, WIDTH), index, np.uint8)))
    ring.append_crops(4, [1, 2], [1, 2], [3, 4], np.ones((2, 31, 31), np.uint8))
    ring.close()
    for name, place in (("frames/c/2/0/0", 100), ("crops/c/0/0/0", 1000)):
        chunk = bytearray((path / name).read_bytes())
        chunk[place] ^= 1
        (path / name).write_bytes(chunk)
    reader = open_ring(path)
    with pytest.raises(RunFailed) as damaged:
        reader.frame(2)
    assert str(damaged.value) == say("ring.frame-damaged", index=2, path=path)
    assert np.all(reader.frame(3) == 3)
    assert reader.crops().cell.tolist() == [1]
    assert reader.check() == [
        say("ring.frames-found-damaged", name=path.name, damaged=1, frames=5, first=2),
        say("ring.crops-found-damaged", name=path.name, damaged=1),
    ]
    with pytest.raises(Exception, match=r"(?i)checksum|crc"):  # zarr's own codec sees it too
        zarr.open_group(path, mode="r")["frames"][2]

    ledger = path / "frame_ledger" / "c" / "0" / "0"
    rows = np.fromfile(ledger, "<f8").reshape(-1, 4)
    rows[3, 0] = 77  # one frame's bytes under another's index
    rows.tofile(ledger)
    reader = open_ring(path)
    assert reader.indices.tolist() == [0, 1, 2, 4]
    assert reader.check()[0] == say("ring.rows-found-damaged", name=path.name, damaged=1, rows=5)
    ledger.unlink()
    with pytest.raises(RunFailed) as lost:
        open_ring(path)
    assert str(lost.value) == say("ring.ledger-lost", path=path, ledger="frame_ledger")


def test_what_a_ring_refuses(tmp_path: Path) -> None:
    path = tmp_path / "frames.zarr"
    ring = make(path)
    with refused(BadInput, "ring.exists"):
        make(path)
    with refused(RunFailed, "ring.frame-changed"):
        ring.append(Frame(0, 0.0, np.zeros((HEIGHT, WIDTH + 1), np.uint8)))
    with refused(RunFailed, "ring.frame-changed"):
        ring.append(Frame(0, 0.0, np.zeros((HEIGHT, WIDTH), np.uint16)))
    ring.append(Frame(5, 0.1, np.zeros((HEIGHT, WIDTH), np.uint8)))
    with refused(RunFailed, "ring.clock-backwards"):
        ring.append(Frame(5, 0.1, np.zeros((HEIGHT, WIDTH), np.uint8)))
    with pytest.raises(ValueError, match="one 31 x 31 crop for each cell"):
        ring.append_crops(5, [1, 2], [1, 2], [1, 2], np.zeros((1, 31, 31), np.uint8))
    ring.close()
    ring.close()
    with refused(RunFailed, "ring.closed"):
        ring.append(Frame(6, 0.1, np.zeros((HEIGHT, WIDTH), np.uint8)))

    for full in (errno.ENOSPC, errno.EDQUOT):  # the disk, or this user's share of it
        with refused(RunFailed, "ring.disk-full"), disk_faults(tmp_path):
            raise OSError(full, "full")

    with refused(BadInput, "ring.not-a-ring"):
        open_ring(tmp_path)
    about = json.loads((path / "zarr.json").read_text())
    about["attributes"]["rbcflow_ring"] = 99
    (path / "zarr.json").write_text(json.dumps(about))
    with refused(BadInput, "ring.newer-version"):
        open_ring(path)
