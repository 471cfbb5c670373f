"""From frames to finished tracks, one frame at a time: the entrance to this package."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from napari_rbcflow.compiled import njit
from napari_rbcflow.errors import BadInput
from napari_rbcflow.tracking.background import Background, Evenness, MovieBackground
from napari_rbcflow.tracking.crops import Cropper, FlowAxes, TrackStore, intruded
from napari_rbcflow.tracking.detection import Detections, Detector, contrast_of
from napari_rbcflow.tracking.focus import (
    Focus,
    Light,
    StaticFeatures,
    exposure_fault,
    gain_fault,
    sharpness_of,
)
from napari_rbcflow.tracking.linker import Linker
from napari_rbcflow.tracking.motion import End, FlowDetections, Motion, TrackPositions
from napari_rbcflow.tracking.positions import CentroidFinder
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.types import (
    CROP_PIXEL_SIZE_UM,
    CROP_SIDE,
    FRAGMENTS_REMEMBERED,
    Bools,
    Floats,
    Floats32,
    Frame,
    Grey,
    Ints,
    Track,
)

_PAST = 8  # frames kept, so that a new track finds its beginning
_INTRUDING_ENERGY = 4.0  # detections of less energy do not spoil a neighbour's crop


@dataclass(slots=True, frozen=True, eq=False)
class Observed:
    """One frame that could be analysed."""

    frame: Frame
    background: Grey
    gain: float  # of the frame's light over the background's
    detections: Detections
    in_flow: FlowDetections  # the same detections
    intruding_y: Floats  # of those that spoil the crop of a cell near them, in flow coordinates
    intruding_x: Floats

    def steps_from(self, before: Observed) -> Ints:
        """Return `steps_between` the frame before and this one."""
        return steps_between(self.intruding_y, self.intruding_x, before.intruding_y, before.intruding_x)


class Observer:
    """Detects cells in the frames of one run, in order; the linker's `FrameProbe` in the last of them."""

    def __init__(
        self,
        height: int,
        width: int,
        *,
        pixel_size_um: float,
        background: Background,
        axes: FlowAxes,
        settings: TrackingSettings,
    ) -> None:
        self._background, self._axes, self._pixel_size_um = background, axes, pixel_size_um
        self._least_contrast = max(settings.least_contrast, 1e-6)
        self._light, self._evenness = Light(), Evenness(pixel_size_um)
        self._focus = Focus(axes.length)
        self._static = StaticFeatures(pixel_size_um)
        self._detector = Detector(height, width, pixel_size_um=pixel_size_um, settings=settings)
        self._past: deque[Observed] = deque(maxlen=_PAST)

    def observe(self, frame: Frame, tracks: Motion) -> Observed | str:
        """Analyse a frame with the open tracks as of the last one; or say why not, as in `not_analysed`."""
        if fault := exposure_fault(frame.image):
            return fault
        if not self._background.ready:
            return "no-background"
        image, background = self._evenness.of(frame.image, self._background.image)
        if image is not frame.image:
            frame = replace(frame, image=image)
        gain = self._light.gain(frame.image, background)
        if fault := gain_fault(gain):
            return fault
        found = self._detector.detect(frame.image, background, gain)
        if found is None:
            return "unlike-background"
        y, x = self._axes.to_flow(found.y_px, found.x_px)
        strong = found.energy >= _INTRUDING_ENERGY
        in_flow = FlowDetections(frame.index, x, y, np.log(found.energy.astype(np.float64)))
        now = Observed(frame, background, gain, found, in_flow, y[strong], x[strong])
        if self._out_of_focus(now, strong, tracks):
            return "out-of-focus"
        self._past.append(now)
        return now

    @property
    def falloff(self) -> float | None:
        """`Evenness.falloff` of the last frame."""
        return self._evenness.falloff

    @property
    def newest(self) -> Observed | None:
        """The last analysed frame."""
        return self._past[-1] if self._past else None

    def recent(self, index: int) -> Observed:
        """Return one of the last analysed frames by its index."""
        return next(observed for observed in reversed(self._past) if observed.frame.index == index)

    def forget(self) -> None:
        """Release the frames that are kept."""
        self._past.clear()

    def log_energy_at(self, x: Floats, y: Floats) -> Floats:
        y_px, x_px = self._axes.exactly_to_camera(y, x)
        return self._detector.log_energy_at(y_px, x_px)

    def relative_contrasts(self, frame: int, which: Ints) -> Floats:
        then = self.recent(frame)
        return self._relative_contrasts(then, then.detections.y_px[which], then.detections.x_px[which])

    def relative_contrast_at(self, frame: int, x: float, y: float) -> float:
        y_px, x_px = self._axes.to_camera(np.array([y]), np.array([x]))
        return float(self._relative_contrasts(self.recent(frame), y_px, x_px)[0])

    def _relative_contrasts(self, then: Observed, y_px: Floats32, x_px: Floats32) -> Floats:
        contrast = self._detector.contrasts(then.frame.image, then.background, then.gain, y_px, x_px)
        return contrast.astype(np.float64) / self._least_contrast

    def _out_of_focus(self, now: Observed, strong: Bools, tracks: Motion) -> bool:
        elapsed = now.frame.index - self._past[-1].frame.index if self._past else 1
        return self._focus.lost(
            now.intruding_x,
            now.intruding_y,
            tracks,
            elapsed=elapsed,
            gain=now.gain,
            static=self._static.visible_share(now.frame.image, now.background),
            log_energy_at=self.log_energy_at,
            sharpness=lambda: sharpness_of(
                now.frame.image,
                now.background,
                now.gain,
                noise=self._detector.noise,
                pixel_size_um=self._pixel_size_um,
                y_px=now.detections.y_px[strong],
                x_px=now.detections.x_px[strong],
            ),
        )


_CAUGHT_UP_A_CALL = 3  # frames processed in a call while held ones wait, so that no call takes long
_CENTROID_EVERY = 3
"""Frames between two measurements of a track's centroid: it moves steadily, and more add nothing."""


@dataclass(slots=True, frozen=True, eq=False)
class OpenTracks:
    """Positions of the open tracks, for display.

    Attributes
    ----------
    cell : ndarray of int64, shape (m,)
    y_px, x_px : ndarray of float32, shape (m,)
    frame : Frame or None
        The frame of these positions; None before the first. Not always the last one given: a sliding
        background holds the first second of frames, which are then processed.
    detected : int or None
        What stood out in that frame as cells do, followed or not; None if it could not be analysed.
    steps : ndarray of int64, shape (4,), or None
        How many of these have another in the frame before that lies so that they moved to the right, left,
        down or up, as cells in a flow do; each may have several. None where that was not looked for.
    falloff : float or None
        `Evenness.falloff` of the light.
    """

    cell: Ints
    y_px: Floats32
    x_px: Floats32
    frame: Frame | None
    detected: int | None = None
    steps: Ints | None = None
    falloff: float | None = None


_STEPS_EVERY = 4  # frames between two looks at which way cells move, whatever was set
_LONGEST_STEP_PX, _STEP_ASIDE_PX = 95.0, 3.0


@njit(cache=True, nogil=True)
def steps_between(y: Floats, x: Floats, y_before: Floats, x_before: Floats) -> Ints:
    """Count the pairs that lie as one cell that moved to the right, left, down or up, reference pixels."""
    out = np.zeros(4, np.int64)
    for i in range(len(y)):
        for k in range(len(y_before)):
            dy, dx = y[i] - y_before[k], x[i] - x_before[k]
            along_x = abs(dx) > abs(dy)
            far, aside = (dx, dy) if along_x else (dy, dx)
            if abs(aside) <= _STEP_ASIDE_PX < abs(far) <= _LONGEST_STEP_PX:
                out[2 * (not along_x) + (far < 0)] += 1
    return out


class Tracker:
    """Tracks cells through the frames of one run; the tracks depend on the frames alone, not on their pace.

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
    processed : int
        Frames processed so far, without those held until the background is ready.
    not_analysed : dict of str to int
        Processed frames that could not be analysed, by reason: ``dark``, ``saturated``, ``uniform``,
        ``too-dark``, ``too-bright``, ``unlike-background``, ``out-of-focus``, ``no-background``.
    too_pale : int
        Finished tracks that were left out: too faint to be told from cells far out of focus.

    Raises
    ------
    BadInput
        If the field is too small, or the frame rate or pixel size is not positive.
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
            raise BadInput("tracking.scale-not-positive")
        least_um = 2 * CROP_SIDE * CROP_PIXEL_SIZE_UM
        if min(height, width) * pixel_size_um < least_um:
            raise BadInput(
                "tracking.field-too-small",
                width=width,
                height=height,
                pixel_size_um=pixel_size_um,
                least_um=least_um,
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
        self._centroids = CentroidFinder(pixel_size_um)
        self._store = TrackStore(self._cropper)
        self._least_contrast = settings.least_contrast
        self._pale: dict[int, tuple[int, ...]] = {}
        self.too_pale = 0
        self._held: deque[Frame] = deque()
        self.processed = 0
        self._last_given = -1
        self._newest: Frame | None = None
        self._detected: int | None = None
        self._steps: Ints | None = None
        self._opened = False
        self._learnt = -1  # the last frame that was added to the background while frames were held
        self.not_analysed: dict[str, int] = {}

    def process(self, frame: Frame) -> list[Track]:
        """Process a frame, and return the tracks that ended.

        Raises
        ------
        BadInput
            If the frame has another size or type, or is not after the last one.
        """
        if frame.image.shape != self._shape or frame.image.dtype != np.uint8:
            raise BadInput(
                "tracking.frame-changed",
                index=frame.index,
                shape=frame.image.shape,
                dtype=frame.image.dtype,
                expected=self._shape,
            )
        if frame.index <= self._last_given:
            raise BadInput("tracking.frame-out-of-order", index=frame.index, last=self._last_given)
        self._last_given = frame.index
        if not self._opened:
            # The background learns from the held frames; they are processed as soon as it is ready.
            # Frames without light are not held, or a camera in the dark would fill the memory.
            if fault := exposure_fault(frame.image):
                self.processed += 1
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
        """End the run: process the held frames, and end all open tracks with `reason`.

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
        ended += self._finished(self._linker.finish(reason))
        self._observer.forget()
        return ended

    def open_tracks(self) -> OpenTracks:
        """Return a copy of the open tracks' positions."""
        m = self._linker.motion
        y_px, x_px = self._axes.to_camera(m.y, m.x)
        return OpenTracks(
            m.cell.copy(), y_px, x_px, self._newest, self._detected, self._steps, self._observer.falloff
        )

    def _work(self, frame: Frame) -> list[Track]:
        self.processed += 1
        self._newest = frame
        before = self._observer.newest
        now = self._observer.observe(frame, self._linker.motion)
        self._detected = len(now.intruding_x) if isinstance(now, Observed) else None
        self._steps = None
        follows = before is not None and frame.index == before.frame.index + 1
        if before and follows and isinstance(now, Observed) and frame.index % _STEPS_EVERY == 0:
            self._steps = self._axes.steps_to_camera(now.steps_from(before))
        # The background must not learn what does not belong to the field, but must learn a changed field.
        if frame.index > self._learnt and (isinstance(now, Observed) or now == "unlike-background"):
            self._background.add(frame.image)
        if isinstance(now, str):
            self._leave_out(now)
            return []
        linked = self._linker.step(now.in_flow, self._observer)
        # Ends first, as a slot that becomes free may be taken at once.
        ended = self._finished(linked.ended)
        for slot, _ in linked.born:
            self._store.begin(slot)
        for rows in [*linked.past, linked.now]:
            self._write(rows, self._observer.recent(rows.frame))
        return ended

    def _finished(self, ends: list[End]) -> list[Track]:
        """Return the tracks that ended, without those too faint to be told from cells far out of focus."""
        tracks = []
        for end in ends:
            track = self._store.end(end.slot, end.cell, end.last_seen, end.reason)
            if contrast_of(track.crops, track.seen, track.intruded, track.edge) < self._least_contrast:
                self.too_pale += 1
                self._pale[end.cell] = self._without_pale(end.may_continue)
                if len(self._pale) > FRAGMENTS_REMEMBERED:
                    del self._pale[next(iter(self._pale))]
            else:
                track.may_continue = self._without_pale(end.may_continue)
                tracks.append(track)
        return tracks

    def _without_pale(self, cells: tuple[int, ...]) -> tuple[int, ...]:
        """Replace faint tracks by what they may continue, so that no chain breaks at them."""
        named = (c for cell in cells for c in self._pale.get(cell, (cell,)))
        return tuple(dict.fromkeys(named))

    def _leave_out(self, why: str) -> None:
        self.not_analysed[why] = self.not_analysed.get(why, 0) + 1

    def _write(self, rows: TrackPositions, then: Observed) -> None:
        if not len(rows.slot):
            return
        image = then.frame.image
        y_px, x_px = self._axes.to_camera(rows.y, rows.x)
        wide, edge = self._cropper.cut(image, y_px, x_px)
        flags = np.empty((len(rows.slot), 3), np.bool_)
        flags[:, 0] = rows.seen
        flags[:, 1] = intruded(rows.y, rows.x, then.intruding_y, then.intruding_x)
        flags[:, 2] = edge
        centroids = np.full((len(rows.slot), 2), np.nan, np.float32)
        due = rows.seen & ((rows.slot + rows.frame) % _CENTROID_EVERY == 0)
        centroids[due] = self._centroids.centroids(image, then.background, then.gain, y_px[due], x_px[due])
        self._store.write(rows.slot, rows.frame, y_px, x_px, centroids, flags, wide)


_HEIGHT, _WIDTH, _FRAMES, _STEP_PX = 128, 512, 30, 15.0
_MAX_SCALE = 2.0  # other pixel sizes go through the same kernels, at many times the cost


def warm_up(pixel_size_um: float = CROP_PIXEL_SIZE_UM) -> None:
    """Track three artificial cells, so that every kernel is compiled (about ten seconds on a new machine).

    Parameters
    ----------
    pixel_size_um : float
        Of the frames that will come, as crops are resampled if it is not `CROP_PIXEL_SIZE_UM`.
    """
    rng = np.random.default_rng(0)
    scale = float(np.clip(CROP_PIXEL_SIZE_UM / pixel_size_um, 1 / _MAX_SCALE, _MAX_SCALE))
    pixel_size_um = CROP_PIXEL_SIZE_UM / scale
    height, width = round(_HEIGHT * scale), round(_WIDTH * scale)
    y, x = np.mgrid[:height, :width] / scale
    images = np.empty((_FRAMES, height, width), np.uint8)
    for t in range(_FRAMES):
        grey = 120 + rng.normal(0, 1.8, (height, width))
        # The last one is missing once, so that the code that fills the gap is compiled, too.
        for cell in range(2 if t == 1 else 3):
            r2 = (y - 30 - 35 * cell) ** 2 + (x - 5 - 40 * cell - _STEP_PX * t) ** 2
            grey += 25 * np.exp(-r2 / 18) - 10 * np.exp(-((np.sqrt(r2) - 6) ** 2) / 4)
        images[t] = np.clip(grey, 0, 255)
    tracker = Tracker(
        height, width, fps=60.0, pixel_size_um=pixel_size_um, background=MovieBackground(images)
    )
    for t, image in enumerate(images):
        tracker.process(Frame(t, t / 60, image))
    tracker.finish("source-ended")
