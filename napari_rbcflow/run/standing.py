"""How a run stands, for whoever watches it and for ``run.json``; from any thread, and changing nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from napari_rbcflow.estimate import stopping
from napari_rbcflow.estimate.reported import Said, said, stop_sentence
from napari_rbcflow.estimate.tally import AFTER_STOP
from napari_rbcflow.run.pace import Pace
from napari_rbcflow.run.progress import Progress, behind_sentence, warnings_of
from napari_rbcflow.run.quality_looks import QualityLooks
from napari_rbcflow.run.stages import Stages
from napari_rbcflow.session.counting import corrected_figure
from napari_rbcflow.session.schema import Account, FractionFigure
from napari_rbcflow.session.writer import OPEN_END_S, DiskRoom, room_words
from napari_rbcflow.sources.base import FrameSource
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import SourceInfo

RECENT_LABELS = 4096
GOES_ON = ("running", "")
"""Status and stop reason of a run that has not ended."""


class Standing:
    """Looks at the parts of a run and says how it stands.

    Its methods take the outcome, status and stop reason as in ``run.json``, because the interval that is
    said depends on it: `GOES_ON` until the session is being closed.

    Parameters
    ----------
    stages : Stages
    tracker : Tracker
    quality : QualityLooks
    source : FrameSource
    info : SourceInfo
    models : mapping
        As in ``run.json``.
    room : DiskRoom, optional
        Of the session's disk.
    survived : callable
        Returns what broke and did not end the run, in plain sentences.
    """

    def __init__(
        self,
        stages: Stages,
        tracker: Tracker,
        quality: QualityLooks,
        *,
        source: FrameSource,
        info: SourceInfo,
        models: Mapping[str, Any],
        survived: Callable[[], Sequence[str]] = tuple,
        room: DiskRoom | None = None,
    ) -> None:
        self._stages, self._tracker, self._quality = stages, tracker, quality
        self._source, self._info, self._models = source, info, models
        self._settings = stages.settings
        self._survived, self._room = survived, room
        self._began = time.monotonic()

    def progress(self, outcome: tuple[str, str], pace: Pace) -> Progress:
        """Return how the run stands at this moment."""
        positions = self._stages.positions
        tally, seconds = self._stages.tally, self._stages.seconds
        ended = outcome != GOES_ON
        rules = stopping.to_go(
            self._settings.stop,
            tally.fraction,
            tracks=tally.finished,
            seconds=seconds,
            rates=pace.rates(),
        )
        share, seconds_left = stopping.nearest(rules)
        if self._info.n_frames:
            of_movie = self._tracker.processed / self._info.n_frames
            share = max(share or 0.0, of_movie)
            left = (seconds_left, pace.seconds_left(of_movie))
            seconds_left = min((s for s in left if s is not None), default=None)
        shown = self._said(outcome)
        dropped = {why: n for why, n in dict(self._stages.dropped).items() if why != AFTER_STOP}
        missed = dict(self._source.missed)
        return Progress(
            status=outcome[0],
            received=self._stages.n_received,
            processed=self._tracker.processed,
            dropped=sum(dropped.values()),
            missed=sum(missed.values()),
            seconds=seconds,
            open_tracks=len(positions.cell) if positions is not None else 0,
            cells=Counter(tally.cells),
            n=tally.fraction.n,
            estimate=tally.fraction.estimate,
            interval=shown.interval,
            level=tally.fraction.level,
            missing=stopping.missing(rules),
            total_frames=self._info.n_frames,
            frames_per_s=pace.frames_per_s,
            stop_share=share,
            seconds_left=None if ended else seconds_left,
            lag_s=self._stages.lag_s(),
            method=shown.method,
            rules=rules,
            stop_sentence=self.stop_sentence(outcome),
            warned=self._quality.warned,
            quality=self._quality.lines,
            room="" if ended else self.room_sentence(),
            dropped_by=dropped,
            missed_by=missed,
            labels_behind_s=self._stages.labels_behind_s(),
        )

    def _meanwhile(self) -> list[str]:
        """What is said only while a run goes on."""
        said = (self.room_sentence(), behind_sentence(self._stages.labels_behind_s()))
        return [sentence for sentence in said if sentence]

    def room_sentence(self) -> str:
        """Say how long the disk will hold, where that is too short; empty where it is not."""
        left_s = None if self._room is None else self._room.left_s
        if left_s is None:
            return ""
        stop, done = self._settings.stop, self._tracker.processed
        needed_s = None if stop.seconds is None else stop.seconds - self._stages.seconds
        if self._info.n_frames and done:
            of_movie = (self._info.n_frames / done - 1) * (time.monotonic() - self._began)
            needed_s = of_movie if needed_s is None else min(needed_s, of_movie)
        sooner = (stop.reliable, stop.halfwidth, stop.tracks, stop.baseline) != (None,) * 4
        # Where cells may end the run sooner, a far end is as good as an open one.
        far = sooner and needed_s is not None and needed_s > OPEN_END_S
        return room_words(left_s, None if far else needed_s)

    def _said(self, outcome: tuple[str, str]) -> Said:
        """Return the interval that is true of the run now."""
        fraction = self._stages.tally.fraction
        return said(fraction, self._settings.stop, *outcome, self._settings.interval)

    def stop_sentence(self, outcome: tuple[str, str]) -> str:
        """Return what the rule that stopped the run found, where its name does not tell."""
        return stop_sentence(outcome[1], self._settings.stop, self._stages.tally.fraction)

    def account(self, outcome: tuple[str, str]) -> Account:
        """Return the counts of ``run.json``; while the run goes on, with the last labels' latencies only."""
        whole = outcome != GOES_ON
        dropped = dict(self._stages.dropped)
        tally = self._stages.tally
        fraction = FractionFigure.saying(tally.fraction, self._said(outcome))
        cells = dict(tally.cells)
        account = Account.of(
            received=self._stages.n_received,
            processed=self._tracker.processed,
            dropped=dropped,
            missed=dict(self._source.missed),
            cells=cells,
            fraction=fraction,
            fraction_corrected=(
                corrected_figure(self._models, cells, fraction, tally.focus.as_dict()) if whole else None
            ),
            focus_speed={**tally.focus.as_dict(), "set_aside": tally.set_aside},
            latencies_ms=self._stages.latencies_ms[0 if whole else -RECENT_LABELS :],
            warnings=[
                *self._survived(),
                *([] if whole else self._meanwhile()),
                *warnings_of(
                    self._info,
                    dropped=dropped,
                    missed=self._source.missed,
                    ring_skipped=self._stages.ring_skipped,
                ),
            ],
        )
        return self._quality.complete(account, ended=whole)
