"""Small movies of every format, damaged in every way a disk or a program can, and what reading them does.

`benchmarks/fuzz_readers.py` does it for hours, `test_damaged_movies.py` for seconds. A new format adds a line
to `SEEDS`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import shutil
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import tifffile
import zarr
from factories import a_movie
from PIL import Image
from tiff_writers import metadata_txt, mm_stack, nd_tiff, ome_file, stk

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sources import open_movie
from napari_rbcflow.sources.movie_reader import NoSuchFrame

LONGEST_S, MOST_BYTES = 10, 1 << 30
N = 12
FRAMES = a_movie(N)


class Find(NamedTuple):
    """What must not happen: `key` tells one fault in the program from another."""

    key: str
    damage: str
    told: str


# ------------------------------------------------------------------ seeds


def _video(path: Path, codec: str, pixels: str, **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=60, options=options)
        stream.height, stream.width, stream.pix_fmt = *FRAMES.shape[1:], pixels
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode(None))


def _folder(path: Path, ending: str) -> None:
    path.mkdir()
    for k, frame in enumerate(FRAMES):
        if ending == "tif":
            tifffile.imwrite(path / f"f_{k:03d}.tif", frame)
        else:
            Image.fromarray(frame).save(path / f"f_{k:03d}.{ending}")


def _zarr(path: Path, **options: Any) -> None:
    array = zarr.create_array(path, shape=FRAMES.shape, dtype="u1", chunks=(1, *FRAMES.shape[1:]), **options)
    array[:] = FRAMES
    array.attrs.update({"fps": 60.0, "pixel_size_um": 0.6})


def _ome_zarr(path: Path) -> None:
    group = zarr.create_group(path)
    group.create_array("0", data=FRAMES)
    axes = [{"name": "t", "type": "time", "unit": "second"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1 / 60, 0.6, 0.6]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}


def _tiff(path: Path, **options: Any) -> None:
    tifffile.imwrite(path, FRAMES, **options)


_TABLE = np.stack([np.arange(256, dtype=np.uint16)[::-1] * 257] * 3)


def _times(path: Path) -> None:
    planes = (f'<Plane TheC="0" TheT="{t}" TheZ="0" DeltaT="{t / 60}"/>' for t in range(N))
    ome_file(path, FRAMES, 'TimeIncrement="1.0" PhysicalSizeX="0.32"', "".join(planes))


def _micro_manager(path: Path) -> None:
    """In two parts."""
    path.mkdir()
    for name, places in (("run_MMStack_Pos0.ome.tif", range(7)), ("run_MMStack_Pos0_1.ome.tif", range(7, N))):
        mm_stack(path / name, ((t, 0, FRAMES[t]) for t in places), Frames=N, Positions=1)


SEEDS: dict[str, Callable[[Path], None]] = {
    "raw.avi": lambda p: _video(p, "rawvideo", "gray"),
    "bgr.avi": lambda p: _video(p, "rawvideo", "bgr24"),
    "mjpeg.avi": lambda p: _video(p, "mjpeg", "yuvj420p"),
    "mpeg4.avi": lambda p: _video(p, "mpeg4", "yuv420p", bf="2"),
    "ffv1.mkv": lambda p: _video(p, "ffv1", "gray"),
    "h264.mp4": lambda p: _video(p, "libx264", "yuv420p"),
    "h264.mkv": lambda p: _video(p, "libx264", "yuv420p", qp="0"),
    "vp9.webm": lambda p: _video(p, "libvpx-vp9", "yuv420p"),
    "hevc.mp4": lambda p: _video(p, "libx265", "yuv420p", **{"x265-params": "log-level=none"}),
    "png.mov": lambda p: _video(p, "png", "gray"),
    "gif.gif": lambda p: _video(p, "gif", "gray"),
    "plain.tif": _tiff,
    "imagej.tif": lambda p: _tiff(p, imagej=True, metadata={"axes": "TYX", "finterval": 0.02, "unit": "um"}),
    "ome.tif": lambda p: _tiff(p, ome=True, metadata={"axes": "TYX", "TimeIncrement": 20.0}),
    "lzw.tif": lambda p: _tiff(p, compression="lzw"),
    "zlib.tif": lambda p: _tiff(p, compression="zlib", tile=(32, 32)),
    "jpeg.tif": lambda p: _tiff(p, compression="jpeg"),
    "rgb.tif": lambda p: _tiff(p, photometric="minisblack", bigtiff=True),
    "12-bit.tif": lambda p: tifffile.imwrite(p, FRAMES.astype(np.uint16) * 16, bitspersample=12),
    "zstd.tif": lambda p: _tiff(p, compression="zstd"),
    "jpeg2000.tif": lambda p: _tiff(p, compression="jpeg2000"),
    "table.tif": lambda p: _tiff(p, photometric="palette", colormap=_TABLE),
    "channels.tif": lambda p: tifffile.imwrite(p, FRAMES.reshape(6, 2, *FRAMES.shape[1:]), imagej=True),
    "times.ome.tif": _times,
    "metamorph.stk": lambda p: stk(p, FRAMES) and None,
    "micro-manager": _micro_manager,
    "Pos0": lambda p: metadata_txt((_folder(p, "tif"), p)[1], (20.0 * t for t in range(N))) and None,
    "x_1": lambda p: nd_tiff(p, ({"time": t} for t in range(N)), FRAMES) and None,
    "jpgs": lambda p: _folder(p, "jpg"),
    "tifs": lambda p: _folder(p, "tif"),
    "pngs": lambda p: _folder(p, "png"),
    "bmps": lambda p: _folder(p, "bmp"),
    "plain.zarr": _zarr,
    "v2.zarr": lambda p: _zarr(p, zarr_format=2),
    "sharded.zarr": lambda p: _zarr(p, shards=(4, *FRAMES.shape[1:])),
    "ome.zarr": _ome_zarr,
}


def make(folder: Path) -> list[Path]:
    """Write every seed."""
    for name, write in SEEDS.items():
        write(folder / name)
    return [folder / name for name in SEEDS]


# ------------------------------------------------------------------ damage

_NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 64) - 1,
)
_TEXTS = (b"0", b"-1", b"1e308", b"99999999999999999999", b"null", b'"x"', b"[]", b"{}", b"nan", b"1.5", b"")


def _at(rng: random.Random, size: int) -> int:
    """Return a place in a file, mostly where headers are."""
    near = rng.choice((size, min(size, 64), min(size, 1024), min(size, 8192)))
    place = rng.randrange(max(1, near))
    return size - 1 - place if rng.random() < 0.2 else place


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[_at(rng, len(data)) :]


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[_at(rng, len(data))] ^= 1 << rng.randrange(8)


def _falsify(rng: random.Random, data: bytearray) -> None:
    """Write a size or a count that cannot be, or is another one."""
    width, order = rng.choice("HIQ"), rng.choice("<>")
    size = struct.calcsize(width)
    place = max(0, min(_at(rng, len(data)), len(data) - size))
    if len(data) >= size:
        number = rng.choice((*_NUMBERS, len(data), len(data) * 2, rng.getrandbits(8 * size)))
        data[place : place + size] = struct.pack(order + width, number % (1 << (8 * size)))


def _move(rng: random.Random, data: bytearray) -> None:
    """Drop, double or blank a part."""
    start = _at(rng, len(data))
    part = bytes(data[start : start + rng.choice((1, 4, 16, 512, 20_000))])
    kind = rng.randrange(3)
    data[start : start + len(part)] = (b"", part + part, bytes(len(part)))[kind]


def _reword(rng: random.Random, data: bytearray) -> None:
    """Exchange a number or a word of a description."""
    found = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"]{0,40}"', bytes(data[:200_000])))
    if found:
        one = rng.choice(found)
        data[one.start() : one.end()] = rng.choice(_TEXTS)


_WAYS = (_cut, _flip, _flip, _falsify, _falsify, _falsify, _move, _reword, _reword)


def damage(movie: Path, seed: int) -> str:
    """Damage a movie; return how."""
    rng = random.Random(seed)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        files = sorted(path for path in (movie.rglob("*") if movie.is_dir() else [movie]) if path.is_file())
        if not files:
            break
        heads = [path for path in files if path.suffix == ".json" or path.name.startswith(".z")]
        file = rng.choice(heads if heads and rng.random() < 0.6 else files)
        if movie.is_dir() and rng.random() < 0.1:
            file.unlink()
            done.append(f"{file.name} lost")
            continue
        data, way = bytearray(file.read_bytes()), rng.choice(_WAYS)
        if data:
            way(rng, data)
            file.write_bytes(data)
        done.append(f"{way.__name__[1:]} {file.name}")
    return ", ".join(done)


# ------------------------------------------------------------------ reading


def read(movie: Path) -> None:
    """Read a movie as a run and a viewer do; any of our own errors in one line is fine."""
    try:
        source = open_movie(movie)
        with source as info:
            source.sample(3)
            last = -1
            for k, frame in enumerate(source.frames()):
                assert frame.index > last, "places must ascend"
                assert frame.image.shape == (info.height, info.width)
                assert frame.image.dtype == np.uint8
                last = frame.index
                if k >= 4 * N:
                    break
            for index in (0, last, last // 2, last + 1):
                with contextlib.suppress(NoSuchFrame, RunFailed):
                    source.frame(index)
            _ = source.missed, source.n_places
    except (BadInput, RunFailed) as error:
        if "\n" in str(error):
            raise ValueError("more than a line") from error


def _work(seeds: Path, work: Path, pipe: Connection) -> None:
    """Read what is asked for, in a process that may hang, die or take all memory."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    names = sorted(path.name for path in seeds.iterdir())
    while (seed := pipe.recv()) is not None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        name = names[seed % len(names)]
        copy = work / name
        (shutil.copytree if (seeds / name).is_dir() else shutil.copy)(seeds / name, copy)
        told = damage(copy, seed)
        pipe.send(told)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        inside = set(work.rglob("*"))
        fault = ""
        try:
            read(copy)
        except BaseException:
            fault = traceback.format_exc()
        if set(work.rglob("*")) != inside:
            fault += "\nwrote into the movie's folder"
        took = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        pipe.send((fault, took))


def _answers(pipe: Connection, pid: int) -> bool:
    """Wait for an answer: so many seconds of the process's own, for the machine may be busy with others."""
    began = _cpu_s(pid)
    for _ in range(30):
        if pipe.poll(LONGEST_S):
            return True
        if _cpu_s(pid) - began >= LONGEST_S:
            return False
    return False


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no Linux: by the clock
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tries(seeds: Path, work: Path, numbers: Iterator[int]) -> Iterator[tuple[int, Find | None]]:
    """Try damages by their numbers; yield each, and what must not be."""
    context = multiprocessing.get_context("spawn")
    process: Any = None
    names = sorted(path.name for path in seeds.iterdir())
    for seed in numbers:
        if process is None:
            pipe, theirs = context.Pipe()
            process = context.Process(target=_work, args=(seeds, work, theirs), daemon=True)
            process.start()
            theirs.close()
        name, told, find = names[seed % len(names)], "", None
        try:
            pipe.send(seed)
            told = pipe.recv() if pipe.poll(120) else "?"
            if not _answers(pipe, process.pid):
                find = Find(f"{name}: hangs", told, f"longer than {LONGEST_S} s")
            else:
                fault, took = pipe.recv()
                if fault:
                    places = re.findall(r'File "([^"]+)", line (\d+)', fault)
                    ours = [f"{Path(file).name}:{line}" for file, line in places if "napari_rbcflow" in file]
                    kind = fault.strip().splitlines()[-1][:60]
                    find = Find(f"{ours[-1] if ours else name}: {kind}", told, fault)
                elif took > MOST_BYTES:
                    find = Find(f"{name}: memory", told, f"{took >> 20} MB")
        except (EOFError, OSError):
            process.join(5)
            find = Find(f"{name}: died", told, f"exit {process.exitcode}")
        if find is not None and (not process.is_alive() or "hangs" in find.key or "memory" in find.key):
            process.kill()
            process.join()
            process = None
        yield seed, find
    if process is not None:
        process.kill()
        process.join()
