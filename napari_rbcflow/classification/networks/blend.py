"""Our network: logits from learned features plus logits from handcrafted features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_rbcflow.classification.networks.handcrafted import HandcraftedFeatures
from napari_rbcflow.classification.networks.measures import FARTHEST, USUAL_STRIDES
from napari_rbcflow.types import CROP_SIDE

# Frames at a time through the convolutions on a CPU: they stay in the cache, three times as fast as 640.
# A GPU takes all at once.
_CHUNK = 160


class SmallNetwork(nn.Module):
    """Strided convolutions on every frame, a bidirectional GRU over time, then mean, spread and maximum.

    Each frame is shown with its deviation from the track's mean image, so that a turn, a neighbour and a
    change of focus are visible at once. There are no running statistics: a track's logits depend on the track
    alone.

    `widths` and `strides` are those of the convolutions (finer first steps show more of the inside of a cell,
    and cost more), `side` the odd side of the central square that is used, in pixels, `features` the features
    of a frame, and `hidden` the states of the GRU in each direction; 0 leaves it out.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 48),
        features: int = 48,
        hidden: int = 32,
        dropout: float = 0.3,
        strides: Sequence[int] = USUAL_STRIDES,
        side: int = CROP_SIDE,
    ) -> None:
        super().__init__()
        self.strides, self.side = tuple(strides), side
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
        """Run the GRU in both directions, backwards from a track's own last frame.

        Shapes stay fixed (no packing), so that the rest of the batch cannot change a track's logits.
        """
        assert self.forth is not None
        assert self.back is not None
        steps = torch.arange(features.shape[1], device=features.device)[None]
        turned = (lengths[:, None] - 1 - steps).where(steps < lengths[:, None], steps)[:, :, None]
        forth, _ = self.forth(features)
        back, _ = self.back(features.gather(1, turned.expand_as(features)))
        return torch.cat([forth, back.gather(1, turned.expand_as(back))], 2)


class Blend(nn.Module):
    """Logits of `SmallNetwork` plus those of two dense layers on `HandcraftedFeatures`.

    Each branch is trained to be right by itself (`branch_logits`); trained on their sum, one would leave the
    easy part to the other. Call `standardise` once, before training. `hidden` units are between the features
    and their logits; the `options` are those of the `SmallNetwork`.
    """

    # Decoupled weight decay of the features' layers: about four hundred features of a few hundred cells.
    handcrafted_decay = 0.1

    centre: Tensor
    spread: Tensor

    def __init__(self, hidden: int = 64, **options: Any) -> None:
        super().__init__()
        self.learned = SmallNetwork(**options)
        self.handcrafted = HandcraftedFeatures()
        self.register_buffer("centre", torch.zeros(self.handcrafted.number))
        self.register_buffer("spread", torch.ones(self.handcrafted.number))
        self.by_hand = nn.Sequential(  # its name is in every weight file
            nn.Dropout(0.2),
            nn.Linear(self.handcrafted.number, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, 2),
        )

    @torch.no_grad()
    def standardise(self, images: Tensor, mask: Tensor) -> None:
        """Take each feature's mean and spread from the training sequences."""
        parts = zip(torch.split(images, 64), torch.split(mask, 64), strict=True)
        values = torch.cat([self.handcrafted(a, b) for a, b in parts])
        self.centre.copy_(values.mean(0))
        self.spread.copy_(values.std(0) + 1e-3)

    @torch.no_grad()
    def features(self, images: Tensor, mask: Tensor) -> Tensor:
        """Handcrafted features in full precision, the same for every member of an ensemble."""
        with torch.autocast(images.device.type, enabled=False):
            features: Tensor = self.handcrafted(images.float(), mask.float())
        return features

    def branch_logits(
        self, images: Tensor, mask: Tensor, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of each branch, (tracks, 2); `features` if they were computed already."""
        features = self.features(images, mask) if features is None else features
        standard = ((features - self.centre) / self.spread).clamp(-FARTHEST, FARTHEST)
        return self.learned(images, mask), self.by_hand(standard)

    def forward(self, images: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        learned, handcrafted = self.branch_logits(images, mask, features)
        return learned + handcrafted


def ensemble_logits(networks: Sequence[nn.Module], images: Tensor, mask: Tensor) -> Tensor:
    """Sum of an ensemble's logits, float32 (tracks, 2); the members share the handcrafted features."""
    first = networks[0]
    shared = (first.features(images, mask),) if isinstance(first, Blend) else ()
    return torch.stack([network(images, mask, *shared).float() for network in networks]).sum(0)


def loss_of(network: nn.Module, images: Tensor, mask: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of a network's logits; of a blend, the sum of those of its branches."""
    if isinstance(network, Blend):
        branches: Sequence[Tensor] = network.branch_logits(images, mask)
    else:
        branches = [network(images, mask)]
    losses = [functional.cross_entropy(one, wanted, label_smoothing=smoothing) for one in branches]
    return torch.stack(losses).sum()
