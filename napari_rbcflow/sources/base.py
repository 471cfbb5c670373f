"""The one contract behind which every camera, movie and simulation stands, and how a source is described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.types import Frame, SourceInfo


class FrameSource(ABC):
    """Where frames come from.

    Lifecycle: construct (cheap, touches nothing) -> `open` -> iterate `frames` once, in one
    thread -> `close`. `stop` may be called from any thread at any time, more than once; `frames`
    then ends within a second and the camera stops. `close` may be called more than once, also
    after a failed `open`, and leaves no thread, process or camera behind. ``with source:`` opens
    and closes.

    Raises
    ------
    BadInput
        From `open`, where what was asked for cannot be had.
    RunFailed
        From `frames`, where the source breaks (the camera went away, the movie is cut short):
        one sentence. All frames before that were yielded.
    """

    @abstractmethod
    def open(self) -> SourceInfo:
        """Make ready, and say what will come."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends or `stop` is called."""

    @abstractmethod
    def stop(self) -> None:
        """Ask for no more frames; returns at once."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    @property
    def missed(self) -> Mapping[str, int]:
        """Frames that never reached us, by reason (``image-number``, ``time-gap``, ``overflow``, ...)."""
        return {}

    @property
    def silence_s(self) -> float | None:
        """Seconds without a frame after which `frames` must be taken for hung; None where it never is.

        A source that can tell says so itself, and earlier.
        """
        return None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said at the end beside the result, such as a simulation's own fraction."""
        return ()

    def __enter__(self) -> SourceInfo:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordedSource(FrameSource):
    """A source whose frames can be read in any order, so that a background over it all is possible."""

    @abstractmethod
    def sample(self, n: int) -> NDArray[np.uint8]:
        """Return up to `n` frames spread evenly over the movie, shape (m, height, width), uint8.

        Call between `open` and the end of `frames`, from the thread that iterates or before it starts.

        Raises
        ------
        BadInput
            Where one of them cannot be read.
        """


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
