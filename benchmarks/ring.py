"""CPU time a frame of the ring, beside the ways that it is not written; and what a session costs a track.

    OMP_NUM_THREADS=1 python benchmarks/ring.py [--frames 300] [--folder DIR]

CPU time of the whole process, all its threads and the kernel's part, so that zarr's own thread counts.
Writes some hundred MB to DIR (default: the system's folder for temporary files), which should lie on the
disk that is meant.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from napari_rbcflow.ring import FrameRing, open_ring
from napari_rbcflow.session import RunSummary, SessionWriter, verify
from napari_rbcflow.types import Frame, Judgement, Label, SourceInfo, Track

HEIGHT, WIDTH, FPS = 1096, 1376, 60.0
CAPACITY = 60
CELLS = 115
TRACKS = 20


def timed(name: str, n: int, work: Callable[[int], object]) -> None:
    """Run `work` once for every number below `n`, and print what one cost."""
    cpu, wall = time.process_time(), time.perf_counter()
    for i in range(n):
        work(i)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:58s} {1000 * cpu / n:8.2f} ms CPU {1000 * wall / n:8.2f} ms wall")


def rings(folder: Path, n: int) -> None:
    """Time the ring, and the alternatives."""
    rng = np.random.default_rng(0)
    images = [rng.integers(100, 142, (HEIGHT, WIDTH), dtype=np.uint8) for _ in range(4)]
    crops = rng.integers(0, 256, (CELLS, 31, 31), dtype=np.uint8)
    cells = np.arange(CELLS)
    places = np.linspace(0, 1000, CELLS).astype(np.float32)

    ring = FrameRing.create(
        folder / "ring.zarr",
        height=HEIGHT,
        width=WIDTH,
        capacity=CAPACITY,
        crop_capacity=CAPACITY * CELLS,
        fps=FPS,
        pixel_size_um=0.605,
    )
    timed("FrameRing.append, first round", CAPACITY, lambda i: ring.append(Frame(i, i / FPS, images[i % 4])))
    timed(
        "FrameRing.append",
        n,
        lambda i: ring.append(Frame(CAPACITY + i, i / FPS, images[i % 4])),
    )
    timed(
        f"FrameRing.append_crops of {CELLS}",
        n,
        lambda i: ring.append_crops(i, cells, places, places, crops),
    )
    ring.close()
    reader = open_ring(folder / "ring.zarr")
    timed("RingReader.frame", len(reader), lambda i: reader.frame(int(reader.indices[i])))

    def renamed(i: int) -> None:
        beside = folder / "beside"
        with beside.open("wb", buffering=0) as file:
            file.write(images[i % 4].data)
        os.replace(beside, folder / f"renamed-{i % CAPACITY}")  # noqa: PTH105

    timed("a new file renamed over the old", n, renamed)
    for name, codec in (("no codec", None), ("zarr's default codec", "auto")):
        array = zarr.create_array(
            folder / f"{name[:2]}.zarr",
            shape=(CAPACITY, HEIGHT, WIDTH),
            chunks=(1, HEIGHT, WIDTH),
            dtype="u1",
            compressors=codec,
        )
        timed(
            f"zarr's own assignment, {name}",
            n // 3,
            lambda i, to=array: to.__setitem__(i % CAPACITY, images[i % 4]),
        )


def session(folder: Path, n: int) -> None:
    """Time what keeping tracks costs."""
    rng = np.random.default_rng(0)
    writer = SessionWriter.create(
        folder / "session",
        source=SourceInfo("benchmark", HEIGHT, WIDTH, FPS, 0.605),
        parameters={},
        models={"stage1": {}, "stage2": {}},
        patient="",
        sample="",
        ring_frames=CAPACITY,
    )

    def batch(first: int) -> list[tuple[Track, Judgement]]:
        flags = np.ones(33, bool)
        crops = rng.integers(0, 256, (33, 31, 31), dtype=np.uint8)
        places = rng.uniform(0, 1000, 33).astype(np.float32)
        frames = first + np.arange(33)
        return [
            (
                Track(first + i, frames, places, places, flags, ~flags, ~flags, crops, "left-field"),
                Judgement(first + i, Label.UNRELIABLE, 0.1, None, "stage-1"),
            )
            for i in range(TRACKS)
        ]

    batches = [batch(1 + TRACKS * i) for i in range(n)]
    timed(
        f"SessionWriter.keep of {TRACKS} tracks of 33 frames, fsync'd", n, lambda i: writer.keep(batches[i])
    )
    timed("SessionWriter.heartbeat", 20, lambda _: writer.heartbeat(RunSummary()))
    cells = {"tracked": TRACKS * n, "unreliable": TRACKS * n}
    timed(
        f"close of {TRACKS * n} tracks",
        1,
        lambda _: writer.close(RunSummary(cells=cells), "finished", "user"),
    )
    timed("verify of that session", 1, lambda _: print(*verify(folder / "session").findings, end=""))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    print(f"{WIDTH} x {HEIGHT}, a ring of {CAPACITY}; zarr {zarr.__version__}")
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        rings(Path(place), given.frames)
        session(Path(place), max(1, given.frames // 3))


if __name__ == "__main__":
    main()
