"""What many tests make by hand: tracks and their labels, progress, chambers, sessions, data sets, movies."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_rbcflow.classification.dataset import LabelledSequence
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.estimate import RunningFraction
from napari_rbcflow.pipeline.status import Progress
from napari_rbcflow.session import RunSummary, SessionWriter
from napari_rbcflow.session.schema import read_run, write_run
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.types import Frame, Judgement, Label, SourceInfo, Track

HEIGHT, WIDTH = 40, 60
SOURCE = SourceInfo("test chamber", HEIGHT, WIDTH, 60.0, 0.605, exposure_ms=2.2, details={"seed": "4"})
MODELS = {"stage1": {"name": "one", "hash": "0123abcd"}, "stage2": {"name": "two", "hash": "4567cdef"}}
FIRST = datetime(2026, 3, 2, 10, 15, tzinfo=timezone(timedelta(hours=1)))
"""A Monday."""
FIELD: dict[str, Any] = {"height": 384, "width": 640, "cells_per_frame": 30.0, "variety": 0.3}
Pair = tuple[Track, Judgement]


def no_screen() -> bool:
    """Say whether no window can be opened here."""
    linux = sys.platform.startswith("linux")
    return find_spec("qtpy") is None or (linux and not os.environ.get("DISPLAY"))


# ------------------------------------------------------------------ tracks and what is said of them


def a_track(cell: int = 1, frames: int = 8, **changes: Any) -> Track:
    """One that moves a pixel a frame, as long as its crops where they are given."""
    crops = changes.get("crops", np.zeros((frames, 31, 31), np.uint8))
    n = len(crops)
    at, no = np.arange(n, dtype=np.float32), np.zeros(n, bool)
    return replace(Track(cell, np.arange(n), at, at, ~no, no, no, crops, "left-field"), **changes)


def a_judgement(cell: int, label: Label, p_tank_treading: float = 0.9) -> Judgement:
    return Judgement(cell, label, 0.9, p_tank_treading, "stage-2")


def some_pairs(n: int, seed: int = 0, longest: int = 40, greys: tuple[int, int] = (100, 142)) -> list[Pair]:
    """Tracks of every label, ending in another order than that of their numbers; as noisy as a picture."""
    rng = np.random.default_rng(seed)
    pairs = []
    for cell in rng.permutation(np.arange(1, n + 1)).tolist():
        length = int(rng.integers(1, longest))
        frames = int(rng.integers(0, 200)) + np.cumsum(rng.integers(1, 3, length))
        track = Track(
            cell=cell,
            frames=frames.astype(np.int64),
            y_px=rng.uniform(-0.004, HEIGHT, length).astype(np.float32),
            x_px=np.cumsum(rng.uniform(5, 30, length)).astype(np.float32),
            seen=rng.random(length) > 0.1,
            intruded=rng.random(length) > 0.9,
            edge=rng.random(length) > 0.9,
            crops=rng.integers(*greys, (length, 31, 31), dtype=np.uint8),
            reason="left-field",
        )
        kind = rng.integers(4)
        if track.too_short:
            said = Judgement(cell, Label.TOO_SHORT, None, None, "too-short")
        elif kind == 0:
            said = Judgement(cell, Label.UNRELIABLE, round(rng.uniform(0, 0.4999), 4), None, "stage-1")
        elif kind == 1:
            said = Judgement(cell, Label.UNCOUNTED, None, None, "cut-by-stop")
        else:
            tank = rng.random() < 0.8
            p = round(rng.uniform(0.5, 1) if tank else rng.uniform(0, 0.4999), 4)
            label = Label.TANK_TREADING if tank else Label.FLIPPING
            said = Judgement(cell, label, round(rng.uniform(0.5, 1), 4), p, "stage-2")
        pairs.append((track, said))
    return pairs


class SaysAll(TwoStage):
    """Judges every track long enough as tank-treading: the counting is tested, not the networks."""

    device = "cpu"
    models = {"stage1": {"name": "none", "hash": "0"}, "stage2": {"name": "none", "hash": "0"}}  # noqa: RUF012

    def __init__(self, fails_after: int | None = None) -> None:
        self.fails_after, self.calls = fails_after, 0

    def warm_up(self) -> None: ...

    def judge(self, tracks: Sequence[Track], *, leave_out_intruded: bool = True) -> list[Judgement]:
        self.calls += 1
        if self.fails_after is not None and self.calls > self.fails_after:
            raise RuntimeError("the networks broke")
        return [
            Judgement(t.cell, Label.TOO_SHORT, None, None, "too-short")
            if t.too_short
            else Judgement(t.cell, Label.TANK_TREADING, 1.0, 1.0, "stage-2")
            for t in tracks
        ]


# ------------------------------------------------------------------ runs


def chamber(seconds: float, *, paced: bool = False, seed: int = 1, **changes: Any) -> SimulatedChamber:
    """A small part of the field with few cells."""
    return SimulatedChamber(ChamberSettings(seconds=seconds, seed=seed, **FIELD | changes), paced=paced)


def counted(tank_treading: int, flipping: int, level: float = 0.95) -> RunningFraction:
    fraction = RunningFraction(level)
    fraction.update(tank_treading=tank_treading, flipping=flipping)
    return fraction


def progress(**changes: Any) -> Progress:
    """A run's first minute."""
    base: dict[str, Any] = {
        "status": "running",
        "received": 3600,
        "processed": 3600,
        "dropped": 0,
        "missed": 0,
    }
    base |= {"seconds": 60.0, "open_tracks": 100, "cells": Counter(tracked=5000), "n": 120, "estimate": 0.8}
    return Progress(**base | {"interval": (0.7, 0.87), "level": 0.95, "missing": "80 cells"} | changes)


# ------------------------------------------------------------------ sessions


def begin(folder: Path, **changes: Any) -> SessionWriter:
    """Open a session as a run does."""
    given: dict[str, Any] = {"source": SOURCE, "models": MODELS, "patient": "BG", "sample": "run 1"}
    given |= {"parameters": {"background": "sliding", "stop_halfwidth": 0.05}, "ring_frames": 4}
    return SessionWriter.create(folder, **given | changes)


def account_of(pairs: list[Pair], **changes: Any) -> RunSummary:
    cells: Counter[str] = Counter(said.label.replace("-", "_") for _, said in pairs)
    fraction = counted(cells["tank_treading"], cells["flipping"])
    cells["tracked"] = len(pairs)
    given: dict[str, Any] = {"received": 300, "processed": 295, "dropped": {"after-stop": 5}, "missed": {}}
    given |= {"cells": cells, "fraction": fraction, "latencies_ms": np.linspace(10, 110, 101).tolist()}
    return RunSummary.of(**given | changes)


def write(
    folder: Path,
    pairs: list[Pair],
    *,
    batch: int = 7,
    status: str = "finished",
    patient: str = "BG",
    **changes: Any,
) -> Path:
    """Write a whole session, with six frames of which the ring keeps four."""
    writer = begin(folder, patient=patient)
    for first in range(0, len(pairs), batch):
        writer.keep(pairs[first : first + batch])
    for index in range(6):
        writer.ring.append(Frame(index, index / 60, np.full((HEIGHT, WIDTH), index, np.uint8)))
        writer.ring.append_crops(index, [1, 2], [3, 4], [5, 6], np.full((2, 31, 31), index, np.uint8))
    writer.heartbeat(account_of(pairs))
    reason = "the camera went away" if status == "failed" else "source-ended"
    writer.close(account_of(pairs, **changes), status=status, stop_reason=changes.get("reason", reason))
    return folder


def closed(folder: Path, pairs: list[Pair], batch: int = 7, **changes: Any) -> Path:
    """Write a finished session without frames."""
    writer = begin(folder, **changes)
    for first in range(0, len(pairs), batch):
        writer.keep(pairs[first : first + batch])
    writer.close(account_of(pairs), "finished", "source-ended")
    return folder


def session(
    folder: Path,
    tank_treading: int,
    flipping: int,
    *,
    week: float = 0,
    status: str = "finished",
    pixel_size_um: float = 0.605,
    close: bool = True,
    **changes: Any,
) -> Path:
    """Write a session with these counts, `week` weeks after `FIRST`, for the trend."""
    source = SourceInfo("test chamber", HEIGHT, WIDTH, 60.0, pixel_size_um, live=True)
    models = {"stage1": {"name": "one", "hash": "01"}, "stage2": {"name": "two", "hash": "02"}}
    given = {"source": source, "models": models, "sample": "", "parameters": {}, "ring_frames": 1}
    writer = begin(folder, **given | changes)
    labels = [Label.TANK_TREADING] * tank_treading + [Label.FLIPPING] * flipping
    writer.keep([_cell(k + 1, label) for k, label in enumerate(labels)])
    account = RunSummary.of(
        received=100,
        processed=100,
        dropped={},
        missed={},
        cells={"tracked": len(labels), "tank_treading": tank_treading, "flipping": flipping},
        fraction=counted(tank_treading, flipping),
    )
    if not close:
        writer.heartbeat(account)
        return folder
    writer.close(account, status, "the camera went away" if status == "failed" else "reliable")
    started = FIRST + timedelta(weeks=week)
    ended = started + timedelta(minutes=3)
    write_run(folder, read_run(folder) | {"started": started.isoformat(), "ended": ended.isoformat()})
    return folder


def weekly(folder: Path, fractions: list[float], n: int = 200, **changes: Any) -> Path:
    """Write a session a week with these fractions of `n` cells each."""
    folder.mkdir(exist_ok=True)
    for week, fraction in enumerate(fractions):
        k = round(fraction * n)
        session(folder / f"week-{week:02d}", k, n - k, week=week, **changes)
    return folder


def _cell(cell: int, label: Label) -> Pair:
    y_px, x_px = np.full(6, 20, np.float32), np.linspace(5, 50, 6, dtype=np.float32)
    track = a_track(cell, y_px=y_px, x_px=x_px, crops=np.full((6, 31, 31), 120, np.uint8))
    return track, a_judgement(cell, label, 0.9 if label == Label.TANK_TREADING else 0.1)


# ------------------------------------------------------------------ files


def write_set(folder: Path, sequences: Sequence[LabelledSequence]) -> Path:
    """Write a data set as Darrin and others published theirs: strips and a table."""
    (folder / "img").mkdir(parents=True)
    rows = ["sequence_name,label,size"]
    for s in sequences:
        Image.fromarray(s.crops.transpose(1, 0, 2).reshape(31, -1)).save(folder / "img" / f"{s.name}.png")
        rows.append(f"{s.name},{s.label},{len(s.crops)}")
    (folder / "dataset.csv").write_text("\n".join(rows) + "\n")
    return folder


def a_movie(frames: int, height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Return frames each of which says which it is, and every pixel where."""
    place = np.arange(height)[:, None] + np.arange(width)[None, :]
    return ((place + np.arange(frames)[:, None, None] * 7) % 251).astype(np.uint8)


def swap_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
