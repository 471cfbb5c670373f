"""The counted cells of a session in the order in which they were counted, and the rules in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.intervals import FIXED_N, FixedN
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.estimate.tally import (
    AFTER_STOP,
    CUT_BY_STOP,
    OTHER_SPEED,
    PIECE,
    RUN_FAILED,
    Tally,
)
from napari_rbcflow.session.crops import read_index
from napari_rbcflow.types import Judgement, Label


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of ``cells.csv``, in a track's place."""

    cell: int
    frames: int
    reason: str
    may_continue: tuple[int, ...]
    speed: float

    def __len__(self) -> int:
        return self.frames


_NOT_FINISHED = (CUT_BY_STOP, AFTER_STOP, RUN_FAILED)


def counted_cells(folder: Path, cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Return for each counted cell whether it is tank-treading, in the order in which they were counted.

    ``cells.csv`` is sorted at the close of a session; the index of ``crops.zarr`` keeps the order in which
    tracks were handed over, which is the one in which they were counted.

    Parameters
    ----------
    folder : Path
        The session.
    cells : DataFrame
        Its ``cells.csv``.

    Raises
    ------
    RunFailed
        If the index cannot be read.
    """
    return _tank_treading(_in_order(folder, cells)["label"])


def _in_order(folder: Path, cells: pd.DataFrame) -> pd.DataFrame:
    order = pd.Index(read_index(folder / "crops.zarr")[:, 0]).unique()
    rows = cells[["cell", "label", "reason"]].drop_duplicates("cell").set_index("cell")
    return rows.loc[order.intersection(rows.index, sort=False)]


def finished_labels(folder: Path, cells: pd.DataFrame) -> list[str]:
    """Return the labels of the tracks that ended before the stop, counted or not, in the order of counting.

    Parameters and errors as `counted_cells`.
    """
    rows = _in_order(folder, cells)
    labels: list[str] = rows["label"][~rows["reason"].isin(_NOT_FINISHED)].tolist()
    return labels


class RuleMet(NamedTuple):
    """A stop rule, and the track that met it."""

    reason: str
    tracks: int


def first_met(rules: StopRules, labels: Iterable[str], level: float = 0.95) -> RuleMet | None:
    """Count tracks one by one until a stop rule is met, as the run did; None where none is.

    Parameters
    ----------
    rules : StopRules
    labels : iterable of str
        From `finished_labels`.
    level : float
    """
    fraction = RunningFraction(level)
    for tracks, label in enumerate(labels, start=1):
        if label in (Label.TANK_TREADING, Label.FLIPPING):
            tank = label == Label.TANK_TREADING
            fraction.update(tank_treading=int(tank), flipping=int(not tank))
        if reason := rules.met_by(fraction, tracks):
            return RuleMet(reason, tracks)
    return None


def rows_counted(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Return the same in the order of the table: of a session that is not closed, the one of counting."""
    return _tank_treading(cells["label"])


def _tank_treading(labels: pd.Series[str]) -> NDArray[np.bool_]:
    counted = labels[labels.isin([Label.TANK_TREADING, Label.FLIPPING])]
    return np.asarray(counted == Label.TANK_TREADING, np.bool_)


def recount(counted: NDArray[np.bool_], level: float = 0.95) -> RunningFraction:
    """Count cells one by one, as the run did."""
    fraction = RunningFraction(level)
    for tank in counted.tolist():
        fraction.update(tank_treading=int(tank), flipping=int(not tank))
    return fraction


def rules_of(parameters: Mapping[str, Any]) -> tuple[StopRules, FixedN] | None:
    """Return the stop rules that ``run.json`` names, and the interval chosen for a fixed number of cells.

    None for sessions from before the interval was told by them (they say Wilson's whatever stopped them),
    and where the rules cannot be.
    """
    fixed_n = parameters.get("fixed_n_interval")
    if fixed_n not in FIXED_N:
        return None
    try:
        names = ("reliable", "halfwidth", "seconds", "tracks", "baseline")
        return StopRules(**{name: parameters.get(f"stop_{name}") for name in names}), fixed_n
    except (BadInput, TypeError):
        return None


class CountedAgain(NamedTuple):
    """A session's tracks, counted again as its run did.

    Attributes
    ----------
    tally : Tally
    told : dict of int to str
        The label that was told of each track that ended before the stop, while the run went on.
    labels : dict of int to (str, str)
        Its label and reason at the end.
    """

    tally: Tally
    told: dict[int, str]
    labels: dict[int, tuple[str, str]]


def count_again(
    folder: Path, run: Mapping[str, Any], cells: pd.DataFrame, links: Mapping[int, Sequence[int]]
) -> CountedAgain | None:
    """Count the tracks of a closed session again by the speed of the cells in focus, as the run did.

    Parameters
    ----------
    folder : Path
    run : mapping
        What ``run.json`` holds.
    cells : DataFrame
        ``cells.csv``.
    links : mapping
        ``pieces.csv``.

    Returns
    -------
    CountedAgain or None
        None for sessions from before such speeds were learnt, or that were not closed as usual.
    """
    chosen = rules_of(run["parameters"])
    if chosen is None or "learnt_from" not in (run.get("focus_speed") or {}):
        return None
    models = run["models"]
    tally = Tally(
        chosen[0],
        int(run["parameters"].get("least_frames") or 0),
        speed=lambda track: track.speed,
    )
    order = pd.Index(read_index(folder / "crops.zarr")[:, 0]).unique()
    rows = cells.drop_duplicates("cell").set_index("cell")
    rows = rows.loc[order.intersection(rows.index, sort=False)]
    tracks, judged = [], []
    row: Any
    for row in rows[~rows["reason"].isin([AFTER_STOP, RUN_FAILED])].itertuples():
        cell = int(row.Index)
        tracks.append(_Row(cell, row.frames, row.reason, tuple(links.get(cell, ())), row.speed_um_per_s))
        if row.reason != CUT_BY_STOP:
            judged.append(_as_judged(cell, row, models))
    settled = tally.settle(tracks, judged)
    tally.count(settled)
    tally.finish()
    said = [judgement for judgement in settled if judgement.reason not in _NOT_FINISHED]
    changed = tally.changed()
    return CountedAgain(
        tally,
        {judgement.cell: str(judgement.label) for judgement in said},
        {**{j.cell: (j.label, j.reason) for j in said}, **changed},
    )


def _as_judged(cell: int, row: Any, models: Mapping[str, Any]) -> Judgement:
    """Return what the networks said of a row."""
    reliable, tank = (None if pd.isna(p) else float(p) for p in (row.p_reliable, row.p_tank_treading))
    label, reason = Label(row.label), str(row.reason)
    if reason in (OTHER_SPEED, PIECE) and tank is not None:
        flips_from = float((models.get("stage2") or {}).get("threshold", 0.5))
        label = Label.FLIPPING if round(1 - tank, 4) >= flips_from else Label.TANK_TREADING
        reason = "stage-2"
    elif label is Label.UNCOUNTED:  # too brief to count, whatever they said
        label = Label.UNRELIABLE
    return Judgement(cell, label, reliable, tank, reason)
