"""Which cells count, and when there are enough of them."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

from napari_rbcflow.estimate.focus_speed import (
    LEAST_SURE,
    NOT_ASKED,
    TOO_FEW,
    Appended,
    FocusSpeed,
    SpeedsSeen,
)
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.types import FRAGMENTS_REMEMBERED, Judgement, Label

# Why a track does not count: reasons in ``cells.csv``.
CUT_BY_STOP = "cut-by-stop"
AFTER_STOP = "after-stop"
RUN_FAILED = "run-failed"
FRAGMENT = "piece"
"""The track may be another fragment of a cell that was counted already."""
TOO_FEW_FRAMES = "too-few-frames"
"""The track was judged, but has fewer frames than were asked for. Unreliable ones too: none of so few frames
can be counted by mistake, so the correction for such mistakes must not count them."""
OTHER_SPEED = "other-speed"
"""The networks judged the track reliable, but it moves as cells out of focus do (`focus_speed`)."""
LEARNT_AGAIN = 1.2
"""Factor by which the tracks that stage 1 passed must grow before the speed in focus is learnt again."""
_JUDGED = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)


class Countable(Protocol):
    """What the tally needs of a track: a `Track`, or a row of ``cells.csv`` when a run is counted again."""

    @property
    def cell(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def may_continue(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...


T = TypeVar("T", bound=Countable)


class Tally:
    """Counts judged tracks, each cell once, until a stop rule is met; then the number is final.

    The track that meets the rule is the last that may count, whatever the batches: the cell that is enough,
    or the last of as many tracks as were asked for.

    A cell that is lost and found again leaves two tracks or more. Of a chain of them (each track names those
    that it may continue) the first that can be judged counts, and those that may continue it, directly or
    through others, do not. One that is too short to count leaves that to the next.

    The speed of the cells in focus is learnt from the tracks themselves (`focus_speed`): the first time when
    there are enough, then each time there are `LEARNT_AGAIN` times as many, when a stop rule is met, and at
    the end. Each time all tracks are counted again with it, so the number may rise or fall; if a rule is then
    no longer met, the run goes on. The counts depend on the tracks and their order, not on batches or time.

    Lifecycle, for each batch: `settle` returns what becomes of each track -> the caller writes that to disk
    -> `count` counts it. So what is counted is on disk, and a crash in between costs a count, never a cell.
    At the end `finish`; then `changed` tells which tracks count otherwise than `settle` returned.

    Parameters
    ----------
    rules : StopRules
    least_frames : int, optional
        Fewest frames of a track that counts; 0 for any that was judged.
    speed : callable, optional
        Returns the speed of a track in um/s, rounded as in ``cells.csv``. Without it, none is learnt.
    """

    def __init__(
        self,
        rules: StopRules,
        least_frames: int = 0,
        *,
        speed: Callable[[Any], float] | None = None,
    ) -> None:
        self._rules, self._least_frames = rules, least_frames
        self._speed = speed
        self._now = _Counts(NOT_ASKED if speed is None else TOO_FEW)
        self._coming: tuple[list[Judgement], _Counts] | None = None

    @property
    def fraction(self) -> RunningFraction:
        return self._now.fraction

    @property
    def cells(self) -> Counter[str]:
        """``tracked`` and one count for each label, named as in ``run.json``."""
        return self._now.cells

    @property
    def counted(self) -> bytearray:
        """The counted cells in their order, one byte each: 1 for tank-treading and 0 for flipping."""
        return self._now.counted

    @property
    def finished(self) -> int:
        """Tracks that came to their own end before the stop, counted or not."""
        return self._now.finished

    @property
    def enough(self) -> str | None:
        """The rule that was met (`StopRules.met_by`)."""
        return self._now.enough

    @property
    def focus(self) -> FocusSpeed:
        return self._now.focus

    @property
    def set_aside(self) -> int:
        """Tracks that do not count because they move at another speed."""
        return self._now.set_aside

    def counted_since(self, n: int, recounts: int) -> tuple[bytes, int]:
        """Return the cells counted after the first `n`, as `counted`, and how often all were counted again.

        All of them, if all were counted again since this returned `recounts`.
        """
        now = self._now
        return bytes(now.counted[n if now.recounts == recounts else 0 :]), now.recounts

    def to_judge(self, tracks: Sequence[T]) -> list[T]:
        """Return the tracks that may still count: those that the stop did not cut, before the stop."""
        return [] if self.enough else [t for t in tracks if t.reason != CUT_BY_STOP]

    def settle(self, tracks: Sequence[Countable], judged: Sequence[Judgement]) -> list[Judgement]:
        """Return the final judgement of every track, in order.

        Parameters
        ----------
        tracks : sequence of Track
            In the order in which they ended: a track comes after those that it may continue.
        judged : sequence of Judgement
            Of the tracks that `to_judge` returned for the same `tracks`, in order.

        Returns
        -------
        list of Judgement
            ``uncounted`` are tracks after the one that meets the stop rule, those that the stop cut, those
            that may belong to a counted cell, and those that are too short. ``unreliable`` are those at
            another speed than cells in focus, as far as that is known by then. All keep their probabilities.
        """
        trial = self._now.copy()
        coming = iter(judged)
        settled = []
        for track in tracks:
            judgement = None if self.enough or track.reason == CUT_BY_STOP else next(coming)
            if trial.enough or judgement is None:
                why = CUT_BY_STOP if track.reason == CUT_BY_STOP else AFTER_STOP
                kept = _JudgedTrack(track.cell, track.may_continue, uncounted(track, why))
                trial.add(kept)
            else:
                kept = self._add(trial, track, judgement)
            settled.append(trial.settle(kept))
        self._coming = settled, trial
        return settled

    def count(self, settled: Sequence[Judgement]) -> None:
        """Count what `settle` returned, or other tracks, which a failure left unjudged."""
        if self._coming is not None and list(settled) == self._coming[0]:
            self._now = self._coming[1]
        else:
            now = self._now.copy()
            for judgement in settled:
                now.plain["tracked"] += 1
                now.plain[_name(judgement.label)] += 1
                now.cells["tracked"] += 1
                now.cells[_name(judgement.label)] += 1
            self._now = now
        self._coming = None

    def finish(self) -> None:
        """Count all with the speed learnt from the whole run, unless a stop rule made the number final."""
        if not self.enough and self._now.stale:
            now = self._now.copy()
            now.learn()
            self._now = now

    def changed(self) -> dict[int, tuple[Label, str]]:
        """Return label and reason of each track whose label is no longer the one that `settle` returned."""
        return self._now.changed()

    def _add(self, trial: _Counts, track: Countable, judgement: Judgement) -> _JudgedTrack:
        """Add a judged track; the speed in focus is learnt again if that is due."""
        too_short, speed = len(track) < self._least_frames, 0.0
        if self._speed is not None and judgement.p_reliable is not None:
            speed = self._speed(track)
            # Stage 2 may be asked of a cell that stage 1 then discards, as either kind has its own threshold.
            passed = judgement.p_tank_treading is not None and judgement.reason != "stage-1"
            if not too_short:  # for those the table does not keep why
                trial.see(speed, judgement.p_reliable, passed=passed)
        kept = _JudgedTrack(track.cell, track.may_continue, judgement, too_short, speed)
        trial.finished += 1
        trial.add(kept)
        if trial.learning_is_due:
            trial.learn()
        trial.enough = self._rules.met_by(trial.fraction, trial.finished)
        if trial.enough and trial.stale:
            trial.learn()
            trial.enough = self._rules.met_by(trial.fraction, trial.finished)
        return kept


class _JudgedTrack(NamedTuple):
    """What is needed of a judged track to count it again."""

    cell: int
    may_continue: tuple[int, ...]
    judgement: Judgement
    too_short: bool = False
    speed: float = 0.0

    def settled(self, focus: FocusSpeed, taken: Mapping[int, bool]) -> Judgement:
        """Return its final judgement; `taken` as of `_Counts`, of earlier tracks."""
        judgement = self.judgement
        if counts(judgement) and focus.sets_aside(self.speed):
            judgement = replace(judgement, label=Label.UNRELIABLE, reason=OTHER_SPEED)
        if counts(judgement) and self.continues(taken):
            return _set_aside(judgement, FRAGMENT)
        if self.too_short and judgement.label in _JUDGED:
            return _set_aside(judgement, TOO_FEW_FRAMES)
        return judgement

    def continues(self, taken: Mapping[int, bool]) -> bool:
        """Whether a track that it may continue counts, or continues one that does."""
        return any(taken.get(cell, False) for cell in self.may_continue)


class _Counts:
    """The counts after some track. Tracks are added to a copy, which replaces it once they are on disk."""

    def __init__(self, focus: FocusSpeed) -> None:
        self.fraction = RunningFraction()
        self.cells: Counter[str] = Counter()
        self.counted = bytearray()
        self.finished = self.set_aside = self.recounts = 0
        self.enough: str | None = None
        self.focus = focus
        self.seen = SpeedsSeen()
        # Whether tracks were added since a speed was learnt, and there are enough to learn from.
        self.stale = False
        self._learn_at = LEAST_SURE
        # Counts of the tracks whose label no speed can change.
        self.plain: Counter[str] = Counter()
        # The other tracks, and those that link them.
        self.tracks: Appended[_JudgedTrack] = Appended()
        # Label and reason that were returned for each of `tracks`.
        self.returned: Appended[tuple[Label, str]] = Appended()
        # Of each track: whether it, or one that it may continue, counts; as was returned, and as it is now.
        self.taken_before: dict[int, bool] = {}
        self.taken: dict[int, bool] = {}

    def copy(self) -> _Counts:
        other = copy.copy(self)
        other.fraction, other.seen = copy.deepcopy(self.fraction), self.seen.copy()
        for name in ("cells", "counted", "plain", "tracks", "returned", "taken_before", "taken"):
            setattr(other, name, getattr(self, name).copy())
        return other

    @property
    def learning_is_due(self) -> bool:
        return len(self.seen.passed) >= self._learn_at

    def see(self, speed: float, p_reliable: float, *, passed: bool) -> None:
        """Add the speed of a track that stage 1 judged."""
        self.seen.add(speed, p_reliable, passed)
        self.stale = len(self.seen.passed) >= LEAST_SURE

    def add(self, track: _JudgedTrack) -> None:
        self.cells["tracked"] += 1
        self.plain["tracked"] += 1
        judgement = track.settled(self.focus, self.taken)
        self.cells[_name(judgement.label)] += 1
        self.set_aside += judgement.reason == OTHER_SPEED
        # A track that cannot count matters if it links a later track to one that can.
        if counts(track.judgement) or any(cell in self.taken for cell in track.may_continue):
            self.tracks.append(track)
            self.taken[track.cell] = counts(judgement) or track.continues(self.taken)
        else:
            self.plain[_name(judgement.label)] += 1
        if counts(judgement):
            tank = judgement.label is Label.TANK_TREADING
            self.counted.append(tank)
            self.fraction.update(tank_treading=int(tank), flipping=int(not tank))

    def settle(self, track: _JudgedTrack) -> Judgement:
        """Return the judgement of the track added last, by what is known now and was returned before."""
        judgement = track.settled(self.focus, self.taken_before)
        if self.tracks.last is track:
            self.returned.append((judgement.label, judgement.reason))
        self.taken_before[track.cell] = counts(judgement) or track.continues(self.taken_before)
        # No later track names those before the last `FRAGMENTS_REMEMBERED`.
        for cell in list(islice(self.taken_before, max(0, len(self.taken_before) - FRAGMENTS_REMEMBERED))):
            del self.taken_before[cell]
            self.taken.pop(cell, None)
        return judgement

    def learn(self) -> None:
        """Learn the speed of the cells in focus, and count all tracks again with it."""
        before = self.focus
        self.focus, self.stale = self.seen.learn(), False
        self._learn_at = max(LEAST_SURE, math.ceil(LEARNT_AGAIN * len(self.seen.passed)))
        if not (before.found or self.focus.found):
            return
        self.recounts += 1
        self.cells, self.counted, self.set_aside = self.plain.copy(), bytearray(), 0
        taken: dict[int, bool] = {}
        for _, judgement in self._again(taken):
            self.cells[_name(judgement.label)] += 1
            self.set_aside += judgement.reason == OTHER_SPEED
            if counts(judgement):
                self.counted.append(judgement.label is Label.TANK_TREADING)
        self.fraction = RunningFraction(self.fraction.level)
        tank = sum(self.counted)
        self.fraction.update(tank_treading=tank, flipping=len(self.counted) - tank)
        self.taken = {cell: taken.get(cell, was) for cell, was in self.taken.items()}

    def changed(self) -> dict[int, tuple[Label, str]]:
        now = ((track.cell, (judgement.label, judgement.reason)) for track, judgement in self._again({}))
        return {cell: new for (cell, new), old in zip(now, self.returned, strict=True) if new != old}

    def _again(self, taken: dict[int, bool]) -> Iterator[tuple[_JudgedTrack, Judgement]]:
        """Settle all tracks again, in their order."""
        for track in self.tracks:
            judgement = track.settled(self.focus, taken)
            taken[track.cell] = counts(judgement) or track.continues(taken)
            yield track, judgement


def uncounted(track: Countable, reason: str) -> Judgement:
    """Return the judgement of a track that is kept but was not judged."""
    return Judgement(track.cell, Label.UNCOUNTED, None, None, reason)


def _set_aside(judgement: Judgement, reason: str) -> Judgement:
    """Return a judgement that is not counted, with the networks' probabilities kept."""
    return replace(judgement, label=Label.UNCOUNTED, reason=reason)


def counts(judgement: Judgement) -> bool:
    return judgement.label in (Label.TANK_TREADING, Label.FLIPPING)


def _name(label: Label) -> str:
    """Return the name of a label's count in ``run.json``."""
    return label.replace("-", "_")
