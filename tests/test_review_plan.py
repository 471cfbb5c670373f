"""Which tracks a person checks, and what the checks give, whatever the networks said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_rbcflow.estimate import ReviewPlan
from napari_rbcflow.estimate.review import KINDS

NAMES = [str(kind) for kind in KINDS]


def a_movie(
    seed: int, n: int = 800, fraction: float = 0.8, *, useless: bool = False
) -> tuple[ReviewPlan, Any]:
    """A plan for tracks of which 30 % are reliable; the networks find half of the tank-treading ones."""
    rng = np.random.default_rng(seed)
    kind = np.where(rng.random(n) < 0.3, (rng.random(n) >= fraction).astype(int), 2)
    p = np.clip(np.take([0.85, 0.95, 0.4], kind) + rng.normal(0, 0.1, n), 0, 1)
    label = np.where(p >= 0.88, np.where(rng.random(n) < 0.05, 1 - kind % 2, kind), 2)
    label = np.where((label == 2) & (p >= 0.88), 0, label)
    if useless:
        p, label = rng.random(n), rng.integers(0, 3, n)
    tank = np.where(label == 2, np.nan, np.where(label == 0, 0.9, 0.1))
    return ReviewPlan(np.arange(1, n + 1), [NAMES[k] for k in label], p, tank, seed), kind


def checked(plan: ReviewPlan, kind: Any, n: int, batch: int = 1000) -> dict[int, Sequence[str]]:
    """What a person who is always right says of the first `n` tracks of the plan."""
    labels: dict[int, Sequence[str]] = {}
    while len(labels) < n and (more := plan.next(min(batch, n - len(labels)), labels)):
        labels |= {cell: [NAMES[kind[cell - 1]]] for cell in more}
    return labels


@pytest.mark.parametrize("useless", [False, True])
def test_holds_the_truth_where_the_machine_does_not(useless: bool) -> None:
    """Networks that miss half of one kind, or know nothing at all."""
    holds, machine, widths = [], [], []
    for seed in range(60):
        plan, kind = a_movie(seed, useless=useless)
        got = plan.estimate(checked(plan, kind, 150))
        assert got.low is not None
        assert got.high is not None
        holds.append(got.low <= 0.8 <= got.high)
        widths.append(got.high - got.low)
        said = [len(stratum.cells) for name in NAMES[:2] for stratum in plan.strata if name in stratum.name]
        tank = sum(len(s.cells) for s in plan.strata if NAMES[0] in s.name)
        machine.append(abs(tank / sum(said) - 0.8) < 0.1)
    assert np.mean(holds) >= 0.9
    assert np.mean(machine) < 0.2
    assert np.mean(widths) < (0.5 if useless else 0.25)


def test_all_tracks_checked_give_the_very_fraction() -> None:
    plan, kind = a_movie(3, n=300)
    got = plan.estimate(checked(plan, kind, 300))
    true = (kind == 0).sum() / (kind < 2).sum()
    assert got.n == 300
    assert got.estimate == pytest.approx(true, abs=0.01)
    assert got.low is not None
    assert got.high is not None
    assert got.low < true < got.high


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 10**6), st.lists(st.integers(1, 25), max_size=5), st.data())
def test_each_track_is_drawn_once_and_in_the_order_of_its_stratum(
    n: int, seed: int, batches: list[int], data: st.DataObject
) -> None:
    """For any movie, labels and batches; and the plan does not depend on the order of the rows."""
    label = data.draw(st.lists(st.sampled_from(NAMES), min_size=n, max_size=n))
    p = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    tank = [float("nan") if name == "unreliable" else 0.5 for name in label]
    plan = ReviewPlan(np.arange(n), label, p, tank, seed)
    other = ReviewPlan(np.arange(n)[::-1], label[::-1], p[::-1], tank[::-1], seed)
    labels: dict[int, Sequence[str]] = {}
    for batch in batches:
        more = plan.next(batch, labels)
        assert more == other.next(batch, labels)
        assert len(more) == min(batch, n - len(labels))
        assert not set(more) & set(labels)
        labels |= {cell: [data.draw(st.sampled_from(NAMES))] for cell in more}
        got = plan.estimate(labels)
        assert (got.estimate is None) == all(said == ["unreliable"] for said in labels.values())
        if got.estimate is not None and got.low is not None and got.high is not None:
            assert 0 <= got.low <= got.estimate <= got.high <= 1
    assert sorted(cell for stratum in plan.strata for cell in stratum.cells) == list(range(n))


def test_a_checked_track_speaks_for_its_part_of_its_stratum() -> None:
    """Ten flipping cells of a small stratum say less of all than two tank-treading ones of a large one."""
    n = 600
    label = [NAMES[0]] * 20 + [NAMES[2]] * (n - 20)
    plan = ReviewPlan(np.arange(n), label, [0.9] * 20 + [0.3] * (n - 20), [0.9] * 20 + [np.nan] * (n - 20), 1)
    small, large = plan.strata[0].cells, max(plan.strata, key=lambda stratum: len(stratum.cells)).cells
    labels = {int(c): [NAMES[1]] for c in small[:10]} | {int(c): [NAMES[0]] for c in large[:2]}
    shares = plan.prior(labels)
    for_tank = len(large) / (len(large) + len(small))
    assert shares[:, 0] / shares[:, :2].sum(axis=1) == pytest.approx(for_tank, abs=0.2)
    assert (shares[:, 0] > shares[:, 1]).all()


def test_persons_who_differ_have_an_equal_say() -> None:
    plan, kind = a_movie(6)
    one = checked(plan, kind, 100)
    two = {cell: [*said, "unreliable"] for cell, said in one.items()}
    alone, both = plan.estimate(one), plan.estimate(two)
    assert both.n == alone.n == 100
    assert both.reliable is not None
    assert alone.reliable is not None
    assert both.reliable < 0.75 * alone.reliable
