"""Sampling and levelling of a whole batch on a GPU, bit for bit what `sampling` does on a CPU.

One CPU core samples about eight thousand tracks a second, and a GPU judges more. Integers decide which frames
are kept, and the few real numbers are single operations that IEEE 754 rounds alike everywhere. So nothing
here may be fused (no ``torch.compile``, no ``addcmul``), and divisors are tensors: PyTorch divides by a plain
number by multiplying with its reciprocal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_rbcflow.classification.sampling import C1, C2, CONTRAST, LIMIT, N_WINDOW, NONE, ONE, WINDOW, Scale


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
