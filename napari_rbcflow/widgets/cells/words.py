"""What is said of a cell, in words for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from napari_rbcflow.session.browse import LookedAt
from napari_rbcflow.session.crops import CropSequence
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.theme import FAULT_COLOUR, LOOKS, WARNING_COLOUR

_WORDS_WHY = {
    "stage-1": "not sharp or not alone enough, says the first network",
    "stage-2": "judged by both networks",
    "undecided": "sharp enough, but the second network cannot tell whether it tank-treads or flips",
    "other-speed": "it moves at another speed than the cells in focus, so it lies higher or lower",
    "too-short": "seen in too few frames to be judged",
    "after-stop": "it ended after the stop, when the number was frozen",
    "cut-by-stop": "it was still in the picture at the stop",
    "run-failed": "the run broke before it was judged",
    "too-few-frames": "seen in fewer frames than a cell must be to count in this run",
    "piece": "it may be another piece of a cell that is counted already",
}


@dataclass(frozen=True)
class Words:
    """What is said of a judged cell.

    Attributes
    ----------
    label : str
    p_reliable, p_tank_treading : float or None
    reason : str
    """

    label: str
    p_reliable: float | None
    p_tank_treading: float | None
    reason: str

    @property
    def certainty(self) -> float | None:
        """The probability of the label itself; None where there is none."""
        if self.label == Label.TANK_TREADING:
            return self.p_tank_treading
        if self.label == Label.FLIPPING:
            return None if self.p_tank_treading is None else 1 - self.p_tank_treading
        if self.label == Label.UNRELIABLE and self.reason not in ("undecided", "other-speed"):
            return None if self.p_reliable is None else 1 - self.p_reliable
        return None

    @property
    def probabilities(self) -> str:
        """Both probabilities, or that there are none."""
        said = []
        if self.p_reliable is not None:
            said.append(f"reliable {two_digits(self.p_reliable)}")
        if self.p_tank_treading is not None:
            said.append(f"tank-treading {two_digits(self.p_tank_treading)}")
        return ", ".join(said) or "no probabilities"

    @property
    def why(self) -> str:
        """The reason in plain words."""
        return _WORDS_WHY.get(self.reason, self.reason)


def two_digits(p: float) -> str:
    """Say a probability; never as 1.00 or 0.00 what is not."""
    if 0.995 <= p < 1:
        return ">0.99"
    if 0 < p < 0.005:
        return "<0.01"
    return f"{p:.2f}"


def words_of(label: str) -> str:
    """Return a label's name for a person."""
    look = LOOKS.get(label)
    return label if look is None else look.words


def heading_of(cell: LookedAt) -> str:
    """Return the machine's label and the one by hand, if there is one, as rich text."""
    look = LOOKS[cell.label]
    machine = f"<span style='color:{look.colour}'>{look.sign} {look.words}</span>"
    if cell.change is None:
        return f"Cell {cell.cell}: {machine}"
    hand = LOOKS[cell.change.now]
    return (
        f"Cell {cell.cell}: {machine}<br>by hand:"
        f" <span style='color:{hand.colour}'>{hand.sign} {hand.words.removesuffix(' by hand')}</span>"
    )


def facts_of(cell: LookedAt) -> str:
    """Return what is known of a cell, a line each, as rich text."""
    words = Words(cell.label, cell.p_reliable, cell.p_tank_treading, cell.reason)
    lines = [
        *words.probabilities.split(", "),
        words.why,
        f"{cell.frames} frames, {cell.first_frame} to {cell.last_frame}",
        f"{cell.speed_um_per_s:,.0f} µm/s; last seen at x {cell.x_px:.0f}, y {cell.y_px:.0f} px",
    ]
    if cell.change is not None:
        when = cell.change.changed[:16].replace("T", ", ")
        lines.append(f"changed by {cell.change.by}, {when}")
    return "<br>".join(escape(line) for line in lines)


def flags_said(sequence: CropSequence) -> Sequence[str]:
    """Say which frames need a second look, a line a kind."""
    said = []
    for flags, mark, words in (
        (
            sequence.intruded,
            f"<span style='color:{FAULT_COLOUR}'>◥</span>",
            "another cell stands in the crop",
        ),
        (
            ~sequence.seen,
            f"<span style='color:{WARNING_COLOUR}'>⬚</span>",
            "the position was predicted, not seen",
        ),
        (sequence.edge, f"<span style='color:{WARNING_COLOUR}'>▁</span>", "cut by the edge of the field"),
    ):
        if n := int(np.count_nonzero(flags)):
            said.append(f"{mark} {n} of {len(flags)} frames: {words}")
    return said
