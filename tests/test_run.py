"""A run from source to session: what is counted, what is kept, and what happens when a part breaks."""

from __future__ import annotations

import contextlib
import html
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import SaysAll, chamber
from sentence_keys import refused

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import RunningFraction, StopRules, method_words, reported_interval, wilson
from napari_rbcflow.pipeline import Run, RunSettings, analyze
from napari_rbcflow.quality.monitor import warnings_so_far
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure, RunSummary, open_session, writer
from napari_rbcflow.session.counting import recount
from napari_rbcflow.session.schema import write_run
from napari_rbcflow.session.verification import verify
from napari_rbcflow.sources import FrameSource
from napari_rbcflow.types import Frame, Judgement, Label, SourceInfo, Track

pytestmark = pytest.mark.slow


def done(run: Run) -> dict[str, Any]:
    run.start()
    assert run.wait(120), "the run did not end"
    assert not [t.name for t in threading.enumerate() if t.name.startswith("rbcflow-") and t.is_alive()]
    record: dict[str, Any] = json.loads((run.folder / "run.json").read_text())
    return record


class Breaks(FrameSource):
    """A chamber whose camera goes away after `n` frames."""

    def __init__(self, n: int, live: bool) -> None:
        self.inner, self.n, self.live = chamber(60, paced=live), n, live

    def open(self) -> SourceInfo:
        return self.inner.open()

    def frames(self) -> Iterator[Frame]:
        for frame in self.inner.frames():
            if frame.index == self.n:
                raise RunFailed.told("the camera went away: check its cable and start again")
            yield frame

    def stop(self) -> None:
        self.inner.stop()

    def close(self) -> None:
        self.inner.close()


def test_a_run_to_the_source_end_is_whole_and_every_frame_and_cell_is_in_its_account(
    tmp_path: Path, two_stage: TwoStage
) -> None:
    run = Run(chamber(6), tmp_path / "s", RunSettings(patient="P<1>"), two_stage)
    record = done(run)
    assert (record["status"], record["stop_reason"]) == ("finished", "source-ended")
    frames, cells = record["frames"], record["cells"]
    assert frames == {"received": 360, "processed": 360, "dropped": {}, "missed": {}}
    assert cells["tracked"] == sum(n for key, n in cells.items() if key != "tracked") > 30
    assert cells["uncounted"] == 0
    verdict = verify(run.folder)
    assert verdict.code == 0, verdict.findings
    session = open_session(run.folder)
    k, m = cells["tank_treading"], cells["flipping"]
    low, high = wilson(k, k + m)
    assert record["fraction"]["n"] == k + m
    assert (record["fraction"]["low"], record["fraction"]["high"]) == pytest.approx((low, high), abs=1e-6)
    for cell in session.cells.itertuples():
        assert session.crops(cell.cell).shape == (cell.frames, 31, 31)


def test_each_step_before_the_first_frame_is_told(tmp_path: Path) -> None:
    """The networks load beside the source, and what stops either of them is raised."""
    told: list[str] = []
    run = Run(chamber(1), tmp_path / "s", RunSettings())
    run.start(told.append)
    assert run.wait(60)
    assert told == [say(f"pipeline.step-{name}") for name in ("source", "tracker", "networks")]
    if not torch.cuda.is_available():
        with pytest.raises(BadInput):
            Run(chamber(1), tmp_path / "other", RunSettings(device="cuda")).start()
    assert not (tmp_path / "other").exists()


def test_the_number_freezes_at_the_cell_that_meets_the_rule_and_open_tracks_are_kept_uncounted(
    tmp_path: Path,
) -> None:
    run = Run(chamber(60, paced=True), tmp_path / "s", RunSettings(stop=StopRules(reliable=7)), SaysAll())
    record = done(run)
    assert (record["status"], record["stop_reason"]) == ("finished", "reliable")
    assert run.progress().open_tracks == 0  # all have a label, if only "uncounted"
    assert record["fraction"]["n"] == 7
    cells = open_session(run.folder).cells
    assert (cells.label == "tank-treading").sum() == 7
    uncounted = cells[cells.label == "uncounted"]
    assert "cut-by-stop" in set(uncounted.reason)
    assert set(uncounted.reason) <= {"cut-by-stop", "after-stop"}
    assert uncounted.p_reliable.isna().all()
    frames = record["frames"]
    assert frames["received"] == frames["processed"] + sum(frames["dropped"].values())
    assert set(frames["dropped"]) <= {"after-stop"}
    assert verify(run.folder).code == 0


def test_seconds_stop_a_live_run_and_what_finished_before_is_counted(tmp_path: Path) -> None:
    run = Run(chamber(60, paced=True), tmp_path / "s", RunSettings(stop=StopRules(seconds=3)), SaysAll())
    record = done(run)
    assert (record["status"], record["stop_reason"]) == ("finished", "seconds")
    assert record["frames"]["processed"] == 180
    cells = open_session(run.folder).cells
    assert "after-stop" not in set(cells.reason)
    assert (cells.label == "tank-treading").sum() > 0


def test_a_person_stops_a_live_run(tmp_path: Path) -> None:
    run = Run(chamber(60, paced=True), tmp_path / "s", RunSettings(), SaysAll())
    run.start()
    while run.progress().received < 60:
        assert not run.wait(0.01)
    run.stop()
    assert run.wait(10)
    assert run.outcome == ("stopped", "user")
    assert verify(run.folder).code == 0


class SaysByTurns(SaysAll):
    """Calls cells tank-treading by chance, four of five: labels that a rule can look at."""

    def judge(self, tracks: Sequence[Track], *, leave_out_intruded: bool = True) -> list[Judgement]:
        rng = np.random.default_rng(5)
        chance = {cell: float(p) for cell, p in enumerate(rng.random(5000))}
        judged = super().judge(tracks)
        return [
            Judgement(j.cell, Label.FLIPPING, 1.0, 0.0, "stage-2")
            if j.label is Label.TANK_TREADING and chance[j.cell] > 0.8
            else j
            for j in judged
        ]


@pytest.mark.parametrize(
    ("rules", "interval", "reason", "method"),
    [
        (StopRules(reliable=30), "clopper-pearson", "reliable", "clopper-pearson"),
        (StopRules(halfwidth=0.12), "wilson", "half-width", "fixed-width"),
        (StopRules(reliable=20, halfwidth=0.12, tracks=25), "wilson", "tracks", "anytime"),
        (StopRules(baseline=0.45), "wilson", "baseline", "anytime"),
    ],
)
def test_the_interval_that_belongs_to_the_end_is_said_and_proved(
    tmp_path: Path, rules: StopRules, interval: str, reason: str, method: str
) -> None:
    settings = RunSettings(stop=rules, interval=interval)  # type: ignore[arg-type]
    run = Run(chamber(6), tmp_path / "s", settings, SaysByTurns())
    record = done(run)
    assert record["stop_reason"] == reason
    figure = record["fraction"]
    assert figure["method"] == method
    session = open_session(run.folder)
    # The order of counting is another one than that of cells.csv, and is known from the session alone.
    assert bytes(session.counted) == bytes(run.stages.tally.counted)
    end = reported_interval(recount(session.counted), rules, "finished", reason, settings.interval)
    assert (figure["low"], figure["high"]) == pytest.approx(end.interval, abs=1e-12)
    assert verify(run.folder).findings == []
    shown = run.progress()
    assert (shown.interval, shown.method) == (end.interval, method)
    assert (shown.verdict, shown.verdict_reason) == (record["verdict"], record["verdict_reason"])
    page = html.unescape((run.folder / "report.html").read_text())
    assert method_words(method) in page
    if reason == "tracks":
        assert sum(~session.cells["reason"].isin(["after-stop", "cut-by-stop"])) == rules.tracks
    if reason == "baseline":
        assert record["stop_sentence"] == say("estimate.limit-above", limit=45)
        assert record["stop_sentence"] in page
        assert record["stop_sentence"] == shown.stop_sentence
    # Whoever says another interval, or another rule, is found out.
    record["fraction"] = {**figure, "method": "wilson" if method != "wilson" else "anytime"}
    write_run(run.folder, record)
    right = {"status": "finished", "reason": reason, "right": method, "told": record["fraction"]["method"]}
    assert say("session.found-interval-of-another-end", **right) in verify(run.folder).findings
    record["fraction"] = {**figure, "low": figure["low"] - 0.01}
    write_run(run.folder, record)
    differs = {"told": record["fraction"]["low"], "right": figure["low"]}
    found = say("session.found-end-differs", name="low", method=method, **differs)
    assert found in verify(run.folder).findings


class SaysLate(SaysByTurns):
    """Judges nothing before it is let: every track waits in the queue until then."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def judge(self, tracks: Sequence[Track], *, leave_out_intruded: bool = True) -> list[Judgement]:
        assert self.let.wait(60)
        return super().judge(tracks)


@pytest.mark.parametrize(
    ("rules", "by_person", "ended", "method", "sentence"),
    [
        (StopRules(halfwidth=0.15, seconds=4), False, "half-width", "fixed-width", ""),
        (StopRules(baseline=0.45, seconds=4), False, "baseline", "anytime", "above 45 %"),
        (StopRules(baseline=0.45), True, "user", "anytime", "above 45 %"),
    ],
)
def test_a_rule_that_is_met_by_what_was_not_judged_yet_at_the_stop(
    tmp_path: Path, rules: StopRules, by_person: bool, ended: str, method: str, sentence: str
) -> None:
    networks = SaysLate()
    source = chamber(6, paced=by_person)  # of a movie, what a person's stop finds unjudged does not count
    run = Run(source, tmp_path / "s", RunSettings(stop=rules), networks)
    run.start()
    if by_person:
        while run.progress().received < 240:
            assert not run.wait(0.01)
        run.stop()
    while run.outcome[0] == "running":
        assert not run.wait(0.01)
    networks.let.set()
    assert run.wait(60)
    record = json.loads((run.folder / "run.json").read_text())
    assert (record["stop_reason"], record["fraction"]["method"]) == (ended, method)
    assert sentence in record["stop_sentence"]
    assert bool(sentence) == bool(record["stop_sentence"])
    assert "after-stop" in set(open_session(run.folder).cells.reason)
    assert verify(run.folder).findings == []


def test_a_person_stops_a_movie_that_was_already_read_to_its_end(tmp_path: Path) -> None:
    networks = SaysLate()
    run = Run(chamber(6), tmp_path / "s", RunSettings(), networks)
    run.start()
    while run.outcome[0] == "running":
        assert not run.wait(0.01)
    run.stop()
    assert run.outcome == ("stopped", "user")
    networks.let.set()
    assert run.wait(10)
    session = open_session(run.folder)
    assert (session.run["status"], session.run["stop_reason"]) == ("stopped", "user")
    assert (session.cells["reason"] == "cut-by-stop").mean() > 0.5
    assert verify(run.folder).findings == []


def test_a_run_that_is_stopped_before_it_began_creates_nothing(tmp_path: Path) -> None:
    run = Run(chamber(6), tmp_path / "s", RunSettings(), SaysAll())
    run.stop()
    with refused(BadInput, "pipeline.stopped-at-start"):
        run.start()
    assert list(tmp_path.iterdir()) == []


def test_a_ctrl_c_in_an_analysis_closes_its_session_as_stopped(tmp_path: Path) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    movie = Path(__file__).parents[1] / "sample_data" / "flow_chamber.tif"
    with pytest.raises(KeyboardInterrupt):
        analyze(movie, tmp_path / "s", device="cpu", progress=press)
    session = open_session(tmp_path / "s")
    frames = session.run["frames"]
    assert (session.run["status"], session.run["stop_reason"]) == ("stopped", "user")
    assert frames["dropped"]["after-stop"] == frames["received"] - frames["processed"]
    assert verify(tmp_path / "s").findings == []


def test_a_fraction_that_leaves_its_own_interval_is_told() -> None:
    """All tank-treading, then none: the interval keeps what the first cells ruled out."""
    fraction, warned = RunningFraction(), []
    for i in range(200):
        fraction.update(tank_treading=int(i < 60), flipping=int(i >= 60))
        figure = FractionFigure.saying(fraction, reported_interval(fraction, StopRules(), "running", ""))
        run = RunSummary.of(
            received=9, processed=9, dropped={}, missed={}, cells={}, fraction=figure
        ).as_dict()
        warned.append(warnings_so_far(run, seconds=30.0, open_tracks=5))
    assert warned[59] == []
    (warning,) = next(filter(None, warned))
    assert (warning.key, warning.grave) == ("fraction-left-interval", True)
    assert warning.sentence == say("quality.warn-fraction-left-interval")


def test_how_far_it_is_to_each_rule_is_told_while_the_run_goes_on(tmp_path: Path) -> None:
    rules = StopRules(reliable=500, halfwidth=0.05, seconds=6, tracks=900, baseline=0.75)
    run = Run(chamber(60, paced=True), tmp_path / "s", RunSettings(stop=rules), SaysByTurns())
    run.start()
    while (now := run.progress()).seconds < 5:
        assert not run.wait(0.05)
    entries = {entry.name: entry for entry in now.rules}
    assert list(entries) == ["reliable", "half-width", "seconds", "tracks", "baseline"]
    assert now.method == "anytime"
    assert entries["seconds"].share == pytest.approx(now.seconds / 6)
    assert now.stop_share == max(entry.share for entry in now.rules if entry.name != "reliable")
    for name in ("reliable", "seconds", "tracks"):
        assert (entries[name].seconds_left or 0) > 0
    assert (now.seconds_left or 99) <= 2
    assert run.wait(60)


@pytest.mark.parametrize("live", [True, False])
def test_a_source_that_breaks_fails_the_run_and_all_before_is_kept(tmp_path: Path, live: bool) -> None:
    run = Run(Breaks(150, live), tmp_path / "s", RunSettings(), SaysAll())
    record = done(run)
    assert record["status"] == "failed"
    assert record["stop_reason"] == "the camera went away: check its cable and start again"
    assert record["frames"]["received"] == 150
    assert record["frames"]["processed"] == 150
    cells = open_session(run.folder).cells
    assert (cells.label == "tank-treading").sum() > 0
    assert verify(run.folder).code == 0, "closed and complete up to there"


def test_networks_that_break_fail_the_run_within_seconds_and_every_track_is_kept(tmp_path: Path) -> None:
    run = Run(chamber(60, paced=True), tmp_path / "s", RunSettings(), SaysAll(fails_after=1))
    record = done(run)
    assert record["status"] == "failed"
    assert "the networks broke" in str(record["stop_reason"])
    frames = record["frames"]
    assert frames["received"] < 600
    assert frames["received"] == frames["processed"] + sum(frames["dropped"].values())
    cells = open_session(run.folder).cells
    assert "run-failed" in set(cells.reason)
    assert len(cells) == record["cells"]["tracked"]


class Deaf(Breaks):
    """A chamber whose driver hangs after `n` frames: it hears no stop and its close does not return."""

    def __init__(self, n: int) -> None:
        super().__init__(n, live=True)
        self.released = threading.Event()

    def frames(self) -> Iterator[Frame]:
        for frame in self.inner.frames():
            if frame.index == self.n:
                self.released.wait(60)
            yield frame

    def close(self) -> None:
        self.released.wait(60)


class Slow(Breaks):
    """A chamber whose camera goes on for half a second after it was told to stop."""

    def stop(self) -> None:
        threading.Timer(0.5, self.inner.stop).start()


def test_frames_that_come_after_a_fault_are_laid_to_the_fault(tmp_path: Path) -> None:
    run = Run(Slow(10**6, live=True), tmp_path / "s", RunSettings(), SaysAll(fails_after=1))
    record = done(run)
    assert record["status"] == "failed"
    assert set(record["frames"]["dropped"]) == {"run-failed"}
    assert not [w for w in record["warnings"] if "disk" in w]


def test_a_driver_that_hangs_does_not_hang_the_run(tmp_path: Path) -> None:
    source = Deaf(100)
    run = Run(source, tmp_path / "s", RunSettings(), SaysAll())
    run.start()
    try:
        while run.progress().received < 100:
            assert not run.wait(0.01)
        run.stop()
        assert run.wait(15), "a stop must end the run whatever the driver does"
        status, reason = run.outcome
        assert status == "failed"
        assert reason == say("pipeline.driver-hangs", camera=run.info.name)
        assert verify(run.folder).code == 0
    finally:
        source.released.set()


def test_a_folder_that_exists_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BadInput) as error:
        Run(chamber(1), tmp_path, RunSettings(), SaysAll()).start()
    assert error.value.key == "session.exists"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_movie_without_a_cell_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    import tifffile

    noise = np.random.default_rng(0).normal(125, 1.8, (60, 200, 300)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "empty.tif", noise, photometric="minisblack")
    with refused(BadInput, "pipeline.no-cell-in-movie"):
        analyze(tmp_path / "empty.tif", tmp_path / "s", device="cpu")
    assert not (tmp_path / "s").exists()


def test_a_full_disk_fails_the_run_and_says_so_and_what_was_counted_is_there(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LEAST_S", 0.5)
    run = Run(chamber(120, paced=True), small_disk / "s", RunSettings(ring_seconds=0.2), SaysAll())
    run.start()
    filler = small_disk / "filler"
    while not (run.stages.tally.fraction.n and run.progress().room):  # it is told before it happens
        assert not run.wait(0.05)
    begins = say("session.disk-fills", time="").partition(" in ")[0]
    assert run.progress().room.startswith(begins)
    assert any(warning.startswith(begins) for warning in run.warnings)
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    assert run.wait(20), "a full disk must end the run"
    status, reason = run.outcome
    assert status == "failed"
    assert "disk" in reason
    counted = run.stages.tally.cells["tracked"]
    filler.unlink(missing_ok=True)
    verdict = verify(run.folder)
    assert verdict.code <= 1, verdict.findings
    assert len(open_session(run.folder).cells) >= counted > 0
