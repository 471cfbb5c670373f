"""One verdict on a session's number: made in one place, proven by `verify`, shown everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import Pair, begin, closed, no_screen, some_pairs, swap_text, write
from sentence_keys import is_said

from napari_rbcflow.quality import RunWarning, Severity
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure, conclude, open_session, verify
from napari_rbcflow.session.schema import read_run, write_run
from napari_rbcflow.types import Verdict

NARROW = FractionFigure(0.78, 0.70, 0.85, 0.95, "reviewed", 60)
WIDE = FractionFigure(0.70, 0.50, 0.86, 0.95, "reviewed", 60)
CALIBRATED: dict[str, Any] = {
    "calibration": {"applies": True},
    "fraction_corrected": {**vars(NARROW), "method": "propagated", "n": 300, "reason": ""},
}


def a_run(*warnings: str, n: int = 120, **changes: Any) -> dict[str, Any]:
    """What run.json says of a run that ended well, but for grave warnings of these kinds."""
    told = [RunWarning(key, Severity.WARNING, f"It is {key}.").as_dict() for key in warnings]
    base: dict[str, Any] = {"status": "finished", "stop_reason": "reliable", "warnings": []}
    base |= {"cells": {"tank_treading": n, "flipping": 0, "unreliable": 3000}, "fraction": {"n": n}}
    return base | {"quality": {"warnings": told}, "simulated": False} | changes


@pytest.mark.parametrize(
    ("run", "reviewed", "verdict", "key"),
    [
        (a_run(), None, "provisional", "why-unchecked"),
        (a_run(), NARROW, "result", "why-reviewed"),
        (a_run(), WIDE, "provisional", "why-review-wide"),
        (a_run(), replace(NARROW, n=12), "provisional", "why-few-checked"),
        # What a damaged file says is no result.
        (a_run(), replace(NARROW, low=0.9, high=0.1), "provisional", "why-review-wide"),
        (a_run(), replace(NARROW, low=float("nan")), "provisional", "why-review-wide"),
        (a_run(), replace(NARROW, low="0.7"), "provisional", "why-none-reliable"),
        (a_run(), replace(NARROW, level=0.5), "provisional", "why-review-wide"),
        (a_run(**CALIBRATED), None, "result", "why-calibrated"),
        (a_run(**CALIBRATED), WIDE, "result", "why-calibrated"),
        # A person's check that excludes it is believed.
        (
            a_run(**CALIBRATED),
            FractionFigure(0.45, 0.30, 0.63, 0.95, "reviewed", 60),
            "provisional",
            "why-review-wide",
        ),
        (
            a_run(**CALIBRATED | {"calibration": {"applies": False}}),
            None,
            "provisional",
            "why-calibration-unlike",
        ),
        (a_run(calibration={"applies": True}), None, "provisional", "why-calibration-wide"),
        # A correction by the shipped networks' rates is of other laboratories.
        (a_run(**CALIBRATED | {"calibration": None}), None, "provisional", "why-unchecked"),
        # Where the networks may be wrong, a person answers, and no calibration.
        (a_run("reliable-few"), None, "provisional", "why-doubtful"),
        (a_run("reliable-few", "few-cells"), NARROW, "result", "why-reviewed"),
        (a_run("reliable-few", **CALIBRATED), None, "provisional", "why-doubtful"),
        (
            a_run(
                quality={"warnings": [RunWarning("speeds", Severity.NOTE, "Odd.").as_dict()]}, **CALIBRATED
            ),
            None,
            "provisional",
            "why-doubtful",
        ),
        # Where the movie is bad, nobody does.
        (a_run("light-saturated"), NARROW, "no-result", "It is light-saturated."),
        (a_run("fraction-drifts", **CALIBRATED), NARROW, "no-result", "It is fraction-drifts."),
        (a_run(status="failed", stop_reason="no room"), NARROW, "no-result", "no room"),
        (a_run(cells={"tank_treading": 0, "flipping": 0}), None, "no-result", "why-none-judged"),
        (a_run(status="running"), None, "provisional", "why-going-on"),
        (a_run(status="running", n=0), None, "no-result", "why-none-yet"),
        (a_run("flow-slow", status="running"), None, "no-result", "It is flow-slow."),
    ],
)
def test_the_rules(run: dict[str, Any], reviewed: FractionFigure | None, verdict: str, key: str) -> None:
    found = conclude(run, reviewed)
    assert found.verdict == verdict
    assert key in found.why or is_said(f"session.{key}", found.why)
    assert found.todo in found.reason
    # Only a result has a number to act on, and it is never the raw one.
    assert (found.headline is not None) == (found.verdict is Verdict.RESULT)
    simulated = conclude({**run, "simulated": True}, reviewed)
    assert simulated.verdict == verdict
    told = found.why if found.verdict == "result" else found.reason
    assert simulated.reason == f"{say('session.why-simulated')} {told}"


def test_a_person_is_asked_for_no_more_cells_than_there_are() -> None:
    few = a_run(cells={"tank_treading": 9, "flipping": 1, "unreliable": 12})
    assert conclude(few).todo == say("session.todo-check", cells=22)
    assert conclude(few, replace(WIDE, n=12)).todo == say("session.todo-check-more", cells=10)
    assert conclude(few, FractionFigure(0.7, 0.5, 0.9, 0.95, "reviewed", 22)).todo == say(
        "session.todo-longer"
    )


def test_it_stands_in_run_json_from_the_first_second_to_the_close(tmp_path: Path, pairs: list[Pair]) -> None:
    begin(tmp_path / "S").ring.close()
    assert read_run(tmp_path / "S")["verdict"] == "no-result"
    assert open_session(tmp_path / "S").conclusion.verdict is Verdict.NO_RESULT
    folder = closed(tmp_path / "T", pairs)
    run = read_run(folder)
    assert (run["verdict"], run["verdict_reason"]) == tuple(conclude(run).as_dict().values())
    assert run["verdict"] == "provisional"
    assert verify(folder).findings == []
    # A verdict that was edited is found.
    swap_text(folder / "run.json", '"verdict": "provisional"', '"verdict": "result"')
    (finding,) = verify(folder, only_number=True).findings
    assert is_said("session.found-verdict-differs", finding, told="result")
    # A session from before there were verdicts gets one, and is whole.
    del run["verdict"], run["verdict_reason"]
    write_run(folder, run)
    assert verify(folder, only_number=True).findings == []
    assert open_session(folder).conclusion == conclude(run)
    # Its review counts.
    (folder / "review.json").write_text(json.dumps({"fraction_reviewed": vars(NARROW)}))
    assert open_session(folder).conclusion.headline == NARROW
    (folder / "review.json").write_text("{")
    assert open_session(folder).conclusion == conclude(run)


def test_an_interrupted_and_a_failed_run_have_no_result(tmp_path: Path, pairs: list[Pair]) -> None:
    failed = write(tmp_path / "F", pairs, status="failed")
    conclusion = open_session(failed).conclusion
    assert conclusion.verdict is Verdict.NO_RESULT
    assert conclusion.why == say("quality.warn-failed", reason="the camera went away")


def of_verdict(folder: Path, verdict: str, pairs: list[Pair]) -> Path:
    """A session that has this verdict."""
    run = read_run(write(folder, pairs))
    run["quality"], run["simulated"] = {"warnings": []}, verdict == "no-result"
    if verdict == "no-result":
        slow = {"shear": 4.9, "wanted": 10.0, "height": 60.0}
        warning = RunWarning.saying("flow-slow", Severity.WARNING, **slow)
        run["quality"]["warnings"] = [warning.as_dict()]
    write_run(folder, run | conclude(run).as_dict())
    if verdict == "result":
        (folder / "review.json").write_text(json.dumps({"fraction_reviewed": vars(NARROW)}))
    return folder


@pytest.mark.skipif(no_screen(), reason="no screen (install xvfb)")
@pytest.mark.parametrize("size", [(1366, 768), (1920, 1080)])
def test_the_panel_shows_the_verdict_first_and_a_large_number_only_where_it_is_a_result(
    qtbot: Any,
    make_napari_viewer: Any,
    take_picture: Any,
    tmp_path: Path,
    pairs: list[Pair],
    size: tuple[int, int],
) -> None:
    from qtpy.QtCore import QPoint, QRect

    from napari_rbcflow.widgets.label_styles import INKS
    from napari_rbcflow.widgets.movie import MovieWidget

    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(*size)
    dock = MovieWidget(viewer)
    viewer.window.add_dock_widget(dock, area="right", name="Movie")
    panel = dock.panel
    box = panel.verdict
    for verdict in Verdict:
        folder = of_verdict(tmp_path / verdict, verdict, pairs)
        with qtbot.waitSignal(dock.ended, timeout=60_000):
            dock.show_session(folder)
        take_picture(viewer, f"verdict-{verdict}-{size[1]}.png")
        take_picture(dock, f"verdict-{verdict}-dock-{size[1]}.png")
        assert box.verdict is verdict
        assert say(f"session.verdict-{verdict}") in box.word.text()
        # Without scrolling.
        whole = QRect(box.mapTo(dock, QPoint(0, 0)), box.size())
        assert dock.rect().contains(whole)
        assert not dock.fold.isChecked()
        if verdict is Verdict.RESULT:
            assert (panel.number.text(), panel.interval.text()) == ("78 %", "70 to 85 %")
            assert say("session.why-reviewed", cells=60) in panel.cells.text()
        else:
            assert panel.number.text() == panel.interval.text() == ""
            assert INKS["quiet"].on(panel.palette()).name() in panel.machine.styleSheet()
        if verdict is Verdict.PROVISIONAL:
            assert is_said("session.todo-check", box.title.text())
        assert bool(panel.banner.text()) is (verdict is Verdict.NO_RESULT)
        raw = open_session(folder).fraction.estimate
        assert raw is not None
        assert f"{100 * raw:.0f} %" in panel.machine.text()


@pytest.mark.skipif(no_screen(), reason="no screen (install xvfb)")
def test_a_press_opens_the_dock_in_which_cells_are_checked_and_then_there_is_a_result(
    qtbot: Any, make_napari_viewer: Any, press: Any, tmp_path: Path, pairs: list[Pair]
) -> None:
    folder = of_verdict(tmp_path / "S", "provisional", pairs)
    viewer = make_napari_viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Movie")
    with qtbot.waitSignal(dock.ended, timeout=60_000):
        dock.show_session(folder)
    panel = dock.panel
    press(panel.verdict.check)
    press(panel.verdict.check)  # a second time brings the same dock forward
    assert dock.message.sentences == ()
    review = panel._review
    assert Path(review.session.line_edit.value) == folder
    (folder / "review.json").write_text(json.dumps({"fraction_reviewed": vars(NARROW)}))
    review.reviewed.emit(folder)
    assert panel.number.text() == "78 %"
    assert panel.verdict.check.isHidden()
    assert dock.message.sentences == ()


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return some_pairs(90)
