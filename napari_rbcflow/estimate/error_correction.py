"""The tank-treading fraction corrected for the networks' known errors, with all that is uncertain in it.

Of N judged tracks A are reliable and tank-treading, B reliable and flipping, the others unreliable. What is
counted as tank-treading (k) and as flipping (m) follows from these by the networks' rates::

    k = A found_A told_A right_A       + B found_B told_B (1 - right_B) + (N - A - B) leak told_U c
    m = A found_A told_A (1 - right_A) + B found_B told_B right_B       + (N - A - B) leak told_U (1 - c)

with c the share of tank-treading labels among unreliable cells that were let through and told. Two equations
give A and B, and the fraction A / (A + B): Rogan and Gladen's estimator with a leak. Every rate, and the
counting itself, is drawn from what its counts leave open; the interval lies between the quantiles of the
resulting fractions. A draw in which one of A and B is negative gives 0 or 1; one in which both are tells
nothing, and counts as 0 for the low end and as 1 for the high one. Near 0 and 1 most draws may be like that,
and the interval would be shorter the less the counts fit the rates: so it is never shorter than that of the
possible draws alone. The draws are a fixed Sobol sequence: the same counts give the same interval.

Where the rates were counted patient by patient, each is drawn as that of a patient who is not among these
(`network_rates`). Such rates reach far, and the run itself refutes many: those that
would have let more unreliable cells through than were counted, or found so few that there must have been
more reliable cells than tracks. Only the possible draws are counted then. The interval is never shorter than
the one of all labelled cells together, which knows nothing of how patients differ and is the only one where
the card does not tell them apart. How stage 2 labels what leaked is not told by patient: so few leak that
little is known of it anyway.

References
----------
Rogan, W. J., Gladen, B. (1978). Estimating prevalence from the results of a screening test. American Journal
of Epidemiology 107, 71-76: the estimator.
Lang, Z., Reiczigel, J. (2014). Confidence limits for prevalence of disease adjusted for estimated sensitivity
and specificity. Preventive Veterinary Medicine 113, 13-22: compared (docs/decisions/estimate.md).
Hannig, J. (2009). On generalized fiducial inference. Statistica Sinica 19, 491-544: why solved draws cover.
Brown, L. D., Cai, T. T., DasGupta, A. (2001). Interval estimation for a binomial proportion. Statistical
Science 16, 101-133: Jeffreys' interval, from which a rate is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from napari_rbcflow.estimate.fraction import whole
from napari_rbcflow.estimate.intervals import FEW_CELLS, wilson
from napari_rbcflow.estimate.network_rates import (
    SPREAD_OF_RATIO,
    STAGE1,
    STAGE2,
    NetworkRates,
    Rate,
    new_pair,
    new_rate,
)
from napari_rbcflow.sentences import say

METHOD = "propagated"
DRAWS = 8192
MOST_WIDTH = 0.30
"""Width of the widest interval that is reported: 15 points to either side. Patients' fractions are 0.70 with
a standard deviation of 0.12 between patients (Darrin et al. 2023); a wider interval tells none apart."""
LEAST_POSSIBLE = 0.01
"""Share of draws in which neither kind is negative, below which counts and rates contradict each other."""
_DIMENSIONS = 11
# Pseudo-counts (hits, misses): Jeffreys' for a rate. For the leak those of Bayes and Laplace: often few or
# none were let through, and Jeffreys' are then too low (docs/decisions/estimate.md).
JEFFREYS = (0.5, 0.5)
LAPLACE = (1.0, 1.0)
TOLD_OF_LET_THROUGH = (1.0, 0.5)  # of three kinds of label with Jeffreys' one half each, two are told


class Draws(NamedTuple):
    """What may be the case: arrays of one shape, the last axis being the draws.

    `counted` is the share of the judged tracks that were counted, `raw` the share of tank-treading labels
    among these. The others are the rates of `NetworkRates`; `let_through_told` and `let_through_tank` are how
    stage 2 labels unreliable cells.
    """

    counted: NDArray[np.float64]
    raw: NDArray[np.float64]
    tank_found: NDArray[np.float64]
    flip_found: NDArray[np.float64]
    leak: NDArray[np.float64]
    tank_told: NDArray[np.float64]
    flip_told: NDArray[np.float64]
    tank_right: NDArray[np.float64]
    flip_right: NDArray[np.float64]
    let_through_told: NDArray[np.float64]
    let_through_tank: NDArray[np.float64]


@dataclass(frozen=True)
class Corrected:
    """The corrected fraction, or why there is none."""

    estimate: float | None  # None, as are the ends, if the correction would mean nothing
    low: float | None
    high: float | None
    level: float
    n: int  # counted cells
    reason: str = ""  # a sentence if there is no number
    method: str = METHOD  # or "none"


def corrected_fraction(
    tank_treading: int,
    flipping: int,
    unreliable: int,
    rates: NetworkRates,
    level: float = 0.95,
    raw: tuple[float, float] | None = None,
) -> Corrected:
    """Return the fraction of tank-treading among the truly reliable cells.

    Parameters
    ----------
    tank_treading, flipping : int
        Cells that were counted.
    unreliable : int
        Tracks that were judged and not counted: unreliable, or not told. Not those too short to judge.
    rates : NetworkRates
    level : float
        In (0, 1).
    raw : (float, float), optional
        An interval of the raw fraction at the same level that is valid however the run was stopped. If it is
        wider than Wilson's, the correction is as if so many fewer cells had been counted.

    Returns
    -------
    Corrected
        Without a number, and with the reason, if fewer than `FEW_CELLS` were counted, the counts do not fit
        the rates, or the interval is wider than `MOST_WIDTH`.

    Raises
    ------
    ValueError
        For counts that are negative or no whole numbers, or a level outside (0, 1).
    """
    k, m, others = whole(tank_treading), whole(flipping), whole(unreliable)
    if not 0 < level < 1:
        raise ValueError(say("estimate.level-outside", level=level))
    n = k + m
    if n < FEW_CELLS:
        if not n:
            return _none(n, level, say("estimate.none-to-correct"))
        return _none(n, level, say("estimate.too-few-to-correct", cells=n, least=FEW_CELLS))
    drawn = draw(k, m, others, rates, share_of_cells(k, n, level, raw))
    estimate, low, high, possible = (float(end) for end in interval_of(drawn, level))
    new = draw_new_patient(drawn, rates) if rates.by_patient else None
    if new is not None:
        estimate, low, high, possible = interval_of_new_patient(new, drawn, level)
    if possible < LEAST_POSSIBLE:
        return _none(n, level, say("estimate.rates-do-not-fit", tank_treading=k, flipping=m))
    if high - low > MOST_WIDTH:
        ends = {"low": math.floor(100 * low), "high": math.ceil(100 * high)}
        return _none(n, level, say("estimate.too-wide", **ends, why=_widest(drawn, new, level, rates, n)))
    return Corrected(estimate, low, high, float(level), n)


def interval_of(
    drawn: Draws, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return estimate, low, high, and the share of draws that are possible; the last axis is gone."""
    low_draws, high_draws = true_fractions(drawn)
    inside = (low_draws > 0) & (high_draws < 1)
    alone = np.sort(np.where(inside, low_draws, 2.0), axis=-1)  # the possible first
    n = inside.sum(axis=-1)
    tail = (1 - level) / 2
    low = np.minimum(np.quantile(low_draws, tail, axis=-1), _nth(alone, n, tail))
    high = np.maximum(np.quantile(high_draws, 1 - tail, axis=-1), np.minimum(_nth(alone, n, 1 - tail), 1.0))
    estimate = np.quantile((low_draws + high_draws) / 2, 0.5, axis=-1)
    return np.clip(estimate, low, high), low, high, n / inside.shape[-1]


def interval_of_new_patient(
    new: Draws, together: Draws, level: float = 0.95
) -> tuple[float, float, float, float]:
    """Return the same for one run from the possible draws of `new`; at least as wide as from `together`."""
    tank, flip, determinant = _solved(new)
    possible = (determinant > 0) & (tank > 0) & (flip > 0) & (tank + flip <= determinant)
    low, high = (float(end) for end in interval_of(together, level)[1:3])
    share = float(possible.mean())
    if share < LEAST_POSSIBLE:
        return (low + high) / 2, low, high, share
    fractions = tank[possible] / (tank + flip)[possible]
    tail = (1 - level) / 2
    own_low, estimate, own_high = (float(q) for q in np.quantile(fractions, (tail, 0.5, 1 - tail)))
    return estimate, min(low, own_low), max(high, own_high), share


def _nth(rows: NDArray[np.float64], n: NDArray[np.int64], q: float) -> NDArray[np.float64]:
    """Return the quantile of the first `n` of each sorted row; of none, the first value."""
    at = np.maximum(np.rint(q * (n - 1)), 0).astype(np.intp)
    picked: NDArray[np.float64] = np.take_along_axis(rows, at[..., None], axis=-1)[..., 0]
    return picked


def share_of_cells(k: int, n: int, level: float, raw: tuple[float, float] | None) -> float:
    """Return the share of the counted cells whose Wilson interval would be as wide as `raw`; at most 1."""
    if raw is None or not n:
        return 1.0
    low, high = wilson(k, n, level)
    return min(1.0, ((high - low) / max(raw[1] - raw[0], 1e-9)) ** 2)


def draw(k: int, m: int, others: int, rates: NetworkRates, cells: float = 1.0, draws: int = DRAWS) -> Draws:
    """Return what the counts leave open, shape (draws,) each, with the rates of all labelled cells."""
    u, n = points(draws), k + m
    tank, flip, untold = rates.let_through_as

    def rate(row: int, r: Rate, prior: tuple[float, float] = JEFFREYS) -> NDArray[np.float64]:
        return quantiles(u[row], r.hits, r.of - r.hits, prior)

    drawn = Draws(
        counted=quantiles(u[0], n, others),
        raw=quantiles(u[1], cells * k, cells * m),
        tank_found=rate(2, rates.tank_treading_found),
        flip_found=rate(3, rates.flipping_found),
        leak=rate(4, rates.let_through, LAPLACE),
        tank_told=rate(5, rates.tank_treading_told),
        flip_told=rate(6, rates.flipping_told),
        tank_right=rate(7, rates.tank_treading_right),
        flip_right=rate(8, rates.flipping_right),
        let_through_told=quantiles(u[9], tank + flip, untold, TOLD_OF_LET_THROUGH),
        let_through_tank=quantiles(u[10], tank, flip),
    )
    if rates.told_apart:
        return drawn
    all_told = np.ones(draws)
    return drawn._replace(tank_told=all_told, flip_told=all_told, let_through_told=all_told)


def draw_new_patient(together: Draws, rates: NetworkRates) -> Draws:
    """Return the same draws with the rates, where the card tells them, of a patient who is not in it."""
    u = points(together.raw.shape[-1])
    found: dict[str, NDArray[np.float64]] = {}
    for row, names, kinds in (
        (2, ("tank_found", "flip_found"), ("tank_treading_found", "flipping_found")),
        (5, ("tank_told", "flip_told"), ("tank_treading_told", "flipping_told")),
    ):
        pairs = [(first, second) for first, second in rates.patients(*kinds)]
        if pairs:
            apart = SPREAD_OF_RATIO * rates.spread
            pair = new_pair(pairs, u[row : row + 2], JEFFREYS, rates.spread, apart)
            found |= zip(names, pair, strict=True)
    for row, name, kind, prior in (
        (4, "leak", "let_through", LAPLACE),
        (7, "tank_right", "tank_treading_right", JEFFREYS),
        (8, "flip_right", "flipping_right", JEFFREYS),
        (10, "let_through_tank", "let_through_as_tank", JEFFREYS),
    ):
        own = [rate for (rate,) in rates.patients(kind)]
        if own:
            spread = rates.leak_spread if name == "leak" else rates.spread
            found[name] = new_rate(own, u[row], prior, spread)
    return together._replace(**found)


def true_fractions(drawn: Draws) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Solve for the fraction of each draw: low and high are equal, or 0 and 1 if the draw tells nothing."""
    tank, flip, determinant = _solved(drawn)
    tank, flip = np.maximum(tank, 0.0), np.maximum(flip, 0.0)
    both = tank + flip
    nothing = (determinant <= 0) | (both <= 0)
    p = np.where(nothing, 0.0, tank / np.where(both > 0, both, 1.0))
    return p, np.where(nothing, 1.0, p)


def _solved(drawn: Draws) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Solve for the shares of tank-treading and flipping among the tracks, each times the determinant."""
    passes = drawn.leak * drawn.let_through_told
    tank_of_other, flip_of_other = passes * drawn.let_through_tank, passes * (1 - drawn.let_through_tank)
    tank_seen, flip_seen = drawn.tank_found * drawn.tank_told, drawn.flip_found * drawn.flip_told
    tank_as_tank = tank_seen * drawn.tank_right - tank_of_other
    flip_as_tank = flip_seen * (1 - drawn.flip_right) - tank_of_other
    tank_as_flip = tank_seen * (1 - drawn.tank_right) - flip_of_other
    flip_as_flip = flip_seen * drawn.flip_right - flip_of_other
    more_tank = drawn.counted * drawn.raw - tank_of_other
    more_flip = drawn.counted * (1 - drawn.raw) - flip_of_other
    determinant = tank_as_tank * flip_as_flip - flip_as_tank * tank_as_flip
    tank = more_tank * flip_as_flip - more_flip * flip_as_tank
    flip = more_flip * tank_as_tank - more_tank * tank_as_flip
    return tank, flip, determinant


def quantiles(
    u: NDArray[np.float64], hits: float, misses: float, prior: tuple[float, float] = JEFFREYS
) -> NDArray[np.float64]:
    """Return the quantiles of a rate at probabilities `u`, after so many hits and misses."""
    at: NDArray[np.float64] = betaincinv(hits + prior[0], misses + prior[1], u)
    return at


@lru_cache(maxsize=4)
def points(draws: int) -> NDArray[np.float64]:
    """Return points that fill the unit cube evenly, never on its faces; shape (dimensions, draws)."""
    from scipy.stats import qmc  # here, as it takes a second

    at = np.ascontiguousarray(qmc.Sobol(_DIMENSIONS, scramble=False).random(draws).T) + 0.5 / draws
    at.flags.writeable = False
    return at


def _widest(together: Draws, new: Draws | None, level: float, rates: NetworkRates, n: int) -> str:
    """Return the sentence about the rates without whose uncertainty the interval would be shortest."""
    leak = rates.let_through
    parts = {
        say("estimate.widest-leak", hits=leak.hits, cells=leak.of): (
            "leak",
            "let_through_told",
            "let_through_tank",
        ),
        say("estimate.widest-cells", cells=n): ("counted", "raw"),
        say("estimate.widest-networks"): (
            "tank_found",
            "flip_found",
            "tank_told",
            "flip_told",
            "tank_right",
            "flip_right",
        ),
    }

    def width(of_new: Draws | None, of_all: Draws) -> float:
        if of_new is not None:
            _, low, high, _ = interval_of_new_patient(of_new, of_all, level)
            return high - low
        ends = interval_of(of_all, level)
        return float(ends[2] - ends[1])

    def known(drawn: Draws, names: tuple[str, ...]) -> Draws:
        of = drawn._asdict()
        return drawn._replace(**{name: np.full_like(of[name], np.median(of[name])) for name in names})

    widths = {why: width(new and known(new, names), known(together, names)) for why, names in parts.items()}
    why = min(widths, key=lambda why: widths[why])
    # Whether knowing that patients are alike would gain at least half of what the best of these would.
    if new is not None and width(None, together) <= (width(new, together) + widths[why]) / 2:
        of_rates = (rates.patients_of(name) for name in (*STAGE1, *STAGE2))
        known_patients = min(len(names) for names in of_rates if names)
        if not rates.told_apart:
            return say("estimate.widest-days", days=known_patients)
        return say("estimate.widest-patients", patients=known_patients)
    return why


def _none(n: int, level: float, reason: str) -> Corrected:
    return Corrected(None, None, None, float(level), n, say("estimate.not-corrected", why=reason), "none")
