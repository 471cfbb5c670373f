"""Run one stage over sequences in batches of one shape: on a CPU with ONNX Runtime, on a GPU with PyTorch.

The last batch is padded, so that a track's probabilities do not depend on what else is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_rbcflow.classification import gpu
from napari_rbcflow.classification.networks.blend import ensemble_logits
from napari_rbcflow.classification.onnx_graph import OnnxNetworks, is_supported
from napari_rbcflow.classification.sampling import sample, scaled
from napari_rbcflow.classification.weight_files import TrainedStage
from napari_rbcflow.types import CROP_SIDE

# The most frames of a track that a GPU takes; the paper's longest have 60. The CPU reduces longer ones.
LONGEST = 64
_STEP = 16  # lengths sent to a GPU are rounded up to this: few shapes, so that memory is allocated once
# In calibrated logits: what half precision finds closer to a threshold than this is judged again in full
# precision. The error of half precision is at most 0.004 (docs/decisions/classification.md).
MARGIN = 0.05


class StageRunner:
    """One stage on one device, with its buffers; not for two threads at once.

    `rows` sequences make a batch; `mixed` is half precision, on a GPU only; `threads` are those of ONNX
    Runtime, the caller sets PyTorch's.
    """

    def __init__(
        self, trained: TrainedStage, device: torch.device, rows: int, *, mixed: bool = False, threads: int = 1
    ) -> None:
        self.trained, self.rows = trained, rows
        self._device = device
        self._mixed = mixed and device.type == "cuda"
        for network in trained.networks:
            network.to(device)
        self._source = (
            _GpuBatches(trained, device, rows) if device.type == "cuda" else _CpuBatches(trained, rows)
        )
        # The paper's networks stay in PyTorch.
        self._onnx = (
            OnnxNetworks(trained.networks, rows, trained.frames, threads)
            if device.type == "cpu" and is_supported(trained.networks)
            else None
        )

    def probabilities(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Probability of the positive class, rounded to four decimals, of each sequence."""
        frames = [len(c) for c in crops]
        p = self.trained.probability(self._logits(crops, self._mixed), frames)
        if self._mixed:
            near = near_threshold(self.trained, p)
            if len(near):
                p[near] = self.trained.probability(
                    self._logits([crops[i] for i in near], False), [frames[i] for i in near]
                )
        return p

    def _logits(self, crops: Sequence[NDArray[np.uint8]], half: bool) -> NDArray[np.float64]:
        """Return each sequence's logit difference, averaged over the members."""
        if not len(crops):
            return np.zeros(0, np.float64)
        if self._onnx is not None and not half:
            return self._logits_by_onnx(self._onnx, crops)
        parts = []
        with torch.inference_mode(), _exact(self._device):
            for first in range(0, len(crops), self.rows):
                some = crops[first : first + self.rows]
                images, mask = self._source.prepare(some)
                with torch.autocast(self._device.type, torch.float16, enabled=half):
                    total = ensemble_logits(self.trained.networks, images, mask)
                parts.append((total[:, 1] - total[:, 0])[: len(some)])
            # Only here do we wait for a GPU: while it judges a batch, the next one is packed.
            logits: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
        return logits / len(self.trained.networks)

    def _logits_by_onnx(self, onnx: OnnxNetworks, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        total = np.empty((len(crops), 2))
        for first in range(0, len(crops), self.rows):
            some = crops[first : first + self.rows]
            images, mask = self._source.prepare(some)
            total[first : first + len(some)] = onnx.logits(images.numpy(), mask.numpy())[: len(some)]
        logits: NDArray[np.float64] = (total[:, 1] - total[:, 0]) / len(self.trained.networks)
        return logits


def near_threshold(trained: TrainedStage, p: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices of probabilities so close to a label's change that half precision may err."""
    near = np.zeros(len(p), bool)
    for edge in trained.edges:
        # A rounded probability represents all that round to it.
        low, high = (
            1 / (1 + np.exp(-(np.log(t / (1 - t)) + margin)))
            for t, margin in (
                (np.clip(edge + side * 5e-5, 1e-6, 1 - 1e-6), side * MARGIN) for side in (-1, 1)
            )
        )
        near |= (p >= low) & (p <= high)
    return np.flatnonzero(near)


class _CpuBatches:
    """Prepares batches on the CPU, in one buffer: the networks have read it before the next is filled."""

    def __init__(self, trained: TrainedStage, rows: int) -> None:
        self._trained = trained
        self._images = torch.zeros((rows, trained.frames, CROP_SIDE, CROP_SIDE))
        self._mask = torch.zeros((rows, trained.frames))

    def prepare(self, some: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
        trained, images, mask = self._trained, self._images.numpy(), self._mask.numpy()
        mask[:] = 0
        for row in range(len(images)):
            n = 0
            if row < len(some) and len(some[row]):
                kept = sample(some[row], trained.frames, trained.sampling)
                n = len(kept)
                images[row, :n] = scaled(some[row][kept], trained.scale)
                mask[row, :n] = 1
            images[row, n:] = 0
        return self._images, self._mask


class _GpuBatches:
    """Packs raw crops into pinned memory, two buffers in turn; the device samples, levels and pads them.

    Also runs on a CPU, for the tests.
    """

    def __init__(self, trained: TrainedStage, device: torch.device, rows: int) -> None:
        self._trained, self._device, self._rows = trained, device, rows
        pinned: dict[str, Any] = {"pin_memory": device.type == "cuda"}
        size = rows * max(LONGEST, trained.frames) * CROP_SIDE * CROP_SIDE
        self._crops = [torch.zeros(size, dtype=torch.uint8, **pinned) for _ in range(2)]
        self._lengths = [torch.zeros(rows, dtype=torch.int64, **pinned) for _ in range(2)]
        self._sent: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def prepare(self, some: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
        trained, turn = self._trained, self._turn
        self._turn = 1 - turn
        sent = self._sent[turn]
        if sent is not None:
            sent.synchronize()
        few = [
            c
            if trained.sampling == "similarity" and len(c) <= LONGEST
            else c[sample(c, trained.frames, trained.sampling)]
            for c in some
        ]
        longest = max(trained.frames, *map(len, few))
        if longest > trained.frames:
            longest = -(-longest // _STEP) * _STEP
        shape = (self._rows, longest, CROP_SIDE, CROP_SIDE)
        crops = self._crops[turn][: int(np.prod(shape))].view(shape)
        lengths = self._lengths[turn]
        lengths.zero_()
        packed = crops.numpy()
        for row, c in enumerate(few):
            packed[row, : len(c)] = c
            lengths[row] = len(c)
        on_it = crops.to(self._device, non_blocking=True), lengths.to(self._device, non_blocking=True)
        if self._device.type == "cuda":
            self._sent[turn] = torch.cuda.current_stream(self._device).record_event()
        return gpu.prepare(*on_it, trained.frames, trained.scale)


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Forbid TF32, PyTorch's default for convolutions (ten bits), and algorithms that vary; then undo it."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
