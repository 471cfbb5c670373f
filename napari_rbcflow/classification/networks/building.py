"""A network by its name: ours and the two of Darrin et al."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import nn

from napari_rbcflow.classification.networks.blend import Blend, SmallNetwork
from napari_rbcflow.classification.networks.papers import ConvolutionalRecurrent, FixedSize
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
