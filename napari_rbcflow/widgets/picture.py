"""The live picture: a frame of the run that goes on, and on every cell its label."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed, sentence_of
from napari_rbcflow.pipeline import JudgedCell, Snapshot
from napari_rbcflow.ring import FrameGone, RingReader, open_ring
from napari_rbcflow.sentences import say
from napari_rbcflow.types import DEFAULT_PIXEL_SIZE_UM, SourceInfo
from napari_rbcflow.widgets.label_styles import CHIPS
from napari_rbcflow.widgets.layers import axes_of, units_in
from napari_rbcflow.widgets.panel import FIELD_LABELS, breakable, wrapping_label
from napari_rbcflow.widgets.picture_layers import (
    LEAST_SHARE,
    NOT_COUNTED,
    SHARE,
    TIMES_AS_SLOW,
    Contrast,
    DrawBudget,
    History,
    Loop,
    Marks,
    Moment,
    RunFrames,
    bring_to_front,
    give_back,
    own_layer,
    put_image,
    refresh,
)
from napari_rbcflow.widgets.raster_canvas import RasterCanvas
from napari_rbcflow.widgets.remembered import PictureMode

# A figure that flickers cannot be read, and every repaint of a label costs that of the whole window.
STEADY_S, STEADY_BEHIND_S = 2.0, 0.3
WAITING = say("viewer.picture-waiting")
_BANNER: dict[str, Any] = {
    "position": "top_center",
    "font_size": 12.0,
    "color": CHIPS["on-picture"].text,
    "box": True,
    "box_color": CHIPS["on-picture"].ground,
}

# The field of view around a cell, along the shorter side of the window.
ACROSS_UM = 180.0


class CloseUp:
    """Moves a viewer's camera to a cell, and puts it back."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._before: tuple[Any, float] | None = None

    def go(self, layer: Any, y_px: float, x_px: float) -> None:
        """Move to a place of a layer, and nearer if the view is not near enough."""
        camera = self._viewer.scene.camera
        if self._before is None:
            self._before = (camera.center, camera.zoom)
        um = units_in(self._viewer, layer)
        y, x = np.asarray(layer.data_to_world((y_px, x_px))) * um
        camera.center = (0.0, float(y), float(x))
        camera.zoom = max(self._before[1], min(self._viewer.canvas.size) / (ACROSS_UM * float(um[-1])))

    def back(self) -> None:
        """Return to the view before the first `go`."""
        if self._before is not None:
            camera = self._viewer.scene.camera
            camera.center, camera.zoom = self._before
            self._before = None


# Pixels that the banner's longest line takes at the size in `_BANNER`.
_BANNER_PX = 340


class Banner:
    """Says over a picture that its cells are not a patient's, or not those of now, in the viewer's own text.

    What stood there before is put back. `words` is what it says; empty while it says nothing. Where several
    pictures share a viewer, it is that of the picture shown last.
    """

    _last: ClassVar[dict[int, Banner]] = {}  # by viewer

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._key = id(getattr(viewer, "__wrapped__", viewer))  # each plugin gets a proxy of its own
        self._before: dict[str, Any] = {}
        self.words = ""

    def show_for(self, simulated: bool, held: str = "") -> None:
        """Say that the frames are simulated, and why the picture is `held`; hide it with neither."""
        last = self._last.get(self._key)
        if not simulated and not held:
            if last is not None:
                last.hide()
            return
        # In two lines, for a picture beside docks on a small screen.
        told = [say("viewer.banner-simulated").replace(": ", ":\n")] * simulated + [held] * bool(held)
        self.words = "\n".join(told)
        overlay = self._viewer.text_overlay
        size = _BANNER["font_size"] * min(1.0, self._viewer.canvas.size[1] / _BANNER_PX)
        wanted = _BANNER | {"text": self.words, "visible": True, "font_size": size}
        wanted = {name: value for name, value in wanted.items() if hasattr(overlay, name)}  # older napari
        if last is None:
            self._before = {name: getattr(overlay, name) for name in wanted}
        elif last is not self:
            self._before, last._before, last.words = last._before, {}, ""
        self._last[self._key] = self
        overlay.update(wanted)

    def hide(self) -> None:
        """Show what was there before, unless another picture's banner has taken this one's place."""
        if self._last.get(self._key) is self:
            del self._last[self._key]
            with suppress(Exception):  # of a window that was closed, the canvas is gone already
                self._viewer.text_overlay.update(self._before)
            self._before, self.words = {}, ""


# To wait for a ring that is not there yet: a run says where it will be before it is made.
PATIENCE_S = 3.0


class LiveRing:
    """Opens a session's ring as soon as it is there."""

    def __init__(self, folder: Path, info: SourceInfo) -> None:
        self._path = Path(folder) / "frames.zarr"
        self._info = info
        self._asked_s = time.monotonic()
        self._reader: RingReader | None = None

    def fresh(self) -> RingReader | None:
        """Return the ring as it is now; None where it is not there yet.

        A BadInput where it is still not there after `PATIENCE_S` or is no ring; a RunFailed where it is
        damaged, gone, or of other frames; an OSError where it cannot be read.
        """
        if self._reader is not None:
            self._reader.refresh()
            return self._reader
        try:
            reader = open_ring(self._path)
        except BadInput:
            if time.monotonic() - self._asked_s > PATIENCE_S:
                raise
            return None
        if (reader.height, reader.width) != (self._info.height, self._info.width):
            raise RunFailed("viewer.picture-other-size", path=self._path)
        self._reader = reader
        return reader


# About what a cell takes to cross the field, so that most are judged while they are still in the picture.
DELAY_S = 1.0
# A run that keeps up is less than this behind; one that is further behind gets more of the processor.
LAG_S = 0.25
# Frames tried in one update, where the ring loses them meanwhile.
TRIES = 4

Mode = Literal["cells", "newest"]


class LivePicture:
    """One Image layer and one Points layer, made once, that show one run after the other.

    In the interface's thread: `blank`, `begin`, `update` again and again, `end` for every run, and `close`.
    `show_cell` and `go_on` at any time after a `begin`, also after `end`. Nothing here raises for what
    happens on the disk; `sentence` says it.

    In the mode ``cells`` the picture is `delay_s` behind the frame tracked last, because a cell has a label
    only once its track has ended: cells come in grey and are coloured on their way. Marks always belong to
    the frame that is shown. The mode ``newest`` shows the newest frame of the ring, without marks, to focus
    and to move the stage.
    """

    def __init__(self, viewer: Any, *, delay_s: float = DELAY_S, hz: float = 25.0) -> None:
        self.viewer = viewer
        self.delay_s = delay_s
        self.shown: int | None = None  # the frame in the picture
        self.held = False  # at a cell, until `go_on`
        self.sentence = ""  # how far the picture is behind the camera, or why there is none
        self.updates = 0  # pictures put on the screen since the start
        self._mode: Mode = "cells"
        self._show_unreliable = True
        self._info: SourceInfo | None = None
        self._ring: LiveRing | None = None
        self._running = self._closed = False
        self._newest: int | None = None
        self._behind_s = 0.0
        self._rate_hz: float | None = None  # not known yet
        self._came_s = 0.0  # when the last moment came
        self._told = (0.0, 0)  # when rate and delay were last found, and the updates by then
        self._history = History(0.0)
        self._moment: Moment | None = None
        self._drawn_labels: list[str] = []
        self._loop: Loop | None = None
        self._pointed = (0, 0.0, 0.0)
        self._close_up = CloseUp(viewer)
        self._banner = Banner(viewer)
        self.image = own_layer(
            viewer,
            "live",
            lambda: viewer.add_image(
                np.zeros((64, 64), np.uint8),
                name=say("viewer.layer-live"),
                contrast_limits=(0, 255),
                **axes_of(DEFAULT_PIXEL_SIZE_UM, 2),
            ),
        )
        self.marks = Marks(viewer)
        self.frames = RunFrames(viewer)
        viewer.layers.selection = {self.image}
        self._contrast = Contrast(self.image)
        self.budget = DrawBudget(viewer, hz)
        banner = self._banner
        self._raster = RasterCanvas(viewer, self.image, self.marks, self.budget, lambda: banner.words)
        self._stale = False  # whether the layers hold what napari's canvas below does not show yet
        self.budget.before_draw = self._catch_up

    @property
    def mode(self) -> Mode:
        """``cells`` or ``newest``."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in ("cells", "newest"):
            raise BadInput("viewer.picture-wrong-mode", mode=mode)
        if mode != self._mode:
            self._mode = mode
            self._forget_shown()

    @property
    def show_unreliable(self) -> bool:
        """Whether cells that are not counted are marked."""
        return self._show_unreliable

    @show_unreliable.setter
    def show_unreliable(self, show: bool) -> None:
        self._show_unreliable = bool(show)
        if not self.held and self._moment is not None:
            self._mark(self._moment)
            self._present(moving=self._running)

    def begin(self, info: SourceInfo, folder: Path) -> None:
        """Show a run from now on; the ring in its session's folder need not be there yet."""
        self.go_on()
        before = self._info
        self._info = info
        self._ring = LiveRing(folder, info)
        self.frames.begin(folder)
        self._running = True
        self._newest = None
        self._history = History(self.delay_s * info.fps)
        self._forget_shown()
        self._banner.show_for(info.simulated)
        self._contrast.begin(keep_by_hand=before is not None and before.name == info.name)
        self.marks.set_pixel_size(info.pixel_size_um)
        self.marks.clear()
        bring_to_front(self.viewer, self.image, self.marks.layer)
        scale = (info.pixel_size_um, info.pixel_size_um)
        another_size = (self.image.data.shape, tuple(self.image.scale)) != ((info.height, info.width), scale)
        if another_size:
            self.image.scale = scale
        put_image(self.image, np.zeros((info.height, info.width), np.uint8))
        self._present()
        if another_size:
            self.viewer.reset_view()
        self.sentence = WAITING

    def blank(self) -> None:
        """Show nothing of the run before, until the next `begin`."""
        self._running = False
        self._ring = None
        self.frames.begin(None)
        self._banner.hide()
        if self.held:
            self.held, self._loop = False, None
            self._close_up.back()
        self._history = History(0.0)
        self._forget_shown()
        self.marks.clear()
        put_image(self.image, np.zeros(self.image.data.shape, np.uint8))
        self._present()
        self.sentence = ""

    def update(self, snapshot: Snapshot | None, judged: Sequence[JudgedCell] = ()) -> None:
        """Take in the newest snapshot and what was judged since the last, and show it if there is time."""
        if not self._running:
            return
        self._history.learn(judged)
        if snapshot is not None:
            if self._history.add(snapshot):
                self._came_s = time.monotonic()
            self._newest = snapshot.newest
            # The number comes first: a run that cannot keep up gets the processor.
            lag = max(snapshot.progress.lag_s, LAG_S)
            self.budget.share = max(LEAST_SHARE, SHARE * LAG_S / lag)
        if self._raster.shown and not self._raster.fits():
            self._present()  # napari has something else to show, with or without another picture
        if not self.budget.free or (self.held and self._loop is None):
            return
        before = self.updates
        with self.budget.update():
            try:
                if self._loop is not None:
                    self._play(self._loop)
                else:
                    self._show()
            except (RbcflowError, OSError) as error:
                self.sentence = sentence_of(error)
        if self.updates > before:
            self.budget.keep_pace()

    def end(self) -> None:
        """Show no more of the run; the last picture stays, and `show_cell` still works."""
        if self._loop is not None:
            self.go_on()
        if self._running:
            self._running = False
            self.frames.follow(now=True)
            if self.sentence == WAITING:
                self.sentence = say("viewer.picture-ended-before")
            elif self.shown is not None and not self.held:
                self.sentence = say("viewer.picture-ended")
            moment = self._moment
            if moment is not None and not self.held and self._history.labels(moment) != self._drawn_labels:
                self._mark(moment)  # the last labels came with the end, and found no time for a picture
            if not self._closed:
                self._present()

    @property
    def painted_over(self) -> bool:
        """Whether this computer draws so slowly that the picture is painted over napari's canvas."""
        return self._raster.shown

    def close(self) -> None:
        """Let go of the run and of napari's events; the layers stay, with the last picture."""
        self._moment = None  # nothing is drawn any more: the viewer may be half gone
        self._raster.close()
        self._running = False
        self.go_on()
        self._contrast.close()
        self._banner.hide()
        self.budget.close()
        if not self._closed:  # by now they may be another picture's
            self._closed = True
            give_back(self.image)
            give_back(self.marks.layer)
            self.frames.close()
        self._ring = None
        self._moment = None
        self._history = History(0.0)

    def show_cell(self, cell: int, frame: int, y_px: float, x_px: float) -> bool:
        """Pause the picture at a frame, close to a cell that is there at (y, x) in camera pixels.

        False where the ring no longer holds the frame: `sentence` says so, nothing changes.
        """
        try:
            reader = self._ring.fresh() if self._ring is not None else None
            if reader is None:
                raise FrameGone
            image = reader.frame(frame)
        except FrameGone:
            self.sentence = say("viewer.picture-frame-gone", frame=frame)
            return False
        except (RbcflowError, OSError) as error:
            self.sentence = sentence_of(error)
            return False
        self.held, self._loop = True, None
        self.shown = frame
        self._pointed = (cell, y_px, x_px)
        put_image(self.image, image)
        self._mark_pointed()
        self._present()
        self._close_up.go(self.image, y_px, x_px)
        self.sentence = say("viewer.picture-paused", frame=frame, cell=cell)
        self._say_held(self.sentence if self._running else "")
        return True

    def slow_motion(self) -> bool:
        """Repeat the seconds shown last, slowly, until `go_on`; the run goes on.

        False where there is nothing to repeat: `sentence` says so, nothing changes.
        """
        try:
            reader = self._ring.fresh() if self._ring is not None and self._running else None
            if reader is None or self.shown is None or self._info is None:
                raise FrameGone
            loop = Loop(reader, self._history, self.shown, self._info.fps)
        except FrameGone:
            self.sentence = say("viewer.picture-slow-none")
            return False
        except (RbcflowError, OSError) as error:
            self.sentence = sentence_of(error)
            return False
        self.go_on()
        self.held, self._loop = True, loop
        self.sentence = say("viewer.picture-slow", seconds=loop.seconds, times=TIMES_AS_SLOW)
        self._say_held(say("viewer.banner-slow", times=TIMES_AS_SLOW))
        return True

    def _say_held(self, words: str) -> None:
        """Say over the picture that it is not the live one: whoever looks at it may not see the panel."""
        simulated = self._info is not None and self._info.simulated
        if simulated or words:
            self._banner.show_for(simulated, words)
        else:
            self._banner.hide()

    def _play(self, loop: Loop) -> None:
        due = loop.next()
        if due is not None:
            image, self._moment = due
            put_image(self.image, image)
            self._mark(self._moment)
            self._present(moving=True)
            self.updates += 1

    def learn_by_hand(self, cell: int, label: str) -> None:
        """Mark a cell as a person judged it; with the machine's own label, as the machine did."""
        self._history.learn_by_hand(cell, label)
        if self.held and self._loop is None:
            self._mark_pointed()
        elif self._moment is not None:
            self._mark(self._moment)
        else:
            return
        self._present(moving=self._running and (not self.held or self._loop is not None))

    def go_on(self) -> None:
        """Go back to the run, and to where the view was."""
        if not self.held:
            return
        self.held, self._loop = False, None
        self._say_held("")
        self._close_up.back()
        moment = self._moment
        self._forget_shown()
        self.marks.clear()
        if not self._running and self._ring is not None:
            self._show_last(self._ring, moment)
        self._present(moving=self._running)

    def _show_last(self, ring: LiveRing, moment: Moment | None) -> None:
        """Put back the picture that the run ended with."""
        try:
            reader = ring.fresh()
            if reader is None or not len(reader):
                return
            there = moment is not None and moment.frame in reader.indices
            index = moment.frame if moment is not None and there else int(reader.indices[-1])
            put_image(self.image, reader.frame(index))
        except (RbcflowError, FrameGone, OSError):
            return  # The picture that is there may stay.
        self.shown = index
        self.sentence = say("viewer.picture-ended")
        if moment is not None and moment.frame == index:
            self._moment = moment
            self._mark(moment)

    def _forget_shown(self) -> None:
        self.shown, self._moment, self._drawn_labels = None, None, []
        self._rate_hz, self._told = None, (time.monotonic(), self.updates)

    def _show(self) -> None:
        reader = self._ring.fresh() if self._ring is not None else None
        if reader is None:
            return
        wanted = 0
        for index, moment in self._wanted(reader):
            wanted += 1
            if wanted > TRIES:
                break
            if index == self.shown and (moment is None) == (self._moment is None):
                if moment is not None and self._history.labels(moment) != self._drawn_labels:
                    self._mark(moment)
                    self._present(moving=True)
                break
            try:
                image = reader.frame(index)
            except FrameGone:
                continue
            self.shown = index
            self._contrast.look(image)
            put_image(self.image, image)
            if moment is not None:
                self._mark(moment)
            else:
                self.marks.clear()
            self._present(moving=True)
            self._moment = moment
            self.updates += 1
            break
        if self._info is not None:
            self.sentence = self._describe(self._info, reader.indices, lost=not wanted)

    def _wanted(self, reader: RingReader) -> Iterator[tuple[int, Moment | None]]:
        """Yield what may be shown now, the best first."""
        if self._mode == "cells" and len(self._history):
            not_before = self._moment.frame if self._moment is not None else -1
            for moment in self._history.candidates(reader.indices, not_before, self._ahead()):
                yield moment.frame, moment
        else:
            for index in reader.indices[:-TRIES:-1].tolist():
                yield index, None

    def _ahead(self) -> float:
        """Return how many frames the camera has taken since the last moment came."""
        return (time.monotonic() - self._came_s) * self._info.fps if self._info is not None else 0.0

    def _present(self, *, moving: bool = False) -> None:
        """Bring to the screen what the layers hold: as napari draws it, or faster where that is slow."""
        self._stale = True
        if moving and self._raster.fits():
            self._raster.show()
        else:
            self._raster.hide()
            self.budget.ask_for_draw()
            self._catch_up()

    def _catch_up(self) -> None:
        """Give napari's canvas what the layers hold; also where it is drawn on its own, for a screenshot."""
        if self._stale:
            self._stale = False
            refresh(self.image, self.marks.layer)

    def _mark_pointed(self) -> None:
        cell, y_px, x_px = self._pointed
        self.marks.point_out(y_px, x_px, self._history.label(cell))

    def _mark(self, moment: Moment) -> None:
        self._drawn_labels = self._history.labels(moment)
        hidden = frozenset() if self._show_unreliable else NOT_COUNTED
        self.marks.place(moment.y_px, moment.x_px, self._drawn_labels, hidden)

    def _describe(self, info: SourceInfo, kept: NDArray[np.int64], *, lost: bool) -> str:
        """Say how far the picture is behind; `lost` where no frame that has marks is `kept` in the ring."""
        if self.shown is None:
            return WAITING if len(kept) or info.live else say("viewer.picture-none-yet")
        newest = self._newest
        if newest is None:
            newest = int(kept[-1]) if len(kept) else 0
        now = time.monotonic()
        then, updates = self._told
        behind_s = max(0.0, (newest - self.shown) / info.fps)
        if now - then > STEADY_S:
            self._rate_hz = (self.updates - updates) / (now - then)
            self._told = (now, self.updates)
            self._behind_s = behind_s
        elif abs(behind_s - self._behind_s) > STEADY_BEHIND_S:
            self._behind_s = behind_s
        rate, behind_s = self._rate_hz, self._behind_s
        sentences = [
            say("viewer.picture-delay", seconds=behind_s)
            if rate is None
            else say("viewer.picture-behind", seconds=behind_s, rate=rate)
        ]
        if lost and self._mode == "cells":
            sentences.append(say("viewer.picture-stuck"))
        if self._moment is not None and self.marks.left_out:
            sentences.append(say("viewer.picture-unmarked", cells=self.marks.left_out))
        return " ".join(sentences)


MODES: list[tuple[str, PictureMode]] = [
    (say("forms.cells-and-labels"), "cells"),
    (say("forms.live-view"), "newest"),
]


class PictureControls(QWidget):
    """The picture's mode, whether unreliable cells are marked, and the way back from a cell."""

    changed = Signal()  # mode, or whether unreliable cells are marked
    live = Signal()  # the live picture is wanted again
    slow_wanted = Signal()  # the last seconds are wanted again, slowly
    frames_wanted = Signal()  # the last seconds are wanted as a layer

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.modes = QComboBox()
        self.modes.addItems([words for words, _ in MODES])
        self.unreliable = QCheckBox(FIELD_LABELS["show_unreliable"])
        self.back = QPushButton(say("viewer.back-to-live"))
        self.slow = QPushButton(say("viewer.slow-motion"))
        self.slow.setToolTip(say("viewer.slow-motion-help"))
        self.frames = QPushButton(say("viewer.frames-layer"))
        self.frames.setToolTip(say("viewer.frames-layer-help"))
        for button in (self.slow, self.frames):
            button.setEnabled(False)
        self.sentence = wrapping_label("font-size: 13px;")
        row = QHBoxLayout()
        row.addWidget(self.modes, 1)
        row.addWidget(self.unreliable)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        buttons = QHBoxLayout()
        for button in (self.slow, self.back, self.frames):
            buttons.addWidget(button)
        column.addLayout(buttons)
        column.addWidget(self.sentence)  # last: it has one line or three
        self.back.hide()
        self.slow.clicked.connect(lambda: self.slow_wanted.emit())
        self.frames.clicked.connect(lambda: self.frames_wanted.emit())
        self.modes.currentIndexChanged.connect(lambda: self.changed.emit())
        self.unreliable.toggled.connect(lambda: self.changed.emit())
        self.back.clicked.connect(lambda: self.live.emit())

    @property
    def mode(self) -> PictureMode:
        """What the picture shows."""
        return MODES[self.modes.currentIndex()][1]

    def choose(self, mode: PictureMode, *, show_unreliable: bool) -> None:
        """Show this choice."""
        self.modes.setCurrentIndex([value for _, value in MODES].index(mode))
        self.unreliable.setChecked(show_unreliable)

    def show_sentence(self, sentence: str, *, held: bool) -> None:
        """Show the picture's sentence, and the way back where it is held, in the place of slow motion."""
        text = breakable(sentence)
        if self.sentence.text() != text:
            self.sentence.setText(text)
        if self.back.isHidden() == held:
            self.slow.setHidden(held)
            self.back.setVisible(held)
