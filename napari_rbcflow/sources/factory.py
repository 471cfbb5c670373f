"""From the name that a person gives a source to the source itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.base import FrameSource
from napari_rbcflow.sources.camera_settings import CameraSettings


def open_source(
    spec: str,
    *,
    port: int | None = None,
    mm_path: Path | str | None = None,
    exposure_ms: float | None = None,
    fps: float | None = None,
    binning: int | None = None,
    roi: tuple[int, int, int, int] | None = None,
    pixel_size_um: float | None = None,
    pixel_type: str | None = None,
    series: int | None = None,
    seed: int | None = None,
    tank_fraction: float | None = None,
    cells_per_frame: float | None = None,
    end_live_mode: bool | None = None,
) -> FrameSource:
    """Return the live source that `spec` names, not yet opened.

    A setting that is None is left to the source's own default.

    Parameters
    ----------
    spec : str
        ``simulated``, ``demo``, ``FILE.cfg``, ``running``, or the path of a movie, which then
        plays at its own pace.
    port : int or None
        Of a running Micro-Manager's server, on this computer; None: 4827, Micro-Manager's default.
    end_live_mode : bool or None
        Stop Micro-Manager's Live mode where it is on; else that is an error.
    mm_path : Path or str or None
        Folder of Micro-Manager's device adapters. None: the configuration's own folder, an installed
        Micro-Manager or the test adapters, whichever is there.
    exposure_ms, fps, binning, roi, pixel_size_um, pixel_type
        As in `CameraSettings`; a movie takes `fps` and `pixel_size_um`, the simulation also
        `exposure_ms`.
    series : int or None
        Of a movie, as for `open_movie`.
    seed, tank_fraction, cells_per_frame
        Of the simulated chamber, as in `ChamberSettings`.

    Raises
    ------
    BadInput
        For a spec that names nothing, or a setting that its source does not have.
    """
    camera = CameraSettings(exposure_ms, fps, binning, roi, pixel_size_um, pixel_type)
    of_running = {"port": port, "end_live_mode": end_live_mode}
    of_camera = {"binning": binning, "roi": roi, "pixel_type": pixel_type}
    of_chamber = {"seed": seed, "tank_fraction": tank_fraction, "cells_per_frame": cells_per_frame}
    if spec == "simulated":
        from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber

        _refuse("sources.simulation-lacks", **of_running, mm_path=mm_path, **of_camera, series=series)
        settings = of_chamber | {"fps": fps, "pixel_size_um": pixel_size_um, "exposure_ms": exposure_ms}
        given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        return SimulatedChamber(ChamberSettings(**given), paced=True)
    if spec == "running":
        from napari_rbcflow.sources.remote import USUAL_PORT, RunningMicroManager

        _refuse("sources.running-lacks", mm_path=mm_path, **of_chamber, series=series)
        return RunningMicroManager(camera, USUAL_PORT if port is None else port, bool(end_live_mode))
    if spec == "demo" or Path(spec).suffix.lower() == ".cfg":
        from napari_rbcflow.sources.camera import MicroManagerCamera

        _refuse("sources.camera-lacks", **of_running, **of_chamber, series=series)
        return MicroManagerCamera(None if spec == "demo" else Path(spec), camera, mm_path=mm_path)
    if not spec or not Path(spec).exists():
        raise BadInput("sources.no-such-source", name=spec)
    from napari_rbcflow.sources.movie import open_movie

    of_both = {"mm_path": mm_path, "exposure_ms": exposure_ms}
    _refuse("sources.movie-lacks", **of_running, **of_both, **of_camera, **of_chamber)
    return open_movie(spec, fps=fps, pixel_size_um=pixel_size_um, series=series, paced=True)


def _refuse(key: str, **settings: object) -> None:
    """Refuse settings that would be ignored in silence."""
    for name, value in settings.items():
        if value is not None:
            raise BadInput(key, setting=name)
