"""A movie in a camera's place gives what `analyze` gives of it, whatever else the computer has to do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline import Run, RunSettings, analyze, stages
from napari_rbcflow.session import open_session
from napari_rbcflow.simulation import ChamberSettings, simulate_movie
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.tracking.tracker import Tracker

pytestmark = pytest.mark.slow

RBCFLOW = [sys.executable, "-m", "napari_rbcflow.cli"]
TABLES = ("cells.csv", "tracks.csv")


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("movie") / "m.tif"
    settings = ChamberSettings(384, 640, seed=8, tank_fraction=0.6, cells_per_frame=30, variety=0.15)
    simulate_movie(path, seconds=2, settings=settings)
    return path


@pytest.fixture(scope="module")
def disk(movie: Path) -> Path:
    """The session of ``analyze --background sliding``."""
    folder = movie.parent / "disk"
    analyze(movie, folder, background="sliding", device="cpu")
    return folder


def assert_same(a: Path, b: Path) -> None:
    for name in TABLES:
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert len((a / "cells.csv").read_text().splitlines()) > 30
    ours, theirs = open_session(a), open_session(b)
    for cell in ours.cells.cell:
        np.testing.assert_array_equal(ours.crops(int(cell)), theirs.crops(int(cell)))
    kept = [json.loads((folder / "run.json").read_text()) for folder in (a, b)]
    assert kept[0]["cells"] == kept[1]["cells"]
    assert kept[0]["frames"] == kept[1]["frames"]
    assert kept[0]["frames"]["dropped"] == {}


@pytest.fixture
def busy() -> Iterator[None]:
    """Two processes that take all the time they can get."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


@pytest.mark.usefixtures("busy")
def test_on_a_computer_that_cannot_keep_up(
    movie: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracking takes twice a frame's time, and only 16 frames find room to wait."""
    process = Tracker.process

    def slowly(self: Tracker, *args: Any) -> Any:
        time.sleep(0.033)
        return process(self, *args)

    monkeypatch.setattr(Tracker, "process", slowly)
    monkeypatch.setattr(stages, "WAITING_BYTES", 0)
    two_stage = TwoStage.load(device="cpu")
    run = Run(open_movie(movie, paced=True), tmp_path / "live", RunSettings(background="sliding"), two_stage)
    run.start()
    assert run.wait(90)
    assert_same(disk, tmp_path / "live")


def test_the_command(movie: Path, disk: Path, tmp_path: Path) -> None:
    command = [*RBCFLOW, "live", "--camera", str(movie), "--no-viewer", "--device", "cpu", "-o", "live"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert_same(disk, tmp_path / "live")
