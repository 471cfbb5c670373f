"""A network by its name: ours, and the C-RNN and the CNN of Darrin et al. (2023), Table 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_rbcflow.classification.networks.blend import Blend, SmallNetwork
from napari_rbcflow.errors import BadInput

Model = Literal["blend", "small", "c-rnn", "cnn"]
MODELS: tuple[str, ...] = get_args(Model)


def build(model: str, frames: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Make a network with random weights; only the CNN's shape depends on K, the number of frames.

    The options are those of `Blend` or `SmallNetwork`.
    """
    if model == "blend":
        return Blend(**dict(options or {}))
    if model == "small":
        return SmallNetwork(**dict(options or {}))
    if model == "c-rnn":
        return ConvolutionalRecurrent()
    if model == "cnn":
        return FixedSize(frames)
    raise BadInput("classification.no-model", model=model, models=", ".join(MODELS))


def n_parameters(network: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


class ConvolutionalRecurrent(nn.Module):
    """Approach B of Darrin et al.: Table 1 right, a GRU of 64, two dense layers of 64 and 2.

    Padding has no effect: the context is taken after a sequence's last frame.
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
    """Two 3 x 3 convolutions and the shortcut around them (He et al., CVPR 2016)."""

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
