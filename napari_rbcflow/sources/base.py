"""What all sources share: how one is described to a person, and what settings can be."""

from __future__ import annotations

from napari_rbcflow.errors import BadInput
from napari_rbcflow.types import FrameSource as FrameSource
from napari_rbcflow.types import RecordedSource as RecordedSource
from napari_rbcflow.types import SourceInfo

LEAST_SIDE_PX = 64
"""Twice a crop: in less no cell can be followed."""
FPS_RANGE = (0.1, 10_000.0)
PIXEL_RANGE_UM = (0.05, 5.0)
"""In the field: from a 100x objective with small pixels to a 2x objective, binned."""
EXPOSURE_RANGE_MS = (0.001, 10_000.0)


def can_be(value: float, bounds: tuple[float, float]) -> bool:
    """Tell whether a value lies within bounds; NaN does not."""
    return bounds[0] <= value <= bounds[1]


def check_settings(
    *, fps: float | None = None, pixel_size_um: float | None = None, exposure_ms: float | None = None
) -> None:
    """Refuse what no microscope has; None is left alone.

    Raises
    ------
    BadInput
        With the bounds.
    """
    for value, said, bounds, unit in (
        (fps, "A frame rate of {:g} frames/s", FPS_RANGE, "frames/s"),
        (pixel_size_um, "A pixel of {:g} um", PIXEL_RANGE_UM, "um"),
        (exposure_ms, "An exposure of {:g} ms", EXPOSURE_RANGE_MS, "ms"),
    ):
        if value is not None and not can_be(value, bounds):
            low, high = bounds
            raise BadInput(f"{said.format(value)} is not possible; give {low:g} to {high:,g} {unit}.")


def in_a_line(error: BaseException, longest: int = 400) -> str:
    """Return an error's text, which may be many lines with causes in brackets, as one clause."""
    said = " ".join(str(error).replace(" [ ", ": ").replace(" ]", "").split()).rstrip(". ")
    return said if len(said) <= longest else said[: longest - 3] + "..."


_PIXEL_FROM = {
    "calibration": "from Micro-Manager's calibration",
    "setting": "as it was set",
    "default": "not specified, the default is used",
}


def took_words(info: SourceInfo) -> str:
    """Return field, frame rate, exposure, binning, pixel type and pixel size in a line, as read back."""
    details = info.details
    said = [f"{info.width} x {info.height} px", f"{info.fps:.4g} frames/s"]
    if info.exposure_ms is not None:
        said.append(f"{info.exposure_ms:.4g} ms")
    if "binning" in details:
        said.append(f"binning {details['binning']}")
    if "pixel_type" in details:
        said.append(details["pixel_type"])
    said.append(f"{info.pixel_size_um:.4g} µm/px" + ("" if info.pixel_size_known else " (?)"))
    return " · ".join(said)


def took_lines(info: SourceInfo) -> list[str]:
    """Return the same at length, and whatever the source has to say, a line each."""
    details = info.details
    lines = [f"{info.name}: what it really does, not what was asked."]
    if "adapter" in details:
        lines.append(f"Camera: {details['adapter']}, {details.get('bit_depth', '?')} bits")
    if "roi_px" in details:
        lines.append(f"Field: x, y, width, height {details['roi_px']} px")
    measured = "fps_measured" in details
    how = ", measured" if measured else "" if info.fps_known else ", not specified: the default"
    lines.append(f"Frame rate: {info.fps:.4g} a second{how}")
    origin = details.get("pixel_size_from", "" if info.pixel_size_known else "default")
    words = _PIXEL_FROM.get(origin, "")
    lines.append(f"Pixel: {info.pixel_size_um:.4g} µm" + (f", {words}" if words else ""))
    return [*lines, *(f"▲ {warning}" for warning in info.warnings)]


def amiss_words(info: SourceInfo) -> str:
    """Return what is not as it was asked for, in a few words; empty where all is."""
    amiss = info.details.get("not_as_asked", "")
    return f"Not as asked: {amiss}." if amiss else ""
