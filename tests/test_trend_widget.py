"""A patient over time in a real napari window: a folder dropped, points clicked, files saved."""

from __future__ import annotations

import gc
import weakref
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from factories import FIRST, no_screen, session, weekly
from sentence_keys import is_said

from napari_rbcflow.sentences import say
from napari_rbcflow.session import read_run
from napari_rbcflow.session.change_log import ChangeLog
from napari_rbcflow.session.schema import write_run

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

import pyqtgraph as pg
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDesktopServices, QDropEvent
from qtpy.QtWidgets import QFileDialog

from napari_rbcflow.widgets.dock import frame_of
from napari_rbcflow.widgets.trend_plot import TrendPlot


def position_of(plot: TrendPlot, place: int) -> Any:
    """Where a run stands, as a QPoint of the plot's viewport."""
    point = plot._plot.vb.mapViewToScene(pg.Point(*plot._at(place)))
    return plot._view.mapFromScene(point)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten weeks of BG with a crisis, one run that failed, one of another patient; do not touch."""
    folder = tmp_path_factory.mktemp("sessions")
    weekly(folder, [0.83, 0.80, 0.81, 0.85, 0.79, 0.82, 0.68, 0.60, 0.78, 0.82], n=100)
    session(folder / "broke", 30, 12, week=3.5, status="failed")
    session(folder / "other", 40, 2, week=2, patient="Zoë")
    log = ChangeLog(folder / "week-03")
    for cell in (86, 87, 88, 89):
        log.add(cell, "tank-treading", "Anna")
    return folder


@pytest.fixture
def docked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_napari_viewer: Any) -> tuple[Any, Any]:
    """A viewer and the widget in its dock, as the menu opens it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1400, 1050)
    _, widget = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Trend")
    return viewer, widget


def drop(widget: Any, *paths: Path) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    widget.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, mime, left, none))


def show(qtbot: Any, widget: Any, *paths: Path) -> None:
    with qtbot.waitSignal(widget.shown, timeout=20_000):
        drop(widget, *paths)


def write(qtbot: Any, field: Any, words: str) -> None:
    field.native.selectAll()
    qtbot.keyClick(field.native, Qt.Key.Key_Delete)
    qtbot.keyClicks(field.native, words)
    qtbot.keyClick(field.native, Qt.Key.Key_Return)


def test_a_folder_is_dropped_a_point_clicked_and_all_of_it_saved(
    docked: tuple[Any, Any],
    sessions: Path,
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    take_picture: Any,
) -> None:
    viewer, widget = docked
    assert widget.result.isHidden()
    show(qtbot, widget, sessions)
    assert widget.message.sentences == ()
    # The patient that was measured last is shown; the other can be chosen.
    assert (widget.patient.value, set(widget.patient.choices)) == ("BG", {"BG", "Zoë"})
    assert is_said("trend.last-run", widget.verdict.text())
    assert is_said("trend.is-not-below", widget.verdict.text())
    assert "20 Apr 2026" in widget.summary.text()
    assert say("trend.others-left-out", sessions=1) in widget.notes.text()
    trend = widget.trend
    assert [run.below.value for run in trend.runs] == ["no"] * 4 + [""] + ["no"] * 2 + ["yes"] * 2 + [
        "no"
    ] * 2
    assert widget.table.rowCount() == 11
    assert widget.table.item(0, 0).text().startswith("2026-05-04")
    assert f"✕ {say('viewer.trend-not-used')}" in [widget.table.item(row, 4).text() for row in range(11)]
    assert "✎" in widget.table.item(7, 1).text()

    # As narrow as beside napari's own docks on a laptop, it is seen which runs are below.
    dock, window = frame_of(widget)
    window.resizeDocks([dock], [430], Qt.Orientation.Horizontal)
    qtbot.waitUntil(lambda: widget.width() <= 430, timeout=5_000)
    table = widget.table
    item = next(table.item(row, 4) for row in range(11) if "▼" in table.item(row, 4).text())
    words = table.fontMetrics().horizontalAdvance(item.text())
    assert table.visualItemRect(item).left() + words < table.viewport().width()

    # A click on a point chooses its row; a second one opens its report.
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()) or True)
    assert not widget.report_button.isEnabled()
    qtbot.mouseMove(widget.plot.viewport, QPoint(3, 3))
    qtbot.mouseClick(widget.plot.viewport, Qt.MouseButton.LeftButton, pos=position_of(widget.plot, 7))
    assert widget.chosen == 7
    assert {index.row() for index in widget.table.selectedIndexes()} == {3}
    assert widget.report_button.text() == say("viewer.trend-report-of", day="2026-04-13")
    qtbot.mouseClick(widget.report_button, Qt.MouseButton.LeftButton)
    assert opened == [str(trend.runs[7].record.folder / "report.html")]
    take_picture(viewer, "trend_widget.png")

    # That day is named a crisis: it is shaded, judged all the same, and still makes no baseline.
    before = trend.baseline
    qtbot.mouseClick(widget.crisis_button, Qt.MouseButton.LeftButton)
    assert widget.crises.value == "2026-04-13"
    assert widget.trend.runs[7].use.name == "CRISIS"
    assert widget.trend.baseline == before

    for ending, begin in (("csv", b"\xef\xbb\xbfsession,"), ("png", b"\x89PNG")):
        name = str(tmp_path / f"saved-{ending}")
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, name=name: (name, ""))
        button = widget.table_button if ending == "csv" else widget.picture_button
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        assert (tmp_path / f"saved-{ending}.{ending}").read_bytes().startswith(begin), (
            widget.message.sentences
        )


def test_what_is_wrong_is_said_and_nothing_old_stands_there(
    docked: tuple[Any, Any], sessions: Path, qtbot: Any, tmp_path: Path
) -> None:
    _, widget = docked
    show(qtbot, widget, sessions / "week-00", sessions / "week-01")
    assert widget.table.rowCount() == 2
    assert is_said("trend.baseline-missing", widget.summary.text())
    assert say("trend.is-unknown") in widget.verdict.text()
    with qtbot.waitSignal(widget.shown, timeout=20_000):  # several folders, as the field tells them
        widget.show_pressed()
    assert widget.table.rowCount() == 2

    write(qtbot, widget.crises, "yesterday")
    assert is_said("trend.not-a-date", widget.message.grave[0])
    assert widget.result.isHidden()
    write(qtbot, widget.crises, "")
    assert widget.message.sentences == ()
    assert not widget.result.isHidden()

    (tmp_path / "empty").mkdir()
    show(qtbot, widget, tmp_path / "empty")
    assert is_said("trend.holds-no-session", widget.message.grave[0])
    assert widget.result.isHidden()
    assert widget.patient.choices == ()

    show(qtbot, widget, sessions / "other")
    assert widget.trend.patient == "Zoë"


# ---------------------------------------------------------------------- the control


def test_the_control_has_a_tab_and_each_run_of_a_patient_says_how_it_was(
    tmp_path: Path, docked: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, take_picture: Any
) -> None:
    folder = tmp_path / "both"
    kept = read_run(session(tmp_path / "one", 80, 20))  # a trend reads nothing else

    def write(name: str, day: float, tank: int, **record: str) -> None:
        (folder / name).mkdir(parents=True)
        fraction = kept["fraction"] | {
            "estimate": tank / 100,
            "low": tank / 100 - 0.08,
            "high": tank / 100 + 0.08,
        }
        started = (FIRST + timedelta(days=day)).isoformat()
        given = {"record": {"instrument_serial": "A1", **record}, "started": started, "fraction": fraction}
        write_run(folder / name, kept | given)

    for week, tank in enumerate((83, 80, 81, 85, 79)):
        write(f"week-0{week}", 7 * week, tank)
    for day in range(29):
        write(f"c{day}", day - 0.1, (80, 82, 79, 81, 78)[day % 5] if day < 27 else 60, control_lot="C7")
    viewer, widget = docked
    assert widget.tabs.isHidden()
    with qtbot.waitSignal(widget.shown, timeout=20_000):
        drop(widget, folder)
    assert not widget.tabs.isHidden()
    assert len(widget.trend.runs) == 5
    column = [widget.table.item(row, 7).text() for row in range(5)]
    assert column == [say("trend.control-state-rejected"), *[say("trend.control-state-in-order")] * 4]
    assert is_said("trend.control-day-rejected", widget.summary.text())
    widget.tabs.setCurrentIndex(1)
    assert is_said("trend.control-last-rejected", unescape(widget.control.verdict.text()))
    assert widget.of_patient.isHidden()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "c"), ""))
    for button in (widget.table_button, widget.picture_button):
        button.click()
    assert "C7" in (tmp_path / "c.csv").read_text("utf-8-sig")
    assert (tmp_path / "c.png").stat().st_size > 10_000
    take_picture(viewer, "trend-control.png")
    # Only controls: their tab, and no complaint. No controls: no tab.
    with qtbot.waitSignal(widget.shown, timeout=20_000):
        drop(widget, folder / "c0", folder / "c1")
    assert (widget.tabs.currentIndex(), widget.message.isHidden()) == (1, True)
    assert is_said("trend.control-last-no-target", widget.control.verdict.text())
    with qtbot.waitSignal(widget.shown, timeout=20_000):
        drop(widget, folder / "week-00")
    assert widget.tabs.isHidden()
    assert widget.table.isColumnHidden(7)
    assert not widget.of_patient.isHidden()


def test_what_a_closed_dock_leaves_is_freed_in_its_own_thread(make_napari_viewer: Any, qtbot: Any) -> None:
    _, widget = make_napari_viewer(show=True).window.add_plugin_dock_widget("napari-rbcflow", "Trend")
    qtbot.waitUntil(widget.isVisible, timeout=5_000)
    frame, _ = frame_of(widget)
    gone = weakref.ref(widget.plot)
    del widget
    gc.disable()  # as if no thread came upon it
    try:
        frame.title.close_button.click()
        qtbot.waitUntil(lambda: gone() is None, timeout=5_000)
    finally:
        gc.enable()
