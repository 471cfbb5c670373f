"""``report.html``: one page for whoever acts on the number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.estimate import (
    FRAGMENT,
    OTHER_SPEED,
    TOO_FEW_FRAMES,
    NetworkRates,
    UnseenFlips,
    end_sentence,
    method_words,
)
from napari_rbcflow.quality import REASONS, QualityLine, Severity, quality_lines, warnings_of_run
from napari_rbcflow.ring import replace_file
from napari_rbcflow.session import drawings
from napari_rbcflow.session.counting import (
    by_length,
    corrected_words,
    counts_words,
    least_frames_of,
    unseen_flips,
)
from napari_rbcflow.session.drawings import STYLE
from napari_rbcflow.session.label_edits import CHANGES_FILE, STRUCK_OUT
from napari_rbcflow.session.reader import Session
from napari_rbcflow.session.schema import FractionFigure, grave_warnings, percent, read_run, too_few_words
from napari_rbcflow.types import LEAST_FRAMES, Label

_MARK = 'data-changes="'
"""How a page says with how many changes it was written."""


def shows_changes(folder: Path, n: int) -> bool:
    """Say whether ``report.html`` is there and was written with all `n` changes by hand.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return f'{_MARK}{n}"' in page if n else _MARK not in page


@dataclass(frozen=True)
class ByHand:
    """What persons changed in a session.

    Attributes
    ----------
    changes : int
        Lines of ``changes.csv``, those taken back included.
    names : str
        Who made them.
    kinds : tuple of str
        "2 struck out", ...: the cells whose label is another than the machine's.
    cells : int
        How many those are.
    figure : FractionFigure or None
        The fraction with them.
    fault : str
        Why the changes cannot be believed; empty if they can.
    """

    changes: int = 0
    names: str = ""
    kinds: tuple[str, ...] = ()
    cells: int = 0
    figure: FractionFigure | None = None
    fault: str = ""

    @classmethod
    def of(cls, session: Session) -> ByHand:
        """Take it from a session; a damaged file becomes a fault, as there must be a report all the same."""
        try:
            made, stand = session.changes_made, session.changes_standing
            figure = session.fraction_by_hand
        except RbcflowError as error:
            return cls(fault=str(error))
        cells = session.cells[session.cells["cell"].isin(stand)]
        machine = dict(zip(cells["cell"], cells["label"], strict=True))
        kinds = Counter(
            "struck out" if change.now == STRUCK_OUT else f"from {machine[cell]} to {change.now}"
            for cell, change in sorted(stand.items())
        )
        return cls(
            changes=len(made),
            names=", ".join(dict.fromkeys(change.by for change in list(stand.values()) or made)),
            kinds=tuple(f"{n} {kind}" for kind, n in kinds.items()),
            cells=len(stand),
            figure=figure,
        )

    def number(self) -> str:
        """Return the paragraph that follows the machine's number; empty where nobody changed anything."""
        if self.fault:
            return f"<p class='corrected'>{escape(self.fault)}</p>"
        if not self.changes:
            return ""
        few = f"{too_few_words(self.figure.n)} ".lstrip() if self.figure and self.figure.n else ""
        begin = f"<p class='corrected by-hand{' few' if few else ''}' {_MARK}{self.changes}\">"
        if self.figure is None:
            return f"{begin}Changes by hand by {escape(self.names)} were all taken back.</p>"
        counted = f"{self.cells} {'change' if self.cells == 1 else 'changes'} by hand"
        return (
            f"{begin}With {counted} by {escape(self.names)}: {_said(self.figure)}<br>{few}"
            f"({escape(', '.join(self.kinds))}). Who chooses which cells to look at moves this number:"
            " the machine's above is the one to compare with.</p>"
        )

    def how(self) -> str:
        """Return a sentence on what persons had to do with the labels."""
        if self.fault:
            return f"What persons changed is not known: {CHANGES_FILE} is damaged."
        if not self.changes:
            return "No person has changed a label."
        return (
            "The number and the drawings are made from the networks' labels alone; what persons changed is"
            f" told beside the number, and line by line in {CHANGES_FILE}."
        )


NOTHING_BY_HAND = ByHand()


def _said(figure: FractionFigure) -> str:
    if figure.estimate is None or figure.low is None or figure.high is None:
        return "<b>no number</b>, as no cell is left to count"
    return (
        f"<b>{percent(figure.estimate)}</b> ({100 * figure.low:.1f} to {percent(figure.high)},"
        f" {figure.n:,} {'cell' if figure.n == 1 else 'cells'})"
    )


@dataclass(frozen=True, eq=False)
class Facts:
    """One session, as its report tells it.

    Attributes
    ----------
    run : mapping
        What ``run.json`` holds, or is about to.
    cells : DataFrame
        ``cells.csv`` in its order.
    counted : ndarray of bool, shape (n,)
        The counted cells in the order in which they were counted, True for tank-treading.
    by_hand : ByHand
        What persons changed.
    """

    run: Mapping[str, Any]
    cells: pd.DataFrame
    counted: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    by_hand: ByHand = NOTHING_BY_HAND

    @classmethod
    def of(cls, session: Session) -> Facts:
        """Take them from a session."""
        return cls(session.run, session.cells, session.counted, ByHand.of(session))

    @property
    def other_speed(self) -> int:
        """Cells set aside because they move at another speed than those in focus."""
        return int((self.cells["reason"] == OTHER_SPEED).sum())

    @property
    def undecided(self) -> int:
        """Cells that stage 2 could not tell surely enough."""
        return int((self.cells["reason"] == "undecided").sum())


def _curve(facts: Facts) -> str:
    """Return the fraction as cells were counted."""
    if not len(facts.counted):
        return ""
    fraction = facts.run["fraction"]
    low, high = fraction["low"], fraction["high"]
    said = None if low is None or high is None else (float(low), float(high))
    drawn = drawings.curve(facts.counted, float(fraction["level"]), said)
    return (
        f"<figure>{drawn}<figcaption>The fraction as cells were counted. Band: the anytime interval, which"
        " is valid at any moment while one watches. Bar at the end: the interval beside the number. It should"
        " settle; if it drifts, the sample changed during the run.</figcaption></figure>"
    )


def _speeds(facts: Facts) -> str:
    """Return how fast the counted cells were."""
    cells = facts.cells
    groups = [
        ("tank-treading", drawings.TANK_TREADING_COLOUR, _speed(cells, Label.TANK_TREADING)),
        ("flipping", drawings.FLIPPING_COLOUR, _speed(cells, Label.FLIPPING)),
    ]
    if not sum(len(values) for _, _, values in groups):
        return ""
    keys = " ".join(f'<span class="key" style="background:{c}"></span>{n}' for n, c, _ in groups)
    return (
        f"<figure>{drawings.histogram(groups, 'speed, µm/s')}<figcaption>Counted cells by speed: {keys}."
        " Cells in the plane of focus should lie in one hill.</figcaption></figure>"
    )


def _speed(cells: pd.DataFrame, label: Label) -> np.ndarray[Any, np.dtype[np.float64]]:
    return cells["speed_um_per_s"][cells["label"] == label].dropna().to_numpy(np.float64)


def _watched(facts: Facts) -> str:
    """Return the fraction by track length beside the whole, and what was done about unseen flips."""
    if not facts.run["fraction"]["n"]:
        return ""
    found = by_length(facts.run, facts.cells)
    rows = "".join(
        f"<tr><td>{escape(g.lengths)}</td><td>{g.n:,}</td><td>{percent(g.estimate)}</td>"
        f"<td>{100 * g.low:.0f} to {100 * g.high:.0f} %</td></tr>"
        for g in found.groups
        if g.estimate is not None
    )
    trend = escape(found.sentence())
    if found.falls:
        trend = f"<b>{trend}</b>"
    return f"""<section class="watched">
<div><h2>The fraction by how long a cell was watched</h2>
<table><tr><th>frames</th><th>cells</th><th>tank-treading</th><th>{100 * found.level:g} % (Wilson)</th></tr>
{rows}</table></div>
<div><h2>Flips that nobody saw</h2>
<p>{trend}</p>
{_used(facts)}
{_corrected(facts)}</div>
</section>"""


def _used(facts: Facts) -> str:
    least = least_frames_of(facts.run)
    if least > LEAST_FRAMES:
        return f"<p>Used: a least length. Cells seen in under {least} frames are not counted.</p>"
    return f"<p>No least length beyond {LEAST_FRAMES} frames was used.</p>"


def _corrected(facts: Facts) -> str:
    """Say the corrected fraction, what it rests on, and that the number above is without it."""
    least, most = unseen_flips(facts.run, facts.cells)
    if least.estimate is None and most.estimate is None:
        return f"<p>No correction: {escape(least.why_not())}.</p>"
    said = "; ".join(
        f"{_figure(figure)}{_seen(figure)}, if {words}"
        for figure, words in (
            (
                least,
                "the networks know real stiff cells as often as simulated ones (so it was with 51 real ones)",
            ),
            (most, "they know a stiff cell only by a turn that was seen"),
        )
    )
    return (
        f"<p>Corrected for unseen flips, and for nothing else: {said}. Not used in the number above. Both"
        " reckon with how long a cell of usual shape takes to turn over, by theory: a thicker cell turns"
        " faster.</p>"
    )


def _figure(figure: UnseenFlips) -> str:
    if figure.estimate is None or figure.low is None or figure.high is None:
        return f"none ({escape(figure.why_not())})"
    interval = f"{100 * figure.level:g} % interval {100 * figure.low:.1f} to {percent(figure.high)}"
    return f"<b>{percent(figure.estimate)}</b> ({interval})"


def _seen(figure: UnseenFlips) -> str:
    return "" if figure.seen is None else f", {100 * figure.seen:.0f} in 100 flips being noticed"


def _corrected_number(run: Mapping[str, Any]) -> str:
    """Return the paragraph under the raw number."""
    told = run.get("fraction_corrected") or {}
    words = escape(corrected_words(told))
    if told.get("estimate") is None:
        return (
            "<p class='corrected'>The interval covers the chance of counting only: it is not corrected for"
            f" errors of the networks{_precision(run)}.{' ' if words else ''}{words}</p>"
        )
    return f"<p class='corrected'><b>{words}</b>. The number above covers the chance of counting only.</p>"


def _rests_on(run: Mapping[str, Any]) -> str:
    """Return, for the small print, on what the correction rests; empty where it was not worked out."""
    told = run.get("fraction_corrected") or {}
    counts = counts_words(run.get("models") or {})
    if not counts or not (told.get("reason") or told.get("estimate") is not None):
        return ""
    return (
        f"<p class='how'><b>How it is corrected.</b> {escape(counts)} The interval carries how little so few"
        f" labelled cells say{_another_patient(run['models'])}.</p>"
    )


def _another_patient(models: Mapping[str, Any]) -> str:
    """Whether the interval knows that patients differ."""
    if NetworkRates.of_models(models).by_patient:
        return ", and that another patient's rates may be others"
    return "; that another day or patient may be harder, it does not"


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


def _number(facts: Facts) -> str:
    """Return the number in its frame, never without its interval and what that holds for."""
    run, by_hand = facts.run, facts.by_hand
    fraction = run["fraction"]
    estimate, low, high = fraction["estimate"], fraction["low"], fraction["high"]
    if estimate is None or low is None or high is None:
        said = "<p class='big none'>No number</p><p>No cell could be counted.</p>"
        return f"<div class='number doubtful'>{said}{by_hand.number()}</div>"
    method = escape(method_words(str(fraction["method"])))
    grave = bool(grave_warnings(run))
    said = (
        f"<div class='number{' doubtful' if grave else ''}'><p class='big'>{percent(estimate)}</p>"
        "<p>of the cells judged reliable<br>were tank-treading</p>"
        f"<p class='interval'><b>{100 * low:.1f} to {percent(high)}</b></p>"
        f"<p>{100 * fraction['level']:g} % interval, from {fraction['n']:,} cells<br>({method})</p>"
    )
    if grave:
        said += "<p class='doubt'>Read the warning above first.</p>"
    return f"{said}{_corrected_number(run)}{by_hand.number()}</div>"


def _ending(facts: Facts) -> str:
    """Return in words how the run ended, and what is counted."""
    run = facts.run
    cells, fraction, least = run["cells"], run["fraction"], least_frames_of(run)
    untold, elsewhere = facts.undecided, facts.other_speed
    also = f"; {untold:,} it could not tell: they are not counted" if untold else ""
    passed = fraction["n"] + untold + elsewhere
    speed = _focus_speed(run, elsewhere)
    reason = run["stop_reason"]
    if run["status"] == "failed":
        ended = "The run failed; results up to that moment were saved."
    elif run["status"] == "running":
        ended = "The run has not ended."
    else:
        ended = end_sentence(str(reason), fraction["n"], str(run.get("stop_sentence") or ""))
    return f"""<div class="words">
<h2>What this is</h2>
<p>{escape(ended)}</p>
<p><b>{cells["tracked"]:,}</b> cells were followed through the field. Two neural networks looked at each: the
first said whether it was sharp and alone enough to be judged ({passed:,} were), the second whether its
membrane circulated (<b>tank-treading: {cells["tank_treading"]:,}</b>, the supple cells) or it flipped over as
a whole (<b>flipping: {cells["flipping"]:,}</b>, the stiff ones){also}.{speed}</p>
<p><b>What is counted.</b> Cells that cross the plane of focus, so the faster count more often; each once;
in the picture for {least} frames or more; judged reliable; before the stop. A stiff cell that did not
happen to flip while it was watched looks like a supple one.</p>
</div>"""


def _focus_speed(run: Mapping[str, Any], set_aside: int) -> str:
    """Say what was made of the speed that the cells in focus share; empty where nothing was."""
    told = run.get("focus_speed") or {}
    if not told.get("said"):
        return ""
    cells = {0: "no cell was", 1: "1 cell was"}.get(set_aside, f"{set_aside:,} cells were")
    return (
        f" The surest cells share one speed, {told['speed_um_per_s']:,.0f} µm/s, as they lie at one height:"
        f" {cells} left out for moving otherwise."
    )


_MARKS = {None: "✓", Severity.NOTE: "▲", Severity.WARNING: "⚠"}
_CLASSES = {None: "well", Severity.NOTE: "mild", Severity.WARNING: "grave"}


def _warnings(facts: Facts) -> str:
    """Return all that a person must be told of a run, grave ones first."""
    said = "".join(
        f'<li class="{_CLASSES[w.severity]}"><b>{w.severity.word}.</b> {escape(w.sentence)}</li>'
        for w in warnings_of_run(facts.run)
    )
    return f'<ul class="warnings">{said}</ul>' if said else ""


def _quality_table(facts: Facts) -> str:
    """Return the measures, each with how it usually is and a mark; of an older session what is known."""
    run, cells = facts.run, facts.cells
    rows = [_row(line) for line in quality_lines(run, warnings_of_run(run))]
    if run["cells"]["tracked"]:
        rows.append(_plain_row("frames a track, median", f"{cells['frames'].median():.0f}"))
    latency = run["latency_ms"]["p95"]
    if latency is not None:
        rows.append(_plain_row("95 % of labels within", f"{latency:.0f} ms"))
    return f"<div class='quality'><h2>Quality of the run</h2><table>{''.join(rows)}</table></div>"


def _row(line: QualityLine) -> str:
    usual = f"usual: {escape(line.usual)}" if line.usual != line.said else ""
    return (
        f"<tr class='{_CLASSES[line.severity]}'><td>{_MARKS[line.severity]} {escape(line.name)}</td>"
        f"<td>{escape(line.said)}</td><td>{usual}</td></tr>"
    )


def _plain_row(name: str, said: str) -> str:
    return f"<tr><td>{escape(name)}</td><td>{escape(said)}</td><td></td></tr>"


def _how_labels_are_made(facts: Facts) -> str:
    """Return how a label is made, and by which networks."""
    models, by_hand = facts.run["models"], facts.by_hand

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


def _settings(facts: Facts) -> str:
    """Return everything that was set, and the versions."""
    run = facts.run
    parameters = dict(run["parameters"])
    details = parameters.pop("source_details", {})
    parameters.pop("source_warnings", None)
    items = [(k, v) for k, v in {**parameters, **details}.items() if v not in (None, "", [], {})]
    said = " · ".join(
        f"{escape(str(k).replace('_', ' '))} <b>{escape(_setting_words(v))}</b>" for k, v in items
    )
    versions = " · ".join(f"{escape(str(k))} {escape(str(v))}" for k, v in run["versions"].items() if v)
    return f'<p class="small"><b>Settings.</b> {said}</p><p class="small"><b>Versions.</b> {versions}</p>'


def _setting_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cells_table(facts: Facts) -> str:
    """Return what became of the cells."""
    _cells_table, table, untold = facts.run["cells"], facts.cells, facts.undecided
    elsewhere = facts.other_speed
    pieces = int((table["reason"] == FRAGMENT).sum())
    brief, least = int((table["reason"] == TOO_FEW_FRAMES).sum()), least_frames_of(facts.run)
    over_gaps = int((table["gap_frames"] > 0).sum())
    rows = {
        "followed in all": _cells_table["tracked"],
        "tank-treading (counted)": _cells_table["tank_treading"],
        "flipping (counted)": _cells_table["flipping"],
        "blurred or not alone": _cells_table["unreliable"] - untold - elsewhere,
        **({"at another speed than cells in focus": elsewhere} if elsewhere else {}),
        "of neither kind surely enough": untold,
        f"seen in under {LEAST_FRAMES} frames": _cells_table["too_short"],
        **({f"judged, but seen in under {least}": brief} if brief or least > LEAST_FRAMES else {}),
        "perhaps another piece of a counted one": pieces,
        "open at the stop, or after it": _cells_table["uncounted"] - pieces - brief,
        **({"of all, followed over lost frames": over_gaps} if over_gaps else {}),
    }
    return _table_of("Cells", {k: f"{v:,}" for k, v in rows.items()})


def _frames_table(facts: Facts) -> str:
    """Return what became of the frames."""
    _frames_table = facts.run["frames"]
    rows = {"received": f"{_frames_table['received']:,}", "analysed": f"{_frames_table['processed']:,}"}
    for kind, said in (("dropped", "not analysed"), ("missed", "never arrived")):
        rows[said] = f"{sum(_frames_table[kind].values()):,}"
        for reason, n in sorted(_frames_table[kind].items()):
            rows[f"– {REASONS.get(reason, reason)}"] = f"{n:,}"
    return _table_of("Frames", rows)


def _table_of(title: str, rows: Mapping[str, str]) -> str:
    """Return a small table under its title."""
    said = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<div><h2>{title}</h2><table>{said}</table></div>"


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
{_warnings(facts)}
<section class="top">
{_number(facts)}
{_ending(facts)}
</section>
<section class="pair">
{_curve(facts)}
{_speeds(facts)}
</section>
<section class="three">
<div>
{_cells_table(facts)}
{_frames_table(facts)}
</div>
{_quality_table(facts)}
</section>
{_watched(facts)}
{_how_labels_are_made(facts)}
{_rests_on(run)}
{_settings(facts)}
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
