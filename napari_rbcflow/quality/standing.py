"""Warnings that stay for a while once they came, so that nothing flickers, and how long each stood."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from napari_rbcflow.quality.warning import RunWarning, Severity, sorted_by_weight

STAYS_S = 10.0
"""That a warning stays after its cause was seen last."""
_REWORDED_EVERY_S = 5.0
"""Numbers in a sentence change no more often."""


@dataclass(slots=True)
class _Stood:
    warning: RunWarning
    last_true_s: float
    worded_s: float
    total_s: float = 0.0
    grave_s: float = 0.0
    worst: RunWarning | None = None


class Standing:
    """Which warnings stand, as somebody looks at a run again and again, in camera time."""

    def __init__(self) -> None:
        self._stood: dict[str, _Stood] = {}
        self._looked_s: float | None = None

    def look(self, warnings: Iterable[RunWarning], now_s: float) -> tuple[RunWarning, ...]:
        """Take in what is true now, and return what stands, grave warnings first.

        Parameters
        ----------
        warnings : iterable of RunWarning
        now_s : float
            Seconds, never less than before.
        """
        since = 0.0 if self._looked_s is None else max(0.0, now_s - self._looked_s)
        self._looked_s = now_s
        for warning in sorted_by_weight(warnings)[::-1]:  # grave ones last, so that they overrule
            stood = self._stood.get(warning.key)
            if stood is None:
                self._stood[warning.key] = stood = _Stood(warning, now_s, now_s)
            elif self._is_new(stood, warning, now_s):
                stood.warning, stood.worded_s = warning, now_s
            stood.last_true_s = now_s
            stood.total_s += since
            if warning.grave:
                stood.grave_s += since
                stood.worst = warning
        return self.standing

    @staticmethod
    def _is_new(stood: _Stood, warning: RunWarning, now_s: float) -> bool:
        if not Standing._stands(stood, now_s) or (warning.grave and not stood.warning.grave):
            return True
        # A grave warning that became a mild one waits too: at its limit it would come and go.
        return now_s - stood.worded_s >= (
            _REWORDED_EVERY_S if warning.grave is stood.warning.grave else STAYS_S
        )

    @staticmethod
    def _stands(stood: _Stood, now_s: float) -> bool:
        return now_s - stood.last_true_s <= STAYS_S

    @property
    def standing(self) -> tuple[RunWarning, ...]:
        """What stands since the last look."""
        now = self._looked_s or 0.0
        return tuple(sorted_by_weight(s.warning for s in self._stood.values() if self._stands(s, now)))

    def passed(self, told: Iterable[RunWarning], seconds: float) -> list[RunWarning]:
        """Return the grave warnings that stood for a time, but of which the whole run says nothing.

        Parameters
        ----------
        told : iterable of RunWarning
            What is said of the whole run.
        seconds : float
            Its length.

        Returns
        -------
        list of RunWarning
            Grave where they stood for `GRAVE_SHARE` of the run, else notes.
        """
        known = {w.key for w in told if w.grave}
        past = []
        for key, stood in self._stood.items():
            if stood.worst is None or key in known or stood.grave_s < LEAST_S:
                continue
            grave = stood.grave_s >= GRAVE_SHARE * max(seconds, LEAST_S)
            past.append(
                RunWarning(
                    key,
                    Severity.WARNING if grave else Severity.NOTE,
                    f"For {stood.grave_s:.0f} of {seconds:.0f} seconds: {stood.worst.sentence}",
                )
            )
        return past


LEAST_S = 5.0
GRAVE_SHARE = 0.2
"""Of a run, from which on what stood for a time is grave for the whole."""
