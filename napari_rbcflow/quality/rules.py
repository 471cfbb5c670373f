"""Which measures of a run give a warning, and from what value on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from napari_rbcflow.quality.meter import RECENT_S, SHEAR_RANGE, WAYS, number
from napari_rbcflow.quality.warning import RunWarning, Severity, sorted_by_weight
from napari_rbcflow.sentences import say

INFINITE = float("inf")


@dataclass(frozen=True)
class Limits:
    """The usual range, which is printed and gives no note, and the wider one without a grave warning.

    A value is compared as it is printed: `scale` times as large, rounded to `decimals`; None: not rounded.
    """

    note: tuple[float, float]
    warning: tuple[float, float]
    scale: float = 1.0
    decimals: int | None = None

    def shown(self, value: float) -> float:
        return self.scale * value if self.decimals is None else round(self.scale * value, self.decimals)

    def broken_by(self, value: float) -> int:
        """Return 0, 1 for a note or 2 for a grave warning; negative if the value is too low."""
        shown = self.shown(value)
        if shown < self._end(self.note[0]):
            return -2 if shown < self._end(self.warning[0]) else -1
        if shown > self._end(self.note[1]):
            return 2 if shown > self._end(self.warning[1]) else 1
        return 0

    def times(self, factor: float) -> Limits:
        """Return the limits of a value that is so many times as great."""
        note, warning = ((low * factor, high * factor) for low, high in (self.note, self.warning))
        return replace(self, note=note, warning=warning)

    @property
    def ends(self) -> dict[str, Any]:
        """The ends of the usual range as they are printed, for a sentence."""
        return {"low": self._end(self.note[0]), "high": self._end(self.note[1])}

    def _end(self, value: float) -> float:
        return round(self.scale * value, 6)


# Each is the usual range in docs/decisions/quality-and-trend.md, and in the report's table.

LOST = 0.01
"""Share of all frames, dropped or missed, from which the loss is grave: tracks of about 30 frames are then
cut by a lost frame in a quarter of the cases."""
NOT_ANALYSED = 0.05
"""Share of frames without light, focus or background from which that is grave: more than a moment."""
RELIABLE_SHARE = Limits(note=(0.04, 0.1), warning=(0.03, 0.12), scale=100, decimals=1)
"""Stage 1 lets 1.4 % of the unreliable through (its card): if 4 % pass, that is a third of what passes, if 3
% pass nearly half, and then the number is no longer one of reliable cells. In the paper 3.4 % of all are
reliable, in its densest set 5; here tracks that are too pale to be judged are not among all, and simulated
chambers have 6.4 to 8.9 %. If 12 % pass, nearly half of them cannot be in focus."""
OTHER_SPEEDS = Limits(note=(0.0, 0.1), warning=(0.0, 0.25), scale=100, decimals=1)
"""Share of the counted cells at speeds that cells in focus do not have (`SHEAR_RANGE`)."""
FOLLOWED = Limits(note=(0.5, INFINITE), warning=(0.5, INFINITE), scale=100, decimals=0)
"""Share of what stands out as cells do that belongs to a track. Simulated chambers have 90 % and more, 20 to
220 cells in the field, one blurred by 2 px 61 %; with the flow set the wrong way, 2 % and less."""
LEAST_STEPS, STEPS_TIMES = 0.25, 2.5
"""Share of what stands out that moved one way, and how many times as much as any other way."""
SHEAR = Limits(note=SHEAR_RANGE, warning=(0.6, 1.67), decimals=1)
"""Measured over set shear rate. How many cells tank-tread depends on flow and focus."""
UNSTEADY = Limits(note=(0.0, 1.25), warning=(0.0, 1.67), decimals=2)
"""Fastest over slowest 40 reliable cells in a row."""
PER_FIELD = Limits(note=(40.0, 300.0), warning=(0.0, 500.0), decimals=0)
"""Cells in the paper's field; it has 100 to 250."""
CLUMPS = Limits(note=(0.0, 1.9), warning=(0.0, 2.4), scale=100, decimals=1)
"""Crops with a neighbour, over those expected by chance at that density."""
CLUMPS_LEAST_SHARE = 0.1
LIGHT_GREY = Limits(note=(50.0, 195.0), warning=(20.0, INFINITE), decimals=0)
"""A rim is 9 % darker than the field: 2 grey levels at 20. A bright centre is 30 % brighter: 255 at 195."""
SATURATED = Limits(note=(0.0, 0.0002), warning=(0.0, 0.0005), scale=100, decimals=2)
"""Share of the picture's pixels at 255: they are the centres of cells before they are the field."""
BLACK = Limits(note=(0.0, 0.001), warning=(0.0, 0.02), scale=100, decimals=2)
FALLOFF = Limits(note=(0.0, 0.35), warning=(0.0, 0.75), scale=100, decimals=0)
"""Of the light from the brightest to the darkest part. Composed movies and chambers: up to 7 %."""
FLICKER = Limits(note=(0.0, 0.02), warning=(0.0, INFINITE), scale=100, decimals=1)
LIGHT_JUMP = Limits(note=(0.0, 0.1), warning=(0.0, INFINITE), scale=100, decimals=0)
LIGHT_DRIFT = Limits(note=(0.0, 1.3), warning=(0.0, INFINITE), decimals=2)
RIM_RADIUS_UM = Limits(note=(2.9, 3.8), warning=(2.75, 4.0), scale=2, decimals=1)
"""Median of reliable cells, printed as a diameter. Published: 3.1 (flipping) to 3.6 um (tank-treading)."""
RIM_RADIUS_OF_ALL_UM = Limits(note=(2.4, 3.6), warning=(2.4, 3.6), scale=2, decimals=1)
"""Tenth percentile of all cells; used if there are too few reliable ones."""
BLOCK_EDGES = 0.02
"""Neighbours at the border of blocks of 8 x 8 pixels differ by so much more than others. Uncompressed movies
have 0.00, JPEG of quality 95 0.2 (real cells), H.264 as FFmpeg makes it 0.5."""
WOVEN_ROWS = 1.3
"""How far a row differs from its neighbours, over those two rows away, in what moved: in whole frames 0.1 to
1.0, in interlaced ones 1.5 to 3."""
CHANGE = 0.05  # of the fraction within a run: the half-width that a run usually asks for
LATE_LABELS_S = 2.0
"""Delay of labels from which it is reported: ten times the delay on a computer that keeps up."""

# With fewer, a rule says nothing and its row is not shown. In the first seconds only short and fast tracks
# have ended, so no rule may take the length of a track for a sign.
LEAST_TRACKS = 300
LEAST_RELIABLE = 20
LEAST_FRAMES = 120
LEAST_DETECTED = 180  # three a frame in the first second

WARNINGS_A_REVIEW_ANSWERS = frozenset(
    {
        "reliable-few",
        "reliable-many",
        "speeds",
        "few-cells",
        "none-counted",
        "fraction-left-interval",
    }
)
"""Warnings that a person who checks cells answers: the networks may be wrong here, or have counted too few.

The checked cells are drawn from all tracks with known chances, also those that the networks did not count,
so the reviewed fraction is right whatever the networks do (`estimate.review`). The interval that the counted
cells left is the machine's; the review has its own. All other grave warnings say that the movie itself is
bad, or shows two things (``fraction-drifts``): nobody can mend that by looking at its cells.
"""


def clumps_limits(by_chance: float) -> Limits:
    """Return the limits of the share of crops with a neighbour; by chance, so many have one."""

    def end(times: float) -> float:
        return round(max(times * by_chance, CLUMPS_LEAST_SHARE), 3)

    return replace(CLUMPS, note=(0.0, end(CLUMPS.note[1])), warning=(0.0, end(CLUMPS.warning[1])))


STAYS_S = 10.0  # seconds for which a warning stays after its cause was last seen
_REWORDED_EVERY_S = 5.0  # least seconds between changes of the numbers in a sentence
LEAST_S = 5.0  # seconds for which a grave warning must have been true to be reported at the end
GRAVE_SHARE = 0.2  # share of a run from which a warning that has passed is grave for the whole run
FIRST_S = RECENT_S + 5.0
"""A run's first seconds, and as long as "now" still holds them. What is true only then is not told at the
end: the measures of the whole run, which hold them too, decide."""


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
                seen.grave_s += min(since, max(0.0, now_s - FIRST_S))
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

        They are grave if they were active for `GRAVE_SHARE` of its `seconds`, else notes. The first `FIRST_S`
        do not count.
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


def enough(figures: Figures, name: str, least: float) -> bool:
    return (number(figures, name) or 0.0) >= least


def _reliable(figures: Figures) -> Iterator[RunWarning]:
    share, judged = number(figures, "reliable_share"), number(figures, "tracks_judged")
    if share is None or judged is None or judged < LEAST_TRACKS:
        return
    # Chance alone must not give the warning.
    deviation = (max(share, 1 / judged) * (1 - share) / judged) ** 0.5
    usual, ends = RELIABLE_SHARE.note, RELIABLE_SHARE.ends
    low = RELIABLE_SHARE.broken_by(min(share + 3 * deviation, usual[0]))
    high = RELIABLE_SHARE.broken_by(max(share - 2 * deviation, usual[1]))
    if low < 0:
        yield RunWarning.saying("reliable-few", _severity(low), share=100 * share, **ends)
    elif high > 0:
        yield RunWarning.saying("reliable-many", _severity(high), share=100 * share, **ends)


def _speeds(figures: Figures) -> Iterator[RunWarning]:
    share, n = number(figures, "counted_at_other_speeds_share"), number(figures, "counted_with_speed")
    expected = number(figures, "speed_expected_um_per_s")
    if share is None or n is None or n < LEAST_RELIABLE or expected is None:
        return
    deviation = (share * (1 - share) / n) ** 0.5
    off = OTHER_SPEEDS.broken_by(max(share - 2 * deviation, 0.0))
    if off:
        low, high = (expected * end for end in SHEAR_RANGE)
        yield RunWarning.saying("speeds", _severity(off), share=100 * share, low=low, high=high)


def _light(figures: Figures) -> Iterator[RunWarning]:
    grey = number(figures, "light_grey")
    if grey is None or not enough(figures, "frames", LEAST_FRAMES):
        return
    level = LIGHT_GREY.broken_by(grey)
    white, black = number(figures, "saturated_share") or 0.0, number(figures, "black_share") or 0.0
    saturated = SATURATED.broken_by(white)
    if saturated > 0:
        yield RunWarning.saying(
            "light-saturated", _severity(saturated), white=share_words(white, SATURATED.decimals)
        )
    elif level > 0:
        yield RunWarning.saying("light-bright", _severity(level), grey=grey)
    if level < 0 or BLACK.broken_by(black) > 0:
        dark = _severity(min(level, -BLACK.broken_by(black)))
        how = "" if level < 0 else "-black"
        yield RunWarning.saying("light-dark", dark, how, grey=grey, black=share_words(black, BLACK.decimals))
    flicker = number(figures, "flicker_share") or 0.0
    if FLICKER.broken_by(flicker):
        yield RunWarning.saying("light-flicker", NOTE, flicker=100 * flicker)
    least, most = number(figures, "light_least_grey"), number(figures, "light_most_grey")
    jump = number(figures, "light_change_in_a_second_share") or 0.0
    suddenly = LIGHT_JUMP.broken_by(jump)
    if least and most and (suddenly or LIGHT_DRIFT.broken_by(most / least)):
        how = "-suddenly" if suddenly else "-slowly"
        yield RunWarning.saying("light-changed", NOTE, how, least=least, most=most)


def _evenness(figures: Figures) -> Iterator[RunWarning]:
    falloff = number(figures, "light_falloff_share")
    if falloff is None or not enough(figures, "frames", LEAST_FRAMES):
        return
    if off := FALLOFF.broken_by(falloff):
        how = "-grave" if off > 1 else ""
        yield RunWarning.saying("light-uneven", _severity(off), how, falloff=100 * falloff)


def _size(figures: Figures) -> int:
    """Return how far the cells' size is off, as `Limits.broken_by`."""
    rim, of_all = number(figures, "rim_radius_um"), number(figures, "rim_radius_of_all_um")
    if rim is not None:
        return RIM_RADIUS_UM.broken_by(rim)
    if of_all is not None and enough(figures, "tracks_judged", LEAST_TRACKS):
        return RIM_RADIUS_OF_ALL_UM.broken_by(of_all)
    return 0


def _pixel_size(figures: Figures) -> Iterator[RunWarning]:
    off = _size(figures)
    if not off:
        return
    rim = number(figures, "rim_radius_um")
    measured = "" if rim is None else say("quality.rim-to-rim", diameter=2 * rim, **RIM_RADIUS_UM.ends)
    size = "-small" if off < 0 else "-large"
    yield RunWarning.saying("pixel-size", _severity(off), size, measured=measured)


def _flow(figures: Figures) -> Iterator[RunWarning]:
    shear, wanted = number(figures, "shear_rate_per_s"), number(figures, "shear_rate_set_per_s")
    if not enough(figures, "tracks_reliable", LEAST_RELIABLE):
        return
    if shear is not None and wanted and (off := SHEAR.times(wanted).broken_by(shear)):
        key = "flow-slow" if off < 0 else "flow-fast"
        height = number(figures, "focus_height_um") or 60
        yield RunWarning.saying(key, _severity(off), shear=shear, wanted=wanted, height=height)
    least, most = number(figures, "speed_least_um_per_s"), number(figures, "speed_most_um_per_s")
    if least and most and (unsteady := UNSTEADY.broken_by(most / least)):
        yield RunWarning.saying("flow-unsteady", _severity(unsteady), least=least, most=most)


def _direction(figures: Figures) -> Iterator[RunWarning]:
    share = number(figures, "followed_share")
    if share is None or not enough(figures, "objects_detected", LEAST_DETECTED):
        return
    if off := FOLLOWED.broken_by(share):
        seen, wanted = way_of(figures.get("steps")), str(figures.get("flow_set")).rpartition("-")[2]
        if not seen or seen == wanted:
            yield RunWarning.saying("flow-nowhere", _severity(off), share=100 * share)
        elif seen in ("left", "right"):
            other = "left-to-right" if seen == "right" else "right-to-left"
            words = say(f"quality.seen-{seen}")
            yield RunWarning.saying("flow-nowhere", _severity(off), "-backwards", seen=words, other=other)
        else:
            turn = 90 if (seen == "up") is (wanted == "right") else 270
            degrees = (turn + int(number(figures, "rotated_degrees") or 0)) % 360
            words, flow = say(f"quality.seen-{seen}"), say(f"quality.seen-{wanted}")
            values: dict[str, Any] = {"seen": words, "wanted": flow, "degrees": degrees}
            yield RunWarning.saying("flow-nowhere", _severity(off), "-turned", **values)


def way_of(steps: object) -> str:
    """Return which way most cells move (``right``, ``left``, ``down``, ``up``); empty if none stands out."""
    if not isinstance(steps, Mapping):
        return ""
    shares = sorted(((number(steps, way) or 0.0, way) for way in WAYS), reverse=True)
    (most, way), (second, _) = shares[:2]
    return way if most >= LEAST_STEPS and most >= STEPS_TIMES * second else ""


def _density(figures: Figures) -> Iterator[RunWarning]:
    cells, seen = number(figures, "cells_per_papers_field"), number(figures, "cells_per_frame")
    if cells is None or seen is None or not enough(figures, "frames", LEAST_FRAMES):
        return
    dense = PER_FIELD.broken_by(cells)
    if dense > 0:
        yield RunWarning.saying("cells-dense", _severity(dense), cells=cells, **PER_FIELD.ends)
    elif dense < 0 and enough(figures, "tracks", 1):
        yield RunWarning.saying("cells-sparse", NOTE, cells=cells, **PER_FIELD.ends)


def _clumps(figures: Figures) -> Iterator[RunWarning]:
    share, chance = number(figures, "neighbour_share"), number(figures, "neighbour_share_by_chance")
    if not share or not chance or not enough(figures, "tracks_judged", LEAST_TRACKS):
        return
    if clumped := clumps_limits(chance).broken_by(share):
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


def _lossy(figures: Figures) -> Iterator[RunWarning]:
    if codec := figures.get("lossy_codec"):
        yield RunWarning.saying("lossy", WARNING, codec=codec)
    elif (number(figures, "block_edges") or 0.0) > BLOCK_EDGES:
        yield RunWarning.saying("lossy", WARNING, "-blocks")


def _interlaced(figures: Figures) -> Iterator[RunWarning]:
    if (number(figures, "woven_rows") or 0.0) > WOVEN_ROWS:
        yield RunWarning.saying("interlaced", WARNING)


def _grey(figures: Figures) -> Iterator[RunWarning]:
    if values := figures.get("grey_stretched"):
        yield RunWarning.saying("grey-stretched", WARNING, values=values)


_RULES: tuple[Rule, ...] = (
    _lossy,
    _interlaced,
    _grey,
    _pixel_size,
    _direction,
    _flow,
    _speeds,
    _reliable,
    _light,
    _evenness,
    _drift,
    _density,
    _clumps,
)


def percent(share: float) -> str:
    """Return a share in per cent, with one decimal."""
    return f"{100 * share:.1f} %"


def share_words(share: float, decimals: int | None) -> str:
    """Return a share that may be very small, in per cent."""
    decimals = decimals or 0
    rounded = round(100 * share, decimals)
    if share > 0 and not rounded:
        return say("quality.under-a-share", least=10.0**-decimals)
    return f"{rounded:g} %"
