"""Control samples: Westgard's rules, the target, repeatability, and whether a day's control was in order."""

from __future__ import annotations

import csv
import io
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import FIRST, no_screen, session
from sentence_keys import any_said, is_said, refused

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.estimate import wilson
from napari_rbcflow.session import (
    FractionFigure,
    RecordTemplate,
    open_session,
    read_run,
    sign,
    verify,
    write_run,
)
from napari_rbcflow.trend import (
    Gathered,
    Precision,
    Record,
    Rule,
    State,
    control_beside,
    control_charts,
    control_of_day,
    gather,
    keep_control,
    rules_broken,
)
from napari_rbcflow.trend.baseline import Day

TARGET = {"target_mean": 0.80, "target_sd": 0.02}


def record(fraction: float, days: float = 0, n: int = 400, **given: object) -> Record:
    started = FIRST + timedelta(days=days)
    figure = FractionFigure(fraction, *wilson(round(fraction * n), n), 0.95, "wilson", n)
    about: dict[str, object] = {"control_lot": "C7", "instrument": "A1"}
    return Record(Path(f"c{days:g}"), started, "", "", "finished", 0.605, figure, **about | given)  # type: ignore[arg-type]


def chart(fractions: list[float], **options: object):  # type: ignore[no-untyped-def]
    controls = tuple(record(fraction, days) for days, fraction in enumerate(fractions))
    (found,) = control_charts(Gathered((), controls=controls), **options)  # type: ignore[arg-type]
    return found


# ---------------------------------------------------------------------- Westgard's rules


@pytest.mark.parametrize(
    ("z", "broken"),
    [  # each case as Westgard and others (1981) define the rule, just within and just beyond
        ("1.9 -1.9 1.9", ""),
        ("2.1", "1-2s"),
        ("-3.1", "1-2s 1-3s"),
        ("2.1 1.9", ""),
        ("2.1 2.1", "1-2s 2-2s"),
        ("-2.1 -2.1", "1-2s 2-2s"),
        ("2.1 0 2.1", "1-2s"),
        ("2.1 -2.1", "1-2s R-4s"),
        ("2.5 -1.9", ""),  # a difference above 4 alone is not it: both must be beyond 2
        ("1.1 1.1 1.1", ""),
        ("1.1 1.1 1.1 1.1", "4-1s"),
        ("-1.1 -1.1 -1.1 -1.1", "4-1s"),
        ("1.1 1.1 0.9 1.1 1.1", ""),
        ("0.1 " * 9, ""),
        ("0.1 " * 10, "10x"),
        ("-0.1 " * 10, "10x"),
        ("-0.1 " + "0.1 " * 9, ""),
        ("0.1 " * 9 + "0", ""),  # on the mean is on no side
        # A worked example that is taught, two levels of one run as z: 111 of 100 ± 5, then 167 of 150 ± 8.
        ("2.2 2.125", "1-2s 2-2s"),
    ],
)
def test_each_rule_rejects_what_it_names(z: str, broken: str) -> None:
    assert " ".join(rules_broken([float(part) for part in z.split()])[-1]) == broken


def second_opinion(z: np.ndarray) -> list[set[str]]:
    """Westgard's rules once more, written otherwise: by counting runs of equal zones from each end."""
    said: list[set[str]] = []
    streak = {(limit, side): 0 for limit in (0, 1, 2) for side in (-1, 1)}
    before = 0.0
    for value in z.tolist():
        for limit, side in streak:
            streak[limit, side] = streak[limit, side] + 1 if side * value > limit else 0
        now = set()
        if abs(value) > 2:
            now.add("1-2s")
        if abs(value) > 3:
            now.add("1-3s")
        if value * before < 0 and min(abs(value), abs(before)) > 2:
            now.add("R-4s")
        for limit, least, name in ((2, 2, "2-2s"), (1, 4, "4-1s"), (0, 10, "10x")):
            if max(streak[limit, -1], streak[limit, 1]) >= least:
                now.add(name)
        said.append(now)
        before = value
    return said


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.6])
def test_a_second_implementation_finds_the_same_in_long_series(shift: float) -> None:
    z = np.random.default_rng(7).normal(shift, 1.3, 2000)
    assert [set(found) for found in rules_broken(z.tolist())] == second_opinion(z)


# ---------------------------------------------------------------------- the target


def test_a_target_is_of_the_first_accepted_runs_without_those_beyond_three_deviations() -> None:
    steady = [0.80 + 0.02 * (-1) ** k * (1 + k % 3) / 2 for k in range(20)]
    found = chart([steady[0], 0.55, *steady[1:], 0.81])
    assert found.target is not None
    assert found.target.mean == pytest.approx(np.mean(steady))
    assert found.target.sd == pytest.approx(np.std(steady, ddof=1))
    assert found.runs[1].state is State.REJECTED
    assert any_said("trend.control-left-out-of-target", found.summary(), runs=1)
    few = chart(steady[:7])
    assert few.target is None
    assert {run.state for run in few.runs} == {State.NO_TARGET}
    assert any_said("trend.control-target-missing", few.summary(), first=20, runs=7)
    # Runs that are closer together than counting allows must not make ordinary days look odd.
    alike = chart([0.80] * 20 + [0.83])
    assert alike.target is not None
    assert alike.target.sd == pytest.approx(np.sqrt(0.8 * 0.2 / 400), rel=0.01)
    assert alike.runs[-1].state is State.IN_ORDER


def test_a_run_without_a_usable_number_is_neither_judged_nor_between_two_that_are() -> None:
    controls = [record(0.845, 0, doubt="The lamp failed."), record(0.845, 1), record(0.7, 2, doubt="Broken.")]
    controls.append(record(0.845, 3))
    (found,) = control_charts(Gathered((), controls=tuple(controls)), **TARGET)
    assert [run.state for run in found.runs] == ["no-number", "warning", "no-number", "rejected"]
    assert found.runs[-1].rules == (Rule.R12S, Rule.R22S)


def test_lots_and_instruments_have_charts_of_their_own() -> None:
    controls = (record(0.9, 0), record(0.9, 1, control_lot="C8"), record(0.9, 2, instrument="B2"))
    gathered = Gathered((), controls=controls)
    found = control_charts(gathered, **TARGET)
    assert [(c.lot, c.instrument) for c in found] == [("C7", "B2"), ("C8", "A1"), ("C7", "A1")]
    assert [c.lot for c in control_charts(gathered, lot="C8")] == ["C8"]
    with refused(BadInput, "trend.no-such-control"):
        control_charts(gathered, lot="C9")
    with refused(BadInput, "trend.control-target-half"):
        control_charts(gathered, target_mean=0.8)
    with refused(BadInput, "trend.no-control"):
        control_charts(Gathered(()))


# ---------------------------------------------------------------------- repeatability


def test_repeatability_is_the_certified_analysis_of_variance() -> None:
    # NIST StRD, SiRstv: five days (there: instruments) of five runs; mean squares are certified to 15 digits.
    table = """
        196.3052 196.1240 196.1890 196.2569 196.3403
        196.3042 196.3825 196.1669 196.3257 196.0422
        196.1303 196.2005 196.2889 196.0343 196.1811
        196.2795 196.1748 196.1494 196.1485 195.9885
        196.2119 196.1051 196.1850 196.0052 196.2090"""
    days = [[Day(float(x) / 1000, 10**9) for x in line.split()] for line in table.split("\n") if line.strip()]
    between, within = 1.27865654000000e-02, 1.08318280000000e-02
    found = Precision.of(days)
    assert found is not None
    assert found.within == pytest.approx(np.sqrt(within) / 1000, rel=1e-9)
    assert found.between == pytest.approx(np.sqrt((between - within) / 5) / 1000, rel=1e-9)
    assert found.total**2 == pytest.approx(found.within**2 + found.between**2)
    low, high = found.total_interval
    assert low < found.total < high


def test_repeatability_of_drawn_days_is_that_of_the_draw_and_counting_has_its_share() -> None:
    rng, days = np.random.default_rng(3), []
    for _ in range(600):
        true = rng.normal(0.8, 0.03)
        days.append([Day(rng.binomial(200, true) / 200, 200) for _ in range(rng.integers(1, 4))])
    found = Precision.of(days)
    assert found is not None
    assert found.between == pytest.approx(0.03, rel=0.1)
    assert found.within == pytest.approx(found.counting, rel=0.08)
    assert found.share_of(found.within) == pytest.approx(1, abs=0.1)
    assert found.share_of(found.total) == pytest.approx(0.0008 / (0.0008 + 0.0009), abs=0.06)
    assert Precision.of(days[:1]) is None
    assert Precision.of([day[:1] for day in days]) is None


# ---------------------------------------------------------------------- the day of a patient's run


def test_a_patients_run_is_told_of_the_last_control_before_it_at_the_same_instrument() -> None:
    given = {"first": 20, **TARGET}
    controls = (record(0.81, 0.0), record(0.85, 0.2), record(0.74, 0.5), record(0.80, 1.0))
    charts = control_charts(Gathered((), controls=controls), **given)  # type: ignore[arg-type]

    def told(days: float, instrument: str = "A1") -> tuple[State | None, str]:
        return control_of_day(charts, FIRST + timedelta(days=days), instrument)

    assert told(0.1)[0] is State.IN_ORDER
    assert told(0.3)[0] is State.WARNING
    state, words = told(0.55)
    assert state is State.REJECTED
    assert is_said("trend.control-day-rejected", words)
    assert told(0.9)[0] is State.IN_ORDER  # only after it
    for days, instrument in ((2, "A1"), (0.1, "B2"), (0.1, "")):
        state, words = told(days, instrument)
        assert state is None
        assert is_said("trend.control-day-none", words)
    assert control_of_day([], FIRST, "A1") == (None, "")  # a laboratory without controls is left alone


# ---------------------------------------------------------------------- from sessions, at the command line


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six days of a control, the last too low, and a patient on the fifth and sixth; do not touch."""
    folder = tmp_path_factory.mktemp("laboratory")
    template = RecordTemplate()
    control = template.record({"control_lot": "C7", "instrument_serial": "A1"})
    patient = template.record({"instrument_serial": "A1"})
    for day, tank in enumerate((80, 82, 79, 81, 80, 60)):
        session(folder / f"c{day}", tank, 100 - tank, week=day / 7, patient="", record=control)
    for day in (4.1, 5.1):
        session(folder / f"p{day:.0f}", 75, 25, week=day / 7, record=patient)
    return folder


def test_the_command_line_shows_charts_and_patients_without_mixing_them(
    laboratory: Path, tmp_path: Path, rbcflow
) -> None:  # type: ignore[no-untyped-def]
    table, picture = tmp_path / "c.csv", tmp_path / "c.png"
    code, out, err = rbcflow("control", laboratory, "--first", 5, "--csv", table, "--png", picture)
    assert (code, err) == (0, "")
    assert is_said("trend.control-last-rejected", out)
    rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8-sig"))))
    assert [row["state"] for row in rows] == ["in order"] * 5 + ["rejected"]
    assert rows[-1]["rules"] == "1-2s 1-3s"
    assert float(rows[-1]["target_mean"]) == pytest.approx(0.804)
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, err = rbcflow("trend", laboratory)
    assert code == 0
    assert "c0" not in out
    assert out.count("no target yet") == 2  # five runs are fewer than the twenty that a target usually needs
    assert rbcflow("control", laboratory / "p4")[0] == 2
    code, _, err = rbcflow("trend", laboratory / "c0")
    assert (code, is_said("trend.only-controls", err)) == (2, True)


def test_a_new_session_is_told_of_the_control_beside_it(laboratory: Path, tmp_path: Path) -> None:
    assert is_said("trend.control-day-no-target", control_beside(laboratory / "p4"))
    assert is_said("trend.control-last-no-target", control_beside(laboratory / "c3"))
    assert control_beside(session(tmp_path / "alone", 75, 25)) == ""
    assert control_beside(tmp_path / "none") == ""


def test_what_is_beside_a_new_session_neither_hides_the_control_nor_counts_twice(
    laboratory: Path, tmp_path: Path
) -> None:
    here = Path(shutil.copytree(laboratory, tmp_path / "laboratory"))
    # At another instrument there was none, which is not the same as no controls at all.
    other = session(here / "other", 75, 25, week=5.1 / 7)
    assert is_said("trend.control-day-none", control_beside(other))
    # One that cannot be read, in any way, is left out.
    for name, changes in (("c1", {"started": "0001-01-01T00:00:00"}), ("c2", {"started": "soon"})):
        write_run(here / name, read_run(here / name) | changes)
    assert is_said("trend.control-day-no-target", control_beside(here / "p5"))
    # A copy is no second run that breaks a rule with the first.
    for day in range(6, 21):
        shutil.copytree(here / "c0", here / f"c{day}")
        started = (FIRST + timedelta(days=day)).isoformat()
        write_run(here / f"c{day}", read_run(here / f"c{day}") | {"started": started})
    control = RecordTemplate().record({"control_lot": "C7", "instrument_serial": "A1"})
    for day in range(21, 24):
        session(here / f"c{day}", 80, 20, week=day / 7, patient="", record=control)
    session(here / "high", 890, 110, week=24 / 7, patient="", record=control)
    first = control_beside(here / "high")
    assert is_said("trend.control-last-warning", first)
    shutil.copytree(here / "high", here / "high copy")
    assert control_beside(here / "high") == first
    # What is said of a control's run is of that run, also where another began later.
    session(here / "later", 50, 50, week=25 / 7, patient="", record=control)
    assert control_beside(here / "high") == first
    assert is_said("trend.control-last-rejected", control_beside(here / "later"))


def test_of_copies_the_one_that_a_person_made_a_result_is_counted(laboratory: Path, tmp_path: Path) -> None:
    here = Path(shutil.copytree(laboratory / "p5", tmp_path / "p5"))
    copy = open_session(shutil.copytree(here, tmp_path / "p5 checked"))
    copy.review(dict.fromkeys(copy.review_sample(60), "tank-treading"), by="Ben")
    (record,) = (gathered := gather([tmp_path])).records
    assert (record.folder, record.verdict) == (copy.folder, "result")
    assert any_said("trend.session-copied", gathered.notes, folder=here, original=copy.folder)


def test_who_signs_while_the_control_is_written_down_signs_what_stays(
    laboratory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(shutil.copytree(laboratory, tmp_path / "laboratory"))
    refusals: list[RbcflowError] = []

    def sign_it() -> None:
        try:
            sign(here / "p5", "Ben")
        except RbcflowError as error:
            refusals.append(error)

    signing = threading.Thread(target=sign_it)

    def write_late(folder: Path, run: dict[str, Any]) -> None:
        signing.start()
        signing.join(2)
        write_run(folder, run)

    monkeypatch.setattr("napari_rbcflow.trend.control.write_run", write_late)
    keep_control(here / "p5")
    signing.join()
    assert verify(here / "p5").findings == []
    if refusals:  # it was changed while it was checked: that is told, and looked at again
        assert [error.key for error in refusals] == ["session.sign-changed-meanwhile"]
        sign(here / "p5", "Ben")
    assert verify(here / "p5").findings == []


def test_what_was_said_of_the_control_stands_in_run_json_the_report_and_the_panel(
    laboratory: Path, tmp_path: Path, qtbot: Any
) -> None:
    if no_screen():
        pytest.skip("no screen (install xvfb)")
    from napari_rbcflow.widgets.result import ResultPanel

    here = Path(shutil.copytree(laboratory, tmp_path / "laboratory"))
    panel = ResultPanel()
    qtbot.addWidget(panel)
    panel.show_end("finished", "reliable", here / "p4")
    qtbot.waitUntil(lambda: panel.control.text() != "")
    words = control_beside(here / "p4")
    assert words in panel.control.text()
    assert read_run(here / "p4")["control"] == words
    assert words in (here / "p4" / "report.html").read_text("utf-8")
    assert verify(here / "p4").code == 0
    # Of another session, nothing of this one; of an earlier one, what was said then.
    panel.show_session(open_session(session(tmp_path / "alone", 75, 25)))
    assert panel.control.text() == ""
    shutil.rmtree(here / "c5")
    panel.show_session(open_session(here / "p4"))
    assert words in panel.control.text()
    # What was signed is left as it was.
    sign(here / "p5", "Ben")
    before = (here / "p5" / "run.json").read_bytes()
    assert keep_control(here / "p5") != ""
    assert (here / "p5" / "run.json").read_bytes() == before


def test_a_control_counts_its_own_sessions_only(laboratory: Path) -> None:
    gathered = gather([laboratory])
    assert (len(gathered.records), len(gathered.controls), gathered.notes) == (2, 6, ())
    assert {r.instrument for r in (*gathered.records, *gathered.controls)} == {"A1"}
