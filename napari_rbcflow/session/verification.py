"""Whether a session folder is whole, and its number is the one that its cells give."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.estimate import StopRules, said, wilson
from napari_rbcflow.ring import open_ring
from napari_rbcflow.session import counting, tables
from napari_rbcflow.session.counting import (
    RuleMet,
    counted_cells,
    finished_labels,
    first_met,
    recount,
    rules_of,
)
from napari_rbcflow.session.counting import watched_findings as faults_of_lengths
from napari_rbcflow.session.crops import CropReader
from napari_rbcflow.session.label_edits import findings as faults_of_changes
from napari_rbcflow.session.label_edits import read_audit
from napari_rbcflow.session.reader import Session, open_session
from napari_rbcflow.session.report import tells_of_changes
from napari_rbcflow.session.schema import CELL_COUNTS, DamagedRun, FractionFigure, is_being_written
from napari_rbcflow.session.tables import spans
from napari_rbcflow.types import LEAST_FRAMES, Label

_TOLERANCE = 1e-4
"""Of a fraction: ``run.json`` may hold it rounded to as little as four decimals."""
_MET_BY_CELLS = ("reliable", "half-width", "baseline", "tracks")


def findings_of_fraction(told: dict[str, Any], k: int, m: int) -> Iterator[str]:
    """Compare the fraction of ``run.json`` with `k` tank-treading and `m` flipping cells in ``cells.csv``."""
    n = k + m
    if told["n"] != n:
        yield f"run.json: the fraction is of {told['n']} cells, cells.csv holds {n} that count."
    estimate, low, high = told["estimate"], told["low"], told["high"]
    if not n:
        if estimate is not None:
            yield "run.json gives a fraction where no cell counts."
        return
    if estimate is None or not math.isclose(estimate, k / n, abs_tol=_TOLERANCE):
        yield f"run.json gives a fraction of {estimate}, cells.csv one of {k / n:.6g}."
    if low is None or high is None or not 0 <= low <= high <= 1:
        yield f"run.json: {low} to {high} is not an interval."
    elif told["method"] == "wilson":
        yield from _ends(told, "wilson", wilson(k, n, told["level"]))


def findings_of_interval(session: Session) -> Iterator[str]:
    """Count the cells again in their order, and work out the interval that belongs to how the run ended."""
    run = session.run
    told = run["fraction"]
    if told["low"] is None or told["high"] is None:
        return
    rules = rules_of(run["parameters"])
    if rules is None:
        if told["method"] != "wilson":
            yield (
                f"run.json gives the {told['method']} interval, but not the stop rules to which it belongs:"
                " it cannot be checked."
            )
        return
    if (again := session.counted_again) is not None:
        fraction = again.tally.fraction
    else:
        fraction = recount(counted_cells(session.folder, session.cells), told["level"])
    right = said(fraction, rules[0], run["status"], run["stop_reason"], rules[1])
    if told["method"] != right.method:
        yield (
            f"run.json gives the {told['method']} interval, but to a run that ended so"
            f" ({run['status']}, {run['stop_reason']}) belongs the {right.method} one."
        )
    elif right.method != "wilson":  # that one was looked at with the counts
        yield from _ends(told, right.method, right.interval)


def findings_of_stop(session: Session) -> Iterator[str]:
    """Count again until a stop rule is met: it must be the one that is named, and met by the last cell."""
    run = session.run
    chosen = rules_of(run["parameters"])
    if chosen is None:
        return
    rules: StopRules = chosen[0]
    reason = str(run["stop_reason"])
    labels = finished_labels(session.folder, session.cells)
    if (again := session.counted_again) is not None:
        enough = again.tally.enough
        met = None if enough is None else RuleMet(enough, again.tally.finished)
    else:
        met = first_met(rules, labels, run["fraction"]["level"])
    if reason in _MET_BY_CELLS:
        if met is None:
            yield f"run.json says that the rule {reason} stopped the run, but its cells do not meet it."
            return
        if met.reason != reason:
            yield f"run.json says that the rule {reason} stopped the run; its cells first met {met.reason}."
    elif met is not None and run["status"] == "finished":
        yield f"run.json says that {reason} ended the run, but its cells met the rule {met.reason} before."
    if met is not None and met.tracks != len(labels):
        yield (
            f"The rule {met.reason} was met by track {met.tracks} of those that ended before the stop,"
            f" but {len(labels)} are in the number."
        )


def findings_of_focus_speed(session: Session) -> Iterator[str]:
    """Learn the speed of the cells in focus again, and find the tracks whose labels do not follow from it."""
    again, told = session.counted_again, session.run.get("focus_speed") or {}
    if again is None:
        return
    right = {**again.tally.focus.as_dict(), "set_aside": again.tally.set_aside}
    if told != right:
        yield f"run.json gives the speed of cells in focus as {told}; its tracks give {right}."
    cells = session.cells
    rows = zip(cells["cell"], zip(cells["label"], cells["reason"], strict=True), strict=True)
    if wrong := [cell for cell, said in rows if again.labels.get(cell, said) != said]:
        yield (
            f"cells.csv: {len(wrong)} labels are not what the networks and the speed of cells in focus give"
            f" (first cell {wrong[0]})."
        )


def findings_of_corrected(session: Session) -> Iterator[str]:
    """Find where the corrected number is neither told nor is it said why there is none."""
    run = session.run
    told = run.get("fraction_corrected") or {}
    # A run that broke was perhaps closed by another process, which does not work it out.
    if rules_of(run["parameters"]) is None or run["status"] == "failed":
        return
    if told.get("estimate") is None and not told.get("reason"):
        yield "run.json gives neither a corrected fraction nor a reason why there is none."


def _ends(told: dict[str, Any], method: str, right: tuple[float, float]) -> Iterator[str]:
    for name, end in zip(("low", "high"), right, strict=True):
        if not math.isclose(told[name], end, abs_tol=_TOLERANCE):
            yield f"run.json gives the interval's {name} end as {told[name]:.6g}; {method} gives {end:.6g}."


Check = Callable[[Session], Iterator[str]]
WHOLE, INCOMPLETE, NOT_A_SESSION = 0, 1, 2


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes
    ----------
    code : int
        0 whole, 1 recovered or incomplete, 2 not a session: the exit status of ``rbcflow verify``.
    findings : list of str
        Sentences; empty for a whole session.
    """

    code: int
    findings: list[str] = field(default_factory=list)


def verify(folder: Path | str) -> Verdict:
    """Check a session folder against itself.

    Every frame that the ring's ledger names and every crop is read and compared with its checksum;
    the tables, the crops and ``run.json`` must tell the same story; the fraction is computed again.

    Parameters
    ----------
    folder : Path or str
    """
    checks: tuple[Check, ...] = (
        _ending,
        _frames,
        _tables,
        _number,
        _watched,
        _pieces,
        _unchanged,
        _by_hand,
        _crops,
        _ring,
        _report,
    )
    findings: list[str] = []
    try:
        session = open_session(folder)
    except DamagedRun as error:
        # Without run.json it is as after a crash: the tables and arrays are all that is to be believed.
        session = Session(Path(folder), {"status": "running"})
        if not (there := list(_recoverable(session))):
            return Verdict(NOT_A_SESSION, [str(error)])
        findings.append(f"The account of the run is lost: {error.what}. Recoverable: {', '.join(there)}.")
        checks = (_tables, _pieces, _by_hand, _crops, _ring)
    except BadInput as error:
        return Verdict(NOT_A_SESSION, [str(error)])
    for check in checks:
        try:
            for finding in check(session):
                findings.append(finding)
        except RbcflowError as error:
            findings.append(str(error))
        except Exception as error:  # damage has no limits; say what broke, and go on with the rest
            findings.append(f"{check.__name__.strip('_')} cannot be checked: {type(error).__name__}: {error}")
    return Verdict(INCOMPLETE if findings else WHOLE, findings)


def _running(session: Session) -> bool:
    return bool(session.run["status"] == "running")


def _ending(session: Session) -> Iterator[str]:
    run = session.run
    if _running(session):
        if is_being_written(session.folder):
            yield "The run is still going on: verify again when it has ended."
        else:
            frames = len(session.ring) if session.ring is not None else 0
            # Whoever reads a number here must have read what forbids to act on it.
            grave = " ".join(w.said for w in session.warnings if w.grave and w.key != "not-ended")
            yield (
                f"{grave}{' ' if grave else ''}"
                "The run was interrupted and its session never closed. Recovered:"
                f" {len(session.cells)} tracks, {_said(session.fraction)}, {frames} raw frames."
            )
        return
    for name in ("started", "ended", "stop_reason"):
        if not run.get(name):
            yield f"run.json does not say {name}."
    for name in ("parameters", "models", "versions", "warnings", "latency_ms", "fraction_corrected"):
        if name not in run:
            yield f"run.json has no {name}."


def _said(fraction: FractionFigure) -> str:
    if fraction.estimate is None or fraction.low is None or fraction.high is None:
        return "no cell that counts"
    return (
        f"a fraction of {fraction.estimate:.3f} ({fraction.low:.3f} to {fraction.high:.3f})"
        f" from {fraction.n} cells"
    )


def _recoverable(session: Session) -> Iterator[str]:
    """Say what lies in a folder without a usable ``run.json``; nothing where none of it is a session's."""
    # Suppressed is whatever a library says of a folder that was never ours.
    with contextlib.suppress(Exception):
        if tables.whole_lines(session.folder / "cells.csv"):
            yield f"{len(session.cells)} tracks in cells.csv with {_said(session.fraction)}"
    with contextlib.suppress(Exception):
        yield f"the crops of {len(CropReader(session.folder / 'crops.zarr').index)} tracks in crops.zarr"
    if session.ring is not None:
        yield f"{len(session.ring)} raw frames in frames.zarr"


def _frames(session: Session) -> Iterator[str]:
    frames = session.run["frames"]
    received, processed = frames["received"], frames["processed"]
    dropped = sum(frames["dropped"].values())
    if min([received, processed, *frames["dropped"].values(), *frames["missed"].values()]) < 0:
        yield "run.json counts a negative number of frames."
    if not _running(session) and received != processed + dropped:
        yield f"run.json: {received} frames received are not {processed} processed and {dropped} dropped."


def _tables(session: Session) -> Iterator[str]:
    for name in ("cells.csv", "tracks.csv"):
        path = session.folder / name
        if path.exists() and path.stat().st_size and not tables.ends_with_a_line(path):
            yield f"{name} ends within a line."
    cells = session.cells
    twice = cells["cell"][cells["cell"].duplicated()].unique()
    if len(twice):
        yield f"cells.csv: {len(twice)} cells stand there more than once (first {twice[0]})."
    yield from _labels(cells)
    if not _running(session):
        yield from _counts(session)
        order = cells.sort_values(["last_frame", "cell"], kind="stable").index
        if not np.array_equal(order, np.arange(len(cells))):
            yield "cells.csv is not in the order of last_frame, then cell."
    tracks = spans(session.folder / "tracks.csv", cells["cell"].to_numpy())
    if not _running(session):
        if not tracks.in_order:
            yield "tracks.csv is not in the order of cell, then frame."
        if tracks.surplus:
            yield f"tracks.csv: {tracks.surplus} rows belong to no cell in cells.csv."
    found = tracks.of_cell.reindex(cells["cell"])
    told = cells.set_index("cell")[["frames", "first_frame", "last_frame"]]
    wrong = cells["cell"][(found.to_numpy() != told.to_numpy()).any(axis=1)]
    if len(wrong):
        yield (
            f"tracks.csv does not fit cells.csv for {len(wrong)} of {len(cells)} cells"
            f" (first {wrong.iloc[0]}): positions are missing or changed."
        )
    gaps = cells["last_frame"] - cells["first_frame"] + 1 - cells["frames"]
    if (untold := cells["cell"][gaps != cells["gap_frames"]]).size:
        yield f"cells.csv: gap_frames of {len(untold)} cells does not fit (first {untold.iloc[0]})."


def _watched(session: Session) -> Iterator[str]:
    if not _running(session):
        yield from faults_of_lengths(session.run, session.cells)


def _pieces(session: Session) -> Iterator[str]:
    cells, links = session.cells, tables.read_links(session.folder)
    kept = set(cells["cell"])
    if _running(session):  # a crash can come between a track's pieces and its row in cells.csv
        links = {cell: before for cell, before in links.items() if cell in kept}
    labels = dict(zip(cells["cell"], cells["label"], strict=True))
    yield from tables.findings(links, labels, dict(zip(cells["cell"], cells["reason"], strict=True)))


def _unchanged(session: Session) -> Iterator[str]:
    if _running(session):
        return
    for name, told in session.run["files"].items():
        if tables.fingerprint(session.folder / name) != told:
            yield f"{name} was changed after the session was closed."


def _by_hand(session: Session) -> Iterator[str]:
    audit = read_audit(session.folder)
    machine = dict(zip(session.cells["cell"], session.cells["label"], strict=True))
    again = session.counted_again if audit.changes else None
    yield from faults_of_changes(audit, machine, {} if again is None else again.told)
    if session.changes_standing:
        labels = dict(zip(session.cells["cell"], session.labels_by_hand, strict=True))
        for cell in tables.counted_twice(tables.read_links(session.folder), labels):
            yield f"changes.csv: by hand, cell {cell} counts beside one that it may be a piece of."
    page = session.folder / "report.html"
    if not _running(session) and page.exists() and not tells_of_changes(session.folder, len(audit.changes)):
        yield "report.html does not tell of the last changes by hand: changing another cell writes it anew."


def _labels(cells: pd.DataFrame) -> Iterator[str]:
    label, reliable, tank = cells["label"], cells["p_reliable"], cells["p_tank_treading"]
    unknown = ~label.isin(list(Label))
    counted = label.isin([Label.TANK_TREADING, Label.FLIPPING])
    outside = ~(reliable.isna() | reliable.between(0, 1)) | ~(tank.isna() | tank.between(0, 1))
    bad = (
        unknown
        | outside
        | (counted & (reliable.isna() | tank.isna()))
        | ((label == Label.UNRELIABLE) & reliable.isna())
        | ((label == Label.TOO_SHORT) & ((cells["frames"] >= LEAST_FRAMES) | reliable.notna() | tank.notna()))
    )
    if bad.any():
        yield (
            f"cells.csv: {int(bad.sum())} labels do not fit their probabilities or lengths"
            f" (first cell {cells['cell'][bad].iloc[0]})."
        )
    # Whatever the thresholds were: no cell that was discarded by stage 1 is more reliable than one
    # that passed, and no flipping cell treads more surely than one that is called tank-treading.
    discarded = (label == Label.UNRELIABLE) & tank.isna()
    if _crosses(reliable[discarded], reliable[counted]):
        yield "cells.csv: some unreliable cells have a higher p_reliable than some that were counted."
    if _crosses(tank[label == Label.FLIPPING], tank[label == Label.TANK_TREADING]):
        yield "cells.csv: some flipping cells have a higher p_tank_treading than some tank-treading ones."


def _crosses(lower: pd.Series[float], upper: pd.Series[float]) -> bool:
    return bool(len(lower) and len(upper) and lower.max() > upper.min())


def _counts(session: Session) -> Iterator[str]:
    told, labels = session.run["cells"], session.cells["label"]
    found = {name: int((labels == name.replace("_", "-")).sum()) for name in CELL_COUNTS[1:]}
    found["tracked"] = len(labels)
    for name in CELL_COUNTS:
        if told.get(name) != found[name]:
            yield f"run.json counts {told.get(name)} cells {name}, cells.csv holds {found[name]}."
    yield from findings_of_fraction(session.run["fraction"], found["tank_treading"], found["flipping"])
    yield from counting.correction_findings(session.run, found)


def _number(session: Session) -> Iterator[str]:
    if not _running(session):
        yield from findings_of_interval(session)
        yield from findings_of_stop(session)
        yield from findings_of_focus_speed(session)
        yield from findings_of_corrected(session)


def _crops(session: Session) -> Iterator[str]:
    reader = CropReader(session.folder / "crops.zarr")
    frames = session.cells.set_index("cell")["frames"]
    lengths = pd.Series(reader.index[:, 2], index=reader.index[:, 0])
    without = frames.index.difference(lengths.index)
    if len(without):
        yield f"crops.zarr: {len(without)} of {len(frames)} cells have no crops (first {without[0]})."
    if not _running(session):
        surplus = lengths.index.difference(frames.index)
        if len(surplus):
            yield f"crops.zarr holds {len(surplus)} cells that are not in cells.csv (first {surplus[0]})."
    both = frames.index.intersection(lengths.index)
    if not lengths.index.is_unique or not frames.index.is_unique:
        yield "crops.zarr or cells.csv names a cell more than once."
    elif (wrong := both[(lengths[both] != frames[both]).to_numpy()]).size:
        yield f"crops.zarr: {len(wrong)} cells have not as many crops as frames (first {wrong[0]})."
    damaged = [cell for cell in reader.damaged() if cell in frames.index]
    if damaged:
        yield f"crops.zarr: {len(damaged)} of {len(frames)} cells have damaged crops (first {damaged[0]})."


def _ring(session: Session) -> Iterator[str]:
    path = session.folder / "frames.zarr"
    if not path.exists():
        yield "frames.zarr is missing: the last raw frames are gone."
        return
    yield from open_ring(path).check()


def _report(session: Session) -> Iterator[str]:
    if not _running(session):
        for name in ("report.html", "run.log"):
            path = session.folder / name
            if not path.exists() or not path.stat().st_size:
                yield f"{name} is missing."
