"""The page as a whole: its sections in their order, and the file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from napari_rbcflow.ring.disk import replace_file
from napari_rbcflow.session.reading import Session
from napari_rbcflow.session.report import drawings, length, number, quality, small_print, tables
from napari_rbcflow.session.report.corrected import rests_on
from napari_rbcflow.session.report.facts import Facts
from napari_rbcflow.session.runfile import read_run
from napari_rbcflow.session.style import STYLE


def write_report(
    folder: Path, run: Mapping[str, Any] | None = None, cells: pd.DataFrame | None = None
) -> Path:
    """Write ``report.html`` into a session folder.

    Parameters
    ----------
    folder : Path
    run : mapping, optional
        What ``run.json`` holds, or is about to.
    cells : DataFrame, optional
        ``cells.csv``, where it has just been read.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    BadInput
        If `folder` is not a session.
    OSError
    """
    path = Path(folder) / "report.html"
    run = read_run(Path(folder)) if run is None else run
    page = render(Facts.of(Session(Path(folder), dict(run), cells)))
    replace_file(path, page.encode(errors="backslashreplace"))
    return path


def render(facts: Facts) -> str:
    """Return the page."""
    run = facts.run
    name = " · ".join(part for part in (str(run["patient"]), str(run["sample"])) if part) or "unnamed sample"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tank-treading fraction: {escape(name)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><div><p class="kicker">Red blood cells in shear flow: the tank-treading fraction</p>
<h1>{escape(name)}</h1></div><p>{_when(run)}</p></header>
{quality.warnings(facts)}
<section class="top">
{number.number(facts)}
{number.ending(facts)}
</section>
<section class="pair">
{drawings.curve(facts)}
{drawings.speeds(facts)}
</section>
<section class="three">
<div>
{tables.cells(facts)}
{tables.frames(facts)}
</div>
{quality.table(facts)}
</section>
{length.watched(facts)}
{small_print.how(facts)}
{rests_on(run)}
{small_print.settings(facts)}
<footer>For research; not a medical device · every cell counted here can be looked at: cells.csv, tracks.csv
and crops.zarr lie beside this page</footer>
</body>
</html>
"""


def _when(run: Mapping[str, Any]) -> str:
    try:
        started = datetime.fromisoformat(run["started"])
        said = f"{started.day} {started:%B %Y, %H:%M}"
        if run.get("ended"):
            seconds = round((datetime.fromisoformat(run["ended"]) - started).total_seconds())
            said += (
                f" · took {seconds // 60} min {seconds % 60} s" if seconds >= 60 else f" · took {seconds} s"
            )
    except (TypeError, ValueError):
        said = str(run.get("started", ""))
    return escape(f"{said} · {run['parameters'].get('source', '')}")
