"""The networks of a stage: their tensors at once, PyTorch's modules only when somebody asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import NDArray

from napari_rbcflow.classification.networks.measures import USUAL_STRIDES
from napari_rbcflow.sentences import say
from napari_rbcflow.types import CROP_SIDE

if TYPE_CHECKING:
    from torch import nn


class Ensemble(Sequence["nn.Module"]):
    """Networks of one shape, in evaluation mode.

    ONNX Runtime judges on a CPU with the tensors alone, and PyTorch takes a second to import. So the modules
    are made when the first is asked for; that raises where the tensors do not fit.

    Attributes
    ----------
    model : str
        As for `build`; empty for a kind that `build` does not know by itself.
    tensors : sequence of mapping
        One a member, by PyTorch's names.
    """

    def __init__(
        self,
        model: str,
        frames: int,
        options: Mapping[str, Any],
        tensors: Sequence[Mapping[str, NDArray[Any]]],
    ) -> None:
        self.model, self.frames, self.options, self.tensors = model, frames, dict(options), tensors

    @classmethod
    def of(cls, networks: Sequence[nn.Module]) -> Ensemble:
        """Return the tensors of modules; those that change later do not change them."""
        if isinstance(networks, Ensemble):
            return networks
        from napari_rbcflow.classification.networks.blend import Blend, SmallNetwork

        model, options = "", {}
        if {type(network) for network in networks} in ({Blend}, {SmallNetwork}):
            model = "blend" if isinstance(networks[0], Blend) else "small"
            small = networks[0].learned if isinstance(networks[0], Blend) else networks[0]
            options = {"strides": small.strides, "side": small.side}
        states = [network.state_dict() for network in networks]
        tensors = [{key: of.detach().cpu().numpy() for key, of in state.items()} for state in states]
        return cls(model, 0, options, tensors)

    @property
    def strides(self) -> Sequence[int]:
        """Of the convolutions of a blend or a small network."""
        return tuple(self.options.get("strides", USUAL_STRIDES))

    @property
    def edge(self) -> int:
        """How many pixels of each side of a crop these do not look at."""
        return (CROP_SIDE - int(self.options.get("side", CROP_SIDE))) // 2

    def __len__(self) -> int:
        return len(self.tensors)

    @overload
    def __getitem__(self, member: int) -> nn.Module: ...

    @overload
    def __getitem__(self, member: slice) -> Sequence[nn.Module]: ...

    def __getitem__(self, member: int | slice) -> nn.Module | Sequence[nn.Module]:
        return self._modules[member]

    @cached_property
    def _modules(self) -> list[nn.Module]:
        import torch

        from napari_rbcflow.classification.networks.building import build

        modules = []
        for member, tensors in enumerate(self.tensors):
            module = build(self.model, self.frames, self.options)
            own = module.state_dict()
            given = {key: torch.tensor(tensor) for key, tensor in tensors.items()}
            for key, tensor in given.items():
                name = f"{member}.{key}"
                if key not in own:
                    raise ValueError(
                        say("classification.weights-tensor-left-over", tensor=name, members=len(self))
                    )
                if tensor.dtype != own[key].dtype:
                    types = {"found": tensor.dtype, "wanted": own[key].dtype}
                    raise ValueError(say("classification.weights-tensor-type", tensor=name, **types))
            module.load_state_dict(given)
            modules.append(module.eval().requires_grad_(False))
        return modules
