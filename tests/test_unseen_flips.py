"""Flips that nobody saw: theory, the sign of them, the correction, the least length of a counted track."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, pearsonr

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import RunningFraction, wilson
from napari_rbcflow.estimate.unseen_flips import (
    MEASURED,
    TURN_SHARE,
    TURNS_ONLY,
    cochran_armitage,
    correct_unseen_flips,
    fraction_by_length,
    repeat_frames,
    turn_seen,
)
from napari_rbcflow.sentences import say
from napari_rbcflow.session.counting import unseen_flips
from napari_rbcflow.simulation import ChamberSettings, simulate_passages
from napari_rbcflow.simulation.cells import Motion, jeffery_axis, jeffery_period_s
from napari_rbcflow.types import Label

TANK, FLIP = str(Label.TANK_TREADING), str(Label.FLIPPING)


def table(frames: list[int], labels: list[str]) -> pd.DataFrame:
    """Return the two columns of cells.csv that matter."""
    return pd.DataFrame({"frames": frames, "label": labels})


def run_of(rng: np.random.Generator, n: int, phi: float, curve: object = TURNS_ONLY) -> pd.DataFrame:
    """Draw a run of `n` cells of which a share `phi` flips, seen as the curve says."""
    frames = rng.integers(20, 61, n)
    chance = curve.chance(frames / repeat_frames())  # type: ignore[attr-defined]
    called = (rng.random(n) < phi) & (rng.random(n) < chance)
    return table(frames.tolist(), np.where(called, FLIP, TANK).tolist())


def test_theory_is_jefferys() -> None:
    """A disc on Jeffery's orbit, watched from any phase: its turn is seen as often as the formula says."""
    assert repeat_frames(10.0, 60.0) == pytest.approx(30 * jeffery_period_s(0.3, 10.0))
    assert repeat_frames(5.0, 30.0) == pytest.approx(repeat_frames(10.0, 60.0))
    repeat = repeat_frames()
    phases = np.linspace(0, 1, 4000, endpoint=False)
    for frames in (11, 33, 60):
        # 40 looks a frame, from every phase of the whole turn (two repeats).
        track = np.arange(0, frames, 1 / 40) / (2 * repeat)
        face = np.abs(jeffery_axis((phases[::20, None] + track).ravel(), 0.3, 1e9)[:, 2])
        face = face.reshape(200, -1)
        tilted = face < np.sqrt(0.5)
        assert tilted.any(axis=1).mean() == pytest.approx(turn_seen(frames / repeat, reach=1.0), abs=0.015)
        edge_on = face.min(axis=1) < 0.02
        assert edge_on.mean() == pytest.approx(turn_seen(frames / repeat), abs=0.015)
    share = (np.abs(jeffery_axis(phases, 0.3, 1e9)[:, 2]) < np.sqrt(0.5)).mean()
    assert share == pytest.approx(TURN_SHARE, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 140), st.sampled_from([*map(str, Label)])), max_size=80),
    st.floats(2.0, 50.0),
)
def test_groups_by_length_hold_every_counted_cell(cells: list[tuple[int, str]], shear: float) -> None:
    frames, labels = [max(6, f) for f, _ in cells], [label for _, label in cells]
    found = fraction_by_length(table(frames, labels), shear_rate_per_s=shear)
    assert sum(g.tank_treading for g in found.groups) == labels.count(TANK)
    assert sum(g.flipping for g in found.groups) == labels.count(FLIP)
    for group, following in zip(found.groups, found.groups[1:], strict=False):
        assert group.longest + 1 == following.shortest
    for group in found.groups:
        assert (group.low, group.high) == wilson(group.tank_treading, group.n)


def test_trend_is_found_where_flips_are_missed_and_only_there() -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(8, 65, 300)
    hits = rng.random(300) < 0.8
    z, p = cochran_armitage(frames, hits)
    assert z is not None
    assert p is not None
    # Armitage's statistic is the correlation of score and outcome.
    assert z == pytest.approx(pearsonr(frames, hits)[0] * np.sqrt(299))
    # What only goes with the speed, as the length of a whole crossing does, is no sign.
    speed = rng.normal(1.0, 0.1, 2000)
    slow = rng.random(2000) < 0.8 + np.clip(speed - 1, -0.2, 0.2)
    whole = 55 / speed + rng.normal(0, 1, 2000)
    plain, freed = cochran_armitage(whole, slow)[0], cochran_armitage(whole, slow, speed)[0]
    assert plain is not None
    assert freed is not None
    assert plain < -3
    assert abs(freed) < 2.5
    missed = run_of(rng, 1500, 0.4)
    found = fraction_by_length(missed)
    assert found.falls
    assert "lower" in found.sentence()
    assert [g.estimate for g in found.groups][1] > [g.estimate for g in found.groups][3]  # type: ignore[operator]
    shuffled = missed.assign(frames=rng.permutation(missed.frames))
    assert fraction_by_length(shuffled).p > 0.05  # type: ignore[operator]
    assert cochran_armitage([6, 6, 7], [True, False, True]) == (None, None)
    long = fraction_by_length(table([60, 70] * 40, [TANK, FLIP] * 40))
    assert long.sentence() == say("estimate.flips-unknown")


def test_without_unseen_flips_it_is_jeffreys_interval() -> None:
    """Tracks that surely show a turn: nothing is corrected."""
    got = correct_unseen_flips(table([90] * 200, [TANK] * 160 + [FLIP] * 40), TURNS_ONLY)
    assert got.seen == 1.0
    assert got.estimate == pytest.approx(0.8, abs=1e-3)
    assert [got.low, got.high] == pytest.approx(beta(160.5, 40.5).ppf([0.025, 0.975]), abs=2e-3)


def test_short_tracks_are_corrected_by_what_was_missed() -> None:
    """Half of the flips unseen: twice as many flip; the interval is the wider."""
    frames = round(repeat_frames() / 2)
    cells = table([frames] * 400, [TANK] * 360 + [FLIP] * 40)
    got = correct_unseen_flips(cells, TURNS_ONLY)
    assert got.estimate == pytest.approx(1 - 0.1 / (frames / repeat_frames()), abs=2e-3)
    assert got.estimate is not None
    assert got.low is not None
    assert got.high is not None
    assert got.low < got.estimate < got.high
    low, high = wilson(360, 400)
    assert got.high - got.low > high - low
    # Half the shear, twice the frames: the same turns.
    slow = correct_unseen_flips(cells.assign(frames=2 * frames), TURNS_ONLY, shear_rate_per_s=5.0)
    assert slow.estimate == got.estimate
    # Tank-treading cells called flipping, were that known, would undo a part of it.
    both = correct_unseen_flips(cells, TURNS_ONLY, false_flips=(4, 100))
    assert both.estimate > got.estimate  # type: ignore[operator]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(6, 90), st.booleans()), min_size=30, max_size=200))
def test_correction_never_adds_tank_treading_cells(cells: list[tuple[int, bool]]) -> None:
    labels = [FLIP if flips else TANK for _, flips in cells]
    raw = labels.count(TANK) / len(labels)
    for curve in (MEASURED, TURNS_ONLY):
        got = correct_unseen_flips(table([f for f, _ in cells], labels), curve)
        if got.estimate is None:
            assert got.reason
            assert got.why_not()
        else:
            assert 0 <= got.low <= got.estimate <= got.high <= 1  # type: ignore[operator]
            assert got.estimate <= raw + 1e-3


@pytest.mark.parametrize("curve", [MEASURED, TURNS_ONLY])
@pytest.mark.parametrize("phi", [0.05, 0.3])
def test_interval_covers_the_truth(curve: object, phi: float) -> None:
    """300 runs of 200 cells: the share that hold the truth lies where 95 % would (4 standard errors)."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        got = correct_unseen_flips(run_of(rng, 200, phi, curve), curve)  # type: ignore[arg-type]
        held += got.low <= 1 - phi <= got.high  # type: ignore[operator]
    assert held / 300 > 0.90


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(20, 90), st.booleans()), min_size=60, max_size=200))
def test_a_run_that_its_labels_may_have_stopped_is_never_surer(cells: list[tuple[int, bool]]) -> None:
    """With the anytime interval handed over it is never narrower than with Wilson's; the number stays."""
    labels = [FLIP if flips else TANK for _, flips in cells]
    fraction = RunningFraction()
    for label in labels:
        fraction.update(tank_treading=int(label == TANK), flipping=int(label == FLIP))
    drop = table([f for f, _ in cells], labels)
    for curve in (MEASURED, TURNS_ONLY):
        plain = correct_unseen_flips(drop, curve, raw=fraction.interval("wilson"))
        careful = correct_unseen_flips(drop, curve, raw=fraction.anytime_interval())
        assert plain == correct_unseen_flips(drop, curve)
        if careful.estimate is None:
            continue
        assert careful.estimate == pytest.approx(plain.estimate, abs=2e-3)
        assert careful.low <= plain.low + 1e-3  # type: ignore[operator]
        assert careful.high >= plain.high - 1e-3  # type: ignore[operator]


def test_a_session_takes_the_interval_that_belongs_to_its_end() -> None:
    cells = table([60] * 200, [TANK] * 150 + [FLIP] * 50)
    fraction = {"level": 0.95, "n": 200, "estimate": 0.75, "low": 0.62, "high": 0.85}
    found = {
        method: unseen_flips({"parameters": {}, "fraction": {**fraction, "method": method}}, cells)[1]
        for method in ("wilson", "fixed-width", "anytime")
    }
    widths = {method: one.high - one.low for method, one in found.items()}  # type: ignore[operator]
    assert widths["wilson"] < 0.15
    assert widths["fixed-width"] == widths["anytime"] > 0.2
    assert len({round(one.estimate or 0, 3) for one in found.values()}) == 1


def test_what_was_measured_is_of_the_shipped_networks(two_stage: TwoStage) -> None:
    run = table([50] * 100, [TANK] * 80 + [FLIP] * 20)
    assert correct_unseen_flips(run, MEASURED, stage2=two_stage.models["stage2"]["hash"]).estimate


def test_says_where_it_means_nothing() -> None:
    few = correct_unseen_flips(table([50] * 12, [TANK] * 12), MEASURED)
    short = correct_unseen_flips(table([8] * 500, [TANK] * 450 + [FLIP] * 50), TURNS_ONLY)
    wide = correct_unseen_flips(table([25] * 40, [TANK] * 30 + [FLIP] * 10), TURNS_ONLY)
    other = correct_unseen_flips(table([50] * 100, [TANK] * 100), MEASURED, stage2="0" * 64)
    assert [c.reason for c in (few, short, wide, other)] == [
        "too-few-cells",
        "tracks-too-short",
        "too-uncertain",
        "other-networks",
    ]
    assert all(c.estimate is None and c.low is None and c.why_not() for c in (few, short, wide, other))
    assert other.seen is None  # of these networks nothing is known


def test_bad_input() -> None:
    cells = table([50] * 100, [TANK] * 100)
    for wrong in ({"level": 1.0}, {"fps": 0.0}, {"shear_rate_per_s": -1.0}):
        with pytest.raises(BadInput):
            correct_unseen_flips(cells, MEASURED, **wrong)  # type: ignore[arg-type]
        with pytest.raises(BadInput):
            fraction_by_length(cells, **wrong)
    with pytest.raises(BadInput, match="false_flips"):
        correct_unseen_flips(cells, MEASURED, false_flips=(5, 3))
    with pytest.raises(BadInput, match="frames"):
        fraction_by_length(cells[["label"]])
    with pytest.raises(BadInput, match="frames"):
        simulate_passages(Motion.TUMBLING, [80], seed=1)


def test_longer_watched_more_flips_told() -> None:
    """On simulated cells the shipped networks tell a flip the surer the longer they see it."""
    two_stage = TwoStage.load("cpu")
    chamber = ChamberSettings(variety=0.05)
    drawn = simulate_passages(Motion.TUMBLING, [9] * 30 + [55] * 30, seed=4, settings=chamber)
    assert [len(d.crops) for d in drawn] == [9] * 30 + [55] * 30
    p = two_stage.flipping([d.crops for d in drawn])
    assert (p[30:] > 0.5).mean() > (p[:30] > 0.5).mean()
    assert (p[30:] > 0.5).mean() > 0.85
