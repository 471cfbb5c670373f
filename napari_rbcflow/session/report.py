"""``report.html``: one page for whoever acts on the number, from the template ``report.html.j2``."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import RbcflowError, sentence_of
from napari_rbcflow.estimate import (
    FRAGMENT,
    OTHER_SPEED,
    TOO_FEW_FRAMES,
    NetworkRates,
    RunningFraction,
    UnseenFlips,
    end_sentence,
    method_words,
)
from napari_rbcflow.quality import Severity, quality_lines, reason_words, warnings_of_run
from napari_rbcflow.ring import replace_file
from napari_rbcflow.sentences import say
from napari_rbcflow.session.counting import (
    CALIBRATED,
    by_length,
    corrected_words,
    counts_words,
    least_frames_of,
    unseen_flips,
)
from napari_rbcflow.session.label_edits import CHANGES_FILE, STRUCK_OUT
from napari_rbcflow.session.reader import Session
from napari_rbcflow.session.record import record_lines
from napari_rbcflow.session.schema import RUN_FILE, is_being_written, percent, read_run, too_few_words
from napari_rbcflow.session.signature import SIGNATURES_FILE, signature_words, without_signatures
from napari_rbcflow.session.verdict import REVIEW_FILE, REVIEWS_FILE, read_review
from napari_rbcflow.types import LEAST_FRAMES, Label, RunStatus, Verdict

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

# Okabe and Ito's blue and vermilion: told apart by the colour-blind, and in grey by their lightness.
TANK_TREADING_COLOUR = "#0072b2"
FLIPPING_COLOUR = "#d55e00"
_CSS_CLASS = {None: "well", Severity.NOTE: "mild", Severity.WARNING: "grave"}
_SIGN = {None: "✓", Severity.NOTE: "▲", Severity.WARNING: "⚠"}
_VERDICT_SIGN = {Verdict.RESULT: "✓", Verdict.PROVISIONAL: "◐", Verdict.NO_RESULT: "✗"}
_CHANGES = 'data-changes="'
"""Behind it the page holds the number of changes by hand that it shows."""
_REVIEWED = 'data-reviewed="'
"""Behind it the page holds how many bytes of ``reviews.csv`` are in its number."""


_MADE = "<!-- Made from run.json {}; page {} -->\n"
"""The last line of a page, by which `verify` finds what was edited; no proof against who writes it anew."""


def shows_changes(folder: Path, n: int) -> bool:
    """Say whether ``report.html`` is there and was written with all `n` changes by hand."""
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return f'{_CHANGES}{n}"' in page if n else _CHANGES not in page


def shows_review(folder: Path) -> bool:
    """Say whether ``report.html`` was written with what ``review.json`` holds."""
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    n = _reviewed(folder)["bytes"]
    return f'{_REVIEWED}{n}"' in page if n else _REVIEWED not in page


def shows_signatures(folder: Path) -> bool:
    """Say whether ``report.html`` says of each signature what is true now."""
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        page = ""
    block = "".join(re.findall(r'<section class="signed".*?</section>', page, re.DOTALL))
    return [unescape(words) for words in re.findall("<p>(.*?)</p>", block)] == _signatures(folder)


def write_report(
    folder: Path, run: Mapping[str, Any] | None = None, cells: pd.DataFrame | None = None
) -> Path:
    """Write ``report.html`` into a session folder, and return its path.

    `run` is what ``run.json`` holds, or is about to, and `cells` is ``cells.csv``, if it was just read.
    """
    path = Path(folder) / "report.html"
    run = read_run(Path(folder)) if run is None else run
    text = _template().render(_contents(Session(Path(folder), dict(run), cells)))
    page = text.encode(errors="backslashreplace")
    made_from = hashlib.sha256((path.parent / RUN_FILE).read_bytes()).hexdigest()
    replace_file(path, page + _MADE.format(made_from, _page_hash(page, made_from)).encode())
    return path


def _page_hash(page: bytes, made_from: str) -> str:
    return hashlib.sha256(without_signatures(page) + made_from.encode()).hexdigest()


def report_findings(folder: Path) -> Iterator[str]:
    """Say if ``report.html`` was edited, or ``run.json`` since the page was made from it.

    Nothing of a page that does not tell: those of earlier versions.
    """
    try:
        page = (folder / "report.html").read_bytes()
    except FileNotFoundError:
        return
    pattern = re.escape(_MADE).replace(r"\{\}", "([0-9a-f]{64})").encode()
    if (told := re.search(pattern + rb"\Z", page)) is None:
        return
    made_from, own = (digest.decode() for digest in told.groups())
    if _page_hash(page[: told.start()], made_from) != own:
        yield say("session.found-report-edited")
    elif hashlib.sha256((folder / RUN_FILE).read_bytes()).hexdigest() != made_from:
        yield say("session.found-report-of-another-run")


def write_report_again(folder: Path, *, unless: Callable[[], bool] = lambda: False) -> str:
    """Write ``report.html`` of a session that is closed again; return a sentence if that fails, else nothing.

    `unless` says whether the page is as it should be.
    """
    try:
        run, before = read_run(folder), None
        # Whoever writes the session writes its page too, and two at once would spoil it.
        if run["status"] != RunStatus.RUNNING and not is_being_written(folder) and not unless():
            # Another program may have changed something meanwhile and written its page first: the last page
            # must show all that there is.
            while before != (before := _state(folder)):
                write_report(folder)
    except Exception as error:  # a report is made from everything; what it shows is saved
        why = error.strerror or str(error) if isinstance(error, OSError) else sentence_of(error)
        return say("session.report-not-updated", why=why)
    return ""


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Return what changes with the files that persons and programs change after the end of a run."""
    names = (RUN_FILE, CHANGES_FILE, REVIEWS_FILE, REVIEW_FILE, SIGNATURES_FILE)
    there = [(name, (folder / name).stat()) for name in names if (folder / name).exists()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in there]


@cache
def _template() -> jinja2.Template:
    import jinja2  # at the end of a run, not at its start
    import markupsafe

    def marked(text: str) -> markupsafe.Markup:
        bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(markupsafe.escape(text)))
        return markupsafe.Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", bold))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["marked"] = marked
    environment.globals |= {
        "say": say,
        "percent": percent,
        "number": "{:,}".format,
        "css_class": _CSS_CLASS.get,
        "sign": _SIGN.get,
        "verdict_sign": _VERDICT_SIGN.get,
        "method_words": method_words,
        "reason_words": reason_words,
        "LEAST_FRAMES": LEAST_FRAMES,
        "colours": {"tank_treading": TANK_TREADING_COLOUR, "flipping": FLIPPING_COLOUR},
    }
    return environment.get_template("report.html.j2")


def _contents(session: Session) -> dict[str, Any]:
    """Return what the template shows of a session."""
    run, cells = session.run, session.cells
    reasons = Counter(cells["reason"])
    # Cells that stage 2 could not tell, and those set aside because they move at another speed.
    undecided, other_speed = reasons["undecided"], reasons[OTHER_SPEED]
    warnings = warnings_of_run(run)
    focus_speed = run.get("focus_speed") or {}
    by_hand, conclusion = _by_hand(session), session.conclusion
    return {
        "name": " · ".join(filter(None, (str(run["patient"]), str(run["sample"]))))
        or say("report.unnamed-sample"),
        "when": _when(run),
        "warnings": warnings,
        "verdict": conclusion,
        "headline": conclusion.headline,
        "why_is_warned": conclusion.why in {warning.sentence for warning in warnings},
        "fraction": run["fraction"],
        "correction": correction(run),
        "by_hand": by_hand,
        "reviewed": _reviewed(session.folder),
        "ending": _ending(run),
        "cells": run["cells"],
        "passed": run["fraction"]["n"] + undecided + other_speed,
        "undecided": undecided,
        "other_speed": other_speed,
        "too_few_frames": reasons[TOO_FEW_FRAMES],
        "fragments": reasons[FRAGMENT],
        "over_gaps": int((cells["gap_frames"] > 0).sum()),
        "least_frames": least_frames_of(run),
        "focus_speed": focus_speed["speed_um_per_s"] if focus_speed.get("said") else None,
        "curve": _curve(session.counted, run["fraction"]),
        "speeds": _speeds(cells),
        "frames": run["frames"],
        "quality": quality_lines(run, warnings),
        "track_length": cells["frames"].median(),
        "latency_ms": run["latency_ms"]["p95"],
        "by_length": by_length(run, cells),
        "unseen_flips": _unseen_flips_words(*unseen_flips(run, cells)),
        "labels": _labels_words(run["models"], by_hand),
        "record": record_lines(run),
        "control": run.get("control", ""),
        "signatures": _signatures(session.folder),
        "settings": _settings(run["parameters"]),
        "versions": [(name, version) for name, version in run["versions"].items() if version],
    }


def _when(run: Mapping[str, Any]) -> str:
    try:
        started = datetime.fromisoformat(run["started"])
        parts = [say("report.started", day=started.day, time=started)]
        if run.get("ended"):
            seconds = round((datetime.fromisoformat(run["ended"]) - started).total_seconds())
            minutes, rest = divmod(seconds, 60)
            parts.append(
                say("report.took-minutes", minutes=minutes, seconds=rest)
                if minutes
                else say("report.took-seconds", seconds=seconds)
            )
    except (TypeError, ValueError):
        parts = [str(run.get("started", ""))]
    return " · ".join([*parts, str(run["parameters"].get("source", ""))])


def _ending(run: Mapping[str, Any]) -> str:
    if run["status"] == RunStatus.FAILED:
        return say("report.run-failed")
    if run["status"] == RunStatus.RUNNING:
        return say("report.run-not-ended")
    return end_sentence(str(run["stop_reason"]), run["fraction"]["n"], str(run.get("stop_sentence") or ""))


def correction(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the corrected fraction in words, what it rests on, and how sure stage 1 is without it."""
    told, models = run.get("fraction_corrected") or {}, run.get("models") or {}
    stage1 = models.get("stage1") or {}
    share, least = stage1.get("precision_in_real_life"), stage1.get("precision_in_real_life_at_least")
    precision = ""
    if isinstance(share, float):
        wrong = 100 * (1 - share)
        precision = (
            say("report.precision-at-most", wrong=wrong, most=100 * (1 - least))
            if isinstance(least, float)
            else say("report.precision", wrong=wrong)
        )
    rests_on = ""
    by_card = told.get("method") != CALIBRATED and (told.get("reason") or told.get("estimate") is not None)
    if by_card and (counts := counts_words(models)):
        by_patient = NetworkRates.of_models(models).by_patient
        key = "report.how-corrected-by-patient" if by_patient else "report.how-corrected"
        rests_on = say(key, counts=counts)
    return {
        "estimate": told.get("estimate"),
        "words": corrected_words(told, run.get("calibration")),
        "precision": precision,
        "rests_on": rests_on,
    }


def _reviewed(folder: Path) -> dict[str, Any]:
    """Return who checked cells by eye, and how far the page tells of it."""
    review = read_review(folder)
    reviewers, told = review.get("reviewers"), review.get(REVIEWS_FILE)
    if not isinstance(reviewers, dict) or not isinstance(told, dict):
        return {"who": "", "bytes": 0}
    who = [
        say("report.reviewed-by-one", name=name, cells=own.get("reviewed")) for name, own in reviewers.items()
    ]
    return {"who": ", ".join(who), "bytes": told.get("bytes")}


def _signatures(folder: Path) -> list[str]:
    """Return a sentence for each signature; a damaged file becomes one, as there must be a report."""
    try:
        return signature_words(folder)
    except RbcflowError as error:
        return [str(error)]


def _by_hand(session: Session) -> dict[str, Any]:
    """Return what people changed; a damaged file becomes a fault, as there must be a report all the same."""
    try:
        made, changed, figure = session.changes_made, session.changes_in_force, session.fraction_by_hand
    except RbcflowError as error:
        return {"fault": str(error)}
    cells = session.cells[session.cells["cell"].isin(changed)]
    machine = dict(zip(cells["cell"], cells["label"], strict=True))
    kinds = Counter(
        None if change.now == STRUCK_OUT else (machine[cell], change.now)
        for cell, change in sorted(changed.items())
    )
    names = ", ".join(dict.fromkeys(change.by for change in list(changed.values()) or made))
    number = say("report.by-hand-no-number", cells=len(changed), names=names)
    if figure and figure.estimate is not None and figure.low is not None and figure.high is not None:
        number = say(
            "report.by-hand",
            cells=len(changed),
            names=names,
            fraction=percent(figure.estimate),
            low=100 * figure.low,
            high=percent(figure.high),
            n=figure.n,
        )
    return {
        "fault": "",
        "changes": len(made),
        "names": names,
        "figure": figure,
        "number": number,
        "few": too_few_words(figure.n) if figure and figure.n else "",
        "kinds": ", ".join(
            say("report.by-hand-excluded", cells=n)
            if kind is None
            else say("report.by-hand-relabelled", cells=n, machine=kind[0], now=kind[1])
            for kind, n in kinds.items()
        ),
    }


def _unseen_flips_words(least: UnseenFlips, most: UnseenFlips) -> str:
    """Return the correction for unseen flips in words, or why there is none."""
    if least.estimate is None and most.estimate is None:
        return say("report.no-unseen-correction", why=least.why_not())

    def words(figure: UnseenFlips) -> str:
        if figure.estimate is None or figure.low is None or figure.high is None:
            return say("report.unseen-none", why=figure.why_not())
        values: dict[str, Any] = {
            "fraction": percent(figure.estimate),
            "level": 100 * figure.level,
            "low": 100 * figure.low,
            "high": percent(figure.high),
        }
        if figure.seen is None:
            return say("report.unseen-figure", **values)
        return say("report.unseen-figure-seen", **values, seen=100 * figure.seen)

    return say("report.unseen-correction", simulated=words(least), turns_only=words(most))


def _labels_words(models: Mapping[str, Any], by_hand: Mapping[str, Any]) -> str:
    """Return how a label is made, by which networks, and what people had to do with it."""
    stage1, stage2 = models.get("stage1", {}), models.get("stage2", {})
    if by_hand["fault"]:
        who = say("report.labels-unknown")
    else:
        who = say("report.labels-by-hand") if by_hand["changes"] else say("report.labels-by-networks")
    return say(
        "report.how-labels",
        stage1=stage1.get("name", "?"),
        stage1_hash=str(stage1.get("hash", "?"))[:16],
        stage2=stage2.get("name", "?"),
        stage2_hash=str(stage2.get("hash", "?"))[:16],
        by_hand=who,
    )


def _settings(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return everything that was set, in words."""

    def words(value: object) -> str:
        if isinstance(value, bool):
            return say("report.yes") if value else say("report.no")
        return f"{value:g}" if isinstance(value, float) else str(value)

    parameters = dict(parameters)
    details = parameters.pop("source_details", {})
    parameters.pop("source_warnings", None)
    return [
        (str(name).replace("_", " "), words(value))
        for name, value in {**parameters, **details}.items()
        if value not in (None, "", [], {})
    ]


# The drawings, in CSS pixels
_WIDTH, _HEIGHT = 420, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 408, 10, 174
_MOST_POINTS = 240


def _curve(counted: NDArray[np.bool_], figure: Mapping[str, Any]) -> dict[str, Any] | None:
    """Draw the fraction as cells were counted, with the anytime interval of each moment as a band.

    That is the interval that was shown during the run; the one of the end is a bar behind the last cell.
    """
    n = len(counted)
    if not n:
        return None
    at = np.unique(np.linspace(1, n, min(n, _MOST_POINTS)).round().astype(int))
    fraction, drawn = RunningFraction(float(figure["level"])), set(at.tolist())
    intervals = []
    for tank in counted.tolist():
        fraction.update(tank_treading=int(tank), flipping=int(not tank))
        if fraction.n in drawn:
            intervals.append(fraction.anytime_interval())
    low, high = np.array(intervals).T
    bar = ""
    if figure["low"] is not None and figure["high"] is not None:
        x, (bottom, top) = _RIGHT + 4, _y(np.array([figure["low"], figure["high"]], np.float64))
        bar = f"M{x - 3} {bottom:.1f}h6M{x} {bottom:.1f}V{top:.1f}M{x - 3} {top:.1f}h6"
    return {
        **_axes([tick / n for tick in _ticks(n)], _ticks(n)),
        "y_ticks": [(_y(tick), f"{tick:.0%}") for tick in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "cells": n,
        "line": _points(at / n, np.cumsum(counted)[at - 1] / at),
        "band": _points(np.append(at, at[::-1]) / n, np.append(high, low[::-1])),
        "bar": bar,
    }


def _speeds(cells: pd.DataFrame) -> dict[str, Any] | None:
    """Draw how many of the counted cells moved at what speed, stacked by kind."""
    kinds = {"tank_treading": Label.TANK_TREADING, "flipping": Label.FLIPPING}
    speeds = {
        kind: cells["speed_um_per_s"][cells["label"] == label].dropna().to_numpy(np.float64)
        for kind, label in kinds.items()
    }
    every = np.concatenate(list(speeds.values()))
    if not len(every):
        return None
    low, high = np.percentile(every, (0, 99))
    # The highest hundredth goes into the last bar: one wrong speed must not squeeze all others.
    edges = np.linspace(low, max(high, low + 1.0), 25)
    counts = {
        kind: np.histogram(np.clip(values, low, edges[-1]), edges)[0] for kind, values in speeds.items()
    }
    tallest = int(np.sum(list(counts.values()), axis=0).max())
    width = (_RIGHT - _LEFT) / (len(edges) - 1)
    bars, below = [], np.zeros(len(edges) - 1)
    for kind, count in counts.items():
        for i in np.flatnonzero(count).tolist():
            top, height = _y((below[i] + count[i]) / tallest), (_BOTTOM - _TOP) * count[i] / tallest
            bars.append((round(_LEFT + i * width + 0.5, 1), top, round(width - 1, 1), round(height, 1), kind))
        below += count
    step = _nice((edges[-1] - edges[0]) / 5)
    ticks = np.arange(np.ceil(edges[0] / step) * step, edges[-1] + step * 1e-9, step)
    return {
        **_axes((ticks - edges[0]) / (edges[-1] - edges[0]), [f"{tick:g}" for tick in ticks]),
        "y_ticks": [(_y(tick / tallest), tick) for tick in (0, *_ticks(tallest))],
        **{kind: len(values) for kind, values in speeds.items()},
        "bars": bars,
    }


def _axes(places: Sequence[float] | NDArray[np.float64], labels: Sequence[object]) -> dict[str, Any]:
    """Return the frame of a drawing, and its ticks along x at some shares of the width."""
    ticks = [(_x(place), label) for place, label in zip(places, labels, strict=True)]
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _RIGHT,
        "bottom": _BOTTOM,
        "x_ticks": ticks,
    }


def _x(share: Any) -> Any:
    return np.round(_LEFT + (_RIGHT - _LEFT) * share, 1)


def _y(share: Any) -> Any:
    return np.round(_TOP + (_BOTTOM - _TOP) * (1 - share), 1)


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return " ".join(f"{a},{b}" for a, b in zip(_x(x), _y(y), strict=True))


def _ticks(most: int) -> list[int]:
    step = max(1, int(_nice(most / 4)))
    return list(range(step, most + 1, step))


def _nice(step: float) -> float:
    """Round a step up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(power * m for m in (1, 2, 5, 10) if power * m >= step * 0.999))
