"""Crops of 31 x 31 pixels of 0.605 um around cells, raw grey, kept in pages while tracks are open."""

from __future__ import annotations

import numpy as np

from napari_rbcflow.compiled import njit
from napari_rbcflow.tracking.positions import centre_offset, refined, window_start
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, Bools, Floats, Floats32, Grey, Ints, Track


class FlowAxes:
    """Flow coordinates: reference pixels with x along the flow, mirrored where it goes right to left.

    `width` is a frame's, in camera pixels, `scale` the reference pixels in a camera pixel.
    """

    def __init__(self, width: int, scale: float, *, mirrored: bool) -> None:
        self.length = width * scale
        self._scale, self._mirrored = scale, mirrored

    def to_flow(self, y_px: Floats32, x_px: Floats32) -> tuple[Floats, Floats]:
        """Camera pixels to y and x along the flow."""
        return y_px.astype(np.float64) * self._scale, self._turned(x_px.astype(np.float64) * self._scale)

    def exactly_to_camera(self, y: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Y and x along the flow to camera pixels."""
        return y / self._scale, self._turned(x) / self._scale

    def to_camera(self, y: Floats, x: Floats) -> tuple[Floats32, Floats32]:
        """The same, in the precision of tracks."""
        y_px, x_px = self.exactly_to_camera(y, x)
        return y_px.astype(np.float32), x_px.astype(np.float32)

    def steps_to_camera(self, steps: Ints) -> Ints:
        """Counts of steps along the flow, against it, down and up to those right, left, down and up."""
        return steps[[1, 0, 2, 3]] if self._mirrored else steps

    def _turned(self, x: Floats) -> Floats:
        return self.length - self._scale - x if self._mirrored else x


_INTRUSION_PX = CROP_SIDE / 2 + 3  # nearer than this along both axes, another cell reaches into the crop


@njit(cache=True, nogil=True)
def intruded(y: Floats, x: Floats, found_y: Floats, found_x: Floats) -> Bools:
    """Return where the crop of a track holds another track, or a detection that is not its own.

    Tracks (`y`, `x`, shape (n,)) and detections of one frame are in reference pixels.
    """
    out = np.empty(len(y), np.bool_)
    for i in range(len(y)):
        tracks = 0
        for k in range(len(y)):
            tracks += (abs(y[i] - y[k]) < _INTRUSION_PX) & (abs(x[i] - x[k]) < _INTRUSION_PX)
        found = 0
        for k in range(len(found_y)):
            found += (abs(y[i] - found_y[k]) < _INTRUSION_PX) & (abs(x[i] - found_x[k]) < _INTRUSION_PX)
        out[i] = tracks > 1 or found > 1
    return out


_SAME_PIXEL = 0.01
"""Within one per cent of the reference a crop is a plain cut: over 31 pixels that is a third of one."""
MARGIN_PX = 9
"""Crop pixels kept beyond the crop on every side while a track is open: the centre's maximum offset
(`positions.MAX_OFFSET_PX`) and what smoothing may move a position."""
WIDE_SIDE = CROP_SIDE + 2 * MARGIN_PX


@njit(cache=True, nogil=True)
def _cut(image: Grey, tops: Ints, lefts: Ints, out: Grey) -> None:
    height, width = image.shape
    side = out.shape[1]
    for k in range(len(tops)):
        top, left = tops[k], lefts[k]
        if top < 0 or left < 0 or top + side > height or left + side > width:
            for i in range(side):
                y = min(max(top + i, 0), height - 1)
                for j in range(side):
                    out[k, i, j] = image[y, min(max(left + j, 0), width - 1)]
        else:
            for i in range(side):
                for j in range(side):
                    out[k, i, j] = image[top + i, left + j]


@njit(cache=True, nogil=True)
def _resample(image: Grey, tops: Floats, lefts: Floats, ratio: float, out: Grey) -> None:
    """Area means of `ratio` pixels for ratio >= 1, linear interpolation below; origins are pixel edges."""
    height, width = image.shape
    side = out.shape[1]
    for k in range(len(tops)):
        top, left = tops[k], lefts[k]
        for i in range(side):
            for j in range(side):
                y0 = top + i * ratio
                x0 = left + j * ratio
                total = 0.0
                if ratio >= 1:
                    for y in range(int(np.floor(y0)), int(np.ceil(y0 + ratio))):
                        share_y = min(y + 1.0, y0 + ratio) - max(float(y), y0)
                        line = image[min(max(y, 0), height - 1)]
                        for x in range(int(np.floor(x0)), int(np.ceil(x0 + ratio))):
                            share = share_y * (min(x + 1.0, x0 + ratio) - max(float(x), x0))
                            total += share * line[min(max(x, 0), width - 1)]
                    total /= ratio * ratio
                else:
                    yc = y0 + ratio / 2 - 0.5
                    xc = x0 + ratio / 2 - 0.5
                    y = int(np.floor(yc))
                    x = int(np.floor(xc))
                    for a in range(2):
                        wy = yc - y if a else 1 - (yc - y)
                        line = image[min(max(y + a, 0), height - 1)]
                        for b in range(2):
                            wx = xc - x if b else 1 - (xc - x)
                            total += wy * wx * line[min(max(x + b, 0), width - 1)]
                out[k, i, j] = np.uint8(min(255.0, max(0.0, total + 0.5)))


@njit(cache=True, nogil=True)
def _trim(wide: Grey, shifts: Ints, out: Grey) -> None:
    side = out.shape[1]
    for k in range(len(wide)):
        top, left = MARGIN_PX + shifts[k, 0], MARGIN_PX + shifts[k, 1]
        for i in range(side):
            for j in range(side):
                out[k, i, j] = wide[k, top + i, left + j]


class Cropper:
    """Cuts the crops of one camera: wide ones while a track is open, the final ones when it has ended.

    A cell's centre is known only from its whole track (`positions.centre_offset`); until then crops are
    `MARGIN_PX` wider on every side.

    Parameters
    ----------
    height, width : int
        Of every frame, pixels.
    pixel_size_um : float
        Of the camera, in the field.
    """

    def __init__(self, height: int, width: int, pixel_size_um: float) -> None:
        self._shape = (height, width)
        ratio = CROP_PIXEL_SIZE_UM / pixel_size_um
        self._plain = abs(ratio - 1) <= _SAME_PIXEL
        self.ratio = 1.0 if self._plain else ratio

    def cut(self, image: Grey, y_px: Floats32, x_px: Floats32) -> tuple[Grey, Bools]:
        """Cut a wide crop around every centre.

        Its corner is a pixel's corner, so that 2 x 2 pixels of an unbinned camera are not interpolated.

        Parameters
        ----------
        image : ndarray of uint8, shape (height, width)
        y_px, x_px : ndarray of float32, shape (n,)
            Centres in camera pixels; may be at or beyond the field's edge, which is replicated.

        Returns
        -------
        wide : ndarray of uint8, shape (n, WIDE_SIDE, WIDE_SIDE)
        edge : ndarray of bool, shape (n,)
            Where a crop at that centre replicates the edge.
        """
        wide = np.empty((len(y_px), WIDE_SIDE, WIDE_SIDE), np.uint8)
        tops, lefts = self._corner(y_px), self._corner(x_px)
        if self._plain:
            _cut(image, tops.astype(np.int64), lefts.astype(np.int64), wide)
        else:
            _resample(image, tops, lefts, self.ratio, wide)
        return wide, self._beyond(tops, lefts, 0, 0)

    def trim(self, wide: Grey, y_px: Floats32, x_px: Floats32, shifts: Ints) -> tuple[Grey, Bools]:
        """Cut the final crops out of wide ones.

        Parameters
        ----------
        wide : ndarray of uint8, shape (n, WIDE_SIDE, WIDE_SIDE)
        y_px, x_px : ndarray of float32, shape (n,)
            Where they were cut.
        shifts : ndarray of int64, shape (n, 2)
            y and x of the final crops' centres from theirs, crop pixels, each within `MARGIN_PX`.

        Returns
        -------
        crops : ndarray of uint8, shape (n, CROP_SIDE, CROP_SIDE)
        edge : ndarray of bool, shape (n,)
            Where the field's edge is replicated.
        """
        crops = np.empty((len(wide), CROP_SIDE, CROP_SIDE), np.uint8)
        _trim(wide, shifts, crops)
        return crops, self._beyond(self._corner(y_px), self._corner(x_px), shifts[:, 0], shifts[:, 1])

    def shifts(self, cut_px: Floats32, wanted_px: Floats32) -> Floats:
        """Return how far wanted places are from the centres of wide crops, along one axis, crop pixels."""
        centres = self._corner(cut_px) + WIDE_SIDE * self.ratio / 2 - 0.5
        return np.asarray((wanted_px - centres) / self.ratio, np.float64)

    def _corner(self, centres_px: Floats32) -> Floats:
        return window_start(centres_px, WIDE_SIDE * self.ratio)

    def _beyond(self, tops: Floats, lefts: Floats, dy: Ints | int, dx: Ints | int) -> Bools:
        top, left = tops + (MARGIN_PX + dy) * self.ratio, lefts + (MARGIN_PX + dx) * self.ratio
        height, width = self._shape
        side = CROP_SIDE * self.ratio
        return np.asarray((top < 0) | (left < 0) | (top + side > height) | (left + side > width))


PAGE = 32  # entries in a page: about one track's length in the published sequences (median 33)


class TrackStore:
    """Pool of pages for the entries of open tracks; it doubles when they run out."""

    def __init__(self, cropper: Cropper) -> None:
        self._cropper = cropper
        self._allocate(256)
        self._free = list(range(256))[::-1]
        self._pages: dict[int, list[int]] = {}
        self._length = np.zeros(64, np.int64)
        self._page = np.zeros(64, np.int64)

    def _allocate(self, pages: int) -> None:
        self._wide = np.empty((pages, PAGE, WIDE_SIDE, WIDE_SIDE), np.uint8)
        self._frames = np.empty((pages, PAGE), np.int64)
        self._y = np.empty((pages, PAGE), np.float32)
        self._x = np.empty((pages, PAGE), np.float32)
        self._centroids = np.empty((pages, PAGE, 2), np.float32)
        self._flags = np.empty((pages, PAGE, 3), np.bool_)

    def begin(self, slot: int) -> None:
        """Make room for a new track in `slot`."""
        if slot >= len(self._length):
            self._length = np.concatenate([self._length, np.zeros_like(self._length)])
            self._page = np.concatenate([self._page, np.zeros_like(self._page)])
        self._length[slot] = 0
        self._pages[slot] = []

    def write(
        self,
        slots: Ints,
        frame: int,
        y_px: Floats32,
        x_px: Floats32,
        centroids: Floats32,
        flags: Bools,
        wide: Grey,
    ) -> None:
        """Append one entry to each of `slots`.

        Parameters
        ----------
        slots : ndarray of int64, shape (n,)
        frame : int
        y_px, x_px : ndarray of float32, shape (n,)
        centroids : ndarray of float32, shape (n, 2)
            y and x, NaN where not measured.
        flags : ndarray of bool, shape (n, 3)
            Seen, intruded, edge.
        wide : ndarray of uint8, shape (n, WIDE_SIDE, WIDE_SIDE)
            Crops cut at `y_px`, `x_px`.
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
        self._centroids[page_of, at] = centroids
        self._flags[page_of, at] = flags
        self._wide[page_of, at] = wide
        self._length[slots] += 1

    def end(self, slot: int, cell: int, last_frame: int, reason: str) -> Track:
        """Release a slot's pages and return its track up to `last_frame`, centred on its cell."""
        pages = self._pages.pop(slot)
        n = int(self._length[slot])
        frames = self._frames[pages].reshape(-1)[:n]
        n = int(np.searchsorted(frames, last_frame, side="right"))
        flags = self._flags[pages].reshape(-1, 3)[:n]
        seen, with_neighbour, edge = flags[:, 0].copy(), flags[:, 1].copy(), flags[:, 2]
        cut_y, cut_x = self._y[pages].reshape(-1)[:n], self._x[pages].reshape(-1)[:n]
        unit_px = self._cropper.ratio
        x_px, y_px = refined(
            frames[:n],
            cut_x,
            cut_y,
            self._centroids[pages].reshape(-1, 2)[:n],
            with_neighbour | edge,
            unit_px=unit_px,
        )
        wide = self._wide[pages].reshape(-1, WIDE_SIDE, WIDE_SIDE)[:n]
        shifts = np.stack([self._cropper.shifts(cut_y, y_px), self._cropper.shifts(cut_x, x_px)], axis=1)
        centres = np.rint(shifts).astype(np.int64) + WIDE_SIDE // 2
        dy, dx = centre_offset(wide, centres, seen, with_neighbour, edge)
        y_px, x_px = y_px + np.float32(dy * unit_px), x_px + np.float32(dx * unit_px)
        whole = np.rint(shifts + np.array([dy, dx])).astype(np.int64).clip(-MARGIN_PX, MARGIN_PX)
        crops, edge = self._cropper.trim(wide, cut_y, cut_x, whole)
        track = Track(
            cell=cell,
            frames=frames[:n].copy(),
            y_px=y_px,
            x_px=x_px,
            seen=seen,
            intruded=with_neighbour,
            edge=edge,
            crops=crops,
            reason=reason,
        )
        self._free.extend(pages)
        return track

    def _grow(self) -> None:
        n = len(self._wide)
        names = ("_wide", "_frames", "_y", "_x", "_centroids", "_flags")
        old = [getattr(self, name) for name in names]
        self._allocate(2 * n)
        for name, array in zip(names, old, strict=True):
            getattr(self, name)[:n] = array
        self._free.extend(range(2 * n - 1, n - 1, -1))
