"""Weight files: what is damaged, of another kind or of the other stage is refused in one clear line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from sentence_keys import refused

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.classification.weight_files import SHIPPED, load_weights, seal
from napari_rbcflow.errors import BadInput


class TestWeights:
    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        for ending in (".safetensors", ".json"):
            shutil.copy(SHIPPED / f"stage2{ending}", tmp_path / f"mine{ending}")
        return tmp_path / "mine.safetensors"

    def test_a_copy_is_as_good(self, copy: Path) -> None:
        crops = list(np.random.default_rng(0).integers(90, 150, (4, 30, 31, 31)).astype(np.uint8))
        mine, shipped = TwoStage.load("cpu", stage2=copy), TwoStage.load("cpu")
        assert np.array_equal(mine.flipping(crops), shipped.flipping(crops))

    def test_damaged(self, copy: Path) -> None:
        data = bytearray(copy.read_bytes())
        data[-3] ^= 1
        copy.write_bytes(data)
        with refused(BadInput, "classification.weights-damaged"):
            load_weights(copy, 2)

    @staticmethod
    def hashed_again(copy: Path) -> None:
        card = json.loads(copy.with_suffix(".json").read_text())
        card["sha256"] = hashlib.sha256(copy.read_bytes()).hexdigest()
        card["seal"] = seal(card)
        copy.with_suffix(".json").write_text(json.dumps(card))

    @pytest.mark.parametrize(
        "content", [b"", SHIPPED.joinpath("stage2.safetensors").read_bytes()[:-100], pickle.dumps({"a": 1})]
    )
    def test_cut_off_or_of_another_kind(self, copy: Path, content: bytes) -> None:
        """Though the hash is that of the card."""
        copy.write_bytes(content)
        self.hashed_again(copy)
        with refused(BadInput, "classification.weights-truncated"):
            load_weights(copy, 2)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_weight_that_is_no_number(self, copy: Path, value: float) -> None:
        state = load(copy.read_bytes())
        state["1.learned.norm.bias"][3] = value
        copy.write_bytes(save(state))
        self.hashed_again(copy)
        with pytest.raises(BadInput, match=r"1\.learned\.norm\.bias") as error:
            load_weights(copy, 2)
        assert error.value.key == "classification.weights-not-finite"

    def test_tensors_too_many_too_few_or_of_another_type(self, copy: Path) -> None:
        state = load(copy.read_bytes())
        few = {key: value for key, value in state.items() if key != "2.learned.head.4.bias"}
        many = state | {"3.learned.head.4.bias": torch.zeros(2)}
        whole = {key: value.to(torch.int32) for key, value in state.items()}
        for wrong in (few, many, whole):
            copy.write_bytes(save(wrong))
            self.hashed_again(copy)
            with refused(BadInput, "classification.weights-do-not-fit"):
                load_weights(copy, 2)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *(("threshold", 0.4), ("told_from", 0.6), ("slope", 0.9), ("offset", 0.1)),
            *(("short", 3.0), ("thresholds", [0.5, 0.6])),
        ],
    )
    def test_a_card_that_was_changed(self, copy: Path, key: str, value: float) -> None:
        """Each of these makes sense, and other labels."""
        card = json.loads(copy.with_suffix(".json").read_text())
        card[key] = value
        copy.with_suffix(".json").write_text(json.dumps(card))
        with refused(BadInput, "classification.card-changed"):
            load_weights(copy, 2)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *(("threshold", wrong) for wrong in (-1, 7, float("nan"), "high")),
            *(("members", wrong) for wrong in (0, 10**9, 1e400)),
            *(("figures", wrong) for wrong in ([1], {"a": "b"})),
            *(("slope", wrong) for wrong in (float("inf"), -0.5, 1e308)),
            *(("acquisitions", wrong) for wrong in (5, [[1]], None)),
            ("threshold", 0.9),
            *(("told_from", wrong) for wrong in (0.2, 1.5, float("nan"), "sure")),
            *(("short", wrong) for wrong in (-1.0, 1e9, "long", float("nan"))),
            *(("thresholds", wrong) for wrong in (5, [0.5], [0.9, 0.8], ["a", "b"])),
            ("recipe", None),
        ],
    )
    def test_a_card_that_makes_no_sense(self, copy: Path, key: str, value: object) -> None:
        card = json.loads(copy.with_suffix(".json").read_text())
        card[key] = value
        copy.with_suffix(".json").write_text(json.dumps(card))
        with pytest.raises(BadInput) as error:
            load_weights(copy, 2)
        assert error.value.key in ("classification.card-unreadable", "classification.card-impossible-value")
        assert "\n" not in str(error.value)

    @pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="needs a user who may not read all")
    def test_may_not_be_read(self, copy: Path) -> None:
        copy.chmod(0)
        with refused(BadInput, "classification.weights-unreadable"):
            load_weights(copy, 2)

    def test_cannot_be_read(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that breaks, or a right that lacks: root may read everything."""

        def broken(_: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", broken)
        with pytest.raises(BadInput, match="Permission denied") as error:
            load_weights(copy, 2)
        assert error.value.key == "classification.weights-unreadable"

    def test_not_a_weight_file(self, copy: Path, tmp_path: Path) -> None:
        for other in (copy.with_suffix(".json"), shutil.copy(copy, tmp_path / "mine.pt")):
            with refused(BadInput, "classification.weights-not-safetensors"):
                load_weights(Path(other), 2)
        with refused(BadInput, "classification.weights-missing"):
            load_weights(tmp_path, 2)

    def test_truncated_card(self, copy: Path) -> None:
        card = copy.with_suffix(".json")
        card.write_text(card.read_text()[:100])
        with refused(BadInput, "classification.card-unreadable"):
            load_weights(copy, 2)

    def test_other_shape(self, copy: Path) -> None:
        card = json.loads(copy.with_suffix(".json").read_text())
        card["recipe"]["model"] = "c-rnn"
        copy.with_suffix(".json").write_text(json.dumps(card))
        with refused(BadInput, "classification.card-changed"):
            load_weights(copy, 2)

    def test_missing_wrong_stage(self, copy: Path) -> None:
        with refused(BadInput, "classification.weights-of-other-stage"):
            load_weights(copy, 1)
        with refused(BadInput, "classification.weights-missing"):
            load_weights(copy.with_name("none.safetensors"), 2)
        copy.with_suffix(".json").unlink()
        with refused(BadInput, "classification.weights-without-card"):
            load_weights(copy, 2)

    @pytest.mark.parametrize("stage", [1, 2])
    def test_shipped_cards_tell_the_counts(self, stage: int) -> None:
        trained = load_weights(SHIPPED / f"stage{stage}.safetensors", stage)
        assert (SHIPPED / f"stage{stage}.md").read_text().count(trained.sha256) == 1
        assert len(trained.card["failures"]) > 100, "what it is known to do wrong, in words"
        held = next(iter(trained.card["figures"].values()))
        assert held["TP"] + held["FP"] + held["TN"] + held["FN"] == held["n"] > 0
        assert held["recall"] == pytest.approx(held["TP"] / (held["TP"] + held["FN"]))
