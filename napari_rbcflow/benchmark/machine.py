"""What this machine is, how fast its memory and arithmetic are at best, and what each step must move."""

from __future__ import annotations

import inspect
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from napari_rbcflow.benchmark.report import Floor
from napari_rbcflow.classification import TwoStage
from napari_rbcflow.classification.networks.blend import ensemble_logits
from napari_rbcflow.tracking import SlidingBackground
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, DEFAULT_FPS
from napari_rbcflow.version import __version__

_PACKAGES = ("numpy", "numba", "onnxruntime", "opencv-python-headless", "scipy", "torch", "zarr")
_TRIES = 7
_SIDE = 512
"""Of the matrices multiplied: large enough to keep the arithmetic busy, small enough to stay in the cache."""


def facts() -> dict[str, Any]:
    """Return what a reader must know of the machine; loads are as they are now."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "cores_allowed": allowed,
        "load": round(psutil.getloadavg()[0], 2),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), "napari-rbcflow": __version__, **_versions()},
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def cpu_name() -> str:
    """Return the processor's name as its maker wrote it, or the best that the system says."""
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(
            winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        ) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    return platform.processor() or platform.machine()


def bandwidth_gb_per_s(block_bytes: int) -> float:
    """Return the bytes, read and written together, that one thread copies a second: the best of some."""
    source = np.ones(block_bytes, np.uint8)
    to = np.zeros_like(source)
    best = 0.0
    for _ in range(_TRIES):
        start = time.perf_counter()
        np.copyto(to, source)
        best = max(best, 2 * block_bytes / (time.perf_counter() - start) / 1e9)
    return best


def gflop_per_s() -> float:
    """Return the floating-point operations (32 bit, in 1e9) that one thread does a second, at best."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
        best = 0.0
        for _ in range(3 * _TRIES):
            start = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * _SIDE**3 / (time.perf_counter() - start) / 1e9)
    finally:
        torch.set_num_threads(before)
    return best


def resident_mb() -> float:
    """Return the memory that this process holds now, in MB (1e6 bytes)."""
    return float(psutil.Process().memory_info().rss) / 1e6


def peak_mb() -> float:
    """Return the most that it ever held, in MB."""
    if sys.platform == "linux":
        # getrusage would give the parent's where that was larger when this process was launched.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


_TRACK_STATE_BYTES = 13 * 8  # what the linker knows of an open track: 13 numbers
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
        ensemble_logits(trained.networks, images, mask)
    bytes_ = float(np.mean([len(c) for c in crops])) * _CROP_BYTES
    return Floor(bytes_, counter.get_total_flops())
