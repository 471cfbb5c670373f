"""The fraction by how long the cells were watched, and the correction for flips that nobody saw."""

from __future__ import annotations

from html import escape

from napari_rbcflow.estimate.unseen_flips import UnseenFlips
from napari_rbcflow.session.grave import percent
from napari_rbcflow.session.report.facts import Facts
from napari_rbcflow.session.watched import by_length, least_frames_of, unseen_flips
from napari_rbcflow.types import LEAST_FRAMES


def watched(facts: Facts) -> str:
    """Return the fraction by track length beside the whole, and what was done about unseen flips."""
    if not facts.run["fraction"]["n"]:
        return ""
    found = by_length(facts.run, facts.cells)
    rows = "".join(
        f"<tr><td>{escape(g.said)}</td><td>{g.n:,}</td><td>{percent(g.estimate)}</td>"
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
