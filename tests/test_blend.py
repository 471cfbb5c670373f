"""Handcrafted features beside what a network learns, and cells that neither can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from factories import a_track
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_rbcflow.classification.networks import build
from napari_rbcflow.classification.networks.blend import Blend, ensemble_logits, loss_of
from napari_rbcflow.classification.networks.handcrafted import HandcraftedFeatures
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.classification.weight_files import SHIPPED, load_weights
from napari_rbcflow.simulation import simulate_sequences
from napari_rbcflow.types import Label

FRAMES = 12
SMALL = {"widths": [4, 8], "strides": [2, 2], "side": 21}


def tracks(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(FRAMES)[None] < torch.tensor(lengths)[:, None]).float()
    images = torch.randn(len(lengths), FRAMES, 31, 31, generator=generator)
    return images * mask[:, :, None, None], mask


some_lengths = st.lists(st.integers(0, FRAMES), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(some_lengths, st.integers(0, 99))
def test_measures_do_not_know_which_way_time_or_the_camera_looks(lengths: list[int], seed: int) -> None:
    """A track turned round in time has the same measures; upside down, all but those of direction."""
    images, mask = tracks(lengths, seed)
    measures = HandcraftedFeatures()
    whole = measures(images, mask)
    assert torch.isfinite(whole).all()
    turned = images.clone()
    for row, n in enumerate(lengths):
        turned[row, :n] = images[row, :n].flip(0)
    assert torch.allclose(measures(turned, mask), whole, atol=1e-4)
    for row in range(len(lengths)):
        alone = measures(images[row : row + 1], mask[row : row + 1])
        assert torch.allclose(alone, whole[row : row + 1], atol=1e-4)


def test_one_frame_is_measured_by_itself() -> None:
    """K = 1 too; and what pads a track of one frame is not taken for a step."""
    images, mask = tracks([1], 3)
    measures = HandcraftedFeatures()
    whole = measures(images, mask)
    assert torch.allclose(measures(images[:, :1], mask[:, :1]), whole, atol=1e-4)
    dirty = images.clone()
    dirty[:, 1:] = 7.0
    assert torch.allclose(measures(dirty, mask), whole, atol=1e-4)


def test_measures_see_what_they_are_named_for() -> None:
    """A long cell and a round one, a still one and one that fades: each differs where it should alone."""
    y, x = np.mgrid[:31, :31] - 15.0
    still, measures = torch.ones(1, FRAMES), HandcraftedFeatures()

    def of(long: float, fading: float = 0.0) -> Tensor:
        cell = np.exp(-((x / long) ** 2 + (y / 4) ** 2)).astype(np.float32)
        light = 1 - fading * np.arange(FRAMES, dtype=np.float32) / FRAMES
        return measures(torch.from_numpy(cell * light[:, None, None])[None], still)[0]

    per_picture = (measures.number - 6) // 9
    elongation = per_picture - 8
    assert of(4.0)[elongation] < 0.05 < 0.4 < of(8.0)[elongation]
    change = slice(5 * per_picture, 8 * per_picture)
    assert of(8.0)[change].abs().max() < 1e-4
    assert of(8.0, fading=0.5)[change].abs().max() > 0.1


def test_an_ensemble_is_the_sum_of_its_members_and_each_opinion_is_trained() -> None:
    images, mask = tracks([FRAMES, 3, 7], 0)
    torch.manual_seed(0)
    members = [build("blend", FRAMES, SMALL).eval() for _ in range(2)]
    for member in members:
        assert isinstance(member, Blend)
        member.standardise(images, mask)
    with torch.inference_mode():
        whole = sum(member(images, mask) for member in members)
        assert torch.allclose(ensemble_logits(members, images, mask), whole, atol=1e-5)
    loss_of(members[0], images, mask, torch.tensor([0, 1, 0]), 0.0).backward()
    for name, parameter in members[0].named_parameters():
        assert parameter.grad is not None, name


def test_a_cell_that_cannot_be_told_is_unreliable() -> None:
    """With what is told from 0.5 on all are told, from 0.999 on hardly any; no label is of the other kind."""
    judged = [a_track(cell, crops=s.crops) for cell, s in enumerate(simulate_sequences(30, seed=5))]
    first = replace(load_weights(SHIPPED / "stage1.safetensors", 1), threshold=0.2)
    second = load_weights(SHIPPED / "stage2.safetensors", 2)
    all_told, few_told = (
        TwoStage(first, replace(second, told_from=told), torch.device("cpu")).judge(judged)
        for told in (0.5, 0.999)
    )
    assert any(one.label in (Label.TANK_TREADING, Label.FLIPPING) for one in all_told)
    assert not any(one.reason == "undecided" for one in all_told)
    untold = 0
    for one, other in zip(all_told, few_told, strict=True):
        assert one.p_tank_treading == other.p_tank_treading
        if other.reason == "undecided":
            untold += 1
            assert other.label is Label.UNRELIABLE
            assert other.p_tank_treading is not None
            assert max(other.p_tank_treading, 1 - other.p_tank_treading) < 0.999
        else:
            assert one == other
    assert untold
