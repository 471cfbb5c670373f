"""The axes of a trend: where a date and a fraction lie, and what is written there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from napari_rbcflow.trend.spans import Span
from napari_rbcflow.trend.trend import Trend
from napari_rbcflow.trend.words import MONTHS

_LEAST_DAYS_SHOWN = 6.0
_LEAST_SHARE_SHOWN = 0.25
_STEP_DAYS = (1, 2, 7, 14)
_STEP_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)


def at_day(moment: datetime) -> float:
    """Return a moment as days, by the clock on the wall; whole numbers are midnights."""
    wall = moment.replace(tzinfo=None)
    begin = datetime(wall.year, wall.month, wall.day)
    return wall.toordinal() + (wall - begin) / timedelta(days=1)


@dataclass(frozen=True)
class Scale:
    """What the axes span.

    Attributes
    ----------
    first_day, last_day : float
        As `at_day`.
    low, high : float
        The fraction, in [0, 1].
    """

    first_day: float
    last_day: float
    low: float
    high: float

    @classmethod
    def of(cls, trend: Trend) -> Scale:
        """Span all runs, with their intervals and the baseline."""
        days = [at_day(run.record.started) for run in trend.runs]
        middle, half = (days[0] + days[-1]) / 2, max(days[-1] - days[0], _LEAST_DAYS_SHOWN) / 2
        shown = [0.95]
        for run in trend.runs:
            figures = (run.record.figure, run.record.by_hand)
            shown += [v for f in figures if f is not None for v in (f.estimate, f.low) if v is not None]
        if trend.baseline is not None:
            shown.append(trend.baseline.low)
        low = max(0.0, math.floor(10 * (min(shown) - 0.02)) / 10)
        return cls(middle - 1.06 * half, middle + 1.06 * half, min(low, 1 - _LEAST_SHARE_SHOWN), 1.0)

    def ends_of(self, span: Span) -> tuple[float, float]:
        """Return where the days of a span begin and end, as far as they are on the axis."""
        begin = self.first_day if span.first is None else float(span.first.toordinal())
        end = self.last_day if span.last is None else span.last.toordinal() + 1.0
        return max(begin, self.first_day), min(end, self.last_day)

    def shares(self) -> list[float]:
        """Return the fractions to be written at the axis."""
        step = 0.05 if self.high - self.low <= 0.35 else 0.1 if self.high - self.low <= 0.7 else 0.2
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def dates(self, most: int = 9) -> list[tuple[float, str]]:
        """Return at most so many days to be written at the axis, with their words."""
        first = date.fromordinal(math.ceil(self.first_day))
        last = date.fromordinal(max(math.floor(self.last_day), first.toordinal()))
        every: list[Sequence[date]] = [list(_by_days(first, last, step)) for step in _STEP_DAYS]
        every += [list(_by_months(first, last, step)) for step in _STEP_MONTHS]
        days = next((days for days in every if len(days) <= most), every[-1])
        by_month = len(days) > 1 and all(day.day == 1 for day in days)
        return [(float(day.toordinal()), _said(day, before, by_month)) for day, before in _pairs(days)]


def _by_days(first: date, last: date, step: int) -> Iterator[date]:
    # Weeks begin on Mondays, whenever the first run was.
    day = first + timedelta(days=-first.toordinal() % step + (1 if step >= 7 else 0))
    if step >= 7 and day - timedelta(days=step) >= first:
        day -= timedelta(days=step)
    while day <= last:
        yield day
        day += timedelta(days=step)


def _by_months(first: date, last: date, step: int) -> Iterator[date]:
    for month in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        day = date(month // 12, month % 12 + 1, 1)
        if month % step == 0 and first <= day:
            yield day


def _pairs(days: Sequence[date]) -> Iterator[tuple[date, date | None]]:
    return zip(days, [None, *days], strict=False)


def _said(day: date, before: date | None, by_month: bool) -> str:
    name = MONTHS[day.month - 1] if by_month else f"{day.day} {MONTHS[day.month - 1]}"
    return f"{name}\n{day.year}" if before is None or before.year != day.year else name
