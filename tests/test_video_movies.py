"""Videos: which codecs lose picture, what time stamps tell of lost frames, streams, and odd AVI files."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import tifffile
from factories import a_movie, chamber
from sentence_keys import any_said, refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.quality import RunQuality
from napari_rbcflow.quality.meter import Meter
from napari_rbcflow.quality.rules import warnings_of_figures
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.sources import open_movie
from napari_rbcflow.types import Frame

N = 12
FRAMES = a_movie(N)


def write(path: Path, codec: str, pixels: str = "gray", frames: np.ndarray = FRAMES, **options: str) -> Path:
    """Write a video at 60 frames/s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=60, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode(None))
    return path


def warned(path: Path) -> dict[str, str]:
    """Return what a run of this movie warns of gravely, by its key."""
    with open_movie(path) as info:
        quality = RunQuality(info)
        run: dict[str, Any] = {
            "frames": {"received": N, "processed": N, "dropped": {}, "missed": {}},
            "cells": {"tracked": 400},
            "fraction": {"n": 100},
        }
        _, told = quality.close(run, b"", not_analysed={}, seconds=20)
    return {warning.key: warning.sentence for warning in told if warning.grave}


@pytest.mark.parametrize(
    ("codec", "pixels", "name", "options"),
    [
        ("mjpeg", "yuvj420p", "m.avi", {}),
        ("mpeg4", "yuv420p", "m.avi", {}),
        ("mpeg4", "yuv420p", "m.mp4", {"bf": "2"}),
        ("libx264", "yuv420p", "m.mp4", {}),
        ("libx264", "yuv444p", "m.avi", {"crf": "1"}),
        ("libx265", "yuv420p", "m.mkv", {"x265-params": "log-level=none"}),
        ("libvpx-vp9", "yuv420p", "m.webm", {}),
        ("jpeg2000", "gray", "m.mkv", {}),
        ("prores", "yuv422p10le", "m.mov", {}),
        ("msvideo1", "rgb555le", "m.avi", {}),
        ("wmv2", "yuv420p", "m.wmv", {}),
    ],
)
def test_a_lossy_codec_is_named(
    codec: str, pixels: str, name: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / name, codec, pixels, **options)
    with av.open(str(path)) as container:
        called = container.streams.video[0].codec_context.codec.canonical_name
    assert f"({called})" in warned(path)["lossy"]


@pytest.mark.parametrize(
    ("codec", "pixels", "name", "options"),
    [
        ("rawvideo", "gray", "m.avi", {}),
        ("ffv1", "gray", "m.mkv", {}),
        ("huffyuv", "yuv422p", "m.avi", {}),
        ("utvideo", "yuv420p", "m.avi", {}),
        ("png", "gray", "m.mov", {}),
        ("libx264", "yuv420p", "m.mp4", {"qp": "0"}),
        ("libx264", "yuv444p", "m.avi", {"qp": "0"}),
        ("libx265", "yuv420p", "m.mp4", {"x265-params": "lossless=1:log-level=none"}),
        ("libvpx-vp9", "yuv420p", "m.webm", {"lossless": "1"}),
        ("jpeg2000", "gray", "m.mkv", {"pred": "dwt53"}),
        ("ljpeg", "yuvj444p", "m.avi", {}),
        ("jpegls", "gray", "m.avi", {}),
    ],
)
def test_a_codec_that_loses_nothing_is_not_warned_of(
    codec: str, pixels: str, name: str, options: dict[str, str], tmp_path: Path
) -> None:
    assert "lossy" not in warned(write(tmp_path / name, codec, pixels, **options))


@pytest.mark.parametrize(
    ("codec", "pixels", "name", "twice"),
    [
        ("libx264", "yuv420p", "m.mp4", 0),
        ("mpeg4", "yuv420p", "m.avi", 0),
        ("mjpeg", "yuvj420p", "m.avi", 3),
        ("ffv1", "gray", "m.mkv", 3),
    ],
)
def test_equal_frames_were_stored_twice_unless_the_codec_makes_them_equal(
    codec: str, pixels: str, name: str, twice: int, tmp_path: Path
) -> None:
    """A picture that differs by its noise alone is stored by such a codec as the one before."""
    noise = np.random.default_rng(0).normal(0, 0.7, FRAMES.shape)
    still = np.clip(np.rint(np.median(FRAMES, axis=0) + noise), 0, 255).astype(np.uint8)
    for k in (3, 7, 8):
        still[k] = still[k - 1]
    source = open_movie(write(tmp_path / name, codec, pixels, still, qmin="3", qmax="3"))
    with source:
        assert sum(1 for _ in source.frames()) == len(still) - twice
    assert source.missed == ({"stored-twice": twice} if twice else {})


def stamped(
    path: Path, times_ms: list[float], codec: str, pixels: str, rate: int = 60, **options: str
) -> Path:
    """Write a video whose frames have these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *FRAMES.shape[1:], pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for k, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(FRAMES[k % N], format="gray")
            frame.pts, frame.time_base = round(time_ms), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


PERIOD_MS = 1000 / 60
JITTER = np.random.default_rng(1).uniform(-4, 4, 60)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("m.mp4", "libx264", "yuv420p", {"qp": "0"}),  # with B-frames, which are stored in another order
        ("m.mp4", "libx264", "yuv420p", {"qp": "0", "bf": "0"}),
        ("m.mkv", "ffv1", "gray", {}),
        ("m.mov", "png", "gray", {}),
        ("m.avi", "mpeg4", "yuv420p", {"bf": "2"}),
    ],
)
@pytest.mark.parametrize(
    ("wait_ms", "missed"),
    [
        (lambda k: 0, 0),
        (lambda k: 500 * (k >= 20), 30),
        (lambda k: PERIOD_MS * (k >= 40), 1),
        (lambda k: JITTER[k], 0),
    ],
    ids=["no hole", "half a second", "one frame", "uneven"],
)
def test_a_hole_in_the_time_stamps_is_missed_and_no_part_of_the_rate(
    wait_ms: Callable[[int], float],
    missed: int,
    name: str,
    codec: str,
    pixels: str,
    options: dict[str, str],
    tmp_path: Path,
) -> None:
    begins = 0 if name.endswith(".avi") else 1000
    times = [begins + (k * PERIOD_MS + wait_ms(k)) * (k > 0) for k in range(60)]
    source = open_movie(stamped(tmp_path / name, times, codec, pixels, **options))
    with source as info:
        came = list(source.frames())
        shown = [source.frame(frame.index) for frame in came[::7]]
        assert info.fps == pytest.approx(60, rel=0.01)
    assert sum(source.missed.values()) == missed
    assert came[-1].index == 59 + missed
    for frame, again in zip(came[::7], shown, strict=True):
        np.testing.assert_array_equal(frame.image, again)


def test_two_frames_with_one_time_hide_no_hole(tmp_path: Path) -> None:
    times = [(k - (k == 9)) * PERIOD_MS + 500 * (k >= 20) for k in range(60)]
    with (source := open_movie(stamped(tmp_path / "m.mkv", times, "ffv1", "gray"))) as info:
        came = list(source.frames())
        np.testing.assert_array_equal(source.frame(came[30].index), came[30].image)
    assert info.fps == pytest.approx(60, rel=0.01)
    assert source.missed == {"not-recorded": 30}


def test_frames_closer_than_the_clock_of_their_container_are_whole(tmp_path: Path) -> None:
    """At 2000 frames/s two have the same millisecond, and the length is rounded, too."""
    with (
        source := open_movie(stamped(tmp_path / "m.mkv", [k / 2 for k in range(60)], "ffv1", "gray", 2000))
    ):
        assert len(list(source.frames())) + sum(source.missed.values()) == 60


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "fps"),
    [("m.mjpeg", "mjpeg", "yuvj420p", None), ("m.h264", "libx264", "yuv420p", 60)],
)
def test_of_a_bare_stream_only_its_own_word_tells_the_rate(
    name: str, codec: str, pixels: str, fps: float | None, tmp_path: Path
) -> None:
    """FFmpeg says 25 frames/s of it."""
    with open_movie(write(tmp_path / name, codec, pixels)) as info:
        assert (info.fps if info.fps_known else None) == fps


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=60, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *FRAMES.shape[1:3], "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode(None))
    with refused(BadInput, "sources.pixels-not-square"):
        open_movie(path).open()
    with open_movie(path, pixel_size_um=0.605) as info:
        assert info.n_frames == N


def test_frames_that_an_edit_list_cuts_off_are_not_counted(tmp_path: Path) -> None:
    whole = stamped(
        tmp_path / "w.mp4", [k * PERIOD_MS for k in range(30)], "libx264", "yuv420p", qp="0", bf="0"
    )
    with av.open(str(whole)) as read, av.open(str(tmp_path / "m.mp4"), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                shift = round(10 * PERIOD_MS / 1000 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                written.mux(packet)
    source = open_movie(tmp_path / "m.mp4")
    with source as info:
        assert info.n_frames == len(list(source.frames())) == 20


def test_one_of_several_streams_is_chosen(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "m.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=60) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = *FRAMES.shape[1:], "gray"
        for frame in FRAMES:
            for stream, image in zip(streams, (frame, 255 - frame), strict=True):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        for stream in streams:
            container.mux(stream.encode(None))
    with refused(BadInput, "sources.several-series"):
        open_movie(tmp_path / "m.mkv").open()
    with refused(BadInput, "sources.no-such-series"):
        open_movie(tmp_path / "m.mkv", series=2).open()
    for series, frames in enumerate((FRAMES, 255 - FRAMES)):
        source = open_movie(tmp_path / "m.mkv", series=series)
        with source:
            np.testing.assert_array_equal(np.stack([f.image for f in source.frames()]), frames)
            np.testing.assert_array_equal(source.frame(5), frames[5])


def raw_avi(
    path: Path, code: bytes, bits: int, images: list[bytes], table: bytes = b"", height: int = 96
) -> Path:
    """Write an AVI of raw frames as its maker says, right or wrong."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)

    def listing(kind: bytes, *chunks: bytes) -> bytes:
        return chunk(b"LIST", kind + b"".join(chunks))

    n, width, colours = len(images), FRAMES.shape[2], len(table) // 4
    strh = struct.pack("<4s4sIHHIIIIIIII4H", b"vids", code, 0, 0, 0, 0, 1, 60, 0, n, 0, 0, 0, 0, 0, width, 96)
    strf = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, bits, code, 0, 0, 0, colours, 0) + table
    avih = struct.pack("<14I", 16667, 0, 0, 0x10, n, 0, 1, 0, width, 96, 0, 0, 0, 0)
    body = listing(
        b"hdrl", chunk(b"avih", avih), listing(b"strl", chunk(b"strh", strh), chunk(b"strf", strf))
    )
    body += listing(b"movi", *[chunk(b"00db", image) for image in images])
    path.write_bytes(chunk(b"RIFF", b"AVI " + body))
    return path


def test_raw_avis_are_read_whatever_they_call_their_pixels(tmp_path: Path) -> None:
    chroma = bytes([128]) * (FRAMES[0].size // 2)
    luma = np.round(16 + FRAMES * (219 / 255)).astype(np.uint8)  # what video calls black is 16
    upright = [frame.tobytes() for frame in FRAMES]
    from_below = [frame[::-1].tobytes() for frame in FRAMES]
    packed = [np.stack([frame, np.full_like(frame, 128)], axis=-1).tobytes() for frame in luma]
    inverse = b"".join(bytes((255 - k, 255 - k, 255 - k, 0)) for k in range(256))
    cases: dict[str, tuple[Any, ...]] = {
        "YUY2": (b"YUY2", 16, packed),
        "I420": (b"I420", 12, [frame.tobytes() + chroma for frame in luma]),
        "grey, as OpenCV calls it YUY2": (b"YUY2", 8, upright),
        "grey, as OpenCV calls it I420": (b"I420", 8, upright),
        "I420, as OpenCV calls it Y800": (b"Y800", 8, [frame.tobytes() + chroma for frame in luma]),
        "grey": (b"Y800", 8, upright),
        "DIB without a colour table": (b"\0\0\0\0", 8, from_below),
        "DIB without a colour table, from above": (b"\0\0\0\0", 8, upright, b"", -96),
        "DIB with a colour table": (
            b"\0\0\0\0",
            8,
            [(255 - frame)[::-1].tobytes() for frame in FRAMES],
            inverse,
        ),
    }
    for what, case in cases.items():
        source = open_movie(raw_avi(tmp_path / "m.avi", *case))
        with source:
            frames = np.stack([frame.image for frame in source.frames()]).astype(int)
            again = np.stack([source.frame(7), source.frame(3)])
        assert np.abs(frames - FRAMES).max() <= 1, what
        np.testing.assert_array_equal(again, frames[[7, 3]], what)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids such names")
def test_a_name_that_looks_like_a_protocol_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:m.avi", "concat:m.avi", "12:30:00.avi", "-i.avi", "m%03d.avi", "pipe:0", "a|b.avi"):
        write(Path("m.avi"), "rawvideo").rename(name)
        with open_movie(name) as info:
            assert info.n_frames == N


def by_jpeg(frames: np.ndarray) -> np.ndarray:
    made = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1] for frame in frames]
    return np.stack([cv2.imdecode(one, cv2.IMREAD_GRAYSCALE) for one in made])


def woven(frames: np.ndarray) -> np.ndarray:
    both = frames[::2].copy()
    both[:, 1::2] = frames[1::2, 1::2]
    return both


def scaled(frames: np.ndarray, times: float) -> np.ndarray:
    return np.stack([cv2.resize(frame, None, fx=times, fy=times) for frame in frames])


@pytest.mark.parametrize(
    ("spoil", "warned"),
    [
        (lambda f: f, set()),
        (by_jpeg, {"lossy"}),
        (lambda f: by_jpeg(f)[:, 3:, 5:], {"lossy"}),
        (woven, {"interlaced"}),
        (lambda f: woven(f).transpose(0, 2, 1), {"interlaced"}),  # turned afterwards
        (lambda f: f + (np.arange(f.shape[2]) % 8 == 3).astype(np.uint8) * 3, set()),  # a sensor's columns
        (lambda f: np.full_like(f, 100), set()),
        (lambda f: scaled(f, 8 / 7), set()),
        (lambda f: scaled(f, 8 / 9), set()),
    ],
)
def test_blocks_and_woven_rows_show_in_the_picture(
    spoil: Callable[[np.ndarray], np.ndarray], warned: set[str]
) -> None:
    """Of a movie that was compressed once and stored raw, no header tells."""
    with (source := chamber(0.6)):
        frames = np.stack([frame.image for frame in source.frames()])
    meter = Meter(fps=60, pixel_size_um=0.605)
    for k, image in enumerate(spoil(frames)):
        meter.add_frame(image, k / 60, None)
    assert {warning.key for warning in warnings_of_figures(meter.stored.figures)} == warned


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("m.mkv", "ffv1", {}), ("m.webm", "libvpx-vp9", {}), ("m.mp4", "png", {"movflags": "faststart"})],
)
def test_a_video_that_was_cut_short_is_refused(
    name: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / name
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=60)
        stream.height, stream.width, stream.pix_fmt = (
            *FRAMES.shape[1:],
            "yuv420p" if "vp9" in codec else "gray",
        )
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode(None))
    with open_movie(path) as info:
        assert info.n_frames == N
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    with refused(BadInput, "sources.cut-short-of-promise"):
        open_movie(path).open()


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    """Two runs of 0.8 s."""
    found = []
    for seed in (1, 2):
        with (source := chamber(0.8, seed=seed)):
            found.append(np.stack([frame.image for frame in source.frames()]))
    return found


def in_parts(folder: Path, frames: np.ndarray, names: list[str], length: int = 18) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        part = frames[length * k : length * (k + 1)]
        if name.endswith(".tif"):
            tifffile.imwrite(folder / name, part)
        else:
            write(folder / name, "rawvideo", frames=part)
    return [folder / name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["run.avi", "run_1.avi", "run_2.avi"],
        ["cap.00.avi", "cap.01.avi", "cap.02.avi"],
        ["m9.avi", "m10.avi", "m11.avi"],
        ["a (1).avi", "a (2).avi", "a (3).avi"],
        ["run.tif", "run_X2.tif", "run_X3.tif"],
        ["run.tif", "run@0001.tif", "run@0002.tif"],
        ["b-1.tif", "b-2.tif", "b-3.tif"],
        ["c_1of3.tif", "c_2of3.tif", "c_3of3.tif"],
        ["d_0000-0017.tif", "d_0018-0035.tif", "d_0036-0047.tif"],
        ["2026-11-30 10-00-59.avi", "2026-11-30 10-01-00.avi", "2026-11-30 10-01-01.avi"],
    ],
)
def test_a_recording_in_parts_is_read_whole_whichever_is_given(
    names: list[str], recordings: list[np.ndarray], tmp_path: Path
) -> None:
    whole, other = recordings
    parts = in_parts(tmp_path / "m", whole, names)
    ending = parts[0].suffix
    in_parts(tmp_path / "m", other, [f"another{ending}"], 48)
    for path in parts:
        source = open_movie(path)
        with source as info:
            assert any_said("sources.movie-in-parts", info.warnings)
            np.testing.assert_array_equal(np.stack([frame.image for frame in source.frames()]), whole)
            np.testing.assert_array_equal(source.sample(5), whole[[0, 12, 24, 35, 47]])
            np.testing.assert_array_equal(source.frame(20), whole[20])
    (tmp_path / "m" / f"another{ending}").unlink()
    with open_movie(tmp_path / "m") as info:
        assert info.n_frames == len(whole)
    parts[1].unlink()
    if "_X" in names[1] or "@" in names[1]:  # only a program that splits recordings names files so
        for path in (parts[0], parts[2]):
            with pytest.raises(BadInput, match=names[1]):
                open_movie(path).open()
        parts[2].rename(parts[1])
        parts[0].unlink()
        with pytest.raises(BadInput, match=names[0]):
            open_movie(parts[1]).open()
        return
    with open_movie(parts[0]) as info:  # nothing tells that the third belongs to it
        assert info.n_frames == 18


def test_a_hidden_movie_is_read_where_it_is_named(recordings: list[np.ndarray], tmp_path: Path) -> None:
    for path in in_parts(tmp_path, recordings[0], [".run_1.tif", "run_2.tif"], 24):
        with open_movie(path) as info:
            assert info.n_frames == 24


@pytest.mark.parametrize("ending", ["avi", "tif"])
def test_a_missing_part_is_named_and_the_runs_of_a_day_are_no_parts(
    ending: str, recordings: list[np.ndarray], tmp_path: Path
) -> None:
    whole, other = recordings
    parts = in_parts(tmp_path, whole, [f"a_{k}.{ending}" for k in range(1, 5)], 12)
    parts[2].unlink()
    with pytest.raises(BadInput, match=r"a_3\.") as caught:
        open_movie(parts[0]).open()
    assert caught.value.key == "sources.set-file-missing"
    runs = in_parts(tmp_path, np.concatenate((whole, other)), [f"b_{k}.{ending}" for k in range(2)], 48)
    for path, frames in zip(runs, (whole, other), strict=True):
        source = open_movie(path)
        with source as info:
            assert not any_said("sources.movie-in-parts", info.warnings)
            np.testing.assert_array_equal(next(source.frames()).image, frames[0])
    day = tmp_path / "day"
    day.mkdir()
    for path in runs:
        path.rename(day / path.name)
    with refused(BadInput, "sources.several-series"):
        open_movie(day).open()
    with (source := open_movie(day, series=1)):
        np.testing.assert_array_equal(next(source.frames()).image, other[0])


def test_an_interlaced_stream_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mkv", "mpeg2video", "yuv420p", flags="+ilme+ildct")
    with open_movie(path) as info:
        assert any_said("sources.video-interlaced", info.warnings)
    with open_movie(write(tmp_path / "p.mkv", "mpeg2video", "yuv420p")) as info:
        assert not any_said("sources.video-interlaced", info.warnings)


def test_the_ring_of_a_movie_tells_what_the_movie_told(tmp_path: Path) -> None:
    ring = FrameRing.create(
        tmp_path / "frames.zarr",
        height=96,
        width=128,
        capacity=N,
        crop_capacity=8,
        fps=60.0,
        pixel_size_um=0.6,
    )
    for k, frame in enumerate(FRAMES):
        ring.append(Frame(k, k / 60, frame))
    ring.close()
    assert "lossy" not in warned(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"parameters": {"lossy_codec": "mjpeg"}}))
    assert "(mjpeg)" in warned(tmp_path)["lossy"]
    told = {"lossy_codec": "", "source_details": {"grey_stretched": "30000 to 31000"}}
    (tmp_path / "run.json").write_text(json.dumps({"parameters": told}))
    assert "grey-stretched" in warned(tmp_path)
