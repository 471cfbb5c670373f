"""Judging in batches: what shares a batch, its order, the threads and the device change no label."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import a_track
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_rbcflow.classification import gpu
from napari_rbcflow.classification.batches import MARGIN, StageRunner, near_threshold
from napari_rbcflow.classification.sampling import LONGEST, Sampling, Scale, pad, sample, scaled
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.classification.weight_files import SHIPPED, TrainedStage, load_weights
from napari_rbcflow.simulation import simulate_sequences
from napari_rbcflow.types import LEAST_FRAMES, Judgement, Track

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
N = 40


@pytest.fixture(scope="module")
def tracks() -> list[Track]:
    drawn, rng = simulate_sequences(N - 8, seed=7), np.random.default_rng(0)
    odd = [np.full((70, 31, 31), 120, np.uint8), np.zeros((LEAST_FRAMES, 31, 31), np.uint8)]
    odd += [rng.normal(120, 8, (n, 31, 31)).astype(np.uint8) for n in (3, 5, 11, 24, 40, 59)]
    return [a_track(cell, crops=crops) for cell, crops in enumerate([s.crops for s in drawn] + odd)]


@pytest.fixture(scope="module")
def alone(two_stage: TwoStage, tracks: list[Track]) -> list[Judgement]:
    """Each track judged by itself: what every other way must say."""
    return [two_stage.judge([one])[0] for one in tracks]


def sequences(seed: int, n: int) -> list[NDArray[np.uint8]]:
    """Noise, two greys only, and pictures that come back: many pairs are exactly alike."""
    rng = np.random.default_rng(seed)
    out = []
    for kind in rng.integers(0, 4, n):
        frames = int(rng.integers(0, LONGEST + 1))
        if kind == 0:
            crops = rng.integers(0, 256, (frames, 31, 31))
        elif kind == 1:
            crops = rng.normal(120, 8, (frames, 31, 31)).clip(0, 255)
        elif kind == 2:
            crops = rng.integers(0, 2, (frames, 31, 31))
        else:
            crops = rng.integers(100, 140, (4, 31, 31))[rng.integers(0, 4, frames)]
        out.append(crops.astype(np.uint8))
    return out


def expected(
    some: list[NDArray[np.uint8]], frames: int, sampling: Sampling, scale: Scale
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    none = np.zeros((0, 31, 31), np.float32)
    return pad([scaled(c[sample(c, frames, sampling)], scale) if len(c) else none for c in some], frames)


def on(device: str, some: list[NDArray[np.uint8]], frames: int, scale: Scale) -> tuple[torch.Tensor, ...]:
    n = max(map(len, some))
    crops = torch.full((len(some), n, 31, 31), 77, dtype=torch.uint8)
    for row, c in enumerate(some):
        crops[row, : len(c)] = torch.from_numpy(c)
    lengths = torch.tensor([len(c) for c in some])
    return tuple(t.cpu() for t in gpu.prepare(crops.to(device), lengths.to(device), frames, scale))


class TestOneLabel:
    @settings(max_examples=12, deadline=None)
    @given(order=st.permutations(range(N)), cuts=st.sets(st.integers(1, N - 1), max_size=12))
    def test_in_whatever_company(
        self,
        two_stage: TwoStage,
        tracks: list[Track],
        alone: list[Judgement],
        order: list[int],
        cuts: set[int],
    ) -> None:
        ends = [0, *sorted(cuts), N]
        for first, behind in itertools.pairwise(ends):
            part = order[first:behind]
            assert two_stage.judge([tracks[i] for i in part]) == [alone[i] for i in part]

    def test_the_sequences_are_of_both_kinds(self, alone: list[Judgement]) -> None:
        assert len({judgement.label for judgement in alone}) >= 3

    def test_with_two_threads(self, tracks: list[Track], alone: list[Judgement]) -> None:
        assert TwoStage.load("cpu", threads=2).judge(tracks) == alone

    @needs_gpu
    @pytest.mark.parametrize("mixed", [False, True])
    def test_on_a_gpu(self, tracks: list[Track], alone: list[Judgement], mixed: bool) -> None:
        """Every label of these; on how many of many, `benchmarks/classification.py` measures."""
        gpu = TwoStage.load("cuda", mixed=mixed)
        together = gpu.judge(tracks)
        assert [j.label for j in together] == [j.label for j in alone]
        assert gpu.judge(tracks[::-1]) == together[::-1]


class TestOnDevice:
    """The preparation for GPUs, run on a CPU: not one bit may differ, nor one chosen frame."""

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, LONGEST), st.sampled_from(["level", "grey"]))
    def test_is_that_of_the_cpu(self, seed: int, frames: int, scale: Scale) -> None:
        some = [*sequences(seed, 12), np.zeros((2, 31, 31), np.uint8)]
        images, mask = on("cpu", some, frames, scale)
        wanted = expected(some, frames, "similarity", scale)
        assert np.array_equal(images.numpy(), wanted[0])
        assert np.array_equal(mask.numpy(), wanted[1])

    def test_of_simulated_cells(self, tracks: list[Track]) -> None:
        some = [t.crops for t in tracks]
        for frames in (5, 20):
            images, _ = on("cpu", some, frames, "level")
            assert np.array_equal(images.numpy(), expected(some, frames, "similarity", "level")[0])

    @needs_gpu
    def test_on_a_gpu(self, tracks: list[Track]) -> None:
        for seed, scale in enumerate(("level", "grey", "level", "level")):
            some = sequences(seed, 200) + [t.crops for t in tracks]
            images, mask = on("cuda", some, 20, scale)  # type: ignore[arg-type]
            wanted = expected(some, 20, "similarity", scale)  # type: ignore[arg-type]
            assert np.array_equal(images.numpy(), wanted[0])
            assert np.array_equal(mask.numpy(), wanted[1])

    @pytest.mark.parametrize("stage", [1, 2])
    def test_packing(self, stage: int, tracks: list[Track]) -> None:
        """Batch after batch through the two buffers: short, long, too long for the device, none."""
        trained = load_weights(SHIPPED / f"stage{stage}.safetensors", stage)
        packing = gpu.GpuBatches(trained, "cpu", 16)
        rng = np.random.default_rng(0)
        long = rng.integers(90, 150, (LONGEST + 30, 31, 31)).astype(np.uint8)
        short = [c[:4] for c in sequences(1, 16)]
        cells = [t.crops for t in tracks[:16]]
        for some in (cells, short, [*cells[:3], long], [long[:0]], cells[5:9]):
            images, mask = packing.prepare(some)
            wanted = expected(some, trained.frames, trained.sampling, trained.scale)
            assert np.array_equal(images[: len(some)].numpy(), wanted[0])
            assert np.array_equal(mask[: len(some)].numpy(), wanted[1])
            assert not mask[len(some) :].any()


class TestHalfPrecision:
    @pytest.mark.parametrize("stage", [1, 2])
    def test_who_is_judged_again(self, stage: int) -> None:
        trained = load_weights(SHIPPED / f"stage{stage}.safetensors", stage)
        threshold = trained.threshold
        p = np.array([0.0, threshold - 1e-4, threshold, threshold + 1e-4, 1.0])
        assert near_threshold(replace(trained, thresholds=None), p).tolist() == [1, 2, 3]
        if stage == 2:  # where a cell begins to be told, and so counted, a label changes too
            assert near_threshold(trained, np.array([0.1, 0.2999, 0.3, 0.7, 0.7001, 0.9])).tolist() == [
                1,
                2,
                3,
                4,
            ]

    def test_the_margin_is_many_times_the_error(self, tracks: list[Track]) -> None:
        """Half precision as a CPU emulates it: its greatest error in calibrated logits."""
        for stage in (1, 2):
            trained: TrainedStage = load_weights(SHIPPED / f"stage{stage}.safetensors", stage)
            runner = StageRunner(trained, torch.device("cpu"), 8)
            crops = [t.crops for t in tracks]
            error = np.abs(runner._logits(crops, True) - runner._logits(crops, False)) * abs(trained.slope)
            assert 0 < error.max() < MARGIN / 2
