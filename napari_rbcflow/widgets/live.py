"""The instrument in napari's dock: from the choice of a camera to the number."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QMainWindow,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput, RbcflowError, sentence_of
from napari_rbcflow.pipeline import Order, Phase, Worker, WorkerRun
from napari_rbcflow.widgets.cells import LiveCells
from napari_rbcflow.widgets.dock import PatientButton, WarningBox, set_text, wrapping_label
from napari_rbcflow.widgets.live_form import CameraForm
from napari_rbcflow.widgets.picture import LivePicture, PictureControls
from napari_rbcflow.widgets.remembered import Settings, load_settings, save_settings
from napari_rbcflow.widgets.result import ResultPanel
from napari_rbcflow.widgets.run_form import CameraLine, LiveModeOffer, ending_live_mode

if TYPE_CHECKING:
    import napari.viewer


_holders: set[int] = set()


def hold(holder: object) -> None:
    """Leave all objects that exist now out of the search, until `holder` lets go.

    napari has so many of them that one full search takes 0.2 s (measured), every few seconds while
    pictures come and go: nobody could press Stop meanwhile.
    """
    _holders.add(id(holder))
    gc.freeze()


def let_go(holder: object) -> None:
    """Search through everything again, once the last holder has let go; may be called more than once."""
    if id(holder) in _holders:
        _holders.discard(id(holder))
        if not _holders:
            gc.unfreeze()


log = logging.getLogger(__name__)


class LiveParts:
    """Worker and picture; none of Qt's own objects, so that it outlives the widget's end.

    Lifecycle: construct -> `open` -> `close`, from the interface's thread, as often as wished.

    Parameters
    ----------
    viewer : napari.Viewer
    delay_s : float
        Of the picture.

    Attributes
    ----------
    is_open : bool
    """

    def __init__(self, viewer: Any, *, delay_s: float) -> None:
        self._viewer = viewer
        self._delay_s = delay_s
        self._worker: Worker | None = None
        self._picture: LivePicture | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to give back."""
        return self._worker is not None

    @property
    def worker(self) -> Worker:
        """The process that runs."""
        assert self._worker is not None
        return self._worker

    @property
    def picture(self) -> LivePicture:
        """The picture; its layers are made once."""
        assert self._picture is not None
        return self._picture

    def open(self) -> None:
        """Launch the process and make the layers, where that was not done yet."""
        if self._picture is None:
            self._picture = LivePicture(self._viewer, delay_s=self._delay_s)
        if self._worker is None:
            self._worker = Worker()

    def close(self) -> None:
        """Stop a run in progress, wait for its session, end the process and let go of the picture."""
        let_go(self)
        picture, self._picture = self._picture, None
        worker, self._worker = self._worker, None
        # First what must not fail, then the picture, whose viewer may be half gone.
        if worker is not None:
            worker.close()
        if picture is not None:
            try:
                picture.close()
            except Exception:
                log.exception("the live picture")


_BUTTON = "font-size: 20px; font-weight: 600; padding: 8px;"
_START = _BUTTON + " background: #1b6fa8; color: white;"
_STOP = _BUTTON + " background: #b3462f; color: white;"


class RunButtons(QWidget):
    """Two large buttons, of which only the one that can be pressed now has a colour.

    Start says whose run it will be: the form is folded away after a run, and still holds the last
    patient.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.start, self.stop = PatientButton("Start"), QPushButton("Stop")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.start, 2)
        row.addWidget(self.stop, 1)
        self.allow(start=True, stop=False)

    def allow(self, *, start: bool, stop: bool) -> None:
        """Let only what can be done now be pressed."""
        for button, allowed, style in ((self.start, start, _START), (self.stop, stop, _STOP)):
            button.setEnabled(allowed)
            button.setStyleSheet(style if allowed else _BUTTON)

    def name(self, patient: str, sample: str) -> None:
        """Say whose run Start would begin."""
        self.start.show_whose(patient, sample)


class LiveFace(QWidget):
    """Start and Stop above; under them, in what can be scrolled, form, number, controls and cells.

    Parameters
    ----------
    guarded : callable
        Wraps a slot so that it ends in a sentence at worst.
    """

    def __init__(self, guarded: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
        super().__init__()
        self.setMinimumWidth(400)
        self.fold = QToolButton()
        self.fold.setCheckable(True)
        self.fold.setChecked(True)
        self.form = CameraForm()
        self.buttons = RunButtons()
        self.start_button, self.stop_button = self.buttons.start, self.buttons.stop
        self.status = wrapping_label("font-size: 16px; padding: 0px 4px;")
        self.refusal = WarningBox()
        self.offer = LiveModeOffer()
        self.camera_line = CameraLine()
        self.panel = ResultPanel()
        self.controls = PictureControls()
        self.cells = LiveCells(
            guarded, self.panel.show_by_hand, lambda sentence: self.refusal.say(grave=[sentence])
        )
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 0, 4, 4)
        column.setSpacing(6)
        for widget in (
            self.refusal,  # above the form, which may reach below the window
            self.offer,
            self.form,
            self.status,
            self.camera_line,
            self.panel,
            self.controls,
            self.cells,
        ):
            column.addWidget(widget)
        column.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        outer.addWidget(self.buttons)
        outer.addWidget(self.fold)
        outer.addWidget(self._scroll, 1)
        self.fold.toggled.connect(self._fold)
        for name in (self.form.patient, self.form.sample):
            name.textChanged.connect(self._name_start)
        # It is the camera that was refused that stands in Live mode.
        self.form.camera.currentIndexChanged.connect(lambda _: self.offer.hide())
        self._name_start()
        self._fold(True)

    def sizeHint(self) -> QSize:
        """Wide enough for the number."""
        return QSize(430, 900)

    def _fold(self, shown: bool) -> None:
        self.form.setVisible(shown)
        self.fold.setText(("▾" if shown else "▸") + " Camera, patient and stop")

    def _name_start(self) -> None:
        self.buttons.name(self.form.patient.text(), self.form.sample.text())

    def _allow(self, *, going: bool) -> None:
        """Let only what can be done now be pressed."""
        self.buttons.allow(start=not going, stop=going)
        self.form.setEnabled(not going)

    def _main_window(self) -> QMainWindow | None:
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QMainWindow):
            parent = parent.parentWidget()
        return parent


TOGETHER_S, ALONE_S = 0.25, 0.5
"""Between two drawings of all that is not the picture: with a picture, and where none comes."""
IDLE_MS = 500
"""Between two looks while no run goes: Python hears a Ctrl-C only while it runs something."""
_STOPPING = "stopping: the last cells are judged, then the session is closed ..."
_GIVING_UP = "stopping: the camera is still being opened; if it does not answer, it is given up ..."


class LiveWidget(LiveFace):
    """Form, Start and Stop, the number, the picture's controls and the cells judged last.

    The run goes on in a process of its own; this polls it with one timer in the interface's thread.
    Taken out of its dock, or with its window closed, it stops the run and waits for the session.

    Parameters
    ----------
    viewer : napari.Viewer
        Gets two layers, once.

    Attributes
    ----------
    ended : Signal
        A run has ended, or was refused; `run` says how.
    run : WorkerRun or None
        The one that goes on, or the last.
    refusal : WarningBox
        Why a run did not begin.
    """

    ended = Signal()

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(self._guarded)
        self.run: WorkerRun | None = None
        self._going = self._began = False
        self._fault = ""
        self._drew_s = 0.0
        settings = load_settings()
        self._picture_ms = round(1000 / settings.picture_hz)
        self._parts = parts = LiveParts(viewer, delay_s=settings.picture_delay_s)
        self.form.load(settings)
        self.controls.choose(settings.picture_mode, show_unreliable=settings.show_unreliable)
        if settings.remark:
            self.refusal.say(mild=[settings.remark])
        self._connect()
        self._guarded(self._wake)()
        # Where Qt ends this widget with its window, `self` is half gone already; `parts` is not.
        self.destroyed.connect(lambda: parts.close())
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._timer_called)
        self._timer.start(IDLE_MS)

    def _connect(self) -> None:
        self.start_button.clicked.connect(self._guarded(self._start_pressed))
        self.stop_button.clicked.connect(self._guarded(self.stop))
        self.offer.clicked.connect(self._guarded(self._offer_taken))
        self.controls.changed.connect(self._guarded(self._picture_chosen))
        self.controls.live.connect(self._guarded(self._go_on))
        self.cells.pointed.connect(self._guarded(self._point))
        self.cells.changed.connect(self._guarded(self._mark_by_hand))

    # ------------------------------------------------------------------ start and stop

    def open_with(self, order: Order) -> WorkerRun:
        """Show an order in the form and start it, as it is.

        Raises
        ------
        BadInput
            If a run goes on.
        """
        self.form.fill(order)
        return self._start(order)

    def stop(self) -> None:
        """End the run; what came is still judged, then the session is closed."""
        if self._going and self.run is not None:
            self.run.stop()
            self.buttons.allow(start=False, stop=False)
            opening = self.run.phase is Phase.OPENING
            set_text(self.status, _GIVING_UP if opening else _STOPPING)

    def shut_down(self) -> None:
        """Stop a run in progress, wait until its session is closed, and end its process.

        May be called more than once, and where Qt's side of this widget is gone. A later Start wakes
        everything up again.
        """
        was_open = self._parts.is_open
        self._parts.close()
        if was_open and self._going:
            self._timer_called()

    def _wake(self) -> None:
        """Launch the process, which loads the networks meanwhile, and make the layers."""
        try:
            self._parts.open()
        except OSError as error:
            raise BadInput(f"The acquisition's own process cannot be started ({error}).") from error
        self._choose_picture()

    def _start_pressed(self) -> None:
        self._begin(self.form.order)

    def _offer_taken(self) -> None:
        if (refused := self.run) is not None:
            self._begin(lambda: ending_live_mode(self.form.order(), refused.order))

    def _begin(self, wanted: Callable[[], Order]) -> None:
        self.refusal.clear()
        self.offer.hide()
        order = wanted()
        self._keep(self.form.settings)
        self._start(order)

    def _start(self, order: Order) -> WorkerRun:
        self._wake()
        # Raises before anything of the last run is taken away.
        self.run = self._parts.worker.start(order)
        self._going, self._began, self._fault = True, False, ""
        self.refusal.clear()
        self.offer.hide()
        self.camera_line.clear()
        self.panel.clear()
        self.panel.show_whose(order.settings.patient, order.settings.sample)
        self.panel.set_target(order.settings.stop.halfwidth)
        self.cells.begin(order.folder)
        # Opening a camera takes seconds, or fails: meanwhile nothing of the patient before is to be seen.
        self._parts.picture.blank()
        self._say_picture()
        self.fold.setChecked(False)
        self._allow(going=self._going)
        set_text(self.status, "opening the camera ...")
        hold(self._parts)
        self._timer.start(self._picture_ms)
        return self.run

    # ------------------------------------------------------------------ while it runs

    def _tick(self) -> None:
        run = self.run
        if run is None or not self._going:
            return
        # Asked for before what it brought, so that nothing that came before the end is left out.
        ended = run.ended
        if not self._fault:
            self._show(run)
        if ended:
            self._finish(run)

    def _show(self, run: WorkerRun) -> None:
        """Show what is new of a run."""
        if run.info is None:
            return
        judged, counted = run.take()
        snapshot = run.snapshot
        self.cells.add(judged)
        drawn = False
        if self._parts.is_open:
            picture = self._parts.picture
            if not self._began:
                self._began = True
                self.camera_line.show_info(run.info)
                picture.begin(run.info, run.folder)
                set_text(self.status, "" if self.stop_button.isEnabled() else _STOPPING)
            before = picture.updates
            picture.update(snapshot, judged)
            drawn = picture.updates > before
        if snapshot is not None:
            self.panel.show_progress(snapshot.progress, counted, snapshot.warnings)
            self.cells.keep_up(snapshot.progress)
        now = time.monotonic()
        if now - self._drew_s > (TOGETHER_S if drawn else ALONE_S):
            self._drew_s = now
            self._draw_beside()

    def _draw_beside(self) -> None:
        """Draw all else together with the picture: the window is composed as a whole each time."""
        self.panel.draw_now()
        self.cells.strip.draw_now()
        self._say_picture()

    def _say_picture(self) -> None:
        if self._parts.is_open:
            picture = self._parts.picture
            self.controls.say(picture.said, held=picture.held)

    def _finish(self, run: WorkerRun) -> None:
        """Show how a run ended; once, whatever goes wrong on the way."""
        self._going = False
        let_go(self._parts)
        self._timer.start(IDLE_MS)
        self._allow(going=self._going)
        set_text(self.status, "")
        try:
            if run.phase is Phase.REFUSED:
                self.panel.clear()
                self.refusal.say(grave=[run.sentence])
                self.offer.show_for(run.code)
                self.fold.setChecked(True)
                self._scroll.verticalScrollBar().setValue(0)
            else:
                self.panel.show_end(*run.outcome, run.folder, run.remarks)
                if self._fault:
                    self.panel.show_fault(self._fault)
                self.cells.end()
            if self._parts.is_open:
                self._parts.picture.end()
                self._say_picture()
        finally:
            self.ended.emit()

    def _timer_called(self) -> None:
        try:
            self._tick()
        except Exception as error:
            self._say_fault(error)
            if self._going and self.run is not None:
                # What cannot be watched is not worth going on with; from now on only its end is awaited.
                self.run.stop()
                self._fault = f"The display failed, so the run was stopped: {sentence_of(error)}"
                self.panel.show_fault(self._fault)

    def _guarded(self, slot: Callable[..., None]) -> Callable[..., None]:
        """Let what a person does end in a sentence at worst, never in a traceback window."""

        def guarded(*given: Any) -> None:
            try:
                slot(*given)
            except Exception as error:
                self._say_fault(error)

        return guarded

    def _say_fault(self, error: Exception) -> None:
        if isinstance(error, RbcflowError):
            log.warning("%s", error)
        else:
            log.error("in the live widget", exc_info=error)
        self.refusal.say(grave=[sentence_of(error)])

    # ------------------------------------------------------------------ picture and form

    def _choose_picture(self) -> None:
        if self._parts.is_open:
            picture = self._parts.picture
            picture.mode = self.controls.mode
            picture.show_unreliable = self.controls.unreliable.isChecked()

    def _picture_chosen(self) -> None:
        self._choose_picture()
        self._keep(
            lambda before: replace(
                before,
                picture_mode=self.controls.mode,
                show_unreliable=self.controls.unreliable.isChecked(),
            )
        )

    def _point(self, cell: int, frame: int, y_px: float, x_px: float) -> None:
        if self._parts.is_open and self._began:
            self._parts.picture.show_cell(cell, frame, y_px, x_px)
            self._say_picture()

    def _mark_by_hand(self, cell: int, label: str) -> None:
        if self._parts.is_open and self._began:
            self._parts.picture.learn_by_hand(cell, label)

    def _go_on(self) -> None:
        if self._parts.is_open:
            self._parts.picture.go_on()
            self._say_picture()

    def _keep(self, changed: Callable[[Settings], Settings]) -> None:
        """Write settings down; a run does not wait for a folder that may not be written."""
        # Others write there too: read anew, and only what is ours is changed.
        before = load_settings()
        after = changed(before)
        if after == before:
            return
        try:
            save_settings(after)
        except BadInput as error:
            self.refusal.say(mild=[str(error)])

    # ------------------------------------------------------------------ being taken away

    def event(self, event: QEvent) -> bool:
        """Hear of the dock's x, and of `remove_dock_widget`: both take the widget out of its dock."""
        handled = bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._guarded(self.shut_down)()
        return handled

    def hideEvent(self, event: QHideEvent) -> None:
        """Hear of the window being closed. A dock that is only hidden lets the run go on."""
        super().hideEvent(event)
        window = self._main_window()
        if window is not None and not event.spontaneous() and not window.isVisible():
            self._guarded(self.shut_down)()
