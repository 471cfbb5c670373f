"""Fit one network: batches, balance, learning rate, best epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
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

PAPERS_RATES = (1e-4, 1e-3)
"""Between these the rates of Darrin et al. lay, "for various layers in the network"."""
_SANE = (1e-4, 1e-2)
_LOW_TO_HIGH = 4.0
"""Smith (arXiv 1506.01186), section 3.3: the lower end is a third or a quarter of the upper."""
_EPOCHS_UP = 2
"""The same: half a cycle lasts two to ten epochs."""


def make_optimiser(
    network: nn.Module, rate: float, schedule: Schedule, decay: float, epochs: int, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return Adam and the schedule of its rate, which is to be stepped after every batch.

    ``one-cycle``: up to `rate` and down to nothing, once (Smith, arXiv 1803.09820). ``triangular``: up and
    down between a quarter of the peak and the peak, half a cycle in two epochs (Smith, arXiv 1506.01186);
    the peaks of the layers rise evenly on a log scale from 1e-4 for the first to `rate` for the last, as
    the paper's lay between 1e-4 and 1e-3 "for various layers".

    Parameters
    ----------
    network : Module
    rate : float
        The highest.
    schedule : {'one-cycle', 'triangular'}
    decay : float
        Weight decay of Adam; the measures of a `Blend` have their own.
    epochs, steps : int
        `steps` batches make an epoch.
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
    """Raise the rate on a copy while watching the loss: the range test of Smith (arXiv 1506.01186).

    For ``one-cycle``, from 1e-5 to 1e-1, a third of the rate at which the loss fell fastest, kept within the
    1e-4 to 1e-2 in which it is sane here. For ``triangular``, from 1e-5 to 1e-2, the rate up to which the
    loss fell, the upper end of Smith's cycle, kept within the paper's 1e-4 to 1e-3.

    Parameters
    ----------
    network : Module
        Not changed.
    batches : callable
        Gives an epoch of (images, mask, wanted).
    schedule : {'one-cycle', 'triangular'}
    steps : int
        Batches to try, each with a higher rate.
    """
    papers = schedule == "triangular"
    low, high = PAPERS_RATES if papers else _SANE
    trial = copy.deepcopy(network)
    device = next(trial.parameters()).device
    optimiser = torch.optim.Adam(trial.parameters())
    steps = steps * 3 // 4 if papers else steps  # a quarter of the four decades is not tried
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
Stage = Literal[1, 2]

_MEET = 5000 / 3779
"""Where the paper's classes meet: 5,000 of 69,071 unreliable, and as many of the 3,779 reliable."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; written into its card.

    Attributes
    ----------
    stage : {1, 2}
        1: reliable or not; 2: flipping or tank-treading.
    model : {'blend', 'small', 'c-rnn', 'cnn'}
    sampling : {'uniform', 'similarity'}
    frames : int
        K.
    scale : {'level', 'grey'}
        What the network sees: share of the background's light, or grey / 255 as in the paper.
    epochs, batch : int
    learning_rate : float or None
        Peak of the cycle; None finds it (`find_learning_rate`).
    schedule : {'one-cycle', 'triangular'}
        How the rate goes (`make_optimiser`); the paper's is the second.
    balance : {'up', 'down', 'both', 'none'}
        Copy the rare class, leave out of the frequent one, do both so that they meet at 1.32 times the
        rare class as in the paper, or neither.
    redraw : bool
        Choose copies and left-out sequences anew for each epoch; False: once, as in the paper.
    augment : bool
    spoiled : float
        Share of the unreliable sequences of an epoch that are made from reliable ones (stage 1).
    switched : float
        Share of sequences that get another cell's frames at one end (`augmenting.ending_elsewhere`).
    shortened : float
        Chance that a sequence is cut in time (`augmenting.vary`).
    simulated : float
        How many sequences of the simulated chamber are added to an epoch, as a share of the real ones.
    composed : float
        The same of tracks that our own tracker cut out of composed movies (`training.composed`).
    smoothing : float
        Label smoothing of the cross-entropy.
    decay : float
        Weight decay of Adam; 0 as in the paper.
    clip : float
        Longest gradient; 0 does not clip, as in the paper.
    options : dict
        Of the network (`Blend`, `SmallNetwork`).
    """

    stage: Stage
    model: str = "small"
    sampling: Sampling = "similarity"
    frames: int = 20
    scale: Scale = "level"
    epochs: int = 40
    batch: int = 32
    learning_rate: float | None = None
    schedule: Schedule = "one-cycle"
    balance: Balance = "up"
    redraw: bool = True
    augment: bool = True
    spoiled: float = 0.0
    switched: float = 0.0
    shortened: float = 0.4
    simulated: float = 0.0
    composed: float = 0.0
    smoothing: float = 0.0
    decay: float = 0.0
    clip: float = 5.0
    options: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def targets(sequences: Sequence[LabelledSequence], stage: Stage) -> NDArray[np.int64]:
    """Return 1 for reliable (stage 1) or flipping (stage 2), else 0; shape (n,), int64."""
    if stage == 1:
        return np.asarray([int(s.reliable) for s in sequences], np.int64)
    return np.asarray([int(s.label == FLIPPING) for s in sequences], np.int64)


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
) -> Fitted:
    """Train one network and keep its best epoch by validation loss, or the last without validation.

    Cross-entropy, Adam, and a learning rate that cycles as the recipe says, once or as in the paper.

    Parameters
    ----------
    train, validation : sequence of LabelledSequence
    recipe : Recipe
    seed : int
    device : torch.device, optional
        CPU by default.
    progress : callable, optional
        Called after each epoch with epoch, epochs and training loss.
    simulated : sequence of LabelledSequence
        Drawn from, class-balanced, as `Recipe.simulated` says.
    composed : sequence of LabelledSequence
        Drawn from as `Recipe.composed` says, every cell that flowed as often as another of its label.
    """
    device = device or torch.device("cpu")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = build(recipe.model, recipe.frames, recipe.options).to(device)
    if recipe.model == "c-rnn":  # the same sums in another order of memory, a quarter faster on a CPU
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(network, Blend):
        network.standardise(
            *(torch.from_numpy(a).to(device) for a in tensors([s.crops for s in train], recipe))
        )
    drawing = EpochSampler(train, simulated, recipe, seed, composed)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return _batches(drawing, recipe, rng, generator)

    rate = recipe.learning_rate or find_learning_rate(network, batches, recipe.schedule)
    steps = math.ceil(len(drawing.epoch(np.random.default_rng(0))) / recipe.batch)
    optimiser, cycle = make_optimiser(network, rate, recipe.schedule, recipe.decay, recipe.epochs, steps)
    held = _held_out(validation, recipe, device)
    best, best_epoch, best_state = math.inf, recipe.epochs, None
    train_loss: list[float] = []
    validation_loss: list[float] = []
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        total, seen = 0.0, 0
        for images, mask, wanted in batches():
            loss = loss_of(network, images.to(device), mask.to(device), wanted.to(device), recipe.smoothing)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimiser.step()
            cycle.step()
            total, seen = total + float(loss.detach()) * len(wanted), seen + len(wanted)
        train_loss.append(total / max(1, seen))
        if not math.isfinite(train_loss[-1]):
            raise RunFailed(f"The training of seed {seed} ran away in epoch {epoch}; give another seed.")
        if held is not None:
            loss_now = float(functional.cross_entropy(_logits(network, held[0], held[1]), held[2]))
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
    """Difference of the two logits for each sequence, positive for the positive class; shape (n,)."""
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


def _held_out(
    validation: Sequence[LabelledSequence], recipe: Recipe, device: torch.device
) -> tuple[Tensor, Tensor, Tensor] | None:
    if not validation:
        return None
    images, mask = tensors([s.crops for s in validation], recipe)
    wanted = torch.from_numpy(targets(validation, recipe.stage))
    return torch.from_numpy(images), torch.from_numpy(mask), wanted.to(device)


class EpochSampler:
    """What an epoch is made of: the real sequences balanced, and some simulated and composed ones among them.

    Attributes
    ----------
    sequences : list of LabelledSequence
        The real ones, then the simulated, then the composed.
    labels : ndarray of int64, shape (n,)
        `targets` of them.
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
            # Of either kind as many: what is found of one must be found of the other.
            for cells in kinds:
                for cell in rng.integers(len(cells), size=round(each / len(kinds))):
                    drawn.append(rng.choice(cells[cell], 1))
        together = np.concatenate([order, *drawn])
        return together[rng.permutation(len(together))]

    def plain(self, index: int) -> NDArray[np.uint8]:
        """Return a sequence's K frames; which they are is worked out once."""
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
        cell = sequence.name.split("~")[0]
        found.setdefault(sequence.label, {}).setdefault(cell, []).append(index)
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
    together = np.concatenate(classes)
    return together[rng.permutation(len(together))]


def _take(members: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    whole = np.tile(members, size // len(members))
    return np.concatenate([whole, rng.choice(members, size - len(whole), replace=False)])


def _batches(
    drawing: EpochSampler, recipe: Recipe, rng: np.random.Generator, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    order = drawing.epoch(rng)
    train, labels, reliable = drawing.sequences, drawing.labels, drawing.reliable
    for start in range(0, len(order), recipe.batch):
        chosen = order[start : start + recipe.batch]
        crops = []
        for index in chosen:
            if not recipe.augment:
                crops.append(drawing.plain(int(index)))
            elif recipe.stage == 1 and not labels[index] and reliable and rng.random() < recipe.spoiled:
                source = reliable[int(rng.integers(len(reliable)))]
                crops.append(spoil(source, train, rng))
            else:
                crops.append(vary(train[index], train, rng, recipe.switched, recipe.shortened))
        images, mask = (torch.from_numpy(part) for part in tensors(crops, recipe))
        if recipe.augment:
            images = jiggle(images, mask, generator)
        yield images, mask, torch.from_numpy(labels[chosen])
