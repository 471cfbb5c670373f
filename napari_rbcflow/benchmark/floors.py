"""Bytes that each step of a frame must move, and operations that a network must do.

Counted is what no way of doing it could avoid: every pixel of the frame and its background read once,
nothing in between written to memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from napari_rbcflow.benchmark.figures import Floor
from napari_rbcflow.classification.networks.blend import together
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.tracking.background import SlidingBackground
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, DEFAULT_FPS

_TRACK_STATE_BYTES = 13 * 8
"""What the linker knows of an open track: 13 numbers."""
_CROP_BYTES = CROP_SIDE * CROP_SIDE


def sliding_background(height: int, width: int) -> Floor:
    """Keep one frame in so many (read, written); each time read all kept ones and write their median."""
    defaults = inspect.signature(SlidingBackground).parameters
    samples, span_s = defaults["samples"].default, defaults["span_s"].default
    spacing = max(1, round(span_s * DEFAULT_FPS / samples))
    return Floor(height * width * (2 + samples + 1) / spacing)


def detection(height: int, width: int) -> Floor:
    """Read the frame and its background once."""
    return Floor(2 * height * width)


def linking(cells: float) -> Floor:
    """Read and write what is known of every track."""
    return Floor(2 * _TRACK_STATE_BYTES * cells)


def refining(pixel_size_um: float, cells: float) -> Floor:
    """Read the pixels of every cell and its background once more."""
    return Floor(2 * cells * _CROP_BYTES * (CROP_PIXEL_SIZE_UM / pixel_size_um) ** 2)


def crops_and_store(pixel_size_um: float, cells: float) -> Floor:
    """Read a crop's pixels of the camera, and write the crop, of every cell."""
    binned = (CROP_PIXEL_SIZE_UM / pixel_size_um) ** 2
    return Floor(cells * _CROP_BYTES * (binned + 1))


def ring(height: int, width: int, cells: float) -> Floor:
    """Read and write the frame and its crops once."""
    return Floor(2 * (height * width + _CROP_BYTES * cells))


def judging(two_stage: TwoStage, crops: Sequence[NDArray[np.uint8]], stage: int) -> Floor:
    """Return the floor of one track of one stage, networks as they are.

    Counted in PyTorch, which tells its operations; on a CPU another runtime does the same ones.
    """
    trained = two_stage.stage1 if stage == 1 else two_stage.stage2
    device = next(trained.networks[0].parameters()).device
    images = torch.zeros((1, trained.frames, CROP_SIDE, CROP_SIDE), device=device)
    mask = torch.ones((1, trained.frames), device=device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        together(trained.networks, images, mask)
    bytes_ = float(np.mean([len(c) for c in crops])) * _CROP_BYTES
    return Floor(bytes_, counter.get_total_flops())
