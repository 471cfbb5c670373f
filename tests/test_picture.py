"""The live picture: marks sit on the cells of the frame shown, and say what is counted."""

from __future__ import annotations

import gc
import os
import re
import shutil
import time
import tracemalloc
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
from factories import no_screen
from napari.components._layer_slicer import _LayerSlicer
from napari.settings import get_settings
from sentence_keys import is_said

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline import Progress, Run, RunSettings
from napari_rbcflow.pipeline.run import Watcher
from napari_rbcflow.pipeline.status import JudgedCell, Snapshot
from napari_rbcflow.ring import FrameRing, open_ring
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.types import CROP_SIDE, Frame, Label, SourceInfo

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QApplication, QDialog

from napari_rbcflow.session import STRUCK_OUT
from napari_rbcflow.widgets.label_styles import LABEL_STYLES, NOT_YET
from napari_rbcflow.widgets.picture import LivePicture, PictureControls
from napari_rbcflow.widgets.picture_layers import (
    CAPACITY,
    LABELS,
    LEAST_SHARE,
    MOMENTS,
    TIMES_AS_SLOW,
    DrawBudget,
    History,
)
from napari_rbcflow.widgets.raster_canvas import RasterCanvas, is_software

pytestmark = pytest.mark.slow

PROGRESS = Progress("running", 0, 0, 0, 0, 0.0, 0, Counter(), 0, float("nan"), (0.0, 1.0), 0.95, "")


def snapshot(frame: int, cells: dict[int, tuple[float, float]], newest: int | None = None) -> Snapshot:
    return Snapshot(
        progress=PROGRESS,
        frame=frame,
        newest=frame if newest is None else newest,
        cell=np.array(list(cells), np.int64),
        y_px=np.array([y for y, _ in cells.values()], np.float32),
        x_px=np.array([x for _, x in cells.values()], np.float32),
    )


def judged(cell: int, label: Label, last_frame: int = 5) -> JudgedCell:
    crop = np.zeros((CROP_SIDE, CROP_SIDE), np.uint8)
    return JudgedCell(cell, label, 0.9, 0.9, "", 0, last_frame, 6, 0.0, 0.0, crop)


def info(height: int = 60, width: int = 80, name: str = "made up") -> SourceInfo:
    return SourceInfo(name, height, width, fps=60.0, pixel_size_um=1.0, live=True)


def ring_in(folder: Path, height: int = 60, width: int = 80, capacity: int = 50) -> FrameRing:
    folder.mkdir(parents=True)
    return FrameRing.create(
        folder / "frames.zarr",
        height=height,
        width=width,
        capacity=capacity,
        crop_capacity=1,
        fps=60.0,
        pixel_size_um=1.0,
    )


def put(ring: FrameRing, *indices: int) -> None:
    """Frames that one can tell apart: all pixels are the index."""
    for i in indices:
        ring.append(Frame(i, i / 60, np.full((ring.height, ring.width), i % 256, np.uint8)))


def marks_of(picture: LivePicture) -> dict[tuple[float, float], str]:
    """The marks that are to be seen: where they are, and the label that their colour stands for."""
    layer = picture.marks.layer
    # An unreliable cell's cross is filled, and told by that; the others by their line.
    filled = layer.face_color[:, 3] > 0
    colour = np.where(filled[:, None], layer.face_color, layer.border_color)
    seen = np.flatnonzero((colour[:, 3] > 0) & (layer.size > 1))
    names = {look.colour: name for name, look in LABEL_STYLES.items()}
    names[LABEL_STYLES[Label.UNRELIABLE].colour] = Label.UNRELIABLE
    found = {}
    for i in seen:
        rgb = "#" + "".join(f"{round(255 * c):02x}" for c in colour[i, :3])
        found[(float(layer.data[i, 0]), float(layer.data[i, 1]))] = str(names.get(rgb, "pointed out"))
    return found


def show(
    picture: LivePicture, snap: Snapshot | None, said: tuple[JudgedCell, ...] = (), qtbot: Any = None
) -> None:
    """Update until the picture has had time for it."""
    picture.update(snap, said)
    before = picture.updates
    for _ in range(100):
        if picture.updates > before or picture.budget.free:
            break
        qtbot.wait(10)
    picture.update(snap)


@pytest.fixture
def picture(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(700, 500)
    made = LivePicture(viewer)
    yield made
    made.close()


def test_a_simulated_picture_says_so_over_the_cells(
    picture: LivePicture, tmp_path: Path, take_picture: Any, qtbot: Any
) -> None:
    overlay = picture.viewer.text_overlay
    overlay.text = "somebody's"
    ring = ring_in(tmp_path / "s")
    put(ring, 120)
    picture.begin(replace(info(), simulated=True), tmp_path / "s")
    assert overlay.visible
    assert overlay.text.split() == say("viewer.banner-simulated").split()
    show(picture, snapshot(0, {1: (20.0, 30.0)}), qtbot=qtbot)
    picture.end()
    take_picture(picture.viewer, "simulated_banner.png")
    assert overlay.visible  # its last picture is still there
    picture.begin(info(), tmp_path / "s")
    assert (overlay.visible, overlay.text) == (False, "somebody's")
    picture.begin(replace(info(), simulated=True), tmp_path / "s")
    picture.blank()
    assert not overlay.visible


def test_what_one_sees_is_what_is_counted(tmp_path: Path, make_napari_viewer: Any, qtbot: Any) -> None:
    folder = tmp_path / "s"
    chamber = ChamberSettings(seed=2, height=548, width=688, cells_per_frame=24.0, variety=0.3)
    run = Run(SimulatedChamber(chamber), folder, RunSettings(), TwoStage.load("cpu"))
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1300, 850)
    picture = LivePicture(viewer)
    layers = list(viewer.layers)
    run.start()
    watcher = Watcher(run)
    picture.begin(run.info, folder)
    # Uncounted and too short look like unreliable.
    like = dict.fromkeys((Label.TOO_SHORT, Label.UNCOUNTED), Label.UNRELIABLE)
    seen: list[tuple[int, dict[tuple[float, float], str]]] = []
    held: list[JudgedCell] = []

    def tick() -> None:
        snap = watcher.poll()
        held.extend(snap.judged)
        picture.update(snap, snap.judged)
        if picture.shown is not None and not picture.held and (not seen or seen[-1][0] != picture.shown):
            seen.append((picture.shown, marks_of(picture)))

    def seen_as(label: str) -> int:
        return sum(list(marks.values()).count(label) for _, marks in seen)

    from qtpy.QtCore import QTimer

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(50)
    try:
        qtbot.waitUntil(lambda: picture.shown is not None, timeout=60_000)
        qtbot.waitUntil(
            lambda: seen_as(Label.TANK_TREADING) > 8 and seen_as(Label.UNRELIABLE) > 30, timeout=60_000
        )
        qtbot.waitUntil(
            lambda: {Label.TANK_TREADING, Label.UNRELIABLE, NOT_YET} <= set(marks_of(picture).values()),
            timeout=60_000,
        )
        screen = viewer.screenshot(canvas_only=False, flash=False)
        for label in (Label.TANK_TREADING, NOT_YET):
            rgb = [int(LABEL_STYLES[label].colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert (np.abs(screen[..., :3].astype(int) - rgb).max(axis=2) < 12).sum() > 20, label
        if where := os.environ.get("RBCFLOW_PICTURES"):
            from PIL import Image

            Image.fromarray(screen).save(Path(where) / "picture.png")
        assert any(is_said(f"viewer.picture-{kind}", picture.sentence) for kind in ("delay", "behind"))

        camera = viewer.scene.camera
        view = camera.center, camera.zoom
        cell = held[-1]
        assert picture.show_cell(cell.cell, cell.last_frame, cell.y_px, cell.x_px)
        assert picture.held
        assert (picture.image.data == open_ring(folder / "frames.zarr").frame(cell.last_frame)).all()
        assert marks_of(picture)
        assert camera.zoom > view[1]
        qtbot.wait(200)
        assert picture.shown == cell.last_frame
        picture.go_on()
        assert (camera.center, camera.zoom) == view
        picture.mode = "newest"
        qtbot.waitUntil(lambda: picture.shown is not None and not marks_of(picture), timeout=20_000)
        run.stop()
        assert run.wait(60)
    finally:
        timer.stop()
        run.stop()
        run.wait(20)
        picture.end()
        picture.close()
    assert list(viewer.layers) == layers

    session = open_session(folder)
    label_of = dict(zip(session.cells.cell, session.cells.label, strict=True))
    tracks = dict(iter(session.tracks.groupby("frame")))
    compared: Counter[str] = Counter()
    near: dict[bool, list[bool]] = {True: [], False: []}
    for frame, marks in seen:
        rows = tracks[frame]
        for (y, x), shown in marks.items():
            far = np.hypot(rows.y_px - y, rows.x_px - x)
            # A track is smoothed at its end, so that on the disk it stands a little elsewhere.
            has_label = shown != NOT_YET
            near[has_label].append(bool(far.min() < 3.0))
            if not near[has_label][-1]:
                continue
            counted_as = label_of[rows.cell.iloc[int(far.argmin())]]
            assert shown in (NOT_YET, counted_as, like.get(counted_as))
            compared[shown] += 1
    assert np.mean(near[True]) > 0.97
    # Of those not judged yet some turn out too pale to be kept: no label was ever shown of them.
    assert np.mean(near[False]) > 0.8
    assert compared[Label.TANK_TREADING] > 5
    assert compared[Label.UNRELIABLE] > 20


def test_marks_are_never_drawn_on_another_frame(
    tmp_path: Path, picture: LivePicture, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LivePicture, "_ahead", lambda self: 0.0)  # the same frames however fast this runs
    ring = ring_in(tmp_path / "s", capacity=20)
    put(ring, 0, 1, 2)
    picture.delay_s = 4 / 60
    picture.begin(info(), tmp_path / "s")
    show(picture, None, qtbot=qtbot)
    assert picture.shown == 2  # nothing is tracked yet: the newest
    assert not marks_of(picture)
    for i in range(3, 12):
        if i != 7:  # skipped by the ring
            put(ring, i)
        show(picture, snapshot(i, {1: (10.0, 5.0 * i)}, newest=i + 30), (), qtbot)
        assert (picture.image.data == picture.shown).all()
        if i > 3:
            assert list(marks_of(picture)) == [(10.0, 5.0 * picture.shown)]
    show(picture, snapshot(12, {1: (10.0, 60.0)}, newest=42), (), qtbot)  # tracked, but not in the ring
    assert picture.shown == 8
    assert marks_of(picture) == {(10.0, 40.0): NOT_YET}
    told = re.fullmatch(r"Picture is (\d\.\d) s behind the camera(, \d+ a second)?\.", picture.sentence)
    assert told is not None
    assert abs(float(told[1]) - 34 / 60) < 0.35

    show(picture, snapshot(12, {}), (judged(1, Label.FLIPPING),), qtbot)
    assert marks_of(picture) == {(10.0, 40.0): Label.FLIPPING}
    put(ring, *range(100, 125))  # all that was tracked is overwritten
    show(picture, snapshot(13, {1: (10.0, 65.0)}, newest=125), (), qtbot)
    assert (picture.image.data == 8).all()
    assert marks_of(picture) == {(10.0, 40.0): Label.FLIPPING}
    assert say("viewer.picture-stuck") in picture.sentence
    assert not picture.show_cell(1, 8, 10.0, 40.0)
    assert picture.sentence == say("viewer.picture-frame-gone", frame=8)
    picture.mode = "newest"
    show(picture, snapshot(13, {1: (10.0, 65.0)}, newest=125), (), qtbot)
    assert (picture.image.data == 124).all()
    assert not marks_of(picture)


def test_a_change_by_hand_is_seen_in_the_picture(
    tmp_path: Path, picture: LivePicture, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(ring_in(tmp_path / "s"), 0)
    picture.begin(info(), tmp_path / "s")
    places = {1: (10.0, 10.0), 2: (30.0, 40.0)}
    said = (judged(1, Label.FLIPPING), judged(2, Label.TANK_TREADING))
    show(picture, snapshot(0, places), said, qtbot)
    picture.learn_by_hand(2, STRUCK_OUT)
    assert marks_of(picture) == {places[1]: Label.FLIPPING, places[2]: STRUCK_OUT}
    qtbot.wait(100)
    screen = picture.viewer.screenshot(flash=False)[..., :3].astype(int)
    colour = [int(LABEL_STYLES[STRUCK_OUT].colour[i : i + 2], 16) for i in (1, 3, 5)]
    assert (np.abs(screen - colour).max(axis=2) < 12).sum() > 20
    picture.end()
    picture.learn_by_hand(1, Label.TANK_TREADING)
    assert marks_of(picture)[places[1]] == Label.TANK_TREADING
    assert picture.show_cell(2, 0, *places[2])
    picture.learn_by_hand(2, Label.UNRELIABLE)
    grey = [int(LABEL_STYLES[Label.UNRELIABLE].colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    assert picture.marks.layer.face_color[0, :3] == pytest.approx(grey)
    picture.go_on()
    assert marks_of(picture) == {places[1]: Label.TANK_TREADING, places[2]: Label.UNRELIABLE}
    picture.learn_by_hand(2, Label.TANK_TREADING)  # taken back
    picture.learn_by_hand(1, Label.FLIPPING)
    assert marks_of(picture) == {places[1]: Label.FLIPPING, places[2]: Label.TANK_TREADING}
    picture.begin(info(), tmp_path / "s")  # another run's cell 2 is another cell
    show(picture, snapshot(0, places), (), qtbot)
    assert set(marks_of(picture).values()) == {NOT_YET}
    # The last labels come with the end, when there may be no time for another picture.
    monkeypatch.setattr(DrawBudget, "free", False)
    picture.update(snapshot(0, places), said)
    picture.end()
    assert marks_of(picture) == {places[1]: Label.FLIPPING, places[2]: Label.TANK_TREADING}


def test_unreliable_cells_can_be_left_unmarked_and_too_many_are_told(
    tmp_path: Path, picture: LivePicture, qtbot: Any
) -> None:
    put(ring_in(tmp_path / "s"), 0)
    picture.begin(info(), tmp_path / "s")
    cells = {i: (i % 60, i // 60 + 1.0) for i in range(CAPACITY + 88)}
    labels = (judged(3, Label.UNRELIABLE), judged(4, Label.TANK_TREADING))
    show(picture, snapshot(0, cells), labels, qtbot)
    assert say("viewer.picture-unmarked", cells=88) in picture.sentence
    assert len(marks_of(picture)) == CAPACITY
    assert marks_of(picture)[(4.0, 1.0)] == Label.TANK_TREADING  # what is counted is marked first
    picture.begin(info(), tmp_path / "s")
    show(picture, snapshot(0, {i: cells[i] for i in range(8)}), labels, qtbot)
    assert marks_of(picture)[(3.0, 1.0)] == Label.UNRELIABLE
    picture.marks.layer.data = picture.marks.layer.data[:5]  # somebody deletes marks by hand
    picture.show_unreliable = False
    assert len(picture.marks.layer.data) == CAPACITY
    assert (3.0, 1.0) not in marks_of(picture)
    assert len(marks_of(picture)) == 7


def test_a_folder_that_goes_away_is_told_in_a_sentence(
    tmp_path: Path, picture: LivePicture, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    picture.begin(info(), folder)
    picture.update(None)
    assert picture.sentence == say("viewer.picture-waiting")
    monkeypatch.setattr("napari_rbcflow.widgets.picture.PATIENCE_S", 0.0)
    show(picture, None, qtbot=qtbot)
    assert "is not a ring of frames" in picture.sentence
    put(ring_in(folder), 0, 1)
    show(picture, snapshot(1, {1: (3.0, 3.0)}), (), qtbot)
    assert picture.shown == 1
    shutil.rmtree(folder)
    show(picture, snapshot(2, {1: (3.0, 4.0)}), (), qtbot)
    assert "has lost its frame_ledger" in picture.sentence
    assert not picture.show_cell(1, 1, 3.0, 3.0)
    picture.end()

    viewer = picture.viewer
    viewer.layers.remove(picture.marks.layer)
    viewer.layers.remove(picture.image)
    put(ring_in(folder), 0, 1)
    picture.begin(info(), folder)
    show(picture, snapshot(1, {1: (3.0, 3.0)}), (), qtbot)
    assert (picture.image.data == 1).all()
    assert len(viewer.layers) == 2

    ring_in(tmp_path / "other", 70, 90)
    picture.begin(info(), tmp_path / "other")
    show(picture, None, qtbot=qtbot)
    assert is_said("viewer.picture-other-size", picture.sentence)


def test_a_run_that_begins_lies_on_top_of_what_was_opened_since(
    tmp_path: Path, picture: LivePicture, qtbot: Any
) -> None:
    viewer = picture.viewer
    viewer.add_image(np.full((60, 80), 255, np.uint8), name="another patient's movie")
    viewer.add_points(np.full((5, 2), 20.0), name="another patient's cells")
    picture.image.visible = False
    ring = ring_in(tmp_path / "s")
    ring.append(Frame(0, 0.0, np.zeros((60, 80), np.uint8)))
    for _ in range(3):
        picture.begin(info(), tmp_path / "s")
        names = [layer.name for layer in viewer.layers]
        assert names == ["another patient's movie", "another patient's cells", "live", "cells"]
        show(picture, snapshot(0, {1: (30.0, 40.0)}), (judged(1, Label.FLIPPING),), qtbot)
        qtbot.wait(50)
        screen = viewer.screenshot(flash=False)[..., :3].astype(int)
        assert (screen.min(axis=2) > 250).mean() < 0.01
        orange = [int(LABEL_STYLES[Label.FLIPPING].colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(screen - orange).max(axis=2) < 12).sum() > 20
        viewer.layers.move(2, 0)
        viewer.layers.move(3, 1)


def test_nothing_of_the_run_before_is_seen_while_the_next_one_opens(
    tmp_path: Path, picture: LivePicture, qtbot: Any
) -> None:
    put(ring_in(tmp_path / "s"), 9)
    picture.begin(info(), tmp_path / "s")
    show(picture, snapshot(9, {1: (30.0, 40.0)}), (judged(1, Label.FLIPPING),), qtbot)
    camera = picture.viewer.scene.camera
    view = camera.center, camera.zoom
    picture.end()
    assert picture.show_cell(1, 9, 30.0, 40.0)
    picture.blank()
    assert not picture.image.data.any()
    assert not marks_of(picture)
    assert (picture.sentence, picture.held, picture.shown) == ("", False, None)
    assert (camera.center, camera.zoom) == view
    assert not picture.show_cell(1, 9, 30.0, 40.0)
    picture.show_unreliable = False
    show(picture, snapshot(9, {1: (30.0, 40.0)}), (), qtbot)
    picture.end()
    picture.go_on()
    assert not picture.image.data.any()
    assert not marks_of(picture)


def test_two_pictures_in_one_viewer_have_layers_of_their_own(
    tmp_path: Path, picture: LivePicture, qtbot: Any
) -> None:
    viewer = picture.viewer
    second = LivePicture(viewer)
    for number, one in enumerate((picture, second), start=1):
        put(ring_in(tmp_path / str(number)), number)
        one.begin(info(), tmp_path / str(number))
        show(one, snapshot(number, {1: (10.0 * number, 10.0)}), (), qtbot)
    for number, one in enumerate((picture, second), start=1):
        assert (one.image.data == number).all()
        assert list(marks_of(one)) == [(10.0 * number, 10.0)]
    second.close()
    third = LivePicture(viewer)
    second.close()
    assert third.image is second.image
    assert third.marks.layer is second.marks.layer
    fourth = LivePicture(viewer)
    assert len(viewer.layers) == 6
    third.close()
    fourth.close()


def test_the_contrast_is_found_once_and_a_persons_own_is_kept(
    tmp_path: Path, picture: LivePicture, qtbot: Any
) -> None:
    ring = ring_in(tmp_path / "s")
    rng = np.random.default_rng(0)
    picture.begin(info(), tmp_path / "s")
    for i in range(8):
        ring.append(Frame(i, i / 60, rng.normal(120, 3, (60, 80)).astype(np.uint8)))
        show(picture, None, qtbot=qtbot)
    found = tuple(picture.image.contrast_limits)
    assert 80 < found[0] < 110
    assert 130 < found[1] < 170
    picture.image.contrast_limits = (100, 130)
    ring.append(Frame(9, 0.15, np.full((60, 80), 200, np.uint8)))
    show(picture, None, qtbot=qtbot)
    assert tuple(picture.image.contrast_limits) == (100, 130)
    picture.begin(info(), tmp_path / "s")
    show(picture, None, qtbot=qtbot)
    assert tuple(picture.image.contrast_limits) == (100, 130)
    picture.begin(info(name="another camera"), tmp_path / "s")
    show(picture, None, qtbot=qtbot)
    assert picture.image.contrast_limits[0] > 130


def test_display_gives_way_where_drawing_is_slow(
    tmp_path: Path, picture: LivePicture, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RasterCanvas, "fits", lambda self: False)
    ring = ring_in(tmp_path / "s", capacity=600)
    put(ring, 0)
    picture.mode = "newest"
    picture.begin(info(), tmp_path / "s")
    qtbot.waitUntil(lambda: picture.budget.free, timeout=5_000)
    canvas = picture.viewer.window._qt_viewer.canvas
    canvas.events.draw.connect(slow := lambda event: time.sleep(0.1))
    updates, draws = picture.updates, picture.budget.draws
    for i in range(1, 51):
        put(ring, i)
        picture.update(None)
        qtbot.wait(10)
    canvas.events.draw.disconnect(slow)
    assert 1 < picture.updates - updates < 25
    assert abs((picture.updates - updates) - (picture.budget.draws - draws)) <= 2
    usual = picture.budget.share
    late = replace(PROGRESS, lag_s=3.0)
    picture.update(replace(snapshot(50, {}), progress=late))
    assert picture.budget.share < usual / 2  # the run itself cannot keep up
    picture.update(snapshot(51, {}))
    assert picture.budget.share == usual

    picture.budget.share = LEAST_SHARE
    with picture.budget.update():
        time.sleep(0.4)  # at a tenth this would be paid for 3.6 s
    qtbot.waitUntil(lambda: picture.budget.free, timeout=2_500)


def seen_on(picture: LivePicture) -> np.ndarray:
    """What the screen shows of the canvas, with whatever lies over it."""
    canvas = picture.viewer.window._qt_viewer.canvas.native
    at = canvas.mapToGlobal(QPoint(0, 0))
    shot = QApplication.primaryScreen().grabWindow(0, at.x(), at.y(), canvas.width(), canvas.height())
    image = shot.toImage().convertToFormat(QImage.Format.Format_RGB888)
    lines = np.frombuffer(bytes(image.constBits()), np.uint8).reshape(image.height(), image.bytesPerLine())
    return lines[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).astype(int)


def drawn_by_napari(picture: LivePicture) -> np.ndarray:
    return picture.viewer.screenshot(flash=False)[..., :3].astype(int)


def test_painted_in_software_it_looks_as_napari_draws_it(
    tmp_path: Path, picture: LivePicture, qtbot: Any, take_picture: Any
) -> None:
    """Where there is a graphics card, there is nothing to compare."""
    qtbot.waitUntil(lambda: bool(picture.budget.renderer), timeout=5_000)
    if not is_software(picture.budget.renderer):
        pytest.skip("OpenGL is drawn by a graphics card here")
    viewer, folder = picture.viewer, tmp_path / "s"
    ring = ring_in(folder, 120, 160)
    rows, columns = np.mgrid[:120, :160]
    for i in range(20):  # grey levels that tell each place and each frame
        ring.append(Frame(i, i / 60, (60 + rows // 2 + 40 * (columns > 8 * i)).astype(np.uint8)))
    places = {1: (20.0, 30.0), 2: (60.0, 40.0), 3: (60.0, 110.0), 4: (100.0, 130.0), 5: (100.0, 60.0)}
    labels = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
    picture.begin(info(120, 160), folder)
    viewer.camera.zoom *= 0.9
    said = tuple(judged(i + 1, label) for i, label in enumerate(labels))
    for i in (9, 12):
        show(picture, snapshot(i, places), said, qtbot)
        qtbot.wait(50)  # painted a few ms after it was asked for
    assert picture.painted_over
    painted = seen_on(picture)
    take_picture(viewer, "painted_over.png")
    # A screenshot by napari, which draws its own canvas, shows the frame and the marks of now.
    drawn = drawn_by_napari(picture)
    picture.end()
    assert not picture.painted_over
    for other in (drawn, drawn_by_napari(picture)):
        apart = np.abs(painted - other).max(axis=2)
        assert np.median(apart) <= 2
        assert (apart > 40).mean() < 0.01  # marks' edges are smoothed in another way
        for name in (*labels, NOT_YET):
            colour = [int(LABEL_STYLES[name].colour[i : i + 2], 16) for i in (1, 3, 5)]
            there = [np.argwhere(np.abs(image - colour).max(axis=2) < 30) for image in (painted, other)]
            assert min(map(len, there)) > 10
            boxes = [np.array([place.min(axis=0), place.max(axis=0)]) for place in there]
            assert np.abs(boxes[0] - boxes[1]).max() <= 2


@pytest.mark.parametrize("painted", [True, False], ids=["painted over", "drawn by napari"])
def test_with_napari_slicing_in_threads_marks_are_on_their_frame(
    tmp_path: Path, picture: LivePicture, qtbot: Any, monkeypatch: pytest.MonkeyPatch, painted: bool
) -> None:
    """As seen on the screen: where the frame is dark, in which columns, and where its mark is."""
    get_settings().experimental.async_ = True
    in_threads = _LayerSlicer._slice_layers

    def late(self: Any, requests: Any) -> Any:
        time.sleep(0.02)  # as on a busy computer: a frame later
        return in_threads(self, requests)

    monkeypatch.setattr(_LayerSlicer, "_slice_layers", late)
    monkeypatch.setattr(LivePicture, "_ahead", lambda self: 0.0)
    if not painted:
        monkeypatch.setattr(RasterCanvas, "fits", lambda self: False)
    ring = ring_in(tmp_path / "s", 120, 160)
    picture.delay_s = 0.0
    picture.begin(info(120, 160), tmp_path / "s")
    picture.viewer.camera.zoom *= 0.9
    picture.image.contrast_limits = (0, 255)
    colour = [int(LABEL_STYLES[Label.FLIPPING].colour[i : i + 2], 16) for i in (1, 3, 5)]
    apart, places = [], []
    for i in range(1, 17):
        image = np.full((120, 160), 150, np.uint8)
        image[:, 9 * i - 1 : 9 * i + 2] = 90
        ring.append(Frame(i, i / 60, image))
        show(picture, snapshot(i, {1: (60.0, 9.0 * i)}), (judged(1, Label.FLIPPING),), qtbot)
        for pause_ms in (0, 8, 25):
            qtbot.wait(pause_ms)
            screen = seen_on(picture) if painted else drawn_by_napari(picture)
            lit = np.flatnonzero(screen[:, screen.shape[1] // 2].min(axis=1) > 30)
            if not len(lit):
                continue
            row = screen[lit[0] + len(lit) // 8].mean(axis=1)
            inside = np.flatnonzero(row > 30)
            dark = inside[row[inside] < row[inside].max() - 30]
            mark = np.argwhere(np.abs(screen - colour).max(axis=2) < 30)[:, 1]
            if len(dark) and len(mark):
                apart.append(dark.mean() - (mark.min() + mark.max()) / 2)
                places.append(dark.mean())
    assert len(set(np.round(places))) > 5  # it moves
    assert np.abs(apart).max() < 3, apart


def test_the_frames_of_a_run_are_a_layer_for_other_plugins(
    tmp_path: Path, picture: LivePicture, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, ring = picture.viewer, ring_in(tmp_path / "s", capacity=20)
    layers, name = viewer.layers, say("viewer.layer-frames")
    renewed = "napari_rbcflow.widgets.picture_layers.RENEWED_S"
    monkeypatch.setattr(renewed, 60.0)
    put(ring, *range(5))
    picture.mode = "newest"
    picture.begin(info(), tmp_path / "s")
    selected = set(layers.selection)
    picture.frames.add()
    layer = layers[name]
    assert isinstance(layer.data, dask.array.Array)
    assert layer.data.shape == (5, 60, 80)
    assert not layer.visible
    assert set(layers.selection) == selected

    # It follows; who keeps an array has black in the place of what is overwritten, and never another frame.
    held, heard = layer.data, []
    layer.events.data.connect(lambda event: heard.append(event))
    put(ring, *range(5, 30))
    picture.frames.follow()
    assert len(layer.data) == 5  # once in a while is enough
    monkeypatch.setattr(renewed, 0.0)
    picture.frames.follow()
    assert heard
    assert layer.data.shape == (20, 60, 80)
    assert np.asarray(layer.data[:, 0, 0]).tolist() == list(range(10, 30))
    assert not held.any().compute()
    for i in range(30, 33):
        put(ring, i)
        show(picture, snapshot(i, {}), qtbot=qtbot)
    assert (picture.image.data == 32).all()
    assert picture.painted_over == is_software(picture.budget.renderer)

    # Shown, the slider counts frames as the run does; the live picture goes on, drawn by napari.
    picture.frames.follow()
    layer.visible = True
    assert viewer.dims.range[0][:2] == (13.0, 32.0)
    viewer.dims.set_point(0, 20.0)
    assert layer.get_value((20.0, 5.0, 5.0), world=True) == 20
    put(ring, 33)
    show(picture, snapshot(33, {}), qtbot=qtbot)
    assert (picture.image.data == 33).all()
    assert not picture.painted_over

    # Removed, it stays away until it is asked for; the last frames stay, but no patient's with the next run.
    layers.remove(layer)
    picture.frames.follow()
    assert layer not in layers
    picture.frames.add()
    put(ring, 34)
    picture.end()
    assert int(layers[name].data[-1].max()) == 34
    picture.close()
    later = LivePicture(viewer)
    assert not layers[name].data.any().compute()
    later.frames.add()
    assert [each.name for each in layers].count(name) == 1
    later.close()


def test_what_napari_shows_beside_the_picture_is_never_painted_over(
    tmp_path: Path, picture: LivePicture, qtbot: Any
) -> None:
    qtbot.waitUntil(lambda: bool(picture.budget.renderer), timeout=5_000)
    if not is_software(picture.budget.renderer):
        pytest.skip("OpenGL is drawn by a graphics card here")
    viewer, ring = picture.viewer, ring_in(tmp_path / "s", capacity=600)
    picture.mode = "newest"
    picture.begin(info(), tmp_path / "s")
    frames = iter(range(1000))

    def next_is_painted() -> bool:
        i = next(frames)
        put(ring, i)
        show(picture, snapshot(i, {}), qtbot=qtbot)
        return picture.painted_over

    assert next_is_painted()
    somebodys = viewer.add_labels(np.zeros((60, 80), int), units=picture.image.units)
    assert not next_is_painted()
    somebodys.visible = False
    assert next_is_painted()
    for overlay in (viewer.canvas.overlays.scale_bar, viewer.scene.overlays.axes):
        overlay.visible = True
        assert not next_is_painted()
        overlay.visible = False
        assert next_is_painted()
    dialog = QDialog(viewer.window._qt_window, Qt.WindowType.SubWindow)  # as napari's messages are
    dialog.show()
    assert not next_is_painted()
    dialog.close()
    assert next_is_painted()
    # The mouse reaches napari through it.
    zoom = viewer.camera.zoom
    canvas = viewer.window._qt_viewer.canvas.native
    middle = canvas.mapToGlobal(canvas.rect().center())
    window = viewer.window._qt_window
    assert window.childAt(window.mapFromGlobal(middle)) is canvas
    canvas.resize(canvas.width() - 40, canvas.height() - 30)
    assert picture._raster._container.size() == canvas.size()
    assert viewer.camera.zoom == zoom


def test_the_last_seconds_are_repeated_slowly_while_the_run_goes_on(
    tmp_path: Path, picture: LivePicture, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LivePicture, "_ahead", lambda self: 0.0)
    ring = ring_in(tmp_path / "s", capacity=60)
    picture.delay_s = 0.0
    picture.begin(info(), tmp_path / "s")
    assert not picture.slow_motion()
    assert picture.sentence == say("viewer.picture-slow-none")
    put(ring, *range(31))
    for i in (0, 10, 20, 30):  # between them, cells are on straight lines
        show(picture, snapshot(i, {1: (10.0, 2.0 * i), 2: (30.0, 40.0)}), (judged(1, Label.FLIPPING),), qtbot)
    assert picture.shown == 30
    assert picture._rate_hz is None or picture._rate_hz > 0  # none is said before it is known
    assert picture.slow_motion()
    assert picture.held
    overlay, slow = picture.viewer.text_overlay, say("viewer.banner-slow", times=TIMES_AS_SLOW)
    assert (overlay.visible, overlay.text) == (True, slow)  # who looks there need not see the panel
    assert picture._banner.words == slow
    controls = PictureControls()
    qtbot.addWidget(controls)
    for held in (False, True, False):  # the way back is where the hand is
        controls.show_sentence(picture.sentence, held=held)
        assert (controls.slow.isHidden(), controls.back.isHidden()) == (held, not held)
    put(ring, *range(31, 120))  # the ring has overwritten them
    seen = {}
    began = time.monotonic()
    while time.monotonic() - began < 30 and len(seen) < 31:
        picture.update(None)
        grey = int(picture.image.data[0, 0])
        assert (picture.image.data == grey).all()
        if marks := marks_of(picture):
            seen[grey] = marks
        qtbot.wait(5)
    assert set(seen) == set(range(31))
    for frame, marks in seen.items():
        rounded = {(round(y, 3), round(x, 3)): label for (y, x), label in marks.items()}
        assert rounded == {(10.0, 2.0 * frame): Label.FLIPPING, (30.0, 40.0): NOT_YET}
    picture.mode = "newest"
    picture.go_on()
    assert not overlay.visible
    show(picture, None, qtbot=qtbot)
    assert (picture.image.data == 119).all()
    assert picture.slow_motion()
    picture.end()
    assert not picture.held


def test_nothing_is_left_behind(tmp_path: Path, make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(700, 500)
    draw = viewer.window._qt_viewer.canvas.events.draw
    callbacks = len(draw.callbacks)
    picture = LivePicture(viewer)
    layers = list(viewer.layers)
    events = [layer.events for layer in layers]
    listening = [len(e.contrast_limits.callbacks) if hasattr(e, "contrast_limits") else 0 for e in events]
    folders = [tmp_path / "a", tmp_path / "b"]
    sizes = [(60, 80), (50, 100)]
    for folder, (height, width) in zip(folders, sizes, strict=True):
        put(ring_in(folder, height, width), 0, 1, 2)

    def cycle(picture: LivePicture, k: int) -> None:
        size = k // 8 % 2
        picture.begin(info(*sizes[size]), folders[size])
        show(picture, snapshot(2, {1: (3.0, 3.0)}), (judged(1, Label.FLIPPING),), qtbot)
        assert picture.show_cell(1, 2, 3.0, 3.0)
        picture.end()

    tracemalloc.start()
    try:
        for k in range(20):  # what is made once
            cycle(picture, k)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for k in range(30):
            cycle(picture, k)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 60_000
    assert list(viewer.layers) == layers
    assert len(draw.callbacks) == callbacks + 1
    assert listening == [
        len(e.contrast_limits.callbacks) if hasattr(e, "contrast_limits") else 0 for e in events
    ]
    picture.close()
    picture.close()
    assert len(draw.callbacks) == callbacks
    assert list(viewer.layers) == layers
    gone = weakref.ref(picture)
    del picture
    gc.collect()
    assert gone() is None
    another = LivePicture(viewer)
    assert list(viewer.layers) == layers
    cycle(another, 0)
    assert marks_of(another)
    another.close()


def test_the_history_is_bounded() -> None:
    history = History(60.0)
    history.learn(judged(i, Label.UNRELIABLE) for i in range(LABELS + 10))
    assert history.label(9) == NOT_YET
    assert history.label(10) == Label.UNRELIABLE
    for i in range(0, 3000, 3):
        history.add(snapshot(i, {}))
    assert len(history) == MOMENTS
    held = np.arange(2700, 3000)
    frames = [m.frame for m in history.candidates(held)]
    assert frames[0] == 2937  # a delay behind 2997
    assert frames[1] == 2934
    assert next(history.candidates(held, not_before=2960)).frame == 2961
    assert next(history.candidates(held, ahead=9.0)).frame == 2946
    assert next(history.candidates(held, ahead=900.0)).frame == 2967  # never nearer than half the delay
    # Where labels come late, the picture goes on, and they follow.
    history.learn(judged(i, Label.UNRELIABLE, last_frame=2897) for i in range(9))
    assert next(history.candidates(held)).frame == 2937
