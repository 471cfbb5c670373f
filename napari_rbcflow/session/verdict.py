"""Whether a person may act on a session's number: the verdict, made here and shown everywhere.

A narrow interval of counting says nothing of the networks' errors in another laboratory's light. So a number
is a result only where a person checked some cells, or where such checks calibrated this laboratory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_rbcflow.estimate import MOST_WIDTH
from napari_rbcflow.quality import WARNINGS_A_REVIEW_ANSWERS, warnings_of_run
from napari_rbcflow.ring import read_json
from napari_rbcflow.sentences import say
from napari_rbcflow.session.schema import FractionFigure, is_simulated
from napari_rbcflow.types import RunStatus, Verdict

REVIEW_FILE, REVIEWS_FILE = "review.json", "reviews.csv"
CHECKED_CELLS = 60
"""How many cells a person is asked to check: two minutes. With fewer there is no result: whoever stops as
soon as the interval is narrow would stop at the luckiest moment."""
LEAST_LEVEL = 0.95  # of a result's interval


@dataclass(frozen=True)
class Conclusion:
    """What may be done with a session's number.

    Attributes
    ----------
    verdict : Verdict
    why, todo : str
        A plain sentence each: why it is so, and what to do next. `todo` is empty where `why` says both.
    headline : FractionFigure or None
        The one number to act on; None but for a result.
    simulated : bool
        The verdict is made in the same way, but the number is no patient's.
    """

    verdict: Verdict
    why: str
    todo: str = ""
    headline: FractionFigure | None = None
    simulated: bool = False

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return say(f"session.verdict-{self.verdict}")

    @property
    def reason(self) -> str:
        """Why, and what to do next, as ``verdict_reason`` of ``run.json``."""
        simulated = say("session.why-simulated") if self.simulated else ""
        return " ".join(filter(None, (simulated, self.why, self.todo)))

    def as_dict(self) -> dict[str, str]:
        """Return it as ``run.json`` and ``review.json`` hold it."""
        return {"verdict": str(self.verdict), "verdict_reason": self.reason}


def conclude(
    run: Mapping[str, Any], reviewed: FractionFigure | None = None, passed_over: int = 0
) -> Conclusion:
    """Return the verdict on a run.

    A `result` needs no grave warning, and an interval of at most `MOST_WIDTH` that includes the networks'
    errors: that of a review, or the corrected one of a run that fits this laboratory's calibration. A review
    also answers the warnings that the networks may be wrong.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds, of any version, also of a run that goes on.
    reviewed : FractionFigure, optional
        ``fraction_reviewed`` of ``review.json``.
    passed_over : int
        Cells that were left out in that review; with any, it is no random sample and gives no result.
    """
    simulated = is_simulated(run)

    def found(
        verdict: Verdict, why: str, todo: str = "", headline: FractionFigure | None = None
    ) -> Conclusion:
        if simulated and verdict is Verdict.RESULT:
            todo = ""  # nobody may use the number of cells that are no patient's
        return Conclusion(verdict, why, todo, headline, simulated)

    going_on, counted = run["status"] == RunStatus.RUNNING, run["fraction"]["n"]
    watched = isinstance((run.get("quality") or {}).get("warnings"), list)
    if going_on and not counted and not watched:  # what is true of every run in its first seconds
        return found(Verdict.NO_RESULT, say("session.why-none-yet"), say("session.todo-wait"))
    warnings = [w for w in warnings_of_run(run) if w.key != "not-ended"]
    grave = [w for w in warnings if w.grave]
    bad_movie = next((w for w in grave if w.key not in WARNINGS_A_REVIEW_ANSWERS), None)
    if bad_movie is not None:
        todo = say("session.todo-again") if bad_movie.key == "failed" else ""
        return found(Verdict.NO_RESULT, bad_movie.sentence, todo)
    counts = run["cells"]
    judged = sum(int(counts.get(kind, 0)) for kind in ("tank_treading", "flipping", "unreliable"))
    if going_on:
        if not counted:
            return found(Verdict.NO_RESULT, say("session.why-none-yet"), say("session.todo-wait"))
        return found(Verdict.PROVISIONAL, say("session.why-going-on"), say("session.todo-wait"))
    if not judged:
        return found(Verdict.NO_RESULT, say("session.why-none-judged"), say("session.todo-focus"))
    enough = reviewed is not None and reviewed.n >= min(CHECKED_CELLS, judged)
    if reviewed is not None and enough and _narrow(reviewed) and not passed_over:
        why = say("session.why-reviewed", cells=reviewed.n)
        return found(Verdict.RESULT, why, say("session.todo-use"), reviewed)
    calibration = run.get("calibration") or {}
    calibrated = FractionFigure.read(run.get("fraction_corrected")) if calibration.get("applies") else None
    # A mild sign that the networks are not at home here is enough: a calibration is of other runs.
    doubtful = grave or [w for w in warnings if w.key in WARNINGS_A_REVIEW_ANSWERS]
    contradicted = reviewed is not None and calibrated is not None and _apart(reviewed, calibrated)
    if calibrated is not None and _narrow(calibrated) and not (doubtful or passed_over or contradicted):
        why = say("session.why-calibrated")
        return found(Verdict.RESULT, why, say("session.todo-use"), calibrated)
    if passed_over:
        why = say("session.why-passed-over", cells=passed_over)
        return found(Verdict.PROVISIONAL, why, say("session.todo-passed-over", cells=passed_over))
    if reviewed is not None and reviewed.n and not enough:
        why, left = say("session.why-few-checked", cells=reviewed.n), min(CHECKED_CELLS, judged) - reviewed.n
        return found(Verdict.PROVISIONAL, why, say("session.todo-check-more", cells=left))
    if reviewed is not None and reviewed.n:
        return found(Verdict.PROVISIONAL, _wide_words(reviewed), _more_words(judged - reviewed.n))
    if doubtful:
        why = say("session.why-doubtful")
    elif calibration.get("applies"):
        why = say("session.why-calibration-wide")
    elif calibration:
        why = say("session.why-calibration-unlike")
    else:
        why = say("session.why-unchecked")
    return found(Verdict.PROVISIONAL, why, say("session.todo-check", cells=min(CHECKED_CELLS, judged)))


def interrupted(run: Mapping[str, Any]) -> Conclusion:
    """Return the verdict on a run that ended without closing its session."""
    why = say("session.why-interrupted")
    return Conclusion(Verdict.NO_RESULT, why, say("session.todo-again"), simulated=is_simulated(run))


def reviewed_figure(folder: Path) -> FractionFigure | None:
    """Return ``fraction_reviewed`` of a session's ``review.json``; None where there is none to read."""
    return FractionFigure.read(read_review(folder).get("fraction_reviewed"))


def read_review(folder: Path) -> dict[str, Any]:
    """Return ``review.json``; empty where there is none that can be read."""
    try:
        return read_json(folder / REVIEW_FILE)
    except (OSError, ValueError):
        return {}


def unlabelled(review: Mapping[str, Any]) -> int:
    """Return how many chosen cells have no label by ``review.json``."""
    cells = review.get("passed_over")
    return len(cells) if isinstance(cells, list) else 0


def _narrow(figure: FractionFigure) -> bool:
    """Say whether a figure can be acted on; False also for one that a damaged file made impossible."""
    ends = figure.low, figure.estimate, figure.high, figure.level, figure.n
    if not all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends):
        return False
    low, estimate, high, level, n = (float(end or 0.0) for end in ends)
    possible = 0 <= low <= estimate <= high <= 1 and n >= 1 and level >= LEAST_LEVEL - 1e-9
    return possible and high - low <= MOST_WIDTH + 1e-9


def _apart(one: FractionFigure, other: FractionFigure) -> bool:
    """Say whether two intervals have nothing in common."""
    ends = one.low, one.high, other.low, other.high
    if not all(isinstance(end, (int, float)) for end in ends):
        return False
    return (one.low or 0.0) > (other.high or 0.0) or (other.low or 0.0) > (one.high or 0.0)


def _wide_words(figure: FractionFigure) -> str:
    low, high = figure.low, figure.high
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return say("session.why-none-reliable", cells=figure.n)
    low, high = (min(max(float(end), 0.0), 1.0) if math.isfinite(end) else 0.0 for end in (low, high))
    ends = {"low": math.floor(100 * low), "high": math.ceil(100 * high)}
    return say("session.why-review-wide", cells=figure.n, **ends)


def _more_words(left: int) -> str:
    if left < 1:
        return say("session.todo-longer")
    return say("session.todo-check-more", cells=min(CHECKED_CELLS, left))
