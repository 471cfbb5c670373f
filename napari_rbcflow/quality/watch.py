"""The quality of one run, from its first frame to its session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from napari_rbcflow.quality.drift import Change, DriftWatch
from napari_rbcflow.quality.figures import figures_of, over_time
from napari_rbcflow.quality.flow import SetFlow
from napari_rbcflow.quality.meter import Meter
from napari_rbcflow.quality.of_run import warnings_of_counts, warnings_so_far
from napari_rbcflow.quality.rules import warnings_of_figures
from napari_rbcflow.quality.standing import Standing
from napari_rbcflow.quality.warning import RunWarning
from napari_rbcflow.tracking.tracker import OpenTracks
from napari_rbcflow.types import Frame, Judgement, SourceInfo, Track


class RunQuality:
    """Measures a run as it goes, and says what a person must be told of it.

    Lifecycle: construct -> `add_frame` from the thread that tracks, `add_tracks` from the one that judges,
    `look` from the one that looks after the run -> `close`, once, when the others have ended. `figures` from
    any thread, at any time.

    Parameters
    ----------
    info : SourceInfo
    flow : SetFlow
        As it was set.
    """

    def __init__(self, info: SourceInfo, flow: SetFlow | None = None) -> None:
        self._field_um2 = info.height * info.width * info.pixel_size_um**2
        self._flow = flow or SetFlow()
        self._meter = Meter(fps=info.fps, pixel_size_um=info.pixel_size_um)
        self._drift = DriftWatch()
        self._standing = Standing()

    def add_frame(self, frame: Frame, at: OpenTracks) -> None:
        """Take in a frame that was tracked, and the cells that are followed since."""
        self._meter.add_frame(frame.image, frame.time_s, None if at.frame is None else len(at.cell))

    def add_tracks(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        """Take in tracks with what was said of them, as they are counted."""
        self._meter.add_tracks(pairs)

    def figures(self, *, recent: bool = False) -> dict[str, Any]:
        """Return ``quality`` of ``run.json``, over the whole run or its last seconds."""
        return self._figures(self._drift.found, recent=recent)

    def _figures(self, change: Change | None, *, recent: bool = False) -> dict[str, Any]:
        sums = self._meter.sums(recent=recent)
        figures = figures_of(sums, field_um2=self._field_um2, flow=self._flow)
        # What tells one time from another belongs to the whole run.
        return figures if recent else {**figures, **over_time(self._meter, change)}

    def look(
        self, run: Mapping[str, Any], counted: bytes | bytearray, *, seconds: float, open_tracks: int
    ) -> tuple[RunWarning, ...]:
        """Return the warnings that stand now, grave ones first.

        Parameters
        ----------
        run : mapping
            ``frames``, ``cells``, ``fraction`` and ``quality`` as in ``run.json``.
        counted : bytes
            The counted cells in order (`Tally.counted`).
        seconds : float
            Camera time.
        open_tracks : int
            Cells that are followed now.
        """
        self._drift.look(counted)
        now = warnings_of_figures(self.figures(recent=True))
        whole = warnings_so_far(run, seconds=seconds, open_tracks=open_tracks)
        return self._standing.look([*now, *whole], seconds)

    def close(
        self,
        run: Mapping[str, Any],
        counted: bytes | bytearray,
        *,
        not_analysed: Mapping[str, int],
        seconds: float,
    ) -> tuple[dict[str, Any], list[RunWarning]]:
        """Return ``quality`` of a run that has ended, its warnings among it, and these.

        Parameters
        ----------
        run : mapping
            ``frames``, ``cells`` and ``fraction`` as in ``run.json``.
        counted : bytes
            The counted cells in order.
        not_analysed : mapping of str to int
            Frames in which nothing could be looked for, by reason.
        seconds : float
            Camera time of the run.
        """
        self._drift.end(counted)
        quality = {**self.figures(), "not_analysed": dict(not_analysed)}
        told = warnings_of_counts({**run, "quality": quality})
        told += self._standing.passed(told, seconds)
        return {**quality, "warnings": [w.as_dict() for w in told]}, told
