"""The networks in ONNX Runtime: PyTorch's numbers, whatever the options, and a sentence where it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_keys import refused
from torch import Tensor, nn

from napari_rbcflow.classification.batches import StageRunner
from napari_rbcflow.classification.networks import build
from napari_rbcflow.classification.networks.blend import Blend, ensemble_logits
from napari_rbcflow.classification.onnx_graph import OnnxNetworks, is_supported
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.classification.weight_files import SHIPPED, load_weights
from napari_rbcflow.errors import RunFailed
from napari_rbcflow.sentences import say
from napari_rbcflow.simulation import simulate_sequences

OPTIONS: list[tuple[str, int, int, dict[str, Any]]] = [
    ("blend", 20, 3, {}),
    ("blend", 20, 2, {"widths": [8, 16, 32, 48], "strides": [1, 2, 1, 2], "side": 23}),
    ("blend", 7, 1, {"widths": [4, 8], "strides": [2, 3], "side": 21, "features": 12, "hidden": 5}),
    ("blend", 2, 2, {"widths": [4], "strides": [3]}),
    ("blend", 1, 2, {"widths": [4], "strides": [3]}),
    ("small", 12, 4, {"widths": [4, 8], "strides": [2, 2], "hidden": 0}),
    ("small", 1, 1, {"widths": [5, 7], "strides": [2, 2], "side": 25}),
]
"""Model, frames, members and the model's options."""


def ensemble(model: str, frames: int, members: int, options: dict[str, Any]) -> list[nn.Module]:
    """Networks of random weights, each of its own; blends with centre and spread of their own too."""
    torch.manual_seed(frames)
    networks = [build(model, frames, options).eval().requires_grad_(False) for _ in range(members)]
    for network in networks:
        if isinstance(network, Blend):
            network.standardise(*batch(64, frames, seed=int(torch.randint(99, ()))))
    return networks


def batch(rows: int, frames: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cells whose contrast, form and place change; whole tracks, shorter ones, one frame, none."""
    rng = np.random.default_rng(seed)
    lengths = np.append(rng.integers(0, frames + 1, rows), [frames, 1, 0])[-rows:]
    y, x = np.mgrid[:31, :31] - 15.0
    images = np.zeros((rows, frames, 31, 31), np.float32)
    for row, n in enumerate(lengths):
        for k in range(n):
            a, b, turn, contrast = rng.uniform((3, 3, 0, -3), (8, 8, 3, 3))
            u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            images[row, k] = contrast * np.exp(-((u / a) ** 2 + (v / b) ** 2)) + rng.normal(0, 0.2, (31, 31))
    mask = (np.arange(frames) < lengths[:, None]).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(mask)


@pytest.mark.parametrize(("model", "frames", "members", "options"), OPTIONS)
def test_logits_are_pytorchs(model: str, frames: int, members: int, options: dict[str, Any]) -> None:
    networks = ensemble(model, frames, members, options)
    assert is_supported(networks)
    rows = 9
    in_onnx = OnnxNetworks(networks, rows, frames)
    alone = OnnxNetworks(networks, 1, frames)
    for seed in range(3):
        images, mask = batch(rows, frames, seed)
        with torch.inference_mode():
            wanted = ensemble_logits(networks, images, mask).numpy()
        found = in_onnx.logits(images.numpy(), mask.numpy())
        assert np.isfinite(found).all()
        assert np.abs(wanted).max() > 0.01
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        single = [alone.logits(images[k : k + 1].numpy(), mask[k : k + 1].numpy()) for k in range(rows)]
        np.testing.assert_allclose(np.concatenate(single), wanted, rtol=0, atol=1e-4)


def in_pytorch(runner: StageRunner, crops: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Probabilities from the same runner without ONNX Runtime."""
    kept, runner._onnx = runner._onnx, None
    try:
        return runner.probabilities(crops)
    finally:
        runner._onnx = kept


@pytest.mark.parametrize("stage", [1, 2])
def test_shipped_probabilities_are_pytorchs(stage: int) -> None:
    """To one in the fourth decimal, also for no frame, one, and a black track."""
    trained = load_weights(SHIPPED / f"stage{stage}.safetensors", stage)
    runner = StageRunner(trained, torch.device("cpu"), 4)
    assert runner._onnx is not None
    crops = [s.crops for s in simulate_sequences(40, seed=11)]
    crops += [crops[0][:0], crops[0][:1], np.zeros((9, 31, 31), np.uint8)]
    found = runner.probabilities(crops)
    assert np.abs(found - in_pytorch(runner, crops)).max() < 1.5e-4
    assert found.tolist() == [float(runner.probabilities([c])[0]) for c in crops]
    assert found[::-1].tolist() == runner.probabilities(crops[::-1]).tolist()


@pytest.mark.parametrize("model", ["cnn", "c-rnn"])
def test_the_papers_networks_stay_in_pytorch(model: str) -> None:
    networks = ensemble(model, 5, 1, {})
    assert not is_supported(networks)
    trained = replace(
        load_weights(SHIPPED / "stage1.safetensors", 1), networks=networks, frames=5, sampling="uniform"
    )
    p = StageRunner(trained, torch.device("cpu"), 4).probabilities([np.full((8, 31, 31), 120, np.uint8)])
    assert np.isfinite(p).all()


class TestFailing:
    """One sentence that says what to do; never PyTorch's numbers in its place."""

    def test_at_loading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("no such\noperator.")

        monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
        with pytest.raises(RunFailed) as error:
            TwoStage.load("cpu")
        assert str(error.value) == say("classification.onnx-failed", why="no such operator")

    def test_where_it_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
        with refused(RunFailed, "classification.onnx-failed"):
            TwoStage.load("cpu")

    def test_while_judging(self, monkeypatch: pytest.MonkeyPatch) -> None:
        two_stage = TwoStage.load("cpu")

        class Broken:
            def run(self, *_: object) -> None:
                raise RuntimeError("bad allocation")

        onnx = two_stage._runners[0]._onnx
        assert onnx is not None
        monkeypatch.setattr(onnx, "_session", Broken())
        with pytest.raises(RunFailed, match="bad allocation") as error:
            two_stage.reliable([np.full((8, 31, 31), 120, np.uint8)])
        assert error.value.key == "classification.onnx-failed"
        assert two_stage.fault == ""
