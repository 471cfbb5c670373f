"""The fraction, its intervals, and when there are enough cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_rbcflow.conventions import Label
from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import RunningFraction, StopRules, wilson
from napari_rbcflow.estimate.tally import Tally
from napari_rbcflow.tracks import Judgement, Track


def counted(k: int, m: int, level: float = 0.95) -> RunningFraction:
    fraction = RunningFraction(level)
    fraction.update(tank_treading=k, flipping=m)
    return fraction


def test_wilson_gives_the_published_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, Table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


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
    assert StopRules(halfwidth=0.05).met_by(counted(40, 10)) is None
    assert StopRules(halfwidth=0.05).met_by(counted(400, 100)) == "half-width"
    both = StopRules(reliable=50, halfwidth=0.05)
    assert both.met_by(counted(40, 10)) is None
    assert both.met_by(counted(400, 100)) == "half-width"
    assert StopRules(reliable=500, halfwidth=0.05).met_by(counted(400, 100)) == "reliable"
    assert StopRules(seconds=3).out_of_time(3.0)
    assert not StopRules(seconds=3).out_of_time(2.99)


@pytest.mark.parametrize("bad", [{"reliable": 0}, {"halfwidth": 0.5}, {"halfwidth": -1}, {"seconds": 0}])
def test_rules_that_cannot_be_met_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="--stop-"):
        StopRules(**bad)  # type: ignore[arg-type]


def a_track(cell: int, reason: str = "left-field") -> Track:
    n = 8
    flags = np.zeros(n, bool)
    return Track(
        cell, np.arange(n), np.zeros(n, np.float32), np.zeros(n, np.float32), ~flags, flags, flags,
        np.zeros((n, 31, 31), np.uint8), reason,
    )  # fmt: skip


def said(cell: int, label: Label) -> Judgement:
    return Judgement(cell, label, 0.9, 0.9, "stage-2")


@given(
    st.lists(st.sampled_from([*Label][:3]), max_size=60),
    st.integers(1, 12),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_the_tally_stops_at_the_same_cell_however_the_tracks_are_batched(
    labels: list[Label], batch: int, enough: int, cut: int
) -> None:
    tracks = [a_track(i) for i in range(len(labels))]
    tracks += [a_track(len(labels) + i, "cut-by-stop") for i in range(cut)]
    tally = Tally(StopRules(reliable=enough))
    settled: list[Judgement] = []
    for i in range(0, len(tracks), batch):
        part = tracks[i : i + batch]
        now = tally.settle(part, [said(t.cell, labels[t.cell]) for t in tally.to_judge(part)])
        tally.count(now)
        settled += now
    reliable = [i for i, label in enumerate(labels) if label is not Label.UNRELIABLE]
    counted = [j.cell for j in settled if j.label in (Label.TANK_TREADING, Label.FLIPPING)]
    assert counted == reliable[:enough]
    assert [j.cell for j in settled] == [t.cell for t in tracks]
    assert tally.fraction.n == len(counted)
    assert sum(tally.cells.values()) == 2 * tally.cells["tracked"] == 2 * len(tracks)
    assert (tally.enough == "reliable") == (len(reliable) >= enough)
    for judgement in settled:
        if judgement.label is Label.UNCOUNTED:
            assert judgement.reason == ("after-stop" if judgement.cell < len(labels) else "cut-by-stop")


def test_what_is_missing_is_said() -> None:
    some = counted(40, 10)
    assert StopRules(reliable=80).missing(some, 3.0) == "30 cells"
    assert StopRules(reliable=80, seconds=10).missing(some, 3.0) == "30 cells or 7 s"
    assert StopRules(halfwidth=0.05).missing(some, 3.0) == "±10.9 to ±5.0 %"
    assert StopRules().missing(some, 3.0) == "the source's end"
