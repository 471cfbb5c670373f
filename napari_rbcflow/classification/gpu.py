"""Judging in PyTorch: batches packed for a GPU, sampled and levelled there bit for bit as on a CPU.

One CPU core samples about eight thousand tracks a second, and a GPU judges more. Integers decide which frames
are kept, and the few real numbers are single operations that IEEE 754 rounds alike everywhere. So nothing
here may be fused (no ``torch.compile``, no ``addcmul``), and divisors are tensors: PyTorch divides by a plain
number by multiplying with its reciprocal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_rbcflow.classification.networks.blend import ensemble_logits
from napari_rbcflow.classification.sampling import (
    C1,
    C2,
    CONTRAST,
    LIMIT,
    LONGEST,
    N_WINDOW,
    NONE,
    ONE,
    WINDOW,
    Scale,
    sample,
)
from napari_rbcflow.classification.weight_files import TrainedStage
from napari_rbcflow.types import CROP_SIDE

_STEP = 16  # lengths sent to a GPU are rounded up to this: few shapes, so that memory is allocated once


def logits_in_pytorch(
    networks: Sequence[nn.Module],
    batches: Iterable[tuple[tuple[Any, Any], int]],
    device: str,
    threads: int,
    *,
    half: bool,
) -> NDArray[np.float64]:
    """Return each sequence's logit difference, summed over the networks; `batches` are prepared as asked for.

    A batch is images and mask, and how many of its rows are sequences.
    """
    parts = []
    kind = torch.device(device).type
    with _threads(threads), torch.inference_mode(), _exact(kind):
        for (images, mask), rows in batches:
            with torch.autocast(kind, torch.float16, enabled=half):
                total = ensemble_logits(networks, torch.as_tensor(images), torch.as_tensor(mask))
            parts.append((total[:, 1] - total[:, 0])[:rows])
        # Only here do we wait for a GPU: while it judges a batch, the next one is packed.
        logits: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return logits


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Limit PyTorch to `number` threads; it counts them for the calling thread."""
    before = torch.get_num_threads()
    if before != number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if before != number:
            torch.set_num_threads(before)


@contextmanager
def _exact(kind: str) -> Iterator[None]:
    """Forbid TF32, PyTorch's default for convolutions (ten bits), and algorithms that vary; then undo it."""
    if kind != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class GpuBatches:
    """Packs raw crops into pinned memory, two buffers in turn; the device samples, levels and pads them.

    Also runs on a CPU, for the tests.
    """

    def __init__(self, trained: TrainedStage, device: str, rows: int) -> None:
        self._trained, self._device, self._rows = trained, torch.device(device), rows
        pinned: dict[str, Any] = {"pin_memory": self._device.type == "cuda"}
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
        return prepare(*on_it, trained.frames, trained.scale)


def prepare(crops: Tensor, lengths: Tensor, frames: int, scale: Scale) -> tuple[Tensor, Tensor]:
    """Reduce every sequence by similarity to K `frames`, scale it and pad it.

    Takes crops, uint8 (rows, n, 31, 31), and how many of the n frames each row holds; what is behind them
    does not matter. Returns images (rows, K, 31, 31) and mask (rows, K), float32.
    """
    rows, n, height, width = crops.shape
    if n > frames:
        kept = similarity(crops, lengths, frames)
        crops = crops.gather(1, kept[:, :, None, None].expand(-1, -1, height, width))
        lengths = lengths.clamp(max=frames)
    elif n < frames:
        crops = torch.cat([crops, crops.new_zeros((rows, frames - n, height, width))], 1)
    there = torch.arange(frames, device=crops.device) < lengths[:, None]
    if scale == "level":
        images = _level(crops, lengths, there)
    else:
        images = crops.float() / torch.full((1,), 255.0, device=crops.device)
    return images.where(there[:, :, None, None], 0.0), there.float()


def similarity(crops: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """Choose frames of all sequences at once as `sampling.similarity` does.

    Returns ascending indices, int64 (rows, K); behind those of a shorter sequence, any.
    """
    rows, n = crops.shape[:2]
    device = crops.device
    sums, squares = _moments(crops)
    # One more place at each end stands for "no frame": nothing is similar to it.
    place = torch.arange(n + 2, device=device).expand(rows, -1)
    alive = (place >= 1) & (place <= lengths[:, None])
    before, after = (place - 1).clamp(min=0).clone(), (place + 1).clamp(max=n + 1).clone()
    after = after.where(place < lengths[:, None], n + 1)
    to_next = torch.full((rows, n + 2), NONE, dtype=torch.int64, device=device)
    similar = _ssim(crops[:, :-1], crops[:, 1:], sums[:, :-1], sums[:, 1:], squares[:, :-1], squares[:, 1:])
    pairs = place[:, 1:n] < lengths[:, None]
    to_next[:, 1:n] = similar.where(pairs, NONE)
    row = torch.arange(rows, device=device)
    for step in range(n - frames):
        busy = lengths - step > frames
        # Of equals the earliest pair, as on the CPU; argmax alone does not promise that.
        i = (to_next * (n + 2) - place).argmax(1)
        j = after[row, i]
        drop = torch.where(to_next[row, before[row, i]] > to_next[row, j], i, j)
        left, right = before[row, drop], after[row, drop]
        inside = busy & (left >= 1) & (right <= n)
        first, second = (left - 1).clamp(0, n - 1), (right - 1).clamp(0, n - 1)
        similar = _ssim(
            *(crops[row, first], crops[row, second], sums[row, first], sums[row, second]),
            *(squares[row, first], squares[row, second]),
        )
        alive[row, drop] &= ~busy
        to_next[row, drop] = to_next[row, drop].where(~busy, NONE)
        to_next[row, left] = torch.where(busy, similar.where(inside, NONE), to_next[row, left])
        after[row, left] = torch.where(busy, right, after[row, left])
        before[row, right] = torch.where(busy, left, before[row, right])
    dropped = (~alive[:, 1 : n + 1]).to(torch.uint8)
    return dropped.sort(dim=1, stable=True).indices[:, :frames]


def _window_sums(images: Tensor) -> Tensor:
    """Sum over every 7 x 7 window inside the last two axes, in 32-bit integers."""
    rows = images.unfold(-2, WINDOW, 1).sum(-1, dtype=torch.int32)
    return rows.unfold(-1, WINDOW, 1).sum(-1, dtype=torch.int32)


def _moments(crops: Tensor) -> tuple[Tensor, Tensor]:
    whole = crops.to(torch.int32)
    return _window_sums(whole), _window_sums(whole * whole)


def _ssim(
    first: Tensor, second: Tensor, sum1: Tensor, sum2: Tensor, square1: Tensor, square2: Tensor
) -> Tensor:
    """`sampling._ssim` of every pair, over the last two axes."""
    products = _window_sums(first.to(torch.int32) * second.to(torch.int32))
    means = sum1 * sum2
    both = sum1 * sum1 + sum2 * sum2
    covariance = N_WINDOW * products - means
    variances = N_WINDOW * (square1 + square2) - both
    above = ((2 * means).float() + C1) * ((2 * covariance).float() + C2)
    below = (both.float() + C1) * (variances.float() + C2)
    return ((above / below) * ONE).round().to(torch.int32).sum((-2, -1), dtype=torch.int64)


def _level(crops: Tensor, lengths: Tensor, there: Tensor) -> Tensor:
    rows, frames, side, _ = crops.shape
    border = torch.cat(
        [crops[:, :, 0, :], crops[:, :, -1, :], crops[:, :, 1:-1, 0], crops[:, :, 1:-1, -1]], 2
    ).to(torch.int16)
    count = 4 * (side - 1)
    own = border.sort(2).values[:, :, count // 2].double()
    beyond = border.masked_fill(~there[:, :, None], 256).reshape(rows, -1).sort(1).values
    middle = (lengths * (count // 2)).clamp(max=frames * count - 1)
    whole = beyond.gather(1, middle[:, None]).double()
    background = torch.minimum(torch.maximum(own, 0.9 * whole), 1.1 * whole)
    scale = (torch.full_like(background, CONTRAST) / background.clamp(min=1.0)).float()
    zero = torch.where(background >= 1.0, CONTRAST, 0.0).float()
    images = crops.float() * scale[:, :, None, None]
    return (images - zero[:, :, None, None]).clamp(-LIMIT, LIMIT)
