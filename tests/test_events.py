"""What a person's own Python hears of a run, here and through the worker; and that it can harm neither."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import SaysAll, chamber
from sentence_keys import any_said
from small_chamber import SmallChamber

from napari_rbcflow import events
from napari_rbcflow.estimate import StopRules
from napari_rbcflow.pipeline import Run, RunRequest, RunSettings, Worker
from napari_rbcflow.session import open_session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Heard:
    """Every event, in order, with its name and the thread."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self.threads: set[str] = set()
        for event in events.EVENTS:
            event.connect(getattr(self, event.name))

    def __getattr__(self, name: str) -> Any:
        def hear(*args: Any) -> None:
            self.told.append((name, args))
            self.threads.add(threading.current_thread().name)

        return hear

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [args for told, args in self.told if told == name]

    def agrees_with(self, folder: Path) -> None:
        """Compare what was heard of a run with its session."""
        record = json.loads((folder / "run.json").read_text())
        assert {args[-1] for _, args in self.told} == {folder}
        assert self.threads == {"rbcflow-events"}
        assert self.told[-1] == ("verdict", (record["verdict"], record["verdict_reason"], folder))
        assert self.of("stop") == [(record["status"], record["stop_reason"], folder)]
        indices = [index for index, _, _ in self.of("frame")]
        assert indices == sorted(set(indices))
        assert all(time_s == pytest.approx(index / 60) for index, time_s, _ in self.of("frame"))
        labels = open_session(folder).cells.set_index("cell")["label"].to_dict()
        assert {cell.cell: cell.label for cell, _ in self.of("track_judged")} == labels
        assert len(self.of("track_judged")) == len(labels)
        last = self.of("fraction_changed")[-1][0]
        fraction = record["fraction"]
        assert (last.n, last.method) == (fraction["n"], fraction["method"])
        assert (last.estimate, last.low, last.high) == pytest.approx(
            (fraction["estimate"], fraction["low"], fraction["high"]), abs=1e-6
        )


@pytest.fixture
def heard() -> Iterator[Heard]:
    yield Heard()
    for event in events.EVENTS:
        event.disconnect()
    assert not events.subscribed()


class Pump:
    def __init__(self, said: list[str]) -> None:
        self.said = said

    def stop(self, status: str) -> None:
        self.said.append(status)


def breaks(*_: object) -> None:
    raise OSError("no pump at COM3")


def test_a_run_here_is_told_and_neither_a_slow_nor_a_broken_subscriber_harms_it(
    tmp_path: Path, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    first = events.frame.connect(lambda: (time.sleep(0.3), events.frame.disconnect(first)))
    for event in (events.track_judged, events.stop):
        event.disconnect()
        event.connect(breaks)  # before the others
        event.connect(getattr(heard, event.name))
    events.stop.connect(Pump(said).stop)  # which nobody else holds
    run = Run(chamber(60, paced=True), tmp_path / "s", RunSettings(stop=StopRules(reliable=7)), SaysAll())
    run.start()
    assert run.wait(60)
    assert run.outcome == ("finished", "reliable")
    heard.agrees_with(run.folder)
    assert said == ["finished"]
    record = json.loads((run.folder / "run.json").read_text())
    assert set(record["frames"]["dropped"]) <= {"after-stop"}
    assert len(heard.of("track_judged")) > 1
    why = {"name": "breaks", "why": "OSError: no pump at COM3"}
    for name in ("track_judged", "stop"):
        told = [
            line
            for line in caplog.messages
            if any_said("pipeline.subscriber-failed", [line], event=name, **why)
        ]
        assert len(told) == 1
        assert any_said("pipeline.subscriber-failed", run.warnings, event=name, **why)
    assert not [thread for thread in threading.enumerate() if thread.name == "rbcflow-events"]


def test_a_run_in_a_worker_is_told_in_the_process_that_watches(tmp_path: Path, heard: Heard) -> None:
    settings = RunSettings(stop=StopRules(reliable=8), ring_seconds=0.5)
    events.stop.connect(breaks)
    with Worker() as worker:
        run = worker.start(RunRequest(SmallChamber(), tmp_path / "s", settings))  # type: ignore[arg-type]
        assert run.wait(60)
        assert run.outcome == ("finished", "reliable")
        heard.agrees_with(tmp_path / "s")
        assert any_said("pipeline.subscriber-failed", run.remarks, event="stop")

        # Killed in mid run: who holds a pump hears of it too.
        heard.told.clear()
        run = worker.start(RunRequest(SmallChamber(), tmp_path / "killed", RunSettings()))  # type: ignore[arg-type]
        while not heard.of("frame"):
            assert not run.wait(0.02)
        os.kill(worker.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        assert run.wait(30)
        folder = tmp_path / "killed"
        assert heard.of("stop") == [("failed", run.sentence, folder)]
        record = json.loads((folder / "run.json").read_text())
        assert heard.told[-1] == ("verdict", ("no-result", record["verdict_reason"], folder))


def test_a_subscriber_that_asks_for_too_much_is_refused_and_one_may_leave() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        events.stop.connect(lambda status, reason, folder, more: None)
    calls: list[int] = []

    def counts(index: int) -> None:
        calls.append(index)

    events.frame.connect(counts)
    events.frame.emit(3, 0.05, Path())
    events.frame.disconnect(counts)
    events.frame.emit(4, 0.07, Path())
    assert calls == [3]
    events.frame.disconnect(counts)
    with pytest.raises(ValueError, match="not connected"):
        events.frame.disconnect(counts, missing_ok=False)
