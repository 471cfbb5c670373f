"""The measures of a run in words: a line each, for report and napari."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from napari_rbcflow.quality.drift import FIRST_LOOK
from napari_rbcflow.quality.meter import number
from napari_rbcflow.quality.rules import percent, share_words
from napari_rbcflow.quality.warning import RunWarning, Severity


@dataclass(frozen=True)
class QualityLine:
    """One measure in words.

    Attributes
    ----------
    name, said, usual : str
        What is measured, how it is, how it usually is.
    severity : Severity or None
        Of the gravest warning that it led to; None where all is well.
    """

    name: str
    said: str
    usual: str
    severity: Severity | None

    @property
    def verdict(self) -> str:
        """``well``, ``note`` or ``warning``."""
        return "well" if self.severity is None else str(self.severity)


def quality_lines(run: Mapping[str, Any], warnings: Iterable[RunWarning]) -> list[QualityLine]:
    """Return the measures of a run that are known, in words.

    Parameters
    ----------
    run : mapping
        ``frames``, ``fraction`` and ``quality`` as in ``run.json``; an older session has few measures.
    warnings : iterable of RunWarning
        What is said of it.
    """
    said = list(warnings)

    def line(name: str, words: str, usual: str, *keys: str) -> QualityLine:
        of_it = [w.severity for w in said if w.key.startswith(keys)]
        worst = Severity.WARNING if Severity.WARNING in of_it else of_it[0] if of_it else None
        return QualityLine(name, words, usual, worst)

    quality = run.get("quality") or {}
    return [line(*parts) for parts in (*_cells(quality), *_picture(run, quality), *_course(run, quality))]


Parts = tuple[str, ...]


def _cells(quality: Mapping[str, Any]) -> Iterator[Parts]:
    share = number(quality, "reliable_share")
    if share is not None:
        yield "cells sharp and alone", percent(share), "4 to 8 %", "reliable"
    cells = number(quality, "cells_per_papers_field")
    if cells is not None:
        yield "cells in 830 x 655 µm", f"{cells:.0f}", "100 to 250", "cells-dense", "cells-sparse"
    close, chance = number(quality, "neighbour_share"), number(quality, "neighbour_share_by_chance")
    if close is not None and chance is not None:
        yield "another cell close by", percent(close), f"{percent(chance)} by chance", "cells-clumped"
    rim, of_all = number(quality, "rim_radius_um"), number(quality, "rim_radius_of_all_um")
    if rim is not None:
        yield "size of a cell, rim to rim", f"{2 * rim:.1f} µm", "6 to 7.5 µm", "pixel-size"
    elif of_all is not None:
        yield "size of the smaller cells", f"{2 * of_all:.1f} µm", "5 to 7 µm", "pixel-size"


def _picture(run: Mapping[str, Any], quality: Mapping[str, Any]) -> Iterator[Parts]:
    shear, wanted = number(quality, "shear_rate_per_s"), number(quality, "shear_rate_set_per_s")
    speed = number(quality, "speed_um_per_s")
    if shear is not None and speed is not None and wanted:
        yield (
            "shear rate, by the speed",
            f"{shear:.1f} per s ({speed:,.0f} µm/s)",
            f"{wanted:g} per s",
            "flow",
        )
    grey = number(quality, "light_grey")
    if grey is not None:
        white = number(quality, "saturated_share") or 0.0
        also = f", {share_words(white)} white" if white else ""
        yield "light", f"{grey:.0f} of 255{also}", "100 to 150", "light"
    not_analysed = quality.get("not_analysed")
    processed = run["frames"]["processed"]
    if isinstance(not_analysed, Mapping) and processed:
        share = sum(not_analysed.values()) / processed
        yield "frames dark or out of focus", percent(share), "none", "frames-not-analysed"


def _course(run: Mapping[str, Any], quality: Mapping[str, Any]) -> Iterator[Parts]:
    frames = run["frames"]
    lost = sum(frames["missed"].values()) + sum(
        n for reason, n in frames["dropped"].items() if reason != "after-stop"
    )
    if frames["received"]:
        share = lost / (frames["received"] + sum(frames["missed"].values()))
        yield "frames lost", percent(share), "none", "frames-lost"
    # Before the first look nothing was tested (`drift`).
    change = quality.get("fraction_change")
    if isinstance(change, Mapping):
        words = f"{percent(change['before'])}, then {percent(change['after'])}"
        yield "fraction within the run", words, "no change", "fraction"
    elif "fraction_change" in quality and run["fraction"]["n"] >= FIRST_LOOK:
        yield "fraction within the run", "no change found", "no change", "fraction"
