"""The simulated chamber in place of a camera, or as a movie file with its truth."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sentences import say
from napari_rbcflow.simulation.optics import Optics
from napari_rbcflow.simulation.population import Scene, TruthSummary, summary
from napari_rbcflow.simulation.settings import ChamberSettings
from napari_rbcflow.types import SIMULATED_MARK, Frame, FrameSource, Grey, SourceInfo

if TYPE_CHECKING:
    import pandas as pd


class SimulatedChamber(FrameSource):
    """Frames of a simulated flow chamber, with their truth.

    Frame k depends on the seed only, not on the pacing. Paced frames come on an absolute schedule like a
    camera's; a consumer that lags finds the late ones waiting, and none is skipped.

    Parameters
    ----------
    settings : ChamberSettings, optional
    paced : bool, optional
        True: at `settings.fps`, as a live source. False: as fast as they are asked for.
    """

    def __init__(self, settings: ChamberSettings | None = None, paced: bool = True) -> None:
        self._settings = ChamberSettings() if settings is None else settings
        self._paced = paced
        self._stop = threading.Event()
        self._scene: Scene | None = None
        self._rendering: threading.Thread | None = None

    def prepare(self) -> None:
        """Begin to render the library of cells."""

        def render() -> None:
            with suppress(Exception):  # `open` meets it again
                self._scene = Scene(self._settings)

        if self._rendering is None:
            self._rendering = threading.Thread(target=render, name="rbcflow-chamber", daemon=True)
            self._rendering.start()

    def open(self) -> SourceInfo:
        """Render the library of cells, in a second or two, and describe the frames."""
        settings = self._settings
        if self._rendering is not None:
            self._rendering.join()
        if self._scene is None:
            self._scene = Scene(settings)
        return SourceInfo(
            name="simulated chamber",
            height=settings.height,
            width=settings.width,
            fps=settings.fps,
            pixel_size_um=settings.pixel_size_um,
            exposure_ms=settings.exposure_ms,
            n_frames=settings.n_frames,
            live=self._paced,
            details={
                "seed": str(settings.seed),
                "tank_fraction": str(settings.tank_fraction),
                "cells_per_frame": str(settings.cells_per_frame),
                "shear_rate_per_s": str(settings.shear_rate_per_s),
                "focus_um": str(settings.focus_um),
            },
            simulated=True,
        )

    def frames(self) -> Iterator[Frame]:
        """Yield frames until `settings.seconds` are over or `stop` is called."""
        if self._scene is None:
            raise RunFailed("simulation.not-open")
        settings, scene = self._settings, self._scene
        start, index = time.perf_counter(), 0
        while not self._stop.is_set() and (settings.n_frames is None or index < settings.n_frames):
            image = scene.next_frame()
            if self._paced:
                early = start + index / settings.fps - time.perf_counter()
                if early > 0 and self._stop.wait(early):
                    return
            yield Frame(index, index / settings.fps, image)
            index += 1

    def stop(self) -> None:
        """End `frames` at the next frame at the latest."""
        self._stop.set()

    def close(self) -> None:
        """Stop. The truth stays readable."""
        self._stop.set()

    @property
    def truth(self) -> pd.DataFrame:
        """The cells in the frames rendered so far (`population.truth_table`)."""
        if self._scene is None:
            raise RunFailed("simulation.not-open")
        return self._scene.truth()

    @property
    def truth_summary(self) -> TruthSummary:
        """Counts of `truth` by label, and the simulation's own fraction."""
        table = self.truth
        frames = int((table["t0"] + table["frames"]).max()) if len(table) else 0
        return summary(table, frames)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The simulation's own fraction so far, and the one that was set."""
        if self._scene is None:
            return ()
        truth, as_set = self.truth_summary, 100 * self._settings.tank_fraction
        if truth.fraction is None:
            return (say("simulation.no-own-fraction", set=as_set),)
        cells = truth.tank_treading + truth.flipping
        return (say("simulation.own-fraction", percent=100 * truth.fraction, cells=cells, set=as_set),)


Progress = Callable[[int, int], None]
Frames = Iterator[Grey]


def truth_path(out: Path) -> Path:
    """Return where a movie's truth is: OUT with the suffix ``.truth.csv``."""
    return out.with_suffix(".truth.csv")


def simulate_movie(
    out: Path,
    *,
    seconds: float,
    seed: int = 0,
    tank_fraction: float = 0.8,
    cells_per_frame: float = 115.0,
    height: int = 1096,
    width: int = 1376,
    progress: Progress | None = None,
    aslant: float = 0.0,
    lit_from_deg: float = 0.0,
    settings: ChamberSettings | None = None,
    compressed: bool = False,
) -> TruthSummary:
    """Write a movie of the simulated chamber and OUT.truth.csv.

    Parameters
    ----------
    out : Path
        By its ending: ``.tif`` or ``.tiff`` (a stack), ``.avi`` (8-bit grey, uncompressed) or ``.zarr``
        (version 3, (t, y, x), one frame a chunk). All are lossless.
    seconds, seed, tank_fraction, cells_per_frame, height, width
        As in `ChamberSettings`.
    progress : callable, optional
        Called with (frames written, frames in all).
    aslant, lit_from_deg : float, optional
        Oblique illumination (`Optics`).
    settings : ChamberSettings, optional
        Replaces all of the above but `seconds`.
    compressed : bool, optional
        Deflate the TIFF: a third smaller, several times slower.

    Returns
    -------
    TruthSummary

    Raises
    ------
    BadInput
        If an output already exists, the folder does not, or the ending is none of these.
    """
    out = Path(out)
    if settings is None:
        settings = ChamberSettings(
            height=height,
            width=width,
            seed=seed,
            tank_fraction=tank_fraction,
            cells_per_frame=cells_per_frame,
            seconds=seconds,
            optics=Optics(aslant=aslant, lit_from_deg=lit_from_deg),
        )
    n_frames = round(seconds * settings.fps)
    if n_frames < 1:
        raise BadInput("simulation.too-short")
    ending = out.suffix.lower()
    if ending not in (".tif", ".tiff", ".avi", ".zarr"):
        raise BadInput("simulation.wrong-ending", name=out.name)
    truth_out = truth_path(out)
    for path in (out, truth_out):
        if path.exists() or path.is_symlink():
            raise BadInput("simulation.exists", path=path)
    if not out.parent.is_dir():
        raise BadInput("simulation.no-folder", folder=out.parent)
    if not os.access(out.parent, os.W_OK):
        raise BadInput("simulation.folder-read-only", folder=out.parent)

    scene = Scene(settings)

    def frames() -> Frames:
        for k in range(n_frames):
            yield scene.next_frame()
            if progress is not None:
                progress(k + 1, n_frames)

    part, truth_part = (p.with_name(f".part-{os.getpid()}-{p.name}") for p in (out, truth_out))
    try:
        if ending == ".avi":
            _write_avi(part, frames(), settings)
        elif ending == ".zarr":
            _write_zarr(part, frames(), n_frames, settings)
        else:
            _write_tiff(part, frames(), n_frames, settings, compressed)
        table = scene.truth()
        table.to_csv(truth_part, index=False, lineterminator="\n")
        part.rename(out)
        try:
            truth_part.rename(truth_out)
        except BaseException:
            _remove(out)
            raise
    except BaseException:  # an interrupt, too, leaves nothing half written
        _remove(part)
        _remove(truth_part)
        raise
    return summary(table, n_frames)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _write_tiff(path: Path, frames: Frames, n: int, settings: ChamberSettings, compressed: bool) -> None:
    import tifffile

    per_cm = 1e4 / settings.pixel_size_um
    bytes_ = n * settings.height * settings.width
    tifffile.imwrite(
        path,
        frames,
        shape=(n, settings.height, settings.width),
        dtype=np.uint8,
        bigtiff=bytes_ > 3_500_000_000,
        photometric="minisblack",
        compression="zlib" if compressed else None,
        predictor=compressed,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata={
            "axes": "TYX",
            "fps": settings.fps,
            "pixel_size_um": settings.pixel_size_um,
            SIMULATED_MARK: True,
        },
    )


def _write_avi(path: Path, frames: Frames, settings: ChamberSettings) -> None:
    import av

    with av.open(str(path), "w", format="avi") as container:
        container.metadata["comment"] = json.dumps(
            {"pixel_size_um": settings.pixel_size_um, SIMULATED_MARK: True}
        )
        rate = Fraction(settings.fps).limit_denominator(1001)
        stream = container.add_stream("rawvideo", rate=rate)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "gray"
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="gray")
            frame.pts = k
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_zarr(path: Path, frames: Frames, n: int, settings: ChamberSettings) -> None:
    import zarr

    array = zarr.create_array(
        store=str(path),
        shape=(n, settings.height, settings.width),
        chunks=(1, settings.height, settings.width),
        dtype="uint8",
        zarr_format=3,
        dimension_names=("t", "y", "x"),
        attributes={
            "fps": settings.fps,
            "pixel_size_um": settings.pixel_size_um,
            SIMULATED_MARK: True,
        },
    )
    for k, image in enumerate(frames):
        array[k] = image
