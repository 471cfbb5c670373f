"""A run's number, end and warnings in words, as the result panel says them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_rbcflow.estimate.reported import ANYTIME, end_sentence, method_words
from napari_rbcflow.estimate.stopping import RuleProgress, time_words
from napari_rbcflow.pipeline.status import Progress
from napari_rbcflow.session.schema import FEW_CELLS

_NO_NUMBERS_LEFT = ("half-width", "baseline")
_RULES = {
    "reliable": "reliable cells",
    "half-width": "interval",
    "seconds": "time",
    "tracks": "tracks",
    "baseline": "baseline",
}


def percent(share: float) -> str:
    """Return a share in whole per cent; with one decimal where that would pretend to be none or all."""
    whole = f"{100 * share:.0f}"
    if whole in ("0", "100") and 0 < share < 1:
        return f"{min(max(100 * share, 0.1), 99.9):.1f} %"
    return f"{whole} %"


def interval_words(low: float, high: float) -> str:
    """Return an interval in whole per cent, rounded outwards: never narrower than it is."""
    # A thousandth of a point is lost in floating point before it is rounded.
    return f"{math.floor(100 * low + 1e-3)} to {math.ceil(100 * high - 1e-3)} %"


def cells_words(level: float, n: int, method: str = "") -> str:
    """Say what stands under the interval, and what that holds for."""
    cells = "1 reliable cell" if n == 1 else f"{n:,} reliable cells"
    return f"{100 * level:g} % interval, from {cells}" + (f"\n({method_words(method)})" if method else "")


def one_look_words(method: str) -> str:
    """Say what the interval of a number with changes by hand is."""
    return (
        "worked out from all these cells at once" if method == ANYTIME else method_words(method).split(":")[0]
    )


def end_words(status: str, reason: str, n: int, sentence: str = "") -> str:
    """Say how a run ended.

    Parameters
    ----------
    status, reason : str
        As in ``run.json``.
    n : int
        Cells counted.
    sentence : str
        What the rule that stopped it found, as in ``run.json``.
    """
    if status == "failed":
        return f"The run failed: {reason}"
    if status == "running":
        return "The run has not ended."
    return end_sentence(reason, n, sentence)


def left_words(progress: Progress) -> str:
    """Say what will stop a run, each rule on a line of its own with how long it takes at the present rate."""
    lines = []
    if progress.total_frames:
        lines.append(f"frame {progress.processed:,} of {progress.total_frames:,}")
    elif not progress.rules:
        return "goes on until you press Stop"
    lines += [_rule_words(rule) for rule in progress.rules]
    if progress.seconds_left is not None:
        lines.append(f"about {time_words(progress.seconds_left)} left")
    return "\n".join(lines)


def _rule_words(rule: RuleProgress) -> str:
    title = _RULES.get(rule.name, rule.name)
    if not rule.missing:
        return f"{title}: reached"
    timed = ""
    if rule.seconds_left is not None:
        # A unit does not stand alone on a line.
        timed = f", about {time_words(rule.seconds_left)}".replace(" s", "\N{NO-BREAK SPACE}s")
    to_go = "" if rule.name in _NO_NUMBERS_LEFT else " to go"
    missing = rule.missing.removeprefix("the interval ") if rule.name == "half-width" else rule.missing
    return f"{title}: {missing}{to_go}{timed if rule.name != 'seconds' else ''}"


def too_few_words(n: int) -> str:
    """Say that there are too few cells to act on, where that is so."""
    return f"too few cells to act on yet: wait for {FEW_CELLS} at least" if n < FEW_CELLS else ""


def grave_so_far(progress: Progress) -> list[str]:
    """Return what already forbids acting on the number of a run that goes on."""
    return [w.sentence for w in progress.warned or () if w.grave]


def mild_so_far(progress: Progress, warnings: Sequence[str]) -> list[str]:
    """Return what else must be said of a run that goes on: `warnings`, and what its quality says."""
    warned = progress.warned or ()
    grave = {w.sentence for w in warned if w.grave}
    return [*(w.sentence for w in warned if not w.grave), *(w for w in warnings if w not in grave)]
