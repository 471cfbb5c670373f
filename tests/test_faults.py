"""What breaks in mid run: the run goes on or ends in one sentence, and what it had is whole.

`benchmarks/faults.py` provokes each fault and measures how soon it is told.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from pretended_card import BROKEN, pretend_card
from sentence_keys import is_said

from napari_rbcflow.classification.two_stage import CPU_BATCH, CPU_LINGER_S, TwoStage
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.pipeline.stages import Stages
from napari_rbcflow.ring import FrameRing, open_ring
from napari_rbcflow.sentences import say
from napari_rbcflow.session import SessionWriter, open_session, schema, verify
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import Frame

pytestmark = pytest.mark.slow

chamber = partial(factories.chamber, height=256, width=512, cells_per_frame=25.0)


def ended(run: Run) -> dict[str, Any]:
    run.start()
    assert run.wait(60)
    return told(run.folder)


def told(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run(chamber(3), tmp_path_factory.mktemp("cpu") / "s", RunSettings(device="cpu"))
    assert ended(run)["cells"]["unreliable"] > 10
    return run.folder


@pytest.mark.parametrize(
    ("fault", "device", "said"),
    [
        ("gpu-warm-up", "cpu", say("classification.gpu-out-of-memory", card="pretended")),
        (
            *("gpu-first", "cuda (pretended), then cpu"),
            say("classification.gpu-out-of-memory", card="pretended"),
        ),
        (
            *("gpu-later", "cuda (pretended), then cpu"),
            say("classification.gpu-failed", card="pretended", why=BROKEN.split("\n")[0]),
        ),
    ],
)
def test_where_a_card_fails_the_cpu_goes_on_and_the_record_says_so(
    tmp_path: Path, on_cpu: Path, monkeypatch: pytest.MonkeyPatch, fault: str, device: str, said: str
) -> None:
    broke: list[int] = []
    pretend_card(fault, lambda: broke.append(1), monkeypatch.setattr)
    run = Run(chamber(3), tmp_path / "s", RunSettings(device="cuda"))
    record = ended(run)
    assert broke == [1]
    assert (record["status"], record["stop_reason"]) == ("finished", "source-ended")
    assert record["parameters"]["device"] == device
    (warning,) = run.survived
    assert warning == said
    assert warning in record["warnings"]
    assert warning in run.warnings
    assert warning in (run.folder / "report.html").read_text()
    # A card's batch would make the CPU's labels late.
    assert run._two_stage is not None
    assert (run._two_stage.batch, run._two_stage.linger_s) == (CPU_BATCH, CPU_LINGER_S)
    # No track is lost, none judged twice, and no label is another.
    assert (run.folder / "cells.csv").read_bytes() == (on_cpu / "cells.csv").read_bytes()
    assert record["latency_ms"]["p99"] > 0
    assert verify(run.folder).findings == []


def test_a_fault_that_is_not_the_cards_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = TwoStage.load("cpu")
    monkeypatch.setattr(networks._runners[0], "probabilities", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        networks.reliable([])
    assert networks.fault == ""


@pytest.mark.parametrize(("owner", "name"), [(Tracker, "process"), (FrameRing, "append")])
def test_a_part_of_ours_that_raises_ends_the_run_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    method: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def broken(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 100:
            raise KeyError("of ours")
        return method(*given)

    monkeypatch.setattr(owner, name, broken)
    run = Run(chamber(30, paced=True), tmp_path / "s", RunSettings(device="cpu"))
    record = ended(run)
    assert record["status"] == "failed"
    assert is_said("pipeline.part-broke", record["stop_reason"], what="KeyError: 'of ours'")
    frames = record["frames"]
    assert frames["received"] == frames["processed"] + sum(frames["dropped"].values()) < 600
    assert verify(run.folder).findings == []
    assert not [t.name for t in threading.enumerate() if t.name.startswith("rbcflow-")]


@pytest.mark.parametrize(("owner", "name"), [(TwoStage, "judge"), (SessionWriter, "keep")])
@pytest.mark.parametrize("at", [1, 4])
def test_where_judging_or_keeping_raises_no_track_is_lost_and_none_is_counted_that_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int
) -> None:
    method: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []
    ended_tracks: list[int] = []

    def broken(*given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise KeyError("of ours")
        return method(*given, **more)

    hand_over = Stages._hand_over

    def heard(stages: Stages, tracks: Any) -> None:
        ended_tracks.extend(track.cell for track in tracks)
        hand_over(stages, tracks)

    networks = TwoStage.load("cpu")
    networks.warm_up()
    monkeypatch.setattr(owner, name, broken)
    monkeypatch.setattr(Stages, "_hand_over", heard)
    run = Run(chamber(6, fps=90.0), tmp_path / "s", RunSettings(device="cpu"), networks)
    record = ended(run)
    assert record["status"] == "failed"
    cells = open_session(run.folder).cells
    assert sorted(cells["cell"]) == sorted(ended_tracks)
    assert record["cells"]["tracked"] == len(cells) > 0
    for label, n in cells["label"].value_counts().items():
        assert record["cells"][str(label).replace("-", "_")] == n
    assert verify(run.folder).findings == []


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_run_takes_as_long_as_it_took_though_the_clock_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    writer = factories.begin(tmp_path / "s")
    now = schema.now

    def asked() -> str:
        return schema.later(now(), step_s)

    monkeypatch.setattr(schema, "now", asked)
    writer.close(factories.account_of([]), "stopped", "user")
    started, ended = (datetime.fromisoformat(told(tmp_path / "s")[name]) for name in ("started", "ended"))
    assert timedelta(0) <= ended - started < timedelta(minutes=5)


def test_frames_and_crops_of_several_threads_lie_in_the_ring_whole(tmp_path: Path) -> None:
    ring = FrameRing.create(
        tmp_path / "r.zarr", height=64, width=96, capacity=16, crop_capacity=200, fps=25, pixel_size_um=1.1
    )
    crops = np.arange(40, dtype=np.uint8)[:, None, None].repeat(31, 1).repeat(31, 2)
    failed: list[BaseException] = []

    def put(works: Callable[[int], None]) -> None:
        try:
            for i in range(60):
                works(i)
        except BaseException as error:
            failed.append(error)

    def frame(i: int) -> None:
        ring.append(Frame(i, i / 25, np.full((64, 96), i, np.uint8)))

    def some_crops(i: int) -> None:
        ring.append_crops(i, np.arange(40), np.zeros(40), np.zeros(40), crops)

    works = (frame, some_crops, some_crops)
    threads = [threading.Thread(target=put, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ring.close()
    assert failed == []
    reader = open_ring(tmp_path / "r.zarr")
    assert reader.check() == []
    assert reader.indices.tolist() == list(range(44, 60))
    assert all((reader.frame(i) == i).all() for i in range(44, 60))
    kept = reader.crops()
    assert len(kept.cell) == 200
    assert (kept.crops == kept.cell[:, None, None]).all()


@pytest.mark.parametrize("small_disk", [48], indirect=True)
def test_the_end_of_a_run_is_written_even_where_another_program_takes_every_byte(small_disk: Path) -> None:
    run = Run(chamber(60, paced=True), small_disk / "s", RunSettings(device="cpu", ring_seconds=0.2))
    run.start()
    while not run.stages.tally.finished:
        assert not run.wait(0.02)
    done = threading.Event()

    def fill() -> None:
        with (small_disk / "filler").open("wb", buffering=0) as file:
            while not done.is_set():
                for size in (2**20, 4096):
                    with contextlib.suppress(OSError):
                        while not done.is_set():
                            file.write(bytes(size))
                time.sleep(0.0005)

    filling = threading.Thread(target=fill)
    filling.start()
    assert run.wait(20)
    done.set()
    filling.join()
    (small_disk / "filler").unlink()
    record = told(run.folder)
    assert record["status"] == "failed"
    assert "is full: free some space" in record["stop_reason"]
    frames = record["frames"]
    assert frames["received"] == frames["processed"] + sum(frames["dropped"].values()) > 0
    assert len(open_session(run.folder).cells) == record["cells"]["tracked"] > 0
    assert run.warnings[-1] in record["warnings"]
    # What there was no room for is missing, unsorted or half written, and said; nothing is wrong.
    known = ("report.html is missing", "crops.zarr holds ", "cells.csv is not in", "tracks.csv is not in")
    findings = verify(run.folder).findings
    assert all(finding.startswith(known) for finding in findings), findings
    assert not (run.folder / ".writing").exists()
