"""How a run ended: what came first decides, but a fault outranks everything."""

from __future__ import annotations

import threading

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.sources.base import in_a_line

SOURCE_ENDED = ("finished", "source-ended")
_LEAVE_THE_REST_TO_COUNT = (SOURCE_ENDED, ("finished", "seconds"))
"""After these, what waits to be judged still counts, and may meet a rule of the cells."""


class Outcome:
    """Status and stop reason of a run, set from any of its threads.

    Attributes
    ----------
    failed : bool
        Whether a part of the run itself broke. A source that breaks ends the run as failed too, but
        leaves everything behind it working: then `failed` stays False.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: tuple[str, str] | None = None
        self.failed = False

    @property
    def said(self) -> tuple[str, str]:
        """Status and stop reason as in ``run.json``; ``("running", "")`` until something ended the run."""
        return self._said or ("running", "")

    @property
    def source_ended(self) -> bool:
        """Whether the source came to its own end."""
        return self._said == SOURCE_ENDED

    def end(self, status: str, reason: str) -> None:
        """End the run, unless something else did before."""
        with self._lock:
            if self._said is None:
                self._said = (status, reason)

    def rule_met(self, reason: str) -> None:
        """A stop rule was met, be it by the last cells of a source whose end or time had just come."""
        with self._lock:
            if self._said is None or self._said in _LEAVE_THE_REST_TO_COUNT:
                self._said = ("finished", reason)

    def fail(self, error: BaseException) -> bool:
        """A part of the run broke; return whether it is the first."""
        with self._lock:
            first, self.failed = not self.failed, True
            if first:
                self._said = ("failed", reason_of(error))
        return first


def reason_of(error: BaseException) -> str:
    """Return the sentence with which a run ends: our own, or one round what nobody foresaw."""
    if isinstance(error, RbcflowError):
        return str(error)
    what = f"{type(error).__name__}: {in_a_line(error)}".removesuffix(": ")
    return (
        f"A part of the program broke ({what}): start again, and if it happens again, report it with run.log."
    )
