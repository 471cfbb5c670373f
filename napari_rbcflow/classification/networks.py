"""The networks: the two of Darrin et al. (Table 1), and the small one that keeps up with the flow.

All take ``(images, mask)`` - float32 of shape (tracks, K, 31, 31) and (tracks, K), 1 where there is a
frame - and give logits of shape (tracks, 2). Padded frames come at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_rbcflow.errors import BadInput

Model = Literal["small", "c-rnn", "cnn"]
_CHUNK = 160
"""Frames at a time through the small network's convolutions on a CPU: what stays in a cache, thrice as
fast as 640. A GPU takes all at once."""
MODELS: tuple[str, ...] = get_args(Model)


def build(model: str, frames: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Make a network with random weights.

    Parameters
    ----------
    model : {'small', 'c-rnn', 'cnn'}
    frames : int
        K. Only the CNN's shape depends on it.
    options : mapping, optional
        Widths of the small network.

    Raises
    ------
    BadInput
        For a name that is not one of these.
    """
    if model == "small":
        return SmallNetwork(**dict(options or {}))
    if model == "c-rnn":
        return ConvolutionalRecurrent()
    if model == "cnn":
        return FixedSize(frames)
    raise BadInput(f"There is no model {model!r}; choose one of {', '.join(MODELS)}.")


class ConvolutionalRecurrent(nn.Module):
    """Approach B of Darrin et al.: Table 1 right, a GRU of 64, two dense layers of 64 and 2.

    Sequences shorter than K are not padded in effect: the context is taken after their last frame.
    """

    def __init__(self) -> None:
        super().__init__()
        self.extractor = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 32, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
        )
        self.recurrent = nn.GRU(128 * 11 * 11, 64, batch_first=True)
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        tracks, frames, height, width = images.shape
        maps = self.extractor(images.reshape(tracks * frames, 1, height, width))
        contexts, _ = self.recurrent(maps.reshape(tracks, frames, -1))
        last = mask.sum(1).long().clamp(min=1) - 1
        context = contexts[torch.arange(tracks, device=images.device), last]
        logits: Tensor = self.head(context)
        return logits


class _Residual(nn.Module):
    """Two 3 x 3 convolutions and the way around them (He et al., CVPR 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.around = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, maps: Tensor) -> Tensor:
        out = functional.relu(self.first_norm(self.first(maps)))
        out = self.second_norm(self.second(out))
        return functional.relu(out + self.around(maps))


class FixedSize(nn.Module):
    """Approach A of Darrin et al.: ResNet-18 whose input channels are the K frames, black at the end.

    Table 1 prints stride 2 for all four blocks and a last layer of 1000; ResNet-18 as cited has stride 1
    in its first block, which is built here, and the last layer has the two classes.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.stem = nn.Sequential(
            nn.Conv2d(frames, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        self.blocks = nn.Sequential(
            *(nn.Sequential(_Residual(a, b, stride), _Residual(b, b, 1)) for a, b, stride in widths)
        )
        self.head = nn.Linear(512, 2)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        maps = self.blocks(self.stem(images * mask[:, :, None, None]))
        logits: Tensor = self.head(maps.mean((2, 3)))
        return logits


class SmallNetwork(nn.Module):
    """Ours: light strided convolutions on every frame, then what stays, what changes and what stands out.

    Each frame is seen beside its deviation from the track's mean picture, so that a turn, a neighbour and
    a change of focus show at once. Over time a bidirectional GRU follows the change; mean, spread and
    maximum of the frames' features and of its states go to the head. No running statistics: a track's
    logits depend on nothing but the track.

    Parameters
    ----------
    widths : tuple of int
        Channels of the three convolutions.
    features : int
        Features of a frame.
    hidden : int
        States of the GRU in each direction; 0 leaves it out.
    dropout : float
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (16, 32, 48),
        features: int = 48,
        hidden: int = 32,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.extractor = nn.Sequential(
            nn.Conv2d(2, first, 3, 2, 1),  # 31 -> 16
            nn.ReLU(),
            nn.Conv2d(first, second, 3, 2, 1),  # 16 -> 8
            nn.ReLU(),
            nn.Conv2d(second, third, 3, 2, 1),  # 8 -> 4
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(third * 16, features),
        )
        self.norm = nn.LayerNorm(features)
        self.forth = nn.GRU(features, hidden, batch_first=True) if hidden else None
        self.back = nn.GRU(features, hidden, batch_first=True) if hidden else None
        width = 3 * (features + 2 * hidden)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 2)
        )

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
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


def n_parameters(network: nn.Module) -> int:
    """How many numbers training sets."""
    return sum(parameter.numel() for parameter in network.parameters())
