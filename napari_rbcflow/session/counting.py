"""The counted cells of a session in their order, and the numbers that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import (
    AFTER_STOP,
    ANYTIME,
    CUT_BY_STOP,
    FIXED_N,
    FIXED_WIDTH,
    MEASURED,
    OTHER_SPEED,
    PIECE,
    RUN_FAILED,
    TOO_FEW_FRAMES,
    TURNS_ONLY,
    FixedN,
    FractionByLength,
    NetworkRates,
    RunningFraction,
    StopRules,
    Tally,
    UnseenFlips,
    correct_unseen_flips,
    corrected_fraction,
    fraction_by_length,
)
from napari_rbcflow.session.crops import read_index
from napari_rbcflow.session.schema import NOT_CORRECTED, FractionFigure, read_run
from napari_rbcflow.types import DEFAULT_FPS, LEAST_FRAMES, Judgement, Label


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


USUAL_SHEAR_PER_S = 10.0
"""At the wall (Darrin et al. 2023), where the session does not say."""
_WATCHED_TOLERANCE = 1e-4
"""Of a fraction, as in `verify`."""


def least_frames_of(run: Mapping[str, Any]) -> int:
    """Return the least length of a counted track; sessions from before there was a choice had the paper's."""
    return int(run["parameters"].get("least_frames") or LEAST_FRAMES)


def by_length(run: Mapping[str, Any], cells: pd.DataFrame) -> FractionByLength:
    """Return a session's fraction by track length.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds.
    cells : DataFrame
        ``cells.csv``.
    """
    shear, fps, level = _conditions(run)
    return fraction_by_length(cells, shear_rate_per_s=shear, fps=fps, level=level)


def unseen_flips(run: Mapping[str, Any], cells: pd.DataFrame) -> tuple[UnseenFlips, UnseenFlips]:
    """Return a session's fraction corrected for unseen flips: the least correction, and the greatest.

    The first takes it that real stiff cells are told as often as simulated ones, the second that only a turn
    that was seen tells them. Where what was seen may have decided when the run stopped, neither is surer than
    the raw interval of ``run.json``, which holds for that.

    Parameters
    ----------
    run, cells
        As of `by_length`.
    """
    shear, fps, level = _conditions(run)
    stage2 = str(((run.get("models") or {}).get("stage2") or {}).get("hash") or "")
    raw = _stopped_by_labels(run)
    least, most = (
        correct_unseen_flips(
            cells, curve, shear_rate_per_s=shear, fps=fps, level=level, stage2=stage2, raw=raw
        )
        for curve in (MEASURED, TURNS_ONLY)
    )
    return least, most


def _stopped_by_labels(run: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the raw interval where it is one that allows for a stop by what was seen."""
    raw = run["fraction"]
    low, high = raw.get("low"), raw.get("high")
    if raw.get("method") not in (ANYTIME, FIXED_WIDTH) or low is None or high is None:
        return None
    return float(low), float(high)


def unseen_flips_record(run: Mapping[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    """Return the same as ``fraction_unseen_flips`` of ``run.json``, the greatest under ``turns_only``."""
    least, most = unseen_flips(run, cells)
    return {**least.as_dict(), "turns_only": most.as_dict()}


def _conditions(run: Mapping[str, Any]) -> tuple[float, float, float]:
    """Shear rate at the wall, frame rate and level of a session."""
    parameters = run["parameters"]
    details = parameters.get("source_details") or {}
    shear = _above_0(parameters.get("shear_rate_per_s")) or _above_0(details.get("shear_rate_per_s"))
    fps = _above_0(parameters.get("fps"))
    return shear or USUAL_SHEAR_PER_S, fps or DEFAULT_FPS, float(run["fraction"]["level"])


def _above_0(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 and number != float("inf") else None


def watched_findings(run: Mapping[str, Any], cells: pd.DataFrame) -> list[str]:
    """Return where the least length of a counted track, or the correction, is not what the tables give.

    Parameters
    ----------
    run, cells
        As of `by_length`.
    """
    said, least = [], least_frames_of(run)
    counted = cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])
    held = cells["reason"] == TOO_FEW_FRAMES
    if (brief := cells["cell"][counted & (cells["frames"] < least)]).size:
        said.append(
            f"cells.csv counts {len(brief)} cells seen in under {least} frames, the least that run.json names"
            f" (first {brief.iloc[0]})."
        )
    wrong = held & ((cells["label"] != Label.UNCOUNTED) | ~cells["frames"].between(LEAST_FRAMES, least - 1))
    if (wrongly := cells["cell"][wrong]).size:
        said.append(
            f"cells.csv leaves out {len(wrongly)} cells as seen in too few frames that are not so"
            f" (first {wrongly.iloc[0]})."
        )
    told = run.get("fraction_unseen_flips")
    if told is not None:
        right = unseen_flips_record(run, cells)
        for figures, others in ((told, right), (told.get("turns_only") or {}, right["turns_only"])):
            if not _alike(figures, others):
                said.append("run.json: fraction_unseen_flips is not what cells.csv gives.")
                break
    return said


def _alike(told: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    for name in ("estimate", "low", "high", "seen"):
        a, b = told.get(name), right[name]
        if (a is None) != (b is None) or (a is not None and abs(a - b) > _WATCHED_TOLERANCE):
            return False
    return all(told.get(name) == right[name] for name in ("method", "n", "reason"))


_TOLERANCE = 1e-3
"""Of an end: another release of SciPy may round its quantiles otherwise."""


@dataclass(frozen=True)
class CorrectedFigure(FractionFigure):
    """A corrected fraction.

    Attributes
    ----------
    reason : str
        A sentence where there is none; else empty.
    """

    reason: str = ""


def corrected_figure(
    models: Mapping[str, Any],
    cells: Mapping[str, int],
    raw: FractionFigure,
    focus_speed: Mapping[str, Any] | None = None,
) -> CorrectedFigure:
    """Return the fraction corrected for the errors of a run's networks.

    Parameters
    ----------
    models : mapping
        As in ``run.json``, with the counts behind the rates.
    cells : mapping
        As in ``run.json``.
    raw : FractionFigure
        What is said without the correction. Where its interval holds whatever stopped the run, so does the
        corrected one.
    focus_speed : mapping, optional
        As in ``run.json``. Where the cells in focus share a speed, tracks at other speeds cannot have been
        counted by mistake, and are not among those of which some were.
    """
    level = raw.level
    handed = None
    if raw.method == ANYTIME and raw.low is not None and raw.high is not None:
        handed = raw.low, raw.high
    k, m = int(cells.get("tank_treading", 0)), int(cells.get("flipping", 0))
    try:
        rates = NetworkRates.of_models(models)
        there = (focus_speed or {}).get("unreliable_there")
        unreliable = there if isinstance(there, int) else int(cells.get("unreliable", 0))
        found = corrected_fraction(k, m, unreliable, rates, level, handed)
    except ValueError as error:  # of the card: a run's end is not the place to fail for it
        return CorrectedFigure(
            None, None, None, level, NOT_CORRECTED, k + m, f"No corrected number: {error}."
        )
    return CorrectedFigure(found.estimate, found.low, found.high, level, found.method, found.n, found.reason)


def corrected_words(told: Mapping[str, Any]) -> str:
    """Say the corrected fraction of ``run.json``, or why there is none; empty where neither is told."""
    estimate, low, high = (told.get(key) for key in ("estimate", "low", "high"))
    if estimate is None or low is None or high is None:
        return str(told.get("reason", ""))
    return (
        f"Corrected for the networks' known errors: {100 * estimate:.1f} %"
        f" ({100 * told['level']:g} % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )


def words_of(folder: Path) -> str:
    """Say it of a session folder; empty where that cannot be read, which others tell."""
    try:
        return corrected_words(read_run(folder).get("fraction_corrected") or {})
    except BadInput:
        return ""


def counts_words(models: Mapping[str, Any]) -> str:
    """Say on how many labelled cells the correction rests; empty where the models do not tell."""
    try:
        r = NetworkRates.of_models(models)
    except ValueError:
        return ""
    told = r.let_through_as
    first, second = (_on(r.patients_of(name)) for name in ("let_through", "tank_treading_told"))
    labels = f", labelled {told[0]} tank-treading and {told[1]} flipping" if sum(told) else ""
    return (
        f"The rates were counted on labelled cells that the networks had not seen: stage 1{first} found"
        f" {r.tank_treading_found.hits} of {r.tank_treading_found.of} tank-treading and"
        f" {r.flipping_found.hits} of {r.flipping_found.of} flipping ones and let {r.let_through.hits} of"
        f" {r.let_through.of} unreliable ones through{labels}; stage 2{second} was right on"
        f" {r.tank_treading_right.hits} of {r.tank_treading_right.of} tank-treading and"
        f" {r.flipping_right.hits} of {r.flipping_right.of} flipping ones."
    )


def _on(patients: list[str]) -> str:
    if len(patients) < 2:
        return f", on patient {patients[0]}," if patients else ""
    return f", on patients {', '.join(patients[:-1])} and {patients[-1]},"


def correction_findings(run: Mapping[str, Any], found: Mapping[str, int]) -> Iterator[str]:
    """Work the corrected fraction out again from the cells `found` in ``cells.csv``, and compare.

    Only what is said is checked: a session of before the correction says nothing.
    """
    told = run.get("fraction_corrected") or {}
    if told.get("estimate") is None and not told.get("reason"):
        return
    right = corrected_figure(run["models"], found, FractionFigure(**run["fraction"]), run.get("focus_speed"))
    for name in ("estimate", "low", "high"):
        said, wanted = told.get(name), getattr(right, name)
        if (said is None) != (wanted is None):
            yield (
                "run.json gives a corrected fraction, but its counts and rates give none."
                if wanted is None
                else "run.json gives no corrected fraction, but its counts and rates give one."
            )
            return
        if said is not None and not math.isclose(said, wanted, abs_tol=_TOLERANCE):
            yield f"run.json gives the corrected fraction's {name} as {said:.6g}; it is {wanted:.6g}."
    if told.get("n") != right.n:
        yield f"run.json: the corrected fraction is of {told.get('n')} cells, cells.csv holds {right.n}."
