"""What the measures of a run's quality say, in plain words with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from napari_rbcflow.quality import limits
from napari_rbcflow.quality.figures import number
from napari_rbcflow.quality.warning import RunWarning, Severity

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
    if share is None or judged is None or judged < limits.LEAST_TRACKS:
        return
    # Three standard deviations: chance alone must not say it.
    spread = 3 * (max(share, 1 / judged) * (1 - share) / judged) ** 0.5
    low = limits.RELIABLE_SHARE.broken_by(min(share + spread, limits.RELIABLE_SHARE.note[0]))
    if low < 0:
        yield RunWarning(
            "reliable-few",
            _severity(low),
            f"Only {percent(share)} of the cells could be judged, where 4 to 8 % are usual: where so few are"
            " sharp and alone, many of those counted may be wrongly let through. Set the focus to 60 µm above"
            " the wall, clean the chamber, and measure again.",
        )
    elif limits.RELIABLE_SHARE.broken_by(share) > 0:
        yield RunWarning(
            "reliable-many",
            NOTE,
            f"{percent(share)} of the cells were judged reliable, where 4 to 8 % are usual. Look at some of"
            " the cells that were counted.",
        )


def _light(figures: Figures) -> Iterator[RunWarning]:
    grey = number(figures, "light_grey")
    if grey is None or not _enough(figures, "frames", limits.LEAST_FRAMES):
        return
    level = limits.LIGHT_GREY.broken_by(grey)
    white, black = number(figures, "saturated_share") or 0.0, number(figures, "black_share") or 0.0
    saturated = limits.SATURATED.broken_by(white)
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
    if level < 0 or limits.BLACK.broken_by(black) > 0:
        yield RunWarning(
            "light-dark",
            _severity(min(level, -limits.BLACK.broken_by(black))),
            f"The picture is too dark ({grey:.0f} of 255): faint cells are overlooked. Raise the lamp or the"
            " exposure until the field is at 100 to 150.",
        )
    flicker = number(figures, "flicker_share") or 0.0
    if limits.FLICKER.broken_by(flicker):
        yield RunWarning(
            "light-flicker",
            NOTE,
            f"The light flickers by {percent(flicker)} from frame to frame. Use a lamp on direct current.",
        )
    least, most = number(figures, "light_least_grey"), number(figures, "light_most_grey")
    jump = number(figures, "light_change_in_a_second_share") or 0.0
    if least and most and (jump > limits.LIGHT_JUMP or most / least > limits.LIGHT_DRIFT):
        how = "at a stroke" if jump > limits.LIGHT_JUMP else "slowly"
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
        return limits.RIM_RADIUS_UM.broken_by(rim)
    if of_all is not None and _enough(figures, "tracks_judged", limits.LEAST_TRACKS):
        return limits.RIM_RADIUS_OF_ALL_UM.broken_by(of_all)
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
    if not _enough(figures, "tracks_reliable", limits.LEAST_RELIABLE):
        return
    if shear is not None and wanted:
        off = limits.SHEAR.broken_by(shear / wanted)
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
    if least and most and (unsteady := limits.UNSTEADY.broken_by(most / least)):
        yield RunWarning(
            "flow-unsteady",
            _severity(unsteady),
            f"The flow was not steady: cells in focus moved at {least:,.0f} to {most:,.0f} µm/s. Wait until"
            " the pump runs evenly, remove bubbles, do not touch the focus, and measure again.",
        )


def _direction(figures: Figures) -> Iterator[RunWarning]:
    share = number(figures, "too_short_share")
    if share is not None and share > limits.LOST_TRACKS and _enough(figures, "tracks", 8):
        yield RunWarning(
            "flow-nowhere",
            WARNING,
            f"{percent(share)} of the tracks were lost within a few frames: cells do not move as expected."
            " Check that the set direction of flow is that of the picture, that they flow along its long"
            " side, and the frame rate.",
        )


def _density(figures: Figures) -> Iterator[RunWarning]:
    cells, seen = number(figures, "cells_per_papers_field"), number(figures, "cells_per_frame")
    if cells is None or seen is None or not _enough(figures, "frames", limits.LEAST_FRAMES):
        return
    dense = limits.PER_FIELD.broken_by(cells)
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
    if not share or not chance or not _enough(figures, "tracks_judged", limits.LEAST_TRACKS):
        return
    clumped = limits.CLUMPS.broken_by(share / chance)
    if clumped > 0 and share > limits.CLUMPS_LEAST_SHARE:
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
        WARNING if abs(after - before) >= limits.CHANGE else NOTE,
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
