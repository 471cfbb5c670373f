"""The run over a recorded movie."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import FixedN
from napari_rbcflow.pipeline.run import Run
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.status import Progress
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.session import RunRecord, Session, open_session
from napari_rbcflow.sources import open_movie
from napari_rbcflow.tracking import Direction
from napari_rbcflow.types import LEAST_FRAMES, RunStatus, SourceInfo

RING_SECONDS = 1.0  # the movie itself is on disk, so its session keeps only the last second of raw frames
_LOOK_S = 0.2
_LEAVE_S = 1.0
"""Seconds to wait for a run that is being opened, after a Ctrl-C: nothing will come of it anyway."""


class Opening(threading.Thread):
    """Starts a run, so that its caller hears a Ctrl-C: in a call into a driver or library Python hears none.

    `tell` is given a sentence before each step, in this thread.

    Attributes
    ----------
    error : BaseException or None
        What `Run.start` raised.
    """

    def __init__(self, run: Run, tell: Callable[[str], object] | None = None) -> None:
        super().__init__(name="rbcflow-opening", daemon=True)
        self._starting, self._tell = run, tell
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._starting.start(self._tell)
        except BaseException as error:
            self.error = error


def analyze(
    movie: str | Path,
    out: str | Path,
    *,
    fps: float | None = None,
    pixel_size_um: float | None = None,
    series: int | None = None,
    device: str = "auto",
    background: Literal["movie", "sliding"] = "movie",
    flow: Direction = "left-to-right",
    rotate: int = 0,
    patient: str = "",
    sample: str = "",
    run_record: RunRecord | None = None,
    leave_out_intruded: bool = True,
    least_frames: int = LEAST_FRAMES,
    interval: FixedN = "wilson",
    set_flow: SetFlow | None = None,
    calibration: str | Path | None = None,
    progress: Callable[[Progress, SourceInfo], None] | None = None,
) -> Session:
    """Analyse a recorded movie, as ``rbcflow analyze`` does.

    Parameters
    ----------
    movie : path
        AVI, TIFF stack or folder, OME-TIFF, (OME-)Zarr, or an earlier session's ring.
    out : path
        The session folder to create; must not exist.
    fps, pixel_size_um : float, optional
        Override what the file says.
    series : int, optional
        Which movie of a file that holds several (positions, series, video streams), counted from 0.
    device : {"auto", "cpu", "cuda"}
    background : {"movie", "sliding"}
        The median of 100 frames from the whole movie, or of the last seconds.
    flow : {"left-to-right", "right-to-left"}
        Direction of flow in the picture.
    rotate : {0, 90, 180, 270}
        Degrees by which every frame is turned clockwise as it is read.
    patient, sample : str
        Whose blood it is.
    run_record : RunRecord, optional
        What else is known of the run, such as the operator and the medium.
    leave_out_intruded : bool
        Judge a track without the frames in which another cell is in its crop.
    least_frames : int
        Of a track that counts, 6 or more.
    interval : {"wilson", "jeffreys", "clopper-pearson"}
        Of the fraction of the whole movie.
    set_flow : SetFlow, optional
        The flow as it was set, the paper's by default; the measured speed of the cells is compared with it.
    calibration : path, optional
        This laboratory's, from ``rbcflow calibrate``: corrects the fraction of a run that is like its own.
    progress : callable, optional
        Called a few times a second.

    Returns
    -------
    Session

    Raises
    ------
    BadInput
        Nothing was created.
    RunFailed
        The results so far are in `out`.
    """
    source = open_movie(Path(movie), fps=fps, pixel_size_um=pixel_size_um, series=series)
    settings = RunSettings(
        patient=patient,
        sample=sample,
        run_record=run_record or RunRecord(),
        device=device,
        background=background,
        flow=flow,
        rotate=rotate,
        ring_seconds=RING_SECONDS,
        leave_out_intruded=leave_out_intruded,
        least_frames=least_frames,
        interval=interval,
        set_flow=set_flow or SetFlow(),
        calibration=None if calibration is None else Path(calibration),
    )
    run = Run(source, Path(out), settings)
    opening = Opening(run)
    try:
        while opening.is_alive():
            opening.join(_LOOK_S)
        while opening.error is None and not run.wait(_LOOK_S):
            if progress is not None:
                progress(run.progress(), run.info)
        if opening.error is None and progress is not None:
            progress(run.progress(), run.info)
    except BaseException:  # a Ctrl-C, or what `progress` raised
        run.stop()
        opening.join(None if run.began else _LEAVE_S)
        if run.began:
            run.wait()
        raise
    if opening.error is not None:
        raise opening.error
    status, reason = run.outcome
    if status is RunStatus.FAILED:
        raise RunFailed("pipeline.analysis-failed", why=reason, folder=out)
    return movie_session(Path(out), movie, flow)


def movie_session(folder: Path, movie: object, flow: str) -> Session:
    """Open the session of a movie that was analysed; one without a cell is removed, and why it has none said.

    Raises
    ------
    BadInput
        If no cell was followed, unless the session's own warning tells that things move another way.
    """
    session = open_session(folder)
    quality = session.run.get("quality") or {}
    moves = any(warning["key"] == "flow-nowhere" for warning in quality.get("warnings", ()))
    if session.run["cells"]["tracked"] or moves:
        return session
    shutil.rmtree(folder)
    if pale := quality.get("tracks_too_pale", 0):
        raise BadInput("pipeline.only-pale-cells", movie=movie, things=pale, flow=flow)
    raise BadInput("pipeline.no-cell-in-movie", movie=movie, flow=flow)
