"""From raw crops to what the networks see: K frames of a sequence, levelled, padded to a fixed length.

Similarity of frames: Wang et al., IEEE Transactions on Image Processing 13 (2004) 600.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.compiled import njit
from napari_rbcflow.sentences import say
from napari_rbcflow.types import CROP_SIDE

Sampling = Literal["uniform", "similarity"]

LONGEST = 64
"""The most frames of a track that a GPU takes; the paper's longest have 60. The CPU reduces longer ones."""
WINDOW = 7
N_WINDOW = WINDOW * WINDOW
# A similarity of 1. That of each window is rounded to a millionth and added as an integer, so that the order
# of adding (by threads, vector units or a GPU) cannot change which frames are kept.
ONE = 2.0**20
# The two constants of Wang et al., for sums over a window instead of means.
C1 = float(np.float32(N_WINDOW * N_WINDOW * (0.01 * 255.0) ** 2))
C2 = float(np.float32(N_WINDOW * (N_WINDOW - 1) * (0.03 * 255.0) ** 2))
NONE = -(2**31)  # less than any similarity


def sample(crops: NDArray[np.uint8], frames: int, sampling: Sampling) -> NDArray[np.int64]:
    """Return the ascending indices of at most K frames to keep; crops of at least 7 x 7 px."""
    if frames < 1:
        raise ValueError(say("classification.no-frames-to-keep", frames=frames))
    if sampling == "uniform":
        return uniform(len(crops), frames)
    if sampling == "similarity":
        return similarity(crops, frames)
    raise ValueError(say("classification.no-sampling", sampling=sampling))


def uniform(n: int, frames: int) -> NDArray[np.int64]:
    """Choose `frames` of `n` frames evenly, including the first and the last."""
    if n <= frames:
        return np.arange(n, dtype=np.int64)
    return np.floor(np.linspace(0, n - 1, frames) + 0.5).astype(np.int64)


def similarity(crops: NDArray[np.uint8], frames: int) -> NDArray[np.int64]:
    """Drop one frame of the most similar pair of neighbours after another until `frames` remain.

    Of the pair with the highest structural similarity, the frame that is more like its other neighbour is
    dropped; the ends of the sequence have no other neighbour, and of equals the later frame is dropped. The
    paper leaves open which frame of a pair to drop.
    """
    if len(crops) <= frames:
        return np.arange(len(crops), dtype=np.int64)
    kept: NDArray[np.int64] = _drop_similar(np.ascontiguousarray(crops), frames)
    return kept


@njit(cache=True, nogil=True)
def _scratch(height: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Allocate the scratch arrays of `_ssim`: products, a row of sums, sums of products."""
    return (
        np.empty((height, width), np.int32),
        np.empty(width, np.int32),
        np.empty((height - WINDOW + 1, width - WINDOW + 1), np.int32),
    )


@njit(cache=True, nogil=True)
def _window_sums(image: NDArray[np.int32], row: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Sum over every 7 x 7 window inside the image; 32-bit integers are exact, and eight fit a vector."""
    height, width = image.shape
    for x in range(width):
        total = np.int32(0)
        for y in range(WINDOW):
            total += image[y, x]
        row[x] = total
    for y in range(height - WINDOW + 1):
        if y:
            for x in range(width):
                row[x] += image[y + WINDOW - 1, x] - image[y - 1, x]
        for x in range(width - WINDOW + 1):
            out[y, x] = row[x] + row[x + 1] + row[x + 2] + row[x + 3] + row[x + 4] + row[x + 5] + row[x + 6]


@njit(cache=True, nogil=True)
def _moments(crops: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Window sums of every crop and of its square."""
    n, height, width = crops.shape
    shape = (n, height - WINDOW + 1, width - WINDOW + 1)
    sums, squares = np.empty(shape, np.int32), np.empty(shape, np.int32)
    image, row, _ = _scratch(height, width)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                image[y, x] = np.int32(crops[i, y, x])
        _window_sums(image, row, sums[i])
        for y in range(height):
            for x in range(width):
                image[y, x] *= image[y, x]
        _window_sums(image, row, squares[i])
    return sums, squares


@njit(cache=True, nogil=True)
def _ssim(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    sum1: NDArray[np.int32],
    sum2: NDArray[np.int32],
    square1: NDArray[np.int32],
    square2: NDArray[np.int32],
    product: NDArray[np.int32],
    row: NDArray[np.int32],
    products: NDArray[np.int32],
) -> np.int64:
    """Sum of the windows' similarities in units of 1 / `ONE`. No product exceeds 2**31 for 8-bit grey."""
    height, width = first.shape
    for y in range(height):
        for x in range(width):
            product[y, x] = np.int32(first[y, x]) * np.int32(second[y, x])
    _window_sums(product, row, products)
    c1, c2, one = np.float32(C1), np.float32(C2), np.float32(ONE)
    whole = np.int64(0)
    for y in range(height - WINDOW + 1):
        total = np.int32(0)
        for x in range(width - WINDOW + 1):
            means = sum1[y, x] * sum2[y, x]
            both = sum1[y, x] * sum1[y, x] + sum2[y, x] * sum2[y, x]
            covariance = np.int32(N_WINDOW) * products[y, x] - means
            variances = np.int32(N_WINDOW) * (square1[y, x] + square2[y, x]) - both
            above = (np.float32(np.int32(2) * means) + c1) * (np.float32(np.int32(2) * covariance) + c2)
            below = (np.float32(both) + c1) * (np.float32(variances) + c2)
            total += np.int32(np.rint(one * (above / below)))
        whole += np.int64(total)
    return whole


@njit(cache=True, nogil=True)
def _drop_similar(crops: NDArray[np.uint8], frames: int) -> NDArray[np.int64]:
    n, height, width = crops.shape
    sums, squares = _moments(crops)
    a, b, c = _scratch(height, width)
    before, after = np.arange(-1, n - 1), np.arange(1, n + 1)
    to_next = np.full(n, NONE, np.int64)  # similarity of a kept frame to the next kept one
    for i in range(n - 1):
        to_next[i] = _ssim(crops[i], crops[i + 1], sums[i], sums[i + 1], squares[i], squares[i + 1], a, b, c)
    kept = np.ones(n, np.bool_)
    for _ in range(n - frames):
        best = -1
        for i in range(n):
            if kept[i] and after[i] < n and (best < 0 or to_next[i] > to_next[best]):
                best = i
        i, j = best, after[best]
        earlier = to_next[before[i]] if before[i] >= 0 else NONE
        drop = i if earlier > to_next[j] else j
        left, right = before[drop], after[drop]
        kept[drop] = False
        if left >= 0:
            after[left] = right
            to_next[left] = NONE
        if right < n:
            before[right] = left
        if left >= 0 and right < n:
            to_next[left] = _ssim(
                crops[left], crops[right], sums[left], sums[right], squares[left], squares[right], a, b, c
            )
    return np.nonzero(kept)[0]


Scale = Literal["level", "grey"]

CONTRAST = 10.0  # ten per cent of the background's light becomes 1: a rim in focus -0.8, a centre +1
LIMIT = 6.0


def scaled(crops: NDArray[np.uint8], scale: Scale) -> NDArray[np.float32]:
    """Turn raw crops into what a network sees, float32: levelled, or grey / 255 as in the paper."""
    if scale == "level":
        return level(crops)
    return (crops / np.float32(255)).astype(np.float32)


def level(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (crop / background - 1) x 10, clipped to +-6 and zero for a black crop, as float32.

    In transmitted light a cell changes the light by a share, not by an amount. The background of a crop is
    the median of its outermost pixels, kept within a tenth of that of the whole sequence, because a neighbour
    may cover the border of one frame.
    """
    if not len(crops):
        return np.zeros(crops.shape, np.float32)
    out: NDArray[np.float32] = _level(np.ascontiguousarray(crops))
    return out


@njit(cache=True, nogil=True)
def _level(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    n, side, _ = crops.shape
    counts = np.zeros(256, np.int64)
    own = np.empty(n, np.float64)
    border = 4 * (side - 1)
    for i in range(n):
        single = np.zeros(256, np.int64)
        for k in range(side - 1):
            single[crops[i, 0, k]] += 1
            single[crops[i, k, side - 1]] += 1
            single[crops[i, side - 1, side - 1 - k]] += 1
            single[crops[i, side - 1 - k, 0]] += 1
        counts += single
        own[i] = _median(single, border)
    whole = _median(counts, border * n)
    out = np.empty((n, side, side), np.float32)
    for i in range(n):
        background = min(max(own[i], 0.9 * whole), 1.1 * whole)
        scale = np.float32(CONTRAST / max(background, 1.0))
        zero = np.float32(CONTRAST if background >= 1.0 else 0.0)
        for y in range(side):
            for x in range(side):
                value = np.float32(crops[i, y, x]) * scale - zero
                out[i, y, x] = min(max(value, np.float32(-LIMIT)), np.float32(LIMIT))
    return out


@njit(cache=True, nogil=True)
def _median(counts: NDArray[np.int64], total: int) -> float:
    passed = 0
    for value in range(256):
        passed += counts[value]
        if 2 * passed > total:
            return float(value)
    return 255.0


def pad(
    sequences: Sequence[NDArray[np.float32]], frames: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pad sequences with zeros at the end: images (n, frames, 31, 31), and a mask (n, frames) of frames."""
    images = np.zeros((len(sequences), frames, CROP_SIDE, CROP_SIDE), np.float32)
    mask = np.zeros((len(sequences), frames), np.float32)
    for row, sequence in enumerate(sequences):
        images[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1.0
    return images, mask
