"""How often the networks are right in one laboratory: from persons' checks of some of its runs.

A review (`review`) looks at a few tracks of each stratum of a run, so that each checked track stands for
``N_h / n_h`` tracks. What it says of the rates is turned into counts: a rate, and as many cells as would know
it as well if all were checked alike. So `error_correction` can draw a new day's rates as it draws a new
patient's, from the counts of the days that were reviewed.

For each run the shares of the three kinds are drawn in every stratum from what was seen there, the tracks
that nobody checked follow from them, and each rate follows from the sums. The counts are those of the beta
distribution with the same mean and variance, where the variance holds what the review leaves open and what a
run of so many cells leaves open even if all are checked. What stage 2 cannot tell is not counted, so it is
among the cells that are not found.

References
----------
Kish, L. (1965). Survey Sampling. Wiley: effective sample sizes. His own formula, from the weights alone, was
not taken: it holds for a weight that has nothing to do with what is measured, and here the cells that were
missed are those with the great weights.
Röver, C., Bender, R., Dias, S., and others (2021). On weakly informative prior distributions for the
heterogeneity parameter in Bayesian random-effects meta-analysis. Research Synthesis Methods 12, 448-474: a
half-normal prior of scale 0.5 for log odds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_rbcflow.estimate.error_correction import Corrected, corrected_fraction
from napari_rbcflow.estimate.network_rates import NetworkRates, Rate
from napari_rbcflow.estimate.review import KINDS, ReviewPlan
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Floats, Label

RATES = (
    "tank_treading_found",
    "flipping_found",
    "let_through",
    "tank_treading_right",
    "flipping_right",
    "let_through_as_tank",
)
"""What a review tells, named as in `NetworkRates`."""
DAY_SPREAD, LEAK_SPREAD = 0.5, 0.75
"""Scales of the priors of the standard deviation between days of one microscope, in log odds: of the shares
found and right, and of the leak. Over the published days the first differ by 0.2 to 0.4, and the leak differs
more: 1 of 96 and 4 of 34 on two days of one patient (docs/decisions/estimate.md)."""
DRAWS = 4000
_LEAST_PRIOR = 1e-4  # pseudo-count of a kind that nobody expects in a stratum: nothing is impossible
_ALL_TOLD = Rate(1, 1)


def rates_of_review(
    plan: ReviewPlan,
    labels: Mapping[int, Sequence[str]],
    left_out: Collection[int] = (),
    more_unreliable: int = 0,
) -> dict[str, Rate]:
    """Return what the review of one run says of the networks.

    Parameters
    ----------
    plan : ReviewPlan
        Of the run.
    labels : mapping of int to sequence of str
        As in `ReviewPlan.estimate`.
    left_out : collection of int
        Counted tracks that would not be counted at a higher threshold, for which the rates are wanted.
    more_unreliable : int
        Unreliable tracks that the plan leaves out since they are further tracks of cells that it holds. A run
        counts them among its unreliable ones, so the leak is a share of these too.

    Returns
    -------
    dict of str to Rate
        By the names of `RATES`.
    """
    rng = np.random.default_rng(0)
    # Tracks by the machine's label (rows) and the true kind (columns), as they may be.
    tracks = np.zeros((len(KINDS), len(KINDS), DRAWS))
    gone = frozenset(left_out)
    for stratum, prior in zip(plan.strata, plan.prior(labels), strict=True):
        machine = Label(stratum.name.rsplit(" ", 1)[0])
        if machine is not Label.UNRELIABLE:  # of the counted ones, the label itself says more of the kind
            prior = np.append(prior[:2].sum() * _kinds(stratum.expected), prior[2])
        out = np.array([int(cell) in gone for cell in stratum.cells], bool)
        for cells, label in ((stratum.cells[~out], machine), (stratum.cells[out], Label.UNRELIABLE)):
            if not len(cells):
                continue
            seen = np.zeros(len(KINDS))
            for cell in cells:
                said = labels.get(int(cell)) or ()
                for one in said:
                    seen[KINDS.index(Label(one))] += 1 / len(said)
            alpha = seen + np.maximum(prior, _LEAST_PRIOR)
            shares = rng.dirichlet(alpha, DRAWS).T
            rest = len(cells) - round(float(seen.sum()))
            tank = rng.binomial(rest, np.clip(shares[0], 0, 1))
            flip = rng.binomial(rest - tank, np.clip(shares[1] / np.maximum(1 - shares[0], 1e-12), 0, 1))
            kinds = seen[:, None] + np.array([tank, flip, rest - tank - flip])
            tracks[KINDS.index(label)] += kinds
    (tank_tank, tank_flip, tank_none), (flip_tank, flip_flip, flip_none), missed = tracks
    counted_tank, counted_flip = tank_tank + flip_tank, tank_flip + flip_flip
    let_through = tank_none + flip_none
    return dict(
        zip(
            RATES,
            (
                _as_counts(counted_tank, missed[0]),
                _as_counts(counted_flip, missed[1]),
                _as_counts(let_through, missed[2] + more_unreliable),
                _as_counts(tank_tank, flip_tank),
                _as_counts(flip_flip, tank_flip),
                _as_counts(tank_none, flip_none),
            ),
            strict=True,
        )
    )


def _kinds(expected: Floats) -> Floats:
    return np.asarray(expected[:2] / max(float(expected[:2].sum()), 1e-9), np.float64)


def _as_counts(hits: Floats, misses: Floats) -> Rate:
    """Return the counts that would leave a rate as open as its draws do."""
    of = hits + misses
    known = of > 0
    if not known.any():
        return Rate(0, 0)
    shares = hits[known] / of[known]
    mean, cells = float(shares.mean()), float(of.mean())
    variance = float(shares.var()) + mean * (1 - mean) / (cells + 1)
    n = cells if variance <= 0 else min(cells, max(0.0, mean * (1 - mean) / variance - 1))
    return Rate(round(mean * n), max(round(n), round(mean * n)))


@dataclass(frozen=True)
class ReviewedRun:
    """One run that a person reviewed.

    Attributes
    ----------
    day : str
        On which it was recorded.
    tank_treading, flipping, unreliable : int
        Tracks by the machine's label.
    rates : mapping of str to Rate
        From `rates_of_review`.
    """

    day: str
    tank_treading: int
    flipping: int
    unreliable: int
    rates: Mapping[str, Rate]


def laboratory_rates(runs: Sequence[ReviewedRun]) -> NetworkRates:
    """Return a laboratory's rates, with its days in the place of patients.

    Parameters
    ----------
    runs : sequence of ReviewedRun

    Raises
    ------
    ValueError
        Where the networks tell nothing here, or too little was reviewed to say so.
    """

    def of_day(day: str, name: str) -> Rate:
        rates = [run.rates[name] for run in runs if run.day == day]
        return Rate(sum(rate.hits for rate in rates), sum(rate.of for rate in rates))

    days = sorted({run.day for run in runs})
    return rates_of_days({day: {name: of_day(day, name) for name in RATES} for day in days})


def rates_of_days(days: Mapping[str, Mapping[str, Rate]]) -> NetworkRates:
    """Return the same from the rates of each day, by the names of `RATES`."""
    whole = {
        name: Rate(sum(own[name].hits for own in days.values()), sum(own[name].of for own in days.values()))
        for name in RATES
    }
    for name, rate in whole.items():
        if not rate.of and name != "let_through_as_tank":
            raise ValueError(say("estimate.rate-not-reviewed", rate=name.replace("_", " ")))
    as_tank = whole.pop("let_through_as_tank")
    return NetworkRates(
        **whole,
        tank_treading_told=_ALL_TOLD,
        flipping_told=_ALL_TOLD,
        let_through_as=(as_tank.hits, as_tank.of - as_tank.hits, 0),
        by_patient=days,
        told_apart=False,
        spread=DAY_SPREAD,
        leak_spread=LEAK_SPREAD,
    )


def as_record(rates: NetworkRates) -> dict[str, dict[str, list[int]]]:
    """Return a laboratory's rates as ``calibration.json`` and ``run.json`` hold them: counts by day."""
    return {
        day: {name: [rate.hits, rate.of] for name, rate in own.items()}
        for day, own in rates.by_patient.items()
    }


def of_record(record: Mapping[str, Any]) -> NetworkRates:
    """Return the rates of such a record; a ValueError where it is damaged."""
    try:
        days = {str(day): {name: Rate(*map(int, own[name])) for name in RATES} for day, own in record.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(say("estimate.day-rates-damaged", why=repr(error))) from None
    return rates_of_days(days)


def try_on_held_back_days(runs: Sequence[ReviewedRun], level: float = 0.95) -> list[Corrected | None]:
    """Correct each reviewed run with the rates of the other days; None where these tell too little."""
    found: list[Corrected | None] = []
    for run in runs:
        others = [other for other in runs if other.day != run.day]
        try:
            rates = laboratory_rates(others) if others else None
        except ValueError:
            rates = None
        found.append(
            None
            if rates is None
            else corrected_fraction(run.tank_treading, run.flipping, run.unreliable, rates, level)
        )
    return found


def known_well_enough(trial: Sequence[Corrected | None]) -> bool:
    """Say whether a laboratory is known well enough to correct a new day's run, from `try_on_held_back_days`.

    At least half of the reviewed runs must get a number from the other days. Where most get none, the rates
    are not known well enough here, and the few numbers that there are come from rates that happen to look
    well known: their intervals hold the truth less often than they say (benchmarks/calibration.py).
    """
    return 2 * sum(one is not None and one.estimate is not None for one in trial) >= max(len(trial), 1)
