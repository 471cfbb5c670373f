"""What is compiled before the first frame must not cost more than the frames that come."""

from __future__ import annotations

import tracemalloc

import pytest

from napari_rbcflow.tracking.crops import _resample
from napari_rbcflow.tracking.warming import warm_up


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
