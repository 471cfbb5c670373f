"""The number, how the run ended, and what is counted."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from napari_rbcflow.estimate.reported import end_sentence, method_words
from napari_rbcflow.session.grave import grave_warnings, percent
from napari_rbcflow.session.report.corrected import corrected
from napari_rbcflow.session.report.facts import Facts
from napari_rbcflow.session.watched import least_frames_of


def number(facts: Facts) -> str:
    """Return the number in its frame, never without its interval and what that holds for."""
    run, by_hand = facts.run, facts.by_hand
    fraction = run["fraction"]
    estimate, low, high = fraction["estimate"], fraction["low"], fraction["high"]
    if estimate is None or low is None or high is None:
        said = "<p class='big none'>No number</p><p>No cell could be counted.</p>"
        return f"<div class='number doubtful'>{said}{by_hand.number()}</div>"
    method = escape(method_words(str(fraction["method"])))
    grave = bool(grave_warnings(run))
    said = (
        f"<div class='number{' doubtful' if grave else ''}'><p class='big'>{percent(estimate)}</p>"
        "<p>of the cells judged reliable<br>were tank-treading</p>"
        f"<p class='interval'><b>{100 * low:.1f} to {percent(high)}</b></p>"
        f"<p>{100 * fraction['level']:g} % interval, from {fraction['n']:,} cells<br>({method})</p>"
    )
    if grave:
        said += "<p class='doubt'>Read the warning above first.</p>"
    return f"{said}{corrected(run)}{by_hand.number()}</div>"


def ending(facts: Facts) -> str:
    """Return in words how the run ended, and what is counted."""
    run = facts.run
    cells, fraction, least = run["cells"], run["fraction"], least_frames_of(run)
    untold, elsewhere = facts.undecided, facts.other_speed
    also = f"; {untold:,} it could not tell: they are not counted" if untold else ""
    passed = fraction["n"] + untold + elsewhere
    speed = _focus_speed(run, elsewhere)
    reason = run["stop_reason"]
    if run["status"] == "failed":
        ended = "The run failed; what is shown was kept up to then."
    elif run["status"] == "running":
        ended = "The run has not ended."
    else:
        ended = end_sentence(str(reason), fraction["n"], str(run.get("stop_sentence") or ""))
    return f"""<div class="words">
<h2>What this is</h2>
<p>{escape(ended)}</p>
<p><b>{cells["tracked"]:,}</b> cells were followed through the field. Two neural networks looked at each: the
first said whether it was sharp and alone enough to be judged ({passed:,} were), the second whether its
membrane circulated (<b>tank-treading: {cells["tank_treading"]:,}</b>, the supple cells) or it flipped over as
a whole (<b>flipping: {cells["flipping"]:,}</b>, the stiff ones){also}.{speed}</p>
<p><b>What is counted.</b> Cells that cross the plane of focus, so the faster count more often; each once;
in the picture for {least} frames or more; judged reliable; before the stop. A stiff cell that did not
happen to flip while it was watched looks like a supple one.</p>
</div>"""


def _focus_speed(run: Mapping[str, Any], set_aside: int) -> str:
    """Say what was made of the speed that the cells in focus share; empty where nothing was."""
    told = run.get("focus_speed") or {}
    if not told.get("said"):
        return ""
    cells = {0: "no cell was", 1: "1 cell was"}.get(set_aside, f"{set_aside:,} cells were")
    return (
        f" The surest cells share one speed, {told['speed_um_per_s']:,.0f} µm/s, as they lie at one height:"
        f" {cells} left out for moving otherwise."
    )
