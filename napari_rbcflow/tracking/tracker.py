"""From frames to finished tracks, one frame at a time: the door to everything in this package."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.tracking.background import Background, MovieBackground
from napari_rbcflow.tracking.crops import Cropper, FlowAxes, TrackStore, intruded
from napari_rbcflow.tracking.detection import Detections, Detector, contrast_of
from napari_rbcflow.tracking.focus import Focus, KnownCells, Light, Marks, gain_fault, sharpness_of, unlit
from napari_rbcflow.tracking.linker import Linker
from napari_rbcflow.tracking.motion import End, Floats, Ints, Motion, Rows, Sights
from napari_rbcflow.tracking.positions import Centring
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.types import CROP_PIXEL_SIZE_UM, CROP_SIDE, PIECES_REMEMBERED, Frame, Track

_PAST = 8
"""Frames kept, so that a new track finds its beginning."""
_INTRUDING_ENERGY = 4.0
"""Detections of less energy do not spoil a neighbour's picture."""


@dataclass(slots=True, frozen=True, eq=False)
class Observed:
    """One frame that could be looked at.

    Attributes
    ----------
    frame : Frame
    background : ndarray of uint8, shape (height, width)
    gain : float
        Of the frame's light over the background's.
    found : Detections
    sights : Sights
        The same along the flow.
    intruding_y, intruding_x : ndarray of float64, shape (m,)
        Along the flow: what spoils the picture of a cell near it.
    """

    frame: Frame
    background: NDArray[np.uint8]
    gain: float
    found: Detections
    sights: Sights
    intruding_y: Floats
    intruding_x: Floats


class Observer:
    """Looks at the frames of one run, in order; a `motion.Look` into the newest and the last ones.

    Parameters
    ----------
    height, width : int
        Of every frame, pixels.
    pixel_size_um : float
        Of the camera, in the field.
    background : Background
        That shown to it is left to the tracker.
    axes : FlowAxes
    settings : TrackingSettings
    """

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
        self._light = Light()
        self._focus = Focus(axes.length)
        self._marks = Marks(pixel_size_um)
        self._detector = Detector(height, width, pixel_size_um=pixel_size_um, settings=settings)
        self._past: deque[Observed] = deque(maxlen=_PAST)

    def observe(self, frame: Frame, tracks: Motion) -> Observed | str:
        """Look at a frame.

        Parameters
        ----------
        frame : Frame
        tracks : Motion
            The open tracks, as the last frame left them.

        Returns
        -------
        Observed or str
            Why it shows nothing: as `Tracker.not_analysed` names it.
        """
        fault = unlit(frame.image)
        if fault is not None:
            return fault
        if not self._background.ready:
            return "no-background"
        background = self._background.image
        gain = self._light.gain(frame.image, background)
        fault = gain_fault(gain)
        if fault is not None:
            return fault
        found = self._detector.detect(frame.image, background, gain)
        if found is None:
            return "unlike-background"
        y, x = self._axes.to_flow(found.y_px, found.x_px)
        strong = found.energy >= _INTRUDING_ENERGY
        sights = Sights(frame.index, x, y, np.log(found.energy.astype(np.float64)))
        now = Observed(frame, background, gain, found, sights, y[strong], x[strong])
        if self._out_of_focus(now, strong, tracks):
            return "out-of-focus"
        self._past.append(now)
        return now

    def recent(self, index: int) -> Observed:
        """Return one of the last frames that could be looked at, by its index."""
        return next(observed for observed in reversed(self._past) if observed.frame.index == index)

    def forget(self) -> None:
        """Let the frames kept go."""
        self._past.clear()

    def log_energy_at(self, x: Floats, y: Floats) -> Floats:
        """As `motion.Look` says."""
        y_px, x_px = self._axes.exactly_to_camera(y, x)
        return self._detector.log_energy_at(y_px, x_px)

    def clearness_of(self, frame: int, sights: Ints) -> Floats:
        """As `motion.Look` says."""
        then = self.recent(frame)
        return self._clearness(then, then.found.y_px[sights], then.found.x_px[sights])

    def clearness_at(self, frame: int, x: float, y: float) -> float:
        """As `motion.Look` says."""
        y_px, x_px = self._axes.to_camera(np.array([y]), np.array([x]))
        return float(self._clearness(self.recent(frame), y_px, x_px)[0])

    def _clearness(self, then: Observed, y_px: NDArray[np.float32], x_px: NDArray[np.float32]) -> Floats:
        contrast = self._detector.contrasts(then.frame.image, then.background, then.gain, y_px, x_px)
        return contrast.astype(np.float64) / self._least_contrast

    def _out_of_focus(self, now: Observed, strong: NDArray[np.bool_], tracks: Motion) -> bool:
        m = tracks
        elapsed = now.frame.index - self._past[-1].frame.index if self._past else 1
        return self._focus.lost(
            now.intruding_x,
            now.intruding_y,
            KnownCells(m.x + m.v * elapsed, m.y, m.log_energy, np.where(m.misses == 0, m.sights, 0)),
            elapsed=elapsed,
            gain=now.gain,
            marks=self._marks.seen_in(now.frame.image, now.background),
            energy_at=self.log_energy_at,
            sharpness=lambda: sharpness_of(
                now.frame.image,
                now.background,
                now.gain,
                noise=self._detector.noise,
                pixel_size_um=self._pixel_size_um,
                y_px=now.found.y_px[strong],
                x_px=now.found.x_px[strong],
            ),
        )


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


_HEIGHT, _WIDTH, _FRAMES, _STEP_PX = 128, 512, 30, 15.0
_MOST_SCALE = 2.0
"""Smaller or greater pixels take the same way through the same kernels as these, at many times the cost."""


def warm_up(pixel_size_um: float = CROP_PIXEL_SIZE_UM) -> None:
    """Track three made-up cells, so that every kernel is compiled (on a new machine: some ten seconds).

    Parameters
    ----------
    pixel_size_um : float
        Of the frames that will come: crops take another way where it is not `CROP_PIXEL_SIZE_UM`. The
        made-up frames have it too, between half and twice that.
    """
    rng = np.random.default_rng(0)
    scale = float(np.clip(CROP_PIXEL_SIZE_UM / pixel_size_um, 1 / _MOST_SCALE, _MOST_SCALE))
    pixel_size_um = CROP_PIXEL_SIZE_UM / scale
    height, width = round(_HEIGHT * scale), round(_WIDTH * scale)
    y, x = np.mgrid[:height, :width] / scale
    images = np.empty((_FRAMES, height, width), np.uint8)
    for t in range(_FRAMES):
        grey = 120 + rng.normal(0, 1.8, (height, width))
        # The last is hidden once, so that what fills the gap is compiled, too.
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
