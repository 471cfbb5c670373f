"""Fit one network: batches, balance, learning rate, best epoch.

Learning rates: Smith, arXiv 1506.01186 (triangular cycles, the range test) and arXiv 1803.09820 (one cycle).
Going on from weights: Li, Grandvalet and Davoine, arXiv 1802.01483 (L2-SP, a pull back to the start).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_rbcflow.classification.dataset import FLIPPING, UNRELIABLE, LabelledSequence
from napari_rbcflow.classification.networks import build
from napari_rbcflow.classification.networks.blend import Blend, loss_of
from napari_rbcflow.classification.sampling import Sampling, Scale, pad, sample, scaled
from napari_rbcflow.classification.training.augmenting import jiggle, spoil, vary
from napari_rbcflow.errors import RunFailed

Schedule = Literal["one-cycle", "triangular"]
Batches = Callable[[], Iterator[tuple[Tensor, Tensor, Tensor]]]

PAPERS_RATES = (1e-4, 1e-3)  # the range of Darrin et al., "for various layers in the network"
_SANE = (1e-4, 1e-2)
_LOW_TO_HIGH = 4.0  # Smith, section 3.3: the lower end is a third or a quarter of the upper
_EPOCHS_UP = 2  # the same: half a cycle takes two to ten epochs


def make_optimiser(
    network: nn.Module, rate: float, schedule: Schedule, decay: float, epochs: int, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return Adam and the schedule of its rate, to be stepped after every batch; `steps` make an epoch.

    ``one-cycle``: up to `rate` and down to zero, once. ``triangular``: up and down between a quarter of the
    peak and the peak, half a cycle in two epochs; the peaks of the layers rise evenly on a log scale from
    1e-4 for the first layer to `rate` for the last. Handcrafted features have their own decay.
    """
    if schedule == "one-cycle":
        adam = torch.optim.Adam(_groups(network, decay))
        total = max(2, epochs * steps)
        return adam, torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=total, cycle_momentum=False)
    layers = [own for m in network.modules() if (own := list(m.parameters(recurse=False)))]
    peaks = [float(peak) for peak in np.geomspace(min(PAPERS_RATES[0], rate), rate, len(layers))]
    adam = torch.optim.Adam([{"params": layer} for layer in layers], lr=rate, weight_decay=decay)
    cycle = torch.optim.lr_scheduler.CyclicLR(
        adam,
        base_lr=[peak / _LOW_TO_HIGH for peak in peaks],
        max_lr=peaks,
        step_size_up=max(1, _EPOCHS_UP * steps),
        mode="triangular",
        cycle_momentum=False,
    )
    return adam, cycle


def _groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    if not isinstance(network, Blend):
        return [{"params": list(network.parameters()), "weight_decay": decay}]
    return [
        {"params": list(network.learned.parameters()), "weight_decay": decay},
        {
            "params": list(network.by_hand.parameters()),
            "weight_decay": network.handcrafted_decay,
            "decoupled_weight_decay": True,
        },
    ]


def find_learning_rate(
    network: nn.Module, batches: Batches, schedule: Schedule = "one-cycle", steps: int = 40
) -> float:
    """Raise the rate on a copy of the network, batch by batch, and watch the loss: Smith's range test.

    For ``one-cycle``, from 1e-5 to 1e-1: a third of the rate at which the loss fell fastest, within 1e-4 to
    1e-2. For ``triangular``, from 1e-5 to 1e-2: the rate up to which the loss fell, the upper end of Smith's
    cycle, within the paper's 1e-4 to 1e-3.
    """
    papers = schedule == "triangular"
    low, high = PAPERS_RATES if papers else _SANE
    trial = copy.deepcopy(network)
    device = next(trial.parameters()).device
    optimiser = torch.optim.Adam(trial.parameters())
    steps = steps * 3 // 4 if papers else steps  # three of the four decades are tried
    rates = np.geomspace(1e-5, 1e-2 if papers else 1e-1, steps)
    smooth: list[float] = []
    trial.train()
    while len(smooth) < steps:
        before = len(smooth)
        for images, mask, wanted in batches():
            if len(smooth) >= steps:
                break
            for group in optimiser.param_groups:
                group["lr"] = float(rates[len(smooth)])
            loss = functional.cross_entropy(trial(images.to(device), mask.to(device)), wanted.to(device))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            value = float(loss.detach())
            smooth.append(value if not smooth else 0.8 * smooth[-1] + 0.2 * value)
            if not math.isfinite(value) or smooth[-1] > 3 * min(smooth):
                steps = len(smooth)
        if len(smooth) == before:
            break
    finite = np.asarray(smooth)[np.isfinite(smooth)]
    if len(finite) < 5:
        return 1e-3
    fall = np.gradient(finite, np.log(rates[: len(finite)]))
    best = rates[int(np.argmin(finite))] if papers else rates[int(np.argmin(fall))] / 3
    return float(np.clip(best, low, high))


Balance = Literal["up", "down", "both", "none"]
_MEET = 5000 / 3779  # the paper takes 5,000 of 69,071 unreliable, and as many copies of 3,779 reliable


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; its fields are in the card."""

    stage: int  # 1: reliable or not; 2: flipping or tank-treading
    model: str = "small"
    sampling: Sampling = "similarity"
    frames: int = 20  # K
    scale: Scale = "level"  # share of the background's light, or grey / 255 as in the paper
    epochs: int = 40
    batch: int = 32
    learning_rate: float | None = None  # peak of the cycle; None searches for it
    schedule: Schedule = "one-cycle"  # the paper's is the other one
    # Copy the rare class, drop from the frequent one, both (to 1.32 times the rare class, the paper's way),
    # or neither.
    balance: Balance = "up"
    redraw: bool = True  # choose copies and left-out sequences for each epoch; in the paper, once
    augment: bool = True
    spoiled: float = (
        0.0  # share of an epoch's unreliable sequences that are made from reliable ones (stage 1)
    )
    switched: float = 0.0  # chance of another cell's frames at one end
    shortened: float = 0.4  # chance of a cut in time
    simulated: float = 0.0  # sequences of the simulated chamber in an epoch, as a share of the real ones
    composed: float = 0.0  # the same of our tracker's tracks in composed movies
    smoothing: float = 0.0  # label smoothing of the cross-entropy
    decay: float = 0.0  # weight decay of Adam; 0 as in the paper
    anchor: float = 0.0  # pull back to the weights that training goes on from (L2-SP)
    clip: float = 5.0  # longest gradient; 0 does not clip, as in the paper
    options: dict[str, Any] = field(default_factory=dict)  # of `Blend` or `SmallNetwork`


def targets(sequences: Sequence[LabelledSequence], stage: int) -> NDArray[np.int64]:
    """Return 1 for reliable (stage 1) or flipping (stage 2), otherwise 0."""
    return np.asarray([s.reliable if stage == 1 else s.label == FLIPPING for s in sequences], np.int64)


def tensors(
    crops: Sequence[NDArray[np.uint8]], recipe: Recipe
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample, scale and pad raw sequences: float32 (n, K, 31, 31) and mask (n, K)."""
    chosen = [scaled(c[sample(c, recipe.frames, recipe.sampling)], recipe.scale) for c in crops]
    return pad(chosen, recipe.frames)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A network at its best epoch, with the losses of all and the highest learning rate."""

    network: nn.Module
    epoch: int
    train_loss: list[float]
    validation_loss: list[float]
    learning_rate: float = math.nan


def fit(
    train: Sequence[LabelledSequence],
    validation: Sequence[LabelledSequence],
    recipe: Recipe,
    seed: int,
    device: torch.device | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    simulated: Sequence[LabelledSequence] = (),
    composed: Sequence[LabelledSequence] = (),
    start: nn.Module | None = None,
) -> Fitted:
    """Train one network and keep its best epoch by validation loss, or the last without validation.

    `progress` is called after each epoch with epoch, epochs and training loss. Of `simulated`, each class is
    drawn equally often; of `composed`, each label, and each cell of a label. With `start`, training goes on
    from a copy of that network, and `Recipe.anchor` pulls every weight back to it.
    """
    device = device or torch.device("cpu")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        network = build(recipe.model, recipe.frames, recipe.options).to(device)
    else:
        network = copy.deepcopy(start).to(device).requires_grad_(True)
    if recipe.model == "c-rnn":  # another memory order, a quarter faster on a CPU
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(network, Blend) and start is None:
        network.standardise(
            *(torch.from_numpy(a).to(device) for a in tensors([s.crops for s in train], recipe))
        )
    sampler = EpochSampler(train, simulated, recipe, seed, composed)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return _batches(sampler, recipe, rng, generator)

    rate = recipe.learning_rate or find_learning_rate(network, batches, recipe.schedule)
    steps = math.ceil(len(sampler.epoch(np.random.default_rng(0))) / recipe.batch)
    optimiser, cycle = make_optimiser(network, rate, recipe.schedule, recipe.decay, recipe.epochs, steps)
    began = [parameter.detach().clone() for parameter in network.parameters()] if start is not None else []
    if began:  # a decay towards zero would undo what the weights know
        for group in optimiser.param_groups:
            group["weight_decay"] = 0.0
    if validation:
        held, held_mask = (torch.from_numpy(a) for a in tensors([s.crops for s in validation], recipe))
        held_wanted = torch.from_numpy(targets(validation, recipe.stage)).to(device)
    best, best_epoch, best_state = math.inf, recipe.epochs, None
    train_loss: list[float] = []
    validation_loss: list[float] = []
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        total, seen = 0.0, 0
        for images, mask, wanted in batches():
            loss = loss_of(network, images.to(device), mask.to(device), wanted.to(device), recipe.smoothing)
            for parameter, was in zip(network.parameters() if began else (), began, strict=True):
                loss = loss + recipe.anchor / 2 * ((parameter - was) ** 2).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimiser.step()
            cycle.step()
            total, seen = total + float(loss.detach()) * len(wanted), seen + len(wanted)
        train_loss.append(total / max(1, seen))
        if not math.isfinite(train_loss[-1]):
            raise RunFailed("classification.training-diverged", seed=seed, epoch=epoch)
        if validation:
            loss_now = float(functional.cross_entropy(_logits(network, held, held_mask), held_wanted))
            validation_loss.append(loss_now)
            if loss_now < best:
                best, best_epoch = loss_now, epoch
                best_state = copy.deepcopy(network.state_dict())
        if progress is not None:
            progress(epoch, recipe.epochs, train_loss[-1])
    if best_state is not None:
        network.load_state_dict(best_state)
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Fitted(network.eval(), best_epoch, train_loss, validation_loss, rate)


def logits(network: nn.Module, sequences: Sequence[LabelledSequence], recipe: Recipe) -> NDArray[np.float64]:
    """Difference of the two logits for each sequence, positive for the positive class."""
    images, mask = tensors([s.crops for s in sequences], recipe)
    out = _logits(network.eval(), torch.from_numpy(images), torch.from_numpy(mask)).double().cpu().numpy()
    return np.asarray(out[:, 1] - out[:, 0], np.float64)


@torch.inference_mode()
def _logits(network: nn.Module, images: Tensor, mask: Tensor) -> Tensor:
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts = [
        network(a.to(device), b.to(device)).float()
        for a, b in zip(torch.split(images, 64), torch.split(mask, 64), strict=True)
    ]
    network.train(was_training)
    return torch.cat(parts)


class EpochSampler:
    """Draws epochs: the real sequences, balanced, mixed with simulated and composed ones.

    `sequences` are the real, the simulated, then the composed ones; `labels` are their `targets`.
    """

    def __init__(
        self,
        real: Sequence[LabelledSequence],
        simulated: Sequence[LabelledSequence],
        recipe: Recipe,
        seed: int,
        composed: Sequence[LabelledSequence] = (),
    ) -> None:
        simulated = simulated if recipe.simulated else ()
        composed = [s for s in composed if recipe.stage == 1 or s.reliable] if recipe.composed else []
        self.sequences = [*real, *simulated, *composed]
        self.labels = targets(self.sequences, recipe.stage)
        self.reliable = [s for s in self.sequences if s.reliable]
        self._n_real, self._recipe = len(real), recipe
        self._n_simulated = len(simulated)
        self._by_cell = _by_cell(composed, recipe.stage, len(real) + len(simulated))
        self._fixed = (
            None
            if recipe.redraw
            else _balanced(self.labels[: len(real)], recipe.balance, np.random.default_rng(seed))
        )
        self._sampled: dict[int, NDArray[np.int64]] = {}

    def epoch(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the indices of one epoch, shuffled."""
        recipe, n_real = self._recipe, self._n_real
        order = self._fixed
        if order is None:
            order = _balanced(self.labels[:n_real], recipe.balance, rng)
        each = round(recipe.simulated * len(order) / 2)
        labels = self.labels[n_real : n_real + self._n_simulated]
        drawn = [
            rng.choice(n_real + members, min(each, len(members)), replace=False)
            for members in (np.flatnonzero(labels == value) for value in (0, 1))
            if each and len(members)
        ]
        each = round(recipe.composed * len(order) / 2)
        for kinds in self._by_cell.values():
            # Equally many of each kind, so that stage 1 finds equal shares of both.
            for cells in kinds:
                for cell in rng.integers(len(cells), size=round(each / len(kinds))):
                    drawn.append(rng.choice(cells[cell], 1))
        return rng.permutation(np.concatenate([order, *drawn]))

    def plain(self, index: int) -> NDArray[np.uint8]:
        """Return a sequence's K frames; they are chosen once."""
        crops = self.sequences[index].crops
        if index not in self._sampled:
            self._sampled[index] = sample(crops, self._recipe.frames, self._recipe.sampling)
        return crops[self._sampled[index]]


def _by_cell(
    composed: Sequence[LabelledSequence], stage: int, first: int
) -> dict[int, list[list[NDArray[np.int64]]]]:
    """Indices of the composed sequences by class of the stage, by label, and by the cell that flowed."""
    found: dict[int, dict[str, list[int]]] = {}
    for index, sequence in enumerate(composed, start=first):
        found.setdefault(sequence.label, {}).setdefault(sequence.cell, []).append(index)
    out: dict[int, list[list[NDArray[np.int64]]]] = {}
    for label, cells in sorted(found.items()):
        positive = int(label != UNRELIABLE if stage == 1 else label == FLIPPING)
        out.setdefault(positive, []).append([np.asarray(of, np.int64) for of in cells.values()])
    return out


def _balanced(labels: NDArray[np.int64], balance: Balance, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of one epoch, shuffled."""
    classes = [np.flatnonzero(labels == value) for value in (0, 1)]
    rare, frequent = sorted(len(c) for c in classes)
    if balance != "none" and rare:
        size = {"up": frequent, "down": rare, "both": min(frequent, round(_MEET * rare))}[balance]
        classes = [_take(members, size, rng) for members in classes]
    return rng.permutation(np.concatenate(classes))


def _take(members: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    whole = np.tile(members, size // len(members))
    return np.concatenate([whole, rng.choice(members, size - len(whole), replace=False)])


def _batches(
    sampler: EpochSampler, recipe: Recipe, rng: np.random.Generator, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    order = sampler.epoch(rng)
    train, labels, reliable = sampler.sequences, sampler.labels, sampler.reliable
    for start in range(0, len(order), recipe.batch):
        chosen = order[start : start + recipe.batch]
        crops = []
        for index in chosen:
            if not recipe.augment:
                crops.append(sampler.plain(int(index)))
            elif recipe.stage == 1 and not labels[index] and reliable and rng.random() < recipe.spoiled:
                source = reliable[int(rng.integers(len(reliable)))]
                crops.append(spoil(source, train, rng))
            else:
                crops.append(vary(train[index], train, rng, recipe.switched, recipe.shortened))
        images, mask = (torch.from_numpy(part) for part in tensors(crops, recipe))
        if recipe.augment:
            images = jiggle(images, mask, generator)
        yield images, mask, torch.from_numpy(labels[chosen])
