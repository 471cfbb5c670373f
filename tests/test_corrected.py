"""The fraction corrected for the networks' errors, and the study of what every interval covers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, astuple, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from napari_rbcflow.classification.dataset import LabelledSequence
from napari_rbcflow.classification.training import model_card
from napari_rbcflow.classification.training.fitting import Recipe
from napari_rbcflow.classification.weight_files import SHIPPED, held_back_counts, seal
from napari_rbcflow.estimate import RunningFraction, intervals
from napari_rbcflow.estimate.error_correction import (
    JEFFREYS,
    LAPLACE,
    MOST_WIDTH,
    corrected_fraction,
    draw,
    draw_new_patient,
    interval_of,
    interval_of_new_patient,
    points,
    quantiles,
)
from napari_rbcflow.estimate.intervals import FEW_CELLS
from napari_rbcflow.estimate.network_rates import STAGE1, STAGE2, NetworkRates, Rate, new_pair, new_rate
from napari_rbcflow.sentences import say
from napari_rbcflow.session.counting import corrected_figure, corrected_words, correction_findings
from napari_rbcflow.session.report import correction
from napari_rbcflow.session.schema import FractionFigure, plain


def perfect(of: int = 10**7) -> NetworkRates:
    """Networks that are never wrong, as far as ten million cells can tell."""
    sure = Rate(of, of)
    return NetworkRates(sure, sure, Rate(0, of), sure, sure, sure, sure)


def real(labelled: int = 2000, leak: float = 0.003) -> NetworkRates:
    def rate(share: float) -> Rate:
        return Rate(round(share * labelled), labelled)

    told = rate(0.955)
    right = Rate(round(0.98 * told.hits), told.hits)
    let = rate(leak)
    return NetworkRates(
        rate(0.93), rate(0.80), let, told, told, right, right, (let.hits // 2, let.hits - let.hits // 2, 0)
    )


NAMES = (*STAGE1, *STAGE2)
BG = dict(
    zip(
        NAMES,
        (Rate(32, 43), Rate(43, 51), Rate(2, 138), Rate(90, 95), Rate(92, 96), Rate(88, 90), Rate(91, 92)),
        strict=True,
    )
)
"""Counts of one patient: those of stage 1 are BG's, of stage 2 half of those of all."""
LJ = BG | {"tank_treading_found": Rate(51, 57), "flipping_found": Rate(46, 49), "let_through": Rate(7, 60)}


def counted_on(*patients: dict[str, Rate], apart: bool = True) -> NetworkRates:
    """Rates counted on these patients, told apart or not."""
    total: dict[str, Any] = {
        n: Rate(sum(p[n].hits for p in patients), sum(p[n].of for p in patients)) for n in NAMES
    }
    by_patient = {f"P{i}": own for i, own in enumerate(patients)} if apart else {}
    return NetworkRates(**total, by_patient=by_patient)


def ends(rates: NetworkRates, k: int = 160, m: int = 40, others: int = 300) -> tuple[float, float]:
    """Ends of the interval, said or not."""
    together = draw(k, m, others, rates)
    if rates.by_patient:
        return interval_of_new_patient(draw_new_patient(together, rates), together)[1:3]
    _, low, high, _ = interval_of(together)
    return float(low), float(high)


@given(k=st.integers(0, 500), m=st.integers(0, 500), others=st.integers(0, 20_000))
@settings(max_examples=20, deadline=None)
def test_networks_that_do_not_err_leave_the_fraction_as_it_is(k: int, m: int, others: int) -> None:
    told = corrected_fraction(k, m, others, perfect())
    again = corrected_fraction(k, m, others, perfect())
    assert again == told  # the same counts give the same interval
    if told.reason:
        assert told.estimate is told.low is told.high is None
        assert k + m < 30 or "wide" in told.reason
        return
    assert told.estimate is not None
    assert told.low is not None
    assert told.high is not None
    assert 0 <= told.low <= told.estimate <= told.high <= 1
    assert told.low - 0.003 <= k / (k + m) <= told.high + 0.003
    if min(k, m) >= 10:
        jeffreys = beta.interval(0.95, k + 0.5, m + 0.5)
        assert (told.low, told.high) == pytest.approx(jeffreys, abs=2e-3)
        assert told.estimate == pytest.approx(k / (k + m), abs=3e-3)


def test_each_rate_is_drawn_from_its_own_counts_and_prior() -> None:
    """Of few labelled cells the prior decides: of a leak that was never seen, most of all."""
    rates = real(40, 0.0)
    drawn = draw(160, 40, 2000, rates)
    told, let_through_told = sum(rates.let_through_as[:2]), sum(rates.let_through_as)
    for name, hits, of, (more, fewer) in (
        ("leak", *astuple(rates.let_through), LAPLACE),
        ("tank_found", *astuple(rates.tank_treading_found), JEFFREYS),
        ("flip_found", *astuple(rates.flipping_found), JEFFREYS),
        ("tank_right", *astuple(rates.tank_treading_right), JEFFREYS),
        ("flip_right", *astuple(rates.flipping_right), JEFFREYS),
        ("let_through_told", told, let_through_told, (1.0, 0.5)),
        ("let_through_tank", rates.let_through_as[0], told, JEFFREYS),
        ("raw", 160, 200, JEFFREYS),
        ("counted", 200, 2200, JEFFREYS),
    ):
        assert getattr(drawn, name).mean() == pytest.approx((hits + more) / (of + more + fewer), rel=2e-3), (
            name
        )


def test_known_rates_are_solved_for() -> None:
    """Counts in their expectation, of rates that are known to the last digit, give the truth back."""
    p, reliable, leak = 0.7, 0.034, 0.01
    tank, flip = reliable * p * 0.93 * 0.955, reliable * (1 - p) * 0.80 * 0.955
    wrong = (1 - reliable) * leak
    n = 3_000_000
    k = round(n * (tank * 0.98 + flip * 0.02 + wrong * 0.5))
    m = round(n * (tank * 0.02 + flip * 0.98 + wrong * 0.5))
    told = corrected_fraction(k, m, n - k - m, real(4_000_000, leak))
    assert told.estimate == pytest.approx(p, abs=0.003)
    assert abs(k / (k + m) - p) > 0.03  # what there was to correct
    # Turning both kinds' names round turns the fraction round: here the rates differ, so turn them too.
    r = real(4_000_000, leak)
    turned = replace(r, tank_treading_found=r.flipping_found, flipping_found=r.tank_treading_found)
    other = corrected_fraction(m, k, n - k - m, turned)
    assert other.estimate == pytest.approx(1 - p, abs=0.003)


def test_less_knowledge_makes_it_wider_never_surer() -> None:
    widths = []
    for labelled in (20_000, 2000, 500, 150):
        _, low, high, _ = interval_of(draw(160, 40, 5800, real(labelled)))
        widths.append(float(high - low))
    assert widths == sorted(widths)
    # What stage 2 says of those let through matters, and where nobody counted it is open.
    known = real(1000, 0.03)
    unknown = replace(known, let_through_as=(0, 0, 0))
    ends = [interval_of(draw(160, 40, 2000, rates)) for rates in (known, unknown)]
    assert float(ends[1][2] - ends[1][1]) > 1.2 * float(ends[0][2] - ends[0][1])
    # A run that was stopped by what it showed has a wider raw interval, and hands it over.
    fraction = RunningFraction()
    for hit in [1, 1, 1, 1, 0] * 40:
        fraction.update(tank_treading=hit, flipping=1 - hit)
    plain = corrected_fraction(160, 40, 5800, real())
    handed = corrected_fraction(160, 40, 5800, real(), raw=fraction.anytime_interval())
    assert plain.low is not None
    assert plain.high is not None
    assert handed.low is not None
    assert handed.high is not None
    assert handed.low < plain.low
    assert handed.high > plain.high


@given(k=st.integers(40, 400), m=st.integers(10, 200), others=st.integers(0, 3000))
@settings(max_examples=8, deadline=None)
def test_a_patient_who_is_not_in_the_card_is_known_less(k: int, m: int, others: int) -> None:
    for patients in ([BG], [BG, LJ]):
        low, high = ends(counted_on(*patients), k, m, others)
        alike_low, alike_high = ends(counted_on(*patients, apart=False), k, m, others)
        assert low <= alike_low
        assert alike_high <= high
    told = corrected_fraction(k, m, others, counted_on(BG, LJ))
    assert told == corrected_fraction(k, m, others, counted_on(LJ, BG))  # whoever came first


def test_more_patients_say_more_and_the_reason_asks_for_them() -> None:
    # As many cells, of one patient or of more who are alike: how patients differ is what they tell.
    widths = [high - low for low, high in (ends(counted_on(*[BG] * n)) for n in (1, 2, 4, 8))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.7 * widths[0]
    # Patients who differ say less than two who are alike, though of 60 cells, not 138, fewer is known.
    other = BG | {"let_through": Rate(1, 60)}
    differ, alike = (ends(counted_on(BG, p), 300, 180, 820) for p in (LJ, other))
    assert differ[1] - differ[0] > 1.1 * (alike[1] - alike[0])
    none = corrected_fraction(315, 165, 820, counted_on(BG))
    assert none.estimate is None
    assert say("estimate.widest-patients", patients=1) in none.reason
    # It is the stage that knows fewer patients that is told of: here stage 1.
    stage2 = {"P1": {name: rate for name, rate in BG.items() if name in STAGE2}}
    own = counted_on(BG, {name: BG[name] if name in STAGE2 else Rate(0, 0) for name in BG})
    fewer = replace(own, by_patient={"P0": BG, **stage2})
    assert say("estimate.widest-patients", patients=1) in corrected_fraction(280, 200, 1200, fewer).reason
    # Said of LJ's movies 65.7 %, of which 77.4 % are true: the card of BG alone, alike, misses.
    low, high = ends(counted_on(BG), 315, 165, 820)
    assert low < 0.774 < high
    assert ends(counted_on(BG, apart=False), 315, 165, 820)[1] < 0.774


def test_patients_who_cannot_differ_give_what_their_sum_gives() -> None:
    u, tail, none = points(8192), (0.025, 0.5, 0.975), 1e-3
    leaks = [BG["let_through"], LJ["let_through"]]
    of_all = np.quantile(quantiles(u[4], 9, 189, LAPLACE), tail)
    assert np.quantile(new_rate(leaks, u[4], LAPLACE, none), tail) == pytest.approx(of_all, abs=2e-3)
    found = [(own["tank_treading_found"], own["flipping_found"]) for own in (BG, LJ)]
    both = new_pair(found, u[2:4], JEFFREYS, none, none)
    for rate, (hits, of) in zip(both, ((83, 100), (89, 100)), strict=True):
        of_all = np.quantile(quantiles(u[2], hits, of - hits), tail)
        assert np.quantile(rate, tail) == pytest.approx(of_all, abs=0.01)
    # Where they can, the next one is like either, or beyond.
    low, middle, high = np.quantile(new_rate(leaks, u[4], LAPLACE), tail)
    assert low < 2 / 138 < middle < 7 / 60 < high


def test_no_number_where_it_would_mean_nothing() -> None:
    few = corrected_fraction(20, 5, 900, real())
    assert few.estimate is None
    assert say("estimate.too-few-to-correct", cells=25, least=FEW_CELLS) in few.reason
    none = corrected_fraction(0, 0, 900, real())
    assert none.reason == say("estimate.not-corrected", why=say("estimate.none-to-correct"))
    poor = corrected_fraction(160, 40, 5800, real(100, 0.02))
    assert poor.estimate is None
    assert "too wide to act on" in poor.reason
    assert say("estimate.widest-leak", hits=2, cells=100) in poor.reason
    # Of a thousand tank-treading cells 20 would be called flipping by mistake: none is against the rates.
    against = corrected_fraction(1000, 0, 10, real(20_000))
    assert against.estimate is None
    assert say("estimate.rates-do-not-fit", tank_treading=1000, flipping=0) in against.reason
    for told in (few, poor, against):
        assert told.method == "none"
        assert told.reason.startswith(say("estimate.not-corrected", why=""))
    # Near the end the interval is not the shorter the less the counts fit the rates.
    near = corrected_fraction(199, 1, 1000, real())
    assert near.low is not None
    assert near.low < 0.99


def test_bad_input_is_told_in_a_sentence() -> None:
    for counts in ((-1, 3, 5), (1, -3, 5), (1, 3, -5), (1.5, 2, 3)):
        with pytest.raises(ValueError, match=r"Counts must (be whole numbers|not be negative)"):
            corrected_fraction(*counts, real())  # type: ignore[arg-type]
    for level in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            corrected_fraction(50, 50, 100, real(), level)
    with pytest.raises(ValueError, match="cannot be 3 of 2"):
        Rate(3, 2)
    with pytest.raises(ValueError, match=r"sum to 0\.90"):
        replace(real(), tank_treading_right=Rate(45, 100), flipping_right=Rate(45, 100))
    with pytest.raises(ValueError, match="as often as flipping"):
        replace(real(), flipping_found=Rate(1, 10), let_through=Rate(2, 10))
    with pytest.raises(ValueError, match="on no cell"):
        replace(real(), let_through=Rate(0, 0))
    with pytest.raises(ValueError, match="card of stage 1 does not say on"):
        NetworkRates.of_models({"stage1": {"name": "old"}, "stage2": {}})


def test_the_shipped_cards_give_their_counts() -> None:
    """Of a card from before stage 2's right ones stood in it by name, they follow from what does."""
    cards = {
        stage: json.loads((SHIPPED / f"{stage}.json").read_text(encoding="utf-8"))
        for stage in ("stage1", "stage2")
    }
    assert all(card["seal"] == seal(card) for card in cards.values())
    models = {stage: {"counts": held_back_counts(card)} for stage, card in cards.items()}
    rates = NetworkRates.of_models(json.loads(json.dumps(models)))
    assert (rates.tank_treading_found, rates.flipping_found) == (Rate(157, 210), Rate(173, 219))
    assert rates.let_through == Rate(5, 162)
    assert (rates.tank_treading_right, rates.flipping_right) == (Rate(197, 200), Rate(201, 207))
    figures = next(iter(cards["stage2"]["figures"].values()))
    balanced = (rates.tank_treading_right.value + rates.flipping_right.value) / 2
    assert figures["balanced accuracy of those told"] == pytest.approx(balanced, abs=1e-12)
    old = {
        key: value for key, value in figures.items() if "right, of" not in key and not key.startswith("by ")
    }
    followed = held_back_counts(cards["stage2"] | {"figures": {"held back": old}})
    assert followed == {name: of for name, of in models["stage2"]["counts"].items() if name != "by_patient"}
    # Five of 162 say too little where 3.4 % of the tracks are reliable; where most are, they serve.
    assert corrected_fraction(160, 40, 5800, rates).estimate is None
    assert corrected_fraction(160, 40, 300, rates).estimate is not None


def test_raw_intervals_cover_and_the_naive_one_does_not(coverage: dict[str, ModuleType]) -> None:
    """400 runs of 600 cells; limits are three standard errors off what 95 % would give."""
    study = coverage["coverage_raw"]
    found = {(o.rule, o.wanted): o for o in study.outcomes(0.7, (0.1,), 400, 600, 2)}
    assert found["fixed-width", 0.1].coverage > 0.917
    assert found["fixed-width", 0.1].cells / found["fixed-width", 0.1].needed < 1.2
    assert found["anytime, every look", 0.1].coverage > 0.917
    assert found["anytime, every look", 0.1].cells / found["anytime, every look", 0.1].needed < 2.5
    rules = {rule: o for (rule, _), o in found.items()}
    assert rules["wilson, stopped by the baseline"].coverage < 0.8
    # The study's compiled sequence is the package's own.
    fraction, k = RunningFraction(), next(study.played(0.86, 1, 200, 5))[0]
    low, high = study.Edges().sequence(k[None])
    for i, (now, before) in enumerate(zip(k.tolist(), [0, *k.tolist()[:-1]], strict=True)):
        fraction.update(tank_treading=now - before, flipping=1 - now + before)
        assert fraction.anytime_interval() == pytest.approx((low[0, i], high[0, i]), abs=1e-9)


def test_corrected_interval_covers(coverage: dict[str, ModuleType]) -> None:
    """300 runs a corner, 8 corners: 95 % would miss 120 of 2400, and 168 are four standard errors more."""
    study, tables = coverage["coverage_corrected"], coverage["coverage_corrected"].Tables()
    corners = study.grid((300, 2000), (0.86,), (0.003, 0.03))
    corners = [c for c in corners if c.tank_right == c.flip_right == 0.94]
    found = [study.study(c, "0.05", 300, 1, tables) for c in corners]
    assert len(found) == 8
    assert sum(round(r.runs * (1 - r.coverage)) for r in found) <= 168
    assert min(r.coverage for r in found) > 0.88
    # Not by being useless: well known networks with a small leak say their number.
    assert all(
        r.shown > 0.95 and r.width < 0.25 for r in found if r.corner.labelled == 2000 and r.corner.leak < 0.01
    )
    # Without the correction the same runs' raw interval, 0.05 to either side, would miss.
    assert all(abs(c.seen[1] - c.p) > 0.05 for c in corners if c.leak == 0.03 and c.tank_of_leak == 0.3)


def test_the_study_draws_as_a_run_does(coverage: dict[str, ModuleType]) -> None:
    study = coverage["coverage_corrected"]
    corner = study.Corner(0.86, 0.01, 0.97, 0.97, 1000, 0.6)
    of = study.play(corner, "0.05", 3, np.random.default_rng(4))
    _, low, high, _ = study.ours(of, study.Tables())
    for i in range(3):

        def rate(name: str, cells: int, i: int = i) -> Rate:
            return Rate(int(getattr(of, name)[i]), int(cells))

        let, told, tank = (int(x[i]) for x in (of.let_through, of.leak_told, of.leak_tank))
        rates = NetworkRates(
            rate("tank_found", 1000),
            rate("flip_found", 1000),
            Rate(let, 1000),
            rate("tank_told", 1000),
            rate("flip_told", 1000),
            rate("tank_right", of.tank_told[i]),
            rate("flip_right", of.flip_told[i]),
            (tank, told - tank, let - told),
        )
        k, n, tracks = int(of.k[i]), int(of.n[i]), int(of.tracks[i])
        _, own_low, own_high, _ = interval_of(draw(k, n - k, tracks - n, rates))
        assert (low[i], high[i]) == pytest.approx((float(own_low), float(own_high)), abs=0.02)
    assert MOST_WIDTH == study.MOST_WIDTH


def test_corrected_interval_covers_a_patient_who_is_not_in_the_card(coverage: dict[str, ModuleType]) -> None:
    """60 cards of two patients: 95 % would miss 9 of 180 runs, and 18 are three standard errors more."""
    study = coverage["new_patients"]
    found = study.study(study.Population(0.01, 0.7, 0.35), 2, 60, 1)
    assert sum(of.holds for (_, how), of in found.items() if how == "by patient") / 3 >= 0.9
    assert found[0.4, "by patient"].holds >= 0.9 > found[0.4, "all together"].holds
    assert found[0.4, "by patient"].no_number < 0.7  # not by being useless


@pytest.mark.parametrize(
    ("k", "n", "tuned_to", "edge"),
    [
        (700, 1000, 100, 0.651629),
        (700, 1000, 100, 0.745949),
        (15, 50, 50, 0.129556),
        (15, 50, 50, 0.511896),
        (5, 50, 50, 0.013021),
        (5, 50, 50, 0.269264),
        (1, 50, 50, 0.13489),
    ],
)
def test_the_anytime_interval_weighs_as_a_published_one(
    k: int, n: int, tuned_to: int, edge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends that confseq 0.0.11 (Howard et al.) tests itself by; only its tuning differs from ours."""
    threshold = 2 * math.log(20)
    spread = tuned_to / (threshold + math.log1p(threshold)) - 1
    monkeypatch.setattr(intervals, "_CELLS", spread / (edge * (1 - edge)))
    assert intervals._ratio(edge, k, n - k) == pytest.approx(math.log(20), abs=5e-3)


def a_run(cells: dict[str, int], method: str = "wilson", *, pooled: bool = False) -> dict[str, Any]:
    fraction = RunningFraction()
    fraction.update(tank_treading=cells["tank_treading"], flipping=cells["flipping"])
    interval = fraction.anytime_interval() if method == "anytime" else fraction.interval()
    raw = FractionFigure.of(fraction, interval, method)
    cards = {s: json.loads((SHIPPED / f"{s}.json").read_text(encoding="utf-8")) for s in ("stage1", "stage2")}
    models = {stage: {"counts": held_back_counts(card)} for stage, card in cards.items()}
    for model in models.values():
        if pooled:
            del model["counts"]["by_patient"]
    run = {"cells": cells, "models": models, "fraction": asdict(raw)}
    run["fraction_corrected"] = plain(asdict(corrected_figure(models, cells, raw)))
    told: dict[str, Any] = json.loads(json.dumps(run))
    return told


def test_a_session_says_it_and_is_caught_where_it_does_not_fit() -> None:
    cells = {"tank_treading": 160, "flipping": 40, "unreliable": 300}
    run = a_run(cells)
    told = run["fraction_corrected"]
    assert set(told) >= {"estimate", "low", "high", "level", "method", "n"}
    assert corrected_words(told).startswith("Corrected for the networks' known errors: 8")
    assert list(correction_findings(run, cells)) == []
    assert "157 of 210 tank-treading" in correction(run)["rests_on"]
    assert correction(run)["words"] == corrected_words(told)
    # Other counts than those it was worked out from, another number than comes out, other rates.
    assert any(
        "corrected fraction's low" in said for said in correction_findings(run, cells | {"unreliable": 900})
    )
    assert list(
        correction_findings(
            {**run, "fraction_corrected": told | {"estimate": told["estimate"] + 0.01}}, cells
        )
    )
    run["models"]["stage1"]["counts"]["let_through"] = [20, 138]
    assert list(correction_findings(run, cells))
    # By whatever the run was stopped: as wide as the raw interval asks. Of patients taken together, as what
    # they differ by is most of the width.
    once, always = (
        a_run(cells, method, pooled=True)["fraction_corrected"] for method in ("wilson", "anytime")
    )
    assert always["high"] - always["low"] > 1.2 * (once["high"] - once["low"])

    none = a_run({"tank_treading": 160, "flipping": 40, "unreliable": 5800})
    assert none["fraction_corrected"]["estimate"] is None
    assert none["fraction_corrected"]["method"] == "none"
    assert say("estimate.widest-leak", hits=5, cells=162) in correction(none)["words"]
    assert list(correction_findings(none, none["cells"])) == []
    # Weights whose card has no counts, and a session of before the correction: nothing fails.
    old = corrected_figure({}, cells, FractionFigure(0.8, 0.7, 0.9, 0.95, "wilson", 200))
    assert "card of stage 1 does not say" in old.reason
    assert (
        list(correction_findings({"fraction_corrected": {"estimate": None, "method": "none"}}, cells)) == []
    )
    impossible = {**run["models"], "stage2": {"counts": {"tank_treading_told": [5, 2]}}}
    assert (
        say("estimate.not-corrected", why="")
        in corrected_figure(impossible, cells, FractionFigure(**none["fraction"])).reason
    )


def test_a_card_that_is_written_now_says_its_counts_by_name() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 3, 120)
    sequences = [
        LabelledSequence(f"XX0101_10s01_{i}", int(k), np.zeros((6, 31, 31), np.uint8))
        for i, k in enumerate(labels)
    ]
    models = {}
    for stage in (1, 2):
        own = [s for s in sequences if stage == 1 or s.label != 2]
        truth = np.array([s.label != 2 if stage == 1 else s.label == 1 for s in own])
        logits = rng.normal(np.where(truth, 1.6, -1.6), 1.0)
        scored = model_card.figures(Recipe(stage=stage), own, logits, logits[None], 1.0, 0.0, 0.5)
        models[f"stage{stage}"] = {
            "counts": held_back_counts({"stage": stage, "figures": {"held back": scored}})
        }
        if stage == 2:  # what an old card's shares lead to is the same
            named = models["stage2"]["counts"]
            old = {k: v for k, v in scored.items() if "right, of" not in k}
            assert held_back_counts({"stage": 2, "figures": {"held back": old}}) == named
    rates = NetworkRates.of_models(models)
    assert rates.let_through.of == int((labels == 2).sum())
    assert rates.tank_treading_found.of == int((labels == 0).sum())
    assert 0.8 < rates.flipping_right.value < 1


def test_a_card_tells_patients_days_and_runs_apart() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 3, 240)
    runs = ("BG070219_10s01", "BG070219_10s02", "LJ200121_10s01", "LJ210121_10s01")
    sequences = [
        LabelledSequence(f"{runs[i % 4]}_{i}", int(k), np.zeros((6, 31, 31), np.uint8))
        for i, k in enumerate(labels)
    ]
    models = {}
    for stage in (1, 2):
        own = [s for s in sequences if stage == 1 or s.label != 2]
        truth = np.array([s.label != 2 if stage == 1 else s.label == 1 for s in own])
        logits = rng.normal(np.where(truth, 2.5, -2.5), 1.0)

        def scored(
            of: list[LabelledSequence], logits: np.ndarray[Any, Any] = logits, stage: int = stage
        ) -> dict[str, Any]:
            found = model_card.figures(Recipe(stage=stage), of, logits, logits[None], 1.0, 0.0, 0.5)
            told: dict[str, Any] = json.loads(json.dumps(found))
            return told

        card = scored(own)
        assert set(card["by patient"]) == {"BG", "LJ"}
        assert set(card["by day"]) == {"BG070219", "LJ200121", "LJ210121"}
        assert set(card["by run"]) == set(runs)
        for groups in (card[title] for title in ("by patient", "by day", "by run")):
            for name in groups[next(iter(groups))]:  # each group's counts are parts of the whole
                hits, of = (sum(own[name][i] for own in groups.values()) for i in (0, 1))
                assert [hits, of] == card[name]
        # Names that tell of no patient give a card without.
        nameless = scored([replace(s, name=f"x{i}") for i, s in enumerate(own)])
        assert {k: v for k, v in card.items() if k not in ("by patient", "by day", "by run")} == nameless
        models[f"stage{stage}"] = {"counts": held_back_counts({"stage": stage, "figures": {"a": card}})}

    # From the card to run.json and, by verify, back to the same number.
    cells = {"tank_treading": 160, "flipping": 40, "unreliable": 100}
    raw = FractionFigure(0.8, 0.74, 0.85, 0.95, "wilson", 200)
    said = plain(asdict(corrected_figure(models, cells, raw)))
    run = json.loads(
        json.dumps({"cells": cells, "models": models, "fraction": asdict(raw), "fraction_corrected": said})
    )
    assert list(correction_findings(run, cells)) == []
    assert "another patient's rates may differ" in correction(run)["rests_on"]
    assert "Stage 1, on patients BG and LJ, found" in correction(run)["rests_on"]
    counts = run["models"]["stage1"]["counts"]
    patients = counts.pop("by_patient")
    assert list(correction_findings(run | {"models": {**run["models"], "stage2": models["stage2"]}}, cells))
    damaged = ("x", {"BG": None}, {"BG": {"let_through": [900, 999]}}, {"BG": {"let_through": [3, 2]}})
    for wrong in damaged:
        counts["by_patient"] = wrong
        assert say("estimate.not-corrected", why="") in corrected_figure(run["models"], cells, raw).reason
    # What is of no patient counts as one more.
    counts["by_patient"] = {"BG": patients["BG"]}
    rates = NetworkRates.of_models(run["models"])
    assert [r.of for (r,) in rates.patients("let_through")] == [
        patients[name]["let_through"][1] for name in ("BG", "LJ")
    ]
