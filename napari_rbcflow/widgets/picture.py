"""The live picture: a frame of the run that goes on, and on every cell its label."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed, sentence_of
from napari_rbcflow.pipeline import JudgedCell, Snapshot
from napari_rbcflow.ring import FrameGone, RingReader, open_ring
from napari_rbcflow.sentences import say
from napari_rbcflow.types import SourceInfo
from napari_rbcflow.widgets.dock import FIELD_LABELS, breakable, wrapping_label
from napari_rbcflow.widgets.picture_layers import (
    LEAST_SHARE,
    NOT_COUNTED,
    SHARE,
    Contrast,
    DrawBudget,
    History,
    Marks,
    Moment,
    bring_to_front,
    give_back,
    own_layer,
    put_image,
)
from napari_rbcflow.widgets.remembered import PictureMode

STEADY_S = 0.25
WAITING = "waiting for the first picture"


class Behind:
    """Says it, and says another figure only where it is really another.

    A figure that flickers cannot be read, and every repaint of a label costs a whole window's.
    """

    def __init__(self) -> None:
        self._told_s = 0.0

    def words(
        self,
        info: SourceInfo,
        shown: int | None,
        newest: int | None,
        kept: NDArray[np.int64],
        *,
        lost: bool,
        left_out: int,
    ) -> str:
        """Return the sentence.

        Parameters
        ----------
        info : SourceInfo
        shown, newest : int or None
            The frame in the picture, and the newest that was received.
        kept : ndarray of int64
            The frames that the ring holds.
        lost : bool
            None of the frames that have marks is among them.
        left_out : int
            Cells without a mark for want of room.
        """
        if shown is None:
            if len(kept) or info.live:
                return WAITING
            return "no picture yet: of a recorded movie only the last seconds are kept"
        if newest is None:
            newest = int(kept[-1]) if len(kept) else 0
        behind_s = max(0.0, (newest - shown) / info.fps)
        if abs(behind_s - self._told_s) > STEADY_S:
            self._told_s = behind_s
        said = f"picture {self._told_s:.1f} s behind the camera"
        if lost:
            said += "; it stands still: the frames tracked now are no longer kept"
        if left_out:
            said += f"; {left_out} cells are not marked: there are too many"
        return said


ACROSS_UM = 180.0
"""What is seen around a cell, across the shorter side of the window."""


class CloseUp:
    """Moves a viewer's camera to a cell, and puts it back.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._before: tuple[Any, float] | None = None

    def go(self, y_px: float, x_px: float, pixel_size_um: float) -> None:
        """Look at a place from near; nearer already, only move."""
        camera = self._viewer.scene.camera
        if self._before is None:
            self._before = (camera.center, camera.zoom)
        camera.center = (0.0, float(y_px), float(x_px))
        camera.zoom = max(self._before[1], min(self._viewer.canvas.size) * pixel_size_um / ACROSS_UM)

    def back(self) -> None:
        """Look again from where one looked before the first `go`."""
        if self._before is not None:
            camera = self._viewer.scene.camera
            camera.center, camera.zoom = self._before
            self._before = None


PATIENCE_S = 3.0
"""For a ring that is not there yet: a run says where it will be before it is made."""


class LiveRing:
    """Opens a session's ring as soon as it is there.

    Parameters
    ----------
    folder : Path
        Of the session.
    info : SourceInfo
        Of the frames that are expected.
    """

    def __init__(self, folder: Path, info: SourceInfo) -> None:
        self._path = Path(folder) / "frames.zarr"
        self._info = info
        self._asked_s = time.monotonic()
        self._reader: RingReader | None = None

    def fresh(self) -> RingReader | None:
        """Return the ring as it is now; None where it is not there yet.

        Raises
        ------
        BadInput
            If it is still not there after `PATIENCE_S`, or is no ring.
        RunFailed
            If it is damaged, gone, or of other frames.
        OSError
            If it cannot be read.
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
            raise RunFailed(f"{self._path} holds frames of another size: no picture can be shown.")
        self._reader = reader
        return reader


DELAY_S = 1.0
"""About what a cell takes to cross the field, so that most are judged while they are still seen."""
LAG_S = 0.25
"""A run that keeps up is less than that behind; one that is more gets the processor, the more the further."""
TRIES = 4
"""Frames asked for in one update, where the ring loses them meanwhile."""

_ENDED = "the run has ended"

Mode = Literal["cells", "newest"]


class LivePicture:
    """One Image layer and one Points layer, made once, that show one run after the other.

    Lifecycle, all in the interface's thread: construct -> (`blank` -> `begin` -> `update` again and
    again -> `end`) for every run -> `close`. `show_cell` and `go_on` at any time after a `begin`, also after
    `end`. Nothing here raises for what happens on the disk; `said` says it in a sentence.

    In the mode ``cells`` the picture stands `delay_s` behind the frame tracked last, because a cell has
    a label only once its track has ended: so cells come in grey and are coloured on their way. Marks
    always belong to the frame that is shown. The mode ``newest`` shows the newest frame of the ring,
    without marks, to focus and to move the stage by.

    Parameters
    ----------
    viewer : napari.Viewer
    delay_s : float

    Attributes
    ----------
    image : napari.layers.Image
    marks : Marks
    shown : int or None
        The frame in the picture.
    held : bool
        The picture stands still at a cell, until `go_on`.
    said : str
        How far the picture is behind the camera, or why there is none.
    show_unreliable : bool
        Whether cells that are not counted are marked.
    updates : int
        Pictures put on the screen since the beginning.
    budget : DrawBudget
    """

    def __init__(self, viewer: Any, *, delay_s: float = DELAY_S) -> None:
        self.viewer = viewer
        self.delay_s = delay_s
        self.shown: int | None = None
        self.held, self.said = False, ""
        self.updates = 0
        self._mode: Mode = "cells"
        self._show_unreliable = True
        self._info: SourceInfo | None = None
        self._ring: LiveRing | None = None
        self._running = self._closed = False
        self._newest: int | None = None
        self._behind = Behind()
        self._history = History(0.0)
        self._moment: Moment | None = None
        self._drawn_labels: list[str] = []
        self._pointed = (0, 0.0, 0.0)
        self._close_up = CloseUp(viewer)
        self.image = own_layer(
            viewer,
            "live",
            lambda: viewer.add_image(np.zeros((64, 64), np.uint8), name="live", contrast_limits=(0, 255)),
        )
        self.marks = Marks(viewer)
        viewer.layers.selection = {self.image}
        self._contrast = Contrast(self.image)
        self.budget = DrawBudget(viewer)

    @property
    def mode(self) -> Mode:
        """``cells`` or ``newest``."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in ("cells", "newest"):
            raise BadInput(f"the picture shows cells or newest, not {mode!r}")
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

    def begin(self, info: SourceInfo, folder: Path) -> None:
        """Show a run from now on.

        Parameters
        ----------
        info : SourceInfo
        folder : Path
            Of its session; the ring need not be there yet.
        """
        self.go_on()
        before = self._info
        self._info = info
        self._ring = LiveRing(folder, info)
        self._running = True
        self._newest = None
        self._history = History(self.delay_s * info.fps)
        self._forget_shown()
        self._contrast.begin(keep_by_hand=before is not None and before.name == info.name)
        self.marks.set_pixel_size(info.pixel_size_um)
        self.marks.clear()
        bring_to_front(self.viewer, self.image, self.marks.layer)
        another_size = self.image.data.shape != (info.height, info.width)
        self._draw_image(np.zeros((info.height, info.width), np.uint8))
        if another_size:
            self.viewer.reset_view()
        self.said = WAITING

    def blank(self) -> None:
        """Show nothing of the run before, until the next `begin`."""
        self._running = False
        self._ring = None
        if self.held:
            self.held = False
            self._close_up.back()
        self._history = History(0.0)
        self._forget_shown()
        self.marks.clear()
        self._draw_image(np.zeros(self.image.data.shape, np.uint8))
        self.said = ""

    def update(self, snapshot: Snapshot | None, judged: Sequence[JudgedCell] = ()) -> None:
        """Take in what is new, and show it if there is time to.

        Parameters
        ----------
        snapshot : Snapshot or None
            The newest; None where there is none yet.
        judged : sequence of JudgedCell
            Judged since the last update.
        """
        if not self._running:
            return
        self._history.learn(judged)
        if snapshot is not None:
            self._history.add(snapshot)
            self._newest = snapshot.newest
            # The number comes first: a run that cannot keep up gets the processor.
            lag = max(snapshot.progress.lag_s, LAG_S)
            self.budget.share = max(LEAST_SHARE, SHARE * LAG_S / lag)
        if self.held or not self.budget.free:
            return
        with self.budget.update():
            try:
                self._show()
            except (RbcflowError, OSError) as error:
                self.said = sentence_of(error)

    def end(self) -> None:
        """Show no more of the run; the last picture stays, and `show_cell` still works."""
        if self._running:
            self._running = False
            if self.said == WAITING:
                self.said = "the run ended before its first picture"
            elif self.shown is not None and not self.held:
                self.said = _ENDED

    def close(self) -> None:
        """Let go of the run and of napari's events; the layers stay, with the last picture."""
        self.end()
        self.go_on()
        self._contrast.close()
        self.budget.close()
        if not self._closed:  # by now they may be another picture's
            self._closed = True
            give_back(self.image)
            give_back(self.marks.layer)
        self._ring = None
        self._moment = None
        self._history = History(0.0)

    def show_cell(self, cell: int, frame: int, y_px: float, x_px: float) -> bool:
        """Let the picture stand at a frame, close to a cell.

        Parameters
        ----------
        cell : int
        frame : int
        y_px, x_px : float
            Where the cell is in that frame, in camera pixels.

        Returns
        -------
        bool
            False where the ring does not hold the frame any more: `said` says so, nothing changes.
        """
        try:
            reader = self._ring.fresh() if self._ring is not None else None
            if reader is None:
                raise FrameGone
            image = reader.frame(frame)
        except FrameGone:
            self.said = f"frame {frame} is gone: only the last seconds of raw frames are kept"
            return False
        except (RbcflowError, OSError) as error:
            self.said = sentence_of(error)
            return False
        self.held = True
        self.shown = frame
        self._pointed = (cell, y_px, x_px)
        self._draw_image(image)
        self._mark_pointed()
        self._close_up.go(y_px, x_px, self._info.pixel_size_um if self._info else 1.0)
        self.said = f"held at frame {frame}, cell {cell}"
        return True

    def learn_by_hand(self, cell: int, label: str) -> None:
        """Mark a cell as a person judged it; with the machine's own label, as the machine did."""
        self._history.learn_by_hand(cell, label)
        if self.held:
            self._mark_pointed()
        elif self._moment is not None:
            self._mark(self._moment)

    def go_on(self) -> None:
        """Go back to the run, and to where the view was."""
        if not self.held:
            return
        self.held = False
        self._close_up.back()
        moment = self._moment
        self._forget_shown()
        self.marks.clear()
        if not self._running and self._ring is not None:
            self._show_last(self._ring, moment)

    def _show_last(self, ring: LiveRing, moment: Moment | None) -> None:
        """Put back the picture that the run ended with."""
        try:
            reader = ring.fresh()
            if reader is None or not len(reader):
                return
            there = moment is not None and moment.frame in reader.indices
            index = moment.frame if moment is not None and there else int(reader.indices[-1])
            self._draw_image(reader.frame(index))
        except (RbcflowError, FrameGone, OSError):
            return  # The picture that is there may stay.
        self.shown = index
        self.said = _ENDED
        if moment is not None and moment.frame == index:
            self._moment = moment
            self._mark(moment)

    def _forget_shown(self) -> None:
        self.shown, self._moment, self._drawn_labels = None, None, []

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
                    self.budget.ask_for_draw()
                break
            try:
                image = reader.frame(index)
            except FrameGone:
                continue
            self.shown = index
            self._contrast.look(image)
            self._draw_image(image)
            if moment is not None:
                self._mark(moment)
            else:
                self.marks.clear()
            self._moment = moment
            self.updates += 1
            break
        self._say(reader, lost=not wanted)

    def _wanted(self, reader: RingReader) -> Iterator[tuple[int, Moment | None]]:
        """Yield what may be shown now, the best first."""
        if self._mode == "cells" and len(self._history):
            not_before = self._moment.frame if self._moment is not None else -1
            for moment in self._history.candidates(reader.indices, not_before):
                yield moment.frame, moment
        else:
            for index in reader.indices[:-TRIES:-1].tolist():
                yield index, None

    def _draw_image(self, image: NDArray[np.uint8]) -> None:
        put_image(self.image, image)
        self.budget.ask_for_draw()

    def _mark_pointed(self) -> None:
        cell, y_px, x_px = self._pointed
        self.marks.point_out(y_px, x_px, self._history.label(cell))

    def _mark(self, moment: Moment) -> None:
        self._drawn_labels = self._history.labels(moment)
        hidden = frozenset() if self._show_unreliable else NOT_COUNTED
        self.marks.place(moment.y_px, moment.x_px, self._drawn_labels, hidden)

    def _say(self, reader: RingReader, *, lost: bool) -> None:
        if self._info is None:
            return
        lost = lost and self._mode == "cells"
        left_out = self.marks.left_out if self._moment is not None else 0
        ring = reader.indices
        self.said = self._behind.words(
            self._info, self.shown, self._newest, ring, lost=lost, left_out=left_out
        )


MODES: list[tuple[str, PictureMode]] = [
    (say("forms.cells-and-labels"), "cells"),
    (say("forms.live-view"), "newest"),
]


class PictureControls(QWidget):
    """The picture's mode, whether unreliable cells are marked, and the way back from a cell.

    Attributes
    ----------
    changed : Signal
        Mode or tick.
    live : Signal
        A person wants the running picture again.
    """

    changed = Signal()
    live = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.modes = QComboBox()
        self.modes.addItems([words for words, _ in MODES])
        self.unreliable = QCheckBox(FIELD_LABELS["show_unreliable"])
        self.back = QPushButton("Back to the live picture")
        self.said = wrapping_label("font-size: 13px;")
        row = QHBoxLayout()
        row.addWidget(self.modes, 1)
        row.addWidget(self.unreliable)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self.said)
        column.addWidget(self.back)
        self.back.hide()
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

    def say(self, said: str, *, held: bool) -> None:
        """Show the picture's own words, and the way back where it stands still."""
        text = breakable(said)
        if self.said.text() != text:
            self.said.setText(text)
        if self.back.isHidden() == held:
            self.back.setVisible(held)
