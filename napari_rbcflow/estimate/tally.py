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

CUT_BY_STOP = "cut-by-stop"
AFTER_STOP = "after-stop"
RUN_FAILED = "run-failed"
PIECE = "piece"
"""Of a track that may be another piece of a cell that was counted already."""
TOO_FEW_FRAMES = "too-few-frames"
"""Of a track that was judged, but is shorter than the least length that was asked for. Unreliable ones too:
none of so few frames can be counted by mistake, so the correction for such mistakes must not count them."""
OTHER_SPEED = "other-speed"
"""Of a track that the networks took for reliable, but that moves as cells out of focus do (`focus_speed`)."""
LEARNT_AGAIN = 1.2
"""Times as many tracks that stage 1 passed, after which the speed in focus is learnt again."""
_JUDGED = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
_NOT_FINISHED = (CUT_BY_STOP, AFTER_STOP, RUN_FAILED)


class Handed(Protocol):
    """What the tally asks of a track: a `Track`, or a row of ``cells.csv`` when a run is counted again."""

    @property
    def cell(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def may_continue(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...


T = TypeVar("T", bound=Handed)


class Tally:
    """Counts judged tracks, one cell once, until a stop rule is met; then the number is frozen.

    The track that meets the rule is the last that may count, whatever the batches: the cell that is enough,
    or the last of as many tracks as were asked for.

    A cell that is lost and found again leaves two tracks or more. Of a chain of them (each track names
    those that it may continue) the first that can be judged counts, and what may continue it, directly or
    through others, does not. One that is too short to count leaves that to the next.

    The speed of the cells in focus is learnt from the tracks themselves (`focus_speed`), the first time when
    there are enough, then each time there are `LEARNT_AGAIN` times as many, where a stop rule is met, and at
    the end. Each time all tracks are counted again by what it says, so the number may rise or fall. Where
    that takes back that a rule is met, the run goes on. The counts depend on the tracks and their order, not
    on batches or time.

    Lifecycle, a batch at a time: `settle` says what becomes of each track -> the caller puts that on
    disk -> `count` counts it. So what is counted is on disk, and a crash in between costs a count,
    never a cell. At the end `finish`; then `changed` says which tracks count otherwise than `settle` said.

    Parameters
    ----------
    rules : StopRules
    least_frames : int, optional
        Of a track that counts; 0 for any that was judged.
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
        """Of the cells that count now."""
        return self._now.fraction

    @property
    def cells(self) -> Counter[str]:
        """``tracked`` and one count a label, named as in ``run.json``."""
        return self._now.cells

    @property
    def counted(self) -> bytearray:
        """The counted cells in their order, 1 for tank-treading and 0 for flipping: a byte a cell."""
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
        """What is said of the speed of cells in focus."""
        return self._now.focus

    @property
    def set_aside(self) -> int:
        """Tracks that do not count because they move at another speed."""
        return self._now.set_aside

    def counted_since(self, n: int, recounts: int) -> tuple[bytes, int]:
        """Return the cells counted after the first `n`, or all where all were counted again since.

        Parameters
        ----------
        n, recounts : int
            How many were taken before, and what this returned with them.

        Returns
        -------
        bytes
            As `counted`.
        int
            How often all were counted again; another number than `recounts` means that these are all.
        """
        now = self._now
        return bytes(now.counted[n if now.recounts == recounts else 0 :]), now.recounts

    def to_judge(self, tracks: Sequence[T]) -> list[T]:
        """Return the tracks that may still count: those that the stop did not cut, before the stop."""
        return [] if self.enough else [t for t in tracks if t.reason != CUT_BY_STOP]

    def settle(self, tracks: Sequence[Handed], judged: Sequence[Judgement]) -> list[Judgement]:
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
            ``uncounted``. Those at another speed than cells in focus, as far as that is known by then, are
            ``unreliable``. Those of them that were judged keep their probabilities.
        """
        trial = self._now.copy()
        coming = iter(judged)
        settled = []
        for track in tracks:
            judgement = None if self.enough or track.reason == CUT_BY_STOP else next(coming)
            if trial.enough or judgement is None:
                why = CUT_BY_STOP if track.reason == CUT_BY_STOP else AFTER_STOP
                way = _Way(track.cell, track.may_continue, uncounted(track, why))
                trial.add(way)
            else:
                way = self._add(trial, track, judgement)
            settled.append(trial.tell(way))
        self._coming = settled, trial
        return settled

    def count(self, settled: Sequence[Judgement]) -> None:
        """Count what `settle` returned, or other tracks, which a fault left unjudged."""
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
        """Count all by the speed that the whole run tells; nothing changes where a stop rule froze it."""
        if not self.enough and self._now.stale:
            now = self._now.copy()
            now.learn()
            self._now = now

    def changed(self) -> dict[int, tuple[Label, str]]:
        """Return label and reason of each track that is now another than `settle` said."""
        return self._now.changed()

    def _add(self, trial: _Counts, track: Handed, judgement: Judgement) -> _Way:
        """Add a judged track; the speed in focus is learnt again where that is due."""
        brief, speed = len(track) < self._least_frames, 0.0
        if self._speed is not None and judgement.p_reliable is not None:
            speed = self._speed(track)
            # Stage 2 may be asked of a cell that stage 1 then discards, as either kind has its own threshold.
            passed = judgement.p_tank_treading is not None and judgement.reason != "stage-1"
            if not brief:  # of those the table does not keep why
                trial.see(speed, judgement.p_reliable, passed=passed)
        way = _Way(track.cell, track.may_continue, judgement, brief, speed)
        trial.finished += 1
        trial.add(way)
        if trial.learning_is_due:
            trial.learn()
        trial.enough = self._rules.met_by(trial.fraction, trial.finished)
        if trial.enough and trial.stale:
            trial.learn()
            trial.enough = self._rules.met_by(trial.fraction, trial.finished)
        return way


class _Way(NamedTuple):
    """A track that was judged, as far as it must be counted again."""

    cell: int
    may_continue: tuple[int, ...]
    judgement: Judgement
    brief: bool = False
    speed: float = 0.0

    def settled(self, focus: FocusSpeed, taken: Mapping[int, bool]) -> Judgement:
        """Say what becomes of it, where of some of the tracks before it is known whether they are `taken`."""
        judgement = self.judgement
        if counts(judgement) and focus.sets_aside(self.speed):
            judgement = replace(judgement, label=Label.UNRELIABLE, reason=OTHER_SPEED)
        if counts(judgement) and self.continues(taken):
            return _set_aside(judgement, PIECE)
        if self.brief and judgement.label in _JUDGED:
            return _set_aside(judgement, TOO_FEW_FRAMES)
        return judgement

    def continues(self, taken: Mapping[int, bool]) -> bool:
        """Whether a track that it may continue counts, or continues one that does."""
        return any(taken.get(cell, False) for cell in self.may_continue)


class _Counts:
    """The counts after some track. A copy is added to, and takes its place once that is on disk."""

    def __init__(self, focus: FocusSpeed) -> None:
        self.fraction = RunningFraction()
        self.cells: Counter[str] = Counter()
        self.counted = bytearray()
        self.finished = self.set_aside = self.recounts = 0
        self.enough: str | None = None
        self.focus = focus
        self.seen = SpeedsSeen()
        self.stale = False
        """Whether tracks were added since a speed was learnt, and there are enough to learn from."""
        self._learn_at = LEAST_SURE
        self.plain: Counter[str] = Counter()
        """Of the tracks that would count at no speed."""
        self.ways: Appended[_Way] = Appended()
        """The others, and those through which they hang together."""
        self.said: Appended[tuple[Label, str]] = Appended()
        """What was told of each of `ways`."""
        # Of each track: whether it, or one that it may continue, counts; as it was told, and as it is now.
        self.told: dict[int, bool] = {}
        self.taken: dict[int, bool] = {}

    def copy(self) -> _Counts:
        """Return another one that can be added to."""
        other = copy.copy(self)
        other.fraction, other.seen = copy.deepcopy(self.fraction), self.seen.copy()
        for name in ("cells", "counted", "plain", "ways", "said", "told", "taken"):
            setattr(other, name, getattr(self, name).copy())
        return other

    @property
    def learning_is_due(self) -> bool:
        """Whether a speed should be learnt now."""
        return len(self.seen.passed) >= self._learn_at

    def see(self, speed: float, p_reliable: float, *, passed: bool) -> None:
        """Take in the speed of a track that stage 1 judged."""
        self.seen.add(speed, p_reliable, passed)
        self.stale = len(self.seen.passed) >= LEAST_SURE

    def add(self, way: _Way) -> None:
        """Add a track."""
        self.cells["tracked"] += 1
        self.plain["tracked"] += 1
        judgement = way.settled(self.focus, self.taken)
        self.cells[_name(judgement.label)] += 1
        self.set_aside += judgement.reason == OTHER_SPEED
        # A track that cannot count matters where a later one may continue through it one that can.
        if counts(way.judgement) or any(cell in self.taken for cell in way.may_continue):
            self.ways.append(way)
            self.taken[way.cell] = counts(judgement) or way.continues(self.taken)
        else:
            self.plain[_name(judgement.label)] += 1
        if _add(self.fraction, judgement):
            self.counted.append(judgement.label is Label.TANK_TREADING)

    def tell(self, way: _Way) -> Judgement:
        """Say what is told of the track added last: by what is known now, and was told of those before it."""
        judgement = way.settled(self.focus, self.told)
        if self.ways.last is way:
            self.said.append((judgement.label, judgement.reason))
        self.told[way.cell] = counts(judgement) or way.continues(self.told)
        # None of those before is named again.
        for cell in list(islice(self.told, max(0, len(self.told) - FRAGMENTS_REMEMBERED))):
            del self.told[cell]
            self.taken.pop(cell, None)
        return judgement

    def learn(self) -> None:
        """Learn the speed of the cells in focus, and count all again by it."""
        before = self.focus
        self.focus, self.stale = self.seen.learn(), False
        self._learn_at = max(LEAST_SURE, math.ceil(LEARNT_AGAIN * len(self.seen.passed)))
        if not (before.speaks or self.focus.speaks):
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
        """As `Tally.changed`."""
        now = ((way.cell, (judgement.label, judgement.reason)) for way, judgement in self._again({}))
        return {cell: said for (cell, said), told in zip(now, self.said, strict=True) if said != told}

    def _again(self, taken: dict[int, bool]) -> Iterator[tuple[_Way, Judgement]]:
        """Settle all tracks again, in their order."""
        for way in self.ways:
            judgement = way.settled(self.focus, taken)
            taken[way.cell] = counts(judgement) or way.continues(taken)
            yield way, judgement


def uncounted(track: Handed, reason: str) -> Judgement:
    """Return the judgement of a track that is kept but was not judged."""
    return Judgement(track.cell, Label.UNCOUNTED, None, None, reason)


def _set_aside(judgement: Judgement, reason: str) -> Judgement:
    """Return a judgement that is not counted; its probabilities tell what the networks saw in the track."""
    return replace(judgement, label=Label.UNCOUNTED, reason=reason)


def counts(judgement: Judgement) -> bool:
    """Whether a judgement is one of those that the fraction is made of."""
    return judgement.label in (Label.TANK_TREADING, Label.FLIPPING)


def _name(label: Label) -> str:
    """Return what a label's count is called in ``run.json``."""
    return label.replace("-", "_")


def _add(fraction: RunningFraction, judgement: Judgement) -> bool:
    if judgement.label is Label.TANK_TREADING:
        fraction.update(tank_treading=1)
    elif judgement.label is Label.FLIPPING:
        fraction.update(flipping=1)
    else:
        return False
    return True
