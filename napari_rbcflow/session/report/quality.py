"""The run's quality: the list of its warnings, and the table of its measures."""

from __future__ import annotations

from html import escape

from napari_rbcflow.quality.monitor import warnings_of_run
from napari_rbcflow.quality.summary import QualityLine, quality_lines
from napari_rbcflow.quality.warning import Severity
from napari_rbcflow.session.report.facts import Facts

_MARKS = {None: "✓", Severity.NOTE: "▲", Severity.WARNING: "⚠"}
_CLASSES = {None: "well", Severity.NOTE: "mild", Severity.WARNING: "grave"}


def warnings(facts: Facts) -> str:
    """Return all that a person must be told of a run, grave ones first."""
    said = "".join(
        f'<li class="{_CLASSES[w.severity]}"><b>{w.severity.word}.</b> {escape(w.sentence)}</li>'
        for w in warnings_of_run(facts.run)
    )
    return f'<ul class="warnings">{said}</ul>' if said else ""


def table(facts: Facts) -> str:
    """Return the measures, each with how it usually is and a mark; of an older session what is known."""
    run, cells = facts.run, facts.cells
    rows = [_row(line) for line in quality_lines(run, warnings_of_run(run))]
    if run["cells"]["tracked"]:
        rows.append(_plain("frames a track, median", f"{cells['frames'].median():.0f}"))
    latency = run["latency_ms"]["p95"]
    if latency is not None:
        rows.append(_plain("95 % of labels within", f"{latency:.0f} ms"))
    return f"<div class='quality'><h2>Quality of the run</h2><table>{''.join(rows)}</table></div>"


def _row(line: QualityLine) -> str:
    usual = f"usual: {escape(line.usual)}" if line.usual != line.said else ""
    return (
        f"<tr class='{_CLASSES[line.severity]}'><td>{_MARKS[line.severity]} {escape(line.name)}</td>"
        f"<td>{escape(line.said)}</td><td>{usual}</td></tr>"
    )


def _plain(name: str, said: str) -> str:
    return f"<tr><td>{escape(name)}</td><td>{escape(said)}</td><td></td></tr>"
