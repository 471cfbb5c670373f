"""What one frame shows: its light, its detections, and why it may show nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.tracking.axes import Floats, FlowAxes
from napari_rbcflow.tracking.background import Background
from napari_rbcflow.tracking.detection import Detections, Detector
from napari_rbcflow.tracking.focus import Focus, KnownCells
from napari_rbcflow.tracking.light import Light, gain_fault, unlit
from napari_rbcflow.tracking.linked import Sights
from napari_rbcflow.tracking.marks import Marks
from napari_rbcflow.tracking.motion import Ints, Motion
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.tracking.sharpness import sharpness_of
from napari_rbcflow.types import Frame

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
    """Looks at the frames of one run, in order; a `linked.Look` into the newest and the last ones.

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
        """As `linked.Look` says."""
        y_px, x_px = self._axes.exactly_to_camera(y, x)
        return self._detector.log_energy_at(y_px, x_px)

    def clearness_of(self, frame: int, sights: Ints) -> Floats:
        """As `linked.Look` says."""
        then = self.recent(frame)
        return self._clearness(then, then.found.y_px[sights], then.found.x_px[sights])

    def clearness_at(self, frame: int, x: float, y: float) -> float:
        """As `linked.Look` says."""
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
