"""Damaged movies end in one of our own sentences, or are read: never a traceback, a hang or a gigabyte."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from damaged_movies import make, tries


@pytest.mark.skipif(sys.platform == "win32", reason="a process's memory is measured as Unix does")
def test_damaged_movies_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """As `benchmarks/fuzz_readers.py` does for hours."""
    seeds, work = tmp_path / "seeds", tmp_path / "work"
    seeds.mkdir()
    make(seeds)
    finds = [find for _, find in tries(seeds, work, iter(range(7, 407))) if find is not None]
    assert not finds, "\n".join(f"{find.key} ({find.damage})\n{find.told}" for find in finds)
