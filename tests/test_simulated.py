"""What was simulated or replayed says so, in the movie's file, in the session and in the trend."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from factories import FIRST, SOURCE, a_movie, begin, chamber, closed, session, some_pairs, weekly
from sentence_keys import refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import Camera, Run, RunSettings
from napari_rbcflow.sentences import say
from napari_rbcflow.session import is_simulated
from napari_rbcflow.session.schema import read_run, write_run
from napari_rbcflow.simulation import simulate_movie
from napari_rbcflow.sources import open_movie
from napari_rbcflow.trend import gather, trend_of
from napari_rbcflow.types import Frame, SourceInfo

SIMULATED = replace(SOURCE, simulated=True)


def info_of(path: Path, **options: Any) -> SourceInfo:
    with open_movie(path, **options) as info:
        return info


@pytest.mark.parametrize("ending", [".tif", ".avi", ".zarr"])
def test_a_simulated_movie_says_so_in_its_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"movie{ending}"
    simulate_movie(path, seconds=0.1, height=96, width=128, cells_per_frame=2)
    assert info_of(path).simulated
    assert info_of(path).pixel_size_um == 0.605


def test_a_recording_is_none_until_it_plays_in_a_camera_s_place(tmp_path: Path) -> None:
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, a_movie(6), metadata={"fps": 60.0, "pixel_size_um": 0.605})
    assert not info_of(path).simulated
    assert info_of(path, paced=True).simulated
    assert pickle.loads(pickle.dumps(info_of(path, paced=True))).simulated  # as it travels to the window


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("older", [True, False])
def test_the_last_frames_of_a_session_are_as_simulated_as_it(
    tmp_path: Path, simulated: bool, older: bool
) -> None:
    """Also where the ring lies elsewhere by now, or is of a session that only its run.json tells of."""
    writer = begin(tmp_path / "S", source=replace(SOURCE, simulated=simulated))
    for index in range(4):
        writer.ring.append(Frame(index, index / 60, np.full((SOURCE.height, SOURCE.width), index, np.uint8)))
    writer.ring.close()
    ring = tmp_path / "S" / "frames.zarr"
    if older:
        text = (ring / "zarr.json").read_text()
        (ring / "zarr.json").write_text(text.replace("rbcflow_simulated", "something_else"))
    else:
        ring = ring.rename(tmp_path / "frames.zarr")
    from napari_rbcflow.sources.movie import RingMovieReader

    assert RingMovieReader(ring, "S").facts.simulated is simulated


def test_a_run_tells_at_the_top_of_run_json(tmp_path: Path) -> None:
    going = Run(chamber(0.1, variety=0.1), tmp_path / "S", RunSettings())
    going.start()
    assert going.wait(60)
    run = read_run(tmp_path / "S")
    assert run["simulated"] is True
    assert "simulated" not in run["parameters"]
    # And whether the microscope was calibrated.
    assert run["parameters"]["pixel_size_known"] is run["parameters"]["fps_known"] is True
    closed(tmp_path / "T", some_pairs(3))
    assert read_run(tmp_path / "T")["simulated"] is False


@pytest.mark.parametrize(
    ("parameters", "simulated"),
    [
        ({"source": "simulated chamber"}, True),
        ({"source": "DemoCamera", "live": True}, True),
        ({"source": "m.avi", "live": True, "source_details": {"file": "m.avi"}}, True),
        ({"source": "m.avi", "live": False, "source_details": {"file": "m.avi"}}, False),
        ({"source": "Infinity", "live": True, "source_details": {"camera": "Infinity"}}, False),
        ({}, False),
    ],
)
def test_a_session_from_before_tells_by_its_source(parameters: dict[str, Any], simulated: bool) -> None:
    assert is_simulated({"parameters": parameters}) is simulated
    assert is_simulated({"parameters": parameters, "simulated": not simulated}) is not simulated


# ------------------------------------------------------------------ the trend


def test_a_simulated_session_never_enters_a_patient_s_baseline(tmp_path: Path) -> None:
    folder = weekly(tmp_path / "patient", [0.85, 0.86, 0.84, 0.85, 0.86])
    session(folder / "practice", 20, 180, week=5, source=replace(SIMULATED, height=1096))
    alone = trend_of(gather([folder]))
    assert say("trend.simulated-left-out", sessions=1) in alone.notes
    assert [run.record.named for run in alone.runs] == [f"week-{k:02d}" for k in range(5)]
    assert alone.baseline is not None
    assert alone.baseline.low > 0.8
    # Named itself, it is left out all the same.
    named = gather([*sorted(folder.iterdir())])
    assert len(named.records) == 5


def test_simulated_sessions_alone_are_a_demonstration_if_each_was_named(tmp_path: Path) -> None:
    folder = weekly(tmp_path / "demo", [0.8, 0.81], source=SIMULATED)
    with refused(BadInput, "trend.only-simulated"):
        gather([folder])
    shown = gather([*folder.iterdir()])
    assert len(shown.records) == 2
    assert shown.notes == (say("trend.all-simulated"),)


def test_an_older_simulated_session_is_left_out_too(tmp_path: Path) -> None:
    folder = weekly(tmp_path / "patient", [0.85])
    old = session(folder / "old", 20, 180, week=-1, source=replace(SIMULATED, name="simulated chamber"))
    run = read_run(old)
    del run["simulated"]
    write_run(old, run)
    assert [record.started for record in gather([folder]).records] == [FIRST]


# ------------------------------------------------------------------ cameras


@pytest.mark.slow
@pytest.mark.parametrize("by_file", [False, True])
def test_micro_manager_s_demo_camera_is_no_microscope(by_file: bool) -> None:
    adapters = pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed")
    pytest.importorskip("pymmcore", reason="pymmcore is not installed")
    folder = Path(adapters.device_adapter_path())
    spec = str(folder / "MMConfig_demo.cfg") if by_file else "demo"
    source = Camera(spec, {"mm_path": folder}).make()
    with source as info:
        assert info.simulated
        assert info.live
