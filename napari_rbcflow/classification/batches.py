"""Run one stage over sequences in batches of one shape: on a CPU with ONNX Runtime, on a GPU with PyTorch.

The last batch is padded, so that a track's probabilities do not depend on what else is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification.onnx_graph import OnnxNetworks, is_supported
from napari_rbcflow.classification.sampling import sample, scaled
from napari_rbcflow.classification.weight_files import TrainedStage
from napari_rbcflow.types import CROP_SIDE

# In calibrated logits: what half precision finds closer to a threshold than this is judged again in full
# precision. The error of half precision is at most 0.004 (docs/decisions/classification.md).
MARGIN = 0.05


class StageRunner:
    """One stage on one device, with its buffers; not for two threads at once.

    `rows` sequences make a batch; `mixed` is half precision, on a GPU only; `threads` are those of the CPU.
    """

    def __init__(
        self, trained: TrainedStage, device: Any, rows: int, *, mixed: bool = False, threads: int = 1
    ) -> None:
        self.trained, self.rows = trained, rows
        self._device, self._threads = str(device), threads
        on_card = self._device != "cpu"
        self._mixed = mixed and on_card
        self._source: Any = _CpuBatches(trained, rows)
        # The paper's networks stay in PyTorch.
        self._onnx = (
            OnnxNetworks(trained.networks, rows, trained.frames, threads)
            if not on_card and is_supported(trained.networks)
            else None
        )
        if self._onnx is None:
            for network in trained.networks:
                network.to(self._device)
        if on_card:
            from napari_rbcflow.classification.gpu import GpuBatches

            self._source = GpuBatches(trained, self._device, rows)

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
        from napari_rbcflow.classification.gpu import logits_in_pytorch

        batches = (
            (self._source.prepare(some), len(some))
            for some in (crops[first : first + self.rows] for first in range(0, len(crops), self.rows))
        )
        logits = logits_in_pytorch(self.trained.networks, batches, self._device, self._threads, half=half)
        return logits / len(self.trained.networks)

    def _logits_by_onnx(self, onnx: OnnxNetworks, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        total = np.empty((len(crops), 2))
        for first in range(0, len(crops), self.rows):
            some = crops[first : first + self.rows]
            images, mask = self._source.prepare(some)
            total[first : first + len(some)] = onnx.logits(images, mask)[: len(some)]
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
        self._images = np.zeros((rows, trained.frames, CROP_SIDE, CROP_SIDE), np.float32)
        self._mask = np.zeros((rows, trained.frames), np.float32)

    def prepare(self, some: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        trained, images, mask = self._trained, self._images, self._mask
        mask[:] = 0
        for row in range(len(images)):
            n = 0
            if row < len(some) and len(some[row]):
                kept = sample(some[row], trained.frames, trained.sampling)
                n = len(kept)
                images[row, :n] = scaled(some[row][kept], trained.scale)
                mask[row, :n] = 1
            images[row, n:] = 0
        return images, mask
