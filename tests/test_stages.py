"""What each stage of a run hands on, and what it leaves where another breaks: without threads or disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from factories import SaysAll, a_track
from sentence_keys import refused

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.pipeline import RunSettings
from napari_rbcflow.pipeline.run import Watcher
from napari_rbcflow.pipeline.stages import Stages
from napari_rbcflow.pipeline.status import COUNTED_AGAIN, GOES_ON, RecentCells
from napari_rbcflow.types import Frame, FrameSource, Judgement, SourceInfo, Track

FPS, FRAMES, CELLS = 24.0, 60, 3


class Movie(FrameSource):
    """Black frames."""

    def open(self) -> SourceInfo:
        return SourceInfo("m", 64, 96, FPS, 0.605, n_frames=FRAMES)

    def frames(self) -> Iterator[Frame]:
        for k in range(FRAMES):
            yield Frame(k, k / FPS, np.zeros((64, 96), np.uint8))

    def stop(self) -> None: ...

    def close(self) -> None: ...


class FindsCells:
    """A tracker whose tracks all end with the movie."""

    def process(self, frame: Frame) -> list[Track]:
        return []

    def open_tracks(self) -> Any:
        return SimpleNamespace(
            frame=None, cell=np.zeros(0, np.int64), detected=None, steps=None, falloff=None
        )

    def finish(self, reason: str) -> list[Track]:
        return [a_track(cell, 20) for cell in range(1, CELLS + 1)]


class Keeps:
    """A session's writer, whose disk may be full."""

    def __init__(self, *, full: bool = False) -> None:
        self.full, self.kept, self.ring_frames = full, list[int](), list[int]()
        self.ring = SimpleNamespace(append=lambda frame: self.ring_frames.append(frame.index))

    def keep(self, pairs: Sequence[tuple[Track, Judgement]]) -> None:
        if self.full:
            raise RunFailed("ring.disk-full", folder="s")
        self.kept += [track.cell for track, _ in pairs]


def tracked(writer: Keeps, networks: SaysAll | None = None) -> Stages:
    """The stages of a run whose movie was read and tracked, and nothing yet judged."""
    source: Any = Movie()
    settings = RunSettings(ring_seconds=0.5)
    tracker: Any = FindsCells()
    kept: Any = writer
    stages = Stages(source, source.open(), tracker, networks or SaysAll(), kept, settings)
    stages.receive()
    stages.track()
    return stages


def test_a_movie_s_ring_gets_its_last_seconds_and_no_more() -> None:
    stages = tracked(writer := Keeps())
    stages.keep_frames()
    assert writer.ring_frames == list(range(FRAMES - round(0.5 * FPS), FRAMES))
    assert RunSettings(ring_seconds=2.0).ring_frames(SourceInfo("c", 64, 96, FPS, 0.605, live=True)) == 48


def test_the_time_to_a_label_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=lambda: 10.0)
    monkeypatch.setattr("napari_rbcflow.pipeline.stages.time", clock)
    stages = tracked(writer := Keeps())
    stages.judge()
    clock.perf_counter = lambda: 10.25
    stages.keep_tracks()
    assert list(stages.latencies_ms) == [250.0] * CELLS
    assert writer.kept == [1, 2, 3]
    assert stages.tally.fraction.n == stages.judged.n == CELLS
    assert stages.unjudged() == []


def test_no_track_is_lost_and_none_counted_where_the_networks_or_the_disk_break() -> None:
    stages = tracked(Keeps(), SaysAll(fails_after=0))
    with pytest.raises(RuntimeError, match="broke"):
        stages.judge()
    assert [track.cell for track in stages.unjudged()] == [1, 2, 3]
    stages = tracked(Keeps(full=True))
    stages.judge()
    with refused(RunFailed, "ring.disk-full"):
        stages.keep_tracks()
    assert [track.cell for track in stages.unjudged()] == [1, 2, 3]
    assert stages.tally.fraction.n == stages.tally.cells["tracked"] == stages.judged.n == 0


def test_who_watches_is_told_each_counted_cell_once_also_after_all_were_counted_again() -> None:
    counted, recounts = bytearray(), 0
    tally = SimpleNamespace(
        counted_since=lambda n, known: (bytes(counted[n if known == recounts else 0 :]), recounts)
    )
    stages = SimpleNamespace(tally=tally, newest=None, positions=None, judged=RecentCells())
    run: Any = SimpleNamespace(stages=stages, progress=lambda: None, warnings=[], outcome=GOES_ON)
    watcher = Watcher(run)
    told = b""
    for more, again in ((b"\1\0\1", False), (b"\1\1", True), (b"\0", False), (b"\1", False), (b"\1\1", True)):
        if again:
            counted.clear()
            recounts += 1
        counted += more
        told += (news := watcher.poll().counted)
        assert news.startswith(COUNTED_AGAIN) is again
        assert told.rpartition(COUNTED_AGAIN)[2] == counted
