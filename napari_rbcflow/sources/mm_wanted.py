"""What is asked of a camera."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.plausible import check_settings

Roi = tuple[int, int, int, int]
"""x, y, width, height, in binned pixels."""


@dataclass(frozen=True)
class CameraSettings:
    """What the user asked for; None where not, and the camera then stays as it is set."""

    exposure_ms: float | None = None
    fps: float | None = None
    binning: int | None = None
    roi: Roi | None = None
    pixel_size_um: float | None = None
    pixel_type: str | None = None

    def check(self) -> None:
        """Raise BadInput for what no camera can do."""
        check_settings(fps=self.fps, pixel_size_um=self.pixel_size_um, exposure_ms=self.exposure_ms)
        if self.binning is not None and self.binning < 1:
            raise BadInput(f"A binning of {self.binning} is not possible; give 1 or more.")
        if self.roi is not None and (len(self.roi) != 4 or min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise BadInput(f"The field {self.roi} is not possible; give x, y, width, height in pixels.")
        if self.pixel_type is not None and not self.pixel_type.strip():
            raise BadInput("The pixel type is empty; give one such as 8bit-MONO, or leave it out.")


def parse_roi(text: str | None) -> Roi | None:
    """Return (x, y, width, height) of ``X,Y,WIDTH,HEIGHT``; None for None.

    Raises
    ------
    BadInput
        For anything else.
    """
    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"--roi takes four whole numbers X,Y,WIDTH,HEIGHT, not {text!r}") from None
    return x, y, width, height


def roi_text(roi: Roi | None) -> str:
    """Return what `parse_roi` reads; empty for None."""
    return "" if roi is None else ",".join(map(str, roi))
