"""Setting a Micro-Manager camera, and reading back what it really took."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_rbcflow.conventions import DEFAULT_FPS
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.plausible import PIXEL_RANGE_UM, can_be, check_settings
from napari_rbcflow.sources.sentences import in_a_line

DEMO_HEIGHT, DEMO_WIDTH = 1096, 1376
_FRAME_RATE = re.compile(r"(acquisition)?[\s_-]*frame[\s_-]*rate([\s_-]*\(?(fps|hz)\)?)?|fps", re.IGNORECASE)


@dataclass(frozen=True)
class CameraSettings:
    """What the user asked for; None where not."""

    exposure_ms: float | None = None
    fps: float | None = None
    binning: int | None = None
    roi: tuple[int, int, int, int] | None = None
    pixel_size_um: float | None = None

    def check(self) -> None:
        """Raise BadInput for what no camera can do."""
        check_settings(fps=self.fps, pixel_size_um=self.pixel_size_um, exposure_ms=self.exposure_ms)
        if self.binning is not None and self.binning < 1:
            raise BadInput(f"A binning of {self.binning} is not possible; give 1 or more.")
        if self.roi is not None and (len(self.roi) != 4 or min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise BadInput(f"The field {self.roi} is not possible; give x, y, width, height in pixels.")


def load_demo(core: Any, settings: CameraSettings) -> None:
    """Load the DemoCamera as the instrument's camera would be: its field, 8 bit, 60 frames/s."""
    try:
        core.load_device("Camera", "DemoCamera", "DCam")
        core.initialize_device("Camera")
    except Exception as error:
        raise BadInput(
            f"Micro-Manager's DemoCamera cannot be loaded ({in_a_line(error)}); "
            "reinstall with: pip install napari-rbcflow[all]"
        ) from error
    core.set_camera_device("Camera")
    core.set_property("Camera", "PixelType", "8bit")
    core.set_property("Camera", "OnCameraCCDXSize", str(DEMO_WIDTH))
    core.set_property("Camera", "OnCameraCCDYSize", str(DEMO_HEIGHT))


def configure(core: Any, config: Path, folders: Sequence[Path]) -> None:
    """Load a configuration file and make sure that it has one camera.

    Raises
    ------
    BadInput
        If it cannot be loaded, or names no camera or several at once.
    """
    try:
        core.load_system_configuration(str(config))
    except Exception as error:
        where = " and ".join(str(folder) for folder in folders)
        raise BadInput(
            f"Micro-Manager cannot load {config.name} ({in_a_line(error)}); correct the file, or give "
            f"the folder of the Micro-Manager that it was made with by --mm-path (looked in {where})."
        ) from error
    one_camera(core, config.name)


def one_camera(core: Any, where: str) -> None:
    """Make sure that a configuration has one camera.

    Raises
    ------
    BadInput
    """
    if not core.get_camera_device():
        raise BadInput(
            f"{where} names no camera; choose a default camera in Micro-Manager's hardware wizard."
        )
    if core.get_number_of_camera_channels() > 1:
        raise BadInput(f"{where} names several cameras at once; choose one as the default camera.")


def apply_settings(
    core: Any, label: str, settings: CameraSettings, *, demo: bool
) -> tuple[dict[str, str], list[str]]:
    """Set binning, field, frame rate and exposure, in this order; read each back.

    Returns
    -------
    details : dict of str to str
        For the record.
    warnings : list of str
        Where the camera took something else than was asked.
    """
    warnings: list[str] = []
    if settings.binning is not None:
        _set_binning(core, label, settings.binning)
    if settings.roi is not None:
        _set_roi(core, label, settings.roi)
    exposure = settings.exposure_ms
    if demo:
        # A frame comes every exposure, nothing else sets its rate. FastImage: one frame is drawn
        # and sent again and again; drawing each takes longer than a frame's time.
        core.snap_image()
        core.set_property(label, "FastImage", "1")
        frame_ms = 1000 / (settings.fps or DEFAULT_FPS)
        if exposure is not None and exposure != frame_ms:
            warnings.append(
                f"The DemoCamera's exposure sets its frame rate: {frame_ms:.1f} ms is used, not {exposure:g}."
            )
        core.set_exposure(frame_ms)
        exposure = None
    elif settings.fps is not None:
        _set_fps(core, label, settings.fps, warnings)
    if exposure is not None:
        try:
            core.set_exposure(exposure)
        except Exception as error:
            raise BadInput(f"{label} refuses an exposure of {exposure:g} ms: {in_a_line(error)}.") from error
        took = float(core.get_exposure())
        if abs(took - exposure) > 0.02 * exposure:
            warnings.append(f"{exposure:g} ms of exposure were asked for; {label} took {took:g} ms.")
    return _details(core, label), warnings


def pixel_size(core: Any, setting: float | None, warnings: list[str]) -> float | None:
    """Return the pixel from Micro-Manager's calibration, else the setting; None where there is neither."""
    calibrated = float(core.get_pixel_size_um())
    if calibrated <= 0:
        return setting
    if not can_be(calibrated, PIXEL_RANGE_UM):
        warnings.append(
            f"Micro-Manager's calibration says a pixel of {calibrated:g} um, which is not believed."
        )
        return setting
    if setting is not None and abs(setting / calibrated - 1) > 0.01:
        warnings.append(
            f"Micro-Manager's calibration, {calibrated:g} um a pixel, is used; {setting:g} um was set."
        )
    return calibrated


def _set_binning(core: Any, label: str, binning: int) -> None:
    allowed: list[str] = []
    if core.has_property(label, "Binning"):
        allowed = list(core.get_allowed_property_values(label, "Binning"))
    # Cameras call it 2, 2x2 or 2X2.
    match = next((value for value in allowed if re.match(rf"{binning}(\D|$)", value)), None)
    if match is None:
        raise BadInput(f"{label} cannot bin by {binning}; it can by {', '.join(allowed) or 'nothing'}.")
    core.set_property(label, "Binning", match)


def _set_roi(core: Any, label: str, roi: tuple[int, int, int, int]) -> None:
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


def _set_fps(core: Any, label: str, fps: float, warnings: list[str]) -> None:
    for name in core.get_device_property_names(label):
        if _FRAME_RATE.fullmatch(name) and not core.is_property_read_only(label, name):
            for switch in (f"{name}Enable", f"{name} Enable"):
                with contextlib.suppress(Exception):
                    allowed = list(core.get_allowed_property_values(label, switch))
                    core.set_property(
                        label, switch, next((v for v in ("On", "1", "True") if v in allowed), "1")
                    )
            try:
                core.set_property(label, name, f"{fps:g}")
            except Exception as error:
                raise BadInput(f"{label} refuses {fps:g} frames/s: {in_a_line(error)}.") from error
            return
    warnings.append(f"{label} has no setting for the frame rate: it runs as fast as its exposure lets it.")


def _details(core: Any, label: str) -> dict[str, str]:
    x, y, width, height = core.get_roi()
    details = {
        "camera": label,
        "adapter": f"{core.get_device_library(label)} {core.get_device_name(label)}",
        "micro_manager": f"{core.get_version_info()}, {core.get_api_version_info()}",
        "roi_px": f"{x},{y},{width},{height}",
        "bit_depth": str(core.get_image_bit_depth()),
    }
    for name in ("Binning", "PixelType", "Gain"):
        with contextlib.suppress(Exception):
            details[name.lower()] = str(core.get_property(label, name))
    return details
