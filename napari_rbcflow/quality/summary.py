"""The measures of a run in words, one line each, for the report and napari."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from napari_rbcflow.quality import rules
from napari_rbcflow.quality.drift import FIRST_LOOK
from napari_rbcflow.quality.meter import number
from napari_rbcflow.quality.rules import Limits, enough, percent, share_words
from napari_rbcflow.quality.warning import RunWarning, Severity
from napari_rbcflow.sentences import say


@dataclass(frozen=True)
class QualityLine:
    """One measure in words.

    Attributes
    ----------
    name, value, usual : str
        What is measured, its value, and the usual value.
    severity : Severity or None
        The highest of the warnings about it, a note at least if it is not usual; None if all is well.
    """

    name: str
    value: str
    usual: str
    severity: Severity | None


def quality_lines(run: Mapping[str, Any], warnings: Iterable[RunWarning]) -> list[QualityLine]:
    """Return the measures of a run that are known, in words.

    A value outside the usual range that is printed beside it has a note at least. What is hardly ever amiss
    has a line only if it is.

    Parameters
    ----------
    run : mapping
        ``frames``, ``fraction`` and ``quality`` as in ``run.json``; an older session has fewer measures.
    warnings : iterable of RunWarning
        Of the run.
    """
    warnings = list(warnings)
    quality = run.get("quality") or {}
    lines = []
    for row in (*_cells(quality), *_picture(run, quality), *_course(run, quality)):
        severities = {w.severity for w in warnings if w.key in row.keys.split()}
        if row.outside:
            severities.add(Severity.NOTE)
        worst = max(severities, key=[Severity.NOTE, Severity.WARNING].index, default=None)
        if worst is not None or not row.only_amiss:
            lines.append(QualityLine(row.name, row.value, row.usual, worst))
    return lines


class _Row(NamedTuple):
    name: str
    value: str
    usual: str
    outside: bool  # whether the value lies outside the usual range
    keys: str  # of the warnings that are about it
    only_amiss: bool = False  # whether it is left out where all is well


def _cells(quality: Mapping[str, Any]) -> Iterator[_Row]:
    share = number(quality, "reliable_share")
    if share is not None and enough(quality, "tracks_judged", rules.LEAST_TRACKS):
        limits = rules.RELIABLE_SHARE
        usual = say("quality.usual-reliable", **limits.ends)
        keys = "reliable-few reliable-many"
        yield _Row(say("quality.line-reliable"), percent(share), usual, _off(limits, share), keys)
    others = number(quality, "counted_at_other_speeds_share")
    if others is not None and enough(quality, "counted_with_speed", rules.LEAST_RELIABLE):
        limits = rules.OTHER_SPEEDS
        usual = say("quality.usual-up-to-percent", **limits.ends)
        yield _Row(say("quality.line-speeds"), percent(others), usual, _off(limits, others), "speeds")
    followed = number(quality, "followed_share")
    if followed is not None and enough(quality, "objects_detected", rules.LEAST_DETECTED):
        limits = rules.FOLLOWED
        usual, off = say("quality.usual-from-percent", **limits.ends), _off(limits, followed)
        value = f"{100 * min(followed, 1.0):.0f} %"  # one that is hidden for a moment is followed, too
        yield _Row(say("quality.line-followed"), value, usual, off, "flow-nowhere", only_amiss=True)
    cells = number(quality, "cells_per_papers_field")
    if cells is not None and enough(quality, "frames", rules.LEAST_FRAMES):
        limits = rules.PER_FIELD
        usual, keys = say("quality.usual-cells", **limits.ends), "cells-dense cells-sparse no-cell"
        yield _Row(say("quality.line-cells"), f"{cells:.0f}", usual, _off(limits, cells), keys)
    close, chance = number(quality, "neighbour_share"), number(quality, "neighbour_share_by_chance")
    judged = enough(quality, "tracks_judged", rules.LEAST_TRACKS)
    if close is not None and chance is not None and judged:
        limits = rules.clumps_limits(chance)
        usual = say("quality.usual-neighbours", chance=100 * chance, **limits.ends)
        off = _off(limits, close)
        yield _Row(say("quality.line-neighbours"), percent(close), usual, off, "cells-clumped")
    yield from _sizes(quality)


def _sizes(quality: Mapping[str, Any]) -> Iterator[_Row]:
    rim, of_all = number(quality, "rim_radius_um"), number(quality, "rim_radius_of_all_um")
    if rim is not None:
        name, limits, radius = say("quality.line-size"), rules.RIM_RADIUS_UM, rim
    elif of_all is not None and enough(quality, "tracks_judged", rules.LEAST_TRACKS):
        name, limits, radius = say("quality.line-smaller"), rules.RIM_RADIUS_OF_ALL_UM, of_all
    else:
        return
    usual = say("quality.usual-size", **limits.ends)
    yield _Row(name, f"{limits.shown(radius):.1f} µm", usual, _off(limits, radius), "pixel-size")


def _picture(run: Mapping[str, Any], quality: Mapping[str, Any]) -> Iterator[_Row]:
    yield from _flow(quality)
    yield from _light(quality)
    not_analysed = quality.get("not_analysed")
    processed = run["frames"]["processed"]
    if isinstance(not_analysed, Mapping) and processed:
        share = sum(not_analysed.values()) / processed
        yield _none_is_usual(say("quality.line-not-analysed"), share, "frames-not-analysed")


def _flow(quality: Mapping[str, Any]) -> Iterator[_Row]:
    shear, wanted = number(quality, "shear_rate_per_s"), number(quality, "shear_rate_set_per_s")
    speed = number(quality, "speed_um_per_s")
    if not enough(quality, "tracks_reliable", rules.LEAST_RELIABLE):
        return
    if shear is not None and speed is not None and wanted:
        limits = rules.SHEAR.times(wanted)
        value = say("quality.value-shear", shear=shear, speed=speed)
        usual, off = say("quality.usual-shear", **limits.ends), _off(limits, shear)
        yield _Row(say("quality.line-shear"), value, usual, off, "flow-slow flow-fast")
    least, most = number(quality, "speed_least_um_per_s"), number(quality, "speed_most_um_per_s")
    if least and most:
        yield _times(say("quality.line-steady"), most / least, rules.UNSTEADY, "flow-unsteady")


def _light(quality: Mapping[str, Any]) -> Iterator[_Row]:
    grey = number(quality, "light_grey")
    if grey is None:
        return
    limits, off = rules.LIGHT_GREY, _off(rules.LIGHT_GREY, grey)
    black = number(quality, "black_share") or 0.0
    # A picture may be too dark by its black parts alone.
    of_black = _off(rules.BLACK, black) and not off
    keys = "light-bright" if of_black else "light-bright light-dark"
    usual = say("quality.usual-light", **limits.ends)
    yield _Row(say("quality.line-light"), say("quality.value-light", grey=grey), usual, off, keys)
    for name, share, limits, keys in (
        ("quality.line-black", black, rules.BLACK, "light-dark" if of_black else ""),
        ("quality.line-white", number(quality, "saturated_share"), rules.SATURATED, "light-saturated"),
        ("quality.line-flicker", number(quality, "flicker_share"), rules.FLICKER, "light-flicker"),
    ):
        if share is not None:
            usual, off = say("quality.usual-up-to-percent", **limits.ends), _off(limits, share)
            yield _Row(say(name), share_words(share, limits.decimals), usual, off, keys, only_amiss=True)
    falloff = number(quality, "light_falloff_share")
    if falloff is not None and enough(quality, "frames", rules.LEAST_FRAMES):
        limits, value = rules.FALLOFF, f"{100 * falloff:.0f} %"
        usual, off = say("quality.usual-up-to-percent", **limits.ends), _off(limits, falloff)
        yield _Row(say("quality.line-falloff"), value, usual, off, "light-uneven", only_amiss=True)
    jump = number(quality, "light_change_in_a_second_share") or 0.0
    suddenly = _off(rules.LIGHT_JUMP, jump)
    usual = say("quality.usual-up-to-percent", **rules.LIGHT_JUMP.ends)
    keys = "light-changed" if suddenly else ""
    yield _Row(say("quality.line-jump"), f"{100 * jump:.0f} %", usual, suddenly, keys, only_amiss=True)
    least, most = number(quality, "light_least_grey"), number(quality, "light_most_grey")
    if least and most:
        keys = "" if suddenly else "light-changed"
        yield _times(say("quality.line-drift"), most / least, rules.LIGHT_DRIFT, keys)


def _course(run: Mapping[str, Any], quality: Mapping[str, Any]) -> Iterator[_Row]:
    frames = run["frames"]
    lost = sum(frames["missed"].values()) + sum(
        n for reason, n in frames["dropped"].items() if reason != "after-stop"
    )
    if frames["received"]:
        share = lost / (frames["received"] + sum(frames["missed"].values()))
        yield _none_is_usual(say("quality.line-lost"), share, "frames-lost")
    # Before the first test of `drift` nothing is known.
    change = quality.get("fraction_change")
    name, usual = say("quality.line-course"), say("quality.usual-course")
    keys = "fraction-drifts fraction-left-interval"
    if isinstance(change, Mapping):
        before, after = 100 * change["before"], 100 * change["after"]
        yield _Row(name, say("quality.value-course", before=before, after=after), usual, True, keys)
    elif "fraction_change" in quality and run["fraction"]["n"] >= FIRST_LOOK:
        yield _Row(name, say("quality.value-no-change"), usual, False, keys)


def _none_is_usual(name: str, share: float, keys: str) -> _Row:
    usual = say("quality.usual-none")
    return _Row(name, share_words(share, _DECIMALS), usual, share > 0, keys)


def _times(name: str, ratio: float, limits: Limits, keys: str) -> _Row:
    usual = say("quality.usual-up-to-times", **limits.ends)
    value = say("quality.value-times", times=limits.shown(ratio))
    return _Row(name, value, usual, _off(limits, ratio), keys, only_amiss=True)


_DECIMALS = 2  # of lost frames, in per cent


def _off(limits: Limits, value: float) -> bool:
    return limits.broken_by(value) != 0
