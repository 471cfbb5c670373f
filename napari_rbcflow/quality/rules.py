"""What the measures of a run's quality say, in plain words with what to do, and from where on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from napari_rbcflow.quality.meter import number
from napari_rbcflow.quality.warning import RunWarning, Severity, sorted_by_weight


@dataclass(frozen=True)
class Limits:
    """The range in which nothing is said, and the wider one beyond which the warning is grave.

    Attributes
    ----------
    note, warning : (float, float)
        Lowest and highest value without a note, and without a grave warning.
    """

    note: tuple[float, float]
    warning: tuple[float, float]

    def broken_by(self, value: float) -> int:
        """Return how badly, by its sign too low or too high: 0, 1 for a note, 2 for a grave warning."""
        if value < self.note[0]:
            return -2 if value < self.warning[0] else -1
        if value > self.note[1]:
            return 2 if value > self.warning[1] else 1
        return 0


INFINITE = float("inf")

LOST = 0.01
"""Share of all frames, dropped or missed, from which on the loss is grave: tracks of about 30 frames are
then cut by a lost frame in a quarter of the cases."""
NOT_ANALYSED = 0.05
"""Share of the frames without light, focus or background, from which on that is grave: beyond a moment."""
FEW_CELLS = 30
"""Below that the interval spans most of what a patient's fraction could be."""
RELIABLE_SHARE = Limits(note=(0.04, 0.25), warning=(0.03, INFINITE))
"""Stage 1 lets 1.4 % of the unreliable through (its card): where 4 % pass, that is a third of what passes,
where 3 % pass nearly half, and then the number is no longer one of reliable cells. In the paper 3.4 % of all
are reliable, in its densest set 5; here tracks that are too pale to be judged are not among all."""
SHEAR = Limits(note=(0.75, 1.4), warning=(0.6, 1.67))
"""Measured over set shear rate. Cells of the published crops move 20 to 30 px a frame, where 22 are expected:
0.9 to 1.4. Beyond, the flow or the focus's height is not what was set, and the fraction depends on both."""
UNSTEADY = Limits(note=(0.0, 1.25), warning=(0.0, 1.67))
"""Fastest over slowest 40 reliable cells in a row."""
PER_FIELD = Limits(note=(40.0, 300.0), warning=(0.0, 500.0))
"""Cells in the paper's field; it has 100 to 250."""
CLUMPS = Limits(note=(0.0, 1.9), warning=(0.0, 2.4))
"""Crops with a neighbour over what chance would bring at that density."""
CLUMPS_LEAST_SHARE = 0.1
LIGHT_GREY = Limits(note=(50.0, 195.0), warning=(20.0, INFINITE))
"""A rim is 9 % darker than the field: 2 grey levels at 20. A bright middle is 30 % brighter: 255 at 195."""
SATURATED = Limits(note=(0.0, 0.0002), warning=(0.0, 0.0005))
"""Share of the picture's pixels at 255: they are the middles of cells before they are the field."""
BLACK = Limits(note=(0.0, 0.001), warning=(0.0, 0.02))
FLICKER = Limits(note=(0.0, 0.02), warning=(0.0, INFINITE))
LIGHT_JUMP = 0.1
LIGHT_DRIFT = 1.3
RIM_RADIUS_UM = Limits(note=(2.9, 3.8), warning=(2.75, 4.0))
"""Of reliable cells, median. Published crops: 3.1 (flipping) to 3.6 um (tank-treading)."""
RIM_RADIUS_OF_ALL_UM = Limits(note=(2.4, 3.6), warning=(2.4, 3.6))
"""Of all cells, the tenth part that is smallest; told where there are too few reliable ones."""
CHANGE = 0.05
"""Of the fraction within a run: the half-width that a run usually asks for."""
LOST_TRACKS = 0.5
"""Share of tracks that were lost within a few frames."""
LATE_LABELS_S = 2.0
"""From which on it is told that labels come late: ten times what they take on a computer that keeps up."""

LEAST_TRACKS = 300
LEAST_RELIABLE = 20
LEAST_FRAMES = 120


STAYS_S = 10.0
"""That a warning stays after its cause was seen last."""
_REWORDED_EVERY_S = 5.0
"""Numbers in a sentence change no more often."""


@dataclass(slots=True)
class _Stood:
    warning: RunWarning
    last_true_s: float
    worded_s: float
    grave_s: float = 0.0
    worst: RunWarning | None = None


class Standing:
    """Which warnings stand, as somebody looks at a run again and again, in camera time."""

    def __init__(self) -> None:
        self._stood: dict[str, _Stood] = {}
        self._looked_s: float | None = None

    def look(self, warnings: Iterable[RunWarning], now_s: float) -> tuple[RunWarning, ...]:
        """Take in what is true now, and return what stands, grave warnings first.

        Parameters
        ----------
        warnings : iterable of RunWarning
        now_s : float
            Seconds, never less than before.
        """
        since = 0.0 if self._looked_s is None else max(0.0, now_s - self._looked_s)
        self._looked_s = now_s
        for warning in sorted_by_weight(warnings)[::-1]:  # grave ones last, so that they overrule
            stood = self._stood.get(warning.key)
            if stood is None:
                self._stood[warning.key] = stood = _Stood(warning, now_s, now_s)
            elif self._is_new(stood, warning, now_s):
                stood.warning, stood.worded_s = warning, now_s
            stood.last_true_s = now_s
            if warning.grave:
                stood.grave_s += since
                stood.worst = warning
        return self.standing

    @staticmethod
    def _is_new(stood: _Stood, warning: RunWarning, now_s: float) -> bool:
        if not Standing._stands(stood, now_s) or (warning.grave and not stood.warning.grave):
            return True
        # A grave warning that became a mild one waits too: at its limit it would come and go.
        return now_s - stood.worded_s >= (
            _REWORDED_EVERY_S if warning.grave is stood.warning.grave else STAYS_S
        )

    @staticmethod
    def _stands(stood: _Stood, now_s: float) -> bool:
        return now_s - stood.last_true_s <= STAYS_S

    @property
    def standing(self) -> tuple[RunWarning, ...]:
        """What stands since the last look."""
        now = self._looked_s or 0.0
        return tuple(sorted_by_weight(s.warning for s in self._stood.values() if self._stands(s, now)))

    def passed(self, told: Iterable[RunWarning], seconds: float) -> list[RunWarning]:
        """Return the grave warnings that stood for a time, but of which the whole run says nothing.

        Parameters
        ----------
        told : iterable of RunWarning
            What is said of the whole run.
        seconds : float
            Its length.

        Returns
        -------
        list of RunWarning
            Grave where they stood for `GRAVE_SHARE` of the run, else notes.
        """
        known = {w.key for w in told if w.grave}
        past = []
        for key, stood in self._stood.items():
            if stood.worst is None or key in known or stood.grave_s < LEAST_S:
                continue
            grave = stood.grave_s >= GRAVE_SHARE * max(seconds, LEAST_S)
            past.append(
                RunWarning(
                    key,
                    Severity.WARNING if grave else Severity.NOTE,
                    f"For {stood.grave_s:.0f} of {seconds:.0f} seconds: {stood.worst.sentence}",
                )
            )
        return past


LEAST_S = 5.0
GRAVE_SHARE = 0.2
"""Of a run, from which on what stood for a time is grave for the whole."""


Figures = Mapping[str, Any]
Rule = Callable[[Figures], Iterator[RunWarning]]

NOTE, WARNING = Severity.NOTE, Severity.WARNING


def warnings_of_figures(figures: Figures) -> list[RunWarning]:
    """Return what the measures of ``quality`` say; nothing of those that are not there."""
    return [warning for rule in _RULES for warning in rule(figures)]


def _severity(broken: int) -> Severity:
    return WARNING if abs(broken) > 1 else NOTE


def _enough(figures: Figures, name: str, least: float) -> bool:
    return (number(figures, name) or 0.0) >= least


def _reliable(figures: Figures) -> Iterator[RunWarning]:
    share, judged = number(figures, "reliable_share"), number(figures, "tracks_judged")
    if share is None or judged is None or judged < LEAST_TRACKS:
        return
    # Three standard deviations: chance alone must not say it.
    spread = 3 * (max(share, 1 / judged) * (1 - share) / judged) ** 0.5
    low = RELIABLE_SHARE.broken_by(min(share + spread, RELIABLE_SHARE.note[0]))
    if low < 0:
        yield RunWarning(
            "reliable-few",
            _severity(low),
            f"Only {percent(share)} of the cells could be judged, where 4 to 8 % are usual: where so few are"
            " sharp and alone, many of those counted may be wrongly let through. Set the focus to 60 µm above"
            " the wall, clean the chamber, and measure again.",
        )
    elif RELIABLE_SHARE.broken_by(share) > 0:
        yield RunWarning(
            "reliable-many",
            NOTE,
            f"{percent(share)} of the cells were judged reliable, where 4 to 8 % are usual. Look at some of"
            " the cells that were counted.",
        )


def _light(figures: Figures) -> Iterator[RunWarning]:
    grey = number(figures, "light_grey")
    if grey is None or not _enough(figures, "frames", LEAST_FRAMES):
        return
    level = LIGHT_GREY.broken_by(grey)
    white, black = number(figures, "saturated_share") or 0.0, number(figures, "black_share") or 0.0
    saturated = SATURATED.broken_by(white)
    if saturated > 0:
        yield RunWarning(
            "light-saturated",
            _severity(saturated),
            f"The picture is too bright: {share_words(white)} of it is pure white, first of all the middles"
            " of cells, which the networks need. Lower the lamp or the exposure until no cell is white, and"
            " measure again.",
        )
    elif level > 0:
        yield RunWarning(
            "light-bright",
            _severity(level),
            f"The picture is bright ({grey:.0f} of 255): bright cells may become pure white. Lower the lamp"
            " or the exposure.",
        )
    if level < 0 or BLACK.broken_by(black) > 0:
        yield RunWarning(
            "light-dark",
            _severity(min(level, -BLACK.broken_by(black))),
            f"The picture is too dark ({grey:.0f} of 255): faint cells are overlooked. Raise the lamp or the"
            " exposure until the field is at 100 to 150.",
        )
    flicker = number(figures, "flicker_share") or 0.0
    if FLICKER.broken_by(flicker):
        yield RunWarning(
            "light-flicker",
            NOTE,
            f"The light flickers by {percent(flicker)} from frame to frame. Use a lamp on direct current.",
        )
    least, most = number(figures, "light_least_grey"), number(figures, "light_most_grey")
    jump = number(figures, "light_change_in_a_second_share") or 0.0
    if least and most and (jump > LIGHT_JUMP or most / least > LIGHT_DRIFT):
        how = "at a stroke" if jump > LIGHT_JUMP else "slowly"
        yield RunWarning(
            "light-changed",
            NOTE,
            f"The light changed {how} during the run, between {least:.0f} and {most:.0f} of 255. Leave lamp"
            " and camera alone while a run goes on, and shield it from other light.",
        )


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
    said = f" ({2 * rim:.1f} µm from rim to rim, where 6 to 7.5 are usual)" if rim is not None else ""
    yield RunWarning(
        "pixel-size",
        _severity(off),
        f"The cells look too {'small' if off < 0 else 'large'}{said}: the pixel size is probably wrong, and"
        " the networks then judge wrongly. Check pixel size, objective and binning, and measure again.",
    )


def _flow(figures: Figures) -> Iterator[RunWarning]:
    shear, wanted = number(figures, "shear_rate_per_s"), number(figures, "shear_rate_set_per_s")
    if not _enough(figures, "tracks_reliable", LEAST_RELIABLE):
        return
    if shear is not None and wanted:
        off = SHEAR.broken_by(shear / wanted)
        if off:
            slow = off < 0
            yield RunWarning(
                "flow-slow" if slow else "flow-fast",
                _severity(off),
                f"The cells flow too {'slowly' if slow else 'fast'}: as if the shear rate at the wall were"
                f" {shear:.1f} per second instead of {wanted:g}. How many cells tank-tread depends on it."
                f" Check the pump's rate{' and for leaks and bubbles' if slow else ''}, that the focus stands"
                f" {number(figures, 'focus_height_um') or 60:.0f} µm above the wall, and the frame rate; then"
                " measure again.",
            )
    least, most = number(figures, "speed_least_um_per_s"), number(figures, "speed_most_um_per_s")
    if least and most and (unsteady := UNSTEADY.broken_by(most / least)):
        yield RunWarning(
            "flow-unsteady",
            _severity(unsteady),
            f"The flow was not steady: cells in focus moved at {least:,.0f} to {most:,.0f} µm/s. Wait until"
            " the pump runs evenly, remove bubbles, do not touch the focus, and measure again.",
        )


def _direction(figures: Figures) -> Iterator[RunWarning]:
    share = number(figures, "too_short_share")
    if share is not None and share > LOST_TRACKS and _enough(figures, "tracks", 8):
        yield RunWarning(
            "flow-nowhere",
            WARNING,
            f"{percent(share)} of the tracks were lost within a few frames: cells do not move as expected."
            " Check that the set direction of flow is that of the picture, that they flow along its long"
            " side, and the frame rate.",
        )


def _density(figures: Figures) -> Iterator[RunWarning]:
    cells, seen = number(figures, "cells_per_papers_field"), number(figures, "cells_per_frame")
    if cells is None or seen is None or not _enough(figures, "frames", LEAST_FRAMES):
        return
    dense = PER_FIELD.broken_by(cells)
    if dense > 0:
        yield RunWarning(
            "cells-dense",
            _severity(dense),
            f"Too many cells: {cells:.0f} in a field of 830 x 655 µm, where 100 to 250 are usual. They hide"
            " each other. Dilute the sample further.",
        )
    elif dense < 0 and _enough(figures, "tracks", 1):
        yield RunWarning(
            "cells-sparse",
            NOTE,
            f"Few cells: {cells:.0f} in a field of 830 x 655 µm, where 100 to 250 are usual. The number is"
            " not wrong, but the run takes long. Dilute the sample less.",
        )


def _clumps(figures: Figures) -> Iterator[RunWarning]:
    share, chance = number(figures, "neighbour_share"), number(figures, "neighbour_share_by_chance")
    if not share or not chance or not _enough(figures, "tracks_judged", LEAST_TRACKS):
        return
    clumped = CLUMPS.broken_by(share / chance)
    if clumped > 0 and share > CLUMPS_LEAST_SHARE:
        yield RunWarning(
            "cells-clumped",
            _severity(clumped),
            f"Cells stick together: in {percent(share)} of the pictures another cell stands close by, where"
            f" chance would bring {percent(chance)}. Mix the sample gently anew, and measure again.",
        )


def _drift(figures: Figures) -> Iterator[RunWarning]:
    change = figures.get("fraction_change")
    if not isinstance(change, Mapping):
        return
    before, after, at = number(change, "before"), number(change, "after"), number(change, "at_cell")
    if before is None or after is None or at is None:
        return
    yield RunWarning(
        "fraction-drifts",
        WARNING if abs(after - before) >= CHANGE else NOTE,
        f"The fraction changed within the run: {percent(before)} of the first {at:,.0f} cells counted,"
        f" {percent(after)} of those after. Chance does this in under one run in a hundred. The sample, the"
        " flow or the focus changed: check them, and measure again with a fresh sample.",
    )


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
    """Return a share with one decimal, as per cent."""
    return f"{100 * share:.1f} %"


def share_words(share: float) -> str:
    """Return a share that may be very small, as per cent."""
    percent = 100 * share
    if 0 < percent < 0.01:
        return "under 0.01 %"
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"
