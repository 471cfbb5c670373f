"""What a Micro-Manager camera is really set to, and how that differs from what was asked."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from napari_rbcflow.sources.mm_wanted import CameraSettings
from napari_rbcflow.sources.pixel_types import matching
from napari_rbcflow.sources.plausible import PIXEL_RANGE_UM, can_be

_FRAME_RATE = re.compile(r"(acquisition)?[\s_-]*frame[\s_-]*rate([\s_-]*\(?(fps|hz)\)?)?|fps", re.IGNORECASE)
AS_ASKED = 0.02
"""Cameras have exposures and rates in steps: what lies as near as this is as asked."""
WORDS = {
    "pixel_type": "pixel type",
    "binning": "binning",
    "roi": "field",
    "exposure_ms": "exposure",
    "fps": "frame rate",
}
"""Every setting, in the order in which they are made: each may change those behind it."""

_ASKED = {
    "pixel_type": "The pixel type {} was",
    "binning": "A binning of {} was",
    "roi": "The field {} was",
    "exposure_ms": "An exposure of {} ms was",
    "fps": "{} frames/s were",
}


@dataclass(frozen=True)
class Taken:
    """What a camera says of itself.

    Attributes
    ----------
    pixel_type, binning : str
        In the camera's own words; empty where it has no such property.
    roi : tuple of int (x, y, width, height)
        In binned pixels.
    exposure_ms : float
    fps : float or None
        Of its property for the frame rate, where it has one: what really comes has to be measured.
    """

    pixel_type: str
    binning: str
    roi: tuple[int, int, int, int]
    exposure_ms: float
    fps: float | None

    @classmethod
    def read(cls, core: Any, label: str) -> Taken:
        """Ask the camera."""
        x, y, width, height = core.get_roi()
        rate = rate_property(core, label)
        return cls(
            _property(core, label, "PixelType"),
            _property(core, label, "Binning"),
            (int(x), int(y), int(width), int(height)),
            float(core.get_exposure()),
            None if rate is None else _number(_property(core, label, rate)),
        )

    def said(self, name: str) -> str:
        """Return one of its settings for a person."""
        value = getattr(self, name)
        if name == "exposure_ms":
            return f"{value:.4g} ms"
        if name == "fps":
            return "unknown" if value is None else f"{value:.4g} frames/s"
        return ",".join(map(str, value)) if name == "roi" else str(value)

    def differs(self, name: str, other: Taken) -> bool:
        """Whether one of the settings is another than in `other`."""
        mine, theirs = getattr(self, name), getattr(other, name)
        if isinstance(mine, float) and isinstance(theirs, float):
            return abs(mine - theirs) > AS_ASKED * abs(theirs)
        return bool(mine != theirs)


class Difference(NamedTuple):
    """Something that is not as it was asked for: in a few words, and as a sentence."""

    words: str
    sentence: str


def differences(
    label: str, settings: CameraSettings, taken: Taken, fps: float, causes: Mapping[str, str]
) -> Iterator[Difference]:
    """Compare what was asked with what the camera took.

    Parameters
    ----------
    label : str
        Of the camera.
    settings : CameraSettings
    taken : Taken
        After all was set, and after the camera ran.
    fps : float
        As measured.
    causes : mapping of str to str
        By the name of a setting, why it is another one now, where that is known.
    """
    for name, asked in (
        ("pixel_type", settings.pixel_type),
        ("binning", settings.binning),
        ("roi", settings.roi),
        ("exposure_ms", settings.exposure_ms),
        ("fps", settings.fps),
    ):
        if asked is None or _is_as_asked(name, asked, taken, fps):
            continue
        took = f"{fps:.4g} frames/s" if name == "fps" else taken.said(name)
        wanted = ",".join(map(str, asked)) if isinstance(asked, tuple) else str(asked)
        if isinstance(asked, float):
            wanted = f"{asked:g}"
        why = f" ({causes[name]})" if name in causes else ""
        what = "" if name == "fps" else f"{WORDS[name]} "
        yield Difference(
            f"{what}{took}, not {wanted}",
            f"{_ASKED[name].format(wanted)} asked for; {label} has {took}{why}.",
        )


def _is_as_asked(name: str, asked: Any, taken: Taken, fps: float) -> bool:
    if name == "fps":
        return bool(abs(fps / asked - 1) <= AS_ASKED)
    if name == "exposure_ms":
        return bool(abs(taken.exposure_ms - asked) <= AS_ASKED * asked)
    if name == "binning":
        return re.match(rf"{asked}(\D|$)", taken.binning) is not None
    if name == "pixel_type":
        return matching(str(asked), [taken.pixel_type]) is not None
    return bool(taken.roi == tuple(asked))


def details_of(core: Any, label: str, taken: Taken) -> dict[str, str]:
    """Return what belongs in the record of a run."""
    x, y, width, height = taken.roi
    details = {
        "camera": label,
        "adapter": f"{core.get_device_library(label)} {core.get_device_name(label)}",
        "micro_manager": f"{core.get_version_info()}, {core.get_api_version_info()}",
        "roi_px": f"{x},{y},{width},{height}",
        "bit_depth": str(core.get_image_bit_depth()),
        "binning": taken.binning,
        "pixel_type": taken.pixel_type,
        "gain": _property(core, label, "Gain"),
    }
    return {name: value for name, value in details.items() if value}


def pixel_size(core: Any, setting: float | None, warnings: list[str]) -> tuple[float | None, str]:
    """Return the pixel in um, and where it is from: Micro-Manager's calibration, else the setting.

    Where there is neither, the pixel is None.
    """
    calibrated = float(core.get_pixel_size_um())
    mine = (setting, "default" if setting is None else "setting")
    if calibrated <= 0:
        return mine
    if not can_be(calibrated, PIXEL_RANGE_UM):
        warnings.append(
            f"Micro-Manager's calibration says a pixel of {calibrated:g} um, which is not believed."
        )
        return mine
    if setting is not None and abs(setting / calibrated - 1) > 0.01:
        warnings.append(
            f"Micro-Manager's calibration, {calibrated:g} um a pixel, is used; {setting:g} um was set."
        )
    return calibrated, "calibration"


def rate_property(core: Any, label: str) -> str | None:
    """Return the name of the property that sets the frame rate; None where there is none."""
    for name in core.get_device_property_names(label):
        if _FRAME_RATE.fullmatch(name) and not core.is_property_read_only(label, name):
            return str(name)
    return None


def _property(core: Any, label: str, name: str) -> str:
    with contextlib.suppress(Exception):
        if core.has_property(label, name):
            return str(core.get_property(label, name))
    return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
