"""Many movies in a real napari window: chosen, analysed, stopped, gone on with, opened and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from factories import no_screen
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from questions import answer
from sentence_keys import is_said

from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session
from napari_rbcflow.widgets.dock import frame_of

pytest.importorskip("distributed", reason="Dask is not installed")
if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

pytestmark = pytest.mark.slow
SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "flow_chamber.tif"
LONG_MS = 120_000


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """A day in the laboratory: two movies, one that is none, and one that takes a while."""
    folder, frames = tmp_path / "monday", tifffile.imread(SAMPLE)
    folder.mkdir()
    for k in range(2):
        tifffile.imwrite(folder / f"m{k}.tif", frames[20 * k : 20 * k + 40], photometric="minisblack")
    (folder / "m2 broken.tif").write_text("no movie")
    tifffile.imwrite(folder / "m3 long.tif", np.concatenate([frames] * 12), photometric="minisblack")
    (folder / "notes.txt").write_text("all went well")
    return folder


@pytest.fixture
def widget(tmp_path: Path, make_napari_viewer: Any, qtbot: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A laptop's window, and the widget as the menu opens it, beside another."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    _, movie = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Movie")
    qtbot.waitUntil(lambda: movie.isVisible())
    qtbot.wait(50)
    _, widget = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Batch")
    widget.form.folder.line_edit.value = str(tmp_path / "results" / "b")
    widget.form.fps.value, widget.form.pixel_size_um.value = "60", "0.605"
    yield viewer, widget, movie
    widget.shut_down()


def drop(widget: Any, *paths: Path) -> None:
    what = QMimeData()
    what.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    where = QPointF(QPoint(20, 20))
    keys = Qt.KeyboardModifier.NoModifier
    widget.dropEvent(QDropEvent(where, Qt.DropAction.CopyAction, what, Qt.MouseButton.LeftButton, keys))


def column(widget: Any, at: int) -> list[str]:
    return [widget.table.item(row, at).text() for row in range(widget.table.rowCount())]


def states(widget: Any) -> list[str]:
    return [row["status"] for row in widget.table.rows]


def shares(widget: Any) -> list[float]:
    return [row.get("share", 0.0) for row in widget.table.rows]


@pytest.mark.timeout(300)
def test_many_movies_are_watched_stopped_gone_on_with_and_opened(
    widget: tuple[Any, Any, Any], movies: Path, tmp_path: Path, qtbot: Any, press: Any, take_picture: Any
) -> None:
    viewer, w, movie = widget
    # Nothing chosen; then all movies in a folder, and nothing else in it.
    press(w.buttons.start)
    assert w.message.sentences == (say("forms.batch-no-movies"),)
    drop(w, movies)
    names = ["m0.tif", "m1.tif", "m2 broken.tif", "m3 long.tif"]
    assert [Path(word).name for word in w.form.words()] == names
    w.form.record.fields["operator"].setText("Anna")
    take_picture(viewer.window, "batch_form_1366.png")

    press(w.buttons.start)
    qtbot.waitUntil(lambda: len(states(w)) == 4 and "finished" in states(w), timeout=LONG_MS)
    assert "Analyse" in w.buttons.start.text()
    assert not w.form.container.enabled
    qtbot.waitUntil(lambda: shares(w)[3] > 0.02, timeout=LONG_MS)
    take_picture(viewer.window, "batch_going_1366.png")
    # To close it would stop it: a person is asked, and goes on.
    asked = answer("forms.close-keep")
    frame_of(w)[0].destroyOnClose()
    assert asked == [say("forms.close-batch")]
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        press(w.buttons.stop)
    assert states(w) == ["finished", "finished", "failed", "waiting"]
    assert is_said("forms.batch-left-over", w.status.text(), done=3, of=4)
    assert column(w, 5)[2]
    assert column(w, 3)[2:] == ["", ""]
    assert "to" in column(w, 3)[0]

    # Another day: the batch's folder is dropped, and what was written in the form is there again.
    first = open_session(tmp_path / "results" / "b" / "m0").run
    assert first["record"] == {"operator": "Anna"}
    w.form.movies.value = w.form.fps.value = ""
    w.form.record.fields["operator"].setText("")
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        drop(w, tmp_path / "results" / "b")
    assert (len(w.form.words()), w.form.fps.value) == (4, "60")
    assert states(w) == ["finished", "finished", "failed", "waiting"]
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        press(w.buttons.start)
    assert states(w) == ["finished", "finished", "failed", "finished"]
    assert open_session(tmp_path / "results" / "b" / "m0").run["started"] == first["started"]
    w.table.selectRow(2)
    assert not w.open_button.isEnabled()
    assert w.why.text()
    take_picture(viewer.window, "batch_ended_1366.png")
    viewer.theme = "light"
    take_picture(viewer.window, "batch_ended_light.png")
    assert w.width() <= 520
    assert viewer.window._qt_window.height() <= 768

    # Clicked twice, a session opens as by File > Open.
    w.table.selectRow(0)
    assert f"{say('session.verdict-provisional')}: " in w.why.text()
    w.table.itemDoubleClicked.emit(w.table.item(0, 0))
    qtbot.waitUntil(lambda: movie.job.result is not None, timeout=LONG_MS)
    assert movie.job.result.session.folder.name == "m0"

    # Checked by eye meanwhile: seen as soon as the tab comes to the front again.
    session = open_session(tmp_path / "results" / "b" / "m0")
    session.review(dict.fromkeys(session.review_sample(60), "tank-treading"), by="Ben")
    assert session.conclusion.headline is not None
    with qtbot.waitSignal(w.ended, timeout=LONG_MS):
        w.come_up()
    assert say("session.verdict-result") in column(w, 4)[0]
    assert column(w, 3)[0].startswith("100 %") or "99" in column(w, 3)[0]
