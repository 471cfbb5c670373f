"""A least length for cells that count: which do, what is kept of the others, and that it can be proven."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import Pair, a_judgement, a_track, closed, some_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot
from sentence_keys import refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.estimate.tally import FRAGMENT, TOO_FEW_FRAMES, Tally, counts
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.pipeline.messages import Camera, RunRequest
from napari_rbcflow.quality.meter import Meter
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session, verify
from napari_rbcflow.session.counting import by_length
from napari_rbcflow.session.schema import read_run, write_run
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.types import Judgement, Label
from napari_rbcflow.widgets.live_form import CameraForm
from napari_rbcflow.widgets.movie_form import MovieForm

LEAST = 12


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(6, 30), st.sampled_from(list(Label)[:3])), min_size=1, max_size=9))
def test_of_the_pieces_of_a_cell_the_first_that_is_long_enough_counts(cells: list[tuple[int, Label]]) -> None:
    """One chain, each track a piece of the one before: at most one counts, and it is the first that can."""
    tracks = [a_track(k, frames, may_continue=(k - 1,) if k else ()) for k, (frames, _) in enumerate(cells)]
    tally = Tally(StopRules(), least_frames=LEAST)
    settled = []
    for track, (_, label) in zip(tracks, cells, strict=True):
        now = tally.settle([track], [a_judgement(track.cell, label)])
        tally.count(now)
        settled += now
    able = [frames >= LEAST and label in ("tank-treading", "flipping") for frames, label in cells]
    first = able.index(True) if any(able) else len(able)
    assert [counts(said) for said in settled] == [k == first for k in range(len(cells))]
    assert tally.fraction.n == int(any(able))
    for k, (said, (frames, label)) in enumerate(zip(settled, cells, strict=True)):
        if k > first and label in ("tank-treading", "flipping"):
            assert (said.label, said.reason) == (Label.UNCOUNTED, FRAGMENT)
        elif frames < LEAST:
            assert (said.label, said.reason) == (Label.UNCOUNTED, TOO_FEW_FRAMES)
        else:
            assert said.label is label
        # What the networks saw is kept of all: the run's quality is told by it.
        assert (said.p_reliable, said.p_tank_treading) == (0.9, 0.9)
    # An unreliable track that could never count is none that may have been let through.
    assert tally.cells["unreliable"] == sum(
        frames >= LEAST and label is Label.UNRELIABLE for frames, label in cells
    )


def test_too_brief_cells_bring_the_stop_no_nearer() -> None:
    tally = Tally(StopRules(reliable=2), least_frames=LEAST)
    tracks = [a_track(k, 8 if k < 5 else 40) for k in range(8)]
    judged = [a_judgement(t.cell, Label.FLIPPING, 0.1) for t in tracks]
    settled = tally.settle(tracks, judged)
    tally.count(settled)
    assert [s.reason for s in settled] == [TOO_FEW_FRAMES] * 5 + ["stage-2"] * 2 + ["after-stop"]
    assert tally.enough == "reliable"


def test_a_least_length_changes_nothing_in_what_the_quality_sees() -> None:
    """Five brief cells in a hundred are sharp and alone: that is usual, whether they count or not."""
    shares = []
    for least in (6, LEAST):
        tally, meter = Tally(StopRules(), least_frames=least), Meter(fps=60.0, pixel_size_um=0.605)
        tracks = [a_track(k, 8) for k in range(400)]
        judged = [
            a_judgement(k, Label.FLIPPING, 0.1)
            if k % 20 == 0
            else Judgement(k, Label.UNRELIABLE, 0.1, None, "stage-1")
            for k in range(400)
        ]
        meter.add_tracks(zip(tracks, tally.settle(tracks, judged), strict=True))
        sums = meter.sums()
        shares.append((sums.judged, sums.reliable))
    assert shares == [(400, 20)] * 2


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with a least length of 12 frames."""
    pairs: list[Pair] = []
    for track, said in some_pairs(300, seed=8):
        brief = said.label is not Label.TOO_SHORT and len(track) < LEAST
        pairs.append((track, replace(said, label=Label.UNCOUNTED, reason=TOO_FEW_FRAMES) if brief else said))
    asked = {"least_frames": LEAST, "shear_rate_per_s": 20.0}
    return closed(tmp_path_factory.mktemp("least") / "S", pairs, 300, parameters=asked)


def test_a_session_says_how_long_its_cells_were_watched(kept: Path) -> None:
    assert verify(kept).findings == []
    session = open_session(kept)
    page = (kept / "report.html").read_text(encoding="utf-8")
    assert say("report.cells-too-few-frames", frames=LEAST) in page
    assert say("report.least-length-used", frames=LEAST) in page
    found = by_length(session.run, session.cells)
    for group in found.groups:
        if group.n:
            assert f"<td>{group.lengths}</td><td>{group.n:,}</td>" in page
    # Half of the repeat at twice the shear rate: 34 frames.
    assert [g.longest for g in found.groups] == [9, 17, 26, 34, 0]
    told = session.run["fraction_unseen_flips"]
    assert told["reason"] == "other-networks"
    assert told["turns_only"]["estimate"] < session.run["fraction"]["estimate"]
    assert f"{100 * told['turns_only']['estimate']:.1f} %</b> (95 % interval" in page
    # Of other networks it is not known how many flips they notice.
    assert told["seen"] is None
    assert page.count("in 100 flips noticed") == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [("least", "counts"), ("reason", "leaves out"), ("correction", "fraction_unseen_flips is not what")],
)
def test_what_does_not_fit_is_found(kept: Path, tmp_path: Path, damage: str, said: str) -> None:
    folder = Path(shutil.copytree(kept, tmp_path / "S"))
    run = read_run(folder)
    if damage == "least":
        run["parameters"]["least_frames"] = LEAST + 8
    elif damage == "reason":
        run["parameters"]["least_frames"] = 6
    else:
        run["fraction_unseen_flips"]["turns_only"]["low"] -= 0.01
    write_run(folder, run)
    assert any(said in finding for finding in verify(folder).findings)


def test_a_session_from_before_is_whole(tmp_path: Path) -> None:
    folder = closed(tmp_path / "S", some_pairs(60, seed=3), 60)
    run = read_run(folder)
    del run["fraction_unseen_flips"]
    write_run(folder, run)
    assert verify(folder, only_number=True).findings == []


@pytest.mark.slow
def test_a_run_counts_only_what_was_watched_long_enough(tmp_path: Path) -> None:
    """The whole instrument on a small chamber: the shorter ones are kept, judged, and not counted."""
    chamber = ChamberSettings(height=480, seconds=3.0, seed=12, cells_per_frame=50.0, variety=0.2)
    sessions = []
    for least in (6, 58):
        run = Run(
            SimulatedChamber(chamber, paced=False),
            tmp_path / f"least{least}",
            RunSettings(device="cpu", ring_seconds=0.05, least_frames=least),
        )
        run.start()
        run.wait()
        assert run.outcome == ("finished", "source-ended")
        assert verify(run.folder).findings == []
        sessions.append(open_session(run.folder))
    everything, longer = (s.cells.set_index("cell") for s in sessions)
    counted = everything.label.isin(["tank-treading", "flipping"])
    brief = counted & (everything.frames < 58)
    assert brief.any()
    assert (longer.reason[brief] == TOO_FEW_FRAMES).all()
    rest = counted & ~brief
    assert (longer.label[rest] == everything.label[rest]).all()
    assert sessions[1].run["fraction"]["n"] == int(rest.sum())
    assert sessions[1].run["parameters"]["least_frames"] == 58
    assert json.dumps(sessions[1].run["fraction_unseen_flips"], allow_nan=False)


def test_bad_lengths_are_refused(tmp_path: Path, rbcflow: Any) -> None:
    for least in (0, 5, -3, 100_000):
        with refused(BadInput, "pipeline.least-frames-outside"):
            RunSettings(least_frames=least)
    assert replace(RunSettings(), least_frames=30).record(device="cpu")["least_frames"] == 30
    out = tmp_path / "S"
    code, _, err = rbcflow("demo", "-o", out, "--no-viewer", "--least-frames", 2)
    assert code == 2
    outside = say("pipeline.least-frames-outside", least=6, most=1000, value=2)
    assert outside.replace("`least_frames`", "--least-frames") in err
    assert not out.exists()


def test_napari_s_forms_ask_for_it(qtbot: QtBot, tmp_path: Path) -> None:
    form = CameraForm()
    qtbot.addWidget(form)
    order = RunRequest(Camera("simulated", {}), tmp_path / "S", RunSettings(least_frames=33))
    form.fill(order)
    assert form.least_frames.value() == 33
    form.least_frames.setValue(21)
    assert form.run_settings().least_frames == 21
    movies = MovieForm(list)
    qtbot.addWidget(movies.container.native)
    assert movies.run_settings().least_frames == 6
    movies.least_frames.value = "40"
    assert movies.run_settings().least_frames == 40
