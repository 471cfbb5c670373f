"""Compile beforehand what the first frames of a camera would have to wait for."""

from __future__ import annotations

import numpy as np

from napari_rbcflow.tracking.background import MovieBackground
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, Frame

_HEIGHT, _WIDTH, _FRAMES, _STEP_PX = 128, 512, 30, 15.0
_MOST_SCALE = 2.0
"""Smaller or greater pixels take the same way through the same kernels as these, at many times the cost."""


def warm_up(pixel_size_um: float = CROP_PIXEL_SIZE_UM) -> None:
    """Track three made-up cells, so that every kernel is compiled (on a new machine: some ten seconds).

    Parameters
    ----------
    pixel_size_um : float
        Of the frames that will come: crops take another way where it is not `CROP_PIXEL_SIZE_UM`. The
        made-up frames have it too, between half and twice that.
    """
    rng = np.random.default_rng(0)
    scale = float(np.clip(CROP_PIXEL_SIZE_UM / pixel_size_um, 1 / _MOST_SCALE, _MOST_SCALE))
    pixel_size_um = CROP_PIXEL_SIZE_UM / scale
    height, width = round(_HEIGHT * scale), round(_WIDTH * scale)
    y, x = np.mgrid[:height, :width] / scale
    images = np.empty((_FRAMES, height, width), np.uint8)
    for t in range(_FRAMES):
        grey = 120 + rng.normal(0, 1.8, (height, width))
        # The last is hidden once, so that what fills the gap is compiled, too.
        for cell in range(2 if t == 1 else 3):
            r2 = (y - 30 - 35 * cell) ** 2 + (x - 5 - 40 * cell - _STEP_PX * t) ** 2
            grey += 25 * np.exp(-r2 / 18) - 10 * np.exp(-((np.sqrt(r2) - 6) ** 2) / 4)
        images[t] = np.clip(grey, 0, 255)
    tracker = Tracker(
        height, width, fps=60.0, pixel_size_um=pixel_size_um, background=MovieBackground(images)
    )
    for t, image in enumerate(images):
        tracker.process(Frame(t, t / 60, image))
    tracker.finish("source-ended")
