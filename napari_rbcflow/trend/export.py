"""A trend as a table that a spreadsheet opens: a row a session, the baseline in every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from napari_rbcflow.session import FractionFigure
from napari_rbcflow.trend.control import ControlChart, control_of_day
from napari_rbcflow.trend.judge import Trend, TrendRun, Use, use_words

_FIGURE = ("estimate", "low", "high")
COLUMNS = (
    "session",
    "started",
    "patient",
    "sample",
    "status",
    "n",
    *_FIGURE,
    "level",
    "method",
    *(f"corrected_{name}" for name in (*_FIGURE, "method")),
    *(f"by_hand_{name}" for name in (*_FIGURE, "n")),
    "verdict",
    *(f"result_{name}" for name in (*_FIGURE, "n")),
    "compared",
    "in_baseline",
    "why",
    "below",
    "limit_for_this_run",
    "baseline_mean",
    "baseline_sd",
    "baseline_low",
    "baseline_high",
    "baseline_days",
    "control",
)


def rows(trend: Trend, charts: Sequence[ControlChart] = ()) -> list[dict[str, Any]]:
    """Return a row a session, in the order of time, with empty fields where nothing is known.

    `estimate` and what follows it are the machine's; `compared` says which number was compared.
    `below` is yes, perhaps or no. `limit_for_this_run` is made from the other days; a fraction under it is at
    least perhaps below. The baseline's columns are the same in all rows.
    `control` says whether the control of that day was in order, where there are control `charts`.
    """
    base = trend.baseline
    same: dict[str, Any] = {"baseline_days": trend.baseline_days}
    if base is not None:
        same |= {
            "baseline_mean": _figure(base.mean),
            "baseline_sd": _figure(base.sd),
            "baseline_low": _figure(base.low),
            "baseline_high": _figure(base.high),
        }
    return [dict.fromkeys(COLUMNS, "") | _row(run) | same | _control(run, charts) for run in trend.runs]


def _control(run: TrendRun, charts: Sequence[ControlChart]) -> dict[str, str]:
    return {"control": control_of_day(charts, run.record.started, run.record.instrument)[1]}


def as_csv(trend: Trend, charts: Sequence[ControlChart] = ()) -> bytes:
    """Return the table as CSV, in UTF-8 with the byte order mark that spreadsheets need."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows(trend, charts))
    return file.getvalue().encode("utf-8-sig", errors="backslashreplace")


def _row(run: TrendRun) -> dict[str, Any]:
    record, limit = run.record, run.comparison.limit
    return {
        "session": str(record.folder),
        "started": f"{record.started:%Y-%m-%d %H:%M:%S}",
        "patient": record.patient,
        "sample": record.sample,
        "status": record.status,
        "n": record.figure.n,
        **_parts(record.figure, "", _FIGURE),
        "level": record.figure.level,
        "method": record.figure.method,
        **_parts(record.corrected, "corrected_", (*_FIGURE, "method")),
        **_parts(record.by_hand, "by_hand_", (*_FIGURE, "n")),
        "verdict": str(record.verdict),
        **_parts(record.headline, "result_", (*_FIGURE, "n")),
        "compared": "" if not run.compared else "result" if run.of_results else "machine",
        "in_baseline": "yes" if run.use is Use.BASELINE else "no",
        "why": use_words(run),
        "below": str(run.below),
        "limit_for_this_run": _figure(limit),
    }


def _parts(figure: FractionFigure | None, prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {} if figure is None else {prefix + name: _figure(getattr(figure, name)) for name in names}


def _figure(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else value
