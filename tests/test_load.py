"""More than the computer can do, and frames that are missing: what gives way, and what is said of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import SaysAll, a_track, chamber, progress

from napari_rbcflow.cli.terminal import running_line
from napari_rbcflow.estimate import AFTER_STOP, RUN_FAILED, StopRules
from napari_rbcflow.pipeline import Run, RunSettings, stages
from napari_rbcflow.pipeline.stages import Stages
from napari_rbcflow.quality import reason_words
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session
from napari_rbcflow.session.verification import verify
from napari_rbcflow.sources import STORED_TWICE
from napari_rbcflow.sources.factory import open_source
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import Frame, Judgement, SourceInfo, Track

PICTURE = np.zeros((384, 640), np.uint8)


class Notes(SaysAll):
    """Takes note of the tracks that it was asked to judge."""

    batch = 8
    linger_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def judge(self, tracks: Sequence[Track], *, leave_out_intruded: bool = True) -> list[Judgement]:
        self.asked += [track.cell for track in tracks]
        return super().judge(tracks)


@pytest.mark.parametrize(
    ("live", "can_wait", "room", "at_once"),
    [(True, False, 99, False), (True, True, 99, True), (False, False, 99, True), (True, False, 3, True)],
)
def test_judging_waits_for_tracking_where_frames_may_be_dropped_and_tracks_may_wait(
    monkeypatch: pytest.MonkeyPatch, live: bool, can_wait: bool, room: int, at_once: bool
) -> None:
    monkeypatch.setattr(stages, "_LATEST", room)
    info = SourceInfo("camera", 384, 640, 60.0, 0.605, live=live, can_wait=can_wait)
    networks, nothing = Notes(), Any
    works = Stages(chamber(1), info, nothing, networks, nothing, RunSettings())  # type: ignore[arg-type]
    for index in range(60):
        assert works._frames.offer(Frame(index, index / 60, PICTURE))
    works._hand_over([a_track(cell) for cell in range(1, 6)])
    judging = threading.Thread(target=works.judge)
    judging.start()
    try:
        time.sleep(0.3)
        assert networks.asked == ([1, 2, 3, 4, 5] if at_once else [])
        assert (works.labels_behind_s() >= 0.3) or at_once
        assert works._frames.take(50)  # tracking has caught up
        deadline = time.monotonic() + 20
        while len(networks.asked) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert networks.asked == [1, 2, 3, 4, 5]
    finally:
        works.fail(RuntimeError("the test is over"))
        judging.join(20)
    assert not judging.is_alive()
    # Judged, not on the disk yet: where the run breaks, they are kept as what nobody judged.
    assert [track.cell for track in works.unjudged()] == [1, 2, 3, 4, 5]


def crossing(cells: Any, first: int, last: int) -> Any:
    """Return the cells that were seen before and after some frames."""
    return cells[(cells.first_frame < first) & (cells.last_frame > last)]


def check_gaps(folder: Path, lost: set[int]) -> Any:
    """Check that every track tells of the lost frames in its span, and holds nothing in their place."""
    session = open_session(folder)
    assert verify(folder).findings == []
    cells = session.cells
    for cell in cells.itertuples():
        span = range(cell.first_frame, cell.last_frame + 1)
        assert cell.gap_frames == len(lost & set(span)) == len(span) - cell.frames
        kept = session.sequence(cell.cell)
        assert kept.frame.tolist() == [frame for frame in span if frame not in lost]
        assert len(kept.crops) == cell.frames
    return session


@pytest.mark.slow
def test_a_track_tells_of_frames_that_the_camera_lost(replay: Any, tmp_path: Path) -> None:
    source = chamber(3, seed=8)
    with source:
        movie = np.stack([frame.image for frame in source.frames()])
    config = replay.config(
        tmp_path, movie, EndsAfter=len(movie), LostInCamera="60 80-84 105-114 140-150", FrameRate=60
    )
    camera = open_source(str(config), mm_path=replay.adapters, fps=60, pixel_size_um=0.605)
    run = Run(camera, tmp_path / "s", RunSettings(), SaysAll())
    run.start()
    assert run.wait(90)
    assert run.outcome == ("finished", "source-ended")
    assert run.progress().missed_by == {"time-gap": 27}
    assert (
        say("pipeline.frames-missed", frames=27, reasons=f"{say('quality.lost-time-gap')}: 27")
        in run.warnings
    )
    session = check_gaps(run.folder, {60, *range(80, 85), *range(105, 115), *range(140, 151)})
    cells = session.cells
    for first, last in ((60, 60), (80, 84), (105, 114)):
        assert len(crossing(cells, first, last)) >= 3
    assert not len(crossing(cells, 140, 150))  # over a sixth of a second another cell may have come
    # A speed is a way over a time, and the lost frames' time went by.
    for cell in crossing(cells, 105, 114).itertuples():
        way = session.tracks[(session.tracks.cell == cell.cell) & (session.tracks.frame < 105)]
        if len(way) < 12:
            continue
        before = np.polyfit(way.frame, way.x_px, 1)[0] * 60 * 0.605
        assert cell.speed_um_per_s == pytest.approx(before, rel=0.05)


@pytest.mark.slow
def test_a_track_tells_of_frames_that_we_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The computer stands still for a moment, and fewer frames may wait than come in that time."""
    monkeypatch.setattr(stages, "WAITING_BYTES", 0)
    processed: list[int] = []
    process = Tracker.process

    def stands_still(self: Tracker, frame: Frame) -> list[Track]:
        if frame.image.shape == PICTURE.shape:  # not those of the warming up
            processed.append(frame.index)
            if frame.index == 100:
                time.sleep(0.4)
        return process(self, frame)

    monkeypatch.setattr(Tracker, "process", stands_still)
    run = Run(chamber(60, paced=True), tmp_path / "s", RunSettings(stop=StopRules(seconds=3)), SaysAll())
    run.start()
    assert run.wait(90)
    told = run.progress()
    lost = set(range(180)) - set(processed)
    assert told.dropped_by == {"queue-full": len(lost)}
    assert 0 < len(lost) == told.dropped
    assert f"dropped: queue-full {len(lost)}" in running_line(told)
    assert say("pipeline.frames-dropped", frames=len(lost)) in run.warnings
    cells = check_gaps(run.folder, lost).cells
    # A machine that is busy beside loses more than a track can go over.
    assert len(crossing(cells, min(lost), max(lost))) >= 3 or max(lost) - min(lost) >= 10


def test_why_frames_were_lost_is_said_while_the_run_goes_on(qtbot: Any, take_picture: Any) -> None:
    from napari_rbcflow.widgets.result import ResultPanel

    panel = ResultPanel()
    qtbot.addWidget(panel)
    panel.resize(430, 900)
    panel.show()
    panel.show_progress(progress(), b"", [])
    panel.draw_now()
    assert panel.counts.reasons.isHidden()
    losing = progress(
        dropped=12,
        missed=10,
        dropped_by={"queue-full": 12},
        missed_by={"overflow": 3, "time-gap": 7},
        labels_behind_s=6.7,
    )
    panel.show_progress(losing, b"", [])
    panel.draw_now()
    counts = panel.counts
    assert counts.dropped.text() == "⚠ 12 dropped"
    assert counts.missed.text() == "⚠ 10 missed"
    assert counts.reasons.text() == "missed: time-gap 7, overflow 3; dropped: queue-full 12"
    gap, overflow = say("quality.lost-time-gap"), say("quality.lost-overflow")
    assert counts.missed.toolTip() == f"7 time-gap: {gap}\n3 overflow: {overflow}"
    take_picture(panel, "frames-lost.png")
    line = running_line(losing)
    assert "22 frames lost (missed: time-gap 7, overflow 3; dropped: queue-full 12)" in line
    assert say("cli.running-behind", number="", seconds=6.7) in line


@pytest.mark.parametrize(
    "reason",
    [
        *(AFTER_STOP, RUN_FAILED, "queue-full"),
        *("image-number", "time-gap", "overflow"),
        *("not-recorded", STORED_TWICE),
    ],
)
def test_every_reason_for_a_lost_frame_is_said_in_words(reason: str) -> None:
    assert reason_words(reason) != reason
