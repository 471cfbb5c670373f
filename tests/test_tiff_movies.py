"""TIFF files, folders of pictures, and sets of several files: one movie, and all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from sentence_keys import refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources import open_frames
from napari_rbcflow.sources.movie import open_movie

N, HEIGHT, WIDTH = 12, 96, 128


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    """Grey frames, all different, like background with noise."""
    return np.random.default_rng(6).integers(90, 160, (N, HEIGHT, WIDTH), dtype=np.uint8)


def two_positions(path: Path, frames: np.ndarray) -> Path:
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(frames, metadata={"axes": "TYX"})
        tif.write(frames[::-1], metadata={"axes": "TYX"})
    return path


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
