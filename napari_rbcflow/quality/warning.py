"""A thing that a person must be told of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How much a warning weighs, and the word that stands before it."""

    NOTE = "note"
    """The number stands; something could be better."""
    WARNING = "warning"
    """Grave: nobody should act on the number without a second thought."""

    @property
    def word(self) -> str:
        """The word that stands before the sentence."""
        return "Warning" if self is Severity.WARNING else "Note"


@dataclass(frozen=True)
class RunWarning:
    """What a person must be told, and how much it weighs.

    Attributes
    ----------
    key : str
        Its name in ``run.json`` and docs/warnings.md: ``flow-slow``, ``light-dark``, ...
    severity : Severity
    sentence : str
        What is wrong and what to do, in plain words, without the severity's word.
    """

    key: str
    severity: Severity
    sentence: str

    @property
    def grave(self) -> bool:
        """Whether nobody should act on the number without a second thought."""
        return self.severity is Severity.WARNING

    @property
    def said(self) -> str:
        """The sentence behind its word: ``Warning. The picture is dark: ...``."""
        return f"{self.severity.word}. {self.sentence}"

    def as_dict(self) -> dict[str, str]:
        """Return it as ``run.json`` holds it."""
        return {"key": self.key, "severity": str(self.severity), "sentence": self.sentence}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> RunWarning | None:
        """Take one from ``run.json``; None where it is not one."""
        try:
            return cls(str(told["key"]), Severity(told["severity"]), str(told["sentence"]))
        except (KeyError, TypeError, ValueError):
            return None


def sorted_by_weight(warnings: Iterable[RunWarning]) -> list[RunWarning]:
    """Return grave ones first, else in their order, each sentence once."""
    once = {w.sentence: w for w in sorted(warnings, key=lambda w: not w.grave, reverse=True)}
    return sorted(once.values(), key=lambda w: not w.grave)
