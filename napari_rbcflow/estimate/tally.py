"""Which cells count, and when there are enough of them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from napari_rbcflow.conventions import Label
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.tracks import PIECES_REMEMBERED, Judgement, Track

CUT_BY_STOP = "cut-by-stop"
AFTER_STOP = "after-stop"
RUN_FAILED = "run-failed"
PIECE = "piece"
"""Of a track that may be another piece of a cell that was counted already."""
TOO_FEW_FRAMES = "too-few-frames"
"""Of a track that was judged, but is shorter than the least length that was asked for. Unreliable ones too:
none of so few frames can be counted by mistake, so the correction for such mistakes must not count them."""
_JUDGED = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
_NOT_FINISHED = (CUT_BY_STOP, AFTER_STOP, RUN_FAILED)


class Tally:
    """Counts judged tracks, one cell once, until a stop rule is met; then the number is frozen.

    The track that meets the rule is the last that may count, whatever the batches: the cell that is enough,
    or the last of as many tracks as were asked for.

    A cell that is lost and found again leaves two tracks or more. Of a chain of them (each track names
    those that it may continue) the first that can be judged counts, and what may continue it, directly or
    through others, does not. One that is too short to count leaves that to the next.

    Lifecycle, a batch at a time: `settle` says what becomes of each track -> the caller puts that on
    disk -> `count` counts it. So what is counted is on disk, and a crash in between costs a count,
    never a cell.

    Parameters
    ----------
    rules : StopRules
    least_frames : int, optional
        Of a track that counts; 0 for any that was judged.

    Attributes
    ----------
    fraction : RunningFraction
    cells : Counter of str
        ``tracked`` and one count a label, named as in ``run.json``.
    counted : bytearray
        The counted cells in their order, 1 for tank-treading and 0 for flipping: what the fraction's
        curve is drawn from, in a byte a cell.
    finished : int
        Tracks that came to their own end before the stop, counted or not.
    enough : str or None
        The rule that was met (`StopRules.met_by`).
    """

    def __init__(self, rules: StopRules, least_frames: int = 0) -> None:
        self.fraction = RunningFraction()
        self.cells: Counter[str] = Counter()
        self.counted = bytearray()
        self.finished = 0
        self.enough: str | None = None
        self._rules = rules
        self._least_frames = least_frames
        self._chains: dict[int, bool] = {}
        self._coming: dict[int, bool] = {}

    def to_judge(self, tracks: Sequence[Track]) -> list[Track]:
        """Return the tracks that may still count: those that the stop did not cut, before the stop."""
        return [] if self.enough else [t for t in tracks if t.reason != CUT_BY_STOP]

    def settle(self, tracks: Sequence[Track], judged: Sequence[Judgement]) -> list[Judgement]:
        """Return a judgement for every track, in order.

        Parameters
        ----------
        tracks : sequence of Track
            As they were handed over: a track comes behind those that it may continue.
        judged : sequence of Judgement
            Of the tracks that `to_judge` returned for the same `tracks`, in order.

        Returns
        -------
        list of Judgement
            Tracks behind the one that meets the stop rule, those that the stop cut, and those that
            would count but may be of a cell that was counted, and those that are too short, are
            ``uncounted``. Those of them that were judged keep their probabilities.
        """
        trial = copy.deepcopy(self.fraction)
        coming = iter(judged)
        frozen = self.enough is not None
        finished = self.finished
        settled = []
        # Of each track: whether it, or one that it may continue, was counted.
        chains: dict[int, bool] = {}
        for track in tracks:
            is_piece = any(chains.get(c, self._chains.get(c, False)) for c in track.may_continue)
            chains[track.cell] = is_piece
            if track.reason == CUT_BY_STOP:
                settled.append(uncounted(track, CUT_BY_STOP))
                continue
            judgement = None if self.enough else next(coming)
            if frozen or judgement is None:
                settled.append(uncounted(track, AFTER_STOP))
                continue
            if is_piece and counts(judgement):
                judgement = _set_aside(judgement, PIECE)
            elif len(track) < self._least_frames and judgement.label in _JUDGED:
                judgement = _set_aside(judgement, TOO_FEW_FRAMES)
            settled.append(judgement)
            finished += 1
            if _add(trial, judgement):
                chains[track.cell] = True
            frozen = self._rules.met_by(trial, finished) is not None
        self._coming = chains
        return settled

    def count(self, settled: Sequence[Judgement]) -> None:
        """Count what `settle` returned."""
        for judgement in settled:
            self.cells["tracked"] += 1
            self.cells[judgement.label.replace("-", "_")] += 1
            if judgement.reason not in _NOT_FINISHED:
                self.finished += 1
            if _add(self.fraction, judgement):
                self.counted.append(judgement.label is Label.TANK_TREADING)
            self.enough = self.enough or self._rules.met_by(self.fraction, self.finished)
            if judgement.cell in self._coming:
                self._chains[judgement.cell] = self._coming[judgement.cell]
        # None of those before is named again.
        for cell in list(islice(self._chains, max(0, len(self._chains) - PIECES_REMEMBERED))):
            del self._chains[cell]


def uncounted(track: Track, reason: str) -> Judgement:
    """Return the judgement of a track that is kept but was not judged."""
    return Judgement(track.cell, Label.UNCOUNTED, None, None, reason)


def _set_aside(judgement: Judgement, reason: str) -> Judgement:
    """Return a judgement that is not counted; its probabilities tell what the networks saw in the track."""
    return replace(judgement, label=Label.UNCOUNTED, reason=reason)


def counts(judgement: Judgement) -> bool:
    """Whether a judgement is one of those that the fraction is made of."""
    return judgement.label in (Label.TANK_TREADING, Label.FLIPPING)


def _add(fraction: RunningFraction, judgement: Judgement) -> bool:
    if judgement.label is Label.TANK_TREADING:
        fraction.update(tank_treading=1)
    elif judgement.label is Label.FLIPPING:
        fraction.update(flipping=1)
    else:
        return False
    return True
