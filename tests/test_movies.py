"""Recorded movies: the frames that come out are those that went in, and every bad file is said to be bad."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
import zarr
from sentence_keys import any_said, refused
from zarr.codecs import BytesCodec, ShardingCodec

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.quality.monitor import RunQuality
from napari_rbcflow.quality.rules import warnings_of_figures
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.sentences import say
from napari_rbcflow.simulation import SimulatedChamber
from napari_rbcflow.sources import open_frames
from napari_rbcflow.sources.factory import open_source
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.types import Frame

N, HEIGHT, WIDTH = 40, 72, 98  # a width that no codec pads to by itself
Write = Callable[[Path, np.ndarray], Path]


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    """Grey frames, all different, like background with noise."""
    return np.random.default_rng(5).integers(90, 160, (N, HEIGHT, WIDTH), dtype=np.uint8)


def write_video(
    path: Path,
    frames: np.ndarray,
    codec: str = "rawvideo",
    pix_fmt: str = "gray",
    given: str = "gray",
    rate: int = 50,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=given))
            )
        container.mux(stream.encode(None))
    return path


def as_rgb(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames[..., None], 3, axis=3)


def riff_avi(
    path: Path, frames: np.ndarray, *, rate: int = 50, empty: tuple[int, ...] = (), index: bool = True
) -> Path:
    """Write an 8-bit AVI as cameras do: a grey palette, rows from the bottom, padded to four bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)

    def listing(kind: bytes, *chunks: bytes) -> bytes:
        return chunk(b"LIST", kind + b"".join(chunks))

    n, height, width = frames.shape
    padded = np.pad(frames[:, ::-1], ((0, 0), (0, 0), (0, -width % 4)))
    palette = b"".join(bytes((k, k, k, 0)) for k in range(256))
    bitmap = (
        struct.pack(
            "<IiiHHIIiiII", 40, width, height, 1, 8, 0, padded.shape[1] * padded.shape[2], 0, 0, 256, 256
        )
        + palette
    )
    header = struct.pack(
        "<4s4sIHHIIIIIIII4H", b"vids", b"DIB ", 0, 0, 0, 0, 1, rate, 0, n, 0, 0, 0, 0, 0, width, height
    )
    main = struct.pack("<14I", 20000, 0, 0, 0x10, n, 0, 1, 0, width, height, 0, 0, 0, 0)
    data = [chunk(b"00db", b"" if k in empty else image.tobytes()) for k, image in enumerate(padded)]
    entries, offset = [], 4
    for one in data:
        entries.append(struct.pack("<4sIII", b"00db", 0x10, offset, struct.unpack("<I", one[4:8])[0]))
        offset += len(one)
    body = listing(
        b"hdrl", chunk(b"avih", main), listing(b"strl", chunk(b"strh", header), chunk(b"strf", bitmap))
    )
    body += listing(b"movi", *data) + (chunk(b"idx1", b"".join(entries)) if index else b"")
    path.write_bytes(chunk(b"RIFF", b"AVI " + body))
    return path


def tiff_one_write_a_frame(path: Path, frames: np.ndarray) -> Path:
    with tifffile.TiffWriter(path) as tif:
        for frame in frames:
            tif.write(frame)
    return path


def tiff_folder(path: Path, frames: np.ndarray) -> Path:
    path.mkdir()
    for k, frame in enumerate(frames):  # 9 before 10: the names are in no alphabetical order
        tifffile.imwrite(path / f"Frame{k}.tif", frame)
    return path


def ome_zarr(
    path: Path,
    frames: np.ndarray,
    zarr_format: int,
    *,
    pixel: float = 0.3,
    step: float = 20.0,
    height: float = 0.0,
) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    shape = (len(frames), 1, 1, *frames.shape[1:])
    level = group.create_array("0", shape=shape, chunks=(7, 1, 1, 40, *frames.shape[2:]), dtype=frames.dtype)
    level[:] = frames[:, None, None]
    coarse = group.create_array("1", shape=(len(frames), 1, 1, 8, 8), dtype=frames.dtype)
    coarse[:] = 7
    axes = [{"name": "t", "type": "time", "unit": "millisecond"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scales = [[step, 1.0, 1.0, height or pixel, pixel], [step, 1.0, 1.0, pixel * 9, pixel * 9]]
    levels = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for k, scale in enumerate(scales)
    ]
    said = [{"version": "0.4", "axes": axes, "datasets": levels}]
    group.attrs.update(
        {"multiscales": said} if zarr_format == 2 else {"ome": {"version": "0.5", "multiscales": said}}
    )
    return path


def zarr_array(path: Path, frames: np.ndarray, **options: object) -> Path:
    array = zarr.create_array(path, shape=frames.shape, dtype=frames.dtype, **options)
    array[:] = frames
    return path


def named_by_xarray(path: Path, frames: np.ndarray) -> Path:
    """A data set of x, y, time, as xarray writes it in Zarr v2, with a time of each frame beside it."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array("movie", shape=frames.T.shape, dtype=frames.dtype)
    array[:] = frames.T
    array.attrs["_ARRAY_DIMENSIONS"] = ["X", "Y", "Time"]
    group.create_array("Time", shape=(len(frames),), dtype="f8")[:] = np.arange(len(frames))
    return path


def zipped(path: Path, inside: str = "") -> Path:
    """A folder as a zip file of the same name, uncompressed as an .ozx must be."""
    with zipfile.ZipFile(path.with_suffix(".ozx"), "w") as file:
        for part in sorted(path.rglob("*")):
            if part.is_file():
                file.write(part, inside + part.relative_to(path).as_posix())
    return path.with_suffix(".ozx")


def session(path: Path, frames: np.ndarray) -> Path:
    """A session whose ring has gone round: it holds the last frames only."""
    path.mkdir()
    ring = FrameRing.create(
        path / "frames.zarr",
        height=HEIGHT,
        width=WIDTH,
        capacity=max(1, len(frames)),
        crop_capacity=8,
        fps=50.0,
        pixel_size_um=0.3,
    )
    for k in range(13 if len(frames) else 0):
        ring.append(Frame(k, k / 50, np.zeros((HEIGHT, WIDTH), np.uint8)))
    for k, frame in enumerate(frames):
        ring.append(Frame(13 + k, (13 + k) / 50, frame))
    ring.close()
    return path


FORMATS: dict[str, tuple[str, Write]] = {
    "avi 8 bit": ("m.avi", write_video),
    "avi 8 bit with palette": ("m.avi", riff_avi),
    "avi without index": ("m.avi", lambda p, f: riff_avi(p, f, index=False)),
    "avi 24 bit": ("m.avi", lambda p, f: write_video(p, as_rgb(f), pix_fmt="bgr24", given="bgr24")),
    "avi ffv1": ("m.avi", lambda p, f: write_video(p, f, "ffv1")),
    "mkv, time stamps rounded": ("m.mkv", lambda p, f: write_video(p, f, "ffv1")),
    "tiff stack": ("m.tif", lambda p, f: _tif(p, f)),
    "tiff, compressed pages": ("m.tif", lambda p, f: _tif(p, f, compression="zlib")),
    "tiff, one write a frame": ("m.tiff", tiff_one_write_a_frame),
    "tiff, big-endian BigTIFF": ("m.btf", lambda p, f: _tif(p, f, bigtiff=True, byteorder=">")),
    "tiff, planes as z": ("m.tif", lambda p, f: _tif(p, f, imagej=True, metadata={"axes": "ZYX"})),
    "tiff, planes as channels": ("m.tif", lambda p, f: _tif(p, f, imagej=True)),
    "tiff rgb of equal channels": ("m.tif", lambda p, f: _tif(p, as_rgb(f), photometric="rgb")),
    "tiff, white is zero": ("m.tif", lambda p, f: _tif(p, 255 - f, photometric="miniswhite")),
    "tiff 16 bit": ("m.tif", lambda p, f: _tif(p, f.astype(np.uint16) * 16 + 5)),
    "tiff folder": ("frames", tiff_folder),
    "zarr": ("m.zarr", zarr_array),
    "zarr v2, cut in space": ("m.zarr", lambda p, f: zarr_array(p, f, chunks=(3, 30, 50), zarr_format=2)),
    "zarr, sharded": (
        "m.zarr",
        lambda p, f: zarr_array(p, f, chunks=(2, HEIGHT, WIDTH), shards=(10, HEIGHT, WIDTH)),
    ),
    "zarr, axes named y, x, t": (
        "m.zarr",
        lambda p, f: zarr_array(p, f.transpose(1, 2, 0).copy(), dimension_names=["y", "x", "t"]),
    ),
    "zarr v2, axes named by xarray": ("m.zarr", named_by_xarray),
    "zarr, zipped": ("m.ozx", lambda p, f: zipped(zarr_array(p.with_suffix(".zarr"), f))),
    "ome-zarr, its folder zipped": (
        "m.ozx",
        lambda p, f: zipped(ome_zarr(p.with_suffix(".zarr"), f, 3), "m/"),
    ),
    "zarr of int64": ("m.zarr", lambda p, f: zarr_array(p, f.astype(np.int64))),
    "zarr rgb": ("m.zarr", lambda p, f: zarr_array(p, as_rgb(f))),
    "ome-zarr 0.4": ("m.zarr", lambda p, f: ome_zarr(p, f, 2)),
    "ome-zarr 0.5": ("m.zarr", lambda p, f: ome_zarr(p, f, 3)),
    "session": ("s", session),
    "a session's ring": ("s", lambda p, f: session(p, f) / "frames.zarr"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_frames_that_come_out_are_those_that_went_in(kind: str, movie: np.ndarray, tmp_path: Path) -> None:
    name, write = FORMATS[kind]
    source = open_movie(write(tmp_path / name, movie))
    with source as info:
        assert (info.n_frames, info.height, info.width, info.live) == (N, HEIGHT, WIDTH, False)
        before = source.sample(7)
        frames = list(source.frames())
        every = source.sample(1000)
    assert [frame.index for frame in frames] == list(range(N))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(N) / info.fps)
    out = np.stack([frame.image for frame in frames])
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, movie)
    np.testing.assert_array_equal(before, movie[[0, 6, 13, 20, 26, 32, 39]])
    np.testing.assert_array_equal(every, movie)
    assert not source.missed


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [("mjpeg", "yuvj420p", "m.avi"), ("mpeg4", "yuv420p", "m.avi"), ("libx264", "yuv420p", "m.mp4")],
)
def test_lossy_movies_keep_their_order_and_their_grey(
    codec: str, pix_fmt: str, name: str, tmp_path: Path
) -> None:
    """A bright bar moves: which frame is which can be told in spite of the codec."""
    frames = np.full((N, 96, 128), 110, np.uint8)
    for k in range(N):
        frames[k, :, 3 * k : 3 * k + 8] = 180
    source = open_movie(write_video(tmp_path / name, frames, codec, pix_fmt))
    with source as info:
        sampled = source.sample(9)
        out = np.stack([frame.image for frame in source.frames()])
    assert info.n_frames == N
    assert say("sources.video-in-colour", name=name) not in info.warnings
    assert np.abs(out.astype(int) - frames).mean() < 2
    np.testing.assert_array_equal(sampled, out[[0, 5, 10, 15, 20, 24, 29, 34, 39]])


def test_a_repeated_avi_frame_is_missed_not_shifted(movie: np.ndarray, tmp_path: Path) -> None:
    source = open_movie(riff_avi(tmp_path / "m.avi", movie, empty=(11, 12)))
    with source as info:
        frames = list(source.frames())
        np.testing.assert_array_equal(source.sample(1000), np.delete(movie, [11, 12], axis=0))
    assert info.n_frames == N - 2
    for frame in frames:
        np.testing.assert_array_equal(frame.image, movie[frame.index])
    assert source.missed == {"not-recorded": 2}


def test_a_stack_that_lost_only_its_end_is_read_with_a_warning(movie: np.ndarray, tmp_path: Path) -> None:
    path = cut(_tif(tmp_path / "m.tif", movie, imagej=True), -100)
    with (source := open_movie(path)) as info:
        np.testing.assert_array_equal(np.stack([frame.image for frame in source.frames()]), movie)
    assert say("sources.tiff-cut-after-frames", name="m.tif", frames=N) in info.warnings


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (6, 80, 90, 3), dtype=np.uint8)
    luminance = np.round(colour @ [0.299, 0.587, 0.114])
    with_alpha = np.concatenate([colour, np.full((6, 80, 90, 1), 9, np.uint8)], axis=3)
    paths = {
        "avi": write_video(tmp_path / "c.avi", colour, pix_fmt="bgr24", given="rgb24"),
        "tiff": tmp_path / "c.tif",
        "tiff with alpha": tmp_path / "a.tif",
        "tiff in planes": tmp_path / "p.tif",
    }
    tifffile.imwrite(paths["tiff"], colour, photometric="rgb")
    tifffile.imwrite(paths["tiff with alpha"], with_alpha, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(
        paths["tiff in planes"], np.moveaxis(colour, 3, 1), photometric="rgb", planarconfig="separate"
    )
    for what, path in paths.items():
        with (source := open_movie(path)) as info:
            out = np.stack([frame.image for frame in source.frames()])
        assert np.abs(out - luminance).max() <= 1, what
        assert say("sources.in-colour", name=path.name) in info.warnings, what
    assert say("sources.alpha-ignored", name="a.tif") in _warnings(paths["tiff with alpha"])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_movies_are_shifted_by_one_amount(bits: int, tmp_path: Path) -> None:
    deep = np.random.default_rng(bits).integers(0, 1 << bits, (9, 80, 90)).astype(np.uint16)
    deep[4, 0, 0] = (1 << bits) - 1
    ways: dict[str, dict[str, Any]] = {"d.tif": {}, "b.tif": {"byteorder": ">"}, "ij.tif": {"imagej": True}}
    for name, way in ways.items():  # ImageJ's, too, are big-endian
        tifffile.imwrite(tmp_path / name, deep, **way)
        with (source := open_movie(tmp_path / name)) as info:
            out = np.stack([frame.image for frame in source.frames()])
        np.testing.assert_array_equal(out, deep >> (bits - 8), name)
        assert say("sources.deep-movie", name=name, bits=bits, divisor=1 << (bits - 8)) in info.warnings


def _hot(frames: np.ndarray) -> np.ndarray:
    deep = frames.astype(np.uint16) * 16
    deep[:, 7, 9] = 65535
    return deep


# By what lies in the file: what is made of the 8-bit movie, and the sentence that says so.
DEEP: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "a hot pixel": (_hot, "hot-pixels"),
    "signed numbers as unsigned": (lambda f: f.astype(np.uint16) * 16 + 32768, "offset-of-signed"),
    "int8": (lambda f: f.astype(np.int8), ""),
    "big-endian int32": (lambda f: f.astype(">i4") * 16, "deep-movie"),
    "alpha beyond the colours": (
        lambda f: np.stack([f.astype(np.uint16) * 16] * 3 + [np.full(f.shape, 65535, np.uint16)], axis=3),
        "alpha-ignored",
    ),
}


@pytest.mark.parametrize("what", DEEP)
def test_no_odd_value_decides_what_the_others_become(what: str, movie: np.ndarray, tmp_path: Path) -> None:
    make, key = DEEP[what]
    frames = movie // 2 + 40  # 85 to 119: signed bytes hold it
    path = zarr_array(tmp_path / "m.zarr", make(frames))
    with (source := open_movie(path)) as info:
        out = np.stack([frame.image for frame in source.frames()])
    out[:, 7, 9] = frames[:, 7, 9]
    np.testing.assert_array_equal(out, frames)
    said = {
        key
        for key in ("hot-pixels", "offset-of-signed", "deep-movie", "alpha-ignored")
        if any_said(f"sources.{key}", info.warnings)
    }
    assert (key in said) if key else not said
    assert "grey_stretched" not in info.details


def test_an_offset_that_leaves_pale_cells_is_an_offset(tmp_path: Path) -> None:
    """With 6000 added, 6 of 57 cells were counted, and 33 % for 72 %, without a word."""
    for added, is_told in ((0, False), (2000, False), (6000, True)):
        deep = tifffile.imread(SAMPLE).astype(np.uint16)[:40] * 16 + added
        with open_movie(_tif(tmp_path / f"{added}.tif", deep)) as info:
            assert ("grey_stretched" in info.details) == is_told


def test_pixels_that_are_square_after_all_are_read(movie: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    BAD["tiff of pixels that are not square"][1](path, movie)
    with open_movie(path, pixel_size_um=0.5) as info:
        assert info.pixel_size_um == 0.5
    np.testing.assert_array_equal(open_frames(path)[3], movie[3])  # to look at, also next to its analysis
    with refused(BadInput, "sources.pixels-not-square"):
        open_movie(ome_zarr(tmp_path / "m.zarr", movie[:12], 3, height=0.6)).open()


def test_a_folder_with_one_zarr_in_it_is_that_movie(movie: np.ndarray, tmp_path: Path) -> None:
    zarr_array(tmp_path / "day" / "m.zarr", movie)
    with (source := open_movie(tmp_path / "day")):
        np.testing.assert_array_equal(np.stack([frame.image for frame in source.frames()]), movie)


def test_values_with_an_offset_are_stretched_and_no_result(movie: np.ndarray, tmp_path: Path) -> None:
    """Which value is black nobody can know: the contrast of the cells, and with it the number, is a guess."""
    deep = 30_000 + movie.astype(np.uint16) * 4
    with (source := open_movie(_tif(tmp_path / "m.tif", deep))) as info:
        out = np.stack([frame.image for frame in source.frames()])
    assert np.corrcoef(out.ravel(), movie.ravel())[0, 1] > 0.999
    assert np.median(out) == pytest.approx(120, abs=1)
    figures = RunQuality(info).figures()
    assert [w.key for w in warnings_of_figures(figures) if w.grave] == ["grey-stretched"]


def _warnings(path: Path) -> tuple[str, ...]:
    with open_movie(path) as info:
        return info.warnings


def _scale(path: Path, **asked: float) -> tuple[float | None, float | None]:
    """Frame rate and pixel size as known; None where only the default."""
    with open_movie(path, **asked) as info:
        assert info.fps_known or info.fps == 60
        assert info.pixel_size_known or info.pixel_size_um == 0.605
        fps_unknown = say("sources.fps-unknown", name=path.name, fps=60)
        assert (fps_unknown in info.warnings) is not info.fps_known
        pixel_size_unknown = say("sources.pixel-size-unknown", name=path.name, pixel=0.605)
        assert (pixel_size_unknown in info.warnings) is not info.pixel_size_known
        return (info.fps if info.fps_known else None), (info.pixel_size_um if info.pixel_size_known else None)


def test_frame_rate_and_pixel_size_come_from_user_then_file_then_default(
    movie: np.ndarray, tmp_path: Path
) -> None:
    short = movie[:5]
    said: dict[str, tuple[float | None, float | None]] = {}

    def tiff(name: str, **options: object) -> None:
        tifffile.imwrite(tmp_path / f"{name}.tif", short, **options)
        said[name] = _scale(tmp_path / f"{name}.tif")

    tiff("plain")
    tiff("inches", resolution=(72, 72), resolutionunit="INCH")
    tiff("described", metadata={"fps": 75, "pixel_size_um": 0.4})
    tiff(
        "imagej",
        imagej=True,
        resolution=(1 / 0.3, 1 / 0.3),
        metadata={"unit": "um", "finterval": 0.02, "axes": "TYX"},
    )
    tiff("imagej without unit", imagej=True, metadata={"axes": "TYX"})
    ome = {
        "axes": "TYX",
        "TimeIncrement": 20.0,
        "TimeIncrementUnit": "ms",
        "PhysicalSizeX": 300.0,
        "PhysicalSizeXUnit": "nm",
    }
    tiff("ome", ome=True, metadata=ome)
    tiff(
        "ome in pixels",
        ome=True,
        metadata=ome | {"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel", "TimeIncrement": 0.0},
    )
    tiff(
        "ome absurd",
        ome=True,
        metadata=ome | {"PhysicalSizeX": 5.0, "PhysicalSizeXUnit": "m", "TimeIncrement": 1e-9},
    )
    tiff("binned twice over", metadata={"fps": 0.05, "pixel_size_um": 6.05})
    warnings = _warnings(tmp_path / "binned twice over.tif")
    assert say("sources.fps-implausible", origin="binned twice over.tif", fps=0.05) in warnings
    assert say("sources.pixel-size-implausible", origin="binned twice over.tif", pixel=6.05) in warnings
    assert said == {
        "plain": (None, None),
        "inches": (None, None),
        "described": (75, 0.4),
        "imagej": (pytest.approx(50), pytest.approx(0.3, rel=1e-4)),
        "imagej without unit": (None, None),
        "ome": (pytest.approx(50), pytest.approx(0.3)),
        "ome in pixels": (None, None),
        "ome absurd": (None, None),
        "binned twice over": (None, None),
    }
    assert _scale(ome_zarr(tmp_path / "o.zarr", short, 3)) == (pytest.approx(50), pytest.approx(0.3))
    assert _scale(ome_zarr(tmp_path / "1.zarr", short, 3, pixel=1.0, step=1.0)) == (None, None)
    ours = zarr_array(tmp_path / "z.zarr", short)
    zarr.open_array(ours).attrs.update({"fps": 59.5, "pixel_size_um": 1.21})
    assert _scale(ours) == (59.5, 1.21)
    assert _scale(riff_avi(tmp_path / "r.avi", short)) == (50, None)
    assert _scale(riff_avi(tmp_path / "r0.avi", short, rate=0)) == (None, None)
    assert _scale(session(tmp_path / "s", short)) == (50, 0.3)
    assert _scale(ours, fps=61, pixel_size_um=0.7) == (61, 0.7)


def test_one_of_several_positions_in_a_zarr_is_chosen(movie: np.ndarray, tmp_path: Path) -> None:
    """As bioformats2raw writes them, the tenth after the second."""
    path = tmp_path / "m.zarr"
    group = zarr.open_group(path, mode="w")
    for k in (0, 1, 10):
        ome_zarr(path / str(k), movie[k : k + 3], 3, pixel=0.3 + k / 10)
    group.attrs["bioformats2raw.layout"] = 3
    with open_movie(path, series=2) as info, (source := open_movie(path, series=1)):
        assert info.pixel_size_um == pytest.approx(1.3)
        np.testing.assert_array_equal([frame.image for frame in source.frames()], movie[1:4])


def cut(path: Path, keep: float | int) -> Path:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(int(size * keep) if isinstance(keep, float) else size + keep)
    return path


def _tif(path: Path, frames: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, frames, **options)
    return path


def _text(path: Path, text: str = "no movie") -> Path:
    path.write_text(text)
    return path


def _folder(path: Path, *frames: np.ndarray) -> Path:
    path.mkdir()
    for k, frame in enumerate(frames):
        tifffile.imwrite(path / f"{k}.tif", frame)
    return path


def _broken_link(path: Path, frames: np.ndarray) -> Path:
    """A stack whose writer died: the last directory points to one that was never written."""
    tiff_one_write_a_frame(path, frames)
    with tifffile.TiffFile(path) as tif:
        last, tags = tif.pages[-1].offset, len(tif.pages[-1].tags)
    with path.open("r+b") as file:
        file.seek(last + 2 + 12 * tags)
        file.write(struct.pack("<I", path.stat().st_size + 4096))
    return path


def _unwritten(path: Path, frames: np.ndarray, **options: object) -> Path:
    array = zarr.create_array(
        path, shape=frames.shape, chunks=(1, *frames.shape[1:]), dtype=frames.dtype, **options
    )
    array[:25] = frames[:25]
    return path


def _hole(path: Path, frames: np.ndarray, **index: Any) -> Path:
    codec = ShardingCodec(chunk_shape=(1, HEIGHT, WIDTH), **index)
    array = zarr.create(frames.shape, chunks=(10, HEIGHT, WIDTH), dtype="u1", codecs=[codec], store=path)
    array[:12], array[15:] = frames[:12], frames[15:]
    return path


def _wrong_index(path: Path, frames: np.ndarray) -> Path:
    zarr_array(path, frames, chunks=(1, HEIGHT, WIDTH), shards=(N, HEIGHT, WIDTH))
    shard = path / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[-4 - 16 * N] ^= 64  # where the first chunk lies
    shard.write_bytes(data)
    return path


def _zip_of_text(path: Path, frames: np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m.tif", b"nothing")
    return path


def _two_sizes(path: Path, frames: np.ndarray) -> Path:
    with tifffile.TiffWriter(path) as tif:
        tif.write(frames[0])
        tif.write(frames[1][:-2])
    return path


def _thumbnail_first(path: Path, frames: np.ndarray) -> None:
    """A small picture as it is, then a movie in a compression: each is a movie of its own to tifffile."""
    with tifffile.TiffWriter(path) as tif:
        tif.write(frames[0, ::4, ::4], metadata=None)
        for frame in frames:
            tif.write(frame, contiguous=False, compression="zlib", metadata=None)


def _one_inverted(path: Path, frames: np.ndarray) -> None:
    _folder(path, *frames[:3])
    _tif(path / "1.tif", 255 - frames[1], photometric="miniswhite")


def _video_and_picture(path: Path, frames: np.ndarray) -> None:
    write_video(_folder(path, frames[0]) / "m.avi", frames)


def _dyes(path: Path, frames: np.ndarray) -> None:
    """Three channels in an OME-Zarr, the first in bright field."""
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=np.stack([frames, 255 - frames, frames // 2], axis=1))
    axes = [{"name": axis} for axis in "tcyx"]
    shown = [{"color": colour} for colour in ("FFFFFF", "0000FF", "00FF00")]
    ome = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}], "omero": {"channels": shown}}
    group.attrs["ome"] = {"version": "0.5", **ome}


_HIGH = {"axes": "TYX", "unit": "um"}


# By what is wrong: the file's name, how it is made, the error's key, and what its sentence may have to hold.
BAD: dict[str, tuple[Any, ...]] = {
    "missing": ("m.avi", lambda p, f: None, "no-file"),
    "text": ("m.avi", lambda p, f: _text(p), "not-a-movie"),
    "text, by its name a tiff": ("m.tif", lambda p, f: _text(p), "tiff-unreadable"),
    "no bytes": ("m.avi", lambda p, f: _text(p, ""), "file-empty"),
    "empty folder": ("m", lambda p, f: p.mkdir(), "folder-empty"),
    "avi without frames": ("m.avi", lambda p, f: riff_avi(p, f[:0]), "no-frames"),
    "avi cut": (
        "m.avi",
        lambda p, f: cut(write_video(p, f), 0.6),
        "cut-short-of-promise",
        "40 frames and 23 are.*ffmpeg",
    ),
    "avi cut, no index": (
        "m.avi",
        lambda p, f: cut(riff_avi(p, f, index=False), -10),
        "cut-short-of-promise",
        "40 frames and 39",
    ),
    "avi cut in its index": ("m.avi", lambda p, f: cut(riff_avi(p, f), -10), "cut-short", "40 frames"),
    "avi cut in its header": ("m.avi", lambda p, f: cut(write_video(p, f), 0.01), "not-a-movie"),
    "avi cut in its first frame": (
        "m.avi",
        lambda p, f: cut(riff_avi(p, f[:2], index=False), 0.3),
        "avi-no-whole-frame",
    ),
    "mp4 cut": (
        "m.mp4",
        lambda p, f: cut(write_video(p, f[:, :, :96], "libx264", "yuv420p"), 0.7),
        "not-a-movie",
    ),
    "tiff cut": ("m.tif", lambda p, f: cut(tiff_one_write_a_frame(p, f), 0.6), "cut-short-of-promise"),
    "tiff cut in its data": (
        "m.tif",
        lambda p, f: cut(_tif(p, f, imagej=True), 0.5),
        "cut-short-of-promise",
        "40 frames and 20",
    ),
    "tiff cut, compressed": (
        "m.tif",
        lambda p, f: cut(_tif(p, f, compression="zlib"), 0.9),
        "cut-short-of-promise",
        "40 frames and 35",
    ),
    "ome-tiff cut": (
        "m.tif",
        lambda p, f: cut(_tif(p, f, ome=True, metadata={"axes": "TYX"}), 0.6),
        "cut-in-list",
    ),
    "tiff whose writer died": ("m.tif", _broken_link, "cut-in-list"),
    "tiff of one image": ("m.tif", lambda p, f: _tif(p, f[0]), "single-image"),
    "tiff of floats": ("m.tif", lambda p, f: _tif(p, f.astype(np.float32)), "not-grey", "float32"),
    "tiff of two sizes": ("m.tif", _two_sizes, "tiff-frames-differ"),
    "tiff of two channels": (
        "m.tif",
        lambda p, f: _tif(p, f.reshape(20, 2, HEIGHT, WIDTH), imagej=True, metadata={"axes": "TCYX"}),
        "several-series",
        "0: 20 frames.*C0; 1: 20 frames.*C1",
    ),
    "tiff too small": ("m.tif", lambda p, f: _tif(p, f[:, :63]), "frames-too-small", "98 x 63 px"),
    "tiff of a small picture and a movie": ("m.tif", _thumbnail_first, "several-series", "0: 1 frame"),
    "tiff of ink": (
        "m.tif",
        lambda p, f: _tif(p, np.stack([f] * 4, axis=-1), photometric="separated"),
        "tiff-samples",
        "4 values a pixel",
    ),
    "tiff of five channels in planes": (
        "m.tif",
        lambda p, f: _tif(p, np.stack([f] * 5, axis=1), photometric="minisblack", planarconfig="separate"),
        "tiff-samples",
        "5 values a pixel",
    ),
    "tiff of three channels that are no colours": (
        "m.tif",
        lambda p, f: _tif(
            p, np.stack([f, 255 - f, f], axis=-1), photometric="minisblack", planarconfig="contig"
        ),
        "tiff-samples",
        "3 values a pixel",
    ),
    "tiff of pixels that are not square": (
        "m.tif",
        lambda p, f: _tif(p, f, imagej=True, resolution=(1 / 0.3, 1 / 0.6), metadata=_HIGH),
        "pixels-not-square",
        "0.5 times",
    ),
    "ome-tiff of pixels that are not square": (
        "m.tif",
        lambda p, f: _tif(
            p, f, ome=True, metadata={"axes": "TYX", "PhysicalSizeX": 0.6, "PhysicalSizeY": 0.3}
        ),
        "pixels-not-square",
        "2 times",
    ),
    "a description alone": ("m.companion.ome", lambda p, f: _text(p, "<OME/>"), "description-only"),
    "folder of a picture and a video": ("m", _video_and_picture, "folder-of-kinds", "0.tif and m.avi"),
    "folder with one inverted": ("m", _one_inverted, "folder-frames-differ", "1.tif.*white"),
    "folder of mixed sizes": (
        "m",
        lambda p, f: _folder(p, f[0], f[1], f[2][:-2]),
        "folder-frames-differ",
        "0.tif.*2.tif",
    ),
    "folder with one cut": (
        "m",
        lambda p, f: cut(_folder(p, *f[:3]) / "1.tif", -10),
        "folder-file-cut",
        "1.tif",
    ),
    "folder of stacks": (
        "m",
        lambda p, f: _folder(p, f[:5], f[:9, ::-1]),
        "several-series",
        "0: 0.tif; 1: 1.tif.*by its own path",
    ),
    "zarr of no frames": ("m.zarr", lambda p, f: zarr_array(p, f[:0]), "no-frames"),
    "zarr of one image": ("m.zarr", lambda p, f: zarr_array(p, f[0]), "zarr-single-image"),
    "zarr half written": ("m.zarr", _unwritten, "zarr-unwritten", "15 of its 40 frames.*frame 25"),
    "zarr v2 half written": (
        "m.zarr",
        lambda p, f: _unwritten(p, f, zarr_format=2),
        "zarr-unwritten",
        "15 of its 40 frames",
    ),
    "zarr shard half written": (
        "m.zarr",
        lambda p, f: _unwritten(p, f, shards=(N, HEIGHT, WIDTH)),
        "zarr-unwritten",
        "15 of its 40 frames.*frame 25",
    ),
    "zarr with a hole in a shard": ("m.zarr", _hole, "zarr-unwritten", "3 of its 40 frames.*frame 12"),
    "zarr shard with its index first, a hole in it": (
        "m.zarr",
        lambda p, f: _hole(p, f, index_location="start", index_codecs=[BytesCodec(endian="big")]),
        "zarr-unwritten",
        "3 of its 40 frames.*frame 12",
    ),
    "zarr shard with a wrong index": ("m.zarr", _wrong_index, "zarr-unreadable|unreadable"),
    "zarr, its last chunk half written": (
        "m.zarr",
        lambda p, f: zarr_array(
            p, np.where(np.arange(N)[:, None, None] < 33, f, 0), chunks=(20, HEIGHT, WIDTH)
        ),
        "zarr-empty-end",
        "last 7 of its 40",
    ),
    "zarr of one chunk of gigabytes": (
        "m.zarr",
        lambda p, f: zarr.create_array(p, shape=(4, 70_000, 70_000), dtype="u1", chunks=(1, 70_000, 70_000)),
        "zarr-chunks-too-large",
    ),
    "zarr with two axes y": (
        "m.zarr",
        lambda p, f: zarr_array(p, f, dimension_names=["y", "y", "x"]),
        "zarr-wrong-axes",
    ),
    "zip of something else": ("m.zip", _zip_of_text, "zip-without-zarr"),
    "zip cut": (
        "m.ozx",
        lambda p, f: cut(zipped(zarr_array(p.with_suffix(".zarr"), f)), -99),
        "zarr-unreadable",
    ),
    "zarr of two channels": (
        "m.zarr",
        lambda p, f: zarr_array(p, f.reshape(20, 2, HEIGHT, WIDTH)),
        "too-many-axes",
    ),
    "ome-zarr of three dyes": ("m.zarr", _dyes, "too-many-axes", "c: 3"),
    "zarr group of many": (
        "m.zarr",
        lambda p, f: [zarr_array(p / k, f[:3]) for k in "ab"] and zarr.open_group(p, mode="a"),
        "several-series",
        "2 movies.*0: a.*1: b",
    ),
    "zarr group of an array a frame": (
        "m.zarr",
        lambda p, f: [zarr_array(p / str(k), f[k]) for k in range(9)] and zarr.open_group(p, mode="a"),
        "zarr-no-array",
    ),
    "zarr group of none": ("m.zarr", lambda p, f: zarr.open_group(p, mode="w"), "zarr-no-array"),
    "int8 below zero": ("m.tif", lambda p, f: _tif(p, (f.astype(int) - 128).astype("i1")), "grey-negative"),
    "zarr damaged": ("m.zarr", lambda p, f: _text(zarr_array(p, f) / "zarr.json", "{"), "zarr-unreadable"),
    "zarr with a damaged end": (
        "m.zarr",
        lambda p, f: [cut(q, 0.5) for q in zarr_array(p, f).glob("c/**/0") if q.is_file()],
        "unreadable",
    ),
    "ring without frames": ("s", lambda p, f: session(p, f[:0]), "ring-empty"),
}


SAMPLE = Path(__file__).parents[1] / "sample_data" / "flow_chamber.tif"


@pytest.mark.parametrize("kind", ["compressed", "contiguous"])
def test_the_whole_frames_of_a_cut_stack_can_be_kept_as_the_sentence_says(
    kind: str, movie: np.ndarray, tmp_path: Path
) -> None:
    if kind == "compressed":
        whole, path = tifffile.imread(SAMPLE), tmp_path / "it's cut.tif"
        path.write_bytes(SAMPLE.read_bytes())
        with tifffile.TiffFile(SAMPLE) as tiff:
            ends = [max(p.offset, p.dataoffsets[-1] + p.databytecounts[-1]) for p in tiff.pages]
        n = sum(end <= SAMPLE.stat().st_size // 2 for end in ends)
        assert 80 < n < 100
    else:
        whole, n = movie, 20
        path = _tif(tmp_path / "m.tif", movie, imagej=True)
    cut(path, 0.5)
    with pytest.raises(BadInput, match=rf" {len(whole)} frames and {n} are complete") as caught:
        open_movie(path).open()
    assert caught.value.key == "sources.cut-short-of-promise"
    script = str(caught.value).partition('python -c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with (source := open_movie(tmp_path / "whole.tif")) as info:
        assert info.pixel_size_known == (kind == "compressed")
        np.testing.assert_array_equal(np.stack([f.image for f in source.frames()]), whole[:n])


@pytest.mark.parametrize("what", BAD)
def test_a_bad_movie_is_refused_in_one_sentence(what: str, movie: np.ndarray, tmp_path: Path) -> None:
    name, make, key, *words = BAD[what]
    make(tmp_path / name, movie)
    with pytest.raises(BadInput, match=words[0] if words else None) as caught, open_movie(tmp_path / name):
        pass
    assert caught.value.key in [f"sources.{one}" for one in key.split("|")]
    assert "\n" not in str(caught.value)


def test_impossible_settings_are_refused(movie: np.ndarray, tmp_path: Path) -> None:
    path = _tif(tmp_path / "m.tif", movie)
    for fps in (0, -1, 0.09, 10_001, float("inf")):
        with refused(BadInput, "sources.fps-impossible"):
            open_movie(path, fps=fps)
    for size in (0, float("nan"), 0.04, 60.5):
        with refused(BadInput, "sources.pixel-size-impossible"):
            open_movie(path, pixel_size_um=size)


def test_a_ring_with_gaps_keeps_places_and_times_and_says_what_is_damaged(
    movie: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "frames.zarr"
    ring = FrameRing.create(
        path, height=HEIGHT, width=WIDTH, capacity=9, crop_capacity=8, fps=50.0, pixel_size_um=0.3
    )
    kept = [30, 31, 34, 35, 36, 39]
    for k in kept:
        ring.append(Frame(k, k / 50, movie[k]))
    ring.close()
    with (source := open_movie(path)):
        frames = list(source.frames())
    assert [frame.index for frame in frames] == [0, 1, 4, 5, 6, 9]
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 0.02, 0.08, 0.1, 0.12, 0.18])
    np.testing.assert_array_equal(np.stack([frame.image for frame in frames]), movie[kept])
    assert source.missed == {"not-recorded": 4}
    with (path / "frames" / "c" / "2" / "0" / "0").open("r+b") as file:
        file.write(b"\0\0\0")
    source = open_movie(path)
    with source, pytest.raises(RunFailed, match="34") as caught:
        list(source.frames())
    assert caught.value.key == "ring.frame-damaged"


def test_damage_in_the_middle_fails_after_the_last_good_frame(movie: np.ndarray, tmp_path: Path) -> None:
    path = zarr_array(tmp_path / "m.zarr", movie, chunks=(1, HEIGHT, WIDTH))
    (path / "c" / "17" / "0" / "0").write_bytes(b"not a chunk")
    source, good = open_movie(path), []
    with source, pytest.raises(RunFailed, match=r"Frame 17 of m.zarr.*17 of 40") as caught:
        good.extend(source.frames())
    assert caught.value.key == "sources.movie-broken"
    np.testing.assert_array_equal(np.stack([frame.image for frame in good]), movie[:17])
    # A background is taken before anything is made: then it is the input that is bad.
    source = open_movie(path)
    with source, pytest.raises(BadInput, match=r"Frame 17 of m.zarr") as refusal:
        source.sample(N)
    assert refusal.value.key == "sources.frame-unreadable"


def test_damage_in_the_middle_of_a_decoded_movie_is_named_by_its_frame(
    movie: np.ndarray, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "m.mkv", movie, "ffv1")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[17].pos, packets[17].size
    with path.open("r+b") as file:
        file.seek(place + size // 8)
        file.write(b"\xff" * (size // 2))
    with pytest.raises(BadInput, match=r"m.mkv .* frame 17") as caught:
        open_movie(path).open()
    assert caught.value.key == "sources.unreadable-at-frame"


def test_played_at_its_own_pace_every_frame_comes_in_its_time_or_after(
    movie: np.ndarray, tmp_path: Path
) -> None:
    source = open_source(str(riff_avi(tmp_path / "m.avi", movie)), fps=100)
    with source as info:
        assert info.live
        began = time.perf_counter()
        came = []
        for frame in source.frames():
            came.append((frame.index, time.perf_counter() - began - frame.time_s))
            if frame.index == 5:
                time.sleep(0.1)  # whoever takes frames may be late; none is skipped for it
    assert [index for index, _ in came] == list(range(N))
    assert min(early for _, early in came) >= -0.002  # the schedule starts a moment after `began`


def test_stop_from_another_thread_ends_a_paced_movie_while_it_waits(
    movie: np.ndarray, tmp_path: Path
) -> None:
    source = open_movie(_tif(tmp_path / "m.tif", movie), fps=1, paced=True)
    got: list[Frame] = []
    with source:
        thread = threading.Thread(target=lambda: got.extend(source.frames()), daemon=True)
        thread.start()
        time.sleep(0.2)
        source.stop()
        source.stop()
        thread.join(5)
        assert not thread.is_alive()
    source.close()
    assert len(got) == 1


def test_a_long_movie_is_streamed(tmp_path: Path) -> None:
    """150 MB pass through; numpy's own account of what is held at once stays at a few frames."""
    import tracemalloc

    path = tmp_path / "m.tif"
    tifffile.memmap(path, shape=(100, 1096, 1376), dtype=np.uint8)[::7] = 100
    with (source := open_movie(path)):
        tracemalloc.start()
        total = sum(int(frame.image[0, 0]) for frame in source.frames())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total == 1500
    assert peak < 8 * 1096 * 1376


@pytest.mark.parametrize("spec", ["nothing-like-it", ""])
def test_what_is_no_source_is_refused_with_the_choices(spec: str) -> None:
    with refused(BadInput, "sources.no-such-source"):
        open_source(spec)


def test_settings_that_a_source_has_not_are_refused(movie: np.ndarray, tmp_path: Path) -> None:
    path = _tif(tmp_path / "m.tif", movie)
    with pytest.raises(BadInput, match="`exposure_ms`") as caught:
        open_source(str(path), exposure_ms=2.2)
    assert caught.value.key == "sources.movie-lacks"
    for spec, key in (
        ("simulated", "sources.simulation-lacks"),
        (str(path), "sources.movie-lacks"),
        ("demo", "sources.camera-lacks"),
        ("scope.cfg", "sources.camera-lacks"),
    ):
        asked: dict[str, object] = {"port": 4827}
        if spec not in ("demo", "scope.cfg"):
            asked |= {"mm_path": tmp_path, "binning": 2, "roi": (0, 0, 64, 64)}
        if spec != "simulated":
            asked |= {"seed": 0, "tank_fraction": 0.8, "cells_per_frame": 115.0}
        for name, value in asked.items():
            with pytest.raises(BadInput, match=f"`{name}`") as caught:
                open_source(spec, **{name: value})  # type: ignore[arg-type]
            assert caught.value.key == key
    assert isinstance(open_source("simulated", seed=3, fps=30), SimulatedChamber)


def test_details_can_be_written_as_json(movie: np.ndarray, tmp_path: Path) -> None:
    with open_movie(_tif(tmp_path / "m.tif", movie)) as info:
        assert "m.tif" in json.dumps(dict(info.details))
