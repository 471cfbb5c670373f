"""The fraction, its intervals, and when there are enough cells."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from factories import a_judgement, a_track, counted
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import (
    RunningFraction,
    StopRules,
    clopper_pearson,
    jeffreys,
    reported_interval,
    wilson,
)
from napari_rbcflow.estimate.intervals import critical_value, half_width, most_cells
from napari_rbcflow.estimate.reported import method_of, stop_sentence
from napari_rbcflow.estimate.stopping import Rates, missing, nearest, to_go
from napari_rbcflow.estimate.tally import Tally, uncounted
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Judgement, Label


def test_wilson_gives_the_published_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, Table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_clopper_pearson_and_jeffreys_give_the_published_values() -> None:
    # Newcombe 1998, Table I, method 5, the same four.
    for k, n, low, high in [
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ]:
        assert clopper_pearson(k, n) == pytest.approx((low, high), abs=5e-5)
        assert counted(k, n - k).interval("clopper-pearson") == clopper_pearson(k, n)
    # Brown, Cai, DasGupta 2001, Table A.1, n = 7: where it does not modify the ends.
    for k, low, high in [(2, 0.065, 0.648), (3, 0.139, 0.766), (4, 0.234, 0.861)]:
        assert jeffreys(k, 7) == pytest.approx((low, high), abs=5.1e-4)
        assert counted(k, 7 - k).interval("jeffreys") == jeffreys(k, 7)
    with pytest.raises(ValueError, match="wilson, jeffreys or clopper-pearson"):
        counted(1, 1).interval("wald")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 0.95, 0.999]))
def test_every_interval_lies_in_0_1_and_holds_the_estimate(k: int, m: int, level: float) -> None:
    fraction = counted(k, m, level)
    mirrored = counted(m, k, level)
    for kind in ("interval", "anytime_interval"):
        low, high = getattr(fraction, kind)()
        assert 0 <= low <= high <= 1
        if k + m:
            assert low <= fraction.estimate <= high
            assert getattr(mirrored, kind)() == pytest.approx((1 - high, 1 - low), abs=1e-9)
    if k + m == 0:
        assert math.isnan(fraction.estimate)
        assert fraction.interval() == (0, 1)


@given(st.lists(st.booleans(), min_size=1, max_size=80))
@example([True] * 50 + [False] * 50 + [True] * 9)  # nothing is left of it, twice
@example([False] * 40 + [True] * 90)
def test_what_the_anytime_interval_cut_off_stays_cut_off(cells: list[bool]) -> None:
    """Asking changes nothing; each cell can only narrow it, but where nothing were left of it."""
    asked, silent = RunningFraction(0.8), RunningFraction(0.8)
    low, high = 0.0, 1.0
    for tank in cells:
        for fraction in (asked, silent):
            fraction.update(tank_treading=int(tank), flipping=int(not tank))
        now = asked.anytime_interval()
        alone = counted(asked.tank_treading, asked.flipping, 0.8).anytime_interval()
        left = max(low, alone[0]), min(high, alone[1])
        assert now == pytest.approx(left if left[0] <= left[1] else alone, abs=1e-9)
        low, high = now
    assert silent.anytime_interval() == asked.anytime_interval()


def test_the_anytime_interval_covers_at_every_look() -> None:
    rng = np.random.default_rng(5)
    failed = 0
    for _ in range(200):
        fraction, p = RunningFraction(0.9), rng.uniform(0.5, 0.99)
        for tank in rng.random(150) < p:
            fraction.update(tank_treading=int(tank), flipping=int(not tank))
            low, high = fraction.anytime_interval()
            if not low <= p <= high:
                failed += 1
                break
    # At most 10 % may fail; 20 + 3 standard deviations of a binomial.
    assert failed <= 33


@pytest.mark.parametrize("bad", [{"tank_treading": -1}, {"flipping": 0.5}, {"tank_treading": math.nan}])
def test_counts_that_are_none_are_refused(bad: dict[str, float]) -> None:
    fraction = RunningFraction()
    with pytest.raises(ValueError, match=r"whole numbers|negative"):
        fraction.update(**bad)  # type: ignore[arg-type]
    assert fraction.n == 0


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, math.nan])
def test_a_level_outside_0_1_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        RunningFraction(level)


def test_stop_rules_compose() -> None:
    assert StopRules().met_by(counted(1000, 1000)) is None
    assert StopRules(reliable=50).met_by(counted(40, 9)) is None
    assert StopRules(reliable=50).met_by(counted(40, 10)) == "reliable"
    assert StopRules(halfwidth=0.05).met_by(RunningFraction()) is None
    assert StopRules(halfwidth=0.05).met_by(counted(40, 10)) is None
    assert StopRules(halfwidth=0.05).met_by(counted(400, 100)) == "half-width"
    both = StopRules(reliable=50, halfwidth=0.05)
    assert both.met_by(counted(40, 10)) is None
    assert both.met_by(counted(400, 100)) == "half-width"
    assert StopRules(reliable=300, halfwidth=0.05).met_by(counted(290, 10)) == "reliable"
    assert StopRules(seconds=3).out_of_time(3.0)
    assert not StopRules(seconds=3).out_of_time(2.99)
    assert StopRules(tracks=100, reliable=50).met_by(counted(40, 9), tracks=100) == "tracks"
    assert StopRules(tracks=100).met_by(counted(40, 9), tracks=99) is None
    below, above = counted(30, 30), counted(100, 1)
    assert StopRules(baseline=0.86).met_by(counted(86, 14)) is None
    assert StopRules(baseline=0.86).met_by(below) == StopRules(baseline=0.86).met_by(above) == "baseline"
    limit = StopRules(reliable=50, baseline=0.86)
    assert stop_sentence("baseline", limit, below) == say("estimate.limit-below", limit=86)
    # As true whatever ended the run, be it in the same moment; while it goes on nothing has ended it.
    for reason in ("reliable", "user", "the camera went away"):
        assert stop_sentence(reason, limit, above) == say("estimate.limit-above", limit=86)
    assert stop_sentence("", limit, above) == stop_sentence("user", StopRules(), above) == ""


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 400), st.sampled_from([0.05, 0.1]), st.sampled_from([1, 40]))
def test_the_half_width_rule_is_the_one_that_was_calibrated(m: int, k: int, wanted: float, n: int) -> None:
    """And at its stop the interval is said that wide, or narrower where it ends at 0 or 1."""
    rules, fraction = StopRules(reliable=n, halfwidth=wanted), counted(k, m)
    z = critical_value(wanted, 0.95, n)
    met = k + m >= n and half_width(k, k + m, z) <= wanted
    assert (rules.met_by(fraction) is not None) == met
    if met:
        low, high = (end := reported_interval(fraction, rules, "finished", "half-width")).interval
        assert end.method == "fixed-width"
        assert high - low <= 2 * wanted + 1e-12
        assert end.interval == fraction.fixed_width_interval(wanted, n)


def test_where_a_baseline_may_stop_the_run_the_width_is_that_of_the_anytime_interval() -> None:
    fraction = counted(160, 40)
    low, high = fraction.anytime_interval()
    for more, met in ((1e-6, "half-width"), (-1e-6, None)):
        rules = StopRules(halfwidth=(high - low) / 2 + more, baseline=0.8)
        assert rules.half_width(fraction) == pytest.approx((high - low) / 2)
        assert rules.met_by(fraction) == met


N, H, NH = StopRules(reliable=200), StopRules(halfwidth=0.05), StopRules(reliable=200, halfwidth=0.05)
B = StopRules(reliable=200, halfwidth=0.05, baseline=0.86)


@pytest.mark.parametrize(
    ("rules", "status", "reason", "method"),
    [
        (N, "running", "", "anytime"),
        (N, "stopped", "user", "anytime"),
        (N, "failed", "the camera went away", "anytime"),
        (N, "finished", "reliable", "wilson"),
        (N, "finished", "source-ended", "wilson"),
        (StopRules(seconds=9, tracks=5), "finished", "seconds", "wilson"),
        (StopRules(seconds=9, tracks=5), "finished", "tracks", "wilson"),
        (StopRules(), "finished", "source-ended", "wilson"),
        (H, "finished", "half-width", "fixed-width"),
        (NH, "finished", "half-width", "fixed-width"),
        (NH, "finished", "reliable", "fixed-width"),
        (H, "finished", "seconds", "anytime"),
        (NH, "finished", "tracks", "anytime"),
        (NH, "finished", "source-ended", "anytime"),
        (H, "stopped", "user", "anytime"),
        (StopRules(baseline=0.86), "finished", "baseline", "anytime"),
        (B, "finished", "half-width", "anytime"),
        (B, "finished", "reliable", "anytime"),
        (StopRules(baseline=0.86, seconds=9), "finished", "seconds", "anytime"),
        # As many cells make any interval that narrow: only their number, fixed beforehand, stopped the run.
        (StopRules(reliable=5000, halfwidth=0.05), "finished", "reliable", "wilson"),
        (StopRules(reliable=5000, halfwidth=0.05), "finished", "seconds", "wilson"),
    ],
)
def test_the_interval_said_belongs_to_how_the_run_ended(
    rules: StopRules, status: str, reason: str, method: str
) -> None:
    fraction = counted(160, 40)
    assert method_of(rules, status, reason) == method
    end = reported_interval(fraction, rules, status, reason)
    assert end.method == method
    if method == "fixed-width":
        assert end.interval == fraction.fixed_width_interval(0.05, rules.reliable or 1)
    else:
        assert end.interval == (wilson(160, 200) if method == "wilson" else fraction.anytime_interval())
    other = reported_interval(fraction, rules, status, reason, "jeffreys")
    assert other.method == ("jeffreys" if method == "wilson" else method)


def test_a_number_of_cells_that_makes_a_width_moot_needs_no_long_search() -> None:
    rules = StopRules(reliable=1_000_000, halfwidth=0.05)
    rules.prepare()
    assert not rules.width_matters(0.95)
    assert rules.met_by(counted(900_000, 99_999)) is None
    assert rules.met_by(counted(900_000, 100_000)) == "reliable"
    assert StopRules(reliable=most_cells(0.05, critical_value(0.05)) - 1, halfwidth=0.05).width_matters(0.95)


@pytest.mark.parametrize(
    "bad",
    [
        {"reliable": 0},
        {"halfwidth": 0.5},
        {"halfwidth": -1},
        {"seconds": 0},
        {"tracks": 0},
        {"baseline": 0},
        {"baseline": 86},
        {"baseline": math.nan},
    ],
)
def test_rules_that_cannot_be_met_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="`stop_"):
        StopRules(**bad)  # type: ignore[arg-type]


RULES = st.builds(
    StopRules,
    reliable=st.none() | st.integers(1, 20),
    halfwidth=st.none() | st.sampled_from([0.2, 0.3, 0.4]),
    tracks=st.none() | st.integers(1, 40),
    baseline=st.none() | st.sampled_from([0.1, 0.5, 0.9]),
)


def test_what_a_failure_left_unjudged_is_tracked_and_not_counted() -> None:
    tally = Tally(StopRules())
    tally.count(tally.settle([a_track(1)], [a_judgement(1, Label.FLIPPING)]))
    tally.count([uncounted(a_track(cell), "run-failed") for cell in (2, 3)])
    assert tally.cells == {"tracked": 3, "flipping": 1, "uncounted": 2}
    assert tally.fraction.n == 1


@given(st.lists(st.sampled_from([*Label][:3]), max_size=60), st.integers(1, 12), RULES, st.integers(0, 5))
def test_the_tally_stops_at_the_same_track_however_the_tracks_are_batched(
    labels: list[Label], batch: int, rules: StopRules, cut: int
) -> None:
    tracks = [a_track(i) for i in range(len(labels))]
    tracks += [a_track(len(labels) + i, reason="cut-by-stop") for i in range(cut)]
    tally = Tally(rules)
    settled: list[Judgement] = []
    for i in range(0, len(tracks), batch):
        part = tracks[i : i + batch]
        now = tally.settle(part, [a_judgement(t.cell, labels[t.cell]) for t in tally.to_judge(part)])
        tally.count(now)
        settled += now
    # By the rules alone: cell by cell until one is met.
    fraction, enough, last = RunningFraction(), None, len(labels)
    for i, label in enumerate(labels):
        tank = label is Label.TANK_TREADING
        if label is not Label.UNRELIABLE:
            fraction.update(tank_treading=int(tank), flipping=int(not tank))
        if enough := rules.met_by(fraction, i + 1):
            last = i + 1
            break
    assert tally.enough == enough
    assert tally.finished == last
    assert [j.cell for j in settled] == [t.cell for t in tracks]
    assert [j.label for j in settled[:last]] == labels[:last]
    assert all(j.label is Label.UNCOUNTED for j in settled[last:])
    assert tally.fraction.n == fraction.n
    assert tally.fraction.anytime_interval() == fraction.anytime_interval()
    assert sum(tally.cells.values()) == 2 * tally.cells["tracked"] == 2 * len(tracks)
    for judgement in settled:
        if judgement.label is Label.UNCOUNTED:
            assert judgement.reason == ("after-stop" if judgement.cell < len(labels) else "cut-by-stop")


def left(rules: StopRules, fraction: RunningFraction, seconds: float = 3.0, tracks: int = 90) -> str:
    return missing(to_go(rules, fraction, tracks=tracks, seconds=seconds))


def test_what_is_missing_is_said() -> None:
    some = counted(40, 10)
    assert left(StopRules(reliable=80), some) == "30 cells"
    assert left(StopRules(reliable=80, seconds=10), some) == "30 cells or 7 s"
    assert left(StopRules(halfwidth=0.05), some) == "the interval from ±11.8 down to ±5.0 %"
    assert left(StopRules(reliable=80, halfwidth=0.05), some) == (
        "30 cells and the interval from ±11.8 down to ±5.0 %"
    )
    assert left(StopRules(reliable=20, halfwidth=0.05), some) == "the interval from ±11.8 down to ±5.0 %"
    assert left(StopRules(reliable=80, tracks=100, baseline=0.8), some) == (
        "30 cells or 10 tracks or the interval clear of 80 %"
    )
    assert left(StopRules(reliable=51, tracks=91), some) == "1 cell or 1 track"
    assert left(StopRules(), some) == say("estimate.missing-source-end")


def test_how_long_each_rule_takes_at_the_present_rate() -> None:
    """And the run that goes on like that does stop there, within a cell or so."""
    fraction, rates = counted(43, 7), Rates(cells=2.0, tracks=50.0, camera_s=1.0)
    rules = StopRules(reliable=80, halfwidth=0.05, seconds=600, tracks=9000, baseline=0.6)
    now = {r.name: r for r in to_go(rules, fraction, tracks=1000, seconds=20.0, rates=rates)}
    assert list(now) == ["reliable", "half-width", "seconds", "tracks", "baseline"]
    assert now["reliable"].seconds_left == 15.0
    assert now["reliable"].share == 50 / 80
    assert now["seconds"].seconds_left == 580.0
    assert now["tracks"].seconds_left == 160.0
    rules = replace(rules, baseline=None)
    alone = {r.name: r for r in to_go(rules, fraction, tracks=1000, seconds=20.0, rates=rates)}
    for name, entry in (("half-width", alone["half-width"]), ("baseline", now["baseline"])):
        assert entry.seconds_left is not None
        n = round(50 + 2 * entry.seconds_left)
        asked = StopRules(halfwidth=0.05) if name == "half-width" else StopRules(baseline=0.6)
        assert asked.met_by(counted(round(0.86 * (n + 12)), round(0.14 * (n + 12)))) == name
        assert asked.met_by(counted(round(0.86 * (n - 12)), round(0.14 * (n - 12)))) is None
    # The cells are nearer than the width, but both must hold; the tracks come before that.
    share, seconds = nearest(tuple(alone.values()))
    assert seconds == min(160.0, alone["half-width"].seconds_left or 0)
    assert share == max(alone["half-width"].share, 1000 / 9000)
    # Too few cells to tell, no cell of late, or a fraction on the baseline itself: no time is made up.
    for few, rate in ((counted(2, 1), rates), (fraction, Rates(cells=0.0)), (fraction, Rates())):
        for entry in to_go(StopRules(halfwidth=0.05), few, tracks=9, seconds=9.0, rates=rate):
            assert entry.seconds_left is None
    (entry,) = to_go(StopRules(baseline=0.86), fraction, tracks=9, seconds=9.0, rates=rates)
    assert entry.seconds_left is None
    assert nearest(()) == (None, None)


@pytest.mark.parametrize(
    ("k", "m", "within"),
    [(0, 0, 1.0), (1, 0, 1.0), (0, 1, 1.0), (10**6, 0, 1e-4), (0, 10**6, 1e-4), (860_000, 140_000, 0.003)],
)
def test_every_interval_is_safe_without_a_cell_with_one_and_with_a_million(
    k: int, m: int, within: float
) -> None:
    fraction, mirrored = counted(k, m), counted(m, k)
    for of in (
        lambda f: f.interval(),
        lambda f: f.interval("jeffreys"),
        lambda f: f.interval("clopper-pearson"),
        lambda f: f.anytime_interval(),
    ):
        low, high = of(fraction)
        assert 0 <= low <= high <= 1
        assert high - low <= within
        if k + m:
            assert low <= fraction.estimate <= high
        assert of(mirrored) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    low, high = fraction.fixed_width_interval(0.05)
    assert 0 <= low <= high <= 1
    assert high - low <= max(0.1 + 1e-9, within * (k + m < 9))
