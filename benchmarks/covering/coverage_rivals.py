"""Other ways to an interval of the corrected fraction, for the comparison of coverage.py."""

from __future__ import annotations

import numpy as np
from coverage_corrected import Ends, Floats, Method, Played, Priors, Tables

from napari_rbcflow.estimate.error_correction import JEFFREYS, Draws, true_fractions

_Z = 1.959963984540054


def clipped(of: Played, tables: Tables) -> Ends:
    """Draws as ours, and nothing for those that are impossible: the plain generalised interval."""
    low, high = true_fractions(tables.draws(of, Priors()))
    return _ends(np.median(low, axis=1), np.quantile(low, 0.025, axis=1), np.quantile(high, 0.975, axis=1))


def jeffreys_leak(of: Played, tables: Tables) -> Ends:
    """The same with Jeffreys' prior for the leak too."""
    low, high = true_fractions(tables.draws(of, Priors(leak=JEFFREYS)))
    return _ends(np.median(low, axis=1), np.quantile(low, 0.025, axis=1), np.quantile(high, 0.975, axis=1))


def bayes(of: Played, tables: Tables) -> Ends:
    """Bayes with Jeffreys' priors, given that neither kind is negative: impossible draws are left out."""
    low, high = true_fractions(tables.draws(of, Priors(leak=JEFFREYS)))
    p = np.where((low > 0) & (high < 1), low, np.nan)
    p[np.isnan(p).all(axis=1)] = 0.5
    middle, below, above = np.nanquantile(p, [0.5, 0.025, 0.975], axis=1)
    return _ends(middle, below, above)


def melded(of: Played, tables: Tables) -> Ends:
    """Fay, Proschan and Brittain (2015): each end from the confidence distributions that move it outwards.

    What is let through may be labelled either way, so the leak's upper distribution serves both ends.
    """
    up, down = (1.0, 0.0), (0.0, 1.0)
    _, high = true_fractions(tables.draws(of, Priors(up, down, up, up)))
    low, _ = true_fractions(tables.draws(of, Priors(down, up, up, up)))
    below, above = np.quantile(low, 0.025, axis=1), np.quantile(high, 0.975, axis=1)
    return _ends((below + above) / 2, below, above)


def rogan_gladen(of: Played, tables: Tables) -> Ends:
    """Rogan and Gladen with the delta method, counts as they are."""
    return _delta(of, 0.0, 0.0)


def lang_reiczigel(of: Played, tables: Tables) -> Ends:
    """The same with Lang and Reiczigel's pseudo-counts: one of either kind a rate, z^2 / 2 for the cells."""
    return _delta(of, 1.0, _Z * _Z / 2)


def _delta(of: Played, add: float, add_cells: float) -> Ends:
    n = of.corner.labelled

    def rate(hits: Floats, cells: Floats, more: float = add) -> tuple[Floats, Floats]:
        total = np.maximum(cells + 2 * more, 1e-9)
        p = np.where(cells + 2 * more > 0, (hits + more) / total, 0.5)
        return p, np.where(cells + 2 * more > 0, p * (1 - p) / total, 0.0)

    given = [
        rate(of.n, of.tracks, 0.0),
        rate(of.k, of.n, add_cells),
        rate(of.tank_found, np.full(len(of.k), n)),
        rate(of.flip_found, np.full(len(of.k), n)),
        rate(of.let_through, np.full(len(of.k), n)),
        rate(of.tank_told, np.full(len(of.k), n)),
        rate(of.flip_told, np.full(len(of.k), n)),
        rate(of.tank_right, of.tank_told),
        rate(of.flip_right, of.flip_told),
        rate(of.leak_told, of.let_through),
        rate(of.leak_tank, of.leak_told),
    ]
    at = [p for p, _ in given]
    estimate, variance = _solved(Draws(*at)), np.zeros(len(of.k))
    for i, (p, spread) in enumerate(given):
        step = 1e-6
        more, less = list(at), list(at)
        more[i], less[i] = p + step, p - step
        variance += ((_solved(Draws(*more)) - _solved(Draws(*less))) / (2 * step)) ** 2 * spread
    half = _Z * np.sqrt(variance)
    return _ends(np.clip(estimate, 0, 1), np.clip(estimate - half, 0, 1), np.clip(estimate + half, 0, 1))


def _solved(d: Draws) -> Floats:
    """Solve without clipping, so that it can be differentiated."""
    passes = d.leak * d.let_through_told
    t, f = passes * d.let_through_tank, passes * (1 - d.let_through_tank)
    seen_t, seen_f = d.tank_found * d.tank_told, d.flip_found * d.flip_told
    a, b = seen_t * d.tank_right - t, seen_f * (1 - d.flip_right) - t
    c, e = seen_t * (1 - d.tank_right) - f, seen_f * d.flip_right - f
    k, m = d.counted * d.raw - t, d.counted * (1 - d.raw) - f
    tank, flip = k * e - m * b, m * a - k * c
    return tank / (tank + flip)


def _ends(estimate: Floats, low: Floats, high: Floats) -> Ends:
    return estimate, low, high, np.ones(len(low))


RIVALS: dict[str, Method] = {
    "Rogan-Gladen, delta method": rogan_gladen,
    "with Lang-Reiczigel's pseudo-counts": lang_reiczigel,
    "melded (Fay et al. 2015)": melded,
    "Bayes, impossible draws left out": bayes,
    "solved draws, Jeffreys' leak": jeffreys_leak,
    "solved draws, Laplace's leak": clipped,
}
