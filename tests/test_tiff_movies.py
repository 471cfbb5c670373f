"""TIFF files, folders of pictures, and sets of several files: one movie, and all of it."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from sentence_keys import any_said, is_said, refused
from tiff_writers import lsm, metadata_txt, mm_stack, nd_tiff, ome_file, stk, two_positions

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import open_frames
from napari_rbcflow.sources.movie import open_movie

N, HEIGHT, WIDTH = 12, 96, 128


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    """Grey frames, all different, like background with noise."""
    return np.random.default_rng(6).integers(90, 160, (N, HEIGHT, WIDTH), dtype=np.uint8)


def test_of_several_movies_in_a_file_one_is_chosen(movie: np.ndarray, tmp_path: Path) -> None:
    path = two_positions(tmp_path / "p.ome.tif", movie)
    for series, expected in ((0, movie), (1, movie[::-1])):
        with (source := open_movie(path, series=series)) as info:
            np.testing.assert_array_equal(np.stack([f.image for f in source.frames()]), expected)
        assert info.details["series"] == str(series)
        np.testing.assert_array_equal(open_frames(path, series)[:], expected)
    with refused(BadInput, "sources.several-series"):
        open_movie(path).open()
    with refused(BadInput, "sources.no-such-series"):
        open_movie(path, series=2).open()
    tifffile.imwrite(tmp_path / "one.tif", movie)
    with refused(BadInput, "sources.no-such-series"):
        open_movie(tmp_path / "one.tif", series=1).open()
    with open_movie(tmp_path / "one.tif", series=0) as info:
        assert info.n_frames == N


def test_frames_stored_twice_are_left_out_and_counted(movie: np.ndarray, tmp_path: Path) -> None:
    """A recorder fills up for a lost frame with the one before; what shows nothing may well be the same."""
    stored = movie[[0, 1, 2, 2, 4, 5, 5, 5, 8]]
    tifffile.imwrite(tmp_path / "m.tif", np.concatenate([stored, np.full((3, HEIGHT, WIDTH), 9, np.uint8)]))
    with (source := open_movie(tmp_path / "m.tif")):
        frames = list(source.frames())
    assert [frame.index for frame in frames] == [0, 1, 2, 4, 5, 8, 9, 10, 11]
    for frame in frames[:6]:
        np.testing.assert_array_equal(frame.image, movie[frame.index])
    assert source.missed == {"stored-twice": 3}


def pictures(path: Path, names: Iterable[str], frames: np.ndarray) -> Path:
    """A folder of pictures with these names."""
    path.mkdir(parents=True)
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(path / name)
    return path


def beside(folder: Path, *names: str) -> Path:
    """The folder with other pictures beside its frames."""
    for name in names:
        shutil.copy(next(folder.iterdir()), folder / name)
    return folder


def read(path: Path, **chosen: int) -> tuple[np.ndarray, dict[str, int], list[int]]:
    with (source := open_movie(path, **chosen)):
        frames = list(source.frames())
        np.testing.assert_array_equal(source.frame(frames[-1].index), frames[-1].image)
    return np.stack([f.image for f in frames]), dict(source.missed), [f.index for f in frames]


def clock(s: float, decimals: int = 0) -> str:
    """A name that tells the time of the day."""
    return f"a 12.{30 + int(s // 60):02d}.{s % 60:0{3 + decimals if decimals else 2}.{decimals}f}.png"


def together(s: float) -> str:
    """A name that tells the date and the time of the day without a sign between."""
    return f"Image_2023010512{30 + int(s // 60):02d}{round(s % 60 * 1000):05d}.png"


# By what the names are: how the pictures are called, and how many frames are missing between them.
NAMES: dict[str, tuple[Callable[[int], str], int]] = {
    "signed": (lambda k: f"run{k - 6}.png", 0),
    "with plus and minus": (lambda k: f"t{k - 6:+03d}.bmp", 0),
    "dash in all": (lambda k: f"run-{k + 1}.png", 0),
    "gaps": (lambda k: f"f_{k + 4 * (k > 3) + 2 * (k > 7):04d}.png", 6),
    "steps of five, with a gap": (lambda k: f"f{5 * k + 50 * (k > 7)}.png", 10),
    "times in ms": (lambda k: f"{1695293847123 + round(1000 * (k + 3 * (k > 5)) / 60)}.png", 3),
    "times in ms, a long gap": (lambda k: f"{1695293847123 + round(1000 * k / 60) + 500 * (k > 5)}.png", 30),
    "time of day, together": (lambda k: together(59.9 + (k + 2 * (k > 8)) / 50), 2),
    "time of day": (lambda k: f"12-30-{59 + k // 60:02d}-{round(1000 * k / 60) % 1000:03d}.png", 0),
    "time of day, even": (lambda k: clock(4 * 60 + 58 + k), 0),
    "time of day, even, with a gap": (lambda k: clock(58.88 + (k + 2 * (k > 8)) / 50, 2), 2),
    "seconds": (lambda k: f"{(k + 8 + 5 * (k > 8)) / 10:.1f}.png", 5),
    "time and counter": (lambda k: f"20230105_12305{k // 8}_{k:04d}.png", 0),
    "Micro-Manager 1.4": (lambda k: f"img_{k:09d}_Default_000.png", 0),
    "Micro-Manager 2, as z": (lambda k: f"img_channel000_position000_time000000000_z{k:03d}.png", 0),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_put_pictures_in_order_and_show_what_is_missing(
    kind: str, movie: np.ndarray, tmp_path: Path
) -> None:
    name, lost = NAMES[kind]
    out, missed, places = read(pictures(tmp_path / "run" / "Pos0", map(name, range(N)), movie).parent)
    np.testing.assert_array_equal(out, movie)
    assert missed == ({"not-recorded": lost} if lost else {})
    assert places[-1] == N - 1 + lost


def test_pictures_that_are_not_the_movie_are_named(movie: np.ndarray, tmp_path: Path) -> None:
    names = [f"F_{k:04d}.png" for k in range(N)]
    odd = ("F_0003 - Copy.png", "background.png", "AVG_F_0001.bmp", "F_9999.png", "F_03.png")
    for k, name in enumerate(odd):
        folder = beside(pictures(tmp_path / str(k), names, movie), name)
        (folder / "notes.txt").write_text("no picture")
        with pytest.raises(BadInput, match=r"F_0*3\.png" if name == "F_03.png" else name) as caught:
            open_movie(folder).open()
        assert caught.value.key == "sources.folder-odd-files"
        assert len(read(folder, series=0)[0]) == N
    runs = [f"run{1 + k // 6}_{k % 6:03d}.png" for k in range(N)]
    channels = [f"img_channel00{k % 2}_position000_time{k // 2:09d}_z000.png" for k in range(N)]
    for names, second in ((runs, movie[6:]), (channels, movie[1::2])):
        folder = pictures(tmp_path / names[0], names, movie)
        with refused(BadInput, "sources.several-series"):
            open_movie(folder).open()
        np.testing.assert_array_equal(read(folder, series=1)[0], second)
    with refused(BadInput, "sources.folder-unnumbered"):
        open_movie(pictures(tmp_path / "letters", [f"{chr(97 + k)}.png" for k in range(N)], movie)).open()


def test_the_frames_own_times_go_before_what_was_asked_for(movie: np.ndarray, tmp_path: Path) -> None:
    """A hole of 500 ms before the seventh, in OME's and in Micro-Manager's way to say it."""
    times = [1000 * k / 60 + 500 * (k >= 7) for k in range(N)]
    planes = "".join(
        f'<Plane TheC="0" TheT="{t}" TheZ="0" DeltaT="{ms}" DeltaTUnit="ms"/>' for t, ms in enumerate(times)
    )
    asked = 'TimeIncrement="1.0" TimeIncrementUnit="ms" PhysicalSizeX="0.32"'
    names = [f"img_channel000_position000_time{k:09d}_z000.png" for k in range(N)]
    for path in (
        ome_file(tmp_path / "m.ome.tif", movie, asked, planes),
        metadata_txt(pictures(tmp_path / "mm", names, movie), times),
    ):
        with open_movie(path) as info:
            assert (info.fps, info.pixel_size_um) == (pytest.approx(60, rel=1e-3), 0.32)
        assert any_said("sources.times-contradict", info.warnings, asked=1000.0)
        assert read(path)[1] == {"not-recorded": 30}


def test_times_of_some_frames_alone_are_told(movie: np.ndarray, tmp_path: Path) -> None:
    """Then the interval that was asked for is all there is; planes without any time say nothing."""
    asked = 'TimeIncrement="20" TimeIncrementUnit="ms"'
    for known in (0, 6):
        planes = "".join(
            f'<Plane TheC="0" TheT="{t}" TheZ="0" {f"""DeltaT="{t / 60}" """ if t < known else ""}/>'
            for t in range(N)
        )
        with open_movie(ome_file(tmp_path / f"{known}.ome.tif", movie, asked, planes)) as info:
            assert info.fps == pytest.approx(50)
        assert any_said("sources.times-incomplete", info.warnings) == (known > 0)
        assert not any_said("sources.times-uneven", info.warnings)


def test_no_playback_speed_and_no_scale_of_one_is_believed(movie: np.ndarray, tmp_path: Path) -> None:
    seven, one = tmp_path / "7.tif", tmp_path / "1.tif"
    tifffile.imwrite(seven, movie, imagej=True, metadata={"axes": "TYX", "fps": 7.0})
    scale: dict[str, Any] = {"axes": "TYX", "finterval": 1.0, "unit": "um"}
    tifffile.imwrite(one, movie, imagej=True, resolution=(1, 1), metadata=scale)
    ome = ome_file(tmp_path / "o.tif", movie, 'TimeIncrement="1.0" PhysicalSizeX="1.0"')
    for path, key, times in (
        (seven, "playback-speed", 1),
        (one, "scale-of-one", 2),
        (ome, "scale-of-one", 2),
    ):
        with open_movie(path) as info:
            assert not info.fps_known
            assert not info.pixel_size_known
        assert sum(is_said(f"sources.{key}", warning) for warning in info.warnings) == times


def test_a_set_of_micro_managers_is_read_whole_or_what_is_missing_is_named(
    movie: np.ndarray, tmp_path: Path
) -> None:
    def part(folder: str, number: int, frames: Iterable[int], position: int = 0, **summary: int) -> Path:
        name = f"run_MMStack_Pos{position}{f'_{number}' if number else ''}.ome.tif"
        (tmp_path / folder).mkdir(exist_ok=True)
        planes = [(t, position, 255 - movie[t] if position else movie[t]) for t in frames]
        return mm_stack(tmp_path / folder / name, planes, **{"Frames": N, "Positions": 1} | summary)

    first, second = part("two", 0, range(7)), part("two", 1, range(7, N))
    for given in (first, second, first.parent):
        np.testing.assert_array_equal(read(given)[0], movie)
    with open_movie(second) as info:
        assert info.fps == pytest.approx(50)
    first, third = part("gap", 0, range(4)), part("gap", 2, range(8, N))
    for given, missing in (
        (first, "Pos0_1.ome"),
        (third, "Pos0_1.ome"),
        (part("late", 1, [9, 10]), "Pos0.ome"),
    ):
        with pytest.raises(BadInput, match=missing) as caught:
            open_movie(given).open()
        assert caught.value.key == "sources.set-file-missing"
    # tifffile looks for the parts with a pattern.
    part("[1]", 0, range(7))
    np.testing.assert_array_equal(read(part("[1]", 1, range(7, N)))[0], movie)
    np.testing.assert_array_equal(read(tmp_path / "[1]")[0], movie)
    for place in (tmp_path / "[1]").iterdir():  # they got other names
        place = place.rename(place.with_name(f"cells {place.name[3:]}"))
    np.testing.assert_array_equal(read(place)[0], movie)
    for place in (tmp_path / "two").iterdir():
        place.rename(place.with_name(f"[1] {'' if os.name == 'nt' else '*?'}{place.name}"))
    for place in (tmp_path / "two").iterdir():
        np.testing.assert_array_equal(read(place)[0], movie)
    with open_movie(part("ended", 0, range(9), Frames=90)) as info:
        assert info.n_frames == 9
    assert any_said("sources.stopped-early", info.warnings, frames=90, there=9)
    here, there = part("pos", 0, range(N), Positions=2), part("pos", 0, range(N), 1, Positions=2)
    np.testing.assert_array_equal(read(here)[0], movie)
    np.testing.assert_array_equal(read(there)[0], 255 - movie)
    with refused(BadInput, "sources.several-series"):
        open_movie(here.parent).open()


def test_ndtiff_is_read_by_its_index(movie: np.ndarray, tmp_path: Path) -> None:
    path = nd_tiff(tmp_path / "x_1", ({"time": t + 3 * (t > 4)} for t in range(N)), movie)
    for given in (path, path / "x_NDTiffStack.tif", tmp_path):
        out, missed, _ = read(given)
        np.testing.assert_array_equal(out, movie)
        assert missed == {"not-recorded": 3}
    with open_movie(path) as info:
        assert (info.fps, info.pixel_size_um) == (pytest.approx(50), 0.32)
    again = nd_tiff(tmp_path / "z_1", ({"time": k if k < N - 1 else 3} for k in range(N)), movie)
    np.testing.assert_array_equal(read(again)[0], movie[[0, 1, 2, N - 1, *range(4, N - 1)]])
    two = nd_tiff(tmp_path / "y_1", ({"time": k // 2, "channel": "ab"[k % 2]} for k in range(N)), movie)
    with refused(BadInput, "sources.several-series"):
        open_movie(two).open()
    np.testing.assert_array_equal(read(two, series=1)[0], movie[1::2])
    index = (path / "NDTiff.index").read_bytes()
    (path / "NDTiff.index").write_bytes(index[: len(index) // 2])
    with refused(BadInput, "sources.cut-in-list"):
        open_movie(path).open()
    (path / "NDTiff.index").write_bytes(index)
    (path / "x_NDTiffStack.tif").unlink()
    with refused(BadInput, "sources.set-file-missing"):
        open_movie(path).open()


def _tif(path: Path, frames: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, frames, **options)
    return path


_TABLE = np.stack([np.arange(256, dtype=np.uint16)[::-1] * 257] * 3)
FLAVOURS: dict[str, tuple[str, Callable[[Path, np.ndarray], Path]]] = {
    "lzw with predictor": ("m.tif", lambda p, f: _tif(p, f, compression="lzw", predictor=True)),
    "zstd tiles": ("m.tif", lambda p, f: _tif(p, f, compression="zstd", tile=(32, 32))),
    "12 bit packed": ("m.tif", lambda p, f: _tif(p, f.astype(np.uint16) * 16, bitspersample=12)),
    "grey table": ("m.tif", lambda p, f: _tif(p, 255 - f, photometric="palette", colormap=_TABLE)),
    "stk": ("m.stk", stk),
    "lsm": ("m.lsm", lsm),
    "no ending": ("movie", _tif),
    "ending of another": ("m.avi", _tif),
    "like a protocol": ("s3:x.tif", _tif),
    "like a drive": ("http:", _tif),
    "like a pattern": ("[1]*%d.tif", _tif),
}


@pytest.mark.parametrize("kind", FLAVOURS)
def test_flavours_of_tiff(kind: str, movie: np.ndarray, tmp_path: Path) -> None:
    name, write = FLAVOURS[kind]
    if os.name == "nt" and set(name) & set(":*"):
        pytest.skip("no such names on Windows")
    out, missed, _ = read(write(tmp_path / name, movie))
    np.testing.assert_array_equal(out, movie)
    assert not missed
    if kind in ("stk", "lsm"):
        with open_movie(tmp_path / name) as info:
            assert info.fps == pytest.approx(50)
            assert info.pixel_size_um == pytest.approx(0.32 if kind == "lsm" else 0.605)


@pytest.mark.parametrize(
    ("compression", "options", "called"),
    [
        ("jpeg", {}, "jpeg"),
        ("jpeg2000", {"reversible": True}, ""),
        ("jpeg2000", {"level": 30}, "jpeg2000"),
        ("jpegxl", {"lossless": True}, ""),
        ("jpegxl", {"distance": 0.5}, "jpegxl"),
        ("webp", {"lossless": True}, ""),
        ("lerc", {}, ""),
        ("lerc", {"compression": "zstd"}, ""),
        ("lerc", {"compression": "deflate", "level": 2}, "lerc"),
        ("jpegxr", {}, say("sources.codec-unsure", codec="jpegxr")),
    ],
)
def test_lossy_compression_is_named(
    compression: str, options: dict[str, Any], called: str, movie: np.ndarray, tmp_path: Path
) -> None:
    frames = movie if compression != "webp" else np.repeat(movie[..., None], 3, axis=3)
    more = {"photometric": "rgb"} if compression == "webp" else {}
    path = _tif(tmp_path / "m.tif", frames, compression=compression, compressionargs=options, **more)
    with open_movie(path) as info:
        assert info.lossy_codec == called


def test_lossy_pictures_are_named(movie: np.ndarray, tmp_path: Path) -> None:
    with open_movie(pictures(tmp_path / "j", [f"{k}.jpg" for k in range(N)], movie)) as info:
        assert info.lossy_codec == "jpeg"
    mixed = pictures(tmp_path / "m", [f"{k}.png" for k in range(N)], movie)
    Image.fromarray(movie[7]).save(mixed / "7.png", format="JPEG")
    with open_movie(mixed) as info:
        assert info.lossy_codec == "jpeg"
    (tmp_path / "t").mkdir()
    for k in range(N):
        _tif(tmp_path / "t" / f"{k}.tif", movie[k], compression="jpeg" if k else None)
    with open_movie(tmp_path / "t") as info:
        assert info.lossy_codec == "jpeg"


def test_a_lossy_zarr_is_named(movie: np.ndarray, tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    codecs.register_codecs()
    for codec, lossy in (
        (codecs.Jpegxl(lossless=True), False),
        (codecs.Jpegxl(lossless=False), True),
        (codecs.Jpeg2k(), False),
        (codecs.Lerc(level=2), True),
    ):
        given = {"shape": movie.shape, "chunks": (1, *movie.shape[1:]), "dtype": "u1", "overwrite": True}
        array = zarr.create_array(tmp_path / "m.zarr", zarr_format=2, compressors=codec, **given)
        array[:] = movie
        with open_movie(tmp_path / "m.zarr") as info:
            assert info.lossy_codec == codec.codec_id * lossy


def _circle(path: Path, frames: np.ndarray) -> Path:
    """Damage in a list of directories: the last points to the first."""
    with tifffile.TiffWriter(path) as tif:
        for frame in frames:
            tif.write(frame, contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tif:
        first, last, tags = tif.pages[0].offset, tif.pages[-1].offset, len(tif.pages[-1].tags)
    with path.open("r+b") as file:
        file.seek(last + 2 + 12 * tags)
        file.write(struct.pack("<I", first))
    return path


def _of_height(path: Path, frames: np.ndarray, height: int) -> Path:
    _tif(path, frames, metadata=None)
    with tifffile.TiffFile(path) as tif:
        place = tif.pages[0].tags["ImageLength"].valueoffset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<I", height))
    return path


def _places(path: Path, frames: np.ndarray, position: int, height: int = HEIGHT) -> Path:
    """Two parts, of which one says that a frame lies at a position far away, or has no height."""
    path.mkdir()
    mm_stack(path / "run_MMStack_Pos0.ome.tif", [(t, 0, frames[t, :height]) for t in range(6)], Frames=N)
    planes = [(t, position * (t == 9), frames[t]) for t in range(6, N)]
    return mm_stack(path / "run_MMStack_Pos0_1.ome.tif", planes, Frames=N)


def swapped(path: Path, old: bytes, new: bytes) -> Path:
    """The file with some bytes exchanged for about as many; the next of them gives way."""
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old + b" " * (len(new) - len(old)), new))
    return path


# What a campaign of damaged movies found (`benchmarks/fuzz_readers.py`), as small as it gets.
FOUND: dict[str, tuple[str, Callable[[Path, np.ndarray], Path], str]] = {
    "directories in a circle": ("m.tif", _circle, "tiff-unreadable"),
    "frames of no height": ("m.tif", lambda p, f: _of_height(p, f, 0), "tiff-wrong-shape"),
    "frames of gigabytes": ("m.tif", lambda p, f: _of_height(p, f, 1 << 24), "frames-too-large"),
    "a position far away": ("m", lambda p, f: _places(p, f, 1 << 24), "too-many-frames"),
    "frames without end": (
        "m.tif",
        lambda p, f: swapped(ome_file(p, f), b'SizeT="12"', b'SizeT="9e8"'),
        "too-many-frames",
    ),
    "a part without pixels": ("m", lambda p, f: _places(p, f, 0, 0), "unreadable"),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_damage_promises_is_not_believed(what: str, movie: np.ndarray, tmp_path: Path) -> None:
    name, write, key = FOUND[what]
    path = write(tmp_path / name, movie)
    with refused(BadInput, f"sources.{key}"):
        open_movie(path).open()
