"""Frames that were lost, by reason, in words."""

from __future__ import annotations

from collections.abc import Mapping

REASONS = {
    "queue-full": "this computer could not keep up",
    "after-stop": "came after the stop",
    "run-failed": "left when the run failed",
    "image-number": "gap in the camera's numbering",
    "time-gap": "gap in the camera's time",
    "overflow": "the camera's buffer overflowed",
}
"""What the names of ``run.json`` mean."""


def by_reason(counts: Mapping[str, int]) -> str:
    """Return counts by the names of ``run.json``, the greatest first: ``time-gap 7, overflow 3``."""
    return ", ".join(f"{reason} {n:,}" for reason, n in _sorted(counts))


def lost_words(*, dropped: Mapping[str, int], missed: Mapping[str, int]) -> str:
    """Return the same of both kinds of loss; empty where none was: ``missed: time-gap 7; dropped: ...``."""
    kinds = (("missed", by_reason(missed)), ("dropped", by_reason(dropped)))
    return "; ".join(f"{kind}: {said}" for kind, said in kinds if said)


def explained(counts: Mapping[str, int]) -> str:
    """Return a line for each reason, with what it means."""
    return "\n".join(f"{n:,} {reason}: {REASONS.get(reason, reason)}" for reason, n in _sorted(counts))


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((reason, n) for reason, n in counts.items() if n), key=lambda item: (-item[1], item[0]))
