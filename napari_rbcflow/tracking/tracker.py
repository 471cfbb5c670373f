"""From frames to finished tracks, one frame at a time: the door to everything in this package."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.tracking.axes import FlowAxes
from napari_rbcflow.tracking.background import Background
from napari_rbcflow.tracking.centring import Centring
from napari_rbcflow.tracking.contrast import contrast_of
from napari_rbcflow.tracking.crops import Cropper
from napari_rbcflow.tracking.intruding import intruded
from napari_rbcflow.tracking.light import unlit
from napari_rbcflow.tracking.linked import End, Rows
from napari_rbcflow.tracking.linking import Linker
from napari_rbcflow.tracking.observing import Observed, Observer
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.tracking.store import TrackStore
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, PIECES_REMEMBERED, Frame, Track

_CAUGHT_UP_A_CALL = 3
"""Frames worked off in a call while frames held for the first background wait: no call takes long."""
_MIDDLE_EVERY = 3
"""A track's middle is measured in one frame of this many: it moves steadily, and more tell no more."""


@dataclass(slots=True, frozen=True, eq=False)
class OpenTracks:
    """Where the open tracks stand, for display.

    Attributes
    ----------
    cell : ndarray of int64, shape (m,)
    y_px, x_px : ndarray of float32, shape (m,)
    frame : Frame or None
        The frame they stand in; None before the first. Not always the one given last: a sliding
        background holds the first second of frames, which are then worked off.
    """

    cell: NDArray[np.int64]
    y_px: NDArray[np.float32]
    x_px: NDArray[np.float32]
    frame: Frame | None


class Tracker:
    """Tracks cells through the frames of one run.

    What comes out depends on the frames alone: the same frames give the same tracks, however fast they
    come.

    Parameters
    ----------
    height, width : int
        Of every frame, pixels.
    fps : float
        Frames per second.
    pixel_size_um : float
        Of the camera, in the field.
    background : Background
        Its own; not shared with another tracker.
    settings : TrackingSettings

    Attributes
    ----------
    not_analysed : dict of str to int
        Processed frames in which nothing could be looked for, by reason: ``dark``, ``saturated``,
        ``uniform``, ``too-dark``, ``too-bright``, ``unlike-background``, ``out-of-focus``,
        ``no-background``.
    too_pale : int
        Finished tracks that were not handed over: too pale to be told from cells far beyond the focus.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        fps: float,
        pixel_size_um: float,
        background: Background,
        settings: TrackingSettings | None = None,
    ) -> None:
        if not (fps > 0 and pixel_size_um > 0):
            raise BadInput("Frame rate and pixel size must lie above 0.")
        if min(height, width) * pixel_size_um < 2 * CROP_SIDE * CROP_PIXEL_SIZE_UM:
            raise BadInput(
                f"A field of {width} x {height} pixels of {pixel_size_um} um is too small to track cells in: "
                f"each side needs at least {2 * CROP_SIDE * CROP_PIXEL_SIZE_UM:.0f} um."
            )
        settings = settings or TrackingSettings()
        self._shape = (height, width)
        scale = pixel_size_um / CROP_PIXEL_SIZE_UM
        self._axes = FlowAxes(width, scale, mirrored=settings.direction == "right-to-left")
        self._background = background
        self._observer = Observer(
            height,
            width,
            pixel_size_um=pixel_size_um,
            background=background,
            axes=self._axes,
            settings=settings,
        )
        self._linker = Linker(self._axes.length, fps=fps, settings=settings)
        self._cropper = Cropper(height, width, pixel_size_um)
        self._centring = Centring(pixel_size_um)
        self._store = TrackStore(self._cropper)
        self._least_contrast = settings.least_contrast
        self._pale: dict[int, tuple[int, ...]] = {}
        self.too_pale = 0
        self._held: deque[Frame] = deque()
        self._processed = 0
        self._last_given = -1
        self._newest: Frame | None = None
        self._opened = False
        self._learnt = -1  # the last frame that the background was shown while frames were held
        self.not_analysed: dict[str, int] = {}

    @property
    def processed(self) -> int:
        """Frames really worked on; those held until the background stands are not counted yet."""
        return self._processed

    def process(self, frame: Frame) -> list[Track]:
        """Take in a frame, and return the tracks that ended by it.

        Raises
        ------
        BadInput
            For a frame of another size or kind, or one not after the last.
        """
        if frame.image.shape != self._shape or frame.image.dtype != np.uint8:
            raise BadInput(
                f"A frame is {frame.image.shape} {frame.image.dtype}; expected {self._shape} 8-bit grey."
            )
        if frame.index <= self._last_given:
            raise BadInput(f"Frame {frame.index} came after frame {self._last_given}; frames must ascend.")
        self._last_given = frame.index
        if not self._opened:
            # The background learns from the held frames; they are worked off as soon as it stands.
            # Frames without light are not held, or a camera in the dark would fill the memory.
            fault = unlit(frame.image)
            if fault is not None:
                self._processed += 1
                self._leave_out(fault)
                return []
            self._background.add(frame.image)
        self._held.append(frame)
        if not self._opened:
            if not self._background.ready:
                return []
            self._opened = True
            self._learnt = frame.index
        ended: list[Track] = []
        for _ in range(_CAUGHT_UP_A_CALL):
            if self._held:
                ended += self._work(self._held.popleft())
        return ended

    def finish(self, reason: str) -> list[Track]:
        """End the run: work off what is held and end all open tracks with `reason`.

        Parameters
        ----------
        reason : str
            ``source-ended`` or ``cut-by-stop``.
        """
        ended: list[Track] = []
        if not self._opened:
            self._background.settle()
            self._opened = True
            self._learnt = self._last_given
        while self._held:
            ended += self._work(self._held.popleft())
        ended += self._handed_over(self._linker.finish(reason))
        self._observer.forget()
        return ended

    def open_tracks(self) -> OpenTracks:
        """Where the open tracks stand now; a copy."""
        m = self._linker.motion
        y_px, x_px = self._axes.to_camera(m.y, m.x)
        return OpenTracks(m.cell.copy(), y_px, x_px, self._newest)

    def _work(self, frame: Frame) -> list[Track]:
        self._processed += 1
        self._newest = frame
        now = self._observer.observe(frame, self._linker.motion)
        # The background must not learn what is not the field's: but a field that changed is learnt.
        if frame.index > self._learnt and (isinstance(now, Observed) or now == "unlike-background"):
            self._background.add(frame.image)
        if isinstance(now, str):
            self._leave_out(now)
            return []
        linked = self._linker.step(now.sights, self._observer)
        # Ends first: a slot given back may be taken at once.
        ended = self._handed_over(linked.ended)
        for slot, _ in linked.born:
            self._store.begin(slot)
        for rows in [*linked.past, linked.now]:
            self._write(rows, self._observer.recent(rows.frame))
        return ended

    def _handed_over(self, ends: list[End]) -> list[Track]:
        """The tracks that ended, but for those too pale to be told from cells far beyond the focus."""
        tracks = []
        for end in ends:
            track = self._store.end(end.slot, end.cell, end.last_seen, end.reason)
            if contrast_of(track.crops, track.seen, track.intruded, track.edge) < self._least_contrast:
                self.too_pale += 1
                self._pale[end.cell] = self._without_pale(end.may_continue)
                if len(self._pale) > PIECES_REMEMBERED:
                    del self._pale[next(iter(self._pale))]
            else:
                track.may_continue = self._without_pale(end.may_continue)
                tracks.append(track)
        return tracks

    def _without_pale(self, cells: tuple[int, ...]) -> tuple[int, ...]:
        """Put in the place of a pale track what that one may continue, so that no chain breaks at it."""
        named = (c for cell in cells for c in self._pale.get(cell, (cell,)))
        return tuple(dict.fromkeys(named))

    def _leave_out(self, why: str) -> None:
        self.not_analysed[why] = self.not_analysed.get(why, 0) + 1

    def _write(self, rows: Rows, then: Observed) -> None:
        if not len(rows.slot):
            return
        image = then.frame.image
        y_px, x_px = self._axes.to_camera(rows.y, rows.x)
        pictures, edge = self._cropper.cut(image, y_px, x_px)
        flags = np.empty((len(rows.slot), 3), np.bool_)
        flags[:, 0] = rows.seen
        flags[:, 1] = intruded(rows.y, rows.x, then.intruding_y, then.intruding_x)
        flags[:, 2] = edge
        middles = np.full((len(rows.slot), 2), np.nan, np.float32)
        due = rows.seen & ((rows.slot + rows.frame) % _MIDDLE_EVERY == 0)
        middles[due] = self._centring.middles(image, then.background, then.gain, y_px[due], x_px[due])
        self._store.write(rows.slot, rows.frame, y_px, x_px, middles, flags, pictures)
