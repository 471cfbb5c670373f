"""One row a run, with the unit in each column's name, and a dictionary of the columns.

Keys are written as LOINC writes names (component:property:time:system:scale:method). They are ours: we know
of no LOINC code for the tank-treading fraction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from napari_rbcflow.exchange.leaving import Leaving, ready_to_leave, write_new
from napari_rbcflow.sentences import say
from napari_rbcflow.session import CELL_COUNTS
from napari_rbcflow.trend import one_line

FRACTION_KEY = "Erythrocytes.tank-treading/Erythrocytes.judged:NFr:Pt:Bld:Qn:Microscopy.light.flow chamber"
_COUNT = "{}:Num:Pt:Bld:Qn:Microscopy.light.flow chamber"
_RUN = "{}:{}:Pt:^Run:{}:"
_CELLS = {
    "tracked": "Erythrocytes",
    "tank_treading": "Erythrocytes.tank-treading",
    "flipping": "Erythrocytes.flipping",
    "unreliable": "Erythrocytes.not judged",
    "too_short": "Erythrocytes.track too short",
    "uncounted": "Erythrocytes.not counted",
}
COLUMNS: dict[str, tuple[str, str]] = {
    "session": (_RUN.format("Session", "ID", "Nom"), ""),
    "started": (_RUN.format("Start", "DateTime", "Qn"), ""),
    "ended": (_RUN.format("End", "DateTime", "Qn"), ""),
    "duration_s": (_RUN.format("Duration", "Time", "Qn"), "s"),
    "patient": ("Patient:ID:Pt:^Patient:Nom:", ""),
    "sample": ("Sample:ID:Pt:Bld:Nom:", ""),
    "simulated": (_RUN.format("Simulated", "Arb", "Ord"), ""),
    "status": (_RUN.format("Status", "Type", "Nom"), ""),
    "stop_reason": (_RUN.format("Stop reason", "Type", "Nom"), ""),
    "verdict": ("Erythrocytes.tank-treading:Imp:Pt:Bld:Nom:", ""),
    "verdict_reason": ("Erythrocytes.tank-treading:Imp:Pt:Bld:Nar:", ""),
    "tank_treading_fraction": (FRACTION_KEY, "1"),
    "tank_treading_fraction_low": (f"{FRACTION_KEY} low", "1"),
    "tank_treading_fraction_high": (f"{FRACTION_KEY} high", "1"),
    "interval_level": (f"{FRACTION_KEY} level", "1"),
    "interval_method": (f"{FRACTION_KEY} method", ""),
    "number_of": (f"{FRACTION_KEY} origin", ""),
    "number_cells": (_COUNT.format("Erythrocytes.judged"), "{cells}"),
    **{f"{name}_cells": (_COUNT.format(_CELLS[name]), "{cells}") for name in CELL_COUNTS},
    **{
        f"frames_{name}": (_RUN.format(f"Frames.{name}", "Num", "Qn"), "{frames}")
        for name in ("received", "processed", "dropped", "missed")
    },
    "frame_rate_per_s": (_RUN.format("Frames", "NRat", "Qn"), "{frames}/s"),
    "pixel_size_um": (_RUN.format("Pixel", "Len", "Qn"), "um"),
    "exposure_ms": (_RUN.format("Exposure", "Time", "Qn"), "ms"),
    "shear_rate_per_s": (_RUN.format("Shear", "Rate", "Qn"), "/s"),
    "focus_height_um": (_RUN.format("Focus", "Len", "Qn"), "um"),
    "latency_p95_ms": (_RUN.format("Label.latency^95th percentile", "Time", "Qn"), "ms"),
    "source": (_RUN.format("Source", "ID", "Nom"), ""),
    "stage1_hash": (_RUN.format("Network.stage 1", "ID", "Nom"), ""),
    "stage2_hash": (_RUN.format("Network.stage 2", "ID", "Nom"), ""),
    "software_version": (_RUN.format("Software", "Vn", "Nom"), ""),
    "warnings": (_RUN.format("Warnings", "Find", "Nar"), ""),
}
"""The key and the unit (UCUM) of each column."""


def columns() -> pd.DataFrame:
    """Return the dictionary of the columns: `column`, `key`, `unit` (UCUM, empty for none) and `meaning`."""
    rows = [
        (name, key, unit, say(f"exchange.column-{name.replace('_', '-')}"))
        for name, (key, unit) in COLUMNS.items()
    ]
    rows.append(("record_*", _RUN.format("Record", "Find", "Nar"), "", say("exchange.column-record")))
    return pd.DataFrame(rows, columns=["column", "key", "unit", "meaning"])


def runs_table(folders: Sequence[Path]) -> pd.DataFrame:
    """Return one row a run, by start, in the columns that `columns` describes.

    A session that is not as it was written has no number and no counts. What a laboratory recorded of its
    runs follows in columns ``record_...``.

    Parameters
    ----------
    folders : sequence of Path
        Sessions, or folders that hold sessions, one level down.

    Raises
    ------
    BadInput
        As `ready_to_leave`.
    """
    rows = [_row(one) for one in ready_to_leave(folders)]
    records = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    table = pd.DataFrame(rows, columns=[*COLUMNS, *records])
    moments = pd.to_datetime(table["started"], utc=True, format="ISO8601", errors="coerce")
    return table.iloc[moments.argsort(kind="stable")].reset_index(drop=True)


def write_table(folders: Sequence[Path], out: Path) -> int:
    """Write `runs_table` as CSV and `columns` beside it (``runs.columns.csv`` beside ``runs.csv``).

    Parameters
    ----------
    folders : sequence of Path
        As of `runs_table`.
    out : Path
        File to create; must not exist.

    Returns
    -------
    int
        How many runs.
    """
    table, dictionary = runs_table(folders), columns()
    beside = out.with_name(f"{out.stem}.columns.csv")
    write_new(beside, _csv(dictionary))
    try:
        write_new(out, _csv(table))
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return len(table)


def _csv(table: pd.DataFrame) -> bytes:
    """Return CSV in UTF-8 with the byte order mark that spreadsheets need."""
    text = table.to_csv(index=False, lineterminator="\r\n")
    return text.encode("utf-8-sig", errors="backslashreplace")


def _row(one: Leaving) -> dict[str, Any]:
    run, figure = one.run, one.figure
    parameters: Mapping[str, Any] = run.get("parameters") or {}
    started, ended = run.get("started"), run.get("ended")
    row: dict[str, Any] = {
        "session": one.session.folder.name,
        "started": started,
        "ended": ended,
        "duration_s": _seconds(started, ended),
        "patient": one_line(run.get("patient")),
        "sample": one_line(run.get("sample")),
        "simulated": int(one.conclusion.simulated),
        "status": "interrupted" if one.session.interrupted else str(run["status"]),
        "stop_reason": run.get("stop_reason"),
        "verdict": str(one.conclusion.verdict),
        "verdict_reason": one.conclusion.reason,
        "number_of": one.kind,
        "frames_received": run["frames"]["received"],
        "frames_processed": run["frames"]["processed"],
        "frames_dropped": sum(run["frames"]["dropped"].values()),
        "frames_missed": sum(run["frames"]["missed"].values()),
        "frame_rate_per_s": parameters.get("fps"),
        "latency_p95_ms": (run.get("latency_ms") or {}).get("p95"),
        "software_version": (run.get("versions") or {}).get("napari-rbcflow"),
        "warnings": " | ".join(warning.sentence for warning in one.session.warnings),
    }
    for name in ("pixel_size_um", "exposure_ms", "shear_rate_per_s", "focus_height_um", "source"):
        row[name] = parameters.get(name)
    for stage in ("stage1", "stage2"):
        row[f"{stage}_hash"] = ((run.get("models") or {}).get(stage) or {}).get("hash")
    if figure is not None:
        row |= {
            "tank_treading_fraction": figure.estimate,
            "tank_treading_fraction_low": figure.low,
            "tank_treading_fraction_high": figure.high,
            "interval_level": figure.level,
            "interval_method": figure.method,
            "number_cells": figure.n,
        }
        row |= {f"{name}_cells": run["cells"][name] for name in CELL_COUNTS}
    return row | {f"record_{name}": value for name, value in one.record.items()}


def _seconds(started: Any, ended: Any) -> float | None:
    try:
        return round((datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds(), 3)
    except (TypeError, ValueError):
        return None
