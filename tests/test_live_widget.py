"""The instrument in napari, driven as a person does: buttons pressed, real runs, real sessions."""

from __future__ import annotations

import gc
import json
import os
import queue
import re
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from factories import no_screen, progress
from sentence_keys import refused
from stand_in.opening import Open

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import RunningFraction, StopRules
from napari_rbcflow.estimate.reported import method_words
from napari_rbcflow.estimate.stopping import Rates, to_go
from napari_rbcflow.pipeline.client import Phase, Worker
from napari_rbcflow.pipeline.messages import Camera, MovieFile, RunRequest
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.status import Progress
from napari_rbcflow.quality import RunWarning, SetFlow, Severity
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure, RunSummary, open_session, verify
from napari_rbcflow.session.label_edits import LabelChange, append_changes
from napari_rbcflow.session.schema import write_run
from napari_rbcflow.types import Label, Verdict

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

from qtpy.QtCore import QLocale, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QLabel, QTabBar
from questions import answer

from napari_rbcflow.widgets.cells_live import LiveCells
from napari_rbcflow.widgets.cells_query import CellQueryRow
from napari_rbcflow.widgets.label_styles import INKS
from napari_rbcflow.widgets.live import LiveLayout, LiveWidget
from napari_rbcflow.widgets.live_form import CHOICES, CameraForm
from napari_rbcflow.widgets.movie import MovieLayout
from napari_rbcflow.widgets.npe2_hooks import folder as sample_data
from napari_rbcflow.widgets.panel import RunButtons, in_form
from napari_rbcflow.widgets.remembered import Settings, load_settings, read_number
from napari_rbcflow.widgets.result import ResultPanel, left_words
from napari_rbcflow.widgets.result_parts import StatusLine
from napari_rbcflow.widgets.result_plots import MOST_POINTS, FractionCurve
from napari_rbcflow.widgets.run_form import DecimalBox, WholeBox
from napari_rbcflow.widgets.settings import SettingsWidget
from napari_rbcflow.widgets.window import docked


class Bench:
    """A viewer, as many live widgets as wished, and a person's hands."""

    def __init__(self, make_napari_viewer: Any, qtbot: Any, folder: Path, take_picture: Any) -> None:
        self.viewer = make_napari_viewer(show=True)
        self.viewer.window._qt_window.resize(1600, 1000)
        self.qtbot = qtbot
        self.folder = folder
        self.take_picture = take_picture

    def widget(self, *, from_menu: bool = False) -> tuple[LiveWidget, Any]:
        window = self.viewer.window
        if from_menu:
            dock, widget = window.add_plugin_dock_widget("napari-rbcflow", "Live")
        else:
            widget = LiveWidget(self.viewer)
            dock = window.add_dock_widget(widget, name=f"Live {len(window.dock_widgets)}", area="right")
        widget.form.folder.setText(str(self.folder / "sessions"))
        return widget, dock

    def press(self, button: Any) -> None:
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def wait(self, true: Any, seconds: float = 90) -> None:
        self.qtbot.waitUntil(lambda: bool(true()), timeout=round(1000 * seconds))

    def wait_for_cells(self, widget: LiveWidget, n: int = 1) -> None:
        def there() -> bool:
            assert widget.run is not None
            assert not widget.run.ended, (widget.run.outcome, widget.run.sentence)
            return widget.run.snapshot is not None and widget.run.snapshot.progress.cells["tracked"] >= n

        self.wait(there)

    def picture(self, name: str) -> None:
        self.take_picture(self.viewer, f"{name}.png")


@pytest.fixture
def bench(make_napari_viewer: Any, qtbot: Any, tmp_path: Path, take_picture: Any) -> Bench:
    return Bench(make_napari_viewer, qtbot, tmp_path, take_picture)


def sessions(bench: Bench) -> list[Path]:
    return sorted((bench.folder / "sessions").glob("*"))


def whole_and_stopped(folder: Path) -> bool:
    run = json.loads((folder / "run.json").read_text())
    return (run["status"], run["stop_reason"], verify(folder).code) == ("stopped", "user", 0)


STEPS = ("program", "source", "tracker", "networks")


@pytest.mark.slow
def test_a_run_is_started_watched_changed_by_hand_stopped_and_started_again(bench: Bench) -> None:
    widget, _ = bench.widget(from_menu=True)
    bench.viewer.window._qt_window.resize(1366, 768)
    layers = list(bench.viewer.layers)
    widget.form.patient.setText("P 7/b")
    bench.press(widget.start_button)
    assert widget.message.grave == (say("forms.camera-not-chosen"),)
    bench.picture("live_no_camera")
    widget.form.camera.setCurrentText(say("forms.simulated-chamber"))
    widget.form.sample.setText("before transfusion")
    widget.form.stop.by_halfwidth.setChecked(True)
    bench.press(widget.start_button)
    assert not widget.start_button.isEnabled()
    steps = [widget.status.text()]
    assert widget.status.bar.isVisible()
    assert widget.status.bar.share is None  # nobody knows how long it takes
    bench.picture("live_opening")
    bench.wait(lambda: steps.append(widget.status.text()) or widget.run.info is not None)
    allowed = ["forms.opening-camera", *(f"pipeline.step-{name}" for name in STEPS)]
    assert set(steps) - {""} <= {say(key) for key in allowed}
    assert len(set(steps) - {""}) > 1  # a person sees that something goes on
    # A picture for people shows a number that they could act on.
    least = 40 if "RBCFLOW_PICTURES" in os.environ else 4
    bench.wait(lambda: widget.panel.curve.n >= least)
    panel = widget.panel
    figure = RunningFraction()
    assert re.fullmatch(r"[\d.]+ % \(\d+ to \d+ %\)", panel.so_far.text())
    assert panel.number.text() == ""  # nothing to copy
    assert panel.banner.text() == say("viewer.banner-simulated")
    assert "P 7/" in panel.whose.text()
    assert not widget.form.isVisible()
    assert not widget.status.isVisible()
    assert bench.viewer.layers[0].data.std() > 1
    bench.picture("live_widget")
    all_of_it_is_seen(widget)
    the_picture_fits_until_a_person_zooms(bench, widget)

    cell = widget.cells.strip.cells[0]
    widget.cells.strip.chosen.emit(cell)
    assert widget.cells.viewer.isVisible()
    bench.picture("live_cell")
    widget.cells.viewer.who.setText("Anna")
    bench.press(widget.cells.viewer.label_buttons["struck-out"])
    bench.wait(lambda: "by hand" in panel.by_hand.text())
    if widget.controls.back.isVisible():
        bench.press(widget.controls.back)
        assert not widget.controls.back.isVisible()

    bench.press(widget.stop_button)
    with bench.qtbot.waitSignal(widget.ended, timeout=60_000):
        pass
    (folder,) = sessions(bench)
    assert folder.name.endswith("_P-7-b_before-transfusion")
    assert whole_and_stopped(folder)
    session = open_session(folder)
    figure.update(
        tank_treading=session.run["cells"]["tank_treading"], flipping=session.run["cells"]["flipping"]
    )
    assert panel.number.text() == ""
    assert f"{100 * figure.estimate:.0f}" in panel.machine.text()
    assert panel.verdict.verdict == session.run["verdict"]
    assert panel.banner.text() == say("viewer.banner-simulated")
    assert panel.curve.n == figure.n
    assert panel.end.text() == say("estimate.ended-user")
    assert f"{figure.n - 1} reliable" in panel.by_hand.text()
    assert "simulation" in panel.remarks.text()
    assert panel.open_folder.isVisible()
    # The form is folded, and would record the next run under the same name: the button says so.
    assert not widget.form.isVisible()
    assert widget.start_button.text().startswith("Start: P 7/b · bef")
    assert widget.start_button.toolTip() == "Start: P 7/b · before transfusion"
    bench.picture("live_ended")
    all_of_it_is_seen(widget)

    widget.fold.setChecked(True)
    widget.form.stop.by_halfwidth.setChecked(False)
    widget.form.stop.reliable.setValue(2)
    assert widget.controls.sentence.text()
    bench.press(widget.start_button)
    # Until the camera is open, and for good where it is not.
    assert not bench.viewer.layers[0].data.any()
    assert widget.controls.sentence.text() == ""
    assert panel.machine.text() == ""
    assert panel.by_hand.text() == ""
    with bench.qtbot.waitSignal(widget.ended, timeout=90_000):
        pass
    assert panel.end.text() == say("estimate.ended-reliable", cells=2)
    assert any("Only 2 cells" in sentence for sentence in panel.warnings.grave)
    assert [verify(path).code for path in sessions(bench)] == [0, 0]
    assert list(bench.viewer.layers) == layers


def all_of_it_is_seen(widget: LiveWidget) -> None:
    """What is read all the time is seen without scrolling, and the rest has some room below."""
    assert widget.head_area.verticalScrollBar().maximum() == 0
    assert not widget.head_area.visibleRegion().isEmpty()
    assert widget._scroll.height() > 150
    for button in (widget.start_button, widget.stop_button):
        assert button.visibleRegion().boundingRect().height() == button.height()


def the_picture_fits_until_a_person_zooms(bench: Bench, widget: LiveWidget) -> None:
    camera, window = bench.viewer.camera, bench.viewer.window._qt_window
    zoom = camera.zoom
    window.resize(1600, 1000)
    bench.wait(lambda: camera.zoom > 1.05 * zoom, 5)
    window.resize(1366, 768)
    bench.wait(lambda: camera.zoom == pytest.approx(zoom, rel=0.02), 5)
    camera.zoom = by_hand = 2 * zoom
    window.resize(1600, 1000)
    bench.qtbot.wait(300)
    assert camera.zoom == by_hand
    window.resize(1366, 768)
    bench.viewer.reset_view()


def test_the_command_lines_widget_is_the_menus(bench: Bench) -> None:
    widget = docked(bench.viewer)
    assert bench.widget(from_menu=True)[0] is widget
    window, dock = bench.viewer.window, bench.widget(from_menu=True)[1]
    assert len(window.dock_widgets) == 1
    assert len(bench.viewer.layers) == 2

    # On a laptop's screen: more docks are tabs, and the window grows beyond it in no direction.
    window._qt_window.resize(1366, 768)
    names = ["Movie", "Batch", "Trend", "Check cells", "Settings"]
    for others, name in enumerate(names, 1):
        newest, last = window.add_plugin_dock_widget("napari-rbcflow", name)
        bench.wait(lambda n=others: len(window._qt_window.tabifiedDockWidgets(dock)) == n, 5)
    bench.picture("six_docks_1366")
    assert window._qt_window.height() <= 768
    assert window._qt_window.width() <= 1366
    assert not newest.visibleRegion().isEmpty()  # the one opened last is in front
    tabs = [bar for bar in window._qt_window.findChildren(QTabBar) if bar.parent() is window._qt_window]
    assert {bar.tabText(k) for bar in tabs for k in range(bar.count())} == {"Live", *names}
    assert dock.toggleViewAction().text() == "Live (napari-rbcflow)"  # in the Window menu
    fields = last.camera, last.record_template.line_edit
    begin = {field.native.mapTo(newest, QPoint(0, 0)).x() for field in fields}
    assert len(begin) == 1  # the fields, whatever the length of their labels

    # Opened anew, the dock does not show the patient before.
    image, marks = bench.viewer.layers
    image.data = np.full((64, 64), 7, np.uint8)
    dock.title.close_button.click()  # nothing goes on, nothing is asked
    assert bench.widget(from_menu=True)[0] is not widget
    assert list(bench.viewer.layers) == [image, marks]
    assert not image.data.any()
    # What was closed is gone, with its last run, and with the viewer that it holds.
    gone = weakref.ref(widget)
    del widget, newest
    bench.wait(lambda: gc.collect() >= 0 and gone() is None, 10)


@pytest.mark.slow
def test_whatever_goes_wrong_is_a_sentence_in_the_widget(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    widget, _ = bench.widget()
    nothing_begins_and_nothing_is_left(bench, widget)
    a_camera_that_does_not_answer_is_left_by_stop(bench, widget, monkeypatch)
    a_source_that_breaks_in_mid_run_looks_failed(bench, widget)
    a_display_that_fails_stops_the_run_and_says_so_once(bench, widget, monkeypatch, caplog)


def nothing_begins_and_nothing_is_left(bench: Bench, widget: LiveWidget) -> None:
    in_the_way = bench.folder / "a file"
    in_the_way.write_text("")
    widget.form.folder.setText(str(in_the_way / "sessions"))
    bench.press(widget.start_button)
    folder = in_the_way / "sessions"
    refused = say("forms.sessions-folder-unusable", folder=folder, why="Not a directory")
    assert widget.message.grave == (refused,)
    assert widget.start_button.isEnabled()

    widget.form.folder.setText(str(bench.folder / "sessions"))
    widget.form.numbers["exposure_ms"].setText("much")
    bench.press(widget.start_button)
    assert widget.message.grave == (in_form(say("forms.not-a-number", setting="exposure_ms", value="much")),)
    assert "“Exposure, ms”" in widget.message.grave[0]

    # A camera that fails to start, asked for in the worker's process.
    widget.form.numbers["exposure_ms"].setText("")
    widget.form.camera.setCurrentText(say("forms.configured-camera"))
    broken = bench.folder / "scope.cfg"
    broken.write_text("Device,C,NoSuchAdapter,NoSuchDevice\n")
    widget.form.file.setText(str(broken))
    bench.press(widget.start_button)
    with bench.qtbot.waitSignal(widget.ended, timeout=90_000):
        pass
    assert widget.run is not None
    assert widget.run.phase is Phase.REFUSED
    assert widget.message.grave == (in_form(widget.run.sentence),)
    assert "Traceback" not in widget.run.sentence
    assert widget.form.isVisible()
    assert widget.start_button.isEnabled()
    assert sessions(bench) == []
    bench.picture("live_refused")


def a_camera_that_does_not_answer_is_left_by_stop(
    bench: Bench, widget: LiveWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_rbcflow.pipeline.client.OPENING_PATIENCE_S", 0.5)
    widget.form.camera.setCurrentText(say("forms.simulated-chamber"))
    psutil.Process(widget._parts.worker.pid).suspend()
    bench.press(widget.start_button)
    bench.qtbot.wait(100)
    bench.press(widget.stop_button)
    assert widget.status.text() == say("forms.giving-up")
    assert not widget.stop_button.isEnabled()
    with bench.qtbot.waitSignal(widget.ended, timeout=20_000):
        pass
    assert len(widget.message.grave) == 1
    assert "did not answer" in widget.message.grave[0]
    assert widget.status.text() == ""
    assert widget.form.isVisible()
    # What comes next here shows that it can.
    assert widget.start_button.isEnabled()
    assert sessions(bench) == []


def a_source_that_breaks_in_mid_run_looks_failed(bench: Bench, widget: LiveWidget) -> None:
    frames = tifffile.imread(sample_data() / "flow_chamber.tif")
    movie = bench.folder / "movie.zarr"
    array = zarr.create_array(movie, shape=frames.shape, chunks=(1, *frames.shape[1:]), dtype="u1")
    array[:] = frames
    (movie / "c" / "150" / "0" / "0").write_bytes(b"no frame")
    with bench.qtbot.waitSignal(widget.ended, timeout=90_000):
        widget.open_with(RunRequest(Camera(str(movie)), bench.folder / "S", RunSettings(patient="BG")))
    panel = widget.panel
    assert widget.run is not None
    assert widget.run.outcome[0] == "failed", widget.run.sentence
    assert panel.warnings.grave[0].startswith("The run failed: ")
    assert panel.warnings.isVisible()
    assert panel.verdict.verdict is Verdict.NO_RESULT
    assert not panel.number.text()
    assert widget.form.patient.text() == "BG"
    assert widget.start_button.isEnabled()
    bench.picture("live_failed")


def a_display_that_fails_stops_the_run_and_says_so_once(
    bench: Bench, widget: LiveWidget, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    widget.form.camera.setCurrentText(say("forms.simulated-chamber"))
    widget.form.folder.setText(str(bench.folder / "sessions"))
    caplog.clear()
    bench.press(widget.start_button)
    bench.wait_for_cells(widget)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("no such picture")

    monkeypatch.setattr(widget._parts.picture, "update", broken)
    with bench.qtbot.waitSignal(widget.ended, timeout=60_000):
        pass
    (folder,) = sessions(bench)
    assert whole_and_stopped(folder)
    assert "ZeroDivisionError: no such picture" in widget.message.grave[0]
    panel = widget.panel
    assert panel.warnings.grave[0] == say("forms.display-failed", why="ZeroDivisionError: no such picture")
    assert panel.end.text() == ""  # it was not stopped by a person
    assert panel.verdict.verdict is Verdict.NO_RESULT
    assert not panel.number.text()
    assert panel.open_folder.isVisible()
    assert len([r for r in caplog.records if r.name.endswith("widgets.dock")]) == 1


@pytest.mark.slow
def test_taken_away_in_mid_run_it_stops_the_run_and_closes_the_session(bench: Bench) -> None:
    # Two at once: each has a process of its own.
    made = [bench.widget() for _ in range(2)]
    threads = set(threading.enumerate())
    for number, (widget, _) in enumerate(made):
        widget.form.sample.setText(str(number))
        widget.form.numbers["fps"].setText("20")
        widget.form.numbers["cells_per_frame"].setText("30")
        bench.press(widget.start_button)
    for widget, _ in made:
        bench.wait_for_cells(widget)
    first, second = runs = [widget.run for widget, _ in made]
    processes = [widget._parts.worker.pid for widget, _ in made]
    # Hidden only, the run goes on.
    made[0][1].title.hide_button.click()
    bench.qtbot.wait(100)
    assert not first.ended
    made[0][1].show()  # as napari's Window menu does: the same run goes on, with its number and picture
    updates, picture = made[0][0]._parts.picture.updates, made[0][0]._parts.picture
    bench.wait(lambda picture=picture: picture.updates > updates, 30)
    assert made[0][0].run is first
    assert made[0][0].panel.so_far.text() or first.snapshot.progress.n == 0
    # Who presses the x, of the dock or of the window, is asked.
    asked = answer("forms.close-keep")
    made[0][1].title.close_button.click()
    assert asked == [say("forms.close-live")]
    window = bench.viewer.window._qt_window
    asked = answer("forms.close-keep")
    window.close()
    assert asked == [say("forms.close-live")]
    assert window.isVisible()
    assert not first.ended
    answer("forms.close-stop")
    made[0][1].title.close_button.click()
    assert first.ended
    assert not second.ended
    del made, widget, _, picture
    bench.viewer.close()
    assert second.ended
    assert [run.folder for run in runs] == sessions(bench)
    assert all(whole_and_stopped(run.folder) for run in runs)
    assert not any(psutil.pid_exists(process) for process in processes)
    assert not {t for t in threading.enumerate() if t.name.startswith("rbcflow")} & threads


@pytest.mark.slow
def test_the_end_of_python_ends_the_run(tmp_path: Path) -> None:
    script = f"""
        import sys, time, napari
        from qtpy.QtWidgets import QApplication
        from napari_rbcflow.widgets.live import LiveWidget
        viewer = napari.Viewer()
        widget = LiveWidget(viewer)
        viewer.window.add_dock_widget(widget)
        widget.form.folder.setText({str(tmp_path)!r})
        widget.form.numbers["fps"].setText("20")
        widget.start_button.click()
        until = time.monotonic() + 80
        while time.monotonic() < until:
            if (told := widget.run.snapshot) is not None and told.progress.processed:
                break
            QApplication.processEvents()
            time.sleep(0.01)
        sys.exit(3)
    """
    environment = {**os.environ, "RBCFLOW_CONFIG": str(tmp_path / "config"), "NAPARI_CONFIG": ""}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert ended.returncode == 3, ended.stderr
    (folder,) = (path.parent for path in tmp_path.glob("*/run.json"))
    assert whole_and_stopped(folder)


CONFIG = """
Device,Cam,DemoCamera,DCam
Property,Core,Initialize,1
Property,Core,Camera,Cam
Property,Cam,OnCameraCCDXSize,320
Property,Cam,OnCameraCCDYSize,200
Property,Cam,PixelType,8bit
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["running", "configured"])
def test_of_two_docks_on_one_camera_the_second_is_refused_and_the_first_goes_on(
    bench: Bench, make_napari_viewer: Any, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    options: dict[str, Any]
    if kind == "running":
        movie = tifffile.imread(sample_data() / "flow_chamber.tif")
        port, _ = request.getfixturevalue("micro_manager")(movie, fps=20, loop=True)
        spec, options = "running", {"port": port}
    else:
        pytest.importorskip("pymmcore", reason="pymmcore is not installed")
        adapters = pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed")
        spec, options = str(tmp_path / "scope.cfg"), {"mm_path": adapters.device_adapter_path()}
        Path(spec).write_text(CONFIG)
    first, _ = bench.widget()
    other = make_napari_viewer(show=True)
    second = LiveWidget(other)
    other.window.add_dock_widget(second, name="Live")
    run = first.open_with(RunRequest(Camera(spec, options), tmp_path / "first", RunSettings()))

    def come(n: int) -> None:
        bench.wait(lambda: run.ended or (run.snapshot and run.snapshot.progress.processed >= n))
        assert not run.ended, (run.outcome, run.sentence)

    come(5)
    bench.press(first.controls.frames)  # and what it took is there for other plugins
    assert bench.viewer.layers[say("viewer.layer-frames")].data.shape[0] > 1
    for name in ("second", "third"):
        second.form.fill(RunRequest(Camera(spec, options), tmp_path / name, RunSettings()))
        bench.press(second.start_button)
        assert second.message.grave == (in_form(say("sources.camera-in-use")),)
        assert not second.offer.isVisible()
        assert second.start_button.isEnabled()
    come(run.snapshot.progress.processed + 10)
    if kind == "running":  # how many the DemoCamera loses by itself depends on the computer
        assert not run.snapshot.progress.missed
    with bench.qtbot.waitSignal(first.ended, timeout=60_000):
        bench.press(first.stop_button)
    assert whole_and_stopped(run.folder)
    assert [path.parent.name for path in tmp_path.rglob("run.json")] == ["first"]

    # Nor does it start next to movies that are analysed.
    with Worker() as worker:
        worker.start(RunRequest(MovieFile(sample_data() / "flow_chamber.tif"), tmp_path / "m", RunSettings()))
        bench.press(second.start_button)
        assert second.message.grave == (in_form(say("forms.movies-going")),)

    # Now it may have the camera.
    run = second.open_with(RunRequest(Camera(spec, options), tmp_path / "fourth", RunSettings()))
    come(5)
    second.shut_down()
    assert whole_and_stopped(run.folder)


@pytest.mark.slow
def test_live_mode_there_is_ended_by_a_button_and_what_the_camera_took_is_seen(
    bench: Bench, micro_manager: Open
) -> None:
    movie = tifffile.imread(sample_data() / "flow_chamber.tif")
    port, _ = micro_manager(movie, live=True, fps=30, ends_after=len(movie), pixel_size_um=0.605)
    widget, _ = bench.widget()
    form, offer = widget.form, widget.offer
    form.camera.setCurrentText(say("forms.running-micro-manager"))
    assert not form.numbers["port"].isVisible()
    bench.qtbot.wait(100)  # for the row to be where it is pressed
    bench.press(form.fields.fold)
    asked = {"port": str(port), "pixel_type": "12bit", "fps": "60", "exposure_ms": "2.5"}
    for name, text in asked.items():
        assert form.numbers[name].isVisible()
        form.numbers[name].setText(text)
    details = f"12bit, {say('forms.detail-port', value=port)}"
    assert form.fields.fold.text().endswith(say("forms.camera-details-given", details=details))
    bench.picture("live_camera_details")
    bench.press(form.fields.fold)

    def refused() -> str:
        with bench.qtbot.waitSignal(widget.ended, timeout=90_000):
            bench.press(widget.start_button)
        assert sessions(bench) == []
        (sentence,) = widget.message.grave
        return sentence

    assert refused() == in_form(say("sources.live-mode-on"))
    assert offer.isVisible()
    assert offer.text() in widget.message.grave[0]
    bench.picture("live_mode_is_on")
    form.camera.setCurrentText(say("forms.simulated-chamber"))
    assert not offer.isVisible()
    order = RunRequest(
        Camera("running", {"port": port, "pixel_type": "12bit"}), bench.folder / "mine", RunSettings()
    )
    with bench.qtbot.waitSignal(widget.ended, timeout=90_000):
        widget.open_with(order)
    assert "Live mode is on" in widget.message.grave[0]
    with bench.qtbot.waitSignal(widget.ended, timeout=90_000):
        bench.press(offer)
    assert widget.run is not None
    assert widget.run.folder == order.folder
    # Live mode is ended now, and what is wrong with this one is another thing.
    assert "no pixel type '12bit'; it has 8bit-MONO, 16bit-MONO, 8bit-COLOR:" in widget.message.grave[0]
    assert "“Pixel type”" in widget.message.grave[0]
    assert not offer.isVisible()
    assert not widget.camera_line.isVisible()

    form.folder.setText(str(bench.folder / "sessions"))
    asked = {"port": str(port), "pixel_type": "16bit-mono", "fps": "60", "exposure_ms": "2.5"}
    for name, text in asked.items():
        form.numbers[name].setText(text)
    form.numbers["roi"].setText(f"0,0,{movie.shape[2]},80")
    bench.press(widget.start_button)
    bench.wait_for_cells(widget)
    line = widget.camera_line
    assert line.took.text() == (
        f"{movie.shape[2]} x 80 px · 30 frames/s · 2.5 ms · binning 2 · 16bit-MONO · 0.605 µm/px"
    )
    assert "from Micro-Manager's calibration" in line.toolTip()
    assert line.differs.text() == "▲ Not as asked: 30 frames/s, not 60."
    setting = say("sources.setting-fps")
    asked_for = say(
        "sources.not-as-asked", setting=setting, camera="Infinity", actual="30 frames/s", asked="60"
    )
    assert asked_for in line.toolTip()
    bench.picture("live_camera_took")
    bench.press(widget.stop_button)
    with bench.qtbot.waitSignal(widget.ended, timeout=60_000):
        pass
    (folder,) = sessions(bench)
    assert whole_and_stopped(folder)
    took = json.loads((folder / "run.json").read_text())["parameters"]["source_details"]
    assert (took["pixel_type"], took["not_as_asked"]) == ("16bit-MONO", "30 frames/s, not 60")
    # All but the port is kept for the next day.
    form.load(load_settings())
    assert form.numbers["pixel_type"].text() == "16bit-mono"
    assert form.numbers["roi"].text() == f"0,0,{movie.shape[2]},80"


def test_a_wheel_turns_only_the_field_that_has_the_focus(qtbot: Any) -> None:
    layout = LiveLayout()
    qtbot.addWidget(layout)
    layout.resize(430, 600)
    with qtbot.waitActive(layout):
        layout.show()
        layout.activateWindow()

    def turn(field: Any) -> None:
        middle = QPointF(field.rect().center())
        none, down = QPoint(), QPoint(0, -120)
        event = QWheelEvent(
            middle,
            QPointF(field.mapToGlobal(middle.toPoint())),
            none,
            down,
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(field, event)

    fields = (layout.form.flow, layout.form.camera, layout.form.stop.reliable, layout.controls.modes)
    of = [field.value if hasattr(field, "value") else field.currentIndex for field in fields]
    before = [value() for value in of]
    for field in fields:
        turn(field)
        assert field.focusPolicy() != Qt.FocusPolicy.WheelFocus
    assert [value() for value in of] == before
    layout.form.stop.reliable.setFocus()
    turn(layout.form.stop.reliable)
    assert layout.form.stop.reliable.value() == before[2] - 1


@pytest.mark.parametrize("language", ["C", "en_US", "de_DE"])
def test_a_decimal_comma_is_a_point_or_refused_in_every_language(qtbot: Any, language: str) -> None:
    before = QLocale()
    QLocale.setDefault(QLocale(language))
    try:
        layout = LiveLayout()
        others = (MovieLayout(list), SettingsWidget(), CellQueryRow(QLabel()))
        for widget in (layout, *others):
            qtbot.addWidget(widget)
            # Qt's own fields, and magicgui's, which are made of those, take a comma or a point away.
            boxes = widget.findChildren(QAbstractSpinBox)
            assert all(isinstance(box, (WholeBox, DecimalBox)) for box in boxes)
        stop = layout.form.stop
        for tick in (stop.by_reliable, stop.by_halfwidth):
            tick.setChecked(True)
        layout.show()

        def typed(box: Any, text: str) -> float:
            box.lineEdit().selectAll()
            qtbot.keyClicks(box.lineEdit(), text)
            said = box.value()
            box.interpretText()
            assert box.value() == said
            return float(said)

        for text in ("0,5", "0.5"):
            assert typed(stop.halfwidth, text) == 0.5
            assert stop.halfwidth.text() == "0.50"
            assert stop.rules().halfwidth == 0.005
            stop.reliable.setValue(200)
            assert typed(stop.reliable, text) == 200
            assert stop.reliable.text() == "200"
            assert typed(stop.reliable, f"1{text}") == 10  # never 105
            assert read_number("fps", text) == 0.5
            assert [read_number("binning", said, whole=True) for said in ("2", "2x2", "")] == [2, 2, None]
            with refused(BadInput, "forms.not-a-whole-number"):
                read_number("least_frames", text, whole=True)
        with refused(BadInput, "forms.not-between"):
            read_number("least_frames", "5", whole=True, within=(6, 100))
        stop.reliable.setValue(1000)
        assert stop.reliable.text() == "1000"
    finally:
        QLocale.setDefault(before)


@pytest.mark.parametrize("clicked", [False, True], ids=["strip", "cell"])
def test_a_warning_moves_nothing_that_is_read_or_about_to_be_clicked(qtbot: Any, clicked: bool) -> None:
    layout = LiveLayout()
    qtbot.addWidget(layout)
    layout.resize(430, 640)
    layout.show()
    layout.fold.setChecked(False)
    fraction = RunningFraction()
    fraction.update(tank_treading=30, flipping=10)
    panel, cells = layout.panel, layout.cells
    panel.show_progress(progress_of(fraction), b"\1" * 30 + b"\0" * 10, [])
    qtbot.wait(100)
    bar = layout._scroll.verticalScrollBar()
    controls = layout.controls

    def places(*also: Any) -> list[int]:
        return [part.mapTo(layout, QPoint(0, 0)).y() for part in (panel.verdict, panel.left, *also)]

    at_top = places(controls)
    if clicked:  # and scrolled on, to look at it
        cells.viewer.show()
        qtbot.wait(50)
    bar.setValue(cells.mapTo(layout._scroll.widget(), QPoint(0, 0)).y() + 300 * clicked)
    assert bar.value() > 0
    before, scrolled = places(cells), bar.value()
    panel.warnings.say(grave=["The cells flow too slowly, so the number is wrong: check the pump."])
    panel.notes.say(mild=["An old lamp."])
    qtbot.waitUntil(lambda: bar.value() > scrolled + 40, timeout=2_000)
    assert places(cells) == before
    held = bar.value()
    bar.setValue(0)
    assert places(controls) == at_top
    bar.setValue(held)
    panel.warnings.clear()
    panel.notes.clear()
    qtbot.waitUntil(lambda: bar.value() == scrolled, timeout=2_000)
    assert places(cells) == before


def test_start_says_whose_run_it_will_be(qtbot: Any) -> None:
    buttons = RunButtons(say("forms.start"), say("forms.stop"))
    qtbot.addWidget(buttons)
    buttons.resize(430, 50)
    buttons.show()
    assert buttons.start.text() == "Start"
    buttons.start.show_patient(" A&B ", "")
    assert buttons.start.text() == "Start: A&&B"
    buttons.start.show_patient("a very long name of a patient, second visit", "9")
    assert buttons.start.text().startswith("Start: a v")
    assert buttons.start.text().endswith(" · 9")
    assert "…" in buttons.start.text()
    room = buttons.start.fontMetrics().horizontalAdvance(buttons.start.text())
    assert room < buttons.start.width() < 430
    assert buttons.width() == 430
    buttons.resize(2000, 50)
    assert "…" not in buttons.start.text()
    buttons.start.show_patient("", " ")
    assert buttons.start.text() == "Start"


def progress_of(fraction: RunningFraction, **more: Any) -> Progress:
    cells = Counter(
        tracked=900, unreliable=700, tank_treading=fraction.tank_treading, flipping=fraction.flipping
    )
    given: dict[str, Any] = {"processed": 3550, "seconds": 59.0, "open_tracks": 120, "cells": cells}
    given |= {"n": fraction.n, "estimate": fraction.estimate, "interval": fraction.anytime_interval()}
    given |= {"missing": "12 cells", "frames_per_s": 60.0, "stop_share": 0.6, "seconds_left": 34.0}
    return progress(**given | more)


def test_a_run_that_goes_on_shows_no_number_without_its_interval_and_none_to_act_on(qtbot: Any) -> None:
    panel, fraction = ResultPanel(), RunningFraction()
    qtbot.addWidget(panel)
    panel.show()
    panel.show_progress(progress_of(fraction), b"", [])
    assert panel.verdict.title.text() == say("viewer.no-cell-yet")
    assert panel.so_far.text() == ""

    fraction.update(tank_treading=299, flipping=1)
    panel.show_progress(progress_of(fraction), b"\1" * 299 + b"\0", [])
    qtbot.waitUntil(lambda: panel.curve.n == 300, timeout=2_000)
    low, high = fraction.anytime_interval()
    number, *said = panel.so_far.text().removesuffix(" %)").replace(" (", " to ").split(" to ")
    assert number == "99.7 %"
    assert int(said[0]) <= 100 * low
    assert int(said[1]) >= 100 * high
    assert "300 reliable" in panel.cells.text()
    assert method_words("anytime") in panel.cells.text()
    assert panel.warnings.sentences == ()
    assert panel.verdict.title.text() == say("viewer.so-far")
    assert panel.verdict.verdict is Verdict.PROVISIONAL
    assert panel.number.text() == panel.interval.text() == ""
    assert INKS["quiet"].on(panel.palette()).name() in panel.so_far.styleSheet()

    lost = RunWarning("frames-lost", Severity.WARNING, "90 frames were lost: measure again.")
    panel.show_progress(progress_of(fraction, dropped=90, warned=(lost,)), b"", ["mind the lamp"])
    qtbot.waitUntil(lambda: bool(panel.warnings.grave), timeout=2_000)
    assert panel.warnings.grave == (lost.sentence,)
    assert panel.notes.sentences == ("mind the lamp",)
    assert panel.verdict.verdict is Verdict.NO_RESULT
    assert "90 dropped" in panel.counts.dropped.text()
    panel.show_progress(progress_of(fraction, warned=(), verdict=Verdict.PROVISIONAL), b"", [])
    panel.draw_now()
    assert panel.verdict.verdict is Verdict.PROVISIONAL
    panel.show_by_hand(FractionFigure(0.9, 0.6, 0.98, 0.95, "anytime", 29))
    assert "Only 29 cells: too few to act on" in panel.by_hand.text()
    assert INKS["quiet"].on(panel.palette()).name() in panel.by_hand.styleSheet()  # it moves no result

    panel.show_fault("The lamp went out: change it.")
    assert panel.warnings.grave[0] == "The lamp went out: change it."
    assert panel.verdict.verdict is Verdict.NO_RESULT
    assert panel.so_far.text() == ""


def test_the_end_says_what_happened_whatever_the_folder_says(qtbot: Any, tmp_path: Path) -> None:
    panel = ResultPanel()
    qtbot.addWidget(panel)
    why = FractionFigure(0.82, 0.7, 0.93, 0.95, "corrected", 50)
    keep(tmp_path, dropped={"after-stop": 5}, fraction_corrected=why)
    panel.show_end("stopped", "reliable", tmp_path)
    assert panel.corrected.text() == (
        "Corrected for the networks&#x27; known errors: 82.0 % (95 % interval 70.0 to 93.0 %)"
    )
    assert panel.counts.dropped.text() == "0 dropped"
    assert method_words("wilson") in panel.machine.text()
    assert "80 % (" in panel.machine.text()

    panel.show_end("failed", "the disk is full", tmp_path)
    failure = say("quality.warn-failed", reason="the disk is full")
    assert panel.warnings.grave == (failure,)
    assert panel.verdict.verdict is Verdict.NO_RESULT
    assert panel.verdict.title.text() == say("session.todo-again")
    assert panel.verdict.why.text() == ""  # it stands among the warnings
    assert panel.number.text() == ""

    (tmp_path / "run.json").write_text("{")
    panel.clear()
    panel.show_end("failed", "the disk is full", tmp_path)
    failure, damage = panel.warnings.grave
    assert failure == "The run failed: the disk is full"
    assert "damaged" in damage


def test_a_panel_that_is_closed_while_it_asks_for_the_control_ends_in_its_own_thread(
    qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr("napari_rbcflow.widgets.result.keep_control", lambda folder: answers.get())
    panel = ResultPanel()
    keep(tmp_path)
    panel.show_end("stopped", "reliable", tmp_path)  # its answer comes when another is waited for
    panel.show_end("stopped", "reliable", tmp_path)
    answers.put("The control is in order.")
    answers.put("The control is in order.")
    words = panel.control
    qtbot.waitUntil(lambda: "in order" in words.text(), timeout=5_000)

    panel.show_end("stopped", "reliable", tmp_path)
    gone = weakref.ref(panel)
    del panel
    gc.collect()
    assert gone() is None  # the thread, which still waits, holds nothing of it
    answers.put("")


def keep(folder: Path, **more: Any) -> None:
    """Leave what a run that goes on has on the disk: 50 cells counted."""
    fraction = RunningFraction()
    fraction.update(tank_treading=40, flipping=10)
    cells = {"tracked": 50, "tank_treading": 40, "flipping": 10}
    counts = {"received": 3600, "processed": 3595, "dropped": {}, "missed": {}, **more}
    account = RunSummary.of(cells=cells, fraction=fraction, **counts)
    known = {"parameters": {}, "models": {"stage1": {}, "stage2": {}}, **account.as_dict()}
    write_run(folder, {"format": 1, "status": "running", "stop_reason": "", **known})


def test_a_number_by_hand_that_cannot_go_on_is_taken_away(qtbot: Any, tmp_path: Path) -> None:
    keep(tmp_path)
    shown: list[FractionFigure | None] = []
    said: list[str] = []
    cells = LiveCells(lambda slot: slot, shown.append, said.append)
    qtbot.addWidget(cells)
    fraction = RunningFraction()
    fraction.update(tank_treading=40, flipping=10)
    cells.begin(tmp_path)
    cells.keep_up(progress_of(fraction))
    change = LabelChange("2026-01-01T00:00:00.000+00:00", "nurse", 1, Label.FLIPPING, Label.TANK_TREADING)
    append_changes(tmp_path, [change])
    cells.viewer.changed.emit([change])
    assert shown[-1] is not None
    (tmp_path / "changes.csv").write_text("no table")
    qtbot.waitUntil(lambda: cells.keep_up(progress_of(fraction)) or bool(said), timeout=4_000)
    assert len(said) == 1
    assert shown[-1] is None


def test_a_status_says_what_goes_on_and_pretends_no_share(qtbot: Any, take_picture: Any) -> None:
    status = StatusLine()
    qtbot.addWidget(status)
    assert status.isHidden()
    status.say("Loading ...")
    status.show()
    bar, seen = status.bar, set()
    qtbot.waitUntil(lambda: seen.add(bytes(bar.grab().toImage().bits())) or len(seen) > 2, timeout=5_000)
    take_picture(status, "status_busy.png")
    status.say("Reading: 1 of 4", share=0.25)
    assert bar.share == 0.25
    assert not bar._wander.isActive()
    take_picture(status, "status_share.png")
    status.say("Saved.", going=False)
    assert (status.text(), bar.isVisible()) == ("Saved.", False)
    status.say("")
    assert status.isHidden()
    assert not bar._wander.isActive()


def test_how_far_it_is_to_each_rule_is_said() -> None:
    fraction = RunningFraction()
    fraction.update(tank_treading=9, flipping=3)

    def said(rules: StopRules, **more: Any) -> str:
        entries = to_go(rules, fraction, tracks=900, seconds=20.0, rates=Rates(1.0, 50.0, 1.0))
        return left_words(progress_of(fraction, rules=entries, **more))

    frame = say("viewer.frame-of", frame=3550, frames=5000)
    left = say("viewer.time-left", time="34 s")
    assert said(StopRules(), total_frames=5000) == f"{frame}\n{left}"
    assert said(StopRules()) == say("viewer.goes-on")
    assert said(StopRules(reliable=100), total_frames=5000).splitlines()[:2] == [
        frame,
        "Reliable cells: 88 cells to go",
    ]
    lines = said(StopRules(10, 0.05, 30.0, 5_000, 0.05)).splitlines()
    assert lines[0] == say("viewer.rule-reached", rule=say("viewer.rule-reliable"))
    assert lines[1].startswith("Precision: the interval from ±")
    assert lines[1].endswith(" down to ±5.0 %")
    assert lines[2:] == [
        "Tracks: 4,100 tracks to go",
        say("viewer.rule-reached", rule=say("viewer.rule-baseline")),
        left,
    ]
    assert said(StopRules(seconds=30.0)) == left  # one time only
    assert said(StopRules(seconds=30.0), seconds_left=None) == "Time: 10 s to go"


def test_the_curve_is_the_interval_that_holds_at_every_look_and_stays_small(qtbot: Any) -> None:
    curve, fraction = FractionCurve(), RunningFraction()
    qtbot.addWidget(curve)
    rng = np.random.default_rng(1)
    counted = (rng.random(20_000) < 0.7).astype(np.uint8)
    for part in np.array_split(counted, 300):
        curve.add(part.tobytes())
    points = curve.points
    assert 50 < len(points) <= MOST_POINTS
    assert points[-1, 0] == curve.n == 20_000
    looks = []
    for tank in counted.tolist():
        fraction.update(tank_treading=tank, flipping=1 - tank)
        looks.append((fraction.estimate, *fraction.anytime_interval()))
    for n, *drawn in points:
        assert drawn == pytest.approx([100 * x for x in looks[int(n) - 1]])
    assert curve.caption.text() == say("viewer.curve-band")
    curve.show_final(0.69, 0.71)
    assert curve.caption.text() == say("viewer.curve-band-and-bar")
    curve.clear()
    assert len(curve.points) == 0
    assert curve.caption.text() == ""


def test_a_simulated_camera_is_neither_chosen_for_a_patient_nor_remembered(
    qtbot: Any, tmp_path: Path
) -> None:
    form = CameraForm()
    qtbot.addWidget(form)
    form.folder.setText(str(tmp_path))
    movie = tmp_path / "m.avi"
    for name in ("forms.simulated-chamber", "forms.demo-camera", "forms.movie-as-camera"):
        form.patient.clear()
        form.camera.setCurrentText(say(name))
        form.file.setText(str(movie))
        form.numbers["fps"].setText("30")
        assert form.to_remember() == {"sessions_folder": tmp_path}
        form.order()  # of no patient
        form.patient.setText("AB")
        with refused(BadInput, "forms.camera-not-chosen"):
            form.order()
        form.camera.setCurrentText(say(name))  # a person may choose it all the same
        order = form.order()
        assert order.settings.patient == "AB"
        form.fill(order)  # as from the command line
        assert form.order().source == order.source
        form.patient.setText("CD")
        with refused(BadInput, "forms.camera-not-chosen"):
            form.order()
    # A microscope's camera stays, and is remembered.
    form.camera.setCurrentText(say("forms.running-micro-manager"))
    form.patient.setText("EF")
    assert form.to_remember()["camera"] == "running"
    assert form.order().source == Camera("running", {"fps": 30.0})
    form.load(Settings(camera=str(movie)))  # which an earlier version remembered
    form.patient.clear()
    assert form.choice is not CHOICES[-1]


def test_the_form_gives_back_the_order_that_it_was_filled_from(qtbot: Any, tmp_path: Path) -> None:
    form = CameraForm()
    qtbot.addWidget(form)
    form.show()
    for choice in CHOICES:
        form.camera.setCurrentText(choice.name)
        for folded in (False, True):
            form.fields.fold.setChecked(not folded)
            for name, spec in (("seed", "simulated"), ("port", "running")):
                assert form.numbers[name].isVisible() == (choice.spec == spec and not folded)
            assert form.numbers["binning"].isVisible() == ("binning" in choice.options and not folded)
        assert form.fields.fold.isVisible() == ("seed" in choice.options or "binning" in choice.options)
        assert form.mm_path.isVisible() == ("mm_path" in choice.options)
        assert form.file.isVisible() == bool(choice.files)
    options = {"fps": 30.0, "exposure_ms": 2.2, "binning": 2, "mm_path": tmp_path}
    options |= {"roi": (8, 0, 640, 480), "pixel_type": "8bit-MONO"}
    settings = RunSettings(
        "P",
        "S",
        device="cpu",
        flow="right-to-left",
        stop=StopRules(None, 0.07, 12.5, 900, 0.86),
        ring_seconds=2.0,
        set_flow=SetFlow(20.0, 45.5, 800.0),
    )
    order = RunRequest(Camera(str(tmp_path / "scope.cfg"), options), tmp_path / "sessions" / "one", settings)
    form.fill(order)
    again = form.order()
    assert isinstance(again.source, Camera)
    assert (again.source.spec, dict(again.source.options)) == (str(tmp_path / "scope.cfg"), options)
    assert again.settings == settings
    # How the flow was set is the remedy that its warning names: empty is the paper's.
    form.set_flow["shear_rate_per_s"].setText(" ")
    form.set_flow["focus_height_um"].setText("50,5")
    assert form.run_settings().set_flow == SetFlow(10.0, 50.5, 800.0)
    for text in ("fast", "0"):
        form.set_flow["shear_rate_per_s"].setText(text)
        with pytest.raises(BadInput) as error:
            form.order()
        assert "“Shear rate, 1/s”" in in_form(str(error.value))
    assert in_form("`shear_rate_per_s` or `nobody`") == "“Shear rate, 1/s” or nobody"
    form.set_flow["shear_rate_per_s"].setText("")
    assert again.folder.parent == tmp_path / "sessions"

    for name, text, said in (
        ("binning", "two", "`binning` must be a whole number, not 'two'"),
        ("binning", "0", "binning of 0 is not possible"),
        ("roi", "1,2,3", "four whole numbers X,Y,WIDTH,HEIGHT, not '1,2,3'"),
    ):
        before = form.numbers[name].text()
        form.numbers[name].setText(text)
        with pytest.raises(BadInput, match=said):
            form.order()
        form.numbers[name].setText(before)

    # What only that camera had is not asked of another one.
    form.camera.setCurrentText(say("forms.simulated-chamber"))
    form.numbers["tank_fraction"].setText("62,5")
    source = form.order().source
    assert isinstance(source, Camera)
    assert dict(source.options) == {"fps": 30.0, "exposure_ms": 2.2, "tank_fraction": 0.625}
    form.camera.setCurrentText(say("forms.movie-as-camera"))
    with refused(BadInput, "forms.wrong-file"):
        form.order()
