"""A recorded movie in napari's dock: from the file, or an open layer, to the number and its cells."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSignalBlocker, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QMainWindow

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline.client import busy
from napari_rbcflow.widgets.guarding import guarded
from napari_rbcflow.widgets.movies.face import CELLS, NUMBER, MovieFace
from napari_rbcflow.widgets.movies.form import LAYER
from napari_rbcflow.widgets.movies.job import MovieJob, MovieOrder, Stage
from napari_rbcflow.widgets.movies.layer_movie import frames_of_layer, may_be_movie
from napari_rbcflow.widgets.movies.result_layers import ResultLayers
from napari_rbcflow.widgets.movies.viewer_ears import ViewerEars
from napari_rbcflow.widgets.settings.remembered import load_settings, save_settings
from napari_rbcflow.widgets.warning_box import breakable

if TYPE_CHECKING:
    import napari.viewer  # napari knows by the annotation that it must give its viewer


BUSY_MS = 100
IDLE_MS = 500


class MovieWidget(MovieFace):
    """Form, Run and Cancel, the number, and the cells one by one.

    The analysis goes on in a process of its own, a layer is copied and a session read in a thread;
    one timer polls them in the interface's thread. Taken out of its dock, or with its window closed, it
    stops what goes on and waits for the session.

    Parameters
    ----------
    viewer : napari.Viewer
        Gets an Image, a Tracks and three Points layers at the end of the first analysis.

    Attributes
    ----------
    ended : Signal
        An analysis has ended, in whatever way: its layers stand, or `message` says why not.
    job : MovieJob
    layers : ResultLayers
    message : WarningBox
        Why there is no result.
    """

    ended = Signal()

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self.layers = ResultLayers(viewer)
        super().__init__(self._image_layers)
        self._settings = load_settings()
        self.job = MovieJob(show_unreliable=self._settings.show_unreliable)
        self._again = False
        self._stale = False
        self._own_layer: Any = None
        self.form.load(self._settings)
        self._choose_active_layer()
        if self._settings.remark:
            self.message.say(mild=[self._settings.remark])
        self._connect()
        self._ears = ViewerEars(
            viewer, self._guarded(self.form.refresh_layers), self._guarded(self._show_clicked)
        )
        self._ears.listen()
        self._show_state()
        # Not through `self`, which is then half gone.
        job, ears = self.job, self._ears
        self.destroyed.connect(lambda: ears.stop())
        self.destroyed.connect(lambda: job.close())
        if (app := QApplication.instance()) is not None:
            app.aboutToQuit.connect(job.close)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._guarded(self._tick))
        self._timer.start(IDLE_MS)

    def _connect(self) -> None:
        self.run_button.clicked.connect(self._guarded(self._run_pressed))
        self.cancel_button.clicked.connect(self._guarded(self.cancel))
        self.open_button.clicked.connect(self._guarded(self._open_pressed))
        # The first thing chosen: the networks are loaded while the rest is filled in.
        self.form.container.changed.connect(self._guarded(lambda *_: self.job.wake()))
        self.cell_viewer.jump.connect(self._guarded(self._go_to))
        self.cell_viewer.changed.connect(self._guarded(lambda *_: self._label_changed()))
        self.tabs.currentChanged.connect(self._guarded(self._tab_chosen))

    # ------------------------------------------------------------------ run and cancel

    def _run_pressed(self) -> None:
        self.message.clear()
        if busy():  # two runs on a clinic's laptop, and the live one would lose frames
            raise BadInput("A live run is going on: stop it first, or wait until it has ended.")
        numbers = self.form.numbers()
        layer = self.form.chosen_layer
        source = self.form.chosen_path if layer is None else frames_of_layer(layer)
        order = MovieOrder(source, self.form.new_folder(), self.form.run_settings(), **numbers)
        self._remember()
        self.job.start(order)
        self._own_layer = layer
        self._started(order.settings.patient, order.settings.sample)

    def cancel(self) -> None:
        """End the analysis; what was done until then stays in its session, marked as stopped."""
        if self.job.stage in (Stage.COPYING, Stage.RUNNING):
            self.job.cancel()
            self._say("cancelling ...")
            self.cancel_button.setEnabled(False)

    def show_session(self, folder: Path) -> None:
        """Show an earlier session: its number, layers and cells.

        Raises
        ------
        BadInput
            If it is none, or an analysis goes on.
        """
        self.message.clear()
        self.job.show(folder)
        self._own_layer = None
        self._started("", "")

    def shut_down(self) -> None:
        """Stop what goes on and wait until its session is closed; a later Run wakes everything up again.

        May be called more than once, and where Qt's side of this is gone already.
        """
        self._ears.stop()
        self.job.close()
        with suppress(RuntimeError):  # the buttons are gone with their window
            self._say("")
            self._show_state()

    def _open_pressed(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Session folder", str(self._settings.sessions_folder))
        if folder:
            self.show_session(Path(folder))

    def _started(self, patient: str, sample: str) -> None:
        self._again = self._stale = False
        self.layers.hide()
        self.cell_viewer.clear()
        self.tabs.setCurrentIndex(NUMBER)
        self.panel.clear()
        self.panel.show_whose(patient, sample)
        self.fold.setChecked(False)
        self._say("opening the movie ...")
        self._show_state()
        self._timer.start(BUSY_MS)

    # ------------------------------------------------------------------ while it runs

    def _tick(self) -> None:
        job = self.job
        if not job.busy:
            return
        run = job.run
        job.poll()
        if job.stage is Stage.COPYING and not job.cancelled:
            done, n = job.copied
            self._say(f"reading the layer: frame {done:,} of {n:,}" if n else "looking at the layer ...")
        if job.stage is Stage.RUNNING and run is job.run and run is not None:
            self._show_progress()
        if job.stage is Stage.READING and not self._again:
            self._say("reading the session ...")
            self.cancel_button.setEnabled(False)
        if not job.busy:
            self._finish()

    def _show_progress(self) -> None:
        run = self.job.run
        if run is None or self.job.cancelled:
            return
        _, counted = run.take()
        if run.snapshot is not None:
            self._say("")
            self.panel.show_progress(run.snapshot.progress, counted, run.snapshot.warnings)

    def _finish(self) -> None:
        """Show what came of a job; once, whatever goes wrong on the way."""
        again, self._again = self._again, False
        stale, self._stale = self._stale, False
        self._timer.start(IDLE_MS)
        self._say("")
        try:
            if self.job.sentence:
                self._show_failure(self.job.sentence)
            elif stale:
                self._read_again()
                return
            elif again:
                self._show_layers()
            else:
                self._show_result()
        finally:
            self._show_state()
            if not self.job.busy:
                self.ended.emit()

    def _show_failure(self, sentence: str) -> None:
        run = self.job.run
        if run is not None and run.ended and run.outcome[0] == "failed" and run.folder.exists():
            self.panel.show_end(*run.outcome, run.folder, run.remarks)
        else:
            # Nothing half made may be taken for a result.
            self.panel.clear()
        if self.job.cancelled:
            self._say(breakable(sentence))
        else:
            self.message.say(grave=[sentence])
        self.fold.setChecked(True)

    def _show_result(self) -> None:
        result = self.job.result
        assert result is not None
        session = result.session
        self.panel.show_session(session)
        self._show_layers()
        self.cell_viewer.browse(session.folder)

    def _show_layers(self) -> None:
        result = self.job.result
        assert result is not None
        self.layers.show(
            result.layers,
            scale=result.scale,
            translate=result.translate,
            with_image=not result.own_layer,
            own_layer=self._own_layer if result.own_layer else None,
            live_goes_on=busy(),
        )
        self.panel.show_by_hand(result.figure_by_hand)

    # ------------------------------------------------------------------ cell by cell

    def _tab_chosen(self, tab: int) -> None:
        if tab == CELLS and self.cell_viewer.shown is not None:
            self._go_to(self.cell_viewer.shown.cell)

    def _go_to(self, cell: int) -> None:
        """Turn the viewer to the middle of a cell's track."""
        place = None if self.job.result is None else self.job.result.place_of(cell)
        if place is not None:
            self.layers.go_to(*place)
            self.layers.select(cell, place[0])

    def _label_changed(self) -> None:
        # What is being read may have been read before this change.
        self._stale = self.job.busy
        if not self._stale and self.job.result is not None:
            self._read_again()
            self._show_state()

    def _read_again(self) -> None:
        self._again = True
        self.job.reread()
        self._timer.start(BUSY_MS)

    def _show_clicked(self, position: Any) -> None:
        result = self.job.result
        if result is None or self.job.stage is not Stage.IDLE:
            return
        cell = self.layers.cell_at(position)
        if cell is not None and self.cell_viewer.show_cell(result.session.folder, cell):
            self.layers.select(cell, round(self.layers.frame_of(position)))
            with QSignalBlocker(self.tabs):  # the picture stays where the click was
                self.tabs.setCurrentIndex(CELLS)

    # ------------------------------------------------------------------ form and layers

    def _image_layers(self) -> list[Any]:
        mine = self.layers.all
        return [layer for layer in self._viewer.layers if may_be_movie(layer) and layer not in mine]

    def _choose_active_layer(self) -> None:
        """Where a movie is open already, that is what is meant."""
        active = self._viewer.layers.selection.active
        if active is not None and active in self._image_layers():
            self.form.source.value = LAYER
            self.form.layer.value = active

    def _remember(self) -> None:
        """Keep the folder and the flow for the next day; an analysis does not wait for that."""
        before = load_settings()
        after = replace(
            before, sessions_folder=Path(self.form.folder.line_edit.value.strip()), flow=self.form.flow.value
        )
        if after != before:
            try:
                save_settings(after)
            except BadInput as error:
                self.message.say(mild=[str(error)])

    def _show_state(self) -> None:
        """Let only what can be done now be pressed."""
        cancellable = self.job.stage in (Stage.COPYING, Stage.RUNNING)
        self._show_buttons(going=self.job.busy, cancellable=cancellable)

    # ------------------------------------------------------------------ faults, and being taken away

    def _guarded(self, slot: Callable[..., None]) -> Callable[..., None]:
        """Let a slot end in a sentence at worst, never in a traceback window."""
        return guarded(slot, "the movie widget", lambda sentence: self.message.say(grave=[sentence]))

    def event(self, event: QEvent) -> bool:
        """Hear of the dock's x, and of `remove_dock_widget`: both take the widget out of its dock."""
        handled = bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange and hasattr(self, "_timer"):
            self._guarded(self.shut_down if self.parent() is None else self._ears.listen)()
        return handled

    def hideEvent(self, event: QHideEvent) -> None:
        """Hear of the window being closed. A dock that is only hidden lets the analysis go on."""
        super().hideEvent(event)
        window = self.parentWidget()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        if window is not None and not event.spontaneous() and not window.isVisible():
            self._guarded(self.shut_down)()
