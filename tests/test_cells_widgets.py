"""Judged cells looked at and changed by hand: real widgets over a real session."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from factories import account_of, begin, closed, no_screen, some_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Points
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QCursor, QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline.run import Run
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.pipeline.status import JudgedCell
from napari_rbcflow.sentences import say
from napari_rbcflow.session import Session, open_session, reader, tables, verify
from napari_rbcflow.session.browse import (
    ALL,
    BY_TIME,
    CHANGED,
    COUNTED,
    KINDS,
    MEASURES,
    CellBrowser,
    CellOrder,
    CellQuery,
)
from napari_rbcflow.session.change_log import ChangeLog
from napari_rbcflow.session.label_edits import JUDGED, STRUCK_OUT
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.cells import CellViewer
from napari_rbcflow.widgets.cells_strip import REMEMBERED, CellStrip
from napari_rbcflow.widgets.label_styles import LABEL_STYLES
from napari_rbcflow.widgets.movie import CELLS, MovieWidget
from napari_rbcflow.widgets.remembered import load_settings

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample movie's session; do not touch it, `folder` may be.

    Stage 1 lets more pass than it ships with, so that there is a cell of either kind.
    """
    from napari_rbcflow.widgets.npe2_hooks import folder

    out = tmp_path_factory.mktemp("analysed") / "S"
    shipped = TwoStage.load("cpu")
    lenient = replace(shipped.stage1, threshold=0.7, thresholds=None)
    settings = RunSettings(patient="simulated", device="cpu", background="movie", ring_seconds=1.0)
    two_stage = TwoStage(lenient, shipped.stage2, torch.device("cpu"))
    run = Run(open_movie(folder() / "flow_chamber.tif"), out, settings, two_stage)
    run.start()
    assert run.wait(120)
    return out


@pytest.fixture
def folder(analysed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(analysed, tmp_path / "S"))


@pytest.fixture(autouse=True)
def pointer_aside(qtbot: Any) -> Iterator[None]:
    """The screen's pointer is nowhere near a widget, which it would hold still."""
    before = QCursor.pos()
    QCursor.setPos(0, 0)
    yield
    QCursor.setPos(before)


def judged_of(session: Session) -> list[JudgedCell]:
    """What a run would have told of a session's cells, oldest first."""
    told = []
    for row in session.cells.itertuples():
        crops = session.crops(row.cell)
        told.append(
            JudgedCell(
                cell=row.cell,
                label=Label(row.label),
                p_reliable=None if np.isnan(row.p_reliable) else row.p_reliable,
                p_tank_treading=None if np.isnan(row.p_tank_treading) else row.p_tank_treading,
                reason=row.reason,
                first_frame=row.first_frame,
                last_frame=row.last_frame,
                frames=row.frames,
                y_px=row.y_last_px,
                x_px=row.x_last_px,
                crop=crops[len(crops) // 2],
            )
        )
    return told


def of_label(session: Session, *labels: str) -> list[int]:
    return [int(cell) for cell in session.cells["cell"][session.cells["label"].isin(labels)]]


def click(qtbot: Any, strip: Any, cell: int) -> None:
    qtbot.mouseClick(strip._tiles, Qt.MouseButton.LeftButton, pos=strip.place_of(cell))


def colour_under(widget: Any, place: Any) -> str:
    """The label whose colour that is nearest to: a test's screen may have few colours."""

    def parts(colour: Any) -> Any:
        return np.array([colour.red(), colour.green(), colour.blue()])

    seen, palette = parts(widget.grab().toImage().pixelColor(place)), widget.palette()
    far = {label: np.abs(parts(style.ink.on(palette)) - seen).sum() for label, style in LABEL_STYLES.items()}
    return min(far, key=far.__getitem__)


def test_the_strip(folder: Path, qtbot: Any, take_picture: Any) -> None:
    session = open_session(folder)
    strip = CellStrip()
    qtbot.addWidget(strip)
    strip.resize(420, 320)
    with qtbot.waitExposed(strip):
        strip.show()
    told = judged_of(session)
    strip.add(told)
    counted = of_label(session, "tank-treading", "flipping")
    assert len(counted) > 2
    qtbot.waitUntil(lambda: strip.cells == counted[::-1], timeout=5_000)
    for cell, label in zip(counted, open_session(folder).cells.set_index("cell").label[counted], strict=True):
        middle = strip.place_of(cell)
        assert strip._tiles.rect().contains(middle)
        frame = middle - QPoint(0, 33)
        assert colour_under(strip._tiles, frame) == label

    with qtbot.waitSignal(strip.chosen, timeout=2_000) as chosen:
        click(qtbot, strip, counted[0])
    assert chosen.args == [counted[0]]

    before = strip.grab().toImage()
    strip.mark(counted[0], STRUCK_OUT)
    strip.mark(counted[1], "unreliable")
    assert strip.grab().toImage() != before
    take_picture(strip, "strip_counted.png")
    strip.mark(counted[0], None)
    strip.mark(counted[1], session.cells.set_index("cell").label[counted[1]])
    assert strip.grab().toImage() == before

    strip.choice.setCurrentIndex(1)
    judged = of_label(session, "tank-treading", "flipping", "unreliable")
    assert strip.cells == judged[::-1]
    assert len(judged) < len(told)  # one was too short to be judged
    take_picture(strip, "strip_all.png")
    strip.clear()
    assert strip.cells == []


def test_the_strip_forgets_and_queues_nothing(folder: Path, qtbot: Any) -> None:
    told = [cell for cell in judged_of(open_session(folder)) if cell.label == Label.TANK_TREADING]
    strip = CellStrip()
    qtbot.addWidget(strip)
    strip.resize(420, 320)
    cells = [replace(told[k % len(told)], cell=k) for k in range(1, 2001)]
    for first in range(0, 1000, 50):  # while it is hidden
        strip.add(cells[first : first + 50])
    assert strip.cells == []
    with qtbot.waitExposed(strip):
        strip.show()
    assert strip.cells == list(range(1000, 1000 - REMEMBERED, -1))
    strip.add(cells[1000:])
    qtbot.waitUntil(lambda: strip.cells == list(range(2000, 2000 - REMEMBERED, -1)), timeout=5_000)
    strip.grab()
    drawn = strip._tiles._pictures
    assert 5 < len(drawn) <= REMEMBERED
    assert set(drawn) <= set(strip.cells)
    strip.add(cells[:10])
    strip.hide()
    assert not strip._timer.isActive()


def test_the_strip_stands_still_under_the_pointer(folder: Path, qtbot: Any) -> None:
    told = [cell for cell in judged_of(open_session(folder)) if cell.label == Label.TANK_TREADING]
    strip = CellStrip()
    qtbot.addWidget(strip)
    strip.resize(420, 320)
    with qtbot.waitExposed(strip):
        strip.show()
    strip.add([replace(told[0], cell=k) for k in range(1, 11)])
    qtbot.waitUntil(lambda: len(strip.cells) == 10, timeout=5_000)
    QCursor.setPos(strip._tiles.mapToGlobal(strip.place_of(8)))
    qtbot.waitUntil(lambda: strip._status.text() == say("viewer.strip-paused"), timeout=5_000)
    strip.add([replace(told[0], cell=11)])
    qtbot.waitUntil(lambda: strip._status.text() == say("viewer.strip-paused-newer", newer=1), timeout=5_000)
    assert strip.cells == list(range(10, 0, -1))
    with qtbot.waitSignal(strip.chosen, timeout=2_000) as chosen:
        click(qtbot, strip, 8)
    assert chosen.args == [8]
    QCursor.setPos(0, 0)
    qtbot.waitUntil(lambda: strip.cells == list(range(11, 0, -1)), timeout=5_000)


def test_a_label_is_changed_and_taken_back(folder: Path, qtbot: Any, press: Any, take_picture: Any) -> None:
    machine = (folder / "cells.csv").read_bytes()
    session = open_session(folder)
    flipping = of_label(session, "flipping")[0]
    viewer = CellViewer()
    qtbot.addWidget(viewer)
    viewer.resize(420, 720)
    with qtbot.waitExposed(viewer):
        viewer.show()
    assert viewer.show_cell(folder, flipping)
    assert f"Cell {flipping}" in viewer._heading.text()
    assert re.search(r"tank-treading (0\.|1\.|&[lg]t;0\.)", viewer._facts.text())
    assert not viewer.label_buttons["flipping"].isEnabled()
    assert not viewer.machine_button.isEnabled()
    playing = viewer.player.index
    qtbot.waitUntil(lambda: viewer.player.index != playing, timeout=5_000)
    take_picture(viewer, "cell_viewer.png")

    # Who changes a label is asked, and never taken from the computer.
    press(viewer.label_buttons[STRUCK_OUT])
    assert viewer.fault == say("viewer.who-first")
    assert ChangeLog(folder).all() == []
    viewer.who.setText("  Anna ")
    with qtbot.waitSignal(viewer.changed, timeout=2_000) as changed:
        press(viewer.label_buttons[STRUCK_OUT])
    ((change,),) = changed.args
    assert (change.cell, change.was, change.now, change.by) == (flipping, "flipping", STRUCK_OUT, "Anna")
    assert ChangeLog(folder).all() == [change]
    excluded = say("viewer.cell-by-hand", label="X").removesuffix("X")
    assert excluded in viewer._heading.text()
    assert say("viewer.cell-changed-by", name="Anna", when="") in viewer._facts.text()
    assert load_settings().person == "Anna"
    press(viewer.label_buttons["tank-treading"])
    figure = open_session(folder).fraction_by_hand
    assert figure is not None
    tank_treading = len(of_label(session, "tank-treading")) + 1
    assert figure.estimate == pytest.approx(tank_treading / session.fraction.n)
    take_picture(viewer, "cell_viewer_changed.png")
    press(viewer.machine_button)
    assert [c.now for c in ChangeLog(folder).all()] == [STRUCK_OUT, "tank-treading", "flipping"]
    assert open_session(folder).fraction_by_hand is None
    assert excluded not in viewer._heading.text()
    assert not viewer.machine_button.isEnabled()
    assert (folder / "cells.csv").read_bytes() == machine
    assert verify(folder).findings == []

    # The same person goes on, and need not say so; with another session it may be another one.
    other = Path(shutil.copytree(folder, folder.with_name("other")))
    assert viewer.show_cell(folder, of_label(session, "tank-treading")[0])
    assert (viewer.who.text(), viewer.sign.isVisible()) == ("Anna", False)
    assert viewer.show_cell(other, flipping)
    take_picture(viewer, "cell_viewer_who.png")
    press(viewer.label_buttons[STRUCK_OUT])
    assert viewer.fault == say("viewer.who", name="Anna")
    assert ChangeLog(other).all() == ChangeLog(folder).all()
    press(viewer.sign)
    assert not viewer.sign.isVisible()
    assert viewer.fault == ""
    press(viewer.label_buttons[STRUCK_OUT])
    assert (ChangeLog(other).all()[-1].now, ChangeLog(other).all()[-1].by) == (STRUCK_OUT, "Anna")
    new = CellViewer()
    qtbot.addWidget(new)
    assert new.show_cell(folder, flipping)
    new.who.setText("Bert")
    new.label_buttons[STRUCK_OUT].click()
    assert ChangeLog(folder).all()[-1].by == "Bert"

    # A frame is looked at by itself.

    qtbot.mouseClick(viewer.film, Qt.MouseButton.LeftButton, pos=viewer.film.place_of(3))
    assert viewer.player.index == 3
    assert not viewer.player.playing
    viewer.player.set_playing(True)
    viewer.hide()
    assert not viewer.player._timer.isActive()
    viewer.show()
    assert viewer.player._timer.isActive()


def test_stepping_through_cells(folder: Path, qtbot: Any, press: Any) -> None:
    session = open_session(folder)
    counted = of_label(session, "tank-treading", "flipping")
    viewer = CellViewer()
    qtbot.addWidget(viewer)
    with qtbot.waitExposed(viewer):
        viewer.show()
    assert viewer.browse(folder)
    stepped = [viewer.shown.cell]
    viewer.jump.connect(stepped.append)
    for _ in counted[1:]:
        press(viewer.next)
    assert stepped == counted
    place = viewer._place.text()
    press(viewer.next)
    assert viewer._place.text() == say("viewer.none-after", place=place)
    assert stepped == counted  # and nobody is sent anywhere
    press(viewer.previous)
    assert stepped[-1] == counted[-2]

    viewer.kind.setCurrentText("unreliable")
    unreliable = of_label(session, "unreliable")
    assert viewer._place.text() == say("viewer.place", kind="Unreliable", cells=len(unreliable))
    press(viewer.next)
    everyone = session.cells["cell"].tolist()
    after = [c for c in unreliable if everyone.index(c) > everyone.index(counted[-2])]
    assert stepped[-1] == after[0]
    viewer.kind.setCurrentText(CHANGED)
    assert viewer._place.text() == say("viewer.place", kind="Changed by hand", cells=0)
    viewer.who.setText("Anna")
    press(viewer.label_buttons["tank-treading"])
    assert viewer._place.text() == say("viewer.place-of", kind="Changed by hand", at=1, cells=1)

    # A cell that was not judged is shown, but nobody can make it count.
    viewer.kind.setCurrentText(ALL)
    short = of_label(session, "too-short")[0]
    assert viewer.show_cell(folder, short)
    assert say("viewer.why-too-short") in viewer._facts.text()
    assert not any(button.isEnabled() for button in viewer.label_buttons.values())


ROWS = st.lists(
    st.tuples(
        st.sampled_from([*map(str, JUDGED), "too-short"]),
        st.integers(0, 4),  # last frame
        st.sampled_from([0.0, 0.2, 0.5, 1.0, np.nan]),  # probabilities
        st.sampled_from([0.0, 0.5, np.nan]),
        st.sampled_from([-3.0, 0.0, 800.5, np.nan]),  # speed
        st.integers(1, 4),  # frames
    ),
    max_size=14,
)
LIMIT = st.none() | st.sampled_from([-3.0, 0.0, 0.3, 0.5, 2.0])
QUERIES = st.builds(
    CellQuery,
    st.sampled_from(KINDS),
    st.sampled_from([BY_TIME, *MEASURES]),
    st.booleans(),
    st.dictionaries(st.sampled_from(MEASURES), st.tuples(LIMIT, LIMIT), max_size=3),
)


def chosen_by(table: pd.DataFrame, query: CellQuery, changed: set[int]) -> tuple[list[int], list[int]]:
    """All cells in a query's order and those that it chooses, said once more in another way."""

    def is_chosen(row: Any) -> bool:
        kinds = {COUNTED: row.label in ("tank-treading", "flipping"), CHANGED: row.cell in changed, ALL: True}
        return kinds.get(query.kind, row.label == query.kind) and all(
            low is high is None
            or (-np.inf if low is None else low) <= getattr(row, name) <= (np.inf if high is None else high)
            for name, (low, high) in query.limits.items()
        )

    def place(row: Any) -> Any:
        value = getattr(row, query.sort_by)
        has_none = bool(np.isnan(value))
        return has_none, 0 if has_none else -value if query.descending else value, row.last_frame, row.cell

    everyone = sorted(table.itertuples(), key=place)
    return [row.cell for row in everyone], [row.cell for row in everyone if is_chosen(row)]


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, query=QUERIES, grown=st.lists(st.integers(0, 3), max_size=8), seed=st.integers(0, 99))
def test_steps_visit_exactly_what_a_query_chooses(
    rows: list[Any], query: CellQuery, grown: list[int], seed: int
) -> None:
    names = ["label", "last_frame", *MEASURES]
    table = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(("last_frame", "frames"), "int64"))
    table.insert(0, "cell", np.random.default_rng(seed).permutation(len(rows)) + 1)
    changed = {int(cell) for cell in table["cell"] if cell % 3 == 0}
    everyone, expected = chosen_by(table, query, changed)
    order = CellOrder.of(table, query, changed)
    for steps, wanted in ((1, expected), (-1, expected[::-1])):
        walked, cell = [], order.step(None, steps)
        while cell is not None:
            walked.append(cell)
            cell = order.step(cell, steps)
        assert walked == wanted
    assert order.cells[order.chosen].tolist() == expected
    for at, cell in enumerate(everyone):
        before = [c for c in expected if everyone.index(c) < at]
        after = [c for c in expected if everyone.index(c) > at]
        assert order.step(cell, -1) == (before[-1] if before else None)
        assert order.step(cell, 1) == (after[0] if after else None)
        number = expected.index(cell) + 1 if cell in expected else None
        assert order.count(cell) == (number, len(expected))
    assert order.step(1000, 1) is None

    # While the table grows, a step leads to the next of what is there by then.
    n, cell = 0, None
    for more in grown:
        n += more
        so_far = table.iloc[:n]
        everyone, expected = chosen_by(so_far, query, changed)
        behind = 0 if cell is None else everyone.index(cell) + 1
        after = [c for c in expected if everyone.index(c) >= behind]
        stepped = CellOrder.of(so_far, query, changed).step(cell, 1)
        assert stepped == (after[0] if after else None)
        cell = cell if stepped is None else stepped


def test_cells_of_a_session_are_sorted_and_limited(tmp_path: Path) -> None:
    pairs = some_pairs(90)
    writer = begin(tmp_path / "S")
    browser = CellBrowser(writer.folder)
    queries = [
        CellQuery(ALL, "p_reliable", descending=True),
        CellQuery(COUNTED, "speed_um_per_s", limits={"frames": (10, None), "p_tank_treading": (0.2, 0.9)}),
        CellQuery(CHANGED),
    ]
    for first in range(0, 90, 30):
        writer.keep(pairs[first : first + 30])
        flipping = next(track.cell for track, said in pairs[first:] if said.label == "flipping")
        ChangeLog(writer.folder).add(flipping, STRUCK_OUT, "Anna")
        session = open_session(writer.folder)
        for query in queries:
            _, expected = chosen_by(session.cells, query, set(session.changes_in_force))
            rows = browser.rows(query)
            order = browser.order(query)
            assert [row.cell for row in rows] == order.cells[order.chosen].tolist() == expected
            for row in rows:
                record = browser.look(row.cell)
                assert row.present_label == record.present_label
                assert row.p_reliable == record.p_reliable
                assert (row.frames, row.reason) == (record.frames, record.reason)
    assert browser.order(CellQuery(CHANGED)).count(None) == (None, 3)


@pytest.fixture
def viewer(folder: Path, qtbot: Any) -> CellViewer:
    """One that shows a session, alone in a window that has the keys."""
    viewer = CellViewer()
    qtbot.addWidget(viewer)
    viewer.resize(410, 594)
    with qtbot.waitActive(viewer):
        viewer.show()
        viewer.activateWindow()
    assert viewer.browse(folder)
    viewer.who.setText("Anna")
    qtbot.mouseClick(viewer.player, Qt.MouseButton.RightButton)  # whoever clicks it has the keys
    assert viewer.hasFocus()
    return viewer


def pick(qtbot: Any, viewer: CellViewer, cell: int, *held: Qt.KeyboardModifier) -> None:
    modifier = held[0] if held else Qt.KeyboardModifier.NoModifier
    place = viewer.gallery.place_of(cell)
    assert viewer.gallery.viewport().rect().contains(place)
    qtbot.mouseClick(viewer.gallery.viewport(), Qt.MouseButton.LeftButton, modifier, place)


def key(qtbot: Any, key: Any, *held: Qt.KeyboardModifier) -> None:
    """To whatever has the focus."""
    qtbot.keyClick(QApplication.focusWidget(), key, held[0] if held else Qt.KeyboardModifier.NoModifier)


CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


def test_keys_step_exclude_and_undo(folder: Path, viewer: CellViewer, qtbot: Any) -> None:
    session = open_session(folder)
    counted = of_label(session, "tank-treading", "flipping")
    log = ChangeLog(folder)
    key(qtbot, Qt.Key.Key_N)
    key(qtbot, Qt.Key.Key_N)
    key(qtbot, Qt.Key.Key_P)
    assert viewer.shown.cell == counted[1]
    key(qtbot, Qt.Key.Key_X)
    assert log.labels() == {counted[1]: STRUCK_OUT}
    key(qtbot, Qt.Key.Key_N)
    key(qtbot, Qt.Key.Key_Delete)
    assert log.labels() == dict.fromkeys(counted[1:3], STRUCK_OUT)
    key(qtbot, Qt.Key.Key_X)  # which it is already
    assert len(log.all()) == 2

    # Undo shows what it undoes, redo too; both are lines of their own.
    for _ in range(2):
        key(qtbot, Qt.Key.Key_Z, CTRL)
    assert viewer.shown.cell == counted[1]
    assert log.labels() == {}
    assert viewer._place.text() == say("viewer.undone", cells=1)
    key(qtbot, Qt.Key.Key_Z, CTRL)
    assert viewer._place.text() == say("viewer.nothing-to-undo")
    key(qtbot, Qt.Key.Key_Y, CTRL)
    key(qtbot, Qt.Key.Key_Z, CTRL | SHIFT)
    assert log.labels() == dict.fromkeys(counted[1:3], STRUCK_OUT)
    assert [change.now for change in log.all()[2:4]] == [change.was for change in log.all()[1::-1]]
    assert len(log.all()) == 6

    # What is typed is typed.
    for field in (viewer.who, *viewer.query.limits["frames"]):
        viewer.query.unfold.setChecked(True)
        field.setFocus()
        field.selectAll()
        qtbot.keyClicks(field, "pxn")
        key(qtbot, Qt.Key.Key_Delete)
        key(qtbot, Qt.Key.Key_Z, CTRL)
        assert (viewer.shown.cell, len(log.all())) == (counted[2], 6)
    viewer.query.clear()
    viewer.who.setText("Anna")
    key(qtbot, Qt.Key.Key_Return)
    assert viewer.hasFocus()

    # A button that was pressed is disabled, and nobody types into the next field by that.
    viewer.label_buttons["unreliable"].setFocus()
    key(qtbot, Qt.Key.Key_Space)
    assert viewer.hasFocus()
    key(qtbot, Qt.Key.Key_Z, CTRL)
    assert log.labels()[counted[2]] == STRUCK_OUT

    # Somebody else changed the cell since: nothing of theirs is undone.
    log.add(counted[2], "unreliable", "Ben")
    key(qtbot, Qt.Key.Key_Z, CTRL)
    assert viewer.fault == say("viewer.changed-elsewhere", cell=counted[2])
    assert log.labels()[counted[2]] == "unreliable"
    assert verify(folder).findings == []
    # Where nothing can be seen, nothing is changed.
    viewer.hide()
    viewer._key("exclude")
    assert log.labels()[counted[2]] == "unreliable"


def test_order_and_limits(folder: Path, viewer: CellViewer, qtbot: Any, take_picture: Any) -> None:
    cells = open_session(folder).cells
    judged = cells[cells["label"].isin(("tank-treading", "flipping", "unreliable"))]
    query = viewer.query
    assert not query.limits["frames"][0].isVisible()
    viewer.kind.setCurrentText(ALL)
    query.sort.setCurrentIndex(query.sort.findData("p_reliable"))
    qtbot.mouseClick(query.descending, Qt.MouseButton.LeftButton)
    best = judged.sort_values(["p_reliable", "last_frame", "cell"], ascending=[False, True, True])
    qtbot.mouseClick(query.unfold, Qt.MouseButton.LeftButton)
    least = sorted(judged["frames"])[len(judged) // 2]
    query.limits["frames"][0].setFocus()
    qtbot.keyClicks(query.limits["frames"][0], f"{least}")
    query.limits["p_reliable"][1].setFocus()
    qtbot.keyClicks(query.limits["p_reliable"][1], "0,9")
    key(qtbot, Qt.Key.Key_Return)
    wanted = best[(best["frames"] >= least) & (best["p_reliable"] <= 0.9)]["cell"].tolist()
    take_picture(viewer, "cell_viewer_limits.png")
    qtbot.mouseClick(query.unfold, Qt.MouseButton.LeftButton)
    assert query.unfold.text() == say("viewer.limits-set", n=2)
    viewer.shown = None
    stepped = []
    for _ in wanted:
        key(qtbot, Qt.Key.Key_N)
        stepped.append(viewer.shown.cell)
    assert stepped == wanted
    place = viewer._place.text()
    key(qtbot, Qt.Key.Key_N)
    assert viewer._place.text() == say("viewer.none-after", place=place)

    qtbot.mouseClick(query.unfold, Qt.MouseButton.LeftButton)
    query.limits["frames"][0].setFocus()
    query.limits["frames"][0].selectAll()
    qtbot.keyClicks(query.limits["frames"][0], "many")
    qtbot.waitUntil(lambda: query.unfold.text() == say("viewer.limits-set", n=1), timeout=5_000)
    assert query._fault.text() == say("viewer.limit-not-a-number", text="many")
    qtbot.mouseClick(query._clear, Qt.MouseButton.LeftButton)
    assert (query._fault.text(), query.unfold.text()) == ("", say("viewer.limits"))
    assert query.query == CellQuery(ALL, "p_reliable", descending=True)


def test_many_cells_are_changed_together(
    folder: Path, viewer: CellViewer, qtbot: Any, press: Any, take_picture: Any
) -> None:
    session, log = open_session(folder), ChangeLog(folder)
    counted = of_label(session, "tank-treading", "flipping")
    gallery = viewer.gallery
    viewer.kind.setCurrentText(ALL)
    press(viewer.gallery_button)
    cells = [row.cell for row in gallery.cells.rows]
    assert cells == session.cells["cell"].tolist()
    assert gallery.selected == [viewer.shown.cell]
    viewer.kind.setCurrentText(COUNTED)
    cells = [row.cell for row in gallery.cells.rows]
    assert cells == counted
    qtbot.waitUntil(lambda: all(gallery.crops.images(cell) for cell in cells), timeout=5_000)
    image = gallery.crops.images(cells[0])[0]
    crop = session.crops(cells[0])[0]
    assert (image.width(), image.height()) == crop.shape[::-1]
    colour = colour_under(gallery.viewport(), gallery.place_of(cells[0]) - QPoint(31, 40))
    assert colour == session.cells.set_index("cell").label[cells[0]]
    before = gallery.grab().toImage()
    qtbot.waitUntil(lambda: gallery.grab().toImage() != before, timeout=5_000)  # it moves

    pick(qtbot, viewer, cells[0])
    pick(qtbot, viewer, cells[2], SHIFT)
    pick(qtbot, viewer, cells[1], CTRL)
    assert gallery.selected == [cells[0], cells[2]]
    with qtbot.waitSignal(viewer.changed, timeout=2_000) as changed:
        key(qtbot, Qt.Key.Key_X)
    assert [change.cell for change in changed.args[0]] == gallery.selected == [cells[0], cells[2]]
    assert log.labels() == {cells[0]: STRUCK_OUT, cells[2]: STRUCK_OUT}
    assert [change.by for change in log.all()] == ["Anna", "Anna"]
    assert not viewer.label_buttons[STRUCK_OUT].isEnabled()
    take_picture(viewer, "gallery_excluded.png")
    key(qtbot, Qt.Key.Key_A, CTRL)
    assert gallery.selected == cells
    press(viewer.label_buttons["unreliable"])
    assert log.labels() == dict.fromkeys(cells, "unreliable")
    key(qtbot, Qt.Key.Key_Z, CTRL)  # the whole action, and no more
    assert log.labels() == {cells[0]: STRUCK_OUT, cells[2]: STRUCK_OUT}
    press(viewer.machine_button)
    assert log.labels() == {}
    key(qtbot, Qt.Key.Key_Z, CTRL)
    key(qtbot, Qt.Key.Key_Z, CTRL)
    assert log.labels() == {}
    key(qtbot, Qt.Key.Key_Y, CTRL)
    assert log.labels() == {cells[0]: STRUCK_OUT, cells[2]: STRUCK_OUT}
    assert gallery.selected == [cells[0], cells[2]]
    assert verify(folder).findings == []

    # From cell to cell, and one of them by itself.
    pick(qtbot, viewer, cells[1])
    key(qtbot, Qt.Key.Key_N)
    assert gallery.selected == [cells[2]]
    key(qtbot, Qt.Key.Key_P)
    key(qtbot, Qt.Key.Key_P)
    assert gallery.selected == [cells[0]]
    key(qtbot, Qt.Key.Key_Right, SHIFT)
    assert gallery.selected == cells[:2]
    with qtbot.waitSignal(viewer.jump, timeout=2_000) as jumped:
        key(qtbot, Qt.Key.Key_Return)
    assert (jumped.args, viewer.shown.cell, viewer.many) == ([cells[1]], cells[1], False)
    assert not gallery._plays.isActive()

    # Not all of these can be changed, so none is.
    viewer.kind.setCurrentText(ALL)
    press(viewer.gallery_button)
    key(qtbot, Qt.Key.Key_A, CTRL)
    lines = (folder / "changes.csv").read_bytes()
    key(qtbot, Qt.Key.Key_X)
    assert viewer.fault.startswith(say("viewer.none-changed", why="Cell ")[:5])
    assert viewer.fault.endswith(say("viewer.none-changed", why=""))
    assert (folder / "changes.csv").read_bytes() == lines
    viewer.clear()
    assert (viewer.many, gallery.cells.rows) == (False, [])


def test_a_frame_drawn_with_the_mouse_selects(viewer: CellViewer, qtbot: Any, press: Any) -> None:
    viewer.kind.setCurrentText(ALL)
    press(viewer.gallery_button)
    gallery = viewer.gallery
    cells = [row.cell for row in gallery.cells.rows]
    columns = gallery.viewport().width() // gallery.tile.width()
    begin, end = gallery.place_of(cells[0]), gallery.place_of(cells[columns + 1])
    qtbot.mousePress(gallery.viewport(), Qt.MouseButton.LeftButton, pos=begin)
    for place in ((begin + end) / 2, end):
        move = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(place),
            QPointF(gallery.viewport().mapToGlobal(place)),
            Qt.MouseButton.NoButton,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(gallery.viewport(), move)
    qtbot.mouseRelease(gallery.viewport(), Qt.MouseButton.LeftButton, pos=end)
    assert gallery.selected == [cells[0], cells[1], cells[columns], cells[columns + 1]]
    said = say("viewer.gallery-selected", place=say("viewer.place", kind="All", cells=len(cells)), cells=4)
    assert viewer._place.text() == said


def test_a_gallery_of_a_run_that_goes_on(tmp_path: Path, qtbot: Any, press: Any) -> None:
    pairs = some_pairs(60)
    writer = begin(tmp_path / "S")
    writer.keep(pairs[:30])
    viewer = CellViewer()
    qtbot.addWidget(viewer)
    with qtbot.waitExposed(viewer):
        viewer.show()
    assert viewer.browse(writer.folder, ALL)
    press(viewer.gallery_button)
    gallery = viewer.gallery
    assert len(gallery.cells.rows) == 30
    chosen = gallery.cells.rows[7].cell
    gallery.select([chosen])
    assert not viewer.newer.isVisible()
    writer.keep(pairs[30:])
    qtbot.waitUntil(lambda: viewer.newer.isVisible(), timeout=5_000)
    assert len(gallery.cells.rows) == 30  # nobody can click what moves
    assert viewer.newer.text() == say("viewer.gallery-newer", cells=30)
    press(viewer.newer)
    assert (len(gallery.cells.rows), gallery.selected) == (60, [chosen])
    assert not viewer.newer.isVisible()
    last = gallery.cells.rows[-1].cell
    gallery.select([last])
    qtbot.waitUntil(lambda: bool(gallery.crops.images(last)), timeout=5_000)
    writer.close(account_of(pairs), "finished", "source-ended")
    viewer.gallery.select([row.cell for row in gallery.cells.rows if row.judged])
    viewer.label_buttons[STRUCK_OUT].click()
    assert verify(writer.folder).findings == []

    # Crops that are damaged are said so, tile by tile.
    shutil.rmtree(writer.folder / "crops.zarr" / "crops")
    viewer.clear()
    assert not viewer.browse(writer.folder, ALL)
    press(viewer.gallery_button)
    first = gallery.cells.rows[0].cell
    qtbot.waitUntil(lambda: gallery.crops.images(first) == [], timeout=5_000)
    qtbot.waitUntil(lambda: first in gallery.cells.unreadable, timeout=5_000)
    tip = gallery.cells.data(gallery.cells.index(0), Qt.ItemDataRole.ToolTipRole)
    assert say("viewer.gallery-unreadable") in tip


@pytest.mark.slow
def test_six_thousand_cells(tmp_path: Path, qtbot: Any, press: Any) -> None:
    """They open at once, and what is read does not hold up the window."""
    folder = closed(tmp_path / "S", some_pairs(6000, longest=12), batch=500)
    viewer = CellViewer()
    qtbot.addWidget(viewer)
    viewer.resize(410, 594)
    with qtbot.waitExposed(viewer):
        viewer.show()
    assert viewer.browse(folder, ALL)
    began = time.perf_counter()
    press(viewer.gallery_button)
    viewer.gallery.viewport().repaint()
    assert time.perf_counter() - began < 1.0
    assert len(viewer.gallery.cells.rows) == 6000
    bar, took = viewer.gallery.verticalScrollBar(), []
    for at in range(0, bar.maximum(), bar.maximum() // 100):
        began = time.perf_counter()
        bar.setValue(at)
        viewer.gallery.viewport().repaint()
        QApplication.processEvents()
        took.append(time.perf_counter() - began)
    assert np.median(took) < 0.03
    shown = viewer.gallery.cells.rows[-1].cell
    bar.setValue(bar.maximum())
    qtbot.waitUntil(lambda: bool(viewer.gallery.crops.images(shown)), timeout=5_000)
    assert len(viewer.gallery.crops._read) < 1000  # and not all that was passed by


def test_a_table_that_grows_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = some_pairs(90)
    writer = begin(tmp_path / "S")
    browser = CellBrowser(writer.folder)
    parsed: list[int] = []
    parse = tables.parsed
    for module in (reader, tables):
        monkeypatch.setattr(module, "parsed", lambda *given: parsed.append(len(given[1])) or parse(*given))
    for first in range(0, 90, 30):
        writer.keep(pairs[first : first + 30])
        cell = pairs[first][0].cell
        assert browser.look(cell).cell == cell
        assert browser.order(CellQuery(ALL)).count(cell)[1] == first + 30
        pd.testing.assert_frame_equal(browser.session.cells, open_session(writer.folder).cells)
    size = (writer.folder / "cells.csv").stat().st_size
    # Three times by the browser, each time what was new, and three times whole, by the comparison.
    assert len(parsed) == 6
    assert sum(parsed[::2]) < 1.2 * size
    writer.close(account_of(pairs), "finished", "source-ended")  # sorted: another file
    pd.testing.assert_frame_equal(browser.session.cells, open_session(writer.folder).cells)
    assert browser.session.run["status"] == "finished"

    # Rows that a writer took back are not kept in mind.
    table = writer.folder / "cells.csv"
    lines = table.read_bytes().splitlines(keepends=True)
    with table.open("r+b") as file:
        file.truncate(len(b"".join(lines[:40])))
        file.seek(0, 2)
        file.write(b"".join(lines[60:]))
    pd.testing.assert_frame_equal(browser.session.cells, open_session(writer.folder).cells)


def test_a_run_that_goes_on(tmp_path: Path, qtbot: Any, press: Any) -> None:
    pairs = some_pairs(60)
    writer = begin(tmp_path / "S")
    writer.keep(pairs[:30])
    viewer = CellViewer()
    qtbot.addWidget(viewer)
    viewer.show()
    late = next(track for track, said in pairs[30:] if said.label == "flipping")
    for track, said in pairs[:30]:
        assert viewer.show_cell(writer.folder, track.cell)
        assert np.array_equal(viewer.shown.sequence.crops, track.crops)
        assert viewer.shown.label == said.label
    assert not viewer.show_cell(writer.folder, late.cell)
    assert f"has no cell {late.cell}" in viewer.fault
    assert viewer.shown is None  # nobody may take the cell before for this one
    assert not any(button.isEnabled() for button in viewer.label_buttons.values())
    writer.keep(pairs[30:])
    assert viewer.show_cell(writer.folder, late.cell)
    assert viewer.fault == ""
    flagged = ~late.seen, late.intruded, late.edge
    assert all(f"{n} of {len(late)} frames" in viewer._flags.text() for f in flagged if (n := int(f.sum())))
    viewer.who.setText("Anna")
    press(viewer.label_buttons[STRUCK_OUT])
    writer.close(account_of(pairs), "stopped", "user")
    assert verify(writer.folder).findings == []
    assert viewer.show_cell(writer.folder, late.cell)
    assert viewer.shown.present_label == STRUCK_OUT


def test_faults_are_one_sentence(folder: Path, tmp_path: Path, qtbot: Any, press: Any) -> None:
    viewer = CellViewer()
    qtbot.addWidget(viewer)
    viewer.show()
    assert not viewer.show_cell(tmp_path, 1)
    assert "is not a session folder" in viewer.fault
    flipping = of_label(open_session(folder), "flipping")[0]
    assert viewer.show_cell(folder, flipping)
    viewer.who.setText("Anna")
    (folder / "changes.csv").mkdir()
    press(viewer.label_buttons[STRUCK_OUT])
    assert viewer.fault.startswith(
        say("session.unreadable", path=folder / "changes.csv", why="").partition(" (")[0]
    )
    (folder / "changes.csv").rmdir()
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    with qtbot.waitSignal(viewer.changed, timeout=2_000):
        press(viewer.label_buttons[STRUCK_OUT])
    assert viewer.fault.startswith(say("session.report-not-updated", why="").partition(" (")[0])
    shutil.rmtree(folder / "crops.zarr")
    assert not viewer.show_cell(folder, of_label(open_session(folder), "tank-treading")[0])
    assert viewer.fault
    shutil.rmtree(folder)
    viewer.previous.click()
    assert viewer.fault


@pytest.mark.slow
def test_in_napari(folder: Path, make_napari_viewer: Any, qtbot: Any, press: Any, take_picture: Any) -> None:
    """As a person sees them, in docks."""
    window = make_napari_viewer(show=True)
    window.window.resize(1300, 950)
    strip, viewer = CellStrip(), CellViewer()
    window.window.add_dock_widget(strip, area="right", name="cells")
    window.window.add_dock_widget(viewer, area="right", name="cell")
    strip.chosen.connect(lambda cell: viewer.show_cell(folder, cell))
    viewer.changed.connect(lambda changes: [strip.mark(c.cell, c.now) for c in changes])
    session = open_session(folder)
    strip.add(judged_of(session))
    counted = of_label(session, "tank-treading", "flipping")
    qtbot.waitUntil(lambda: len(strip.cells) == len(counted), timeout=5_000)
    click(qtbot, strip, counted[0])
    assert viewer.shown.cell == counted[0]
    viewer.who.setText("Anna")
    press(viewer.label_buttons[STRUCK_OUT])
    assert open_session(folder).changes["now"].tolist() == [STRUCK_OUT]
    at = viewer.player.index
    qtbot.waitUntil(lambda: viewer.player.index != at, timeout=5_000)
    take_picture(window, "cells.png")
    window.window.remove_dock_widget(strip)
    window.window.remove_dock_widget(viewer)
    assert not viewer.player._timer.isActive()


@pytest.mark.slow
def test_keys_and_gallery_in_napari(
    folder: Path, make_napari_viewer: Any, qtbot: Any, press: Any, take_picture: Any
) -> None:
    """On a laptop's screen; the keys are the cells' in the dock, and napari's elsewhere."""
    napari_viewer = make_napari_viewer(show=True)
    window = napari_viewer.window._qt_window
    window.resize(1366, 768)
    widget = MovieWidget(napari_viewer)
    napari_viewer.window.add_dock_widget(widget, area="right", name="Movie")
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=5_000)
    widget.show_session(folder)
    qtbot.waitUntil(lambda: not widget.job.busy, timeout=60_000)
    cells, log = widget.cell_viewer, ChangeLog(folder)
    layers = [layer for layer in napari_viewer.layers if isinstance(layer, Points)]
    points = [len(layer.data) for layer in layers]

    # Whoever has just chosen the tab need not click a second time.
    bar = widget.tabs.tabBar()
    qtbot.mouseClick(bar, Qt.MouseButton.LeftButton, pos=bar.tabRect(CELLS).center())
    assert QApplication.focusWidget() is widget
    shown = cells.shown.cell
    key(qtbot, Qt.Key.Key_N)
    assert cells.shown.cell != shown
    area = cells.parentWidget()
    assert cells.height() <= area.height()  # all of it can be seen
    take_picture(napari_viewer, "cells_1366.png")

    qtbot.mouseClick(cells.gallery_button, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(cells.query.unfold, Qt.MouseButton.LeftButton)
    cells.kind.setCurrentText(ALL)
    cells.query.sort.setCurrentIndex(cells.query.sort.findData("p_reliable"))
    cells.query.descending.setChecked(True)
    cells.who.setText("Anna")
    cells.gallery.verticalScrollBar().setValue(0)
    chosen = [row.cell for row in cells.gallery.cells.rows][1:4]
    pick(qtbot, cells, chosen[0])
    pick(qtbot, cells, chosen[2], SHIFT)
    key(qtbot, Qt.Key.Key_Delete)
    assert log.labels() == dict.fromkeys(chosen, STRUCK_OUT)
    assert [len(layer.data) for layer in layers] == points
    qtbot.waitUntil(lambda: not widget.job.busy, timeout=60_000)
    qtbot.waitUntil(lambda: not cells.gallery._wanted, timeout=5_000)
    assert cells.height() <= area.height()
    take_picture(napari_viewer, "gallery_1366.png")
    key(qtbot, Qt.Key.Key_Z, CTRL)
    assert log.labels() == {}
    qtbot.waitUntil(lambda: not widget.job.busy, timeout=60_000)

    lines = len(log.all())
    canvas = napari_viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    for letter in (Qt.Key.Key_X, Qt.Key.Key_N, Qt.Key.Key_P, Qt.Key.Key_Z):
        key(qtbot, letter, CTRL if letter == Qt.Key.Key_Z else Qt.KeyboardModifier.NoModifier)
    assert len(log.all()) == lines
    assert cells.gallery.selected == chosen
    widget.shut_down()
