"""Settings of tracking. Lengths are in reference pixels of 0.605 um, whatever the camera's pixel size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_rbcflow.errors import BadInput

Direction = Literal["left-to-right", "right-to-left"]


@dataclass(slots=True, frozen=True)
class TrackingSettings:
    """Settings of detection and linking, in reference pixels, so that they hold for every binning.

    Attributes
    ----------
    direction : str
        Of the flow: ``left-to-right`` or ``right-to-left``.
    least_speed_px, greatest_speed_px : float
        Range of a cell's speed along x, reference pixels a frame at 60 frames/s.
    threshold : float
        Minimum blurred energy of a detection, in multiples of the noise's.
    least_contrast : float
        Minimum contrast of a track's mean image (`detection.contrast_of`), as a share of the light: fainter
        tracks are left out. The faintest of 221 published sequences has 0.048.
    smoothing_px : float
        Standard deviation of the blur of the energy: more than about half a cell's radius, so that the rim
        and centre of a cell make one maximum.
    separation_px : float
        Minimum distance between two detections.
    saddle : float
        Of two maxima near each other, the lower one counts only if the energy between them falls below this
        share of its own: a cell's rim can have two maxima, but no valley between them.
    most_misses : int
        Frames without a detection after which a track ends.

    Raises
    ------
    BadInput
        If a setting is out of range.
    """

    direction: Direction = "left-to-right"
    least_speed_px: float = 2.0
    greatest_speed_px: float = 95.0
    threshold: float = 2.5
    least_contrast: float = 0.031
    smoothing_px: float = 4.5
    separation_px: float = 8.0
    saddle: float = 0.8
    most_misses: int = 6

    def __post_init__(self) -> None:
        if self.direction not in ("left-to-right", "right-to-left"):
            raise BadInput("tracking.direction-unknown", direction=self.direction)
        if not 0 < self.least_speed_px < self.greatest_speed_px:
            raise BadInput("tracking.speeds-out-of-order")
        if self.threshold <= 1 or self.smoothing_px <= 0 or self.separation_px <= 0:
            raise BadInput("tracking.detection-range")
        if not 0 <= self.least_contrast < 1:
            raise BadInput("tracking.least-contrast-range")
        if not 0 < self.saddle <= 1:
            raise BadInput("tracking.saddle-range")
        if not 1 <= self.most_misses <= 6:
            raise BadInput("tracking.most-misses-range")
