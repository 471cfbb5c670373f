"""What napari finds of us: menus, readers, writers, sample data and settings, through napari itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import napari.settings
import numpy as np
import pandas as pd
import pytest
from factories import no_screen
from napari.plugins.io import read_data_with_plugins
from napari.utils.notifications import notification_manager
from napari.utils.theme import get_theme
from npe2 import PluginManifest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent, QPalette
from sentence_keys import is_said

from napari_rbcflow import analyze
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session
from napari_rbcflow.session.change_log import ChangeLog
from napari_rbcflow.sources.lazy import open_frames
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.types import SourceInfo
from napari_rbcflow.widgets.label_styles import INKS
from napari_rbcflow.widgets.panel import FIELD_LABELS
from napari_rbcflow.widgets.picture import LivePicture
from napari_rbcflow.widgets.remembered import Settings, load_settings, save_settings, settings_path

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

PLUGIN = "napari-rbcflow"


@pytest.fixture(scope="module")
def analysed(chamber_movie: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A movie and its session."""
    session = tmp_path_factory.mktemp("analysed") / "session"
    analyze(chamber_movie, session, patient="simulated")
    return chamber_movie, session


@pytest.fixture
def said() -> list[Any]:
    """What napari has shown as messages in this test, and will."""
    notification_manager.records.clear()
    return notification_manager.records


def movie_dock(viewer: Any, qtbot: Any) -> Any:
    """The Movie dock, once it has shown what napari opened."""
    dock = viewer.window.add_plugin_dock_widget(PLUGIN, "Movie")[1]
    qtbot.waitUntil(lambda: not dock.job.busy, timeout=20_000)
    return dock


def drop(on: Any, path: Path) -> None:
    """Drop a file on a viewer's canvas, or on a dock."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    left, no_key = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    event = QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, mime, left, no_key)
    (on.window._qt_viewer if hasattr(on, "window") and not callable(on.window) else on).dropEvent(event)


def titles(menu: Any) -> list[str]:
    """Walk a menu as a person who opens everything in it."""
    menu.aboutToShow.emit()
    found = []
    for action in menu.actions():
        found.append(action.text())
        if action.menu() is not None:
            found += [f"{action.text()} > {title}" for title in titles(action.menu())]
    return found


def test_everything_stands_in_the_menus_and_opens(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    bar = viewer.window._qt_window.menuBar()
    found = {
        f"{menu.text()} > {title}".replace("&", "")
        for menu in bar.actions()
        if menu.menu() is not None
        for title in titles(menu.menu())
    }
    us = "(Red blood cell flow)"
    assert {
        f"File > Open Sample > Simulated flow chamber, with the true tracks {us}",
        f"File > Acquire > Live {us}",
        f"Layers > Track > Movie {us}",
        f"Layers > Classify > Movie {us}",
    } <= found
    for name in ("Live", "Movie", "Trend", "Settings"):
        assert f"Plugins > Red blood cell flow > {name} {us}" in found
        _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name)
        qtbot.wait(50)
        viewer.window.remove_dock_widget(widget)
    image, tracks = viewer.open_sample(PLUGIN, "simulated_chamber")
    assert image.data.ndim == 3
    assert len(tracks.data) > 100
    assert tracks.color_by == "group"
    assert len(set(tracks.features["group"])) == 3
    # Ready to be analysed; opened again, it is there once.
    dock = movie_dock(viewer, qtbot)
    qtbot.waitUntil(lambda: dock.form.chosen_layer is image)
    once = set(viewer.layers)
    viewer.open_sample(PLUGIN, "simulated_chamber")
    qtbot.waitUntil(lambda: set(viewer.layers) == once)


def test_a_session_opens_with_its_number_and_its_movie_or_its_ring(
    analysed: tuple[Path, Path],
    tmp_path: Path,
    make_napari_viewer: Any,
    qtbot: Any,
    said: list[Any],
    take_picture: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    movie, folder = analysed
    session = open_session(folder)
    save_settings(replace(load_settings(), sessions_folder=folder.parent))
    viewer = make_napari_viewer(show=True)
    monkeypatch.setattr(napari.settings.get_settings().plugins, "extension2reader", {})
    viewer.window.resize(1600, 1000)
    image, tracks, *marks = viewer.open(folder, plugin=PLUGIN)
    np.testing.assert_array_equal(np.asarray(image.data[100]), open_frames(movie)[100])
    assert len(tracks.data) == len(session.tracks) == sum(len(layer.data) for layer in marks)
    assert marks[-1].name == "tank-treading"
    counted = session.cells[session.cells["label"] == "tank-treading"]["cell"]
    assert set(marks[-1].features["cell"]) == set(counted)
    assert viewer.dims.axis_labels[0] == say("viewer.axis-frame")

    # The number comes up beside it, in the colours of whichever theme; opened or dropped again, no twins.
    opened = list(viewer.layers)
    dock = movie_dock(viewer, qtbot)
    assert dock.panel.verdict.verdict is session.conclusion.verdict
    assert f"{100 * session.fraction.estimate:.0f} %" in dock.panel.machine.text()
    assert dock.layers.all == tuple(opened)
    assert not any(layer.editable for layer in opened)
    marks[-1].selected_data = {0}
    marks[-1].remove_selected()  # what napari's Delete key calls
    assert len(marks[-1].data) == len(opened[-1].features)
    assert viewer.text_overlay.visible == session.conclusion.simulated
    assert viewer.open(folder, plugin=PLUGIN) == []
    drop(viewer, folder / "run.json")
    drop(viewer, folder)  # napari does not ask who shall read it
    dock.panel.clear()
    drop(dock, folder)
    movie_dock(viewer, qtbot)
    assert movie_dock(viewer, qtbot).panel.links.folder == folder
    assert list(viewer.layers) == opened
    assert all(layer.visible for layer in opened)
    for theme, quiet in (("light", INKS["quiet"].deep), ("dark", INKS["quiet"].bright)):
        viewer.theme = theme
        ground = dock.panel.palette().color(QPalette.ColorRole.Window).getRgb()[:3]
        assert ground == get_theme(theme).background.as_rgb_tuple()[:3]
        assert quiet in dock.panel.machine.styleSheet()
        take_picture(viewer, f"session-{theme}.png")

    # Where the movie is gone: the last second, at its true frame numbers, and changes by hand.
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    run = json.loads((copy / "run.json").read_text())
    run["parameters"]["source_details"]["file"] = str(tmp_path / "gone.avi")
    (copy / "run.json").write_text(json.dumps(run))
    cell = int(counted.iloc[0])
    ChangeLog(copy).add(cell, "struck-out", "a nurse")
    ring, _, *others = viewer.open(copy / "run.json", plugin=PLUGIN)
    assert ring.data.shape == (60, 548, 688)
    assert tuple(ring.translate) == (120, 0, 0)
    last = open_frames(movie)[150]
    np.testing.assert_array_equal(np.asarray(ring.data[30]), last)
    assert cell not in set(others[-1].features["cell"])
    assert cell in set(others[0].features["cell"])
    assert movie_dock(viewer, qtbot).panel.links.folder == copy
    assert [layer.visible for layer in opened] == [False] * 5
    assert all(layer.visible for layer in (ring, *others))
    (alone,) = viewer.open(copy / "frames.zarr", plugin=PLUGIN)
    np.testing.assert_array_equal(np.asarray(alone.data[30]), last)
    assert not said


def test_what_is_opened_takes_the_place_of_what_was_shown(
    analysed: tuple[Path, Path], make_napari_viewer: Any, qtbot: Any, take_picture: Any
) -> None:
    """No number and no mark may be seen beside, or on, a movie that is not theirs."""
    movie, folder = analysed
    viewer = make_napari_viewer(show=True)
    viewer.open_sample(PLUGIN, "simulated_chamber")
    sample = list(viewer.layers)
    dock = movie_dock(viewer, qtbot)
    viewer.open(folder, plugin=PLUGIN)
    session = [layer for layer in viewer.layers if layer not in sample]

    def shown() -> tuple[bool, bool]:
        for layers in (sample, session):
            assert len({layer.visible for layer in layers}) == 1
        return sample[0].visible, session[0].visible

    movie_dock(viewer, qtbot)
    assert shown() == (False, True)
    number = dock.panel.machine.text()
    assert number

    viewer.open_sample(PLUGIN, "simulated_chamber")
    qtbot.waitUntil(lambda: set(viewer.layers) == {*sample, *session} and shown() == (True, False))
    take_picture(viewer, "sample-over-session.png")
    assert dock.panel.machine.text() == ""
    assert dock.panel.links.folder is None
    assert dock.cell_viewer.shown is None
    assert dock.form.chosen_layer is sample[0]
    assert not viewer.text_overlay.visible

    assert viewer.open(folder, plugin=PLUGIN) == []  # no twins
    movie_dock(viewer, qtbot)
    assert shown() == (False, True)
    assert dock.panel.machine.text() == number
    (alone,) = viewer.open(folder / "frames.zarr", plugin=PLUGIN)  # what is opened is of this session
    qtbot.wait(50)
    assert dock.panel.machine.text() == number
    viewer.layers.remove(alone)
    (opened,) = viewer.open(movie, plugin=PLUGIN)
    qtbot.waitUntil(lambda: shown() == (False, False))
    assert opened.visible
    assert dock.panel.machine.text() == ""
    viewer.open_sample(PLUGIN, "simulated_chamber")
    qtbot.waitUntil(lambda: set(viewer.layers) == {*sample, *session, opened} and shown() == (True, False))
    viewer.open(movie, plugin=PLUGIN)
    qtbot.waitUntil(lambda: shown() == (False, False))


def test_a_session_opens_with_napari_slicing_in_threads(
    analysed: tuple[Path, Path], make_napari_viewer: Any, qtbot: Any, said: list[Any], take_picture: Any
) -> None:
    movie, folder = analysed
    viewer = make_napari_viewer(show=True)
    napari.settings.get_settings().experimental.async_ = True
    viewer.window.resize(1600, 1000)
    image = viewer.open(folder, plugin=PLUGIN)[0]
    dock = movie_dock(viewer, qtbot)
    frames = open_frames(movie)

    def shows(frame: int) -> bool:
        value = image.get_value((frame, 60.0, 100.0))
        return bool(all(layer.loaded for layer in viewer.layers) and value == frames[frame][60, 100])

    for frame in (100, 7, 150):
        viewer.dims.set_point(0, frame)
        qtbot.waitUntil(lambda frame=frame: shows(frame), timeout=20_000)
    session = open_session(folder)
    counted = session.cells[session.cells["label"] == "tank-treading"]
    cell = int(counted["cell"].iloc[0])
    dock._go_to(cell)  # as the cell viewer does
    middle, _, _ = dock.job.result.place_of(cell)
    assert viewer.dims.point[0] == middle
    qtbot.waitUntil(lambda: shows(middle), timeout=20_000)
    take_picture(viewer, "session-async.png")
    assert not said


def test_live_movie_and_session_have_the_same_axes(
    analysed: tuple[Path, Path],
    tmp_path: Path,
    make_napari_viewer: Any,
    qtbot: Any,
    said: list[Any],
    take_picture: Any,
) -> None:
    """So that napari names the axes, and its scale bar is right, whatever is opened together."""
    movie, folder = analysed
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 800)
    viewer.scale_bar.visible = viewer.axes.visible = True
    viewer.open_sample(PLUGIN, "simulated_chamber")
    viewer.open(folder, plugin=PLUGIN)
    viewer.open(movie, plugin=PLUGIN)
    viewer.open(folder / "frames.zarr", plugin=PLUGIN)
    for pixel_um in (0.605, 0.31):
        picture = LivePicture(viewer)
        picture.begin(SourceInfo("another camera", 100, 200, 60.0, pixel_um, live=True), tmp_path)
        assert tuple(picture.image.scale) == tuple(picture.marks.layer.scale) == (pixel_um, pixel_um)
        qtbot.wait(100)
        picture.close()
    assert [str(unit) for unit in viewer.layers.units] == ["pixel", "micrometer", "micrometer"]
    names = (say("viewer.axis-frame"), "y", "x")
    assert viewer.dims.axis_labels == names
    for layer in viewer.layers:
        assert tuple(layer.axis_labels) == names[-layer.ndim :]
        assert layer.units == viewer.layers.units[-layer.ndim :]
        if layer.ndim == 3:
            assert tuple(layer.scale) == (1.0, 0.605, 0.605)
    # A place in camera pixels is brought to the centre of the window, and back.
    before = viewer.scene.camera.center
    picture._close_up.go(picture.image, 50.0, 20.0)
    assert viewer.scene.camera.center[1:] == pytest.approx((50 * 0.31, 20 * 0.31))
    picture._close_up.back()
    assert viewer.scene.camera.center == before
    for layer in viewer.layers:
        layer.visible = True
    viewer.reset_view()
    qtbot.wait(200)
    (bar,) = viewer.window._qt_viewer.canvas._viewer_overlay_to_visual[viewer.canvas.overlays.scale_bar]
    assert bar.node.text.text.endswith(("µm", "\u03bcm"))
    take_picture(viewer, "axes.png")
    assert not said


def test_cells_and_tracks_are_saved_from_the_layers(
    analysed: tuple[Path, Path], tmp_path: Path, make_napari_viewer: Any, said: list[Any]
) -> None:
    _, folder = analysed
    viewer = make_napari_viewer()
    _, tracks, *marks = viewer.open(folder, plugin=PLUGIN)
    viewer.layers.selection = set(marks)
    written = viewer.layers.save(str(tmp_path / "cells.csv"), selected=True)
    assert written == [str(tmp_path / "cells.csv")]
    saved = (tmp_path / "cells.csv").read_text().splitlines()
    # A row of cells.csv, and one column more, empty where nobody changed anything.
    assert [line.rpartition(",")[0] for line in saved] == (folder / "cells.csv").read_text().splitlines()

    viewer.layers.selection = {marks[-1]}
    viewer.layers.save(str(tmp_path / "some.csv"), selected=True, plugin=PLUGIN)
    assert set(pd.read_csv(tmp_path / "some.csv")["label"]) == {"tank-treading"}
    viewer.layers.selection = {tracks}
    viewer.layers.save(str(tmp_path / "tracks.csv"), selected=True)
    saved_tracks = pd.read_csv(tmp_path / "tracks.csv")
    pd.testing.assert_frame_equal(
        saved_tracks[["cell", "frame", "y_px", "x_px"]],
        pd.read_csv(folder / "tracks.csv")[["cell", "frame", "y_px", "x_px"]],
    )
    assert saved_tracks["label"].notna().all()
    viewer.layers.selection = {viewer.add_points(np.zeros((2, 3)), name="mine", units=tracks.units)}
    with pytest.raises(BadInput, match="'mine' holds no cells of a session"):
        viewer.layers.save(str(tmp_path / "mine.csv"), selected=True, plugin=PLUGIN)
    assert not said


def test_what_cannot_be_opened_is_one_message(
    analysed: tuple[Path, Path], tmp_path: Path, make_napari_viewer: Any, said: list[Any]
) -> None:
    _, folder = analysed
    newer, cut = tmp_path / "newer", tmp_path / "cut.avi"
    newer.mkdir()
    run = json.loads((folder / "run.json").read_text())
    (newer / "run.json").write_text(json.dumps({**run, "format": 99}))
    cut.write_bytes(analysed[0].read_bytes()[:2_000_000])
    # From a script, an exception.
    with pytest.raises(BadInput, match="update to read it"):
        read_data_with_plugins([str(newer)], plugin=PLUGIN)
    # In a window, as File > Open does it.
    viewer = make_napari_viewer()
    viewer.window._qt_viewer._qt_open([str(newer / "run.json")], stack=False)
    viewer.window._qt_viewer._qt_open([str(cut)], stack=False, plugin=PLUGIN)
    assert not viewer.layers
    first, second = (record.message for record in said)
    assert first == say("ring.newer-version", path=newer)
    assert is_said("sources.cut-short-of-promise", second)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("raw24.avi", "rawvideo", "bgr24", {}),
        ("mjpeg.avi", "mjpeg", "yuvj420p", {}),
        ("dependent.avi", "mpeg4", "yuv420p", {}),
        ("reordered.mp4", "mpeg4", "yuv420p", {"bf": "2", "g": "7"}),
        ("open-groups.mp4", "mpeg2video", "yuv420p", {"bf": "2", "g": "12"}),
        ("lossless.mkv", "ffv1", "gray", {}),
    ],
)
def test_any_frame_of_a_movie_is_the_one_that_is_analysed(
    tmp_path: Path, name: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    path = tmp_path / name
    rng = np.random.default_rng(0)
    base = rng.integers(0, 200, (96, 128), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(60))
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 96, pixels, options
        for k in range(30):
            grey = np.roll(base, 3 * k, 1)
            image = np.repeat(grey[..., None], 3, 2)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)
            frame.pts, frame.time_base = k, Fraction(1, 60)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    movie = open_movie(path)
    with movie:
        analysed = {frame.index: frame.image for frame in movie.frames()}
    frames = open_frames(path)
    assert frames.shape == (30, 96, 128)
    assert sorted(analysed) == list(range(30))
    for k in [*range(30), *rng.permutation(30).tolist()]:
        frames._kept.clear()
        np.testing.assert_array_equal(frames[k], analysed[k])
    np.testing.assert_array_equal(
        frames[5:8, 10:20, 3], np.stack([analysed[k] for k in (5, 6, 7)])[:, 10:20, 3]
    )
    np.testing.assert_array_equal(np.asarray(frames)[-1], analysed[29])


def test_settings_are_kept_and_never_in_the_way(make_napari_viewer: Any, qtbot: Any) -> None:
    assert load_settings() == Settings()
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Settings")
    widget.person.value, widget.fps.value, widget.picture_hz.value = "a nurse", "100", "10"
    qtbot.mouseClick(widget.save_button, Qt.MouseButton.LeftButton)
    kept = load_settings()
    assert (kept.person, kept.fps, kept.picture_hz) == ("a nurse", 100.0, 10.0)
    for field, value, refused in (
        (widget.binning, "2", "1.5"),
        (widget.binning, "2", "inf"),
        (widget.roi, "0,0,640,384", "640 x 384"),
        (widget.pixel_type, "8bit-MONO", None),
        (widget.port, "4828", "70000"),
    ):
        if refused is not None:
            field.value = refused
            qtbot.mouseClick(widget.save_button, Qt.MouseButton.LeftButton)
            assert refused in widget.message.grave[0]
        field.value = value
    qtbot.mouseClick(widget.save_button, Qt.MouseButton.LeftButton)
    kept = load_settings()
    assert (kept.binning, kept.roi, kept.pixel_type, kept.port) == (2, "0,0,640,384", "8bit-MONO", 4828)
    again = viewer.window.add_plugin_dock_widget(PLUGIN, "Live")[1]
    assert again.form.numbers["port"].text() == "4828"
    widget.fps.value = "0"
    qtbot.mouseClick(widget.save_button, Qt.MouseButton.LeftButton)
    assert "not possible" in widget.message.grave[0]
    assert load_settings() == kept

    path = settings_path()
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "of_tomorrow": [1]}))
    save_settings(load_settings())
    assert json.loads(path.read_text())["of_tomorrow"] == [1]
    for damage in ('{"format": 99}', "{", '{"format": 1, "fps": "many"}', "[]"):
        path.write_text(damage)
        settings = load_settings()
        assert settings.fps is None
        assert not path.exists()
        (aside,) = [aside for aside in path.parent.iterdir() if aside.read_text() == damage]
        assert settings.remark.endswith(say("forms.settings-set-aside", reason="", aside=aside.name))


def test_the_preferences_of_napari_call_the_settings_as_the_forms_do() -> None:
    manifest = PluginManifest.from_file(Path(__file__).parents[1] / "napari.yaml")
    titles = {
        name: setting.title
        for category in manifest.contributions.configurations.values()
        for name, setting in category.properties.items()
    }
    assert titles == {name: FIELD_LABELS[name] for name in titles}
    assert len(titles) == 18


def test_the_preferences_of_napari_show_the_same_settings(
    plugin_settings: None, npe2pm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RBCFLOW_CONFIG")
    monkeypatch.setattr("platformdirs.user_config_dir", lambda _: str(tmp_path / "ours"))
    npe2pm.register(PluginManifest.from_file(Path(__file__).parents[1] / "napari.yaml"))
    theirs = napari.settings.get_plugin_settings(PLUGIN)
    settings = load_settings()
    save_settings(replace(settings, fps=120.0, pixel_size_um=0.605, person="a nurse"))
    assert (theirs.camera.fps, theirs.camera.pixel_size_um) == ("120.0", "0.605")
    assert theirs.records.person == "a nurse"
    assert theirs.records.sessions_folder == str(settings.sessions_folder)
    theirs.camera.fps = ""
    theirs.display.picture_mode = "newest"
    again = load_settings()
    assert (again.fps, again.picture_mode, again.person) == (None, "newest", "a nurse")
    assert again.pixel_size_um == 0.605
    assert load_settings() == again
    theirs.camera.exposure_ms = "long"
    wrong = say("forms.not-a-number", setting="exposure_ms", value="long")
    assert load_settings().remark == say("forms.preferences-not-used", why=wrong)
    theirs.camera.exposure_ms = "2,5"
    assert load_settings().exposure_ms == 2.5
    theirs.camera.binning, theirs.camera.port, theirs.camera.roi = "2", "4828", "0,0,640,384"
    changed = load_settings()
    assert (changed.binning, changed.port, changed.roi) == (2, 4828, "0,0,640,384")
    theirs.camera.binning = "1.5"
    wrong = say("forms.not-a-whole-number", setting="binning", value="1.5")
    assert load_settings().remark == say("forms.preferences-not-used", why=wrong)
    theirs.camera.binning = ""
    save_settings(replace(again, picture_mode="cells"))
    assert theirs.display.picture_mode == load_settings().picture_mode == "cells"
