"""From raw crops to what the networks see: sampled, levelled, padded to a fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_rbcflow.types import CROP_SIDE

Scale = Literal["level", "grey"]

CONTRAST = 10.0
"""Ten per cent of the background's light becomes 1: a rim in focus -0.8, a centre +1."""
LIMIT = 6.0


def scaled(crops: NDArray[np.uint8], scale: Scale) -> NDArray[np.float32]:
    """Turn raw crops into what a network sees: `level`, or ``grey`` / 255 as in the paper.

    Returns
    -------
    ndarray of float32, shape (n, 31, 31)
    """
    if scale == "level":
        return level(crops)
    return (crops / np.float32(255)).astype(np.float32)


def level(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Divide each crop by its own background, so that neither light nor its unevenness matters.

    In transmitted light a cell changes the light by a share, not by an amount. The background of a
    crop is the median of its outermost pixels; held within a tenth of the whole sequence's, for a
    neighbour may cover the border of one frame.

    Parameters
    ----------
    crops : ndarray of uint8, shape (n, 31, 31)

    Returns
    -------
    ndarray of float32, shape (n, 31, 31)
        (crop / background - 1) x 10, within -6 and 6; zero for a black crop. Always finite.
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
    sequences: Sequence[NDArray[np.float32]], frames: int, rows: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lay sequences of different lengths into one array, zeros at the end.

    Parameters
    ----------
    sequences : sequence of ndarray of float32, shape (n, 31, 31)
        None longer than `frames`.
    frames : int
    rows : int, optional
        Number of rows; those beyond the sequences are empty. By default as many as sequences.

    Returns
    -------
    images : ndarray of float32, shape (rows, frames, 31, 31)
    mask : ndarray of float32, shape (rows, frames)
        1 where there is a frame.
    """
    rows = len(sequences) if rows is None else rows
    images = np.zeros((rows, frames, CROP_SIDE, CROP_SIDE), np.float32)
    mask = np.zeros((rows, frames), np.float32)
    for row, sequence in enumerate(sequences):
        images[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1.0
    return images, mask
