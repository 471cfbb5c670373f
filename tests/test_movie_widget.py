"""A recorded movie analysed in a real napari window, by pressing the buttons."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from factories import a_movie, no_screen
from napari.layers import Image
from qtpy.QtCore import QPoint, Qt
from questions import answer
from sentence_keys import refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline.client import Phase, Worker
from napari_rbcflow.pipeline.messages import Camera, MovieFile, RunRequest
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session, verify
from napari_rbcflow.sources.lazy import open_frames
from napari_rbcflow.widgets.dock import frame_of
from napari_rbcflow.widgets.live_form import CameraForm
from napari_rbcflow.widgets.movie_form import FILE, LAYER, LayerFrames, MovieForm, file_of, frames_of_layer
from napari_rbcflow.widgets.panel import FIELD_LABELS, in_form

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

pytestmark = pytest.mark.slow
LONG_MS = 60_000


@pytest.fixture
def movie(chamber_movie: Path) -> Path:
    return chamber_movie


@pytest.fixture(scope="module")
def long_movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of work in a small file, without a cell: to be stopped in mid run."""
    path = tmp_path_factory.mktemp("long") / "long.tif"
    frame = np.full((1096, 1376), 128, np.uint8)
    frame[::7] = 131
    packed = zlib.compress(frame.tobytes(), 9)
    tifffile.imwrite(
        path,
        itertools.repeat(packed, 12_000),
        shape=(12_000, *frame.shape),
        dtype=np.uint8,
        compression="zlib",
        rowsperstrip=len(frame),
        metadata=None,
    )
    return path


@pytest.fixture
def widget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_napari_viewer: Any
) -> Iterator[tuple[Any, Any]]:
    """A viewer and the movie widget in its dock, as the menu opens it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1580, 980)
    _, widget = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Movie")
    widget.form.folder.value = tmp_path / "sessions"
    yield viewer, widget
    widget.shut_down()


def run_to_the_end(qtbot: Any, press: Any, widget: Any) -> None:
    with qtbot.waitSignal(widget.ended, timeout=LONG_MS):
        press(widget.run_button)
        assert widget.job.busy, widget.message.sentences


class OneByOne:
    """An array that can only be read a frame at a time, as a lazily loaded movie should be."""

    def __init__(self, frames: np.ndarray[Any, Any]) -> None:
        self._frames = frames
        self.shape, self.dtype, self.ndim = frames.shape, frames.dtype, frames.ndim
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        first = key[0] if isinstance(key, tuple) else key
        if isinstance(first, slice):
            assert len(range(*first.indices(len(self._frames)))) == 1, f"read whole: {key}"
        if threading.current_thread() is not threading.main_thread():
            assert self.gate.wait(30)
        self.threads.add(threading.current_thread().name)
        return self._frames[key]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("read whole")


def test_a_file_is_analysed_shown_and_gone_through(
    widget: tuple[Any, Any],
    movie: Path,
    long_movie: Path,
    tmp_path: Path,
    qtbot: Any,
    press: Any,
    take_picture: Any,
) -> None:
    viewer, w = widget
    w.form.file.value = movie
    assert w.run_button.text() == "Run"
    w.form.patient.value, w.form.sample.value = "simulated", "chamber"
    assert w.run_button.toolTip() == "Run: simulated · chamber"
    assert re.fullmatch("Run: s.*d · c.*r", w.run_button.text())
    run_to_the_end(qtbot, press, w)
    # Whose the next run would be is still to be read.
    assert re.fullmatch("Run: s.*d · c.*r", w.run_button.text())
    width = w.minimumSizeHint().width()
    w.form.patient.value = "a very long name " * 10
    assert w.minimumSizeHint().width() == width
    w.form.patient.value = "simulated"
    assert not w.message.grave
    (folder,) = (tmp_path / "sessions").iterdir()
    session = open_session(folder)
    assert session.run["status"] == "finished"
    assert session.run["patient"] == "simulated"
    assert session.run["frames"]["processed"] == 180

    image, tracks, *marks = viewer.layers
    assert image.data.shape == (180, 548, 688)
    np.testing.assert_array_equal(tracks.data[:, 0], session.tracks["cell"])
    labels = session.cells.set_index("cell")["label"]
    assert [layer.name for layer in marks] == ["other cells", "flipping", "tank-treading"]
    assert sum(len(layer.data) for layer in marks) == len(session.tracks)
    for layer in marks[1:]:
        assert set(labels[layer.features["cell"].unique()]) == {layer.name}
    assert f"{100 * session.fraction.estimate:.0f}" in w.panel.machine.text()
    assert w.panel.verdict.verdict is session.conclusion.verdict

    w.tabs.setCurrentIndex(1)
    press(w.cell_viewer.next)
    cell = w.cell_viewer.shown.cell
    place = w.job.result.place_of(cell)
    assert viewer.dims.current_step[0] == place[0]
    shown = [layer for layer in marks if layer.selected_data]
    assert [layer.features["cell"].iloc[min(layer.selected_data)] for layer in shown] == [cell]
    pixel_um = float(image.scale[1])
    near = (place[0], (place[1] + 2) * pixel_um, (place[2] - 2) * pixel_um)
    assert w.layers.cell_at(near) == cell
    assert w.layers.frame_of(near) == place[0]
    # Somebody's layer in another unit gives that to the whole viewer.
    nm = viewer.add_image(np.zeros((9, 9), np.uint8), units=("nm", "nm"))
    viewer.reset_view()
    assert w.layers.cell_at((near[0], 1000 * near[1], 1000 * near[2])) == cell
    assert w.layers.cell_at(near) is None
    viewer.layers.remove(nm)
    viewer.reset_view()
    assert w.layers.cell_at((place[0], -300.0, -300.0)) is None
    take_picture(viewer, "movie-cell.png")
    w.tabs.setCurrentIndex(0)
    take_picture(viewer, "movie.png")

    # No key and no click in napari takes a mark away.
    for layer in (image, *marks):
        assert not layer.editable
    shown[0].mode = "select"
    assert shown[0].mode == "pan_zoom"
    positions = len(shown[0].data)
    shown[0].remove_selected()  # what napari's Delete key calls
    assert len(shown[0].data) == positions

    # A click on another cell's mark shows that cell.
    layer, other = next(
        (layer, k)
        for layer in reversed(marks)
        for k in np.flatnonzero(layer.data[:, 0] == place[0])
        if layer.features["cell"].iloc[k] != cell
    )
    other_cell = layer.features["cell"].iloc[other]
    canvas = viewer.window._qt_viewer.canvas.native
    y, x = (layer.data[other, 1:] * pixel_um - viewer.camera.center[1:]) * viewer.camera.zoom
    place_on_screen = QPoint(round(canvas.width() / 2 + x), round(canvas.height() / 2 + y))
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=place_on_screen)
    assert w.cell_viewer.shown.cell == other_cell
    # Nor does a slip of the finger make it another thing; a drag, which moves the picture, is none.
    for slip, shown_then in ((2, other_cell), (30, cell)):
        w.cell_viewer.show_cell(folder, cell)
        qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=place_on_screen)
        qtbot.mouseMove(canvas, place_on_screen + QPoint(slip // 2, 0))
        qtbot.mouseMove(canvas, place_on_screen + QPoint(slip, 0))
        qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=place_on_screen + QPoint(slip, 0))
        assert w.cell_viewer.shown.cell == shown_then
    w.cell_viewer.show_cell(folder, cell)

    # A change by hand: the cell's marks go to the other layer, the machine's number stays.
    was = shown[0].name
    now = {"tank-treading": "flipping", "flipping": "tank-treading"}[was]
    target = next(layer for layer in marks if layer.name == now)
    before, number = len(target.data), w.panel.machine.text()
    w.tabs.setCurrentIndex(1)
    w.cell_viewer.who.setText("Anna")
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        press(w.cell_viewer.label_buttons[now])
    assert len(target.data) == before + int((session.tracks["cell"] == cell).sum())
    assert w.panel.machine.text() == number
    assert "by hand" in w.panel.by_hand.text()
    np.testing.assert_array_equal(image.data[7], open_frames(movie)[7])  # and the movie is still open
    # A second one, while the session is being read again after the first, is in what is shown at last.
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        press(w.cell_viewer.label_buttons[was])
        assert w.job.busy
        press(w.cell_viewer.label_buttons["unreliable"])
        assert w.job.busy
    assert cell in set(marks[0].features["cell"])
    figure = open_session(folder).fraction_by_hand
    assert figure.n == session.fraction.n - 1
    assert w.job.result.figure_by_hand == figure

    # The next analysis gives the same layers other data. What a live picture showed last is not behind
    # its marks, nor is what was opened since.
    layers = list(viewer.layers)
    live = [viewer.add_image(np.zeros((9, 9), np.uint8), name="live", metadata={"rbcflow": "live"})]
    live.append(viewer.add_points(np.zeros((1, 2)), name="cells", metadata={"rbcflow": "cells"}))
    opened = viewer.add_image(np.zeros((9, 9), np.uint8))
    w.form.patient.value = "again"
    run_to_the_end(qtbot, press, w)
    assert not w.message.grave
    assert list(viewer.layers) == [*live, opened, *layers]
    assert [layer.visible for layer in (*live, opened, image)] == [False, False, True, True]
    assert len(list((tmp_path / "sessions").iterdir())) == 2
    assert len(target.data) == before
    assert not w.panel.by_hand.text()

    # The window closed in mid run: nothing is left running.
    w.form.file.value = long_movie
    press(w.run_button)
    qtbot.waitUntil(lambda: w.job.run.phase is Phase.RUNNING and not w.job.run.ended, timeout=LONG_MS)
    folder = w.job.run.folder
    frame, window = frame_of(w)
    for closing in (frame.title.close_button.click, window.close):  # who closes it by hand is asked
        asked = answer("forms.close-keep")
        closing()
        assert asked == [say("forms.close-movie")]
        assert w.job.busy
    viewer.close()
    assert open_session(folder).run["status"] == "stopped"
    assert not any("rbcflow" in thread.name for thread in threading.enumerate())


def test_how_the_flow_was_set_goes_into_the_run(qtbot: Any) -> None:
    form = MovieForm(list)
    qtbot.addWidget(form.container.native)
    assert form.run_settings().set_flow == SetFlow()
    form.set_flow["shear_rate_per_s"].value = "20"
    form.set_flow["focus_height_um"].value = "40,5"
    assert form.run_settings().set_flow == SetFlow(20.0, 40.5)
    form.set_flow["focus_height_um"].value = "high"
    with pytest.raises(BadInput) as error:
        form.run_settings()
    assert str(error.value) == say("forms.not-a-number", setting="focus_height_um", value="high")


def test_a_camera_that_is_turned_can_be_put_right_in_the_form(qtbot: Any, take_picture: Any) -> None:
    values = {"seen": say("quality.seen-down"), "wanted": say("quality.seen-right"), "degrees": 270}
    said = in_form(say("quality.warn-flow-nowhere-turned", **values))
    assert FIELD_LABELS["rotate"] in said
    movie, live = MovieForm(list), CameraForm()
    movie.rotate.value = 270
    live.rotate.setCurrentIndex(3)
    for settings in (movie.run_settings(), live.run_settings()):
        assert settings.rotate == 270
    again = CameraForm()
    again.fill(RunRequest(Camera("simulated", {}), Path("s") / "x", live.run_settings()))
    assert again.run_settings().rotate == 270
    for form in (movie.container.native, live):
        qtbot.addWidget(form)
        form.show()
        take_picture(form, f"turned-{type(form).__name__}.png")


def test_a_layer_stands_for_its_file_as_long_as_it_shows_the_same(movie: Path, tmp_path: Path) -> None:
    frames = open_frames(movie)
    assert file_of(frames_of_layer(Image(frames, rgb=False))) == movie
    whole = np.asarray(frames)
    deep = tmp_path / "deep.tif"
    tifffile.imwrite(deep, whole[:20].astype(np.uint16) << 4)

    def layer(data: Any, path: Path) -> LayerFrames:
        return LayerFrames("a layer", data, path, {})

    assert file_of(layer(whole, movie)) == movie
    assert file_of(layer(np.repeat(whole[..., None], 3, 3), movie)) == movie
    assert file_of(layer(whole[:20].astype(np.uint16) << 4, deep)) == deep
    worked_on = whole.copy()
    worked_on[-1, 5, 5] ^= 1
    assert file_of(layer(worked_on, movie)) is None
    assert file_of(layer(whole[::2], movie)) is None
    assert file_of(layer(whole, tmp_path / "gone.avi")) is None


def test_a_layer_is_read_frame_by_frame_and_its_copy_removed(
    widget: tuple[Any, Any], movie: Path, tmp_path: Path, qtbot: Any, press: Any
) -> None:
    viewer, w = widget
    grey = open_frames(movie)[:]
    frames = OneByOne(grey.astype(np.uint16) << 4)
    layer = viewer.add_image(
        frames, name="a 12-bit movie", scale=(1, 0.5, 0.5), contrast_limits=(0, 4095), rgb=False
    )
    viewer.add_image(grey, name="opened since", rgb=False)
    w.form.source.value = LAYER
    w.form.layer.value = layer
    frames.gate.clear()
    press(w.run_button)
    qtbot.waitUntil(lambda: w.job.stage == "copying")
    assert w.status.bar.isVisible()
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        press(w.cancel_button)
        frames.gate.set()
    assert (w.status.text(), w.status.bar.isVisible()) == (say("forms.cancelled"), False)
    assert not list(tmp_path.glob("rbcflow-layer*"))
    assert not list((tmp_path / "sessions").iterdir())

    w.form.fps.value, w.form.pixel_size_um.value = "60", "0,605"
    run_to_the_end(qtbot, press, w)
    assert not w.message.grave
    assert len(frames.threads) == 2  # napari's own, which draws, and one that never touches a layer
    assert not list(tmp_path.glob("rbcflow-layer*"))
    (folder,) = (tmp_path / "sessions").iterdir()
    session = open_session(folder)
    assert session.run["frames"]["processed"] == 180
    assert session.run["cells"]["tank_treading"] > 5
    # Marks stand upon the person's own layer; no image was added.
    since, own, *others = viewer.layers
    assert (since.name, own) == ("opened since", layer)
    assert [type(one).__name__ for one in others] == ["Tracks", "Points", "Points", "Points"]
    assert all(tuple(one.scale) == (1, 0.5, 0.5) for one in others)
    assert all(one.units == own.units for one in others)

    # What cannot be analysed is refused in a sentence, and nothing is made.
    wrong = {
        "4 axes": viewer.add_image(grey[None, :4]),
        "float32": viewer.add_image(grey[:4].astype(np.float32)),
    }
    for words, wrong_layer in wrong.items():
        w.form.layer.value = wrong_layer
        press(w.run_button)
        assert not w.job.busy
        (sentence,) = w.message.grave
        assert words in sentence
        assert wrong_layer.name in sentence
    single, colour = viewer.add_image(grey[0]), viewer.add_image(np.zeros((9, 9, 3), np.uint8), rgb=True)
    for still in (single, colour):
        with refused(BadInput, "forms.layer-single-image"):
            frames_of_layer(still)
    live = viewer.add_image(np.zeros((9, 9), np.uint8), name="live", metadata={"rbcflow": "live"})
    labels = viewer.add_labels(np.zeros((4, 9, 9), int))
    assert not {single, colour, live, labels} & set(w.form.layer.choices)
    many_in_colour = viewer.add_image(np.zeros((2, 9, 9, 3), np.uint8), rgb=True)
    assert many_in_colour in w.form.layer.choices
    # Opened beside a live picture, the widget does not propose that.
    for active, source in ((live, FILE), (layer, LAYER)):
        viewer.layers.selection.active = active
        w.form.source.value = FILE
        w._choose_active_layer()
        assert w.form.source.value == source
    assert len(list((tmp_path / "sessions").iterdir())) == 1


def test_runs_that_do_not_end_well_say_so_and_leave_nothing_running(
    widget: tuple[Any, Any], movie: Path, long_movie: Path, tmp_path: Path, qtbot: Any, press: Any
) -> None:
    viewer, w = widget
    sessions = tmp_path / "sessions"
    press(w.run_button)
    assert w.message.grave == (say("forms.no-movie"),)
    w.form.file.value = movie
    w.form.fps.value = "many"
    press(w.run_button)
    assert w.message.grave == (in_form(say("forms.not-a-number", setting="fps", value="many")),)
    w.form.fps.value = ""
    # Nor beside a run of another widget's, which would lose frames.
    with Worker() as worker:
        worker.start(RunRequest(MovieFile(long_movie), tmp_path / "beside", RunSettings()))
        press(w.run_button)
        assert not w.job.busy
        assert w.message.grave == (say("forms.live-run-going"),)

    # Cancelled: its session says so, and nothing of it is shown as a result.
    w.form.file.value = long_movie
    press(w.run_button)
    qtbot.waitUntil(lambda: w.job.run is not None and w.job.run.phase is Phase.RUNNING, timeout=LONG_MS)
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        press(w.cancel_button)
    (stopped,) = sessions.iterdir()
    run = open_session(stopped).run
    assert (run["status"], run["stop_reason"]) == ("stopped", "user")
    assert stopped.name in w.status.text().replace("\u200b", "")
    assert not w.panel.machine.text()
    assert not list(viewer.layers)

    # Not a cell in it: nothing is kept.
    still = tmp_path / "still.tif"
    noise = np.random.default_rng(0).normal(130, 2, (60, 200, 300)).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(still, noise)
    w.form.file.value = still
    run_to_the_end(qtbot, press, w)
    assert w.message.grave == (
        say("pipeline.no-cell-in-movie", movie="still.tif", flow=say("forms.left-to-right")),
    )
    assert list(sessions.iterdir()) == [stopped]

    # A movie that breaks off in mid run: what was had is kept, and called failed.
    broken = tmp_path / "broken.tif"
    tifffile.imwrite(broken, np.repeat(noise, 3, 0), compression="zlib", metadata=None)
    with tifffile.TiffFile(broken) as tif:
        place = tif.pages[100].dataoffsets[0]
    with broken.open("r+b") as file:
        file.seek(place)
        file.write(bytes(64))
    w.form.file.value = broken
    w.form.background.value = "sliding"
    run_to_the_end(qtbot, press, w)
    (sentence,) = [said for said in w.message.grave if "broken.tif" in said]
    (failed,) = [folder for folder in sessions.iterdir() if folder != stopped]
    assert str(failed) in sentence
    assert open_session(failed).run["status"] == "failed"

    # A session from a newer version.
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "run.json").write_text(json.dumps({**run, "format": 99}))
    w._report_errors(w.show_session)(newer)
    assert w.message.grave == (say("ring.newer-version", path=newer),)
    assert not w.job.busy

    # Out of its dock in mid run: the session is closed and the process gone when that returns.
    w.form.file.value = long_movie
    press(w.run_button)
    qtbot.waitUntil(lambda: w.job.run.request.source.path == long_movie and w.job.run.phase is Phase.RUNNING)
    mine = psutil.Process().children(recursive=True)
    folder = w.job.run.folder
    assert any("napari_rbcflow.pipeline.worker" in " ".join(child.cmdline()) for child in mine)
    viewer.window.remove_dock_widget(w)
    assert open_session(folder).run["status"] == "stopped"
    assert not any("rbcflow" in thread.name for thread in threading.enumerate())
    assert not any(child.is_running() and "worker" in " ".join(child.cmdline()) for child in mine)


@pytest.mark.skipif(sys.platform == "win32", reason="no signal that a process can hear")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_ends_napari_from_the_terminal_has_a_session_that_was_stopped(
    long_movie: Path, tmp_path: Path, number: int
) -> None:
    script = f"""
        from pathlib import Path
        import napari
        from qtpy.QtCore import QTimer
        viewer = napari.Viewer()
        _, widget = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Movie")
        widget.form.choose_path(Path({str(long_movie)!r}))
        widget.form.folder.value = {str(tmp_path / "sessions")!r}
        def look():
            run = widget.job.run
            if run is not None and run.snapshot is not None and run.snapshot.progress.processed:
                looks.stop()
                print(widget.job._worker.pid, flush=True)
        looks = QTimer()
        looks.timeout.connect(look)
        looks.start(20)
        QTimer.singleShot(0, widget.run_button.click)
        napari.run()
    """
    environment = {**os.environ, "RBCFLOW_CONFIG": str(tmp_path / "config"), "NAPARI_CONFIG": ""}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    worker = psutil.Process(int(process.stdout.readline()))
    process.send_signal(number)
    process.communicate(timeout=60)  # nothing is asked
    until = time.monotonic() + 60
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
    (folder,) = (tmp_path / "sessions").iterdir()
    run = open_session(folder).run
    assert (run["status"], run["stop_reason"]) == ("stopped", "user")
    assert verify(folder).findings == []


def test_of_several_movies_in_a_file_one_is_asked_for(
    qtbot: Any, press: Any, widget: tuple[Any, Any], take_picture: Any, tmp_path: Path
) -> None:
    _, w = widget
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for frames in (a_movie(12), a_movie(12)[::-1]):
            tif.write(frames, metadata={"axes": "TYX"})
    w.form.file.value = path
    assert not w.form.series.visible
    run_to_the_end(qtbot, press, w)
    assert w.job.run.key == "sources.several-series"
    assert w.form.series.visible
    take_picture(w, "movie-series.png")
    w.form.series.value = "1"
    run_to_the_end(qtbot, press, w)
    assert w.job.run.key != "sources.several-series"
