"""What a Micro-Manager camera is asked for, how it is set, and what it then really does."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.base import PIXEL_RANGE_UM, can_be, check_settings, in_a_line
from napari_rbcflow.sources.grey import matching
from napari_rbcflow.types import DEFAULT_FPS

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
            f"Micro-Manager's calibration says a pixel of {calibrated:g} um: implausible, ignored."
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


def apply_settings(
    core: Any, label: str, settings: CameraSettings, warnings: list[str], *, demo: bool
) -> dict[str, str]:
    """Set pixel type, binning, field, exposure and frame rate, in this order, of a camera that stands still.

    Binning moves the field, the pixel type decides which exposures there are, and the exposure which
    frame rates. What is set is read back after each step, so that a setting that changes another is told.

    Parameters
    ----------
    core, label
        Of the camera.
    settings : CameraSettings
    warnings : list of str
        Gets a sentence for a change of what nobody had asked to be set.
    demo : bool
        It is the DemoCamera as we load it.

    Returns
    -------
    dict of str to str
        By the name of a setting that was made and is another one now, why.

    Raises
    ------
    BadInput
        For what the camera refuses, with what it can do.
    """
    rate = None if demo else rate_property(core, label)
    steps: list[tuple[str, Callable[[], None]]] = []
    if (pixel_type := settings.pixel_type) is not None:
        steps.append(("pixel_type", lambda: _set_pixel_type(core, label, pixel_type)))
    if (binning := settings.binning) is not None:
        steps.append(("binning", lambda: _set_binning(core, label, binning)))
    if (roi := settings.roi) is not None:
        steps.append(("roi", lambda: _set_roi(core, label, roi)))
    if (exposure_ms := settings.exposure_ms) is not None and not demo:
        steps.append(("exposure_ms", lambda: _set_exposure(core, label, exposure_ms)))
    if (fps := settings.fps) is not None and rate is not None:
        steps.append(("fps", lambda: _set_fps(core, label, rate, fps, exposure_ms)))
    elif fps is not None and not demo:
        warnings.append(
            f"{label} has no setting for the frame rate: it runs as fast as its exposure lets it."
        )
    causes = _work_off(core, label, steps, warnings)
    if demo:
        # A frame comes every exposure, nothing else sets its rate. FastImage: one frame is drawn
        # and sent again and again; drawing each takes longer than a frame's time.
        core.snap_image()
        core.set_property(label, "FastImage", "1")
        core.set_exposure(1000 / (fps or DEFAULT_FPS))
        causes["exposure_ms"] = "the DemoCamera's exposure sets its frame rate"
    return causes


def _work_off(
    core: Any, label: str, steps: list[tuple[str, Callable[[], None]]], warnings: list[str]
) -> dict[str, str]:
    causes: dict[str, str] = {}
    asked = [name for name, _ in steps]
    before = Taken.read(core, label)
    for i, (name, make) in enumerate(steps):
        make()
        after = Taken.read(core, label)
        for other in WORDS:
            # What is still to be set may change; that binning gives another field is its purpose.
            if other in asked[i:] or (name, other) == ("binning", "roi") or not after.differs(other, before):
                continue
            if other in asked:
                causes[other] = f"setting the {WORDS[name]} changed it"
            else:
                warnings.append(
                    f"Setting the {WORDS[name]} changed {label}'s {WORDS[other]} from {before.said(other)} "
                    f"to {after.said(other)}."
                )
        before = after
    return causes


def _set_pixel_type(core: Any, label: str, wanted: str) -> None:
    allowed = _allowed(core, label, "PixelType")
    match = matching(wanted, allowed)
    if match is None:
        can = ", ".join(allowed) or "none that can be chosen"
        raise BadInput(
            f"{label} has no pixel type {wanted!r}; it has {can}: give one of them to --pixel-type."
        )
    try:
        core.set_property(label, "PixelType", match)
    except Exception as error:
        raise BadInput(f"{label} refuses the pixel type {match}: {in_a_line(error)}.") from error


def _set_binning(core: Any, label: str, binning: int) -> None:
    allowed = _allowed(core, label, "Binning")
    # Cameras call it 2, 2x2 or 2X2.
    match = next((value for value in allowed if re.match(rf"{binning}(\D|$)", value)), None)
    if match is None:
        raise BadInput(f"{label} cannot bin by {binning}; it can by {', '.join(allowed) or 'nothing'}.")
    try:
        core.set_property(label, "Binning", match)
    except Exception as error:
        raise BadInput(f"{label} refuses a binning of {match}: {in_a_line(error)}.") from error


def _set_roi(core: Any, label: str, roi: Roi) -> None:
    core.clear_roi()
    width, height = int(core.get_image_width()), int(core.get_image_height())
    if roi[0] + roi[2] > width or roi[1] + roi[3] > height:
        raise BadInput(
            f"The field {roi} does not fit into {label}'s {width} x {height} px; give a smaller one."
        )
    try:
        core.set_roi(*roi)
    except Exception as error:
        raise BadInput(f"{label} refuses the field {roi}: {in_a_line(error)}.") from error


def _set_exposure(core: Any, label: str, exposure_ms: float) -> None:
    try:
        core.set_exposure(exposure_ms)
    except Exception as error:
        raise BadInput(f"{label} refuses an exposure of {exposure_ms:g} ms: {in_a_line(error)}.") from error


def _set_fps(core: Any, label: str, rate: str, fps: float, exposure_ms: float | None) -> None:
    for switch in (f"{rate}Enable", f"{rate} Enable"):
        with contextlib.suppress(Exception):
            allowed = list(core.get_allowed_property_values(label, switch))
            core.set_property(label, switch, next((v for v in ("On", "1", "True") if v in allowed), "1"))
    try:
        core.set_property(label, rate, f"{fps:g}")
    except Exception as error:
        raise BadInput(f"{label} refuses {fps:g} frames/s: {in_a_line(error)}.") from error
    # The rate that was set before may have been too fast for the exposure; with this one it may fit.
    if exposure_ms is not None and exposure_ms < 1000 / fps:
        _set_exposure(core, label, exposure_ms)


def _allowed(core: Any, label: str, name: str) -> list[str]:
    if not core.has_property(label, name):
        return []
    return list(core.get_allowed_property_values(label, name))
