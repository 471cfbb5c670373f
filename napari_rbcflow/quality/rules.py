"""Which measures of a run give a warning, and from what value on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from napari_rbcflow.quality.meter import number
from napari_rbcflow.quality.warning import RunWarning, Severity, sorted_by_weight
from napari_rbcflow.sentences import say


@dataclass(frozen=True)
class Limits:
    """The range without a note, and the wider one without a grave warning."""

    note: tuple[float, float]
    warning: tuple[float, float]

    def broken_by(self, value: float) -> int:
        """Return 0, 1 for a note or 2 for a grave warning; negative if the value is too low."""
        if value < self.note[0]:
            return -2 if value < self.warning[0] else -1
        if value > self.note[1]:
            return 2 if value > self.warning[1] else 1
        return 0


INFINITE = float("inf")

LOST = 0.01
"""Share of all frames, dropped or missed, from which the loss is grave: tracks of about 30 frames are then
cut by a lost frame in a quarter of the cases."""
NOT_ANALYSED = 0.05
"""Share of frames without light, focus or background from which that is grave: more than a moment."""
RELIABLE_SHARE = Limits(note=(0.04, 0.25), warning=(0.03, INFINITE))
"""Stage 1 lets 1.4 % of the unreliable through (its card): if 4 % pass, that is a third of what passes, if 3
% pass nearly half, and then the number is no longer one of reliable cells. In the paper 3.4 % of all are
reliable, in its densest set 5; here tracks that are too pale to be judged are not among all."""
SHEAR = Limits(note=(0.75, 1.4), warning=(0.6, 1.67))
"""Measured over set shear rate. Cells of the published crops move 20 to 30 px a frame, where 22 are expected:
0.9 to 1.4. Beyond, the flow or the height of the focus is not what was set, and the fraction depends on
both."""
UNSTEADY = Limits(note=(0.0, 1.25), warning=(0.0, 1.67))
"""Fastest over slowest 40 reliable cells in a row."""
PER_FIELD = Limits(note=(40.0, 300.0), warning=(0.0, 500.0))
"""Cells in the paper's field; it has 100 to 250."""
CLUMPS = Limits(note=(0.0, 1.9), warning=(0.0, 2.4))
"""Crops with a neighbour, over those expected by chance at that density."""
CLUMPS_LEAST_SHARE = 0.1
LIGHT_GREY = Limits(note=(50.0, 195.0), warning=(20.0, INFINITE))
"""A rim is 9 % darker than the field: 2 grey levels at 20. A bright centre is 30 % brighter: 255 at 195."""
SATURATED = Limits(note=(0.0, 0.0002), warning=(0.0, 0.0005))
"""Share of the picture's pixels at 255: they are the centres of cells before they are the field."""
BLACK = Limits(note=(0.0, 0.001), warning=(0.0, 0.02))
FLICKER = Limits(note=(0.0, 0.02), warning=(0.0, INFINITE))
LIGHT_JUMP = 0.1
LIGHT_DRIFT = 1.3
RIM_RADIUS_UM = Limits(note=(2.9, 3.8), warning=(2.75, 4.0))
"""Median of reliable cells. Published crops: 3.1 (flipping) to 3.6 um (tank-treading)."""
RIM_RADIUS_OF_ALL_UM = Limits(note=(2.4, 3.6), warning=(2.4, 3.6))
"""Tenth percentile of all cells; used if there are too few reliable ones."""
CHANGE = 0.05
"""Of the fraction within a run: the half-width that a run usually asks for."""
LOST_TRACKS = 0.5
"""Share of tracks that were lost within a few frames."""
LATE_LABELS_S = 2.0
"""Delay of labels from which it is reported: ten times the delay on a computer that keeps up."""

LEAST_TRACKS = 300
LEAST_RELIABLE = 20
LEAST_FRAMES = 120

WARNINGS_A_REVIEW_ANSWERS = frozenset({"reliable-few", "reliable-many", "speeds", "few-cells"})
"""Keys of warnings that say that the networks may be wrong here, or that the cells counted are few; not that
the movie is bad. A person who checks cells answers them."""


STAYS_S = 10.0
"""Seconds for which a warning stays after its cause was last seen."""
_REWORDED_EVERY_S = 5.0
"""Least seconds between changes of the numbers in a sentence."""
LEAST_S = 5.0
"""Seconds for which a grave warning must have been true to be reported at the end."""
GRAVE_SHARE = 0.2
"""Share of a run from which a warning that has passed is grave for the whole run."""


@dataclass(slots=True)
class _Seen:
    warning: RunWarning
    last_true_s: float
    worded_s: float
    grave_s: float = 0.0
    worst: RunWarning | None = None


class ActiveWarnings:
    """The warnings that are shown while a run goes on. They stay a while, so that they do not flicker."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._looked_s: float | None = None

    def look(self, warnings: Iterable[RunWarning], now_s: float) -> tuple[RunWarning, ...]:
        """Add the warnings that are true now, in camera time, and return the active ones, grave first."""
        since = 0.0 if self._looked_s is None else max(0.0, now_s - self._looked_s)
        self._looked_s = now_s
        for warning in sorted_by_weight(warnings)[::-1]:  # grave ones last, so that they win
            seen = self._seen.get(warning.key)
            if seen is None:
                self._seen[warning.key] = seen = _Seen(warning, now_s, now_s)
            elif self._is_new(seen, warning, now_s):
                seen.warning, seen.worded_s = warning, now_s
            seen.last_true_s = now_s
            if warning.grave:
                seen.grave_s += since
                seen.worst = warning
        return self.active

    @staticmethod
    def _is_new(seen: _Seen, warning: RunWarning, now_s: float) -> bool:
        if not ActiveWarnings._is_active(seen, now_s) or (warning.grave and not seen.warning.grave):
            return True
        # A grave warning that became mild waits too: at its limit it would come and go.
        return now_s - seen.worded_s >= (
            _REWORDED_EVERY_S if warning.grave is seen.warning.grave else STAYS_S
        )

    @staticmethod
    def _is_active(seen: _Seen, now_s: float) -> bool:
        return now_s - seen.last_true_s <= STAYS_S

    @property
    def active(self) -> tuple[RunWarning, ...]:
        now = self._looked_s or 0.0
        return tuple(sorted_by_weight(s.warning for s in self._seen.values() if self._is_active(s, now)))

    def passed(self, told: Iterable[RunWarning], seconds: float) -> list[RunWarning]:
        """Return the grave warnings that were active for a time but are not `told` of the whole run.

        They are grave if they were active for `GRAVE_SHARE` of its `seconds`, else notes.
        """
        known = {w.key for w in told if w.grave}
        past = []
        for key, seen in self._seen.items():
            if seen.worst is None or key in known or seen.grave_s < LEAST_S:
                continue
            grave = seen.grave_s >= GRAVE_SHARE * max(seconds, LEAST_S)
            severity = Severity.WARNING if grave else Severity.NOTE
            times = {"seconds": seen.grave_s, "total": seconds}
            sentence = say("quality.for-some-seconds", **times, sentence=seen.worst.sentence)
            past.append(RunWarning(key, severity, sentence))
        return past


Figures = Mapping[str, Any]
Rule = Callable[[Figures], Iterator[RunWarning]]

NOTE, WARNING = Severity.NOTE, Severity.WARNING


def warnings_of_figures(figures: Figures) -> list[RunWarning]:
    """Return the warnings that follow from the measures in ``quality``; missing ones give none."""
    return [warning for rule in _RULES for warning in rule(figures)]


def _severity(broken: int) -> Severity:
    return WARNING if abs(broken) > 1 else NOTE


def _enough(figures: Figures, name: str, least: float) -> bool:
    return (number(figures, name) or 0.0) >= least


def _reliable(figures: Figures) -> Iterator[RunWarning]:
    share, judged = number(figures, "reliable_share"), number(figures, "tracks_judged")
    if share is None or judged is None or judged < LEAST_TRACKS:
        return
    # Three standard deviations: chance alone must not give the warning.
    spread = 3 * (max(share, 1 / judged) * (1 - share) / judged) ** 0.5
    low = RELIABLE_SHARE.broken_by(min(share + spread, RELIABLE_SHARE.note[0]))
    if low < 0:
        yield RunWarning.saying("reliable-few", _severity(low), share=100 * share)
    elif RELIABLE_SHARE.broken_by(share) > 0:
        yield RunWarning.saying("reliable-many", NOTE, share=100 * share)


def _light(figures: Figures) -> Iterator[RunWarning]:
    grey = number(figures, "light_grey")
    if grey is None or not _enough(figures, "frames", LEAST_FRAMES):
        return
    level = LIGHT_GREY.broken_by(grey)
    white, black = number(figures, "saturated_share") or 0.0, number(figures, "black_share") or 0.0
    saturated = SATURATED.broken_by(white)
    if saturated > 0:
        yield RunWarning.saying("light-saturated", _severity(saturated), white=share_words(white))
    elif level > 0:
        yield RunWarning.saying("light-bright", _severity(level), grey=grey)
    if level < 0 or BLACK.broken_by(black) > 0:
        dark = _severity(min(level, -BLACK.broken_by(black)))
        yield RunWarning.saying("light-dark", dark, grey=grey)
    flicker = number(figures, "flicker_share") or 0.0
    if FLICKER.broken_by(flicker):
        yield RunWarning.saying("light-flicker", NOTE, flicker=100 * flicker)
    least, most = number(figures, "light_least_grey"), number(figures, "light_most_grey")
    jump = number(figures, "light_change_in_a_second_share") or 0.0
    if least and most and (jump > LIGHT_JUMP or most / least > LIGHT_DRIFT):
        how = "-suddenly" if jump > LIGHT_JUMP else "-slowly"
        yield RunWarning.saying("light-changed", NOTE, how, least=least, most=most)


def _size(figures: Figures) -> int:
    """Return how far the cells' size is off, as `Limits.broken_by`."""
    rim, of_all = number(figures, "rim_radius_um"), number(figures, "rim_radius_of_all_um")
    if rim is not None:
        return RIM_RADIUS_UM.broken_by(rim)
    if of_all is not None and _enough(figures, "tracks_judged", LEAST_TRACKS):
        return RIM_RADIUS_OF_ALL_UM.broken_by(of_all)
    return 0


def _pixel_size(figures: Figures) -> Iterator[RunWarning]:
    off = _size(figures)
    if not off:
        return
    rim = number(figures, "rim_radius_um")
    measured = "" if rim is None else say("quality.rim-to-rim", diameter=2 * rim)
    size = "-small" if off < 0 else "-large"
    yield RunWarning.saying("pixel-size", _severity(off), size, measured=measured)


def _flow(figures: Figures) -> Iterator[RunWarning]:
    shear, wanted = number(figures, "shear_rate_per_s"), number(figures, "shear_rate_set_per_s")
    if not _enough(figures, "tracks_reliable", LEAST_RELIABLE):
        return
    if shear is not None and wanted and (off := SHEAR.broken_by(shear / wanted)):
        key = "flow-slow" if off < 0 else "flow-fast"
        height = number(figures, "focus_height_um") or 60
        yield RunWarning.saying(key, _severity(off), shear=shear, wanted=wanted, height=height)
    least, most = number(figures, "speed_least_um_per_s"), number(figures, "speed_most_um_per_s")
    if least and most and (unsteady := UNSTEADY.broken_by(most / least)):
        yield RunWarning.saying("flow-unsteady", _severity(unsteady), least=least, most=most)


def _direction(figures: Figures) -> Iterator[RunWarning]:
    share = number(figures, "too_short_share")
    if share is not None and share > LOST_TRACKS and _enough(figures, "tracks", 8):
        yield RunWarning.saying("flow-nowhere", WARNING, share=100 * share)


def _density(figures: Figures) -> Iterator[RunWarning]:
    cells, seen = number(figures, "cells_per_papers_field"), number(figures, "cells_per_frame")
    if cells is None or seen is None or not _enough(figures, "frames", LEAST_FRAMES):
        return
    dense = PER_FIELD.broken_by(cells)
    if dense > 0:
        yield RunWarning.saying("cells-dense", _severity(dense), cells=cells)
    elif dense < 0 and _enough(figures, "tracks", 1):
        yield RunWarning.saying("cells-sparse", NOTE, cells=cells)


def _clumps(figures: Figures) -> Iterator[RunWarning]:
    share, chance = number(figures, "neighbour_share"), number(figures, "neighbour_share_by_chance")
    if not share or not chance or not _enough(figures, "tracks_judged", LEAST_TRACKS):
        return
    clumped = CLUMPS.broken_by(share / chance)
    if clumped > 0 and share > CLUMPS_LEAST_SHARE:
        severity = _severity(clumped)
        yield RunWarning.saying("cells-clumped", severity, share=100 * share, chance=100 * chance)


def _drift(figures: Figures) -> Iterator[RunWarning]:
    change = figures.get("fraction_change")
    if not isinstance(change, Mapping):
        return
    before, after, at = number(change, "before"), number(change, "after"), number(change, "at_cell")
    if before is None or after is None or at is None:
        return
    severity = WARNING if abs(after - before) >= CHANGE else NOTE
    before, after = 100 * before, 100 * after
    yield RunWarning.saying("fraction-drifts", severity, before=before, after=after, cells=at)


_RULES: tuple[Rule, ...] = (
    _pixel_size,
    _direction,
    _flow,
    _reliable,
    _light,
    _drift,
    _density,
    _clumps,
)


def percent(share: float) -> str:
    """Return a share in per cent, with one decimal."""
    return f"{100 * share:.1f} %"


def share_words(share: float) -> str:
    """Return a share that may be very small, in per cent."""
    percent = 100 * share
    if 0 < percent < 0.01:
        return say("quality.under-a-hundredth")
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"
