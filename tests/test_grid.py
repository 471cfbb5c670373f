"""The grid of the paper's Tables 3 and 4, and its Table 5, on sequences of the simulated chamber."""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from factories import write_set
from PIL import Image
from sentence_keys import refused

from napari_rbcflow.classification.dataset import SPLITS, LabelledSequence
from napari_rbcflow.classification.evaluation import evaluate
from napari_rbcflow.classification.evaluation.evaluate import table5
from napari_rbcflow.classification.grid import run_grid, write_tables
from napari_rbcflow.classification.grid.folder import as_markdown, as_text
from napari_rbcflow.classification.grid.splits import make_splits
from napari_rbcflow.classification.training import fitting
from napari_rbcflow.classification.training.fitting import find_learning_rate
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.cli import cli
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.simulation import ChamberSettings, SimulatedSequence, simulate_sequences

RUNS = ("AA0101_10s01", "AA0101_10s02", "AA0108_10s01", "BB0101_10s01", "BB0101_10s02")


@functools.cache
def pool() -> list[SimulatedSequence]:
    few = ChamberSettings(variety=0.2)
    return simulate_sequences(42, seed=1, shares=(1 / 3, 1 / 3, 1 / 3), settings=few)


def simulated(runs: Sequence[str], skip: int = 0) -> list[LabelledSequence]:
    """Two cells of every kind in every run; the first `skip` of each kind are of another split."""
    out = []
    for label in (0, 1, 2):
        of_kind = [s for s in pool() if s.label == label][skip:]
        for k, run in enumerate(r for r in runs for _ in range(2)):
            out.append(LabelledSequence(f"{run}_{label}{k}", label, of_kind[k].crops))
    return out


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("flat") / "set", simulated(RUNS))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for i, name in enumerate(("train", "validation", "test")):
        write_set(folder / name, simulated((f"AA010{i}_10s01", f"BB010{i}_10s01"), 4 * i))
    return folder


@pytest.fixture(autouse=True)
def _a_short_search_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four batches instead of 40: which rate it finds matters nowhere here, and each takes 0.1 s."""
    monkeypatch.setattr(fitting, "find_learning_rate", functools.partial(find_learning_rate, steps=4))


def rbcflow(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    if isinstance(done.exception, BadInput):
        return 2, "", str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.slow
class TestSplits:
    def test_whole_acquisitions_are_held_back(self, flat: Path) -> None:
        for stage, split in make_splits([flat], (1, 2)).items():
            parts = [{s.acquisition for s in part} for part in (split.train, split.validation, split.test)]
            assert all(parts)
            assert sum(map(len, parts)) == len(set.union(*parts)) == len(RUNS)
            assert not {s.patient for s in split.test} & {s.patient for s in split.train}
            assert len(split.train + split.validation + split.test) == (30 if stage == 1 else 20)

    def test_names_decide(self, flat: Path) -> None:
        split = make_splits([flat], (1,), validation=["AA0108"], test=["AA0101_10s02"])[1]
        assert {s.acquisition for s in split.validation} == {"AA0108_10s01"}
        assert {s.acquisition for s in split.test} == {"AA0101_10s02"}
        with refused(BadInput, "classification.unknown-group"):
            make_splits([flat], (1,), test=["CC"])

    def test_strips_of_twenty_frames(self, flat: Path, tmp_path: Path) -> None:
        """They say nothing about K above 20 in stage 2, and their length must not tell in stage 1."""
        for label, name in enumerate(("TankTreading", "Flipping")):
            (tmp_path / "strips" / name).mkdir(parents=True)
            for k in range(3):
                strip = np.full((31, 620), 120, np.uint8)
                Image.fromarray(strip).save(tmp_path / "strips" / name / f"CC020{k}_10s01_{label}{k}.png")
        splits = make_splits([flat, tmp_path / "strips"], (1, 2))
        assert not any(s.sampled for s in splits[1].train + splits[1].validation + splits[1].test)
        assert splits[2].most_frames == 20
        assert splits[1].most_frames >= 50
        assert say("classification.grid-strips-frames", stage=2, frames=20) in splits[2].notes


@pytest.mark.slow
class TestGrid:
    def test_runs_resumes_and_refuses(self, published: Path, flat: Path, tmp_path: Path) -> None:
        out = tmp_path / "grid"
        narrow: tuple[object, ...] = ("--frames", 10, "--samplings", "uniform", "--epochs", 1)
        narrow += ("--models", "cnn", "--device", "cpu")
        code, said, told = rbcflow("grid", published, "-o", out, *narrow, "--stage", 2)
        assert code == 0
        cell_10 = say("classification.grid-cell", model="CNN", sampling="uniform", frames=10)
        one = {"number": 1, "cells": 1, "stage": 2}
        assert say("classification.grid-cell-starts", **one, cell=cell_10, left="") in told
        assert say("classification.grid-split-given") in said
        weights = out / "stage2-cnn-uniform-10" / "stage2.safetensors"
        before = weights.stat().st_mtime_ns
        with refused(BadInput, "classification.grid-other-data"):
            run_grid([flat], out, stages=[2], models=["cnn"], samplings=["uniform"], frames=[10], epochs=1)

        code, said, told = rbcflow("grid", published, "-o", out, *narrow)  # now both stages
        assert code == 0
        assert say("classification.grid-cells-there", done=1, cells=2) in told
        assert weights.stat().st_mtime_ns == before
        assert said.strip() == (out / "tables.txt").read_text().strip()
        tables = json.loads((out / "tables.json").read_text())
        assert [(c["stage"], c["sampling"]) for c in tables["cells"]] == [(1, "uniform"), (2, "uniform")]
        cell = tables["cells"][0]
        (tn, fp), (fn, tp) = cell["test"]["confusion"]
        assert tn + fp + fn + tp == cell["test"]["n"] == 12
        assert cell["test"]["accuracy"] == (tn + tp) / 12

        code, _, told = rbcflow("grid", published, "-o", out, *narrow, "--seed", 1)
        assert (code, told) == (2, say("classification.grid-other-seed", folder=out, before=0, now=1))
        assert rbcflow("grid", "-o", out)[1].strip() == said.strip()

        weights.write_bytes(weights.read_bytes()[:-1])
        code, _, told = rbcflow("grid", published, "-o", out, *narrow)
        assert code == 0
        assert say("classification.grid-cell-damaged", cell="stage2-cnn-uniform-10") in told
        assert weights.stat().st_mtime_ns != before

        # A cell's weights are those whose figures the table tells.
        two_stage = TwoStage.load("cpu", stage1=out / "stage1-cnn-uniform-10" / "stage1.safetensors")
        assert evaluate(published, two_stage)["stage1"]["confusion"] == cell["test"]["confusion"]

    def test_a_folder_of_something_else_is_refused(self, published: Path, tmp_path: Path) -> None:
        other = tmp_path / "photos"
        other.mkdir()
        (other / "cat.png").write_bytes(b"")
        with refused(BadInput, "classification.grid-not-a-grid"):
            run_grid([published], other, epochs=1)
        assert [p.name for p in other.iterdir()] == ["cat.png"]
        with refused(BadInput, "classification.grid-unknown-value"):
            run_grid([published], tmp_path / "none", frames=[15])
        assert not (tmp_path / "none").exists()

    def test_killed_it_goes_on(self, published: Path, tmp_path: Path) -> None:
        out = tmp_path / "grid"
        command = [sys.executable, "-m", "napari_rbcflow.cli", "grid", str(published), "-o", str(out)]
        command += ["--epochs", "1", "--stage", "2", "--models", "cnn", "--device", "cpu"]
        command += ["--frames", "10"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not list(out.glob("stage2-*")) and time.monotonic() < end:
            assert running.poll() is None
            time.sleep(0.02)
        running.kill()
        assert running.wait() == (-signal.SIGKILL if sys.platform != "win32" else 1)
        there = {p: p.stat().st_mtime_ns for p in out.glob("stage2-*/*.safetensors")}
        assert len(there) == 1
        told: list[str] = []
        tables = run_grid(
            [published], out, stages=[2], models=["cnn"], frames=[10], epochs=1, progress=told.append
        )
        assert len(tables["cells"]) == 2
        assert say("classification.grid-cells-there", done=1, cells=2) in told
        assert {p: p.stat().st_mtime_ns for p in there} == there
        assert not list(out.glob(".*"))


class TestTables:
    @staticmethod
    def grid_of(most_frames: int) -> dict[str, object]:
        cells = []
        for model, sampling, k, f1 in (
            ("cnn", "uniform", 10, 0.80),
            ("cnn", "similarity", 20, 0.95),
            ("c-rnn", "uniform", 20, 0.93),
        ):
            scores = {
                "f1": f1,
                "accuracy": 0.9,
                "precision": None,
                "recall": 0.9,
                "confusion": [[9, 1], [1, 9]],
            }
            cells.append(
                {"stage": 2, "model": model, "sampling": sampling, "frames": k}
                | {"validation": scores, "test": dict(scores, f1=f1 - 0.01)}
            )
        counts = {"tank-treading": 10, "flipping": 10, "unreliable": 0}
        stage = {"train": counts, "validation": counts, "test": counts, "split": "as given"}
        return {
            "epochs": 30,
            "seed": 0,
            "stages": {
                "stage2": stage | {"most_frames": most_frames, "notes": ["K above 20 gains nothing."]}
            },
            "models": ["cnn", "c-rnn"],
            "samplings": ["uniform", "similarity"],
            "frames": [10, 20, 30, 50],
            "cells": cells,
        }

    def test_columns_are_the_papers(self) -> None:
        text = as_text(self.grid_of(20))
        table = text.split("\n\n")[0].splitlines()
        counts = "10 tank-treading, 10 flipping"
        assert table[0] == say("classification.grid-title-stage2-validation", counts=counts)
        assert table[1].split() == ["A:", "CNN", "B:", "C-RNN"]
        assert table[2].split() == ["K", "uni.", "sim.", "uni.", "sim."]
        assert [line.split() for line in table[3:7]] == [
            ["F1-score", "10", "0.80", "-", "-", "-"],
            ["F1-score", "20", "-", "*0.95", "0.93", "-"],
            ["F1-score", "30", "-", "-", "-", "-"],
            ["F1-score", "50", "-", "-", "-", "-"],
        ]
        assert "K above 20 gains nothing." in text
        assert say("classification.grid-cells-missing", cells=5) in text
        best = say("classification.grid-cell", model="CNN", sampling="similarity", frames=20)
        assert say("classification.grid-best", cell=best) in text
        assert "F1-score 0.94, Accuracy 0.90, Precision -" in text

    def test_markdown_has_the_same_cells(self) -> None:
        lines = as_markdown(self.grid_of(20)).splitlines()
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("| F1")]
        assert rows[1] == ["F1-score", "20", "-", "**0.95**", "0.93", "-"]
        assert {len(row) for row in rows} == {6}

    @pytest.mark.slow
    def test_table_5_counts(self, published: Path) -> None:
        result = evaluate(published, TwoStage.load("cpu"))
        assert result["split"] == "test"
        rows = result["table5"]
        assert [row["acquisition"] for row in rows] == ["AA0102_10s01", "BB0102_10s01", "all"]
        predicted = [r["predicted_label"] for r in result["stage2"]["predictions"]]
        last = rows[-1]
        assert (last["n"], last["true_percent"]) == (8, 50.0)
        assert last["estimated_percent"] == 100 * predicted.count("tank-treading") / 8
        assert last["error_points"] == pytest.approx(last["estimated_percent"] - 50)
        assert last["in_a_row"]["n"] == result["end_to_end"]["fraction"]["n_estimate"]
        lines = table5(result).splitlines()
        assert re.match(r"all +50\.0 +\d+\.\d +[+-]\d+\.\d +8 +\|", lines[-1])


@pytest.mark.slow
class TestPublishedLayout:
    def test_evaluates_test_unless_told(self, published: Path, tmp_path: Path) -> None:
        code, said, told = rbcflow("evaluate", published, "--json", tmp_path / "scores.json")
        assert code == 0
        assert "scoring test" in told
        assert say("classification.table-5") in said
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert {r["sequence_name"][2:6] for r in scores["stage1"]["predictions"]} == {"0102"}
        code, _, told = rbcflow("evaluate", published, "--split", "train", "--json", tmp_path / "train.json")
        assert (code, "scoring" in told) == (0, False)
        assert json.loads((tmp_path / "train.json").read_text())["split"] == "train"

    def test_a_split_that_is_not_there(self, published: Path, flat: Path) -> None:
        splits = ", ".join(SPLITS)
        message = say("classification.dataset-not-split", folder=flat, splits=splits)
        assert rbcflow("evaluate", flat, "--split", "test")[2] == message
        with refused(BadInput, "classification.grid-missing"):
            write_tables(flat)

    def test_trains_as_it_is(self, published: Path, tmp_path: Path) -> None:
        arguments = ("--stage", 1, "--model", "cnn", "--frames", 10, "--epochs", 1, "--device", "cpu")
        code, _, _ = rbcflow("train", published, "-o", tmp_path / "out", *arguments)
        assert code == 0
        card = json.loads((tmp_path / "out" / "stage1.json").read_text())
        assert card["trained_on"] == {"tank-treading": 4, "flipping": 4, "unreliable": 4}
        assert card["figures"]["test split, never trained on"]["n"] == 12
        assert card["recipe"]["schedule"] == "triangular"
