"""What is compiled before the first frame must not cost more than the frames that come."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from numba.core.dispatcher import Dispatcher

from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.tracking.background import SlidingBackground
from napari_rbcflow.tracking.crops import _resample
from napari_rbcflow.tracking.tracker import Tracker, warm_up


@pytest.mark.parametrize("pixel_size_um", [0.05, 0.075, 0.31, 2.42, 5.0])
def test_warming_costs_little_whatever_the_pixel(pixel_size_um: float) -> None:
    warm_up(pixel_size_um)
    assert _resample.signatures  # the way of every pixel but the reference's own
    tracemalloc.start()
    try:
        warm_up(pixel_size_um)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.slow
def test_nothing_is_compiled_once_frames_come() -> None:
    """On a new machine a kernel takes seconds to compile, and a camera's frames are dropped meanwhile."""
    settings = ChamberSettings(seconds=2.5, seed=4, height=384, width=640, cells_per_frame=30)

    def compiled() -> dict[str, int]:
        ours = (o for o in gc.get_objects() if issubclass(type(o), Dispatcher))  # no dead proxy is asked
        return {
            f"{o.py_func.__module__}.{o.py_func.__name__}": len(o.signatures)
            for o in ours
            if o.py_func.__module__.startswith("napari_rbcflow.tracking")
        }

    warm_up(settings.pixel_size_um)
    before = compiled()
    background = SlidingBackground(384, 640, fps=60)
    tracker = Tracker(384, 640, fps=60, pixel_size_um=settings.pixel_size_um, background=background)
    source = SimulatedChamber(settings, paced=False)
    with source:
        tracks = [track for frame in source.frames() for track in tracker.process(frame)]
    assert len(tracks) > 10
    assert compiled() == before
