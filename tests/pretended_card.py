"""A graphics card that is not there: the CPU computes what it is asked for, until it breaks as CUDA does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from napari_rbcflow.classification import batches, gpu, two_stage

OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.78 GiB of which 10.25 "
    "MiB is free. Process 4242 has 7.10 GiB memory in use.\nSee documentation for Memory Management"
)
BROKEN = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously "
    "reported at some other API call, so the stacktrace below might be incorrect."
)
ROWS = 16
"""Of a batch: a card's 256 would take the CPU long."""
LATER = 40
"""Calls of a network's parts before it breaks in mid run: some of a batch, after others were judged."""


def pretend_card(
    fault: str,
    broke: Callable[[], None] = lambda: None,
    put: Callable[[object, str, Any], None] = setattr,
) -> None:
    """Let a card seem to be here, whose networks run as they are, and raise what CUDA would.

    Parameters
    ----------
    fault : {'gpu-warm-up', 'gpu-first', 'gpu-later'}
        Out of memory in warm-up, or at the first track judged; an error of CUDA's in mid run. From then on
        whatever asks the card raises, as after a fault of a driver.
    broke : callable
        Told when it breaks.
    put : callable
        `setattr`, or one that puts back.
    """
    calls = itertools.count()
    armed = [fault == "gpu-warm-up"]
    broken: list[Exception] = []
    at = LATER if fault == "gpu-later" else 0

    def before_forward(*_: Any) -> None:
        if not broken and armed[0] and next(calls) >= at:
            kind = getattr(torch, "AcceleratorError", RuntimeError)
            broken.append(kind(BROKEN) if fault == "gpu-later" else torch.OutOfMemoryError(OUT_OF_MEMORY))
            broke()
        if broken:
            raise broken[0]

    class Pretended(batches.StageRunner):
        def __init__(self, trained: Any, device: str, rows: int, **more: Any) -> None:
            card = device == "cuda"
            super().__init__(trained, "cpu", ROWS if card else rows, **more)
            if card:
                self._source = gpu.GpuBatches(trained, "cpu", self.rows)
                self._onnx = None
                for network in trained.networks:
                    for module in network.modules():
                        module.register_forward_pre_hook(before_forward)

    warm_up = two_stage.TwoStage.warm_up

    def warmed_up(self: two_stage.TwoStage) -> None:
        warm_up(self)
        armed[0] = True

    put(two_stage, "StageRunner", Pretended)
    put(two_stage.TwoStage, "warm_up", warmed_up)
    put(torch.cuda, "is_available", lambda: True)
    put(torch.cuda, "get_device_name", lambda *_: "pretended")
