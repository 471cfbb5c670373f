"""From what a person writes after ``--camera`` to the source it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.base import FrameSource

CHOICES = (
    "simulated, demo (Micro-Manager's DemoCamera), a Micro-Manager configuration (FILE.cfg), running "
    "(Micro-Manager already open) or a movie"
)


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
    seed: int | None = None,
    tank_fraction: float | None = None,
    cells_per_frame: float | None = None,
    end_live_mode: bool | None = None,
) -> FrameSource:
    """Return the live source that `spec` names, not yet opened.

    Every setting is None where the user said nothing: the source's own default then holds.

    Parameters
    ----------
    spec : str
        ``simulated``, ``demo``, ``FILE.cfg``, ``running``, or the path of a movie, which then
        plays at its own pace.
    port : int or None
        Of a running Micro-Manager's server, on this computer; None: 4827, its usual one.
    end_live_mode : bool or None
        Stop Micro-Manager's Live mode where it is on; else that is an error.
    mm_path, exposure_ms, fps, binning, roi, pixel_size_um, pixel_type
        As in `MicroManagerCamera`; a movie takes `fps` and `pixel_size_um`, the simulation also
        `exposure_ms`.
    seed, tank_fraction, cells_per_frame
        Of the simulated chamber, as in `ChamberSettings`.

    Raises
    ------
    BadInput
        For a spec that names nothing, or a setting that its source does not have.
    """
    of_running = {"port": port, "end_live_mode": end_live_mode}
    of_camera = {"binning": binning, "roi": roi, "pixel_type": pixel_type}
    of_chamber = {"seed": seed, "tank_fraction": tank_fraction, "cells_per_frame": cells_per_frame}
    if spec == "simulated":
        from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber

        _refuse("The simulated chamber", **of_running, mm_path=mm_path, **of_camera)
        given = {
            **of_chamber,
            "fps": fps,
            "pixel_size_um": pixel_size_um,
            "exposure_ms": exposure_ms,
        }
        asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return SimulatedChamber(ChamberSettings(**asked), paced=True)
    if spec == "running":
        from napari_rbcflow.sources.remote import USUAL_PORT, RunningMicroManager

        _refuse("A Micro-Manager that is already open", mm_path=mm_path, **of_chamber)
        return RunningMicroManager(
            USUAL_PORT if port is None else port,
            exposure_ms=exposure_ms,
            fps=fps,
            binning=binning,
            roi=roi,
            pixel_size_um=pixel_size_um,
            pixel_type=pixel_type,
            end_live=bool(end_live_mode),
        )
    if spec == "demo" or Path(spec).suffix.lower() == ".cfg":
        from napari_rbcflow.sources.camera import MicroManagerCamera

        _refuse("A camera in this program's own Micro-Manager", **of_running, **of_chamber)
        return MicroManagerCamera(
            None if spec == "demo" else Path(spec),
            mm_path=mm_path,
            exposure_ms=exposure_ms,
            fps=fps,
            binning=binning,
            roi=roi,
            pixel_size_um=pixel_size_um,
            pixel_type=pixel_type,
        )
    if not spec or not Path(spec).exists():
        raise BadInput(f"There is no camera or movie {spec!r}; choose {CHOICES}.")
    from napari_rbcflow.sources.movie import open_movie

    _refuse("A movie", **of_running, mm_path=mm_path, exposure_ms=exposure_ms, **of_camera, **of_chamber)
    return open_movie(spec, fps=fps, pixel_size_um=pixel_size_um, paced=True)


def _refuse(what: str, **settings: object) -> None:
    """Refuse settings that would be ignored in silence."""
    for name, value in settings.items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            raise BadInput(f"{what} has no {option}; leave it out.")
