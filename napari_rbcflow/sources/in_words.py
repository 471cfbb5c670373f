"""What a source really does, for a person."""

from __future__ import annotations

from napari_rbcflow.types import SourceInfo

_PIXEL_FROM = {
    "calibration": "from Micro-Manager's calibration",
    "setting": "as it was set",
    "default": "nobody says, so the usual one",
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
    how = ", measured" if measured else "" if info.fps_known else ", nobody says: the usual"
    lines.append(f"Frame rate: {info.fps:.4g} a second{how}")
    origin = details.get("pixel_size_from", "" if info.pixel_size_known else "default")
    words = _PIXEL_FROM.get(origin, "")
    lines.append(f"Pixel: {info.pixel_size_um:.4g} µm" + (f", {words}" if words else ""))
    return [*lines, *(f"▲ {warning}" for warning in info.warnings)]


def amiss_words(info: SourceInfo) -> str:
    """Return what is not as it was asked for, in a few words; empty where all is."""
    amiss = info.details.get("not_as_asked", "")
    return f"Not as asked: {amiss}." if amiss else ""
