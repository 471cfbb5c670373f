"""Training and evaluation on datasets in the published layout."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import write_set
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sentence_keys import is_said, refused
from sklearn.metrics import roc_auc_score

from napari_rbcflow.classification.dataset import LabelledSequence, read_dataset
from napari_rbcflow.classification.evaluation import evaluate
from napari_rbcflow.classification.evaluation.scores import at_prevalence, auc, calibrate, threshold_at_leak
from napari_rbcflow.classification.networks import build
from napari_rbcflow.classification.training import default_recipe, gather, train, train_further
from napari_rbcflow.classification.training.augmenting import jiggle, spoil, vary
from napari_rbcflow.classification.training.fitting import (
    EpochSampler,
    find_learning_rate,
    make_optimiser,
    targets,
    tensors,
)
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.classification.weight_files import SHIPPED, load_weights
from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.simulation import ChamberSettings

RUNS = ("AA0101_10s01", "AA0102_10s01", "BB0101_10s01")


def sequence(rng: np.random.Generator, label: int, n: int) -> np.ndarray:
    """A drawn cell: a ring that stays (0), a bar that turns (1), a broad blob (2)."""
    yy, xx = np.mgrid[-15:16, -15:16]
    r = np.hypot(yy, xx)
    out = []
    for t in range(n):
        if label == 0:
            cell = 12 * np.exp(-(r**2) / 8) - 10 * np.exp(-((r - 6) ** 2) / 3)
        elif label == 1:
            a = np.pi * t / n
            along = np.cos(a) * xx + np.sin(a) * yy
            cell = -20 * np.exp(-(along**2) / 30 - ((r**2 - along**2) / 4))
        else:
            cell = 40 * np.exp(-(r**2) / 40)
        out.append(120 + cell + rng.normal(0, 1.6, r.shape))
    return np.clip(np.asarray(out), 0, 255).astype(np.uint8)


def write_dataset(folder: Path, seed: int = 0, each: int = 3, runs: tuple[str, ...] = RUNS) -> Path:
    rng, sequences = np.random.default_rng(seed), []
    for run, label, k in itertools.product(runs, (0, 1, 2), range(each)):
        n = 4 if label == 2 and k == 0 else int(rng.integers(11, 30))
        sequences.append(LabelledSequence(f"{run}_{label}{k}", label, sequence(rng, label, n)))
    return write_set(folder, sequences)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set")


class TestPublishedLayout:
    def test_names_tell_patient_and_run(self) -> None:
        one = LabelledSequence("BG1017_10s02_1207", 0, np.zeros((6, 31, 31), np.uint8))
        assert (one.patient, one.date, one.acquisition) == ("BG", "BG1017", "BG1017_10s02")

    def test_crops_come_as_they_were_written(self, dataset: Path) -> None:
        first = read_dataset(dataset)[0]
        strip = np.asarray(Image.open(dataset / "img" / f"{first.name}.png"))
        assert np.array_equal(first.crops[1], strip[:, 31:62])

    @pytest.mark.parametrize(
        ("spoil_it", "key"),
        [
            (lambda d: (d / "dataset.csv").unlink(), "dataset-without-table"),
            (lambda d: (d / "dataset.csv").write_text("sequence_name,label,size\n"), "table-empty"),
            (lambda d: (d / "dataset.csv").write_text("name,class\nx,0\n"), "table-without-column"),
            (
                lambda d: (d / "dataset.csv").write_text("sequence_name,label,size\nx,7,3\n"),
                "table-bad-label",
            ),
            (lambda d: (d / "img" / f"{RUNS[0]}_00.png").unlink(), "strip-missing"),
            (lambda d: (d / "img" / f"{RUNS[0]}_00.png").write_bytes(b"no picture"), "strip-damaged"),
            (
                lambda d: (d / "img" / f"{RUNS[0]}_00.png").write_bytes(
                    (d / "img" / f"{RUNS[0]}_01.png").read_bytes()[:200]
                ),
                "strip-damaged",
            ),
            (lambda d: Image.new("L", (40, 31)).save(d / "img" / f"{RUNS[0]}_00.png"), "strip-wrong-size"),
        ],
    )
    def test_bad_datasets(self, tmp_path: Path, two_stage: TwoStage, spoil_it, key: str) -> None:  # type: ignore[no-untyped-def]
        folder = write_dataset(tmp_path / "bad", each=2, runs=RUNS[:1])
        spoil_it(folder)
        with refused(BadInput, f"classification.{key}"):
            evaluate(folder, two_stage, pictures=tmp_path / "pictures")
        assert not (tmp_path / "pictures").exists()


class TestScores:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=4, max_size=60))
    def test_auc_is_that_of_scikit_learn(self, rows: list[tuple[bool, int]]) -> None:
        truth = np.asarray([int(t) for t, _ in rows])
        p = np.asarray([v / 20 for _, v in rows])
        if len(set(truth.tolist())) < 2:
            assert auc(truth, p) is None
        else:
            assert auc(truth, p) == pytest.approx(roc_auc_score(truth, p))

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 1000), st.floats(0, 0.5))
    def test_threshold_lets_no_more_than_the_leak_through(self, seed: int, leak: float) -> None:
        rng = np.random.default_rng(seed)
        truth, p = rng.integers(0, 2, 90), np.round(rng.random(90), 2)
        threshold = threshold_at_leak(truth, p, leak)
        assert (p[truth == 0] >= threshold).mean() <= leak + 1e-9

    def test_precision_of_the_paper(self) -> None:
        """Recall 0.92 and leak 0.03 at 1839 of 54654 give about the paper's precision of 0.52."""
        precision = at_prevalence(0.92, 0.03, 1839 / 54654)
        assert precision == pytest.approx(0.52, abs=0.01)

    def test_calibration_finds_slope_and_offset(self) -> None:
        rng = np.random.default_rng(0)
        logits = rng.normal(0, 2, 20000)
        truth = (rng.random(20000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(int)
        slope, offset, _ = calibrate(truth, logits)
        assert slope == pytest.approx(0.5, abs=0.05)
        assert offset == pytest.approx(-1, abs=0.1)


class TestAugmenting:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.integers(6, 60))
    def test_variants_stay_sequences(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        one = LabelledSequence("AA0101_10s01_1", 0, sequence(rng, 0, n))
        other = LabelledSequence("AA0101_10s01_2", 2, sequence(rng, 2, 9))
        for crops in (vary(one, [other], rng), spoil(one, [other], rng)):
            assert crops.dtype == np.uint8
            assert crops.shape[1:] == (31, 31)
            assert len(crops) >= min(6, n)

    def test_jiggle_leaves_padding_empty(self) -> None:
        mask = torch.ones(2, 5)
        mask[1, 3:] = 0
        out = jiggle(
            torch.ones(2, 5, 31, 31) * mask[:, :, None, None], mask, torch.Generator().manual_seed(0)
        )
        assert out[1, 3:].abs().max() == 0
        assert out[0].abs().max() > 0


class TestEvaluating:
    def test_layout_is_that_of_the_contract(self, dataset: Path, two_stage: TwoStage, tmp_path: Path) -> None:
        result = evaluate(dataset, two_stage, pictures=tmp_path / "pictures")
        json.dumps(result, allow_nan=False)
        names = [s.name for s in read_dataset(dataset)]
        assert [row["sequence_name"] for row in result["stage1"]["predictions"]] == names
        assert (result["stage1"]["n"], result["stage2"]["n"]) == (27, 18)
        for stage, positive in (("stage1", "reliable"), ("stage2", "flipping")):
            part = result[stage]
            truth = np.asarray([row["true_label"] == positive for row in part["predictions"]])
            found = np.asarray([row["predicted_label"] == positive for row in part["predictions"]])
            p = np.asarray([row["p"] for row in part["predictions"]])
            assert part["confusion"] == [
                [int((~truth & ~found).sum()), int((~truth & found).sum())],
                [int((truth & ~found).sum()), int((truth & found).sum())],
            ]
            assert part["auc"] == pytest.approx(roc_auc_score(truth, p))
            assert np.array_equal(found, p >= part["threshold"])
            assert (tmp_path / "pictures" / f"confusion-{stage}.png").is_file()
        ends = result["end_to_end"]
        assert [row["acquisition"] for row in ends["acquisitions"]] == sorted(RUNS)
        assert ends["fraction"]["true"] == 0.5
        assert sum(row["n_estimate"] for row in ends["acquisitions"]) == ends["fraction"]["n_estimate"]
        short = {s.name for s in read_dataset(dataset) if len(s.crops) < 6}
        assert len(short) == 3
        assert {r["predicted_label"] for r in ends["predictions"] if r["sequence_name"] in short} == {
            "unreliable"
        }

    def test_published_cells(self, shared: Path, two_stage: TwoStage) -> None:
        """The shipped weights have seen these; the counts must be right, the labels good."""
        result = evaluate(shared / "data" / "darrin2023" / "stage1", two_stage)
        assert (result["stage1"]["n"], result["stage2"]["n"]) == (232, 94)
        assert len(result["end_to_end"]["acquisitions"]) == 5
        assert result["stage1"]["auc"] > 0.95
        assert result["stage2"]["auc"] > 0.95


class TestThePapersRecipe:
    def test_rates_go_up_and_down_between_their_ends(self) -> None:
        """Smith's triangles; the first layer's lower than the last's, all within the paper's 1e-4 to 1e-3."""
        network = build("c-rnn", 10)
        adam, cycle = make_optimiser(network, 1e-3, "triangular", 0.0, epochs=8, steps=5)
        first, last = [], []
        for _ in range(40):
            first.append(adam.param_groups[0]["lr"])
            last.append(adam.param_groups[-1]["lr"])
            adam.step()
            cycle.step()
        assert (max(first), max(last)) == (pytest.approx(1e-4), pytest.approx(1e-3))
        assert min(last) == pytest.approx(2.5e-4)
        turns = np.flatnonzero(np.diff(np.sign(np.diff(last)))) + 1
        assert turns.tolist() == [10, 20, 30]
        assert sum(len(g["params"]) for g in adam.param_groups) == len(list(network.parameters()))

    def test_the_finder_stays_within_the_papers_range_and_leaves_the_network_alone(
        self, dataset: Path
    ) -> None:
        network = build("cnn", 4)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        recipe = replace(default_recipe(1, "cnn", "uniform", 4), batch=9)
        images, mask = tensors([s.crops for s in read_dataset(dataset)], recipe)
        wanted = torch.from_numpy(targets(read_dataset(dataset), 1))

        def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
            yield torch.from_numpy(images), torch.from_numpy(mask), wanted

        assert 1e-4 <= find_learning_rate(network, batches, "triangular", steps=12) <= 1e-3
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())

    @pytest.mark.parametrize(
        ("stage", "model", "wanted"),
        [(1, "cnn", (30, 30)), (2, "cnn", (30, 30)), (1, "c-rnn", (40, 40)), (2, "c-rnn", (400, 400))],
    )
    def test_classes_meet_as_in_the_paper(self, stage: int, model: str, wanted: tuple[int, int]) -> None:
        """A: down. B: up; in stage 1 both ways to 5,000, the rare class being 3,779: 1.32 times as many."""
        crops = np.full((2, 31, 31), 120, np.uint8)
        rare, frequent = (0, 2) if stage == 1 else (1, 0)
        of = [LabelledSequence(f"AA0101_10s01_{i}", rare if i < 30 else frequent, crops) for i in range(430)]
        drawing = EpochSampler(of, [], default_recipe(stage, model), seed=0)
        rng = np.random.default_rng(0)
        one, two = drawing.epoch(rng), drawing.epoch(rng)
        assert tuple(np.bincount(drawing.labels[one]).tolist()) == wanted
        assert sorted(one) == sorted(two), "chosen once, as the paper's data was balanced"
        assert one.tolist() != two.tolist()


@pytest.mark.slow
class TestTraining:
    def test_blend_learns_and_its_weights_judge(
        self, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From tracks of composed movies too; and so do the weights that have not seen a patient."""
        monkeypatch.setattr(sys.modules["napari_rbcflow.classification.training.train"], "MOVIES", 1)
        told: list[str] = []
        recipe = replace(default_recipe(2, "blend"), epochs=5, batch=8)
        card = train(
            [dataset],
            tmp_path / "out",
            stage=2,
            recipe=recipe,
            seeds=(0, 1),
            folds="patient",
            keep_folds=True,
            progress=told.append,
        )
        assert told
        assert "tracks cut out of composed movies" in card["composed"]
        as_cut = card["figures"][next(title for title in card["figures"] if "our tracker" in title)]
        assert 10 < as_cut["n"] <= 18
        unseen = load_weights(tmp_path / "out" / "without-AA" / "stage2.safetensors", 2)
        assert unseen.card["without"] == ["AA"]
        assert unseen.card["acquisitions"] == ["BB0101_10s01"]
        assert card["members"] == 2
        scored = card["figures"]["held back (leave one patient out, then all)"]
        assert scored["n"] == 18
        assert scored["told, of"][0] <= scored["told, of"][1] == 18
        low, high = scored["balanced accuracy, 95 % bootstrap"]
        assert low <= scored["balanced accuracy"] <= high
        two_stage = TwoStage.load("cpu", stage2=tmp_path / "out" / "stage2.safetensors")
        assert two_stage.models["stage2"]["hash"] == card["sha256"]
        other = write_dataset(tmp_path / "other", seed=9, runs=("CC0101_10s01",))
        assert evaluate(other, two_stage)["stage2"]["auc"] > 0.9
        assert (tmp_path / "out" / "stage2.md").read_text().startswith("# rbcflow-stage2")

    @pytest.mark.parametrize(("model", "sampling"), [("c-rnn", "uniform"), ("cnn", "similarity")])
    def test_the_papers_models_train(self, dataset: Path, tmp_path: Path, model: str, sampling: str) -> None:
        card = train(
            [dataset],
            tmp_path / "out",
            stage=1,
            recipe=replace(default_recipe(1, model, sampling, 4), epochs=1, learning_rate=1e-3),  # type: ignore[arg-type]
        )
        assert (card["recipe"]["model"], card["recipe"]["sampling"]) == (model, sampling)
        judged = TwoStage.load("cpu", stage1=tmp_path / "out" / "stage1.safetensors").reliable(
            [np.full((3, 31, 31), 120, np.uint8)]
        )
        assert 0 <= judged[0] <= 1

    def test_finds_a_learning_rate_and_splits_as_given(self, tmp_path: Path) -> None:
        for i, name in enumerate(("train", "validation", "test")):
            write_dataset(tmp_path / "full" / name, seed=i, each=2, runs=(f"AA010{i}_10s01",))
        recipe = replace(
            default_recipe(1, "small"), epochs=1, learning_rate=None, simulated=0.0, composed=0.0
        )
        card = train([tmp_path / "full"], tmp_path / "out", stage=1, recipe=recipe)
        assert card["figures"]["test split, never trained on"]["n"] == 6

    def test_what_is_left_out_is_not_trained_on_and_can_be_scored_alone(
        self, dataset: Path, tmp_path: Path
    ) -> None:
        name = RUNS[0]
        recipe = replace(default_recipe(1, "blend"), epochs=1, simulated=0.0, composed=0.0)
        card = train([dataset], tmp_path / "out", stage=1, recipe=recipe, without=[name])
        assert name not in card["acquisitions"]
        assert len(card["acquisitions"]) == len(RUNS) - 1
        assert card["without"] == [name]
        assert name in (tmp_path / "out" / "stage1.md").read_text()
        two_stage = TwoStage.load("cpu", stage1=tmp_path / "out" / "stage1.safetensors")
        scored = evaluate(dataset, two_stage, only=[name])
        of = [s.name for s in read_dataset(dataset) if s.acquisition == name]
        assert [row["sequence_name"] for row in scored["stage1"]["predictions"]] == of
        assert scored["stage1"]["seen_in_training"] == []
        assert evaluate(dataset, two_stage)["stage1"]["seen_in_training"] == sorted(card["acquisitions"])
        with refused(BadInput, "classification.unknown-group"):
            train([dataset], tmp_path / "none", stage=1, recipe=recipe, without=["ZZ"])
        assert not (tmp_path / "none").exists()

    def test_same_seed_same_weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With cells of the simulated chamber among the real ones."""
        few_cells = partial(ChamberSettings, variety=0.1)
        monkeypatch.setattr("napari_rbcflow.simulation.sequences.ChamberSettings", few_cells)
        few = write_dataset(tmp_path / "few", each=1, runs=RUNS[:2])
        recipe = replace(default_recipe(1, "blend"), epochs=1, composed=0.0)
        one, two, other = (
            train([few], tmp_path / name, stage=1, recipe=recipe, seeds=(seed,))
            for name, seed in (("one", 0), ("two", 0), ("other", 1))
        )
        assert one["sha256"] == two["sha256"] != other["sha256"]
        assert one["simulated"].startswith("17 sequences of the simulated chamber")

    def test_bad_input_leaves_nothing(self, dataset: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        only = write_dataset(tmp_path / "only", runs=RUNS[:1])
        for arguments, key in (
            ({"datasets": [dataset], "stage": 3}, "no-stage"),
            ({"datasets": [dataset], "stage": 1, "model": "vgg"}, "no-model"),
            ({"datasets": [dataset], "stage": 1, "frames": 0}, "frames-out-of-range"),
            ({"datasets": [dataset], "stage": 1, "composed": 11.0}, "share-out-of-range"),
            ({"datasets": [], "stage": 1}, "no-dataset"),
            ({"datasets": [dataset, dataset], "stage": 1}, "sequence-in-two-datasets"),
            ({"datasets": [tmp_path / "none"], "stage": 1}, "dataset-not-a-folder"),
            ({"datasets": [only], "stage": 1, "simulated": 0.0, "composed": 0.0}, "only-one-acquisition"),
        ):
            with refused(BadInput, f"classification.{key}"):
                train(out=out, **arguments)  # type: ignore[arg-type]
            assert not out.exists()
        out.mkdir()
        with refused(BadInput, "ring.exists"):
            train([dataset], out, stage=1)

    def test_a_folder_that_cannot_be_made_is_known_before_training(
        self, dataset: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        before = sorted(tmp_path.iterdir())
        told: list[str] = []
        outs = [tmp_path / "file" / "out", tmp_path / "new" / ("x" * 300), tmp_path / "new" / "a\0b"]
        if Path("/proc/self").exists():  # where even root makes no folder
            outs.append(Path("/proc/x/y"))
        for out in outs:
            with pytest.raises(BadInput) as error:
                train([dataset], out, stage=1, progress=told.append)
            assert error.value.key == "classification.folder-cannot-be-made"
            assert "\n" not in str(error.value)
        assert told == []
        assert sorted(tmp_path.iterdir()) == before

    def test_what_ends_a_training_leaves_no_parents(self, dataset: Path, tmp_path: Path) -> None:
        def tired(_: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(
                [dataset], tmp_path / "a" / "b" / "out", stage=1, simulated=0.0, composed=0.0, progress=tired
            )
        assert list(tmp_path.iterdir()) == []

    def test_published_folders_gather(self, shared: Path) -> None:
        data = shared / "data" / "darrin2023"
        all_of_it, _, _ = gather([data / "stage1", data / "stage2"], 2)
        assert len(all_of_it) == 43 + 51 + 142 + 142
        assert {s.patient for s in all_of_it} == {"BG", "BK", "BM"}
        assert {len(s.crops) for s in all_of_it if s.sampled} == {20}


class TestFurther:
    """Going on from the shipped weights with a laboratory's own tracks."""

    SHIPPED = SHIPPED / "stage1.safetensors"

    def test_what_is_better_on_held_back_runs_is_written(
        self, dataset: Path, tmp_path: Path, rbcflow: Callable[..., tuple[int, str, str]]
    ) -> None:
        out = tmp_path / "ours"
        code, _, err = rbcflow(
            *("train", dataset, "-o", out, "--stage", "1", "--from", self.SHIPPED),
            *("--epochs", "2", "--device", "cpu"),
        )
        assert code == 0
        assert is_said("classification.further-better", err)
        new, old = load_weights(out / "stage1.safetensors", 1), load_weights(self.SHIPPED, 1)
        assert (new.slope, new.offset, new.thresholds) == (old.slope, old.offset, old.thresholds)
        before, after = new.card["held_back_log_loss"]
        assert after < before
        assert new.card["started_from"]["sha256"] == old.sha256
        assert next(iter(new.card["figures"].values()))["n"] == 27  # of these tracks, not the old ones
        moved = [
            float((a - b).abs().max())
            for a, b in zip(new.networks[0].parameters(), old.networks[0].parameters(), strict=True)
        ]
        assert 0 < max(moved) < 0.05
        TwoStage.load("cpu", stage1=out / "stage1.safetensors")

    def test_tracks_that_teach_nothing_leave_nothing(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        named = [
            LabelledSequence(
                f"AA0101_10s01_{k}", int(rng.integers(3)), sequence(rng, int(rng.integers(3)), 14)
            )
            for k in range(20)
        ]
        folder = write_set(tmp_path / "noise", named)
        with refused(RunFailed, "classification.further-no-better"):
            train_further([folder], tmp_path / "out", start=self.SHIPPED, stage=1, epochs=1, device="cpu")
        assert not (tmp_path / "out").exists()

    def test_what_the_weights_decide_cannot_be_chosen(
        self, dataset: Path, tmp_path: Path, rbcflow: Callable[..., tuple[int, str, str]]
    ) -> None:
        code, _, err = rbcflow(
            *("train", dataset, "-o", tmp_path / "out", "--stage", "1", "--from", self.SHIPPED),
            *("--folds", "patient"),
        )
        assert (code, "--folds" in err) == (2, True)
