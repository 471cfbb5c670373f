"""The simulated chamber in a camera's place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pandas as pd

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.sources.chamber.scene import Scene
from napari_rbcflow.sources.chamber.settings import ChamberSettings
from napari_rbcflow.sources.chamber.truth import TruthSummary, summary
from napari_rbcflow.sources.contract import FrameSource
from napari_rbcflow.types import Frame, SourceInfo


class SimulatedChamber(FrameSource):
    """Frames of a simulated flow chamber, with their truth.

    Frame k is the same for a seed whatever the pacing. Paced, frames come on an absolute schedule
    like a camera's; a consumer that lags finds the late ones waiting and none is skipped.

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

    @property
    def settings(self) -> ChamberSettings:
        """What was asked for."""
        return self._settings

    def open(self) -> SourceInfo:
        """Render the library of cells (two seconds or so), and say what will come."""
        settings = self._settings
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
        )

    def frames(self) -> Iterator[Frame]:
        """Yield frames until `settings.seconds` are over or `stop` is called."""
        if self._scene is None:
            raise RunFailed("The simulated chamber is not open: open it before asking for frames.")
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
        """The cells in the frames rendered so far, in the columns of `truth.truth_table`."""
        if self._scene is None:
            raise RunFailed("The simulated chamber is not open: it has no truth yet.")
        return self._scene.truth()

    @property
    def truth_summary(self) -> TruthSummary:
        """Counts of `truth` by label, and the simulation's own fraction."""
        table = self.truth
        frames = int((table["t0"] + table["frames"]).max()) if len(table) else 0
        return summary(table, frames)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The simulation's own fraction so far, beside what was set."""
        if self._scene is None:
            return ()
        truth = self.truth_summary
        share = "none yet" if truth.fraction is None else f"{100 * truth.fraction:.1f} %"
        return (
            f"the simulation's own fraction: {share} of its {truth.tank_treading + truth.flipping} cells "
            f"in focus until then ({100 * self._settings.tank_fraction:.1f} % set)",
        )
