"""From where on a measure is worth a word. Reasons and what was measured: docs/decisions/quality.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The range in which nothing is said, and the wider one beyond which the warning is grave.

    Attributes
    ----------
    note, warning : (float, float)
        Lowest and highest value without a note, and without a grave warning.
    """

    note: tuple[float, float]
    warning: tuple[float, float]

    def broken_by(self, value: float) -> int:
        """Return how badly, by its sign too low or too high: 0, 1 for a note, 2 for a grave warning."""
        if value < self.note[0]:
            return -2 if value < self.warning[0] else -1
        if value > self.note[1]:
            return 2 if value > self.warning[1] else 1
        return 0


INFINITE = float("inf")

LOST = 0.01
"""Share of all frames, dropped or missed, from which on the loss is grave: tracks of about 30 frames are
then cut by a lost frame in a quarter of the cases."""
NOT_ANALYSED = 0.05
"""Share of the frames without light, focus or background, from which on that is grave: beyond a moment."""
FEW_CELLS = 30
"""Below that the interval spans most of what a patient's fraction could be."""
RELIABLE_SHARE = Limits(note=(0.04, 0.25), warning=(0.03, INFINITE))
"""Stage 1 lets 1.4 % of the unreliable through (its card): where 4 % pass, that is a third of what passes,
where 3 % pass nearly half, and then the number is no longer one of reliable cells. In the paper 3.4 % of all
are reliable, in its densest set 5; here tracks that are too pale to be judged are not among all."""
SHEAR = Limits(note=(0.75, 1.4), warning=(0.6, 1.67))
"""Measured over set shear rate. Cells of the published crops move 20 to 30 px a frame, where 22 are expected:
0.9 to 1.4. Beyond, the flow or the focus's height is not what was set, and the fraction depends on both."""
UNSTEADY = Limits(note=(0.0, 1.25), warning=(0.0, 1.67))
"""Fastest over slowest 40 reliable cells in a row."""
PER_FIELD = Limits(note=(40.0, 300.0), warning=(0.0, 500.0))
"""Cells in the paper's field; it has 100 to 250."""
CLUMPS = Limits(note=(0.0, 1.9), warning=(0.0, 2.4))
"""Crops with a neighbour over what chance would bring at that density."""
CLUMPS_LEAST_SHARE = 0.1
LIGHT_GREY = Limits(note=(50.0, 195.0), warning=(20.0, INFINITE))
"""A rim is 9 % darker than the field: 2 grey levels at 20. A bright middle is 30 % brighter: 255 at 195."""
SATURATED = Limits(note=(0.0, 0.0002), warning=(0.0, 0.0005))
"""Share of the picture's pixels at 255: they are the middles of cells before they are the field."""
BLACK = Limits(note=(0.0, 0.001), warning=(0.0, 0.02))
FLICKER = Limits(note=(0.0, 0.02), warning=(0.0, INFINITE))
LIGHT_JUMP = 0.1
LIGHT_DRIFT = 1.3
RIM_RADIUS_UM = Limits(note=(2.9, 3.8), warning=(2.75, 4.0))
"""Of reliable cells, median. Published crops: 3.1 (flipping) to 3.6 um (tank-treading)."""
RIM_RADIUS_OF_ALL_UM = Limits(note=(2.4, 3.6), warning=(2.4, 3.6))
"""Of all cells, the tenth part that is smallest; told where there are too few reliable ones."""
CHANGE = 0.05
"""Of the fraction within a run: the half-width that a run usually asks for."""
LOST_TRACKS = 0.5
"""Share of tracks that were lost within a few frames."""
LATE_LABELS_S = 2.0
"""From which on it is told that labels come late: ten times what they take on a computer that keeps up."""

LEAST_TRACKS = 300
LEAST_RELIABLE = 20
LEAST_FRAMES = 120
