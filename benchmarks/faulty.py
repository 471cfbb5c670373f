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

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline.messages import Camera
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.sources.base import FrameSource
from napari_rbcflow.sources.camera import CoreCamera
from napari_rbcflow.tracking.tracker import Tracker

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from pretended_card import pretend_card

AT = 150
"""Frames until it happens."""


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
        pretend_card(fault, mark.touch)
    else:
        _raise_once(*RAISING[fault], mark)


RAISING: dict[str, tuple[type, str, Exception]] = {
    "tracking": (Tracker, "process", ZeroDivisionError("injected into tracking")),
    "judging": (TwoStage, "judge", ValueError("injected into judging")),
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


if __name__ == "__main__":
    from napari_rbcflow.cli import main

    arm(sys.argv[1], Path(sys.argv[2]))
    main(sys.argv[3:])
