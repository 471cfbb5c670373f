"""Real session folders with given counts and dates, for the tests of the trend."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from napari_rbcflow.estimate import RunningFraction
from napari_rbcflow.session import Account, SessionWriter
from napari_rbcflow.session.schema import read_run, write_run
from napari_rbcflow.types import Judgement, Label, SourceInfo, Track

FIRST = datetime(2026, 3, 2, 10, 15, tzinfo=timezone(timedelta(hours=1)))
"""A Monday."""
LENGTH = 6


def session(
    folder: Path,
    tank_treading: int,
    flipping: int,
    *,
    week: float = 0,
    patient: str = "BG",
    sample: str = "",
    status: str = "finished",
    pixel_size_um: float = 0.605,
    parameters: dict[str, object] | None = None,
    close: bool = True,
) -> Path:
    """Write a session through the writer's own door, `week` weeks after `FIRST`."""
    writer = SessionWriter.create(
        folder,
        source=SourceInfo("test chamber", 40, 60, 60.0, pixel_size_um, live=True),
        parameters=parameters or {},
        models={"stage1": {"name": "one", "hash": "01"}, "stage2": {"name": "two", "hash": "02"}},
        patient=patient,
        sample=sample,
        ring_frames=1,
    )
    labels = [Label.TANK_TREADING] * tank_treading + [Label.FLIPPING] * flipping
    writer.keep([_cell(k + 1, label) for k, label in enumerate(labels)])
    fraction = RunningFraction()
    fraction.update(tank_treading=tank_treading, flipping=flipping)
    account = Account.of(
        received=100,
        processed=100,
        dropped={},
        missed={},
        cells={"tracked": len(labels), "tank_treading": tank_treading, "flipping": flipping},
        fraction=fraction,
    )
    if not close:
        writer.heartbeat(account)
        return folder
    writer.close(account, status, "the camera went away" if status == "failed" else "reliable")
    started = FIRST + timedelta(weeks=week)
    write_run(
        folder,
        {
            **read_run(folder),
            "started": started.isoformat(),
            "ended": (started + timedelta(minutes=3)).isoformat(),
        },
    )
    return folder


def weekly(folder: Path, fractions: list[float], n: int = 200, **changes: object) -> Path:
    """Write a session a week with these fractions of `n` cells each."""
    folder.mkdir(exist_ok=True)
    for week, fraction in enumerate(fractions):
        k = round(fraction * n)
        session(folder / f"week-{week:02d}", k, n - k, week=week, **changes)  # type: ignore[arg-type]
    return folder


def _cell(cell: int, label: Label) -> tuple[Track, Judgement]:
    track = Track(
        cell=cell,
        frames=np.arange(LENGTH, dtype=np.int64),
        y_px=np.full(LENGTH, 20, np.float32),
        x_px=np.linspace(5, 50, LENGTH, dtype=np.float32),
        seen=np.ones(LENGTH, bool),
        intruded=np.zeros(LENGTH, bool),
        edge=np.zeros(LENGTH, bool),
        crops=np.full((LENGTH, 31, 31), 120, np.uint8),
        reason="left-field",
    )
    return track, Judgement(cell, label, 0.9, 0.9 if label == Label.TANK_TREADING else 0.1, "stage-2")
