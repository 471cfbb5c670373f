"""When there are enough cells."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import fixed_width
from napari_rbcflow.estimate.fraction import RunningFraction

USUAL_RELIABLE = 200
"""Cells, where nobody says: about what one acquisition of Darrin et al. 2023 holds (120 to 270)."""


@dataclass(frozen=True)
class StopRules:
    """(At least `reliable` cells and a half-width of at most `halfwidth`), or any of the other three.

    A rule that is None asks for nothing; without any, the source's end or a person stops the run.

    The half-width is that of the interval which will be said. For a run that only its width can stop, that
    is the fixed-width one. Where a baseline may stop it too, it is the interval that holds at every look,
    as then no other one does (see `said`).

    Attributes
    ----------
    reliable : int or None
        Cells counted.
    halfwidth : float or None
        In (0, 0.5).
    seconds : float or None
        Of camera time.
    tracks : int or None
        Tracks finished, counted or not.
    baseline : float or None
        In (0, 1): stops when the interval that holds at every look lies wholly below or above it.

    Raises
    ------
    BadInput
        For a rule that can never be met, or is met before it began.
    """

    reliable: int | None = None
    halfwidth: float | None = None
    seconds: float | None = None
    tracks: int | None = None
    baseline: float | None = None

    def __post_init__(self) -> None:
        if self.reliable is not None and self.reliable < 1:
            raise BadInput(f"--stop-reliable must be at least 1, not {self.reliable}")
        if self.halfwidth is not None and not 0 < self.halfwidth < 0.5:
            raise BadInput(f"--stop-halfwidth must lie between 0 and 0.5, not {self.halfwidth:g}")
        if self.seconds is not None and not self.seconds > 0:
            raise BadInput(f"--stop-seconds must be above 0, not {self.seconds:g}")
        if self.tracks is not None and self.tracks < 1:
            raise BadInput(f"--stop-tracks must be at least 1, not {self.tracks}")
        if self.baseline is not None and not 0 < self.baseline < 1:
            raise BadInput(f"--stop-baseline must lie between 0 and 1 (0.86 for 86 %), not {self.baseline:g}")

    def prepare(self, level: float = 0.95) -> None:
        """Work out what takes long, up to a second or a few, before the run and not in it."""
        if self.width_matters(level) and self.baseline is None:
            self.critical_value(level)

    def width_matters(self, level: float) -> bool:
        """Whether the half-width asks for anything.

        Not where `reliable` cells make every interval that narrow: then their number is fixed beforehand.
        """
        if self.halfwidth is None:
            return False
        if self.reliable is None or self.baseline is not None:
            return True
        z = fixed_width.critical_value(self.halfwidth, level)
        return self.reliable < fixed_width.most_cells(self.halfwidth, z)

    def critical_value(self, level: float) -> float:
        """Return the z of the fixed-width rule; slow the first time (see `prepare`)."""
        assert self.halfwidth is not None
        return fixed_width.critical_value(self.halfwidth, level, self.reliable or 1)

    def half_width(self, fraction: RunningFraction) -> float:
        """Return the half-width that is compared with `halfwidth`; 0.5 where nothing was counted."""
        if self.baseline is not None:
            low, high = fraction.anytime_interval()
            return (high - low) / 2
        return fixed_width.half_width(fraction.tank_treading, fraction.n, self.critical_value(fraction.level))

    def side(self, fraction: RunningFraction) -> str | None:
        """Return ``below`` or ``above`` where the interval at every look leaves the baseline, else None."""
        if self.baseline is None:
            return None
        low, high = fraction.anytime_interval()
        return "below" if high < self.baseline else "above" if low > self.baseline else None

    def met_by(self, fraction: RunningFraction, tracks: int = 0) -> str | None:
        """Return the rule that is met, named as in ``run.json``, else None; the time is `out_of_time`.

        Where two are met by the same track, cells go before the baseline, and that before tracks.
        """
        if reason := self._cells_met(fraction):
            return reason
        if self.side(fraction):
            return "baseline"
        return "tracks" if self.tracks is not None and tracks >= self.tracks else None

    def _cells_met(self, fraction: RunningFraction) -> str | None:
        """Where cells and width are asked for, both must hold, and the one met last is named."""
        if self.reliable is not None and fraction.n < self.reliable:
            return None
        if not self.width_matters(fraction.level):
            return "reliable" if self.reliable is not None else None
        assert self.halfwidth is not None
        if not fraction.n or self.half_width(fraction) > self.halfwidth:
            return None
        # The count rises by one a cell: that it stands just at N means that the width was there before.
        return "reliable" if fraction.n == self.reliable else "half-width"

    def out_of_time(self, seconds: float) -> bool:
        """Whether the camera has run long enough."""
        return self.seconds is not None and seconds >= self.seconds
