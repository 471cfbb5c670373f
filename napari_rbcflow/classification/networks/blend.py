"""Our network: what it learns to look at, and measures made by hand, added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_rbcflow.classification.networks.handcrafted import HandcraftedFeatures
from napari_rbcflow.types import CROP_SIDE

_CHUNK = 160
"""Frames at a time through the small network's convolutions on a CPU: what stays in a cache, thrice as
fast as 640. A GPU takes all at once."""


class SmallNetwork(nn.Module):
    """Ours: light strided convolutions on every frame, then what stays, what changes and what stands out.

    Each frame is seen beside its deviation from the track's mean picture, so that a turn, a neighbour and
    a change of focus show at once. Over time a bidirectional GRU follows the change; mean, spread and
    maximum of the frames' features and of its states go to the head. No running statistics: a track's
    logits depend on nothing but the track.

    Parameters
    ----------
    widths : sequence of int
        Channels of the convolutions.
    strides : sequence of int
        Of the same; finer first steps see more of what goes on inside a cell, and cost more.
    side : int
        Side of the middle that is looked at, in pixels, odd.
    features : int
        Features of a frame.
    hidden : int
        States of the GRU in each direction; 0 leaves it out.
    dropout : float
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 48),
        features: int = 48,
        hidden: int = 32,
        dropout: float = 0.3,
        strides: Sequence[int] = (2, 2, 2),
        side: int = CROP_SIDE,
    ) -> None:
        super().__init__()
        self._edge = (CROP_SIDE - side) // 2
        layers: list[nn.Module] = []
        channels = 2
        for width, stride in zip(widths, strides, strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.ReLU()]
            channels, side = width, -(-side // stride)
        self.extractor = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, features))
        self.norm = nn.LayerNorm(features)
        self.forth = nn.GRU(features, hidden, batch_first=True) if hidden else None
        self.back = nn.GRU(features, hidden, batch_first=True) if hidden else None
        width = 3 * (features + 2 * hidden)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 2)
        )

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        if self._edge:
            images = images[:, :, self._edge : -self._edge, self._edge : -self._edge]
        tracks, frames, height, width = images.shape
        weight = mask[:, :, None]
        count = mask.sum(1).clamp(min=1)[:, None]
        mean = (images * weight[..., None]).sum(1, keepdim=True) / count[:, :, None, None]
        both = torch.stack([images, images - mean], 2).reshape(tracks * frames, 2, height, width)
        chunk = _CHUNK if both.device.type == "cpu" else len(both)
        maps = torch.cat([self.extractor(some) for some in torch.split(both, chunk)])
        features = functional.relu(self.norm(maps)).reshape(tracks, frames, -1)
        seen = [features]
        if self.forth is not None:
            seen.append(self._follow(features * weight, mask.sum(1).long()))
        both_seen = torch.cat(seen, 2)
        average = (both_seen * weight).sum(1) / count
        spread = (((both_seen - average[:, None]) ** 2 * weight).sum(1) / count + 1e-4).sqrt()
        highest = both_seen.masked_fill(weight == 0, -1e4).amax(1).clamp(min=-10)
        logits: Tensor = self.head(torch.cat([average, spread, highest], 1))
        return logits

    def _follow(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Run the GRU both ways; the way back starts at a track's own last frame, not in the padding.

        Shapes stay fixed (no packing), so that what else is in the batch cannot change a track's numbers.
        """
        assert self.forth is not None
        assert self.back is not None
        steps = torch.arange(features.shape[1], device=features.device)[None]
        turned = (lengths[:, None] - 1 - steps).where(steps < lengths[:, None], steps)[:, :, None]
        forth, _ = self.forth(features)
        back, _ = self.back(features.gather(1, turned.expand_as(features)))
        return torch.cat([forth, back.gather(1, turned.expand_as(back))], 2)


FARTHEST = 5.0
"""Standard deviations at which a measure is cut off: a neighbour in the crop sends some to twenty."""


class Blend(nn.Module):
    """Logits of `SmallNetwork` plus those of two dense layers on `HandcraftedFeatures`.

    Each is trained to be right by itself (`branch_logits`): together they would leave the measures to what the
    network finds easily. Call `standardise` once, before training.

    Parameters
    ----------
    hidden : int
        Units between the measures and their logits.
    **options
        Of the `SmallNetwork`.
    """

    handcrafted_decay = 0.1
    """Decoupled weight decay of the measures' layers: some four hundred measures of few hundred cells."""

    centre: Tensor
    spread: Tensor

    def __init__(self, hidden: int = 64, **options: Any) -> None:
        super().__init__()
        self.learned = SmallNetwork(**options)
        self.measures = HandcraftedFeatures()
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

    def branch_logits(
        self, images: Tensor, mask: Tensor, measured: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of either, shape (tracks, 2); `measured` where `measure` was called already."""
        measured = self.measure(images, mask) if measured is None else measured
        standard = ((measured - self.centre) / self.spread).clamp(-FARTHEST, FARTHEST)
        return self.learned(images, mask), self.by_hand(standard)

    def forward(self, images: Tensor, mask: Tensor, measured: Tensor | None = None) -> Tensor:
        learned, by_hand = self.branch_logits(images, mask, measured)
        return learned + by_hand


def ensemble_logits(networks: Sequence[nn.Module], images: Tensor, mask: Tensor) -> Tensor:
    """Sum of an ensemble's logits, float32 (tracks, 2); what is measured by hand is measured once."""
    first = networks[0]
    measured = first.measure(images, mask) if isinstance(first, Blend) else None
    logits = [
        network(images, mask) if measured is None else network(images, mask, measured) for network in networks
    ]
    return torch.stack([one.float() for one in logits]).sum(0)


def loss_of(network: nn.Module, images: Tensor, mask: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of a network's logits; of a blend, the sum of that of each opinion."""
    branch_logits = (
        network.branch_logits(images, mask) if isinstance(network, Blend) else (network(images, mask),)
    )
    losses = [functional.cross_entropy(one, wanted, label_smoothing=smoothing) for one in branch_logits]
    return torch.stack(losses).sum()
