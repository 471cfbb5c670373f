"""Which cells count, and when there are enough of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from napari_rbcflow.conventions import Label
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.tracks import Judgement, Track

CUT_BY_STOP = "cut-by-stop"
AFTER_STOP = "after-stop"
RUN_FAILED = "run-failed"


class Tally:
    """Counts judged tracks, one cell once, until a stop rule is met; then the number is frozen.

    Lifecycle, a batch at a time: `settle` says what becomes of each track -> the caller puts that on
    disk -> `count` counts it. So what is counted is on disk, and a crash in between costs a count,
    never a cell.

    Attributes
    ----------
    fraction : RunningFraction
    cells : Counter of str
        ``tracked`` and one count a label, named as in ``run.json``.
    counted : bytearray
        The counted cells in their order, 1 for tank-treading and 0 for flipping: what the fraction's
        curve is drawn from, in a byte a cell.
    enough : str or None
        The rule that was met (`StopRules.met_by`).
    """

    def __init__(self, rules: StopRules) -> None:
        self.fraction = RunningFraction()
        self.cells: Counter[str] = Counter()
        self.counted = bytearray()
        self.enough: str | None = None
        self._rules = rules

    def to_judge(self, tracks: Sequence[Track]) -> list[Track]:
        """Return the tracks that may still count: those that the stop did not cut, before the stop."""
        return [] if self.enough else [t for t in tracks if t.reason != CUT_BY_STOP]

    def settle(self, tracks: Sequence[Track], judged: Sequence[Judgement]) -> list[Judgement]:
        """Return a judgement for every track, in order.

        Parameters
        ----------
        tracks : sequence of Track
        judged : sequence of Judgement
            Of the tracks that `to_judge` returned for the same `tracks`, in order.

        Returns
        -------
        list of Judgement
            Tracks behind the one that meets the stop rule, and those that the stop cut, are
            ``uncounted``.
        """
        trial = RunningFraction(self.fraction.level)
        trial.update(tank_treading=self.fraction.tank_treading, flipping=self.fraction.flipping)
        coming = iter(judged)
        frozen = self.enough is not None
        settled = []
        for track in tracks:
            if track.reason == CUT_BY_STOP:
                settled.append(uncounted(track, CUT_BY_STOP))
                continue
            judgement = None if self.enough else next(coming)
            if frozen or judgement is None:
                settled.append(uncounted(track, AFTER_STOP))
                continue
            settled.append(judgement)
            frozen = _add(trial, judgement) and self._rules.met_by(trial) is not None
        return settled

    def count(self, settled: Sequence[Judgement]) -> None:
        """Count what `settle` returned."""
        for judgement in settled:
            self.cells["tracked"] += 1
            self.cells[judgement.label.replace("-", "_")] += 1
            if _add(self.fraction, judgement):
                self.counted.append(judgement.label is Label.TANK_TREADING)
                self.enough = self._rules.met_by(self.fraction)


def uncounted(track: Track, reason: str) -> Judgement:
    """Return the judgement of a track that is kept but not counted."""
    return Judgement(track.cell, Label.UNCOUNTED, None, None, reason)


def _add(fraction: RunningFraction, judgement: Judgement) -> bool:
    if judgement.label is Label.TANK_TREADING:
        fraction.update(tank_treading=1)
    elif judgement.label is Label.FLIPPING:
        fraction.update(flipping=1)
    else:
        return False
    return True
