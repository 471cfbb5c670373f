"""Setting a Micro-Manager camera, in an order in which no setting undoes another in silence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.mm_taken import WORDS, Taken, rate_property
from napari_rbcflow.sources.mm_wanted import CameraSettings, Roi
from napari_rbcflow.sources.pixel_types import matching
from napari_rbcflow.sources.sentences import in_a_line
from napari_rbcflow.types import DEFAULT_FPS


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
