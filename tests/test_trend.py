"""A patient over time: which days make the baseline, what lies below it, and what is said of bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import FIRST, session, weekly
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import t as student

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import wilson
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure
from napari_rbcflow.session.change_log import ChangeLog
from napari_rbcflow.trend import (
    Below,
    Choices,
    Gathered,
    Record,
    Span,
    Trend,
    Use,
    gather,
    parse_span,
    trend_of,
)
from napari_rbcflow.trend.baseline import (
    LEAST_DAYS,
    Baseline,
    Day,
    Measured,
    few_days_factor,
    judge,
    left_out,
)
from napari_rbcflow.trend.export import rows
from napari_rbcflow.trend.judge import figure_words, number_words, summary
from napari_rbcflow.trend.plot import Scale, at_day
from napari_rbcflow.types import Verdict


def measured(fraction: float, n: int = 200) -> Measured:
    k = round(fraction * n)
    return Measured(k / n, *wilson(k, n), n)


def record(fraction: float, *, days: float = 0, n: int = 200, **given: object) -> Record:
    m = measured(fraction, n)
    started = FIRST + timedelta(days=days)
    figure = FractionFigure(m.estimate, m.low, m.high, 0.95, "wilson", n)
    return Record(Path(f"s{started:%Y%m%d%H%M}"), started, "BG", "", "finished", 0.605, figure, **given)  # type: ignore[arg-type]


def trend(records: list[Record], **choices: object) -> Trend:
    return trend_of(Gathered(tuple(records)), choices=Choices(**choices))  # type: ignore[arg-type]


def weeks(*fractions: float, n: int = 200) -> list[Record]:
    return [record(fraction, days=7 * k, n=n) for k, fraction in enumerate(fractions)]


def below(trend: Trend) -> str:
    return " ".join(run.below or "-" for run in trend.runs)


STEADY = (0.82, 0.80, 0.79, 0.83, 0.81, 0.78, 0.82, 0.80)


# ---------------------------------------------------------------------- the baseline


def test_the_baseline_is_mean_and_two_standard_deviations_of_the_days_outside_crises() -> None:
    found = trend(weeks(*STEADY, 0.60, 0.62))
    assert below(found) == "no " * 8 + "yes yes"
    assert found.baseline is not None
    assert found.baseline.mean == pytest.approx(np.mean(STEADY))
    assert found.baseline.low == pytest.approx(np.mean(STEADY) - 2 * np.std(STEADY, ddof=1))
    assert found.baseline.high == pytest.approx(np.mean(STEADY) + 2 * np.std(STEADY, ddof=1))
    assert [run.use for run in found.runs] == [Use.BASELINE] * 8 + [Use.BELOW] * 2


def test_the_limit_of_a_few_days_is_students_prediction_limit() -> None:
    one_in = 1 - student.cdf(2.0, df=10**7)
    for days, factor in ((4, 3.70), (12, 2.35), (10_000, 2.00)):
        by_hand = -student.ppf(one_in, days - 1) * np.sqrt(1 + 1 / days)
        assert few_days_factor(days) == pytest.approx(by_hand, rel=1e-6)
        assert few_days_factor(days) == pytest.approx(factor, abs=0.01)
    # Days that are alike by chance are not believed to be alike: counting alone spreads them.
    base = Baseline.of([Day(0.8, 200)] * 4)
    assert base is not None
    assert base.sd == 0
    assert base.sure_low == pytest.approx(0.8 - 3.70 * np.sqrt(0.8 * 0.2 / 200), abs=0.005)


def test_a_day_with_three_runs_weighs_as_one_day_and_its_runs_as_many_cells_as_they_counted() -> None:
    runs = [*weeks(*STEADY[:4]), record(0.70, days=0.1, n=600)]
    found = trend(sorted(runs, key=lambda r: r.started))
    assert len(found.runs) == 5
    assert found.baseline is not None
    first = (0.82 * 200 + 0.70 * 600) / 800
    assert found.baseline.mean == pytest.approx(np.mean([first, *STEADY[1:4]]))
    assert found.baseline.days == 4
    # Three days are no baseline, however often they were measured.
    found = trend([record(0.8, days=d + h / 24) for d in range(3) for h in range(3)])
    assert found.baseline is None
    assert found.days_missing == 1


def test_too_few_days_are_no_baseline_and_it_is_said_how_many_more() -> None:
    for n in range(1, LEAST_DAYS):
        found = trend(weeks(*STEADY[:n]))
        assert found.baseline is None
        missing = {"least": LEAST_DAYS, "days": n, "more": LEAST_DAYS - n}
        assert say("trend.baseline-missing", **missing) in summary(found)
        assert below(found) == " ".join("-" * n)
    found = trend(weeks(*STEADY[:LEAST_DAYS]))
    assert found.baseline is not None
    assert say("trend.baseline-new") in summary(found)
    assert say("trend.baseline-others") not in summary(found)
    # From the next day on runs are compared.
    assert below(trend(weeks(*STEADY[:LEAST_DAYS], 0.5)))[-3:] == "yes"


# ---------------------------------------------------------------------- below, perhaps below, not below


def test_a_run_lies_below_with_its_whole_interval_or_perhaps_with_its_number() -> None:
    found = trend(weeks(*STEADY, 0.74))
    assert below(found) == "no " * 8 + "perhaps"
    limit = found.runs[-1].comparison.limit
    assert limit is not None
    assert say("trend.is-perhaps-below", limit=100 * limit, others=True) in summary(found)[0]
    last = found.runs[-1]
    assert last.comparison.against is not None
    assert last.record.figure.high > last.comparison.against.low > 0.74  # type: ignore[operator]
    assert last.use is Use.BASELINE  # chance may explain it: it is no crisis
    found = trend(weeks(*STEADY, 0.66))
    assert below(found) == "no " * 8 + "yes"
    assert "is below the baseline: its whole interval" in summary(found)[0]
    # The same number from few cells.
    assert below(trend([*weeks(*STEADY), record(0.66, days=80, n=40)]))[-7:] == "perhaps"


def test_a_limit_that_is_not_the_end_of_the_baseline_says_whose_it_is() -> None:
    days = weeks(0.87, 0.75, 0.84, 0.77, 0.82, 0.79, 0.86, 0.76, 0.90)
    # The last day, in the baseline and out of it.
    for found, own in ((trend(days), True), (trend(days, crises=(parse_span("2026-04-27"),)), False)):
        limit, base = found.runs[-1].comparison.limit, found.baseline
        assert base is not None
        assert limit is not None
        assert own == (f"{100 * limit:.1f}" != f"{100 * base.low:.1f}")
        assert say("trend.is-not-below", limit=100 * limit, others=own) in summary(found)[0]
        few = {"days": base.days, "low": 100 * base.low, "limit": 100 * base.sure_low}
        assert say("trend.baseline-uncertain", **few) in summary(found)
        assert say("trend.baseline-others") in summary(found)


def test_two_of_three_days_in_a_row_confirm_each_other() -> None:
    low = 0.72  # under the limit of a few days, its interval reaches into the baseline
    assert below(trend(weeks(*STEADY, low))) == "no " * 8 + "perhaps"
    found = trend(weeks(*STEADY, low, 0.80, low))
    assert below(found) == "no " * 8 + "yes no yes"
    base = found.runs[-1].comparison.against
    assert base is not None
    others = base != found.baseline
    assert say("trend.is-below-in-a-row", limit=100 * base.sure_low, others=others) in summary(found)[0]
    assert below(trend(weeks(low, *STEADY, low))).count("yes") == 0
    too_far = below(trend(weeks(*STEADY, low, 0.80, 0.80, low)))  # the last three days hold but one of them
    assert too_far == "no " * 8 + "perhaps no no perhaps"


def test_several_low_days_do_not_hide_each_other() -> None:
    lows = (0.62, 0.60, 0.65, 0.61)
    for place in range(len(STEADY) + 1):
        fractions = [*STEADY[:place], *lows, *STEADY[place:]]
        found = trend(weeks(*fractions))
        assert [run.below is Below.YES for run in found.runs] == [f in lows for f in fractions]


@settings(max_examples=60, deadline=None)
@given(
    fractions=st.lists(st.integers(0, 40).map(lambda k: k / 40), min_size=1, max_size=14),
    n=st.sampled_from([40, 200, 1000]),
)
def test_what_holds_whatever_was_measured(fractions: list[float], n: int) -> None:
    days = [[measured(f, n)] for f in fractions]
    every = set(range(len(days)))
    out = left_out(days, every)
    assert len(out) <= (len(days) - 1) // 2
    if out:
        assert len(every - out) >= LEAST_DAYS
    said = [verdict for (verdict,) in judge(days, every - out)]
    whole = Baseline.of([Day(days[d][0].estimate, n) for d in sorted(every - out)])
    for place in out:
        assert said[place].below is Below.YES
    for verdict, (run,) in zip(said, days, strict=True):
        base = verdict.against
        assert (base is None) == (verdict.below is Below.UNKNOWN)
        if base is not None:
            assert base.sure_low <= base.limit <= base.low <= base.mean
            assert verdict.limit is not None
            if verdict.below is not Below.YES:
                assert (verdict.below is Below.NO) == (run.estimate >= verdict.limit)
                assert whole is None or verdict.below is Below.PERHAPS or run.estimate >= whole.low
    # Nothing depends on which of two mirrored orders of time it was.
    assert {len(days) - 1 - p for p in left_out(days[::-1], every)} == out or len(set(fractions)) < len(days)


def test_steady_patients_are_seldom_called_low_and_a_fall_of_20_points_is_found() -> None:
    rng = np.random.default_rng(11)

    def said(fall: tuple[float, ...]) -> list[Below]:
        true = np.clip(rng.normal(0.8, 0.02, 12), 0, 1)
        true[9:] -= fall
        days = [[measured(rng.binomial(200, p) / 200)] for p in true]
        every = set(range(12))
        return [v.below for (v,) in judge(days, every - left_out(days, every))]

    steady = [verdict for _ in range(60) for verdict in said((0, 0, 0))]
    assert steady.count(Below.YES) <= 0.03 * len(steady)
    assert steady.count(Below.PERHAPS) <= 0.10 * len(steady)
    found = [Below.YES in said((0.20 / 3, 0.40 / 3, 0.20))[9:] for _ in range(60)]
    assert np.mean(found) >= 0.8


# ---------------------------------------------------------------------- what a person says of the days


def test_named_crises_make_no_baseline_and_are_judged_all_the_same() -> None:
    runs = weeks(*STEADY, 0.72, 0.79)
    plain = trend(runs)
    named = trend(runs, crises=(parse_span("2026-04-27:2026-05-04"),))
    assert [run.use for run in named.runs] == [Use.BASELINE] * 8 + [Use.CRISIS] * 2
    assert below(named) == "no " * 8 + "perhaps no"
    assert named.baseline is not None
    assert plain.baseline is not None
    assert named.baseline.days == 8
    assert named.baseline.sd < plain.baseline.sd

    only = trend(runs, baseline_days=parse_span(":2026-03-31"))
    assert [run.use for run in only.runs] == [Use.BASELINE] * 5 + [Use.OUTSIDE] * 5
    kept = trend(weeks(*STEADY, 0.60), automatic=False)
    assert kept.runs[-1].use is Use.BASELINE
    assert below(kept)[-3:] == "yes"  # it is compared with the other days
    wrong = trend(runs, crises=(parse_span("2025-04-27"),))
    assert say("trend.no-run-in-days", days="2025-04-27") in wrong.notes


def test_a_baseline_made_in_a_crisis_is_told_by_runs_that_lie_above() -> None:
    found = trend(weeks(0.60, 0.61, 0.59, 0.62, 0.60, 0.84))
    assert say("trend.clearly-above", day=found.runs[-1].day) in found.notes


@pytest.mark.parametrize(
    "text", ["", ":", "monday", "2026-02-30", "2026-03-09:2026-03-02", "2026-03-02 - 2026-03-09"]
)
def test_what_is_no_span_of_days_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_span(text)
    assert error.value.key in ("trend.not-days", "trend.not-a-date", "trend.days-backwards")
    assert say("trend.how-to-write-days") in str(error.value)


def test_spans_hold_both_their_ends() -> None:
    span = parse_span("2026-03-02:2026-03-04")
    assert [date(2026, 3, d) in span for d in (1, 2, 4, 5)] == [False, True, True, False]
    assert date(1999, 1, 1) in parse_span(":2026-03-04")
    assert date(2026, 3, 2) in parse_span("2026-03-02")
    assert date(2026, 3, 3) not in parse_span("2026-03-02")


# ---------------------------------------------------------------------- session folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven weeks with a crisis, and what else comes to lie in such a folder; do not touch."""
    folder = weekly(tmp_path_factory.mktemp("sessions"), [0.84, 0.8, 0.82, 0.86, 0.54, 0.8, 0.84], n=50)
    session(folder / "a-failed", 32, 8, week=1.2, status="failed")
    session(folder / "b-few", 7, 1, week=2.2)
    session(folder / "c-none", 0, 0, week=3.2)
    (folder / "notes").mkdir()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "run.json").write_text("{")
    log = ChangeLog(folder / "week-03")
    for cell in (44, 45):
        log.add(cell, "tank-treading", "Anna")
    return folder


def test_sessions_are_read_as_they_are(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / "week-00", tmp_path / "copy"))
    crashed = session(tmp_path / "crashed", 40, 10, close=False)
    gathered = gather([folder, folder / "week-01", folder / "week-01" / "run.json", copy, crashed])
    names = [r.named for r in gathered.records]
    assert names == [
        "week-00", "week-01", "a-failed", "week-02", "b-few", "week-03", "c-none", "week-04", "week-05",
        "week-06", "crashed",
    ]  # fmt: skip
    assert any("run.json is damaged" in note for note in gathered.notes)
    assert any("is a copy of" in note for note in gathered.notes)
    by_name = dict(zip(names, gathered.records, strict=True))
    assert by_name["week-04"].figure.estimate == pytest.approx(0.54)
    assert "The run failed: the camera went away" in by_name["a-failed"].doubt
    assert "Only 8 cells" in by_name["b-few"].doubt
    assert by_name["c-none"].doubt
    assert by_name["crashed"].doubt  # this process holds it open still
    changed = by_name["week-03"].by_hand
    assert changed is not None
    assert (changed.estimate, changed.n) == (pytest.approx(45 / 50), 50)

    found = trend_of(gathered)
    assert {run.record.named for run in found.runs if run.use is Use.DOUBT} == {
        "a-failed", "b-few", "c-none", "crashed",
    }  # fmt: skip
    assert [run.record.named for run in found.below(Below.YES)] == ["week-04"]
    # The changes by hand move nothing: the machine's number is the one to compare.
    assert found.baseline is not None
    assert found.baseline.mean == pytest.approx(np.mean([0.84, 0.8, 0.82, 0.86, 0.8, 0.84]))


def test_the_command_says_it_and_writes_a_table_and_a_picture(
    folder: Path, tmp_path: Path, rbcflow: Any
) -> None:
    table, picture = tmp_path / "bg.csv", tmp_path / "bg.png"
    code, out, err = rbcflow(
        "trend", folder, "--csv", table, "--png", picture, "--crisis", "2026-03-29:2026-03-31"
    )
    assert code == 0, err
    low = np.mean(v := [0.84, 0.8, 0.82, 0.86, 0.8, 0.84]) - 2 * np.std(v, ddof=1)
    assert f"--stop-baseline {low:.3f}" in out
    assert "54.0 %" in out
    assert say("trend.below-yes") in out
    assert "note: A session is left out" in err
    assert "The last run, 13 Apr 2026, 84.0 %" in out

    data = table.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert len(rows) == 10
    crisis = next(row for row in rows if Path(row["session"]).name == "week-04")
    assert (crisis["below"], crisis["in_baseline"], crisis["why"]) == ("yes", "no", say("trend.use-crisis"))
    assert (crisis["started"], crisis["n"]) == ("2026-03-30 10:15:00", "50")
    assert {row["baseline_low"] for row in rows} == {f"{low:.6f}"}
    failed = next(row for row in rows if Path(row["session"]).name == "a-failed")
    assert (failed["below"], failed["in_baseline"], failed["status"]) == ("", "no", "failed")
    assert "camera went away" in failed["why"]
    changed = next(row for row in rows if row["by_hand_estimate"])
    assert float(changed["by_hand_estimate"]) == pytest.approx(0.9)
    assert float(changed["estimate"]) == pytest.approx(0.86)

    with Image.open(picture) as image:
        assert image.size == (2400, 1500)
        colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert {(213, 94, 0), (0, 114, 178), (255, 255, 255)} <= {colour for _, colour in colours}
    if pictures := os.environ.get("RBCFLOW_PICTURES"):
        shutil.copy(picture, Path(pictures) / "trend.png")


def test_bad_input_gets_one_clear_line_and_leaves_nothing(folder: Path, tmp_path: Path, rbcflow: Any) -> None:
    other = session(tmp_path / "ax", 30, 2, patient="AX")
    nobody = session(tmp_path / "nobody", 30, 2, patient=" ")
    finer = session(tmp_path / "finer", 30, 2, pixel_size_um=0.3025)
    faster = session(tmp_path / "faster", 30, 2, parameters={"shear_rate_per_s": 20.0})
    lower = session(tmp_path / "lower", 30, 2, parameters={"focus_height_um": 40.0})
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken.csv").write_text("mine")
    undated = Path(shutil.copytree(other, tmp_path / "undated"))
    run = json.loads((undated / "run.json").read_text())
    (undated / "run.json").write_text(json.dumps({**run, "started": "yesterday"}))
    week = folder / "week-00"
    csv_ = tmp_path / "new.csv"
    cases: list[tuple[list[object], str]] = [
        ([folder, other], f"different patients.*{other}"),
        ([week, nobody], f"{nobody} names no patient"),
        ([week, folder / "week-01", finer], f"different pixel sizes: {finer}"),
        ([week, folder / "week-01", faster], f"different shear rates: {faster} has 20 per s, .* 10 per s"),
        ([week, folder / "week-01", lower], f"different focus heights: {lower} has 40 µm, .* 60 µm"),
        ([tmp_path / "empty"], "holds none"),
        ([tmp_path / "absent"], "no such folder"),
        ([folder / "damaged"], "damaged"),
        ([undated], "does not say when"),
        ([folder, "--patient", "CY"], "No session is of patient 'CY'"),
        ([folder, "--crisis", "monday"], "not a date"),
        ([folder, "--png", csv_], "two names"),
        ([folder, "--csv", tmp_path / "taken.csv"], "already exists"),
        ([], "DIR"),
    ]
    for given_, expected in cases:
        before = sorted(tmp_path.rglob("*"))
        code, _, err = rbcflow("trend", *given_, *([] if "exists" in expected else ["--csv", csv_]))
        assert code == 2, f"{given_}: {err}"
        assert len(err.strip().splitlines()) == 1, err
        assert re.search(expected, err), err
        assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "taken.csv").read_text() == "mine"
    # Named, the patient is taken out of many.
    code, out, err = rbcflow("trend", folder, other, nobody, "--patient", "AX")
    assert code == 0
    assert say("trend.baseline-missing", least=LEAST_DAYS, days=1, more=LEAST_DAYS - 1) in out
    assert say("trend.others-left-out", sessions=10) in err


def test_a_session_whose_interval_lets_its_own_number_out_is_read(tmp_path: Path) -> None:
    """The anytime interval may do so: an honest session is not refused, a damaged one is."""
    one = session(tmp_path / "one", 40, 40)
    run = json.loads((one / "run.json").read_text())
    for figure, fault in (
        ({"low": 0.52, "high": 0.7, "method": "anytime"}, None),
        ({"low": 0.7, "high": 0.52}, "trend.fraction-impossible"),
        ({"low": 0.4, "high": 1.2}, "trend.fraction-impossible"),
        ({"estimate": 1.5}, "trend.fraction-impossible"),
    ):
        (one / "run.json").write_text(json.dumps({**run, "fraction": {**run["fraction"], **figure}}))
        if fault is None:
            (read,) = gather([one]).records
            assert read.figure.estimate == 0.5
            # It is shown, and makes no baseline.
            assert say("quality.warn-fraction-left-interval") in read.doubt
        else:
            with pytest.raises(BadInput) as error:
                gather([one])
            assert error.value.key == fault


def test_runs_that_count_otherwise_are_told(tmp_path: Path) -> None:
    parameters: dict[str, object] = {
        "least_frames": 30,
        "shear_rate_per_s": 12.0,
        "focus_height_um": 55.0,
        "leave_out_intruded": True,
    }
    (one,) = gather([session(tmp_path / "one", 40, 8, parameters=parameters)]).records
    assert parameters == {name: getattr(one, name) for name in parameters}
    (old,) = gather([session(tmp_path / "old", 40, 8)]).records
    assert (old.shear_rate_per_s, old.focus_height_um, old.least_frames) == (10.0, 60.0, 6)
    machine = say("trend.of-machine-numbers", least=LEAST_DAYS, days=0)
    assert trend(weeks(*STEADY)).notes == (machine,)
    notes = trend([*weeks(*STEADY), record(0.8, days=80, least_frames=30)]).notes[1:]
    assert [
        re.search("Not all runs were counted alike: s2026052.* counted only cells seen in 30 frames", n)
        for n in notes
    ]
    notes = trend([*weeks(*STEADY), record(0.8, days=80, leave_out_intruded=True)]).notes
    assert say("trend.judged-without-intruded") in " ".join(notes)


def test_runs_of_other_networks_and_of_recorded_movies_are_told(tmp_path: Path) -> None:
    one = record(0.8, networks=("a", "b"))
    two = record(0.8, days=7, networks=("a", "c"), movie="/data/monday.avi")
    three = record(0.8, days=14, networks=("a", "c"), movie="/data/monday.avi")
    notes = " ".join(trend([one, two, three]).notes)
    assert say("trend.other-networks", day="2026-03-09") in notes
    assert say("trend.from-movies", runs=2) in notes
    assert say("trend.same-movie", runs=2, movie="/data/monday.avi") in notes


# ---------------------------------------------------------------------- results and the machine's numbers


def reviewed(fraction: float, *, days: float, machine: float, **given: Any) -> Record:
    """A run whose machine says one thing, and a person with it another."""
    m = measured(fraction, 150)
    figure = FractionFigure(m.estimate, m.low, m.high, 0.95, "reviewed", 150)
    return record(machine, days=days, verdict=Verdict.RESULT, headline=figure, **given)


def test_results_are_compared_with_results_and_the_machines_numbers_with_the_machines() -> None:
    # The networks find 30 points too few in this light: a result among such numbers would look like a rise.
    plain = [record(f - 0.3, days=7 * k) for k, f in enumerate(STEADY)]
    one = trend([*plain, reviewed(0.80, days=70, machine=0.50)])
    assert below(one) == " ".join(["no"] * 9)
    assert not one.runs[-1].comparison.above
    assert say("trend.of-machine-numbers", least=LEAST_DAYS, days=1) in one.notes
    last = one.runs[-1].record
    assert last.headline is not None
    both = {"number": number_words(last.figure), "result": number_words(last.headline)}
    assert figure_words(one.runs[-1]) == say("trend.of-machine-beside", **both)

    # With enough results to make a baseline, nothing else is compared.
    results = [reviewed(f, days=70 + 7 * k, machine=0.5) for k, f in enumerate(STEADY)]
    late = [record(0.5, days=200), reviewed(0.60, days=210, machine=0.8)]
    found = trend([*plain, *results, *late])
    assert [run.use for run in found.runs] == [
        *[Use.PROVISIONAL] * 8,
        *[Use.BASELINE] * 8,
        Use.PROVISIONAL,
        Use.BELOW,
    ]
    assert found.baseline is not None
    assert found.baseline.mean == pytest.approx(np.mean(STEADY), abs=0.01)
    assert found.last is found.runs[-1]
    assert found.last.below is Below.YES
    assert found.last.figure is found.last.record.headline
    assert say("trend.provisional-left-out", runs=9) in found.notes
    assert figure_words(found.last).endswith("result")
    assert [row["compared"] for row in rows(found)[-2:]] == ["", "result"]
    # Results in a crisis make no baseline.
    crisis = Span(date(2026, 5, 1), None)
    assert not trend([*plain, *results], crises=(crisis,)).runs[-1].of_results


def test_a_reviewed_session_is_a_result_though_the_networks_were_doubtful(tmp_path: Path) -> None:
    folder = session(tmp_path / "one", 20, 8)  # few cells
    (record,) = gather([folder]).records
    assert record.doubt
    assert record.verdict is Verdict.PROVISIONAL
    figure = FractionFigure(0.75, 0.65, 0.85, 0.95, "reviewed", 60)
    (folder / "review.json").write_text(json.dumps({"fraction_reviewed": vars(figure)}))
    (record,) = gather([folder]).records
    assert (record.doubt, record.verdict, record.headline) == ("", Verdict.RESULT, figure)


# ---------------------------------------------------------------------- axes


@settings(max_examples=60, deadline=None)
@given(days=st.lists(st.floats(0, 4000), min_size=1, max_size=6), most=st.integers(4, 12))
def test_the_axis_of_dates_says_few_true_dates(days: list[float], most: int) -> None:
    scale = Scale.of(trend([record(0.8, days=day) for day in sorted(days)]))
    ticks = scale.dates(most)
    assert len(ticks) <= most
    for at, words in ticks:
        assert scale.first_day <= at <= scale.last_day
        day = date.fromordinal(int(at))
        assert f"{day:%b}" in words
    if max(days) - min(days) < 1000 and ticks:
        assert str(date.fromordinal(int(ticks[0][0])).year) in ticks[0][1]
    for run in days:
        assert scale.first_day <= at_day(FIRST + timedelta(days=run)) <= scale.last_day


def test_a_day_is_that_of_the_clock_on_the_wall() -> None:
    late = datetime.fromisoformat("2026-03-02T23:30:00-05:00")
    assert at_day(late) == pytest.approx(date(2026, 3, 2).toordinal() + 23.5 / 24)
    runs = [record(0.8), Record(Path("late"), late, "BG", "", "finished", 0.605, record(0.7).figure)]
    assert [run.day for run in trend(runs).runs] == [date(2026, 3, 2)] * 2
