"""A camera in Micro-Manager, driven by the core inside this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.core_camera import CoreCamera
from napari_rbcflow.sources.mm_core import adapter_folders, start_core, stop_core
from napari_rbcflow.sources.mm_loading import configure, load_demo
from napari_rbcflow.sources.mm_wanted import CameraSettings


class MicroManagerCamera(CoreCamera):
    """Micro-Manager's DemoCamera or the camera of a configuration file.

    Parameters
    ----------
    config : Path or None
        A Micro-Manager configuration; None: the DemoCamera, at 1376 x 1096, 8 bit.
    mm_path : Path or None
        Folder with the device adapters (Micro-Manager's own). None: the configuration's folder, an
        installed Micro-Manager, or the test adapters, whichever is there.
    exposure_ms, fps, binning : float, float, int or None
        None leaves what the configuration sets (the DemoCamera: 60 frames/s). The paper's exposure of
        2.2 ms is never set unasked: how much light there is only the laboratory knows.
    roi : tuple of int (x, y, width, height) or None
        In binned pixels.
    pixel_size_um : float or None
        Used where Micro-Manager has no calibration, or none that a microscope can have.
    pixel_type : str or None
        As the camera calls it, or as another one calls the same (`pixel_types.matching`).
    """

    def __init__(
        self,
        config: Path | str | None = None,
        *,
        mm_path: Path | str | None = None,
        exposure_ms: float | None = None,
        fps: float | None = None,
        binning: int | None = None,
        roi: tuple[int, int, int, int] | None = None,
        pixel_size_um: float | None = None,
        pixel_type: str | None = None,
    ) -> None:
        super().__init__(CameraSettings(exposure_ms, fps, binning, roi, pixel_size_um, pixel_type))
        self._config = None if config is None else Path(config)
        self._mm_path = None if mm_path is None else Path(mm_path)
        self._is_demo = config is None

    def _connect(self) -> Any:
        if self._config is not None and not self._config.is_file():
            raise BadInput(f"{self._config} does not exist; give a Micro-Manager configuration file (.cfg).")
        self._folders = adapter_folders(self._mm_path, self._config)
        return start_core(self._folders)

    def _configure(self, core: Any) -> None:
        if self._config is None:
            load_demo(core)
        else:
            configure(core, self._config, self._folders)

    def _disconnect(self, core: Any) -> None:
        stop_core(core)
