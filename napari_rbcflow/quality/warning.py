"""A warning or note about a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from napari_rbcflow.sentences import say


class Severity(StrEnum):
    """How serious a warning is."""

    NOTE = "note"
    """The number is valid; something could be better."""
    WARNING = "warning"
    """Grave: nobody should act on the number without thinking twice."""


@dataclass(frozen=True)
class RunWarning:
    """A warning or note.

    Attributes
    ----------
    key : str
        Its name in ``run.json`` and docs/warnings.md: ``flow-slow``, ``light-dark``, ...
    severity : Severity
    sentence : str
        What is wrong and what to do.
    """

    key: str
    severity: Severity
    sentence: str

    @classmethod
    def saying(cls, key: str, severity: Severity, variant: str = "", **values: object) -> RunWarning:
        """Return the warning with its sentence; `variant` is the rest of the key of the sentence."""
        return cls(key, severity, say(f"quality.warn-{key}{variant}", **values))

    @property
    def grave(self) -> bool:
        """Whether nobody should act on the number without thinking twice."""
        return self.severity is Severity.WARNING

    @property
    def text(self) -> str:
        """The sentence after its severity: ``Warning. The picture is dark: ...``."""
        return say(f"quality.severity-{self.severity}", sentence=self.sentence)

    def as_dict(self) -> dict[str, str]:
        """Return it as ``run.json`` holds it."""
        return {"key": self.key, "severity": str(self.severity), "sentence": self.sentence}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> RunWarning | None:
        """Return one from ``run.json``; None if it is not one."""
        try:
            return cls(str(told["key"]), Severity(told["severity"]), str(told["sentence"]))
        except (KeyError, TypeError, ValueError):
            return None


def sorted_by_weight(warnings: Iterable[RunWarning]) -> list[RunWarning]:
    """Return grave ones first, otherwise in their order, each sentence once."""
    once = {w.sentence: w for w in sorted(warnings, key=lambda w: not w.grave, reverse=True)}
    return sorted(once.values(), key=lambda w: not w.grave)
