"""The instrument in napari's dock: from the choice of a camera to the number."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPoint, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_rbcflow.errors import BadInput, LiveModeOn, sentence_of
from napari_rbcflow.pipeline import Phase, RunRequest, Worker, WorkerRun, busy
from napari_rbcflow.sentences import say
from napari_rbcflow.widgets.cells_live import LiveCells
from napari_rbcflow.widgets.dock import Dock, report_error
from napari_rbcflow.widgets.label_styles import CHIPS
from napari_rbcflow.widgets.live_form import CameraForm
from napari_rbcflow.widgets.panel import (
    AsHigh,
    Fold,
    HeldInView,
    RunButtons,
    scrolling,
)
from napari_rbcflow.widgets.picture import LivePicture, PictureControls
from napari_rbcflow.widgets.remembered import load_settings
from napari_rbcflow.widgets.result import ResultPanel
from napari_rbcflow.widgets.result_parts import StatusLine
from napari_rbcflow.widgets.run_form import CameraLine, ending_live_mode

if TYPE_CHECKING:
    import napari.viewer


_holders: set[int] = set()


def freeze_gc(holder: object) -> None:
    """Leave all objects that exist now out of garbage collection, until `holder` unfreezes it.

    napari has so many of them that one full collection takes 0.2 s (measured), every few seconds while
    pictures come and go: nobody could press Stop meanwhile.
    """
    _holders.add(id(holder))
    gc.freeze()


def unfreeze_gc(holder: object) -> None:
    """Collect everything again, once the last holder has let go; may be called more than once."""
    if id(holder) in _holders:
        _holders.discard(id(holder))
        if not _holders:
            gc.unfreeze()


log = logging.getLogger(__name__)


class LiveParts:
    """Worker and picture; none of Qt's own objects, so that it outlives the widget's end.

    Lifecycle: construct -> `open` -> `close`, from the interface's thread, as often as wished.
    """

    def __init__(self, viewer: Any, *, delay_s: float, hz: float) -> None:
        self._viewer = viewer
        self._delay_s = delay_s
        self._hz = hz
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
            self._picture = LivePicture(self._viewer, delay_s=self._delay_s, hz=self._hz)
            # The layers may be those of an earlier dock, with the last patient's cells on them.
            self._picture.blank()
        if self._worker is None:
            self._worker = Worker()

    def close(self) -> None:
        """Stop a run in progress, wait for its session, end the process and let go of the picture."""
        unfreeze_gc(self)
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


class KeptFit:
    """Fits the picture into the canvas again when that changes its size, until a person zooms or moves it."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._fitted: tuple[Any, ...] | None = None
        self._size = self._canvas()

    def view(self) -> tuple[Any, ...]:
        """Return where the camera is."""
        camera = self._viewer.camera
        return (*camera.center, camera.zoom)

    def take(self, before: tuple[Any, ...]) -> None:
        """Take the view of now as one that fits, if it is not the one `before`."""
        if self.view() != before:
            self._fitted, self._size = self.view(), self._canvas()

    def look(self) -> None:
        """Fit again, where the canvas has another size than at the last look."""
        size = self._canvas()
        if size == self._size:
            return
        self._size = size
        if self._fitted is not None and np.allclose(self._fitted, self.view(), rtol=1e-3, atol=1e-3):
            self._viewer.reset_view()
            self._fitted = self.view()

    def _canvas(self) -> tuple[int, ...]:
        return tuple(self._viewer.canvas.size)


_OFFER = f"font-size: 17px; font-weight: 600; padding: 8px; {CHIPS['start'].css}"


class LiveLayout(Dock):
    """Start, Stop, verdict, number and progress on top; below, in what can be scrolled, all else."""

    def __init__(self) -> None:
        super().__init__()
        self.form = CameraForm()
        self.fold = Fold(say("forms.live-form"), self.form)
        self.buttons = RunButtons(say("forms.start"), say("forms.stop"))
        self.start_button, self.stop_button = self.buttons.start, self.buttons.stop
        self.status = StatusLine()
        # Under the message, and only where Live mode was why a run was refused.
        self.offer = QPushButton(say("forms.end-live-mode"))
        self.offer.setStyleSheet(_OFFER)
        self.offer.setToolTip(say("forms.end-live-mode-help"))
        self.offer.hide()
        self.camera_line = CameraLine()
        self.panel = ResultPanel(head_apart=True)
        self.controls = PictureControls()
        self.cells = LiveCells(self._report_errors, self.panel.show_by_hand, self._show_error)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 0, 4, 4)
        column.setSpacing(6)
        for widget in (
            self.message,  # above the form, which may reach below the window
            self.offer,
            self.form,
            self.status,
            self.camera_line,
            self.controls,  # above all that grows: it must stay where it was when a hand goes there
            self.panel,
            self.cells,
        ):
            column.addWidget(widget)
        column.addStretch(1)
        self._scroll = scrolling(content)
        panel, cells = self.panel, self.cells
        clicked = (cells.strip, cells.viewer, self.controls)  # no warning moves what is about to be
        HeldInView(self._scroll, (*clicked, panel.curve, panel.counts, panel.quality))
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        outer.addWidget(self.buttons)
        outer.addWidget(self.fold)
        self.head_area = AsHigh(self.panel.head)
        outer.addWidget(self.head_area)
        outer.addWidget(self._scroll, 1)
        self._to_cell = QTimer(self)
        self._to_cell.setSingleShot(True)
        self._to_cell.timeout.connect(self._show_cell_viewer)
        self.cells.strip.chosen.connect(lambda *_: self._to_cell.start(0))  # once it is laid out
        for name in (self.form.patient, self.form.sample):
            name.textChanged.connect(self._name_start)
        # It is the camera that was refused that is in Live mode.
        self.form.camera.currentIndexChanged.connect(lambda _: self.offer.hide())

    def _show_cell_viewer(self) -> None:
        """Scroll as little as is needed to see the cell that was clicked."""
        viewer, bar = self.cells.viewer, self._scroll.verticalScrollBar()
        content, height = self._scroll.widget(), self._scroll.viewport().height()
        if viewer.isHidden() or content is None:
            return
        top = viewer.mapTo(content, QPoint(0, 0)).y()
        bottom = top + viewer.height()
        if top < bar.value() or bottom > bar.value() + height:
            bar.setValue(min(top, bottom - height))

    def _name_start(self) -> None:
        """Say whose run Start would begin: after a run the form is folded, with the last patient in it."""
        self.start_button.show_patient(self.form.patient.text(), self.form.sample.text())

    def _allow(self, *, going: bool) -> None:
        """Let only what can be done now be pressed."""
        self.buttons.allow(start=not going, stop=going)
        self.controls.slow.setEnabled(going)
        self.controls.frames.setEnabled(going)
        self.form.setEnabled(not going)


# Seconds between two drawings of all that is not the picture: each costs one of the whole window, which in
# software is five times a picture's.
TOGETHER_S, IN_SOFTWARE_S = 0.25, 1.0
# Looks in the time of one picture: one for which there was no time yet is not left out.
LOOKS = 2
# Between two polls while no run goes on: Python notices a Ctrl-C only while it runs something.
IDLE_MS = 500


class LiveWidget(LiveLayout):
    """Form, Start and Stop, the number, the picture's controls and the cells judged last.

    The run goes on in a process of its own; this polls it with one timer in the interface's thread.
    Taken out of its dock, or with its window closed, it stops the run and waits for the session.
    `run` is the one that goes on, or the last; `ended` is emitted when it has ended, or was refused;
    `message` says why a run did not begin. The viewer gets two layers, once.
    """

    ended = Signal()

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.run: WorkerRun | None = None
        self._going = self._began = False
        self._fault = ""
        self._drew_s = 0.0
        settings = load_settings()
        self._look_ms = round(1000 / settings.picture_hz / LOOKS)
        self._parts = parts = LiveParts(viewer, delay_s=settings.picture_delay_s, hz=settings.picture_hz)
        self._fit = KeptFit(viewer)
        self.form.load(settings)
        self.controls.choose(settings.picture_mode, show_unreliable=settings.show_unreliable)
        if settings.remark:
            self.message.say(mild=[settings.remark])
        self._connect()
        self._report_errors(self._wake)()
        # Where Qt ends this widget with its window, `self` is half gone already; `parts` is not.
        self.destroyed.connect(lambda: parts.close())
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._timer_called)
        self._timer.start(IDLE_MS)
        self._built = True

    def _connect(self) -> None:
        self.start_button.clicked.connect(self._report_errors(self._start_pressed))
        self.stop_button.clicked.connect(self._report_errors(self.stop))
        self.offer.clicked.connect(self._report_errors(self._offer_taken))
        self.panel.offer_check(self._viewer, self._report_errors)
        self.controls.changed.connect(self._report_errors(self._picture_chosen))
        self.controls.live.connect(self._report_errors(self._go_on))
        self.controls.slow_wanted.connect(self._report_errors(self._slow_motion))
        self.controls.frames_wanted.connect(self._report_errors(self._add_frames))
        self.cells.pointed.connect(self._report_errors(self._point))
        self.cells.changed.connect(self._report_errors(self._mark_by_hand))

    # ------------------------------------------------------------------ start and stop

    def open_with(self, order: RunRequest) -> WorkerRun:
        """Show an order in the form and start it, as it is."""
        self.form.fill(order)
        return self._start(order)

    def stop(self) -> None:
        """End the run; what came is still judged, then the session is closed."""
        if self._going and self.run is not None:
            self.run.stop()
            self.buttons.allow(start=False, stop=False)
            opening = self.run.phase is Phase.OPENING
            self.status.say(say("forms.giving-up" if opening else "forms.stopping"))

    def closing_stops(self) -> str:
        """Say that a run goes on."""
        return say("forms.close-live") if self._going else ""

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
            raise BadInput("forms.worker-not-started", why=error) from error
        self._choose_picture()

    def _start_pressed(self) -> None:
        self._begin(self.form.order)

    def _offer_taken(self) -> None:
        if (refused := self.run) is not None:
            self._begin(lambda: ending_live_mode(self.form.order(), refused.request))

    def _begin(self, wanted: Callable[[], RunRequest]) -> None:
        self.message.clear()
        self.offer.hide()
        if busy(movies=True):  # on a clinic's laptop this run would lose frames
            raise BadInput("forms.movies-going")
        order = wanted()
        self._keep(**self.form.to_remember())
        self._start(order)

    def _start(self, order: RunRequest) -> WorkerRun:
        self._wake()
        # Raises before anything of the last run is taken away.
        self.run = self._parts.worker.start(order)
        self._going, self._began, self._fault = True, False, ""
        self.message.clear()
        self.offer.hide()
        self.camera_line.clear()
        self.panel.clear()
        self.panel.show_starting(order.settings.patient, order.settings.sample)
        self.panel.set_target(order.settings.stop.halfwidth)
        self.cells.begin(order.folder)
        # Opening a camera takes seconds, or fails: meanwhile nothing of the patient before may be seen.
        self._parts.picture.blank()
        self._say_picture()
        self._leave_fields()
        self.fold.setChecked(False)
        self._allow(going=self._going)
        self.status.say(say("forms.opening-camera"))
        freeze_gc(self._parts)
        self._timer.start(self._look_ms)
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
            if self._parts.is_open and self.stop_button.isEnabled() and (step := self._parts.worker.step):
                self.status.say(step)
            return
        judged, counted = run.take()
        snapshot = run.snapshot
        self.cells.add(judged)
        if self._parts.is_open:
            picture = self._parts.picture
            if not self._began:
                self._began = True
                self.camera_line.show_info(run.info)
                self.panel.show_simulated(run.info.simulated)
                view = self._fit.view()
                picture.begin(run.info, run.folder)
                self._fit.take(view)
                self.status.say("" if self.stop_button.isEnabled() else say("forms.stopping"))
            picture.update(snapshot, judged)
            picture.frames.follow()
        if snapshot is not None:
            self.panel.show_progress(snapshot.progress, counted, snapshot.warnings)
            self.cells.keep_up(snapshot.progress)
        now = time.monotonic()
        slow = self._parts.is_open and self._parts.picture.painted_over
        if now - self._drew_s > (IN_SOFTWARE_S if slow else TOGETHER_S):
            self._drew_s = now
            self.panel.draw_now()
            self.cells.strip.draw_now()
            self._say_picture()

    def _say_picture(self) -> None:
        if self._parts.is_open:
            picture = self._parts.picture
            self.controls.show_sentence(picture.sentence, held=picture.held)

    def _finish(self, run: WorkerRun) -> None:
        """Show how a run ended; once, whatever goes wrong on the way."""
        self._going = False
        unfreeze_gc(self._parts)
        self._timer.start(IDLE_MS)
        self._allow(going=self._going)
        self.status.say("")
        try:
            if run.phase is Phase.REFUSED:
                self.panel.clear()
                self._show_error(run.sentence)
                self.offer.setVisible(run.key == LiveModeOn.KEY)
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
            self._fit.look()
            self._tick()
        except Exception as error:
            report_error(error, "LiveWidget", self._show_error)
            if self._going and self.run is not None:
                # What cannot be watched is not worth going on with; from now on only its end is awaited.
                self.run.stop()
                self._fault = say("forms.display-failed", why=sentence_of(error))
                self.panel.show_fault(self._fault)

    # ------------------------------------------------------------------ picture and form

    def _choose_picture(self) -> None:
        if self._parts.is_open:
            picture = self._parts.picture
            picture.mode = self.controls.mode
            picture.show_unreliable = self.controls.unreliable.isChecked()

    def _picture_chosen(self) -> None:
        self._choose_picture()
        self._keep(picture_mode=self.controls.mode, show_unreliable=self.controls.unreliable.isChecked())

    def _point(self, cell: int, frame: int, y_px: float, x_px: float) -> None:
        if self._parts.is_open and self._began:
            self._parts.picture.show_cell(cell, frame, y_px, x_px)
            self._say_picture()

    def _mark_by_hand(self, cell: int, label: str) -> None:
        if self._parts.is_open and self._began:
            self._parts.picture.learn_by_hand(cell, label)

    def _slow_motion(self) -> None:
        if self._parts.is_open:
            self._parts.picture.slow_motion()
            self._say_picture()

    def _add_frames(self) -> None:
        if self._parts.is_open:
            self._parts.picture.frames.add()

    def _go_on(self) -> None:
        if self._parts.is_open:
            self._parts.picture.go_on()
            self._say_picture()
