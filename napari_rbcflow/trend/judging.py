"""Which runs lie below a patient's baseline, and which days make that baseline.

Every run is compared with the baseline of the other days. It lies below where both hold: its whole interval
lies below mean - 2 sd (so its own counting does not explain it), and its fraction lies below the limit that a
baseline from so few days carries (so chance in the baseline does not). One run alone seldom shows a fall
of ten points in this way; two of three days in a row that lie below the second limit do too, the rule of two
of three (Western Electric 1956). A run lies perhaps below where only its fraction does: below mean - 2 sd of
the other days, or of all that make the baseline.

Days with a run that lies below are no baseline. As several low days hide each other, the lowest days are
tried together: the most days are left out, fewer than half, that all lie below the baseline of the rest. The
figures that this was chosen by stand in docs/decisions/trend.md.

References
----------
Western Electric Company (1956). Statistical Quality Control Handbook, section I, part B.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from napari_rbcflow.trend.baseline import LEAST_DAYS, Baseline, Day

IN_A_ROW = 3
"""Two days of so many in a row confirm each other."""


class Below(StrEnum):
    """Whether a run lies below the patient's baseline."""

    YES = "yes"
    PERHAPS = "perhaps"
    NO = "no"
    UNKNOWN = ""
    """There are too few other days, or its number must not be acted on."""


@dataclass(frozen=True)
class Measured:
    """One run's fraction, all in [0, 1], of `n` cells."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """What is said of one run.

    Attributes
    ----------
    below : Below
    against : Baseline or None
        That of the other days.
    limit : float or None
        Under it, a fraction lies at least perhaps below.
    in_a_row : bool
        It lies below for the sake of another day close to it.
    above : bool
        It lies as clearly above as others lie below.
    """

    below: Below
    against: Baseline | None = None
    limit: float | None = None
    in_a_row: bool = False
    above: bool = False


DayRuns = Sequence[Measured]


def left_out(days: Sequence[DayRuns], candidates: Collection[int]) -> set[int]:
    """Return the places of the days that lie below the baseline which the other candidates make.

    Parameters
    ----------
    days : sequence of sequence of Measured
        In the order of time, each with one run or more.
    candidates : collection of int
        Places of the days that may make the baseline.
    """
    found: set[int] = set()
    most = min(len(candidates) - LEAST_DAYS, (len(candidates) - 1) // 2)
    # Low in two senses, as a low number from few cells has a high upper end.
    keys: tuple[Callable[[int], float], ...] = (
        lambda d: min(run.high for run in days[d]),
        lambda d: min(run.estimate for run in days[d]),
    )
    for key in keys:
        order = sorted(candidates, key=key)
        for together in range(most, len(found), -1):
            low = set(order[:together])
            if _all_below(days, low, set(candidates) - low):
                found = low
                break
    # What is left may hold a day that only now stands out.
    while len(found) < most:
        rest = set(candidates) - found
        said = judge(days, rest)
        out = [d for d in rest if any(verdict.below is Below.YES for verdict in said[d])]
        if not out:
            break
        found.add(min(out, key=keys[0]))
    return found


def judge(days: Sequence[DayRuns], made_from: Collection[int]) -> list[list[Verdict]]:
    """Return the verdict on each run of each day.

    Parameters
    ----------
    days : sequence of sequence of Measured
        In the order of time.
    made_from : collection of int
        Places of the days that make the baseline.
    """
    whole = Baseline.of([_day(days[d]) for d in sorted(made_from)])
    against = [
        Baseline.of([_day(days[d]) for d in sorted(made_from) if d != place]) if place in made_from else whole
        for place in range(len(days))
    ]
    deep = [_any_deep(runs, base) for runs, base in zip(days, against, strict=True)]
    return [
        [_verdict(run, base, whole, confirmed=_near(place, deep)) for run in runs]
        for place, (runs, base) in enumerate(zip(days, against, strict=True))
    ]


def _all_below(days: Sequence[DayRuns], low: set[int], rest: set[int]) -> bool:
    base = Baseline.of([_day(days[d]) for d in sorted(rest)])
    deep = [place in low and _any_deep(runs, base) for place, runs in enumerate(days)]
    return all(
        any(_verdict(run, base, base, confirmed=_near(d, deep)).below is Below.YES for run in days[d])
        for d in low
    )


def _verdict(run: Measured, base: Baseline | None, whole: Baseline | None, *, confirmed: bool) -> Verdict:
    if base is None or whole is None:
        return Verdict(Below.UNKNOWN)
    # What lies under the baseline that is shown is never called fine.
    limit = max(base.limit, whole.low)
    if _deep(run, base):
        if run.high < base.low:
            return Verdict(Below.YES, base, limit)
        if confirmed:
            return Verdict(Below.YES, base, limit, in_a_row=True)
    if run.estimate < limit:
        return Verdict(Below.PERHAPS, base, limit)
    return Verdict(Below.NO, base, limit, above=run.estimate > base.sure_high and run.low > base.high)


def _deep(run: Measured, base: Baseline) -> bool:
    """Whether the fraction lies below what chance in a baseline from few days explains."""
    return run.estimate < base.sure_low


def _any_deep(runs: DayRuns, base: Baseline | None) -> bool:
    return base is not None and any(_deep(run, base) for run in runs)


def _near(place: int, deep: Sequence[bool]) -> bool:
    """Whether another day, so near that both are among `IN_A_ROW` in a row, lies deep too."""
    first = max(0, place - IN_A_ROW + 1)
    return any(deep[d] for d in range(first, min(len(deep), place + IN_A_ROW)) if d != place)


def _day(runs: DayRuns) -> Day:
    return Day.of([(run.estimate, run.n) for run in runs])
