"""Checks that a session folder is whole and that its number follows from its cells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed, sentence_of
from napari_rbcflow.estimate import reported_interval, wilson
from napari_rbcflow.ring import open_ring
from napari_rbcflow.sentences import say
from napari_rbcflow.session import counting, tables
from napari_rbcflow.session.append_only import one_line
from napari_rbcflow.session.counting import (
    FRACTION_TOLERANCE,
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
from napari_rbcflow.session.report import (
    report_findings,
    shows_changes,
    shows_signatures,
    write_report_again,
)
from napari_rbcflow.session.review import TABLE as REVIEWS
from napari_rbcflow.session.review import findings as faults_of_review
from napari_rbcflow.session.review import known_name
from napari_rbcflow.session.schema import (
    CELL_COUNTS,
    RUN_FILE,
    DamagedRun,
    FractionFigure,
    is_being_written,
    is_simulated,
    locked,
)
from napari_rbcflow.session.signature import (
    Signature,
    append_signature,
    read_signatures,
    report_hash,
    signature_findings,
    signed_hashes,
)
from napari_rbcflow.session.tables import spans
from napari_rbcflow.session.verdict import conclude
from napari_rbcflow.types import LEAST_FRAMES, Label, RunStatus, StopReason

if TYPE_CHECKING:
    import pandas as pd

_MET_BY_CELLS = (StopReason.RELIABLE, StopReason.HALF_WIDTH, StopReason.BASELINE, StopReason.TRACKS)


def findings_of_fraction(told: dict[str, Any], k: int, m: int) -> Iterator[str]:
    """Compare the fraction in ``run.json`` with `k` tank-treading and `m` flipping cells in ``cells.csv``."""
    n = k + m
    if told["n"] != n:
        yield say("session.found-fraction-count", told=told["n"], found=n)
    estimate, low, high = told["estimate"], told["low"], told["high"]
    if not n:
        if (estimate, low, high) != (None, None, None):
            yield say("session.found-fraction-of-none")
        return
    if estimate is None or not math.isclose(estimate, k / n, abs_tol=FRACTION_TOLERANCE):
        yield say("session.found-fraction-differs", told=estimate, found=k / n)
    if low is None or high is None or not 0 <= low <= high <= 1:
        yield say("session.found-not-an-interval", low=low, high=high)
    elif told["method"] == "wilson":
        yield from _ends(told, "wilson", wilson(k, n, told["level"]))


def findings_of_interval(session: Session) -> Iterator[str]:
    """Count the cells again in their order, and compute the interval that fits how the run ended."""
    run = session.run
    told = run["fraction"]
    if told["low"] is None or told["high"] is None:
        return
    rules = rules_of(run["parameters"])
    if rules is None:
        if told["method"] != "wilson":
            yield say("session.found-interval-without-rules", method=told["method"])
        return
    if (again := session.counted_again) is not None:
        fraction = again.tally.fraction
    else:
        fraction = recount(counted_cells(session.folder, session.cells), told["level"])
    right = reported_interval(fraction, rules[0], run["status"], run["stop_reason"], rules[1])
    if told["method"] != right.method:
        yield say(
            "session.found-interval-of-another-end",
            told=told["method"],
            status=run["status"],
            reason=run["stop_reason"],
            right=right.method,
        )
    elif right.method != "wilson":  # that one was checked with the counts
        yield from _ends(told, right.method, right.interval)


def findings_of_stop(session: Session) -> Iterator[str]:
    """Count again until a stop rule is met: it must be the one that is named, and met by the last cell."""
    run = session.run
    chosen = rules_of(run["parameters"])
    if chosen is None:
        return
    reason = str(run["stop_reason"])
    labels = finished_labels(session.folder, session.cells)
    if (again := session.counted_again) is not None:
        enough = again.tally.enough
        met = None if enough is None else RuleMet(enough, again.tally.finished)
    else:
        met = first_met(chosen[0], labels, run["fraction"]["level"])
    if reason in _MET_BY_CELLS:
        if met is None:
            yield say("session.found-rule-not-met", reason=reason)
            return
        if met.reason != reason:
            yield say("session.found-other-rule-met", reason=reason, met=met.reason)
    elif met is not None and run["status"] == RunStatus.FINISHED:
        yield say("session.found-rule-met-before", reason=reason, met=met.reason)
    if met is not None and met.tracks != len(labels):
        yield say("session.found-rule-met-by-track", met=met.reason, track=met.tracks, tracks=len(labels))


def findings_of_focus_speed(session: Session) -> Iterator[str]:
    """Learn the speed of the cells in focus again, and find labels that do not follow from it."""
    again, told = session.counted_again, session.run.get("focus_speed") or {}
    if again is None:
        return
    right = {**again.tally.focus.as_dict(), "set_aside": again.tally.set_aside}
    if told != right:
        yield say("session.found-focus-speed-differs", told=told, right=right)
    cells = session.cells
    rows = zip(cells["cell"], zip(cells["label"], cells["reason"], strict=True), strict=True)
    if wrong := [cell for cell, label in rows if again.labels.get(cell, label) != label]:
        yield say("session.found-labels-of-focus-speed", cells=len(wrong), first=wrong[0])


def findings_of_corrected(session: Session) -> Iterator[str]:
    """Find a session with neither a corrected number nor a reason why there is none."""
    run = session.run
    told = run.get("fraction_corrected") or {}
    # A failed run may have been closed by another process, which does not compute it.
    if rules_of(run["parameters"]) is None or run["status"] == RunStatus.FAILED:
        return
    if told.get("estimate") is None and not told.get("reason"):
        yield say("session.found-nothing-corrected")


def findings_of_verdict(session: Session) -> Iterator[str]:
    """Conclude again from ``run.json``, without the review, whose verdict stands in ``review.json``."""
    told = session.run.get("verdict")  # older sessions have none
    right = conclude(session.run)
    if told is not None and told != right.verdict:
        yield say("session.found-verdict-differs", told=told, right=right.verdict, why=right.reason)
    elif told is not None and not session.run.get("verdict_reason"):
        yield say("session.found-not-said", name="verdict_reason")


def _ends(told: dict[str, Any], method: str, right: tuple[float, float]) -> Iterator[str]:
    for name, end in zip(("low", "high"), right, strict=True):
        if not math.isclose(told[name], end, abs_tol=FRACTION_TOLERANCE):
            yield say("session.found-end-differs", name=name, told=told[name], method=method, right=end)


Check = Callable[[Session], Iterator[str]]
WHOLE, INCOMPLETE, NOT_A_SESSION = 0, 1, 2


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    code : int
        0 whole, 1 recovered or incomplete, 2 not a session: the exit status of ``rbcflow verify``.
    findings : list of str
        Sentences; empty if the session is whole.
    chain : list of str
        How the number follows from the frames, step by step, a sentence each.
    """

    code: int
    findings: list[str] = field(default_factory=list)
    chain: list[str] = field(default_factory=list)


def verify(folder: Path | str, *, only_number: bool = False) -> Verification:
    """Check a session folder against itself.

    Every frame in the ring's ledger and every crop is read and compared with its checksum; the tables, the
    crops and ``run.json`` must agree; the fraction is computed again.

    Parameters
    ----------
    folder : Path or str
    only_number : bool
        Check what the number follows from, and neither the pictures nor the report.
    """
    checks = _CHECKS
    if only_number:
        checks = tuple(check for check in checks if check not in (_crops, _ring, _report, _page, _signed))
    return _verified(folder, checks)


def _verified(folder: Path | str, checks: tuple[Check, ...]) -> Verification:
    findings: list[str] = []
    try:
        session = open_session(folder)
    except DamagedRun as error:
        # Without run.json it is as after a crash: only the tables and arrays can be trusted.
        session = Session(Path(folder), {"status": RunStatus.RUNNING})
        if not (there := list(_recoverable(session))):
            return Verification(NOT_A_SESSION, [str(error)])
        findings.append(say("session.found-run-lost", what=error.what, parts=", ".join(there)))
        checks = (_tables, _fragments, _by_hand, _crops, _ring)
    except BadInput as error:
        return Verification(NOT_A_SESSION, [str(error)])
    broken: set[Check] = set()
    for check in checks:
        before = len(findings)
        try:
            for finding in check(session):
                findings.append(finding)
        except RbcflowError as error:
            findings.append(str(error))
        except Exception as error:  # damage can do anything: name what broke, and go on with the rest
            part = check.__name__.strip("_")
            findings.append(say("session.found-check-failed", part=part, why=sentence_of(error)))
        if len(findings) > before:
            broken.add(check)
    chain = [] if session.running else list(_chain(session, set(checks), broken))
    return Verification(INCOMPLETE if findings else WHOLE, findings, chain)


def _chain(session: Session, checks: set[Check], broken: set[Check]) -> Iterator[str]:
    """Say of each step from the frames to the report what it is, or that it does not match."""
    for part, needed in _PARTS.items():
        if not needed <= checks:
            continue
        if needed & broken:
            yield say("session.chain-broken", part=say(f"session.chain-part-{part}"))
        else:
            with contextlib.suppress(RbcflowError, OSError):
                yield _CHAIN[part](session)
    if _signed in checks:
        with contextlib.suppress(RbcflowError):
            yield from (one.words(one.changed(session.folder)) for one in read_signatures(session.folder))


def sign(folder: Path | str, by: str) -> Signature:
    """Sign a session's report off, as ``rbcflow sign`` does; the report says so.

    Parameters
    ----------
    folder : Path or str
    by : str
        Who signs.

    Returns
    -------
    Signature

    Raises
    ------
    BadInput
        If nobody is named, the session is not whole, or that person has signed it as it is already.
    """
    folder = Path(folder)
    if not (by := one_line(by)):
        raise BadInput("session.sign-by-nobody")
    before = signed_hashes(folder)
    # The page is written anew, and who signs looks at it.
    found = _verified(folder, tuple(check for check in _CHECKS if check not in (_page, _signed)))
    if found.code == NOT_A_SESSION:
        raise BadInput.told(found.findings[0])
    if found.findings:
        raise BadInput("session.sign-not-whole", folder=folder, finding=found.findings[0])
    with locked(folder / "cells.csv"):
        if signed_hashes(folder) != before:
            raise BadInput("session.sign-changed-meanwhile", folder=folder)
        _write_report(folder)  # as this version of the program writes it
        by = known_name(by, {one.by: None for one in read_signatures(folder)})
        signature = append_signature(folder, by)
        _write_report(folder)
    return signature


def _write_report(folder: Path) -> None:
    if fault := write_report_again(folder):
        raise RunFailed("session.sign-report", folder=folder, why=fault)


def _ending(session: Session) -> Iterator[str]:
    run = session.run
    if session.running:
        if is_being_written(session.folder):
            yield say("session.found-still-running")
        else:
            frames = len(session.ring) if session.ring is not None else 0
            # Whoever reads a number here must first read what forbids acting on it.
            grave = [w.text for w in session.warnings if w.grave and w.key != "not-ended"]
            recovered = say(
                "session.found-interrupted",
                tracks=len(session.cells),
                fraction=_fraction_words(session.fraction),
                frames=frames,
            )
            yield " ".join([*grave, recovered])
        return
    for name in ("started", "ended", "stop_reason"):
        if not run.get(name):
            yield say("session.found-not-said", name=name)
    for name in ("parameters", "models", "versions", "warnings", "latency_ms", "fraction_corrected"):
        if name not in run:
            yield say("session.found-entry-missing", name=name)


def _fraction_words(fraction: FractionFigure) -> str:
    if fraction.estimate is None or fraction.low is None or fraction.high is None:
        return say("session.found-no-counted-cell")
    return say(
        "session.found-fraction",
        estimate=fraction.estimate,
        low=fraction.low,
        high=fraction.high,
        cells=fraction.n,
    )


def _recoverable(session: Session) -> Iterator[str]:
    """Name what a folder without a usable ``run.json`` holds; nothing if none of it is a session's."""
    # Libraries raise anything on a folder that was never ours.
    with contextlib.suppress(Exception):
        if tables.whole_lines(session.folder / "cells.csv"):
            words = _fraction_words(session.fraction)
            yield say("session.found-tracks", tracks=len(session.cells), fraction=words)
    with contextlib.suppress(Exception):
        yield say("session.found-crops", tracks=len(CropReader(session.folder / "crops.zarr").index))
    if session.ring is not None:
        yield say("session.found-frames", frames=len(session.ring))


def _frames(session: Session) -> Iterator[str]:
    frames = session.run["frames"]
    received, processed = frames["received"], frames["processed"]
    dropped = sum(frames["dropped"].values())
    if min([received, processed, *frames["dropped"].values(), *frames["missed"].values()]) < 0:
        yield say("session.found-negative-frames")
    # The ring was made from the same source. A number of simulated cells must never become a patient's.
    if (ring := session.ring) is not None:
        told = session.run["parameters"]
        for name in ("height", "width", "fps", "pixel_size_um"):
            if isinstance(told.get(name), (int, float)) and told[name] != getattr(ring, name):
                yield say("session.found-other-source", name=name, told=told[name], ring=getattr(ring, name))
        if ring.simulated and not is_simulated(session.run):
            yield say("session.found-simulated")
    if not session.running and received != processed + dropped:
        yield say(
            "session.found-frames-do-not-add-up", received=received, processed=processed, dropped=dropped
        )


def _tables(session: Session) -> Iterator[str]:
    for name in ("cells.csv", "tracks.csv"):
        path = session.folder / name
        if path.exists() and path.stat().st_size and not tables.ends_with_a_line(path):
            yield say("session.found-cut-line", name=name)
    cells = session.cells
    twice = cells["cell"][cells["cell"].duplicated()].unique()
    if len(twice):
        yield say("session.found-cells-repeated", cells=len(twice), first=twice[0])
    yield from _labels(cells)
    if not session.running:
        yield from _counts(session)
        order = cells.sort_values(["last_frame", "cell"], kind="stable").index
        if not np.array_equal(order, np.arange(len(cells))):
            yield say("session.found-cells-order")
    tracks = spans(session.folder / "tracks.csv", cells["cell"].to_numpy())
    if not session.running:
        if not tracks.in_order:
            yield say("session.found-tracks-order")
        if tracks.surplus:
            yield say("session.found-tracks-surplus", rows=tracks.surplus)
    found = tracks.of_cell.reindex(cells["cell"])
    told = cells.set_index("cell")[["frames", "first_frame", "last_frame"]]
    wrong = cells["cell"][(found.to_numpy() != told.to_numpy()).any(axis=1)]
    if len(wrong):
        yield say("session.found-tracks-differ", wrong=len(wrong), cells=len(cells), first=wrong.iloc[0])
    gaps = cells["last_frame"] - cells["first_frame"] + 1 - cells["frames"]
    if (untold := cells["cell"][gaps != cells["gap_frames"]]).size:
        yield say("session.found-gaps-differ", cells=len(untold), first=untold.iloc[0])


def _watched(session: Session) -> Iterator[str]:
    if not session.running:
        yield from faults_of_lengths(session.run, session.cells)


def _fragments(session: Session) -> Iterator[str]:
    cells, links = session.cells, tables.read_links(session.folder)
    kept = set(cells["cell"])
    if session.running:  # a crash can come between these lines and a track's row in cells.csv
        links = {cell: before for cell, before in links.items() if cell in kept}
    labels = dict(zip(cells["cell"], cells["label"], strict=True))
    yield from tables.findings(links, labels, dict(zip(cells["cell"], cells["reason"], strict=True)))


def _unchanged(session: Session) -> Iterator[str]:
    if session.running:
        return
    for name, told in session.run["files"].items():
        if tables.fingerprint(session.folder / name) != told:
            yield say("session.found-file-changed", name=name)


def _by_hand(session: Session) -> Iterator[str]:
    audit = read_audit(session.folder)
    machine = dict(zip(session.cells["cell"], session.cells["label"], strict=True))
    again = session.counted_again if audit.rows else None
    yield from faults_of_changes(audit, machine, {} if again is None else again.told)
    if session.changes_in_force:
        labels = dict(zip(session.cells["cell"], session.labels_by_hand, strict=True))
        for cell in tables.counted_twice(tables.read_links(session.folder), labels):
            yield say("session.found-counted-twice-by-hand", cell=cell)
    page = session.folder / "report.html"
    if not session.running and page.exists() and not shows_changes(session.folder, len(audit.rows)):
        yield say("session.found-report-behind")


def _reviewed(session: Session) -> Iterator[str]:
    yield from faults_of_review(session.folder)


def _labels(cells: pd.DataFrame) -> Iterator[str]:
    label, reliable, tank = cells["label"], cells["p_reliable"], cells["p_tank_treading"]
    unknown = ~label.isin(list(Label))
    counted = label.isin(tables.COUNTED)
    outside = ~(reliable.isna() | reliable.between(0, 1)) | ~(tank.isna() | tank.between(0, 1))
    bad = (
        unknown
        | outside
        | (counted & (reliable.isna() | tank.isna()))
        | ((label == Label.UNRELIABLE) & reliable.isna())
        | ((label == Label.TOO_SHORT) & ((cells["frames"] >= LEAST_FRAMES) | reliable.notna() | tank.notna()))
    )
    if bad.any():
        first = cells["cell"][bad].iloc[0]
        yield say("session.found-labels-do-not-fit", cells=int(bad.sum()), first=first)
    # Whatever the thresholds were: no cell that stage 1 discarded is more reliable than one that passed,
    # and no flipping cell is more surely tank-treading than one with that label.
    discarded = (label == Label.UNRELIABLE) & tank.isna()
    if _crosses(reliable[discarded], reliable[counted]):
        yield say("session.found-reliable-crosses")
    if _crosses(tank[label == Label.FLIPPING], tank[label == Label.TANK_TREADING]):
        yield say("session.found-tank-treading-crosses")


def _crosses(lower: pd.Series[float], upper: pd.Series[float]) -> bool:
    return bool(len(lower) and len(upper) and lower.max() > upper.min())


def _counts(session: Session) -> Iterator[str]:
    told, labels = session.run["cells"], session.cells["label"]
    found = {name: int((labels == name.replace("_", "-")).sum()) for name in CELL_COUNTS[1:]}
    found["tracked"] = len(labels)
    for name in CELL_COUNTS:
        if told.get(name) != found[name]:
            yield say("session.found-count-differs", told=told.get(name), name=name, found=found[name])
    yield from findings_of_fraction(session.run["fraction"], found["tank_treading"], found["flipping"])
    yield from counting.correction_findings(session.run, found)


def _number(session: Session) -> Iterator[str]:
    if not session.running:
        yield from findings_of_interval(session)
        yield from findings_of_stop(session)
        yield from findings_of_focus_speed(session)
        yield from findings_of_corrected(session)
        yield from findings_of_verdict(session)


def _crops(session: Session) -> Iterator[str]:
    import pandas as pd

    reader = CropReader(session.folder / "crops.zarr")
    frames = session.cells.set_index("cell")["frames"]
    lengths = pd.Series(reader.index[:, 2], index=reader.index[:, 0])
    without = frames.index.difference(lengths.index)
    if len(without):
        yield say("session.found-crops-missing", missing=len(without), cells=len(frames), first=without[0])
    if not session.running:
        surplus = lengths.index.difference(frames.index)
        if len(surplus):
            yield say("session.found-crops-surplus", cells=len(surplus), first=surplus[0])
    both = frames.index.intersection(lengths.index)
    if not lengths.index.is_unique or not frames.index.is_unique:
        yield say("session.found-crops-repeated")
    elif (wrong := both[(lengths[both] != frames[both]).to_numpy()]).size:
        yield say("session.found-crops-count", cells=len(wrong), first=wrong[0])
    damaged = [cell for cell in reader.damaged() if cell in frames.index]
    if damaged:
        yield say("session.found-crops-damaged", damaged=len(damaged), cells=len(frames), first=damaged[0])


def _ring(session: Session) -> Iterator[str]:
    path = session.folder / "frames.zarr"
    if not path.exists():
        yield say("session.found-ring-missing")
        return
    yield from open_ring(path).check()


def _report(session: Session) -> Iterator[str]:
    if not session.running:
        for name in ("report.html", "run.log"):
            path = session.folder / name
            if not path.exists() or not path.stat().st_size:
                yield say("session.found-file-missing", name=name)


def _page(session: Session) -> Iterator[str]:
    if not session.running:
        yield from report_findings(session.folder)


def _signed(session: Session) -> Iterator[str]:
    yield from signature_findings(session.folder)
    if not session.running and not shows_signatures(session.folder):
        yield say("session.found-signature-behind")


_CHECKS: tuple[Check, ...] = (
    _ending,
    _frames,
    _tables,
    _number,
    _watched,
    _fragments,
    _unchanged,
    _by_hand,
    _reviewed,
    _crops,
    _ring,
    _report,
    _page,
    _signed,
)
_PARTS: dict[str, set[Check]] = {
    "frames": {_frames, _ring},
    "crops": {_crops},
    "tables": {_tables, _fragments, _watched, _unchanged},
    "number": {_ending, _number},
    "people": {_by_hand, _reviewed},
    "report": {_report, _page},
}
"""The steps from the frames to the report, and what is checked of each."""


def _short(digest: object) -> str:
    return f"sha256 {str(digest)[:12]}"


def _chain_frames(session: Session) -> str:
    return say("session.chain-frames", frames=0 if session.ring is None else len(session.ring))


def _chain_crops(session: Session) -> str:
    return say("session.chain-crops", cells=len(CropReader(session.folder / "crops.zarr").index))


def _chain_tables(session: Session) -> str:
    hashes = ", ".join(_short(told["sha256"]) for told in session.run["files"].values())
    return say("session.chain-tables", hashes=hashes)


def _chain_number(session: Session) -> str:
    digest = tables.fingerprint(session.folder / RUN_FILE)["sha256"]
    return say("session.chain-number", hash=_short(digest), fraction=_fraction_words(session.fraction))


def _chain_people(session: Session) -> str:
    changes, reviews = (len(table(session.folder).rows) for table in (read_audit, REVIEWS.audit))
    return say("session.chain-people", changes=changes, reviews=reviews)


def _chain_report(session: Session) -> str:
    return say("session.chain-report", hash=_short(report_hash(session.folder) or ""))


_CHAIN: dict[str, Callable[[Session], str]] = {
    "frames": _chain_frames,
    "crops": _chain_crops,
    "tables": _chain_tables,
    "number": _chain_number,
    "people": _chain_people,
    "report": _chain_report,
}
