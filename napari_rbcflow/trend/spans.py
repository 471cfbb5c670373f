"""Spans of days, as a person writes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from napari_rbcflow.errors import BadInput

_HOW = "write FROM:TO with dates such as 2026-03-02:2026-03-09, or one date"


@dataclass(frozen=True)
class Span:
    """Days from `first` to `last`, both included; None is open.

    Raises
    ------
    BadInput
        Where it ends before it begins.
    """

    first: date | None
    last: date | None

    def __post_init__(self) -> None:
        if self.first is not None and self.last is not None and self.last < self.first:
            raise BadInput(f"{self} ends before it begins: {_HOW}.")

    def __contains__(self, day: date) -> bool:
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    def __str__(self) -> str:
        if self.first == self.last and self.first is not None:
            return str(self.first)
        return f"{self.first or ''}:{self.last or ''}"


def parse_span(text: str) -> Span:
    """Return the days of ``FROM:TO``, ``FROM:``, ``:TO`` or ``DATE``.

    Raises
    ------
    BadInput
        For anything else.
    """
    first, colon, last = text.strip().partition(":")
    if not (first.strip() or last.strip()):
        raise BadInput(f"{text!r} is no span of days: {_HOW}.")
    begin = _date(first, text)
    return Span(begin, _date(last, text) if colon else begin)


def parse_spans(text: str) -> tuple[Span, ...]:
    """Return the spans of a field in which several stand, between commas, semicolons or spaces."""
    return tuple(parse_span(part) for part in text.replace(",", " ").replace(";", " ").split())


def within(day: date, spans: Iterable[Span]) -> bool:
    """Say whether a day lies in one of them."""
    return any(day in span for span in spans)


def _date(text: str, whole: str) -> date | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(f"{whole!r} is no span of days ({text.strip()!r} is no date): {_HOW}.") from None
