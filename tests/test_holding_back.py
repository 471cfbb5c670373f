"""What is judged was never learnt from: every held-back figure rests on this."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_keys import refused

from napari_rbcflow.classification.dataset import LabelledSequence, read_dataset
from napari_rbcflow.classification.evaluation.scores import calibrate
from napari_rbcflow.classification.training import cross_validate, default_recipe, hold_out, train
from napari_rbcflow.classification.training.fitting import Fitted
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say


def cells(run: str, labels: str) -> list[LabelledSequence]:
    crops = np.full((8, 31, 31), 120, np.uint8)
    return [LabelledSequence(f"{run}_{i}", int(label), crops) for i, label in enumerate(labels)]


ALL = [
    *cells("AA0101_10s01", "0011222"),
    *cells("AA0101_10s02", "0122"),
    *cells("AA0203_10s01", "01"),
    *cells("BB0101_10s01", "00112"),
]


@pytest.mark.parametrize(("group", "groups"), [("patient", 2), ("date", 3), ("acquisition", 4)])
@pytest.mark.parametrize("stage", [1, 2])
def test_networks_judge_only_groups_that_they_never_saw(
    monkeypatch: pytest.MonkeyPatch, stage: int, group: str, groups: int
) -> None:
    sequences = ALL if stage == 1 else [s for s in ALL if s.reliable]
    seen: list[set[str]] = []

    def fit(train_on: list[LabelledSequence], *_: object, **__: object) -> Fitted:
        seen.append({getattr(s, group) for s in train_on})
        return Fitted(torch.nn.Identity(), 0, [], [])

    def logits(_: object, held: list[LabelledSequence], __: object) -> NDArray[np.float64]:
        assert not {getattr(s, group) for s in held} & seen[-1]
        return np.ones(len(held))

    module = sys.modules["napari_rbcflow.classification.training.train"]
    monkeypatch.setattr(module, "fit", fit)
    monkeypatch.setattr(module, "logits", logits)
    out = cross_validate(sequences, default_recipe(stage, "small"), (0, 1), group)  # type: ignore[arg-type]
    judged = {getattr(s, group) for s in sequences if stage == 2 or not s.reliable}
    assert len(seen) == 2 * len(judged) <= 2 * groups
    assert np.isfinite(out).all() == (len(judged) == groups)


@pytest.mark.parametrize("stage", [1, 2])
def test_held_out_acquisitions_are_whole_and_leave_both_classes(stage: int) -> None:
    sequences = ALL if stage == 1 else [s for s in ALL if s.reliable]
    rest, held = hold_out(sequences, stage)
    assert len(rest) + len(held) == len(sequences)
    assert not {s.acquisition for s in rest} & {s.acquisition for s in held}
    for part in (rest, held):
        assert len({s.reliable if stage == 1 else s.label for s in part}) == 2


def test_what_cannot_be_held_back_is_refused() -> None:
    lone = [*cells("AA0101_10s01", "012"), *cells("AA0102_10s01", "01")]
    with refused(BadInput, "classification.cannot-hold-out"):
        hold_out(lone, 1)
    with refused(BadInput, "classification.only-one-acquisition"):
        hold_out(lone[:3], 1)
    nameless = [*ALL, LabelledSequence("P12_20261123_10s01_00", 0, ALL[0].crops)]
    with pytest.raises(BadInput) as error:
        hold_out(nameless, 1)
    assert str(error.value) == say("classification.sequence-unnamed", name="P12_20261123_10s01_00")
    with refused(BadInput, "classification.sequence-unnamed"):
        cross_validate(nameless, default_recipe(1, "small"), (0,), "patient")


def test_a_stage_is_never_trained_on_one_class(tmp_path: Path) -> None:
    """Though the dataset holds both: the unreliable ones are all in the run that would be held back."""
    folder = tmp_path / "data"
    (folder / "img").mkdir(parents=True)
    rows = ["sequence_name,label"]
    for sequence in (*cells("AA0101_10s01", "0122"), *cells("AA0102_10s01", "01")):
        rows.append(f"{sequence.name},{sequence.label}")
        Image.fromarray(np.hstack(list(sequence.crops))).save(folder / "img" / f"{sequence.name}.png")
    # Excel writes its tables with a mark before the first letter.
    (folder / "dataset.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    assert len(read_dataset(folder)) == 6
    with refused(BadInput, "classification.cannot-hold-out"):
        train(
            [folder],
            tmp_path / "out",
            stage=1,
            recipe=default_recipe(1, "small"),
            simulated=0.0,
            composed=0.0,
        )
    assert not (tmp_path / "out").exists()
    Image.fromarray(np.full((31, 62), 30000, np.uint16)).save(folder / "img" / "AA0101_10s01_0.png")
    with refused(BadInput, "classification.strip-not-8-bit"):
        read_dataset(folder)


def test_worse_than_chance_is_told_as_knowing_nothing() -> None:
    """Turned round by a negative slope, what is wrong would be said with confidence."""
    slope, offset, _ = calibrate(np.array([0, 0, 0, 1]), np.array([2.0, 3.0, 1.0, -1.0]))
    assert slope == 0
    assert 1 / (1 + np.exp(-offset)) == pytest.approx(0.25)
