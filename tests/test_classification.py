"""From a track to a label: sampling, networks, both stages."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import a_track
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pretended_card import pretend_card
from sentence_keys import refused
from skimage.metrics import structural_similarity

from napari_rbcflow.classification import sampling
from napari_rbcflow.classification.dataset import read_dataset
from napari_rbcflow.classification.gpu import logits_in_pytorch
from napari_rbcflow.classification.networks import MODELS, build, n_parameters
from napari_rbcflow.classification.sampling import level, sample, similarity, uniform
from napari_rbcflow.classification.two_stage import CPU_BATCH, CPU_LINGER_S, TwoStage
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Label

pictures = arrays(np.uint8, (31, 31), elements=st.integers(0, 255))


def ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """The similarity by which similarity sampling chooses frames, of two pictures alone."""
    sums, squares = sampling._moments(np.stack([first, second]))
    room = sampling._scratch(*first.shape)
    whole = sampling._ssim(first, second, sums[0], sums[1], squares[0], squares[1], *room)
    return float(whole / (sampling.ONE * sums[0].size))


class TestSampling:
    @settings(max_examples=30, deadline=None)
    @given(pictures, pictures)
    def test_ssim_is_that_of_scikit_image(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
        assert ssim(a, b) == pytest.approx(structural_similarity(a, b), abs=1e-6)

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 70), st.integers(1, 60), st.sampled_from(["uniform", "similarity"]), st.integers(0, 99)
    )
    def test_keeps_k_in_order_of_time(self, n: int, k: int, sampling: str, seed: int) -> None:
        crops = np.random.default_rng(seed).integers(0, 256, (n, 31, 31)).astype(np.uint8)
        kept = sample(crops, k, sampling)  # type: ignore[arg-type]
        assert len(kept) == min(n, k)
        assert (np.diff(kept) > 0).all()
        assert 0 <= kept[0] <= kept[-1] < n
        assert np.array_equal(kept, sample(crops, k, sampling))  # type: ignore[arg-type]

    def test_uniform_keeps_the_ends_and_is_even(self) -> None:
        kept = uniform(60, 20)
        assert (kept[0], kept[-1]) == (0, 59)
        assert set(np.diff(kept).tolist()) <= {3, 4}

    def test_similarity_keeps_what_differs(self) -> None:
        rng = np.random.default_rng(1)
        still = rng.integers(90, 150, (31, 31)).astype(np.uint8)
        crops = np.repeat(still[None], 30, 0)
        odd = [4, 11, 23]
        for i in odd:
            crops[i] = rng.integers(0, 256, (31, 31))
        assert set(odd) <= set(similarity(crops, 8).tolist())

    def test_similarity_is_greedy_by_scikit_image(self) -> None:
        """The kept frames are those of the plain algorithm, written down with scikit-image."""
        rng = np.random.default_rng(2)
        crops = np.cumsum(rng.normal(0, 3, (14, 31, 31)), 0)
        crops = np.clip(crops + 120, 0, 255).astype(np.uint8)
        kept = list(range(14))
        while len(kept) > 6:
            like = [structural_similarity(crops[a], crops[b]) for a, b in itertools.pairwise(kept)]
            i = int(np.argmax(like))
            earlier = like[i - 1] if i > 0 else -np.inf
            later = like[i + 1] if i + 1 < len(like) else -np.inf
            del kept[i if earlier > later else i + 1]
        assert similarity(crops, 6).tolist() == kept

    def test_refuses_nonsense(self) -> None:
        with pytest.raises(ValueError, match=say("classification.no-frames-to-keep", frames=0)):
            sample(np.zeros((3, 31, 31), np.uint8), 0, "uniform")
        with pytest.raises(ValueError, match=say("classification.no-sampling", sampling="best")):
            sample(np.zeros((3, 31, 31), np.uint8), 2, "best")  # type: ignore[arg-type]


class TestPreparing:
    def test_light_does_not_matter(self) -> None:
        rng = np.random.default_rng(0)
        cell = rng.uniform(0.6, 1.4, (5, 31, 31))
        cell[:, [0, -1]] = cell[:, :, [0, -1]] = 1.0
        dark, bright = (np.rint(cell * light).astype(np.uint8) for light in (100, 150))
        assert np.abs(level(dark) - level(bright)).max() < 0.1

    @settings(max_examples=20, deadline=None)
    @given(arrays(np.uint8, (3, 31, 31), elements=st.integers(0, 255)))
    def test_always_finite(self, crops: NDArray[np.uint8]) -> None:
        out = level(crops)
        assert np.isfinite(out).all()
        assert np.abs(out).max() <= 6


class TestNetworks:
    def test_recurrent_is_table_1_right(self) -> None:
        network = build("c-rnn", 50)
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        assert [
            (c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions
        ] == [
            (1, 8, (3, 3), (1, 1), (1, 1)),
            (8, 32, (2, 2), (1, 1), (1, 1)),
            (32, 64, (2, 2), (1, 1), (1, 1)),
            (64, 128, (3, 3), (1, 1), (1, 1)),
        ]
        recurrent = [m for m in network.modules() if isinstance(m, torch.nn.GRU)]
        assert [m.hidden_size for m in recurrent] == [64]
        dense = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, torch.nn.Linear)]
        assert dense == [(64, 64), (64, 2)]

    def test_resnet_18_has_its_parameters(self) -> None:
        """11,689,512 with 3 channels and 1000 classes in the original; here K channels and two classes."""
        k = 20
        assert n_parameters(build("cnn", k)) == 11_689_512 + (k - 3) * 64 * 49 - (512 + 1) * 998

    @pytest.mark.parametrize("model", MODELS)
    def test_gives_two_logits_and_padding_does_not_count(self, model: str) -> None:
        torch.manual_seed(0)
        network = build(model, 12).eval()
        images, mask = torch.randn(3, 12, 31, 31), torch.ones(3, 12)
        mask[1, 7:] = 0
        images[1, 7:] = 0
        with torch.inference_mode():
            out = network(images, mask)
            images[1, 7:] = 5.0
            rubbish = network(images, mask)
        assert out.shape == (3, 2)
        assert torch.isfinite(out).all()
        assert torch.allclose(out, rubbish, atol=1e-5)

    def test_no_such_model(self) -> None:
        with refused(BadInput, "classification.no-model"):
            build("transformer", 20)


class TestTwoStage:
    def test_frames_that_another_cell_enters_are_left_out(self, two_stage: TwoStage) -> None:
        """As if they had not been; but not where too few would be left, and not where they are to be kept."""
        y, x = np.mgrid[:31, :31] - 15.0
        ring = 40 * np.exp(-((y**2 + x**2) / 8)) - 25 * np.exp(-(((np.hypot(y, x) - 6) / 1.5) ** 2))
        noise = np.random.default_rng(0).normal(0, 2.4, (32, 31, 31))
        one = a_track(crops=(120 + ring + noise).astype(np.uint8))
        one.crops[1::4] = np.roll(one.crops[1::4], 9, axis=2)
        some, most = np.arange(len(one.crops)) % 4 == 1, np.arange(len(one.crops)) % 4 != 1
        entered = replace(one, intruded=some)
        alone = a_track(one.cell, crops=one.crops[~some])
        assert two_stage.judge([entered]) == two_stage.judge([alone])
        assert two_stage.judge([alone]) != two_stage.judge([one])
        assert two_stage.judge([entered], leave_out_intruded=False) == two_stage.judge([one])
        crowded = replace(one, intruded=most)
        assert two_stage.judge([crowded]) == two_stage.judge([one])

    def test_says_what_it_must(self, two_stage: TwoStage) -> None:
        assert two_stage.judge([]) == []
        still = a_track(5, crops=np.full((20, 31, 31), 120, np.uint8))
        black = a_track(6, 20)
        short = a_track(7, crops=np.full((5, 31, 31), 120, np.uint8))
        one, two, three = two_stage.judge([still, black, short])
        assert (one.cell, two.cell, three.cell) == (5, 6, 7)
        for judgement in (one, two):
            assert judgement.p_reliable is not None
            assert 0 <= judgement.p_reliable <= 1
        assert (three.label, three.p_reliable, three.p_tank_treading) == (Label.TOO_SHORT, None, None)
        assert set(two_stage.models) == {"stage1", "stage2"}
        assert all(len(m["hash"]) == 64 and m["name"] for m in two_stage.models.values())

    def test_probabilities_have_four_decimals_and_make_the_label(
        self, two_stage: TwoStage, shared: Path
    ) -> None:
        sequences = read_dataset(shared / "data" / "darrin2023" / "stage1")[::2]
        labels = set()
        for judgement in two_stage.judge([a_track(i, crops=s.crops) for i, s in enumerate(sequences)]):
            labels.add(judgement.label)
            if judgement.p_reliable is None:
                continue
            assert judgement.p_reliable == round(judgement.p_reliable, 4)
            reliable = judgement.p_reliable >= two_stage.stage1.threshold
            assert reliable == (judgement.p_tank_treading is not None)
            if judgement.p_tank_treading is None:
                assert judgement.label is Label.UNRELIABLE
            elif max(judgement.p_tank_treading, 1 - judgement.p_tank_treading) < two_stage.stage2.told_from:
                assert (judgement.label, judgement.reason) == (Label.UNRELIABLE, "undecided")
            else:
                flipping = 1 - judgement.p_tank_treading >= two_stage.stage2.threshold - 1e-9
                passes = (
                    judgement.p_reliable
                    >= (two_stage.stage1.thresholds or [two_stage.stage1.threshold] * 2)[flipping]
                )
                kind = Label.FLIPPING if flipping else Label.TANK_TREADING
                assert judgement.label is (kind if passes else Label.UNRELIABLE)
        assert labels >= {Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE}

    def test_what_is_just_the_threshold_passes(
        self, two_stage: TwoStage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes = two_stage.stage1.threshold
        monkeypatch.setattr(two_stage, "reliable", lambda _: np.array([passes, round(passes - 1e-4, 4)]))
        just, under = two_stage.judge([a_track(cell, 20) for cell in range(2)])
        assert (just.p_reliable, under.p_reliable) == (passes, round(passes - 1e-4, 4))
        assert just.p_tank_treading is not None
        assert (under.label, under.p_tank_treading, under.reason) == (Label.UNRELIABLE, None, "stage-1")

    def test_threads_are_given_back(self, two_stage: TwoStage) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            two_stage.judge([a_track(cell, 20) for cell in range(3)])
            assert torch.get_num_threads() == 3
            batch = np.zeros((1, 5, 31, 31), np.float32), np.ones((1, 5), bool)
            logits_in_pytorch(two_stage.stage2.networks, [(batch, 1)], "cpu", 1, half=False)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    def test_the_cpu_that_takes_over_has_its_own_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_card("gpu-warm-up", put=monkeypatch.setattr)
        two_stage = TwoStage.load("cuda")
        assert two_stage.batch > CPU_BATCH
        two_stage.warm_up()
        assert two_stage.fault
        assert (two_stage.batch, two_stage.linger_s) == (CPU_BATCH, CPU_LINGER_S)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_no_gpu(self) -> None:
        with refused(BadInput, "classification.no-cuda"):
            TwoStage.load("cuda")
        assert TwoStage.load("auto").device == "cpu"
        with refused(BadInput, "classification.no-device"):
            TwoStage.load("tpu")
