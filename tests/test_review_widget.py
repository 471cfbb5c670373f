"""Cells checked by eye in a real napari window: real keys, real clicks, real files."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from factories import Pair, a_track, account_of, begin, closed, no_screen
from sentence_keys import any_said, is_said

from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session, verify
from napari_rbcflow.types import Judgement, Label

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

from napari.qt import get_stylesheet
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QDesktopServices, QKeyEvent
from qtpy.QtWidgets import QApplication, QLabel

from napari_rbcflow.widgets import review_page
from napari_rbcflow.widgets.dock import Dock
from napari_rbcflow.widgets.remembered import load_settings
from napari_rbcflow.widgets.result_parts import SessionLinks
from napari_rbcflow.widgets.review import newest_session
from napari_rbcflow.widgets.review_page import CheckPage

DOCK_PX = Dock.sizeHint(None).width()  # type: ignore[arg-type]
T, F, U, Z, SPACE = Qt.Key.Key_T, Qt.Key.Key_F, Qt.Key.Key_U, Qt.Key.Key_Z, Qt.Key.Key_Space
KEY = {Label.TANK_TREADING: T, Label.FLIPPING: F, Label.UNRELIABLE: U}


def drawn(label: Label, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """A cell as one sees it: a dark rim that stays, a rim that narrows and widens, or a blur."""
    frames = int(rng.integers(20, 50))
    crops = rng.normal(120, 1.8, (frames, 31, 31))
    phase = rng.uniform(0, np.pi)
    for at, crop in enumerate(crops):
        cell = np.zeros((31, 31), np.float32)
        wide = 7.0 if label != Label.FLIPPING else 2.5 + 4.5 * abs(np.sin(phase + at / 8))
        cv2.ellipse(cell, ((15, 15), (2 * wide, 12), 0), 13, -1, cv2.LINE_AA)
        cv2.ellipse(cell, ((15, 15), (2 * wide, 12), 0), -12, 2, cv2.LINE_AA)
        blur = 3.0 if label == Label.UNRELIABLE else 0.7
        crop += cv2.GaussianBlur(cell, (0, 0), blur)
    return crops.clip(0, 255).astype(np.uint8)


def some_cells(n: int) -> tuple[list[Pair], dict[int, Label]]:
    """Tracks with what the machine says of them, and what they are: now and then something else."""
    rng = np.random.default_rng(1)
    pairs, truth = [], {}
    for cell in range(1, n + 1):
        label = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)[int(rng.choice(3, p=[0.3, 0.1, 0.6]))]
        truth[cell] = label
        said = label if rng.random() < 0.9 else Label.UNRELIABLE
        reliable = round(float(rng.uniform(0.5, 1) if said != Label.UNRELIABLE else rng.uniform(0, 0.49)), 4)
        tank = round(float(rng.uniform(0.7, 1)), 4)
        tank = {Label.TANK_TREADING: tank, Label.FLIPPING: round(1 - tank, 4)}.get(said)
        reason = "stage-1" if tank is None else "stage-2"
        pairs.append((a_track(cell, crops=drawn(label, rng)), Judgement(cell, said, reliable, tank, reason)))
    return pairs, truth


@pytest.fixture(scope="module")
def cells() -> tuple[list[Pair], dict[int, Label]]:
    return some_cells(250)


@pytest.fixture
def folder(tmp_path: Path, cells: Any) -> Path:
    return closed(tmp_path / "S", cells[0])


@pytest.fixture
def docked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_napari_viewer: Any, qtbot: Any
) -> Iterator[tuple[Any, Any]]:
    """A window of a laptop's size with the dock in it, as the menu opens it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(SessionLinks, "shown_last", None)
    monkeypatch.setattr(review_page, "LEAST_LOOK_S", 0.0)
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 728)
    _, widget = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Check cells")
    QApplication.setActiveWindow(viewer.window._qt_window)
    qtbot.waitUntil(lambda: widget._placed, timeout=5_000)
    yield viewer, widget
    widget.shut_down()


def press_key(qtbot: Any, key: Any) -> None:
    """Press a key as a person does: it goes where the focus is."""
    qtbot.keyClick(QApplication.focusWidget(), key)


def write_name(qtbot: Any, widget: Any, name: str) -> None:
    field = widget.name.native
    field.setFocus()
    field.selectAll()
    qtbot.keyClicks(field, name)


def begin_check(qtbot: Any, press: Any, widget: Any, folder: Path, name: str) -> None:
    widget.open_session(folder)
    write_name(qtbot, widget, name)
    press(widget.start_button)


def shown(widget: Any) -> int:
    return int(widget._queue[widget._at])


def checking(widget: Any) -> bool:
    return bool(widget.pages.currentWidget() is widget.check)


def rows_of(folder: Path) -> list[list[str]]:
    return [line.split(",")[1:] for line in (folder / "reviews.csv").read_text().splitlines()[1:]]


def test_sixty_cells_with_a_key_each(
    docked: Any, folder: Path, cells: Any, qtbot: Any, press: Any, take_picture: Any, monkeypatch: Any
) -> None:
    viewer, widget = docked
    truth = cells[1]
    widget.open_session(folder)
    take_picture(viewer, "review_start.png")
    write_name(qtbot, widget, "Tim Fu")  # its letters are no answers
    press(widget.start_button)
    assert checking(widget)
    assert load_settings().person == "Tim Fu"
    page = widget.check
    seen, words, numbers = [], set(), set()
    while checking(widget):
        cell = shown(widget)
        seen.append(cell)
        assert page.place.text() == say("viewer.check-place", at=len(seen), cells=60)
        texts = {label.text() for label in page.findChildren(QLabel)}
        words.add(frozenset(texts - {page.place.text(), page.hint.text(), page.so_far.text()}))
        numbers.add(page.so_far.text())
        assert page.film._sequence.seen.all()
        assert not page.film._sequence.intruded.any()
        if len(seen) == 36:
            qtbot.wait(300)
            take_picture(viewer, "review_1366.png")
            assert viewer.window._qt_window.height() <= 728
            assert widget.width() <= DOCK_PX  # the other docks take as much
            assert min(page.player.width(), page.player.height()) >= 310
            viewer.window.resize(1920, 1040)
            widget._bring_forward()
            take_picture(viewer, "review_1920.png")
        press_key(qtbot, KEY[truth[cell]])
        if len(seen) % 10 == 0 and checking(widget):
            qtbot.waitUntil(lambda: not widget._catching_up.isActive(), timeout=5_000)
    assert len(seen) == len(set(seen)) == 60
    # Nothing differs from cell to cell but the cell; the number only at every tenth.
    assert len(words) == 1
    assert len(numbers) == 6
    press_key(qtbot, SPACE)  # a key too many
    assert widget.pages.currentWidget() is not widget.check
    take_picture(viewer, "review_end.png")
    assert rows_of(folder) == [["Tim Fu", str(cell), str(truth[cell])] for cell in seen]
    assert is_said("viewer.check-end", widget.end.text(), name="Tim Fu", cells=60)
    assert is_said("viewer.number-so-far", widget.number.text())
    assert verify(folder).findings == []
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()) or True)
    press(widget.links.open_report)
    assert opened == [str(folder / "report.html")]


@pytest.mark.parametrize(("wide", "high"), [(DOCK_PX - 8, 640), (DOCK_PX - 8, 416), (660, 860)])
def test_whatever_the_size_nothing_is_cut(
    wide: int, high: int, folder: Path, qtbot: Any, take_picture: Any
) -> None:
    """A laptop, one with everything enlarged by a half, and a large screen."""
    page, session = CheckPage(), open_session(folder)
    qtbot.addWidget(page)
    page.setStyleSheet(get_stylesheet("dark"))
    page.resize(wide, high)
    page.show()
    page.show_who("Anna")
    page.show_cell(session.sequence(1), 60.0, 1, 60)
    page.show_hint(say("viewer.check-keys-elsewhere"))
    qtbot.wait(50)
    take_picture(page, f"check-page-{wide}x{high}.png")
    assert (page.width(), page.height()) == (wide, high)
    buttons = (*page.kinds.values(), page.undo, page.again, page.stop)
    assert [b.text() for b in buttons if b.width() < b.sizeHint().width()] == []
    assert min(page.player.width(), page.player.height()) >= (290 if high > 600 else 180)


def test_keys_and_buttons(
    docked: Any, folder: Path, qtbot: Any, press: Any, monkeypatch: Any, take_picture: Any
) -> None:
    viewer, widget = docked
    layer = viewer.add_labels(np.zeros((64, 64), np.uint8))
    mode = layer.mode
    monkeypatch.setattr(SessionLinks, "shown_last", folder)
    begin_check(qtbot, press, widget, folder, "Anna")
    page, first = widget.check, shown(widget)
    assert not page.undo.isEnabled()
    press_key(qtbot, F)
    second = shown(widget)
    press(page.kinds["unreliable"])  # a click moves no focus
    third = shown(widget)
    assert len({first, second, third}) == 3
    assert layer.mode == mode
    press_key(qtbot, Z)
    assert shown(widget) == second
    press_key(qtbot, Z)
    assert (shown(widget), page.undo.isEnabled()) == (first, False)
    press_key(qtbot, Z)
    assert shown(widget) == first
    press_key(qtbot, T)
    assert [row[1:] for row in rows_of(folder)] == [
        [str(first), "flipping"],
        [str(second), "unreliable"],
        [str(second), "withdrawn"],
        [str(first), "withdrawn"],
        [str(first), "tank-treading"],
    ]

    # Space plays from the start, also after a click on a frame has stopped it.
    qtbot.mouseClick(page.film, Qt.MouseButton.LeftButton, pos=page.film.place_of(12))
    assert (page.player.index, page.player.playing) == (12, False)
    press_key(qtbot, SPACE)
    assert (page.player.index, page.player.playing) == (0, True)
    qtbot.waitUntil(lambda: page.player.index > 2, timeout=5_000)

    # A key that is held down, or hit twice before anyone could see the next cell, is one answer.
    event = QKeyEvent(QEvent.Type.KeyPress, T, Qt.KeyboardModifier.NoModifier, "t", True)
    QApplication.sendEvent(QApplication.focusWidget(), event)
    monkeypatch.setattr(review_page, "LEAST_LOOK_S", 30.0)
    press_key(qtbot, T)
    press(page.kinds["flipping"])
    assert shown(widget) == second
    monkeypatch.setattr(review_page, "LEAST_LOOK_S", 0.0)

    # Where the focus is elsewhere, the keys are napari's, and the page says so; a click brings them back.
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    qtbot.waitUntil(canvas.hasFocus, timeout=5_000)
    assert page.hint.text() == say("viewer.check-keys-elsewhere")
    take_picture(viewer, "review_keys_elsewhere.png")
    qtbot.keyClick(canvas, F)
    assert (shown(widget), layer.mode) == (second, "fill")
    qtbot.mouseClick(page, Qt.MouseButton.LeftButton, pos=page.hint.geometry().center())
    assert page.hint.text() != say("viewer.check-keys-elsewhere")
    press_key(qtbot, F)
    assert shown(widget) == third
    widget.message.say(mild=["a text that can be marked"])
    label = next(label for label in widget.message.findChildren(QLabel) if label.isVisible())
    label.setFocus()
    press_key(qtbot, U)
    assert shown(widget) not in (first, second, third)


def test_a_check_goes_on_when_the_dock_that_asked_for_it_is_closed(
    docked: Any, folder: Path, qtbot: Any, press: Any
) -> None:
    viewer, widget = docked
    frame, movie = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Movie")
    qtbot.waitUntil(movie.isVisible, timeout=5_000)
    movie.panel.show_session(open_session(folder))
    movie.panel.check_cells.emit(folder)
    write_name(qtbot, widget, "Anna")
    press(widget.start_button)
    gone = weakref.ref(movie)
    frame.title.close_button.click()
    del movie, frame
    qtbot.waitUntil(lambda: gc.collect() >= 0 and gone() is None, timeout=5_000)
    press_key(qtbot, T)
    press(widget.check.stop)  # nobody is left to be told
    assert not widget.message.sentences
    assert len(rows_of(folder)) == 1


def test_it_is_left_and_gone_on_with_and_a_second_person_checks_the_same(
    docked: Any, folder: Path, cells: Any, qtbot: Any, press: Any, take_picture: Any
) -> None:
    viewer, widget = docked
    truth = cells[1]
    begin_check(qtbot, press, widget, folder, "Anna")
    for _ in range(12):
        press_key(qtbot, KEY[truth[shown(widget)]])
    with qtbot.waitSignal(widget.reviewed) as reviewed:
        press(widget.check.stop)
    assert reviewed.args == [folder]
    assert is_said("viewer.check-done-by-you", widget.status.text(), cells=12)
    assert widget.start_button.text() == say("viewer.check-go-on", name="Anna")
    widget.cells.value = "30"
    press(widget.start_button)
    assert widget.check.place.text() == say("viewer.check-place", at=13, cells=30)
    press_key(qtbot, Z)  # what was answered before the pause can be withdrawn too
    assert shown(widget) == int(rows_of(folder)[11][1])
    assert widget.check.place.text() == say("viewer.check-place", at=12, cells=30)
    while checking(widget):
        press_key(qtbot, KEY[truth[shown(widget)]])
    hers = [int(row[1]) for row in rows_of(folder) if row[2] != "withdrawn"]

    press(widget.more)
    write_name(qtbot, widget, "Bert")
    assert is_said("viewer.check-done-by", widget.status.text(), name="Anna", cells=30)
    widget.cells.value = "30"
    press(widget.start_button)
    seen = []
    while checking(widget):
        seen.append(shown(widget))
        assert widget.check.so_far.text() == ""  # it would tell what Anna said
        right = KEY[truth[seen[-1]]]
        press_key(qtbot, right if len(seen) > 1 else (T if right is F else F))
        qtbot.waitUntil(lambda: not widget._catching_up.isActive(), timeout=5_000)
    assert set(seen) == set(hers)
    agreement, counts = unescape(widget.agreement.text()), {"equal": 29, "cells": 30}
    assert is_said("viewer.check-agreement", agreement, one="Anna", other="Bert", **counts)
    take_picture(viewer, "review_two.png")
    press(widget.more)
    write_name(qtbot, widget, "ANNA")
    assert widget.start_button.text() == say("viewer.check-go-on", name="Anna")


@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_what_goes_wrong_is_said_and_no_answer_is_lost(
    docked: Any, small_disk: Path, cells: Any, tmp_path: Path, qtbot: Any, press: Any
) -> None:
    _, widget = docked
    press(widget.start_button)
    assert any_said("viewer.check-no-session", widget.message.grave)
    widget.open_session(tmp_path)
    assert any_said("session.not-a-session", widget.message.grave)
    running = begin(tmp_path / "running")
    widget.open_session(tmp_path / "running")
    assert any_said("session.review-running", widget.message.grave)
    running.close(account_of([]), "finished", "source-ended")

    folder = closed(small_disk / "S", cells[0])
    widget.open_session(folder)
    write_name(qtbot, widget, " ")
    press(widget.start_button)
    assert any_said("viewer.check-no-name", widget.message.grave)
    write_name(qtbot, widget, "Anna")
    press(widget.start_button)
    full = small_disk / "full"
    with full.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    cell = shown(widget)
    press_key(qtbot, T)
    assert any_said("session.records-disk-full", widget.message.grave)
    assert shown(widget) == cell
    full.unlink()
    press_key(qtbot, T)
    assert (widget.message.sentences, rows_of(folder)) == ((), [["Anna", str(cell), "tank-treading"]])

    # Pictures that were damaged: the person is told, and no other cell's are shown in their place.
    press(widget.check.stop)
    for chunk in (folder / "crops.zarr" / "crops").glob("c.*"):
        chunk.write_bytes(bytes(len(chunk.read_bytes())))
    press(widget.start_button)
    cell = shown(widget)
    assert any_said("viewer.check-no-pictures", widget.message.sentences)
    assert widget.check.player._images == []
    press_key(qtbot, U)
    assert rows_of(folder)[-1] == ["Anna", str(cell), "unreliable"]


def test_it_stands_in_front_of_the_other_docks(
    docked: Any, folder: Path, qtbot: Any, monkeypatch: Any, take_picture: Any
) -> None:
    viewer, widget = docked
    own = widget.parentWidget()
    movie, _ = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Movie")
    qtbot.waitUntil(movie.isVisible, timeout=5_000)
    widget.open_session(folder)
    assert movie in viewer.window._qt_window.tabifiedDockWidgets(own)
    take_picture(viewer, "review_beside_movie.png")
    # A busy X server tells a new window's first size late, after it was asked for another.
    qtbot.waitUntil(lambda: viewer.window._qt_window.height() == 728, timeout=5_000)
    assert (widget.width(), widget.isVisible()) == (DOCK_PX, True)
    assert widget.session.line_edit.value == str(folder)
    assert (newest_session(folder.parent), newest_session(folder)) == (folder, None)
