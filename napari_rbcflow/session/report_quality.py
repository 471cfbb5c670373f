"""The report's table of the run's quality, and its warnings."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from napari_rbcflow.quality.lines import QualityLine, quality_lines
from napari_rbcflow.quality.of_run import warnings_of_run
from napari_rbcflow.quality.warning import Severity

_MARKS = {None: "✓", Severity.NOTE: "▲", Severity.WARNING: "⚠"}
_CLASSES = {None: "well", Severity.NOTE: "mild", Severity.WARNING: "grave"}


def warnings_list(run: Mapping[str, Any]) -> str:
    """Return all that a person must be told of a run, grave ones first; nothing where there is nothing.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds.
    """
    said = "".join(
        f'<li class="{_CLASSES[w.severity]}"><b>{w.severity.word}.</b> {escape(w.sentence)}</li>'
        for w in warnings_of_run(run)
    )
    return f'<ul class="warnings">{said}</ul>' if said else ""


def quality_table(run: Mapping[str, Any], more: Mapping[str, str] | None = None) -> str:
    """Return the measures of a run as a table, each with how it usually is and a mark.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds.
    more : mapping of str to str
        Rows that are not judged.
    """
    rows = [_row(line) for line in quality_lines(run, warnings_of_run(run))]
    rows += [f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in (more or {}).items()]
    return f'<div class="quality"><h2>Quality of the run</h2><table>{"".join(rows)}</table></div>'


def _row(line: QualityLine) -> str:
    usual = f"<span>usual: {escape(line.usual)}</span>" if line.usual != line.said else ""
    return (
        f'<tr class="{_CLASSES[line.severity]}"><td>{_MARKS[line.severity]} {escape(line.name)}{usual}</td>'
        f"<td>{escape(line.said)}</td></tr>"
    )
