"""Damaged movies end in one of our own sentences, or are read: never a traceback, a hang or a gigabyte."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
import tifffile
from damaged_movies import make, tries
from factories import a_movie
from sentence_keys import refused
from tiff_writers import mm_stack

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources import open_movie


@pytest.mark.skipif(sys.platform == "win32", reason="a process's memory is measured as Unix does")
def test_damaged_movies_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """As `benchmarks/fuzz_readers.py` does for hours."""
    seeds, work = tmp_path / "seeds", tmp_path / "work"
    seeds.mkdir()
    make(seeds)
    finds = [find for _, find in tries(seeds, work, iter(range(7, 407))) if find is not None]
    assert not finds, "\n".join(f"{find.key} ({find.damage})\n{find.told}" for find in finds)


def test_frames_of_a_width_below_nothing_are_refused(tmp_path: Path) -> None:
    """The library for TIFF would count the frames of such a file for ever."""
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, a_movie(12))
    with tifffile.TiffFile(path) as tif:
        place = tif.pages.first.tags["ImageWidth"].offset
    with path.open("r+b") as file:
        file.seek(place + 2)
        file.write(struct.pack("<HIi", 9, 1, -128))
    with refused(BadInput, "sources.tiff-wrong-shape"):
        open_movie(path).open()


def test_an_index_that_promises_frames_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "run_MMStack_Pos0.ome.tif"
    mm_stack(path, ((t, 0, frame) for t, frame in enumerate(a_movie(12))), Frames=20_000_000, Positions=1)
    tracemalloc.start()
    with refused(BadInput, "sources.too-many-frames"):
        open_movie(path).open()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20
