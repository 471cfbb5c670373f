"""When there are enough cells."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.fraction import RunningFraction

USUAL_RELIABLE = 200
"""Cells, where nobody says: about what one acquisition of Darrin et al. 2023 holds (120 to 270)."""


@dataclass(frozen=True)
class StopRules:
    """At least `reliable` cells and a half-width of at most `halfwidth`, or `seconds` of camera time.

    A rule that is None asks for nothing. Where neither cells nor half-width are asked for, only
    the time, the source's end or a person stops the run.

    Raises
    ------
    BadInput
        For a rule that can never be met, or is met before it began.
    """

    reliable: int | None = None
    halfwidth: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.reliable is not None and self.reliable < 1:
            raise BadInput(f"--stop-reliable must be at least 1, not {self.reliable}")
        if self.halfwidth is not None and not 0 < self.halfwidth < 0.5:
            raise BadInput(f"--stop-halfwidth must lie between 0 and 0.5, not {self.halfwidth:g}")
        if self.seconds is not None and not self.seconds > 0:
            raise BadInput(f"--stop-seconds must be above 0, not {self.seconds:g}")

    def met_by(self, fraction: RunningFraction) -> str | None:
        """Return ``reliable`` or ``half-width`` if the cells counted so far are enough, else None.

        Where both are asked for, both must hold, and the one that was met last is named.
        """
        if self.reliable is None and self.halfwidth is None:
            return None
        if self.reliable is not None and fraction.n < self.reliable:
            return None
        if self.halfwidth is not None and fraction.half_width > self.halfwidth:
            return None
        # The count rises by one a cell: that it stands just at N means that the width was there before.
        return "reliable" if fraction.n == self.reliable or self.halfwidth is None else "half-width"

    def out_of_time(self, seconds: float) -> bool:
        """Whether the camera has run long enough."""
        return self.seconds is not None and seconds >= self.seconds

    def missing(self, fraction: RunningFraction, seconds: float) -> str:
        """Say in a few words what is still missing, for the line that a person watches."""
        parts = []
        if self.reliable is not None and fraction.n < self.reliable:
            parts.append(f"{self.reliable - fraction.n} cells")
        if self.halfwidth is not None and fraction.half_width > self.halfwidth:
            parts.append(f"±{100 * fraction.half_width:.1f} to ±{100 * self.halfwidth:.1f} %")
        cells = " and ".join(parts)
        if self.seconds is None:
            return cells or ("the source's end" if self.reliable is self.halfwidth is None else "nothing")
        time_left = f"{max(0.0, self.seconds - seconds):.0f} s"
        return f"{cells} or {time_left}" if cells else time_left

    def share(self, fraction: RunningFraction, seconds: float) -> float | None:
        """Return how far it is to the stop, 0 to 1, by the rule that is nearest; None without a rule.

        A half-width shrinks as one over the root of the cells: the share is that of the cells needed.
        """
        cells = []
        if self.reliable is not None:
            cells.append(fraction.n / self.reliable)
        if self.halfwidth is not None:
            cells.append((self.halfwidth / fraction.half_width) ** 2 if fraction.n else 0.0)
        shares = [min(cells)] if cells else []
        if self.seconds is not None:
            shares.append(seconds / self.seconds)
        return min(1.0, max(shares)) if shares else None
