"""What can be set of tracking. Lengths are in reference pixels of 0.605 um, whatever the camera's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_rbcflow.errors import BadInput

Direction = Literal["left-to-right", "right-to-left"]


@dataclass(slots=True, frozen=True)
class TrackingSettings:
    """Settings of detection and linking.

    A reference pixel is 0.605 um (`types.CROP_PIXEL_SIZE_UM`), so that the same settings hold
    for every binning of the camera. Speeds are per frame at 60 frames/s.

    Attributes
    ----------
    direction : str
        Where the flow goes: ``left-to-right`` or ``right-to-left``.
    least_speed_px, greatest_speed_px : float
        Speeds along x that a cell may have, reference pixels a frame at 60 frames/s.
    threshold : float
        A detection's blurred energy, in multiples of the energy of the noise.
    least_contrast : float
        Of a track's mean picture (`detection.contrast_of`), as a share of the light: paler tracks are not
        handed over. The faintest of 221 published sequences has 0.048.
    smoothing_px : float
        Standard deviation of the blur of the energy: about half a cell's radius and more, so that rim
        and centre of one cell make one maximum.
    separation_px : float
        Least distance between two detections.
    saddle : float
        Of two maxima near each other the lesser counts only where the energy between them falls below
        this share of its own: one cell's rim can have two maxima, but no valley.
    most_misses : int
        Frames without a sight after which a track ends.
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
            raise BadInput(f"direction is left-to-right or right-to-left, not {self.direction!r}.")
        if not 0 < self.least_speed_px < self.greatest_speed_px:
            raise BadInput("The least speed must lie above 0 and below the greatest speed.")
        if self.threshold <= 1 or self.smoothing_px <= 0 or self.separation_px <= 0:
            raise BadInput("threshold must lie above 1, smoothing_px and separation_px above 0.")
        if not 0 <= self.least_contrast < 1:
            raise BadInput("least_contrast must be 0 or more and under 1.")
        if not 0 < self.saddle <= 1:
            raise BadInput("saddle must lie above 0 and be at most 1.")
        if not 1 <= self.most_misses <= 6:
            raise BadInput("most_misses must lie between 1 and 6: a track's end is known within 6 frames.")
