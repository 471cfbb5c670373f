"""What a Micro-Manager camera is asked for, how it is set, and what it then really does."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import PIXEL_RANGE_UM, check_settings, in_a_line, is_within, number_in
from napari_rbcflow.sources.grey import match_pixel_type
from napari_rbcflow.types import DEFAULT_FPS

Roi = tuple[int, int, int, int]  # x, y, width, height, in binned pixels


@dataclass(frozen=True)
class CameraSettings:
    """What the user asked for; None leaves the camera as it is set (the DemoCamera: 60 frames/s).

    Attributes
    ----------
    exposure_ms : float or None
        The paper's 2.2 ms are never set unasked: only the laboratory knows how much light there is.
    fps : float or None
        In frames/s.
    binning : int or None
        Also as cameras write it, ``2x2`` or ``(2, 2)``.
    roi : tuple of int (x, y, width, height) or None
        In binned pixels.
    pixel_size_um : float or None
        Used where Micro-Manager has no calibration, or none that a microscope can have.
    pixel_type : str or None
        As the camera calls it, or as another one calls the same (`grey.match_pixel_type`).
    """

    exposure_ms: float | None = None
    fps: float | None = None
    binning: int | None = None
    roi: Roi | None = None
    pixel_size_um: float | None = None
    pixel_type: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "binning", binning_in(self.binning) or self.binning)

    def check(self) -> None:
        """Raise BadInput for what no camera can do."""
        check_settings(fps=self.fps, pixel_size_um=self.pixel_size_um, exposure_ms=self.exposure_ms)
        if self.binning is not None and binning_in(self.binning) is None:
            raise BadInput("sources.binning-impossible", binning=self.binning)
        if self.roi is not None and (len(self.roi) != 4 or min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise BadInput("sources.field-impossible", roi=roi_text(self.roi))
        if self.pixel_type is not None and not self.pixel_type.strip():
            raise BadInput("sources.pixel-type-empty")


_BINNING = re.compile(
    r"\W*(?:bin(?:ning)?)?\W*?(?<!-)(\d+)(?:\.0*)?(?:[\sx×*,;:/by]+(\d+)(?:\.0*)?)?\W*", re.IGNORECASE
)


def binning_in(said: object) -> int | None:
    """Return the binning that is meant by 2, ``2x2``, ``2X2``, ``(2, 2)`` or 2.0; None where none is."""
    found = _BINNING.fullmatch(str(said))
    if found is None or found[2] not in (None, found[1]):
        return None
    return int(found[1]) or None


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
        raise BadInput("sources.field-not-numbers", text=text) from None
    return x, y, width, height


def roi_text(roi: Roi | None) -> str:
    """Return what `parse_roi` reads; empty for None."""
    return "" if roi is None else ",".join(map(str, roi))


_FRAME_RATE = re.compile(r"(acquisition)?[\s_-]*frame[\s_-]*rate([\s_-]*\(?(fps|hz)\)?)?|fps", re.IGNORECASE)
_AS_ASKED = 0.02  # cameras have exposures and rates in steps: what is this near is as asked
# Every setting, in the order in which they are made: each may change those after it.
_NAMES = {
    "pixel_type": "sources.setting-pixel-type",
    "binning": "sources.setting-binning",
    "roi": "sources.setting-field",
    "exposure_ms": "sources.setting-exposure",
    "fps": "sources.setting-fps",
}


@dataclass(frozen=True)
class CameraState:
    """What a camera reports of itself, in its own words."""

    pixel_type: str  # empty where it has no such property
    binning: str  # empty where it has no such property
    roi: Roi
    exposure_ms: float | None  # None where it does not say
    fps: float | None  # of its property for the frame rate, where it has one; the true rate is measured

    @classmethod
    def read(cls, core: Any, label: str) -> CameraState:
        x, y, width, height = core.get_roi()
        rate = _rate_property(core, label)
        return cls(
            _property(core, label, "PixelType"),
            _property(core, label, "Binning"),
            (int(x), int(y), int(width), int(height)),
            _above_zero(core.get_exposure()),
            None if rate is None else number_in(_property(core, label, rate)),
        )

    def differs(self, name: str, other: CameraState) -> bool:
        """Tell whether one of the settings is another than in `other`."""
        mine, theirs = getattr(self, name), getattr(other, name)
        if isinstance(mine, float) and isinstance(theirs, float):
            return abs(mine - theirs) > _AS_ASKED * abs(theirs)
        return bool(mine != theirs)


def _value_text(name: str, value: Any) -> str:
    if name == "roi":
        return roi_text(value)
    if value is None:
        return say("sources.value-unknown")
    if name == "exposure_ms":
        return say("sources.value-ms", value=value)
    if name == "fps":
        return say("sources.value-fps", value=value)
    return str(value)


def differences(
    label: str, settings: CameraSettings, state: CameraState, fps: float, causes: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield what the camera does otherwise than asked: in a few words, and as a sentence.

    `state` is that after the camera ran, `fps` was measured then; `causes` holds by the name of a
    setting why it is another one now.
    """
    for name, key in _NAMES.items():
        asked = getattr(settings, name)
        if asked is None or _is_as_asked(name, asked, state, fps):
            continue
        actual = _value_text(name, fps if name == "fps" else getattr(state, name))
        wanted = (
            f"{asked:g}" if isinstance(asked, float) else roi_text(asked) if name == "roi" else str(asked)
        )
        setting = say(key)
        if name == "fps":
            words = say("sources.difference-fps", actual=actual, asked=wanted)
        else:
            words = say("sources.difference", setting=setting, actual=actual, asked=wanted)
        values = {"setting": setting, "camera": label, "actual": actual, "asked": wanted}
        if name in causes:
            yield words, say("sources.not-as-asked-because", **values, why=causes[name])
        else:
            yield words, say("sources.not-as-asked", **values)


def _is_as_asked(name: str, asked: Any, state: CameraState, fps: float) -> bool:
    if name == "fps":
        return bool(abs(fps / asked - 1) <= _AS_ASKED)
    if name == "exposure_ms":
        actual = state.exposure_ms
        return actual is not None and abs(actual - float(asked)) <= _AS_ASKED * float(asked)
    if name == "binning":
        return bool(binning_in(state.binning) == asked)
    if name == "pixel_type":
        return match_pixel_type(str(asked), [state.pixel_type]) is not None
    return bool(state.roi == tuple(asked))


def details_of(core: Any, label: str, state: CameraState) -> dict[str, str]:
    """Return what belongs in the record of a run."""
    x, y, width, height = state.roi
    details = {
        "camera": label,
        "adapter": f"{core.get_device_library(label)} {core.get_device_name(label)}",
        "micro_manager": f"{core.get_version_info()}, {core.get_api_version_info()}",
        "roi_px": f"{x},{y},{width},{height}",
        "bit_depth": str(core.get_image_bit_depth()),
        "binning": str(binning_in(state.binning) or state.binning),
        "pixel_type": state.pixel_type,
        "gain": _property(core, label, "Gain"),
    }
    return {name: value for name, value in details.items() if value}


def pixel_size(core: Any, setting: float | None, warnings: list[str]) -> tuple[float | None, str]:
    """Return the pixel in µm from Micro-Manager's calibration, else the setting (or None); and from which."""
    calibrated = number_in(core.get_pixel_size_um())
    mine = (setting, "default" if setting is None else "setting")
    if not calibrated:
        return mine
    if not is_within(calibrated, PIXEL_RANGE_UM):
        origin = say("sources.origin-calibration")
        warnings.append(say("sources.pixel-size-implausible", origin=origin, pixel=calibrated))
        return mine
    if setting is not None and abs(setting / calibrated - 1) > 0.01:
        warnings.append(say("sources.calibration-used", calibrated=calibrated, given=setting))
    return calibrated, "calibration"


def _rate_property(core: Any, label: str) -> str | None:
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


def _above_zero(said: object) -> float | None:
    number = number_in(said)
    return number if number is not None and number > 0 else None


def apply_settings(
    core: Any, label: str, settings: CameraSettings, warnings: list[str], *, demo: bool
) -> dict[str, str]:
    """Set a camera that does not run; return by name why a setting that was made is another one now.

    Binning moves the field, the pixel type decides which exposures there are, and the exposure which
    frame rates. The camera's state is read back after each step, so that a setting that changes another
    is reported: in `warnings` where nobody asked for that other one. `demo` is the DemoCamera as we load
    it. BadInput for what the camera refuses, with what it can do.
    """
    rate = None if demo else _rate_property(core, label)
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
        warnings.append(say("sources.no-fps-setting", camera=label))
    causes = _make_settings(core, label, steps, warnings)
    if demo:
        # Only the exposure sets its rate. FastImage draws one frame and sends it again and again:
        # drawing each takes longer than a frame's time.
        core.snap_image()
        core.set_property(label, "FastImage", "1")
        core.set_exposure(1000 / (fps or DEFAULT_FPS))
        causes["exposure_ms"] = say("sources.because-of-demo")
    return causes


def _make_settings(
    core: Any, label: str, steps: list[tuple[str, Callable[[], None]]], warnings: list[str]
) -> dict[str, str]:
    causes: dict[str, str] = {}
    asked = [name for name, _ in steps]
    before = CameraState.read(core, label)
    for i, (name, make) in enumerate(steps):
        make()
        after = CameraState.read(core, label)
        for other in _NAMES:
            # What is still to be set may change; that binning gives another field is its purpose.
            if other in asked[i:] or (name, other) == ("binning", "roi") or not after.differs(other, before):
                continue
            if other in asked:
                causes[other] = say("sources.because-of-setting", setting=say(_NAMES[name]))
            else:
                warnings.append(
                    say(
                        "sources.setting-changed",
                        setting=say(_NAMES[name]),
                        other=say(_NAMES[other]),
                        camera=label,
                        before=_value_text(other, getattr(before, other)),
                        after=_value_text(other, getattr(after, other)),
                    )
                )
        before = after
    return causes


@contextlib.contextmanager
def _refusals(label: str, name: str, value: object) -> Iterator[None]:
    """Turn what a camera throws when one of its settings is made into one sentence."""
    try:
        yield
    except Exception as error:
        setting, text, why = say(_NAMES[name]), _value_text(name, value), in_a_line(error)
        raise BadInput(
            "sources.setting-refused", camera=label, setting=setting, value=text, why=why
        ) from error


def _set_pixel_type(core: Any, label: str, wanted: str) -> None:
    allowed = _allowed(core, label, "PixelType")
    match = match_pixel_type(wanted, allowed)
    if match is None:
        if not allowed:
            raise BadInput("sources.pixel-type-fixed", camera=label)
        can = ", ".join(allowed)
        raise BadInput("sources.pixel-type-unknown", camera=label, wanted=wanted, allowed=can)
    with _refusals(label, "pixel_type", match):
        core.set_property(label, "PixelType", match)


def _set_binning(core: Any, label: str, binning: int) -> None:
    allowed = _allowed(core, label, "Binning")
    # Cameras call it 2, 2x2 or 2X2; some list no values, but take what they can.
    free = str(binning) if not allowed and core.has_property(label, "Binning") else None
    match = next((value for value in allowed if binning_in(value) == binning), free)
    if match is None:
        if not allowed:
            raise BadInput("sources.binning-fixed", camera=label)
        can = ", ".join(allowed)
        raise BadInput("sources.binning-unknown", camera=label, binning=binning, allowed=can)
    with _refusals(label, "binning", match):
        core.set_property(label, "Binning", match)


def _set_roi(core: Any, label: str, roi: Roi) -> None:
    core.clear_roi()
    width, height = int(core.get_image_width()), int(core.get_image_height())
    if roi[0] + roi[2] > width or roi[1] + roi[3] > height:
        raise BadInput("sources.field-too-large", roi=roi_text(roi), camera=label, width=width, height=height)
    with _refusals(label, "roi", roi):
        core.set_roi(*roi)


def _set_exposure(core: Any, label: str, exposure_ms: float) -> None:
    with _refusals(label, "exposure_ms", exposure_ms):
        core.set_exposure(exposure_ms)


def _set_fps(core: Any, label: str, rate: str, fps: float, exposure_ms: float | None) -> None:
    for switch in (f"{rate}Enable", f"{rate} Enable"):
        with contextlib.suppress(Exception):
            allowed = list(core.get_allowed_property_values(label, switch))
            core.set_property(label, switch, next((v for v in ("On", "1", "True") if v in allowed), "1"))
    with _refusals(label, "fps", fps):
        core.set_property(label, rate, f"{fps:g}")
    # The rate that was set before may have been too fast for the exposure; with this one it may fit.
    if exposure_ms is not None and exposure_ms < 1000 / fps:
        _set_exposure(core, label, exposure_ms)


def _allowed(core: Any, label: str, name: str) -> list[str]:
    if not core.has_property(label, name):
        return []
    return list(core.get_allowed_property_values(label, name))
