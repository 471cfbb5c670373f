"""The counted cells of a session in their order, and the numbers that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import (
    AFTER_STOP,
    ANYTIME,
    CUT_BY_STOP,
    FIXED_N,
    FIXED_WIDTH,
    FRAGMENT,
    MEASURED,
    OTHER_SPEED,
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
    of_record,
)
from napari_rbcflow.sentences import say
from napari_rbcflow.session.crops import read_index
from napari_rbcflow.session.schema import NOT_CORRECTED, FractionFigure, read_run
from napari_rbcflow.types import DEFAULT_FPS, LEAST_FRAMES, Judgement, Label

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of ``cells.csv``, in the place of a track."""

    cell: int
    frames: int
    reason: str
    may_continue: tuple[int, ...]
    speed: float

    def __len__(self) -> int:
        return self.frames


_NOT_FINISHED = (CUT_BY_STOP, AFTER_STOP, RUN_FAILED)


def counted_cells(folder: Path, cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Return for each counted cell whether it is tank-treading, in the order of counting.

    ``cells.csv`` is sorted at the close of a session; the index of ``crops.zarr`` keeps the order in which
    tracks were handed over and counted.
    """
    return _tank_treading(_in_order(folder, cells)["label"])


def _in_order(folder: Path, cells: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    order = pd.Index(read_index(folder / "crops.zarr")[:, 0]).unique()
    rows = cells[["cell", "label", "reason"]].drop_duplicates("cell").set_index("cell")
    return rows.loc[order.intersection(rows.index, sort=False)]


def finished_labels(folder: Path, cells: pd.DataFrame) -> list[str]:
    """Return the labels of all tracks that ended before the stop, in the order of counting."""
    rows = _in_order(folder, cells)
    labels: list[str] = rows["label"][~rows["reason"].isin(_NOT_FINISHED)].tolist()
    return labels


class RuleMet(NamedTuple):
    """A stop rule, and the track that met it."""

    reason: str
    tracks: int


def first_met(rules: StopRules, labels: Iterable[str], level: float = 0.95) -> RuleMet | None:
    """Count tracks (from `finished_labels`) until a stop rule is met, as the run did; None if none is."""
    fraction = RunningFraction(level)
    for tracks, label in enumerate(labels, start=1):
        if label in (Label.TANK_TREADING, Label.FLIPPING):
            tank = label == Label.TANK_TREADING
            fraction.update(tank_treading=int(tank), flipping=int(not tank))
        if reason := rules.met_by(fraction, tracks):
            return RuleMet(reason, tracks)
    return None


def rows_counted(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Return as `counted_cells`, in the order of the table, which is that of counting until the close."""
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
    """Return the stop rules in ``run.json``, and the interval chosen for a fixed number of cells.

    None for older sessions, which give Wilson's interval whatever stopped them, and for impossible rules.
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
    """A session's tracks, counted again as its run did."""

    tally: Tally
    told: dict[int, str]  # the label that each track that ended before the stop got during the run
    labels: dict[int, tuple[str, str]]  # its label and reason at the end


def count_again(
    folder: Path, run: Mapping[str, Any], cells: pd.DataFrame, links: Mapping[int, Sequence[int]]
) -> CountedAgain | None:
    """Count the tracks of a closed session again by the speed of the cells in focus, as the run did.

    None for sessions without such a speed: older ones, and those that were not closed as usual.
    """
    import pandas as pd

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
    finished = [judgement for judgement in settled if judgement.reason not in _NOT_FINISHED]
    changed = tally.changed()
    return CountedAgain(
        tally,
        {judgement.cell: str(judgement.label) for judgement in finished},
        {**{j.cell: (j.label, j.reason) for j in finished}, **changed},
    )


def _as_judged(cell: int, row: Any, models: Mapping[str, Any]) -> Judgement:
    reliable, tank = (None if math.isnan(p) else float(p) for p in (row.p_reliable, row.p_tank_treading))
    label, reason = Label(row.label), str(row.reason)
    if reason in (OTHER_SPEED, FRAGMENT) and tank is not None:
        flips_from = float((models.get("stage2") or {}).get("threshold", 0.5))
        label = Label.FLIPPING if round(1 - tank, 4) >= flips_from else Label.TANK_TREADING
        reason = "stage-2"
    elif label is Label.UNCOUNTED:  # too brief to count, whatever it shows
        label = Label.UNRELIABLE
    return Judgement(cell, label, reliable, tank, reason)


USUAL_SHEAR_PER_S = 10.0  # at the wall (Darrin et al. 2023), for sessions that do not give it
FRACTION_TOLERANCE = 1e-4  # run.json may hold a fraction rounded to four decimals


def least_frames_of(run: Mapping[str, Any]) -> int:
    """Return the minimum length of a counted track; older sessions had the paper's."""
    return int(run["parameters"].get("least_frames") or LEAST_FRAMES)


def by_length(run: Mapping[str, Any], cells: pd.DataFrame) -> FractionByLength:
    """Return a session's fraction by track length."""
    shear, fps, level = _conditions(run)
    return fraction_by_length(cells, shear_rate_per_s=shear, fps=fps, level=level)


def unseen_flips(run: Mapping[str, Any], cells: pd.DataFrame) -> tuple[UnseenFlips, UnseenFlips]:
    """Return a session's fraction corrected for unseen flips: the least correction, and the greatest.

    The first assumes that the networks find real stiff cells as often as simulated ones, the second that they
    find one only by a turn in view. Where the labels may have decided when the run stopped, neither interval
    is narrower than the raw one, which allows for that.
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
    """Return the raw interval if it is one that allows for a stop by the labels."""
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
    """Return where the minimum length of a counted track, or the correction, is not what the tables give."""
    found, least = [], least_frames_of(run)
    counted = cells["label"].isin([Label.TANK_TREADING, Label.FLIPPING])
    held = cells["reason"] == TOO_FEW_FRAMES
    if (brief := cells["cell"][counted & (cells["frames"] < least)]).size:
        found.append(say("session.found-brief-counted", cells=len(brief), frames=least, first=brief.iloc[0]))
    wrong = held & ((cells["label"] != Label.UNCOUNTED) | ~cells["frames"].between(LEAST_FRAMES, least - 1))
    if (wrongly := cells["cell"][wrong]).size:
        found.append(say("session.found-brief-left-out", cells=len(wrongly), first=wrongly.iloc[0]))
    told = run.get("fraction_unseen_flips")
    if told is not None:
        right = unseen_flips_record(run, cells)
        for figures, others in ((told, right), (told.get("turns_only") or {}, right["turns_only"])):
            if not _alike(figures, others):
                found.append(say("session.found-unseen-flips-differ"))
                break
    return found


def _alike(told: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    for name in ("estimate", "low", "high", "seen"):
        a, b = told.get(name), right[name]
        if (a is None) != (b is None) or (a is not None and abs(a - b) > FRACTION_TOLERANCE):
            return False
    return all(told.get(name) == right[name] for name in ("method", "n", "reason"))


CALIBRATED = "calibrated"
"""Name of the interval of a fraction that a laboratory's calibration corrected."""
_TOLERANCE = 1e-3
"""Of an end of the corrected interval: another release of SciPy may round its quantiles otherwise."""


@dataclass(frozen=True)
class CorrectedFigure(FractionFigure):
    """A corrected fraction."""

    reason: str = ""  # why there is none, as a sentence; else empty


def corrected_figure(
    models: Mapping[str, Any],
    cells: Mapping[str, int],
    raw: FractionFigure,
    focus_speed: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> CorrectedFigure:
    """Return the fraction corrected for the errors of a run's networks.

    Parameters
    ----------
    models : mapping
        As in ``run.json``, with the counts behind the rates.
    cells : mapping
        As in ``run.json``.
    raw : FractionFigure
        The fraction without the correction. Where its interval is valid whatever stopped the run, so is the
        corrected one.
    focus_speed : mapping, optional
        As in ``run.json``. Where the cells in focus share a speed, tracks at other speeds cannot have been
        counted by mistake, and are left out of the unreliable ones.
    calibration : mapping, optional
        As in ``run.json``. Where it applies, its rates are taken, which are shares of all unreliable tracks.
    """
    level = raw.level
    calibrated = bool(calibration and calibration.get("applies"))
    handed = None
    if raw.method == ANYTIME and raw.low is not None and raw.high is not None:
        handed = raw.low, raw.high
    k, m = int(cells.get("tank_treading", 0)), int(cells.get("flipping", 0))
    try:
        if calibration and calibrated:
            rates, there = of_record(calibration["rates"]), None
        else:
            rates = NetworkRates.of_models(models)
            there = (focus_speed or {}).get("unreliable_there")
        unreliable = there if isinstance(there, int) else int(cells.get("unreliable", 0))
        found = corrected_fraction(k, m, unreliable, rates, level, handed)
    except ValueError as error:  # a faulty model card must not fail the end of a run
        why = say("estimate.not-corrected", why=error)
        return CorrectedFigure(None, None, None, level, NOT_CORRECTED, k + m, why)
    method = CALIBRATED if calibrated and found.estimate is not None else found.method
    return CorrectedFigure(found.estimate, found.low, found.high, level, method, found.n, found.reason)


def corrected_words(told: Mapping[str, Any], calibration: Mapping[str, Any] | None = None) -> str:
    """Say the corrected fraction in ``run.json``, or why there is none; empty if it holds neither."""
    estimate, low, high = (told.get(key) for key in ("estimate", "low", "high"))
    if estimate is None or low is None or high is None:
        return str(told.get("reason", ""))
    if calibration and told.get("method") == CALIBRATED:
        return say(
            "session.corrected-with",
            name=calibration.get("name"),
            days=calibration.get("days"),
            tracks=calibration.get("tracks"),
            estimate=100 * estimate,
            level=100 * told["level"],
            low=100 * low,
            high=100 * high,
            width=100 * (high - low),
        )
    return say(
        "session.corrected",
        estimate=100 * estimate,
        level=100 * told["level"],
        low=100 * low,
        high=100 * high,
    )


def words_of(folder: Path) -> str:
    """Return `corrected_words` of a session folder; empty if that cannot be read."""
    try:
        run = read_run(folder)
        return corrected_words(run.get("fraction_corrected") or {}, run.get("calibration"))
    except BadInput:
        return ""


def counts_words(models: Mapping[str, Any]) -> str:
    """Say on how many labelled cells the correction rests; empty if the models do not."""
    try:
        r = NetworkRates.of_models(models)
    except ValueError:
        return ""
    tank, flipping, *_ = r.let_through_as
    return say(
        "session.rates-counted",
        stage1_patients=_on(r.patients_of("let_through")),
        tank_found=r.tank_treading_found.hits,
        tank_of=r.tank_treading_found.of,
        flip_found=r.flipping_found.hits,
        flip_of=r.flipping_found.of,
        let_through=r.let_through.hits,
        unreliable=r.let_through.of,
        let_through_as=say("session.rates-let-through-as", tank_treading=tank, flipping=flipping)
        if sum(r.let_through_as)
        else "",
        stage2_patients=_on(r.patients_of("tank_treading_told")),
        tank_right=r.tank_treading_right.hits,
        tank_told=r.tank_treading_right.of,
        flip_right=r.flipping_right.hits,
        flip_told=r.flipping_right.of,
    )


def _on(patients: list[str]) -> str:
    if len(patients) < 2:
        return say("session.rates-one-patient", patient=patients[0]) if patients else ""
    return say("session.rates-patients", patients=", ".join(patients[:-1]), last=patients[-1])


def correction_findings(run: Mapping[str, Any], found: Mapping[str, int]) -> Iterator[str]:
    """Correct the fraction again, from the cells `found` in ``cells.csv``; older sessions have none."""
    told = run.get("fraction_corrected") or {}
    if told.get("estimate") is None and not told.get("reason"):
        return
    raw, calibration = FractionFigure(**run["fraction"]), run.get("calibration")
    right = corrected_figure(run["models"], found, raw, run.get("focus_speed"), calibration)
    for name in ("estimate", "low", "high"):
        value, wanted = told.get(name), getattr(right, name)
        if (value is None) != (wanted is None):
            yield (
                say("session.found-corrected-without-rates")
                if wanted is None
                else say("session.found-corrected-missing")
            )
            return
        if value is not None and not math.isclose(value, wanted, abs_tol=_TOLERANCE):
            yield say("session.found-corrected-differs", name=name, told=value, right=wanted)
    if told.get("n") != right.n:
        yield say("session.found-corrected-count", told=told.get("n"), right=right.n)
