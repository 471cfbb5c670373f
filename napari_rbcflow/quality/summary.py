"""The measures of a run in words, one line each, for the report and napari."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from napari_rbcflow.quality.drift import FIRST_LOOK
from napari_rbcflow.quality.meter import number
from napari_rbcflow.quality.rules import percent, share_words
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
        The highest of the warnings that it led to; None if there is none.
    """

    name: str
    value: str
    usual: str
    severity: Severity | None


def quality_lines(run: Mapping[str, Any], warnings: Iterable[RunWarning]) -> list[QualityLine]:
    """Return the measures of a run that are known, in words.

    Parameters
    ----------
    run : mapping
        ``frames``, ``fraction`` and ``quality`` as in ``run.json``; an older session has fewer measures.
    warnings : iterable of RunWarning
        Of the run.
    """
    warnings = list(warnings)

    def line(name: str, value: str, usual: str, *keys: str) -> QualityLine:
        severities = [w.severity for w in warnings if w.key.startswith(keys)]
        worst = Severity.WARNING if Severity.WARNING in severities else next(iter(severities), None)
        return QualityLine(name, value, usual, worst)

    quality = run.get("quality") or {}
    return [line(*parts) for parts in (*_cells(quality), *_picture(run, quality), *_course(run, quality))]


Parts = tuple[str, ...]


def _cells(quality: Mapping[str, Any]) -> Iterator[Parts]:
    share = number(quality, "reliable_share")
    if share is not None:
        yield say("quality.line-reliable"), percent(share), say("quality.usual-reliable"), "reliable"
    cells = number(quality, "cells_per_papers_field")
    if cells is not None:
        name, usual = say("quality.line-cells"), say("quality.usual-cells")
        yield name, f"{cells:.0f}", usual, "cells-dense", "cells-sparse"
    close, chance = number(quality, "neighbour_share"), number(quality, "neighbour_share_by_chance")
    if close is not None and chance is not None:
        usual = say("quality.usual-neighbours", chance=100 * chance)
        yield say("quality.line-neighbours"), percent(close), usual, "cells-clumped"
    rim, of_all = number(quality, "rim_radius_um"), number(quality, "rim_radius_of_all_um")
    if rim is not None:
        yield say("quality.line-size"), f"{2 * rim:.1f} µm", say("quality.usual-size"), "pixel-size"
    elif of_all is not None:
        yield say("quality.line-smaller"), f"{2 * of_all:.1f} µm", say("quality.usual-smaller"), "pixel-size"


def _picture(run: Mapping[str, Any], quality: Mapping[str, Any]) -> Iterator[Parts]:
    shear, wanted = number(quality, "shear_rate_per_s"), number(quality, "shear_rate_set_per_s")
    speed = number(quality, "speed_um_per_s")
    if shear is not None and speed is not None and wanted:
        value = say("quality.value-shear", shear=shear, speed=speed)
        yield say("quality.line-shear"), value, say("quality.usual-shear", wanted=wanted), "flow"
    grey = number(quality, "light_grey")
    if grey is not None:
        white = number(quality, "saturated_share")
        value = say("quality.value-light", grey=grey)
        if white:
            value = say("quality.value-light-white", grey=grey, white=share_words(white))
        yield say("quality.line-light"), value, say("quality.usual-light"), "light"
    not_analysed = quality.get("not_analysed")
    processed = run["frames"]["processed"]
    if isinstance(not_analysed, Mapping) and processed:
        share = sum(not_analysed.values()) / processed
        name, usual = say("quality.line-not-analysed"), say("quality.usual-none")
        yield name, percent(share), usual, "frames-not-analysed"


def _course(run: Mapping[str, Any], quality: Mapping[str, Any]) -> Iterator[Parts]:
    frames = run["frames"]
    lost = sum(frames["missed"].values()) + sum(
        n for reason, n in frames["dropped"].items() if reason != "after-stop"
    )
    if frames["received"]:
        share = lost / (frames["received"] + sum(frames["missed"].values()))
        yield say("quality.line-lost"), percent(share), say("quality.usual-none"), "frames-lost"
    # Before the first test of `drift` nothing is known.
    change = quality.get("fraction_change")
    name, usual = say("quality.line-course"), say("quality.usual-course")
    if isinstance(change, Mapping):
        before, after = 100 * change["before"], 100 * change["after"]
        yield name, say("quality.value-course", before=before, after=after), usual, "fraction"
    elif "fraction_change" in quality and run["fraction"]["n"] >= FIRST_LOOK:
        yield name, say("quality.value-no-change"), usual, "fraction"
