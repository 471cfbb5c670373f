"""`rbcflow benchmark`: that everything is measured and nothing stays. No time is asserted."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_keys import refused

from napari_rbcflow.benchmark import Effort, machine, suite
from napari_rbcflow.benchmark.child import in_child, stepwise
from napari_rbcflow.classification.networks.blend import Blend
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sentences import say

FRAME_MS = 1e3 / 60


@pytest.mark.slow
def test_everything_is_measured_beside_real_time_and_nothing_stays(tmp_path: Path, rbcflow: Any) -> None:
    place, file = tmp_path / "disk", tmp_path / "speed.json"
    place.mkdir()
    options = ("--quick", "--device", "cpu", "--minutes", 0.05, "--folder", place, "--json", file)
    code, out, err = rbcflow("benchmark", *options)
    assert code == 0, err
    assert not list(place.iterdir())
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["frame_ms"] == pytest.approx(FRAME_MS)
    figures = {f["name"]: f for f in record["figures"]}
    for name, f in figures.items():
        assert f["ms_per_frame"] > 0, name
        assert f["share_of_frame"] == pytest.approx(f["ms_per_frame"] / FRAME_MS), name
        assert f["ratio_to_real_time"] == pytest.approx(FRAME_MS / f["ms_per_frame"]), name
        assert f["aim_met"] == (None if f["aim_ms"] is None else f["ms_per_frame"] <= f["aim_ms"]), name
        if f["floor"] is not None:
            machine = record["machine"]
            floor_ms = f["floor"]["bytes"] / machine["copy_gb_per_s"] / 1e6
            floor_ms += f["floor"]["operations"] / machine["gflop_per_s"] / 1e6
            assert f["floor_ms"] == pytest.approx(floor_ms), name
        assert name in out
        assert f"{f['ms_per_frame']:.2f}" in out
    for where, aim_ms in (("20 cells", 6.0), ("40 cells", 9.0), ("full sensor", 25.0)):
        parts = [figures[f"{part}, {where}"] for part in ("background", "crops and store")]
        main_part, whole = figures[f"detection and linking, {where}"], figures[f"all of tracking, {where}"]
        assert main_part["aim_ms"] == aim_ms
        parts_ms = sum(p["ms_per_frame"] for p in (*parts, main_part))
        assert whole["ms_per_frame"] == pytest.approx(parts_ms)
        inside = [
            figures[f"... {part}, {where}"]["ms_per_frame"]
            for part in ("detection", "linking", "refining positions")
        ]
        assert sum(inside) < main_part["ms_per_frame"]
    assert figures["the ring of frames and crops, on the disk"]["aim_ms"] == 4.0
    assert figures["the whole of analyze --device cpu"]["aim_ms"] == pytest.approx(FRAME_MS / 2)
    assert figures["the whole of analyze --device cpu"]["clock"] == "wall"
    check_what_is_told_beside(record)
    if pictures := os.environ.get("RBCFLOW_PICTURES"):
        (Path(pictures) / "benchmark.txt").write_text(out, encoding="utf-8")


def check_what_is_told_beside(record: dict[str, Any]) -> None:
    machine = record["machine"]
    assert machine["cpu"]
    assert machine["device"] == "cpu"
    assert machine["cores"] >= 1
    assert machine["versions"]["numpy"] == np.__version__
    late = record["endless"]
    assert late["frames"] == 180  # 0.05 minutes of them
    assert late["late_to_early"] == pytest.approx(late["cpu_ms_by_quarter"][3] / late["cpu_ms_by_quarter"][1])
    assert math.isfinite(late["growth_mb_per_1000_frames"])
    assert late["tracks"] > 10
    live = record["live"]
    assert live["received"] == live["processed"] + sum(live["dropped"].values()) == 60
    assert set(live["latency_ms"]) == {"p50", "p95", "p99"}
    analysed = record["analysed"]
    assert analysed["frames"] == 80
    assert analysed["tracks"] > 10
    assert analysed["peak_mb"] > 50
    threads = analysed["thread_cpu_ms_per_frame"]
    assert set(threads) == {"source", "tracking", "judging", "ring"}
    assert 0 < sum(threads.values()) <= 1.05 * analysed["cpu_ms_per_frame"] + 0.5


@pytest.mark.slow
def test_bad_input_gets_one_sentence_at_once_and_leaves_nothing(tmp_path: Path, rbcflow: Any) -> None:
    import torch

    (tmp_path / "there.json").write_text("{}")
    bad: dict[str, list[object]] = {
        "folder of the file": ["--json", tmp_path / "nowhere" / "speed.json"],
        "file exists": ["--json", tmp_path / "there.json"],
        "folder": ["--folder", tmp_path / "nowhere"],
        "minutes": ["--minutes", 0],
    }
    if not torch.cuda.is_available():
        bad["device"] = ["--quick", "--device", "cuda", "--folder", tmp_path]
    for name, arguments in bad.items():
        before = sorted(tmp_path.rglob("*"))
        code, out, err = rbcflow("benchmark", *arguments)
        assert code == 2, f"{name}: {err}"
        assert err.startswith("rbcflow: "), name
        assert len(err.splitlines()) == 1, f"{name}: {err}"
        assert "unexpected" not in err, name
        assert not out, name
        assert sorted(tmp_path.rglob("*")) == before, name


def test_a_disk_too_full_is_told_beforehand(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        suite.benchmark(folder=tmp_path, effort=Effort(height=2**20, width=2**20))
    assert error.value.key == "benchmark.disk-too-small"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_measuring_process_that_dies_is_told() -> None:
    said: list[tuple[float, str]] = []
    with pytest.raises(RunFailed) as error:
        in_child("faulty_work:die", "here", lambda *so_far: said.append(so_far))
    assert str(error.value) == say("benchmark.process-died", code=3)
    with refused(BadInput, "benchmark.no-folder"):
        in_child("faulty_work:refuse", "here", lambda *_: None)
    with refused(RunFailed, "benchmark.process-failed"):
        in_child("faulty_work:break_down", "here", lambda *_: None)
    assert said == [(0.5, "here")]


def test_steps_are_timed_by_name_and_put_back() -> None:
    class Part:
        def work(self, fail: bool = False) -> str:
            end = time.process_time() + 0.02
            while time.process_time() < end:
                pass
            if fail:
                raise ValueError("broken")
            return "done"

    plain = Part.work
    with stepwise({"a": (Part, "work")}, time.process_time) as spent:
        assert Part().work() == "done"
        once = spent["a"]
        with pytest.raises(ValueError, match="broken"):
            Part().work(fail=True)
    assert Part.work is plain
    assert once >= 0.02
    assert spent["a"] >= once + 0.02


@pytest.mark.parametrize("stage", [1, 2])
def test_the_floor_of_judging_counts_the_networks_operations(stage: int) -> None:
    """Every weight of a convolution or dense layer works once a frame at least, and an operation is two."""
    two_stage = TwoStage.load("cpu")
    trained = two_stage.stage1 if stage == 1 else two_stage.stage2
    floor = machine.judging(two_stage, [np.zeros((33, 31, 31), np.uint8)], stage)
    weights = 0
    for network in trained.networks:
        assert isinstance(network, Blend)
        weights += sum(of.numel() for of in network.learned.extractor.parameters() if of.dim() > 1)
    assert floor.operations > 2 * trained.frames * weights
    assert floor.bytes == 33 * 31 * 31


def test_the_floor_counts_what_must_move() -> None:
    height, width = 1096, 1376
    assert machine.detection(height, width).bytes == 2 * height * width
    assert machine.linking(230).bytes == 2 * machine.linking(115).bytes < 0.05 * height * width
    # Every 19th of 480 frames is kept, and each estimate reads 25 of them.
    assert machine.sliding_background(height, width).bytes == pytest.approx(28 / 19 * height * width)
    # A crop at the full sensor's pixel reads four times the pixels of the binned one.
    assert machine.crops_and_store(0.605, 1).bytes == 2 * 31 * 31
    assert machine.crops_and_store(0.3025, 1).bytes == 5 * 31 * 31
