"""Where open tracks keep their positions and pictures: pages of a pool, given back as tracks end.

A track grows page by page, so that nothing is copied as it grows and the memory follows the number of
open tracks, not the length of the run. When it ends its positions are refined, and its crops are cut about
them out of the wider pictures that were kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.tracking.crops import MARGIN_PX, WIDE_SIDE, Cropper
from napari_rbcflow.tracking.positions import centre_offset, refined
from napari_rbcflow.types import Track

PAGE = 32
"""Entries a page: about one track's length in the published sequences (median 33)."""


class TrackStore:
    """Pool of pages for the entries of open tracks.

    Parameters
    ----------
    cropper : Cropper
        That cut the pictures.
    pages : int
        Pages to begin with; the pool doubles when they run out.
    """

    def __init__(self, cropper: Cropper, *, pages: int = 256) -> None:
        self._cropper = cropper
        self._allocate(pages)
        self._free = list(range(pages))[::-1]
        self._pages: dict[int, list[int]] = {}
        self._length = np.zeros(64, np.int64)
        self._page = np.zeros(64, np.int64)

    def _allocate(self, pages: int) -> None:
        self._pictures = np.empty((pages, PAGE, WIDE_SIDE, WIDE_SIDE), np.uint8)
        self._frames = np.empty((pages, PAGE), np.int64)
        self._y = np.empty((pages, PAGE), np.float32)
        self._x = np.empty((pages, PAGE), np.float32)
        self._middles = np.empty((pages, PAGE, 2), np.float32)
        self._flags = np.empty((pages, PAGE, 3), np.bool_)

    @property
    def open(self) -> int:
        """Tracks held."""
        return len(self._pages)

    def begin(self, slot: int) -> None:
        """Make room for a new track in `slot`."""
        if slot >= len(self._length):
            self._length = np.concatenate([self._length, np.zeros_like(self._length)])
            self._page = np.concatenate([self._page, np.zeros_like(self._page)])
        self._length[slot] = 0
        self._pages[slot] = []

    def write(
        self,
        slots: NDArray[np.int64],
        frame: int,
        y_px: NDArray[np.float32],
        x_px: NDArray[np.float32],
        middles: NDArray[np.float32],
        flags: NDArray[np.bool_],
        pictures: NDArray[np.uint8],
    ) -> None:
        """Append one entry to each of `slots`.

        Parameters
        ----------
        slots : ndarray of int64, shape (n,)
        frame : int
        y_px, x_px : ndarray of float32, shape (n,)
        middles : ndarray of float32, shape (n, 2)
            y and x of the cell's middle, not a number where it was not measured.
        flags : ndarray of bool, shape (n, 3)
            Seen, intruded, edge.
        pictures : ndarray of uint8, shape (n, WIDE_SIDE, WIDE_SIDE)
            Cut at `y_px`, `x_px`.
        """
        at = self._length[slots] % PAGE
        for slot in slots[at == 0]:
            if not self._free:
                self._grow()
            page = self._free.pop()
            self._pages[int(slot)].append(page)
            self._page[slot] = page
        page_of = self._page[slots]
        self._frames[page_of, at] = frame
        self._y[page_of, at] = y_px
        self._x[page_of, at] = x_px
        self._middles[page_of, at] = middles
        self._flags[page_of, at] = flags
        self._pictures[page_of, at] = pictures
        self._length[slots] += 1

    def end(self, slot: int, cell: int, last_frame: int, reason: str) -> Track:
        """Give back a slot's pages and return its track up to `last_frame`, centred on its cell."""
        pages = self._pages.pop(slot)
        n = int(self._length[slot])
        frames = self._frames[pages].reshape(-1)[:n]
        n = int(np.searchsorted(frames, last_frame, side="right"))
        flags = self._flags[pages].reshape(-1, 3)[:n]
        seen, intruded, edge = flags[:, 0].copy(), flags[:, 1].copy(), flags[:, 2]
        cut_y, cut_x = self._y[pages].reshape(-1)[:n], self._x[pages].reshape(-1)[:n]
        unit_px = self._cropper.ratio
        x_px, y_px = refined(
            frames[:n],
            cut_x,
            cut_y,
            self._middles[pages].reshape(-1, 2)[:n],
            intruded | edge,
            unit_px=unit_px,
        )
        pictures = self._pictures[pages].reshape(-1, WIDE_SIDE, WIDE_SIDE)[:n]
        shifts = np.stack([self._cropper.shifts(cut_y, y_px), self._cropper.shifts(cut_x, x_px)], axis=1)
        way = np.rint(shifts).astype(np.int64) + WIDE_SIDE // 2
        dy, dx = centre_offset(pictures, way, seen, intruded, edge)
        y_px, x_px = y_px + np.float32(dy * unit_px), x_px + np.float32(dx * unit_px)
        whole = np.rint(shifts + np.array([dy, dx])).astype(np.int64).clip(-MARGIN_PX, MARGIN_PX)
        crops, edge = self._cropper.trim(pictures, cut_y, cut_x, whole)
        track = Track(
            cell=cell,
            frames=frames[:n].copy(),
            y_px=y_px,
            x_px=x_px,
            seen=seen,
            intruded=intruded,
            edge=edge,
            crops=crops,
            reason=reason,
        )
        self._free.extend(pages)
        return track

    def _grow(self) -> None:
        n = len(self._pictures)
        pictures, frames, y, x, flags = self._pictures, self._frames, self._y, self._x, self._flags
        middles = self._middles
        self._allocate(2 * n)
        self._pictures[:n], self._frames[:n], self._y[:n], self._x[:n] = pictures, frames, y, x
        self._flags[:n], self._middles[:n] = flags, middles
        self._free.extend(range(2 * n - 1, n - 1, -1))
