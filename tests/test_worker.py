"""Runs in a process of their own, and what is left when one of the two processes goes."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pretended_card import pretend_card
from sentence_keys import refused
from small_chamber import SmallChamber

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import StopRules
from napari_rbcflow.pipeline.client import Phase, Worker, WorkerRun, busy
from napari_rbcflow.pipeline.messages import Camera, MovieFile, RunRequest
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session, verify
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.types import SourceInfo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


def chamber(folder: Path, **rules: Any) -> RunRequest:
    settings = RunSettings(stop=StopRules(**rules), ring_seconds=0.5)
    return RunRequest(SmallChamber(), folder, settings)  # type: ignore[arg-type]


def until(true: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def until_seen(run: WorkerRun) -> None:
    until(lambda: run.snapshot is not None or run.ended)
    assert run.snapshot is not None, run.sentence


def counting(run: WorkerRun) -> bool:
    return run.snapshot is not None and run.snapshot.progress.n > 0


def status(folder: Path) -> tuple[str, str]:
    run = json.loads((folder / "run.json").read_text())
    return run["status"], run["stop_reason"]


def test_what_is_told_is_what_the_session_holds(worker: Worker, tmp_path: Path) -> None:
    run = worker.start(chamber(tmp_path / "s", reliable=8))
    judged, counted = [], b""
    while not run.ended:
        more, cells = run.take()
        judged += more
        counted += cells
        time.sleep(0.05)
    more, cells = run.take()
    judged, counted = [*judged, *more], counted + cells
    assert (run.phase, run.outcome) == (Phase.ENDED, ("finished", "reliable"))
    session = open_session(tmp_path / "s")
    assert verify(session.folder).code == 0
    assert len(counted) == session.fraction.n == 8
    assert sum(counted) == session.run["cells"]["tank_treading"]
    table = session.cells.set_index("cell")
    assert sorted(c.cell for c in judged) == sorted(table.index)
    for cell in judged:
        assert cell.label == table.label[cell.cell]
        assert (cell.crop == session.crops(cell.cell)[cell.frames // 2]).all()
    assert "own fraction" in run.remarks[0]


def test_a_stop_is_heard_while_it_opens_and_while_it_runs(worker: Worker, tmp_path: Path) -> None:
    early = worker.start(chamber(tmp_path / "early"))
    early.stop()
    assert early.wait(30)
    assert early.outcome == ("stopped", "user")
    assert verify(tmp_path / "early").code == 0
    run = worker.start(chamber(tmp_path / "s"))
    with refused(BadInput, "pipeline.run-goes-on"):
        worker.start(chamber(tmp_path / "second"))
    until(lambda: counting(run))
    run.stop()
    assert run.wait(30)
    assert status(tmp_path / "s") == ("stopped", "user")
    assert verify(tmp_path / "s").code == 0


@pytest.mark.parametrize(
    ("source", "parent", "key"),
    [
        (Camera("no such camera"), ".", "sources.no-such-source"),
        (Camera("nowhere/x.cfg"), ".", "sources.config-missing"),
        (Camera("simulated", {"binning": 2}), ".", "sources.simulation-lacks"),
        (Camera("simulated"), "missing", "session.no-parent-folder"),
        (MovieFile(Path("missing.avi")), ".", "sources.no-file"),
    ],
)
def test_what_cannot_begin_is_refused_in_one_sentence(
    worker: Worker, tmp_path: Path, source: Camera | MovieFile, parent: str, key: str
) -> None:
    folder = tmp_path / parent / "s"
    run = worker.start(RunRequest(source, folder, RunSettings(stop=StopRules(reliable=1))))
    assert run.wait(30)
    assert run.phase is Phase.REFUSED
    assert run.key == key
    assert "\n" not in run.sentence
    assert not folder.exists()


class Hanging(SimulatedChamber):
    """A camera whose driver does not answer: as it is opened, or as it is closed."""

    def __init__(self, when: str) -> None:
        super().__init__(ChamberSettings(height=128, width=128, cells_per_frame=2.0, variety=0.1))
        self.when = when

    def open(self) -> SourceInfo:
        if self.when == "open":
            time.sleep(300)
        if self.when == "slowly":
            time.sleep(2.5)
        return super().open()

    def close(self) -> None:
        super().close()
        if self.when == "close":
            time.sleep(300)
        if self.when == "slowly":
            time.sleep(2.7)


@dataclass(frozen=True)
class HangingCamera:
    when: str

    def make(self) -> Hanging:
        return Hanging(self.when)


def test_a_driver_that_hangs_is_left_by_stop(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_rbcflow.pipeline.client.OPENING_PATIENCE_S", 1.0)
    run = worker.start(RunRequest(HangingCamera("open"), tmp_path / "s", RunSettings()))  # type: ignore[arg-type]
    assert not run.wait(2)
    assert busy()
    run.stop()
    assert run.wait(20)
    assert run.phase is Phase.REFUSED
    assert say("pipeline.source-silent-at-open") in run.sentence
    assert not (tmp_path / "s").exists()
    assert not busy()


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_worker_that_computes_is_waited_for(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("napari_rbcflow.pipeline.client.PATIENCE_S", 0.1)
    monkeypatch.setattr("napari_rbcflow.pipeline.client.OPENING_PATIENCE_S", 0.0)
    with nullcontext(worker) if how == "stop" else Worker() as its:
        run = its.start(chamber(tmp_path / "s"))
        until(lambda: counting(run))
        getattr(run if how == "stop" else its, how)()
        assert run.wait(60)
    assert run.outcome == ("stopped", "user")
    assert verify(tmp_path / "s").code == 0


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_slow_driver_that_did_open_has_the_usual_time_to_end(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("napari_rbcflow.pipeline.client.OPENING_PATIENCE_S", 5.0)
    with nullcontext(worker) if how == "stop" else Worker() as its:
        until(lambda: its.ready)
        run = its.start(RunRequest(HangingCamera("slowly"), tmp_path / "s", RunSettings()))  # type: ignore[arg-type]
        getattr(run if how == "stop" else its, how)()
        assert run.wait(30)
    assert run.outcome == ("stopped", "user")
    assert verify(tmp_path / "s").code == 0


def test_a_driver_that_hangs_at_the_end_does_not_hold_the_next_run(worker: Worker, tmp_path: Path) -> None:
    run = worker.start(RunRequest(HangingCamera("close"), tmp_path / "s", RunSettings()))  # type: ignore[arg-type]
    until_seen(run)
    before = worker.pid
    run.stop()
    assert run.wait(30)
    assert run.outcome[0] == "failed"
    assert "does not answer" in run.sentence
    assert status(tmp_path / "s") == run.outcome
    again = worker.start(chamber(tmp_path / "again", seconds=1))
    assert again.wait(60)
    assert again.outcome == ("finished", "seconds")
    assert worker.pid != before


def test_a_worker_that_is_killed_fails_its_run_and_is_replaced(worker: Worker, tmp_path: Path) -> None:
    run = worker.start(chamber(tmp_path / "s"))
    until(lambda: counting(run))
    before = worker.pid
    os.kill(before, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    assert run.wait(10)
    assert (run.phase, run.outcome[0]) == (Phase.ENDED, "failed")
    said, why = status(tmp_path / "s")
    assert said == "failed"
    assert why == run.sentence
    session = open_session(tmp_path / "s")
    assert session.run["cells"]["tracked"] == len(session.cells) > 0
    assert session.run["fraction"]["n"] == session.fraction.n
    frames = session.run["frames"]
    assert frames["received"] == frames["processed"] + sum(frames["dropped"].values())
    assert verify(tmp_path / "s").code == 1
    again = worker.start(chamber(tmp_path / "again", seconds=1))
    assert again.wait(60)
    assert again.outcome == ("finished", "seconds")
    # Nothing keeps a run that ended by a fault, with what it brought.
    gone, run = weakref.ref(run), again
    until(lambda: gc.collect() >= 0 and gone() is None)
    assert worker.pid != before


@dataclass(frozen=True)
class BesideACard:
    """A chamber in a process where a graphics card seems to be, and breaks."""

    def make(self) -> SimulatedChamber:
        pretend_card("gpu-first")
        return SimulatedChamber(ChamberSettings(height=256, width=384, cells_per_frame=20.0, variety=0.1))


def test_where_a_card_broke_that_is_told_live_and_the_next_run_has_a_new_process(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        if thread.name == "rbcflow-worker-words":
            time.sleep(0.5)
        begin(thread)

    # So that the next Start comes while the new process is being launched.
    monkeypatch.setattr(threading.Thread, "start", slowly)
    order = RunRequest(BesideACard(), tmp_path / "s", RunSettings(device="cuda", ring_seconds=0.5))  # type: ignore[arg-type]
    run = worker.start(order)
    before = worker.pid
    until(lambda: run.ended or (run.snapshot is not None and any("card" in w for w in run.snapshot.warnings)))
    assert not run.ended, run.sentence
    run.stop()
    assert run.wait(30)
    assert run.outcome == ("stopped", "user")
    assert verify(tmp_path / "s").code == 0
    # What broke in that process may be whole in another, which is launched at once.
    until(lambda: worker.pid != before, 10)
    again = worker.start(chamber(tmp_path / "again", seconds=1))
    assert again.wait(60)
    assert again.outcome == ("finished", "seconds")


WATCHES_AND_DIES = """
import os, sys, time
from pathlib import Path
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline import RunRequest, Worker
from small_chamber import SmallChamber
worker = Worker()
run = worker.start(RunRequest(SmallChamber(), Path(sys.argv[1]), RunSettings()))
while run.snapshot is None or not run.snapshot.progress.n:
    time.sleep(0.05)
assert "torch" not in sys.modules
print(worker.pid, flush=True)
if sys.argv[2] == "dies":
    os._exit(7)
"""


@pytest.mark.parametrize("how", ["dies", "forgets"])
def test_a_run_whose_watcher_is_gone_is_stopped_and_closed(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "s"
    done = subprocess.run(
        [sys.executable, "-c", WATCHES_AND_DIES, str(folder), how],
        capture_output=True,
        text=True,
        timeout=90,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == (7 if how == "dies" else 0), done.stderr
    until(lambda: status(folder)[0] != "running", 20)
    assert status(folder) == ("stopped", "user")
    until(lambda: not Path(f"/proc/{done.stdout.strip()}").exists(), 20)
    assert verify(folder).code == 0


def test_closing_ends_the_run_and_starts_leave_nothing(tmp_path: Path) -> None:
    worker = Worker()
    until(lambda: worker.ready)
    left = []
    for number in range(5):
        run = worker.start(chamber(tmp_path / str(number)))
        until_seen(run)
        run.stop()
        assert run.wait(30)
        if Path("/proc/self/fd").exists():
            proc = Path(f"/proc/{worker.pid}")
            left.append((len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))))
    # A thread that has ended may stand there a moment longer; one left by each start would add up.
    assert left[-1][0] <= left[1][0], left
    assert left[-1][1] <= left[1][1] + 2, left
    run = worker.start(chamber(tmp_path / "last"))
    until_seen(run)
    worker.close()
    assert run.outcome == ("stopped", "user")
    assert verify(tmp_path / "last").code == 0
    with pytest.raises(OSError, match="No such process"):
        os.kill(worker.pid, 0)
