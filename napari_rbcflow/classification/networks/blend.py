"""Two opinions on a track, added: a network that learns what to look at, and measures made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_rbcflow.classification.networks.by_hand import Measures
from napari_rbcflow.classification.networks.small import SmallNetwork

FARTHEST = 5.0
"""Standard deviations at which a measure is cut off: a neighbour in the crop sends some to twenty."""


class Blend(nn.Module):
    """Logits of `SmallNetwork` plus those of two dense layers on `Measures`.

    Each is trained to be right by itself (`opinions`): together they would leave the measures to what the
    network finds easily. Call `standardise` once, before training.

    Parameters
    ----------
    hidden : int
        Units between the measures and their logits.
    **options
        Of the `SmallNetwork`.
    """

    decay_by_hand = 0.1
    """Decoupled weight decay of the measures' layers: some four hundred measures of few hundred cells."""

    centre: Tensor
    spread: Tensor

    def __init__(self, hidden: int = 64, **options: Any) -> None:
        super().__init__()
        self.learned = SmallNetwork(**options)
        self.measures = Measures()
        self.register_buffer("centre", torch.zeros(self.measures.number))
        self.register_buffer("spread", torch.ones(self.measures.number))
        self.by_hand = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(self.measures.number, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, 2),
        )

    @torch.no_grad()
    def standardise(self, images: Tensor, mask: Tensor) -> None:
        """Take each measure's mean and spread from the sequences that are trained on."""
        values = torch.cat(
            [self.measures(a, b) for a, b in zip(torch.split(images, 64), torch.split(mask, 64), strict=True)]
        )
        self.centre.copy_(values.mean(0))
        self.spread.copy_(values.std(0) + 1e-3)

    @torch.no_grad()
    def measure(self, images: Tensor, mask: Tensor) -> Tensor:
        """Measure by hand, in full precision: the same for every member of an ensemble."""
        with torch.autocast(images.device.type, enabled=False):
            measured: Tensor = self.measures(images.float(), mask.float())
        return measured

    def opinions(self, images: Tensor, mask: Tensor, measured: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of either, shape (tracks, 2); `measured` where `measure` was called already."""
        measured = self.measure(images, mask) if measured is None else measured
        standard = ((measured - self.centre) / self.spread).clamp(-FARTHEST, FARTHEST)
        return self.learned(images, mask), self.by_hand(standard)

    def forward(self, images: Tensor, mask: Tensor, measured: Tensor | None = None) -> Tensor:
        learned, by_hand = self.opinions(images, mask, measured)
        return learned + by_hand


def together(networks: Sequence[nn.Module], images: Tensor, mask: Tensor) -> Tensor:
    """Sum of an ensemble's logits, float32 (tracks, 2); what is measured by hand is measured once."""
    first = networks[0]
    measured = first.measure(images, mask) if isinstance(first, Blend) else None
    logits = [
        network(images, mask) if measured is None else network(images, mask, measured) for network in networks
    ]
    return torch.stack([one.float() for one in logits]).sum(0)


def loss_of(network: nn.Module, images: Tensor, mask: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of a network's logits; of a blend, the sum of that of each opinion."""
    opinions = network.opinions(images, mask) if isinstance(network, Blend) else (network(images, mask),)
    losses = [functional.cross_entropy(one, wanted, label_smoothing=smoothing) for one in opinions]
    return torch.stack(losses).sum()
