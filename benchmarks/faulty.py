"""What goes wrong on request, for `faults.py`, in the process that makes the camera.

    python benchmarks/faulty.py FAULT MARK live -o DIR ...      # `rbcflow live ...`, in which FAULT happens

A fault happens once; the file MARK is made in that moment.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from napari_rbcflow.classification import batches, two_stage
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.sources.contract import FrameSource
from napari_rbcflow.sources.core_camera import CoreCamera
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.worker import Camera

AT = 150
"""Frames until it happens."""
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.78 GiB of which 10.25 "
    "MiB is free. Process 4242 has 7.10 GiB memory in use.\nSee documentation for Memory Management"
)
BROKEN = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously "
    "reported at some other API call, so the stacktrace below might be incorrect."
)


@dataclass(frozen=True)
class Faulty:
    """A camera in whose process something breaks; an order takes it in a `Camera`'s place."""

    camera: Camera
    fault: str
    mark: Path

    def make(self) -> FrameSource:
        """Return the source, with the fault under way."""
        arm(self.fault, self.mark)
        return self.camera.make()


def arm(fault: str, mark: Path) -> None:
    """Let `fault` happen in this process."""
    if fault.startswith("gpu"):
        pretend_gpu(fault, mark)
    else:
        _raise_once(*RAISING[fault], mark)


RAISING: dict[str, tuple[type, str, Exception]] = {
    "tracking": (Tracker, "process", ZeroDivisionError("injected into tracking")),
    "judging": (two_stage.TwoStage, "judge", ValueError("injected into judging")),
    "ring": (FrameRing, "append", ValueError("injected into the ring")),
    "pop": (CoreCamera, "_pop", RuntimeError('Error in device "Cam": injected into popping a frame (10)')),
}
"""Which method raises what."""


def _raise_once(owner: type, name: str, error: Exception, mark: Path) -> None:
    method: Callable[..., Any] = getattr(owner, name)
    calls = itertools.count(1)
    at = 6 if name == "judge" else AT

    def broken(*given: Any, **named: Any) -> Any:
        if next(calls) < at:
            return method(*given, **named)
        setattr(owner, name, method)
        mark.touch()
        raise error

    setattr(owner, name, broken)


def pretend_gpu(fault: str, mark: Path) -> None:
    """Let a graphics card seem to be here, computed on the CPU, whose network raises what CUDA would.

    ``gpu-warm-up``, ``gpu-first`` (at the first track judged) or ``gpu-later``. From then on whatever asks
    the card raises, as after a fault of a driver.
    """
    real = batches.StageRunner
    calls = itertools.count()
    warm = [fault == "gpu-warm-up"]
    broken: list[Exception] = []

    def before_forward(*_: Any) -> None:
        if not broken and warm[0] and next(calls) >= (40 if fault == "gpu-later" else 0):
            kind = getattr(torch, "AcceleratorError", RuntimeError)
            broken.append(kind(BROKEN) if fault == "gpu-later" else torch.OutOfMemoryError(OUT_OF_MEMORY))
            mark.touch()
        if broken:
            raise broken[0]

    class Pretended(real):  # type: ignore[misc,valid-type]
        def __init__(self, trained: Any, device: torch.device, rows: int, **more: Any) -> None:
            here = torch.device("cpu")
            super().__init__(trained, here, 16 if device.type == "cuda" else rows, **more)
            if device.type == "cuda":
                self._source = batches._OnDevice(trained, here, self.rows)
                for network in trained.networks:
                    for module in network.modules():
                        module.register_forward_pre_hook(before_forward)

    warm_up = two_stage.TwoStage.warm_up

    def warmed_up(self: two_stage.TwoStage) -> None:
        warm_up(self)
        warm[0] = True

    two_stage.StageRunner = Pretended  # type: ignore[misc,attr-defined]
    two_stage.TwoStage.warm_up = warmed_up  # type: ignore[method-assign]
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_name = lambda *_: "pretended"


if __name__ == "__main__":
    from napari_rbcflow.commands import main

    arm(sys.argv[1], Path(sys.argv[2]))
    main(sys.argv[3:])
