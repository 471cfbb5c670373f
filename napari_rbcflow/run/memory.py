"""Freed memory kept for the next frame, instead of being given back to the system and asked for again."""

from __future__ import annotations

import ctypes
import sys

import numpy as np

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MMAP_BYTES = 32 * 2**20
"""The most that glibc takes."""
_TRIM_BYTES = 2**30
_ARENAS = 2
"""Heaps that all threads share: each run has new threads, and what one heap keeps another cannot use."""


def keep_freed_memory() -> None:
    """Tell glibc to keep what a run frees; does nothing elsewhere, and may be called more than once.

    Every frame and every batch needs buffers of a few megabytes for some milliseconds. By default glibc
    gives each back to the system when it is freed, and the system clears every page of the next one:
    the two networks spent up to half of their time on that (docs/decisions/viewer.md). Both values must
    be set: either one alone switches off glibc's own adaptation and makes it worse. What a process
    holds stays at its peak, and is bounded by the queues.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def touch_frames(height: int, width: int, n: int) -> None:
    """Ask the system for the memory of the first `n` frames, before they come.

    The system hands out each page when it is first written to, and where it has to find one that takes
    longer than the frame lasts: a whole sensor's first frames (6 MB) cost a virtual machine 18 ms each.
    Where freed memory is kept (`keep_freed_memory`), they find it ready; elsewhere nothing is done. To be
    called by the thread that takes the frames in, as what one heap keeps another cannot use.

    Parameters
    ----------
    height, width, n : int
        Of 8-bit frames.
    """
    if not sys.platform.startswith("linux"):
        return
    touched = [np.ones((height, width), np.uint8) for _ in range(n)]
    del touched
