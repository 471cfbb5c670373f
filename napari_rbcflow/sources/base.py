"""What all sources share: how one is described to a person, and what settings can be."""

from __future__ import annotations

import math
import re

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.types import FrameSource as FrameSource
from napari_rbcflow.types import RecordedSource as RecordedSource
from napari_rbcflow.types import SourceInfo

MOST_PIXELS = 64_000_000  # more than any camera sends at such rates; a header that says more is damaged
MIN_SIDE_PX = 64  # twice a crop: in a smaller frame no cell can be followed
FPS_RANGE = (0.1, 10_000.0)
PIXEL_RANGE_UM = (0.05, 5.0)  # of a pixel in the field: from 100x with small pixels to 2x, binned
EXPOSURE_RANGE_MS = (0.001, 10_000.0)
STORED_TWICE = "stored-twice"
"""Why a frame is missing whose place in a movie holds a copy of the frame before."""


def is_within(value: float, bounds: tuple[float, float]) -> bool:
    """Tell whether a value is within bounds; NaN is not."""
    return bounds[0] <= value <= bounds[1]


_NUMBER = re.compile(r"[-+]?(?:\d[\d.,]*|[.,]\d+)(?:[eE][-+]?\d+)?")


def number_in(said: object) -> float | None:
    """Return the number with which a text begins, with a point or a comma; None where it is none.

    Of several points or commas, those before the last one part thousands.
    """
    found = _NUMBER.match(str(said).strip())
    if found is None:
        return None
    whole, mark, rest = re.match(r"(.*?)([.,]?)([^.,]*)$", found[0]).groups()  # type: ignore[union-attr]
    thousands = mark in whole
    try:
        number = float(re.sub("[.,]", "", whole) + ("" if thousands else mark and ".") + rest)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def check_settings(
    *, fps: float | None = None, pixel_size_um: float | None = None, exposure_ms: float | None = None
) -> None:
    """Refuse what no microscope has; None is left alone.

    Raises
    ------
    BadInput
        With the bounds.
    """
    for value, key, (low, high) in (
        (fps, "sources.fps-impossible", FPS_RANGE),
        (pixel_size_um, "sources.pixel-size-impossible", PIXEL_RANGE_UM),
        (exposure_ms, "sources.exposure-impossible", EXPOSURE_RANGE_MS),
    ):
        if value is not None and not is_within(value, (low, high)):
            raise BadInput(key, value=value, low=low, high=high)


def check_rotation(degrees: int) -> None:
    """Refuse to turn a picture by anything but 0, 90, 180 or 270 degrees."""
    if degrees not in (0, 90, 180, 270):
        raise BadInput("sources.rotation-impossible", value=degrees)


def in_a_line(error: BaseException) -> str:
    """Return an error's text, which may be many lines with causes in brackets, as one clause."""
    text = " ".join(str(error).replace(" [ ", ": ").replace(" ]", "").split()).rstrip(". ")
    return text if len(text) <= 400 else text[:397] + "..."


def source_line(info: SourceInfo) -> str:
    """Return field, frame rate, exposure, binning, pixel type and pixel size in a line, as read back."""
    details = info.details
    parts = [
        say("sources.line-size", width=info.width, height=info.height),
        say("sources.line-fps", fps=info.fps),
    ]
    if info.exposure_ms is not None:
        parts.append(say("sources.line-exposure", exposure=info.exposure_ms))
    if "binning" in details:
        parts.append(say("sources.line-binning", binning=details["binning"]))
    if "pixel_type" in details:
        parts.append(details["pixel_type"])
    key = "sources.line-pixel-size" if info.pixel_size_known else "sources.line-pixel-size-default"
    return " · ".join([*parts, say(key, pixel=info.pixel_size_um)])


_LONG_PIXEL_SIZE = {
    "": "sources.long-pixel-size",
    "calibration": "sources.long-pixel-size-calibrated",
    "setting": "sources.long-pixel-size-set",
    "default": "sources.long-pixel-size-default",
}


def source_lines(info: SourceInfo) -> list[str]:
    """Return the same at length, and the source's warnings, a line each."""
    details = info.details
    lines = [say("sources.long-title", name=info.name)]
    if "adapter" in details:
        bits = details.get("bit_depth", "?")
        lines.append(say("sources.long-camera", adapter=details["adapter"], bits=bits))
    if "roi_px" in details:
        lines.append(say("sources.long-field", roi=details["roi_px"]))
    if "fps_measured" in details:
        key = "sources.long-fps-measured"
    else:
        key = "sources.long-fps" if info.fps_known else "sources.long-fps-default"
    lines.append(say(key, fps=info.fps))
    origin = details.get("pixel_size_from", "" if info.pixel_size_known else "default")
    lines.append(say(_LONG_PIXEL_SIZE[origin], pixel=info.pixel_size_um))
    return [*lines, *(f"▲ {warning}" for warning in info.warnings)]


def not_as_asked_line(info: SourceInfo) -> str:
    """Return what is not as it was asked for, in a few words; empty where everything is."""
    differences = info.details.get("not_as_asked", "")
    return say("sources.line-not-as-asked", differences=differences) if differences else ""
