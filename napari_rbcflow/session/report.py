"""``report.html``: one page for whoever acts on the number."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_rbcflow.conventions import LEAST_FRAMES, Label
from napari_rbcflow.estimate.tally import PIECE
from napari_rbcflow.ring.disk import replace_file
from napari_rbcflow.session import figures
from napari_rbcflow.session.grave import grave_warnings, percent
from napari_rbcflow.session.reading import Session
from napari_rbcflow.session.report_by_hand import NOTHING_BY_HAND, ByHand
from napari_rbcflow.session.style import STYLE

_ENDS = {
    "reliable": "The run stopped by itself: enough cells had been counted.",
    "half-width": "The run stopped by itself: the interval was narrow enough.",
    "seconds": "The run stopped by itself: the set time was over.",
    "tracks": "The run stopped by itself: enough tracks had been seen.",
    "baseline": "The run stopped by itself: the interval lay wholly on one side of the patient's baseline.",
    "source-ended": "The movie or the camera's sequence came to its end.",
    "user": "A person stopped the run.",
}
_METHODS = {
    "wilson": "Wilson's interval",
    "fixed-width": "fixed-width sequential interval",
    "anytime": "interval that holds whenever one stops",
}
_REASONS = {
    "queue-full": "this computer could not keep up",
    "after-stop": "came after the stop",
    "run-failed": "left when the run failed",
    "image-number": "gap in the camera's numbering",
    "time-gap": "gap in the camera's time",
    "overflow": "the camera's buffer overflowed",
}
_QUALITY = {"reliable_share": "share of reliable tracks"}


def write_report(folder: Path, run: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` into a session folder.

    Parameters
    ----------
    folder : Path
    run : mapping, optional
        What ``run.json`` holds, or is about to.

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
    if run is None:
        from napari_rbcflow.session.runfile import read_run

        run = read_run(Path(folder))
    session = Session(Path(folder), dict(run))
    page = render(dict(run), session.cells, ByHand.of(session))
    replace_file(path, page.encode(errors="backslashreplace"))
    return path


def render(run: Mapping[str, Any], cells: pd.DataFrame, by_hand: ByHand = NOTHING_BY_HAND) -> str:
    """Return the page.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds.
    cells : DataFrame
        ``cells.csv`` in its order.
    by_hand : ByHand
        What persons changed.
    """
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
{_warnings(run)}
<section class="top">
{_number(run, by_hand)}
{_ending(run, cells)}
</section>
<section class="pair">
{_curve(run, cells)}
{_speeds(cells)}
</section>
<section class="three">
{_cells(run, cells)}
{_frames(run)}
{_quality(run, cells)}
</section>
{_how(run, by_hand)}
{_settings(run)}
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


def _warnings(run: Mapping[str, Any]) -> str:
    said = [f'<li class="grave"><b>Warning.</b> {escape(w)}</li>' for w in grave_warnings(run)]
    said += [f'<li class="mild"><b>Note.</b> {escape(str(w))}</li>' for w in run["warnings"]]
    return f'<ul class="warnings">{"".join(said)}</ul>' if said else ""


def _number(run: Mapping[str, Any], by_hand: ByHand) -> str:
    fraction = run["fraction"]
    estimate, low, high = fraction["estimate"], fraction["low"], fraction["high"]
    if estimate is None or low is None or high is None:
        said = "<p class='big none'>No number</p><p>No cell could be counted.</p>"
        return f"<div class='number doubtful'>{said}{by_hand.number()}</div>"
    method = escape(_METHODS.get(fraction["method"], str(fraction["method"])))
    grave = bool(grave_warnings(run))
    said = (
        f"<div class='number{' doubtful' if grave else ''}'><p class='big'>{percent(estimate)}</p>"
        "<p>of the cells judged reliable<br>were tank-treading</p>"
        f"<p class='interval'><b>{100 * low:.1f} to {percent(high)}</b></p>"
        f"<p>{100 * fraction['level']:g} % interval, from {fraction['n']:,} cells<br>({method})</p>"
    )
    if grave:
        said += "<p class='doubt'>Read the warning above first.</p>"
    corrected = run.get("fraction_corrected") or {}
    if all(corrected.get(key) is not None for key in ("estimate", "low", "high")):
        said += (
            "<p class='corrected'>Corrected for the networks' known errors:"
            f" <b>{percent(corrected['estimate'])}</b> ({100 * corrected['low']:.1f} to"
            f" {percent(corrected['high'])}, {escape(str(corrected['method']))})</p>"
        )
    else:
        said += (
            "<p class='corrected'>The interval covers the chance of counting only: it is not corrected for"
            f" errors of the networks{_precision(run)}.</p>"
        )
    return f"{said}{by_hand.number()}</div>"


def _precision(run: Mapping[str, Any]) -> str:
    model = (run.get("models") or {}).get("stage1") or {}
    share, least = model.get("precision_in_real_life"), model.get("precision_in_real_life_at_least")
    if not isinstance(share, float):
        return ""
    to = f" (or up to {100 * (1 - least):.0f})" if isinstance(least, float) else ""
    return (
        f". Where 3.4 in 100 tracks are reliable, about {100 * (1 - share):.0f}{to} in 100 cells that stage 1"
        " lets through would not be"
    )


def _undecided(cells: pd.DataFrame) -> int:
    return int((cells["reason"] == "undecided").sum())


def _ending(run: Mapping[str, Any], table: pd.DataFrame) -> str:
    cells, fraction = run["cells"], run["fraction"]
    untold = _undecided(table)
    also = f"; {untold:,} it could not tell: they are not counted" if untold else ""
    reason = run["stop_reason"]
    if run["status"] == "failed":
        ended = "The run failed; what is shown was kept up to then."
    elif run["status"] == "running":
        ended = "The run has not ended."
    else:
        ended = _ENDS.get(str(reason), str(reason))
    return f"""<div class="words">
<h2>What this is</h2>
<p>{escape(ended)}</p>
<p><b>{cells["tracked"]:,}</b> cells were followed through the field. Two neural networks looked at each: the
first said whether it was sharp and alone enough to be judged ({fraction["n"] + untold:,} were), the second
whether its membrane circulated (<b>tank-treading: {cells["tank_treading"]:,}</b>, the supple cells) or it
flipped over as a whole (<b>flipping: {cells["flipping"]:,}</b>, the stiff ones){also}.</p>
<p>Only cells that crossed the plane of focus, for {LEAST_FRAMES} frames or more and before the stop, are
counted; each once; the faster cross more often. A stiff cell that did not happen to flip while it was watched
looks like a supple one.</p>
</div>"""


def _curve(run: Mapping[str, Any], cells: pd.DataFrame) -> str:
    counted = cells["label"][cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])]
    if counted.empty:
        return ""
    drawn = figures.curve((counted == Label.TANK_TREADING).to_numpy(bool), float(run["fraction"]["level"]))
    return (
        f"<figure>{drawn}<figcaption>The fraction as cells were counted. Band: Wilson's interval at each"
        " number of cells. It should settle; if it drifts, the sample changed during the run.</figcaption>"
        "</figure>"
    )


def _speeds(cells: pd.DataFrame) -> str:
    groups = [
        ("tank-treading", figures.TANK_TREADING_COLOUR, _speed(cells, Label.TANK_TREADING)),
        ("flipping", figures.FLIPPING_COLOUR, _speed(cells, Label.FLIPPING)),
    ]
    if not sum(len(values) for _, _, values in groups):
        return ""
    keys = " ".join(f'<span class="key" style="background:{c}"></span>{n}' for n, c, _ in groups)
    return (
        f"<figure>{figures.histogram(groups, 'speed, µm/s')}<figcaption>Counted cells by speed: {keys}."
        " Cells in the plane of focus should lie in one hill.</figcaption></figure>"
    )


def _speed(cells: pd.DataFrame, label: Label) -> np.ndarray[Any, np.dtype[np.float64]]:
    return cells["speed_um_per_s"][cells["label"] == label].dropna().to_numpy(np.float64)


def _cells(run: Mapping[str, Any], table: pd.DataFrame) -> str:
    cells, untold = run["cells"], _undecided(table)
    pieces = int((table["reason"] == PIECE).sum())
    rows = {
        "followed in all": cells["tracked"],
        "tank-treading (counted)": cells["tank_treading"],
        "flipping (counted)": cells["flipping"],
        "blurred or not alone": cells["unreliable"] - untold,
        "of neither kind surely enough": untold,
        f"seen in under {LEAST_FRAMES} frames": cells["too_short"],
        "perhaps another piece of a counted one": pieces,
        "open at the stop, or after it": cells["uncounted"] - pieces,
    }
    return _table("Cells", {k: f"{v:,}" for k, v in rows.items()})


def _frames(run: Mapping[str, Any]) -> str:
    frames = run["frames"]
    rows = {"received": f"{frames['received']:,}", "analysed": f"{frames['processed']:,}"}
    for kind, said in (("dropped", "not analysed"), ("missed", "never arrived")):
        rows[said] = f"{sum(frames[kind].values()):,}"
        for reason, n in sorted(frames[kind].items()):
            rows[f"– {_REASONS.get(reason, reason)}"] = f"{n:,}"
    return _table("Frames", rows)


def _quality(run: Mapping[str, Any], cells: pd.DataFrame) -> str:
    tracked = run["cells"]["tracked"]
    rows: dict[str, str] = {}
    if tracked:
        rows["reliable, of all followed"] = percent(run["fraction"]["n"] / tracked)
        rows["frames a track, median"] = f"{cells['frames'].median():.0f}"
    counted = cells[cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])]
    if len(counted):
        rows["speed of the counted, median"] = f"{counted['speed_um_per_s'].median():,.0f} µm/s"
    for key, value in run.get("quality", {}).items():
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            rows[_QUALITY.get(key, key.replace("_", " "))] = (
                f"{value:.4g}" if isinstance(value, float) else str(value)
            )
    latency = run["latency_ms"]["p95"]
    if latency is not None:
        rows["95 % of labels within"] = f"{latency:.0f} ms"
    return _table("Quality", rows)


def _how(run: Mapping[str, Any], by_hand: ByHand) -> str:
    models = run["models"]

    def named(stage: str) -> str:
        model = models.get(stage, {})
        name, code = escape(str(model.get("name", "?"))), escape(str(model.get("hash", "?"))[:16])
        return f"<b>{name}</b> <code>{code}</code>"

    return (
        '<p class="how"><b>How a label is made.</b> Crops of 31 x 31 px around each cell, one a frame, go to'
        f" stage 1 ({named('stage1')}: reliable or not) and, if reliable, to stage 2 ({named('stage2')}:"
        f" tank-treading or flipping). {by_hand.how()} The code after a name is the"
        " beginning of the model file's hash.</p>"
    )


def _settings(run: Mapping[str, Any]) -> str:
    parameters = dict(run["parameters"])
    details = parameters.pop("source_details", {})
    parameters.pop("source_warnings", None)
    items = [(k, v) for k, v in {**parameters, **details}.items() if v not in (None, "", [], {})]
    said = " · ".join(f"{escape(str(k).replace('_', ' '))} <b>{escape(_plain(v))}</b>" for k, v in items)
    versions = " · ".join(f"{escape(str(k))} {escape(str(v))}" for k, v in run["versions"].items() if v)
    return f'<p class="small"><b>Settings.</b> {said}</p><p class="small"><b>Versions.</b> {versions}</p>'


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(title: str, rows: Mapping[str, str]) -> str:
    said = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<div><h2>{title}</h2><table>{said}</table></div>"
