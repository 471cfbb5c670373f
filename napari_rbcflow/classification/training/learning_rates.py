"""Learning rates: how high, and how they go up and down during a training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_rbcflow.classification.networks.blend import Blend

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
            "weight_decay": network.decay_by_hand,
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
