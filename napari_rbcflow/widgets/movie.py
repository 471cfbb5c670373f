"""A recorded movie in napari's dock: from the file, or an open layer, to the number and its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QPushButton, QTabWidget, QVBoxLayout

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import busy
from napari_rbcflow.sentences import say
from napari_rbcflow.session import RUN_FILE
from napari_rbcflow.widgets.cells import CellViewer
from napari_rbcflow.widgets.dock import Dock, session_of
from napari_rbcflow.widgets.layers import ResultLayers, hide_others
from napari_rbcflow.widgets.movie_form import LAYER, MovieForm, frames_of_layer, may_be_movie
from napari_rbcflow.widgets.movie_job import MovieJob, MovieOrder, Stage
from napari_rbcflow.widgets.panel import (
    AsHigh,
    Fold,
    RunButtons,
    breakable,
    scrolling,
)
from napari_rbcflow.widgets.picture import Banner
from napari_rbcflow.widgets.remembered import load_settings
from napari_rbcflow.widgets.result import ResultPanel
from napari_rbcflow.widgets.result_parts import StatusLine

if TYPE_CHECKING:
    import napari.viewer


# How far a finger or a glove may slip on the canvas between press and release, for a click.
_STILL_PX = 4.0


class ViewerEvents:
    """Listens to a viewer from `listen` to `stop`, and leaves nothing connected behind.

    `clicked` is given the place, in world coordinates; it is not called for a drag, which moves the picture.
    """

    def __init__(
        self,
        viewer: Any,
        layers_changed: Callable[[], None],
        clicked: Callable[[Sequence[float]], None],
    ) -> None:
        self._viewer = viewer
        self._layers_changed, self._clicked = layers_changed, clicked
        self._listening = False

    def listen(self) -> None:
        """Begin; more than once is fine."""
        if not self._listening:
            self._listening = True
            for event in self._events():
                event.connect(self._changed)
            self._viewer.mouse_drag_callbacks.append(self._pressed)

    def stop(self) -> None:
        """Listen no more; more than once is fine."""
        if self._listening:
            self._listening = False
            for event in self._events():
                event.disconnect(self._changed)
            if self._pressed in self._viewer.mouse_drag_callbacks:
                self._viewer.mouse_drag_callbacks.remove(self._pressed)

    def _events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.reordered

    def _changed(self, event: Any = None) -> None:
        self._layers_changed()

    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        position, begin = event.position, event.pos
        yield
        while event.type == "mouse_move":
            yield
        if math.dist(begin, event.pos) < _STILL_PX:
            self._clicked(position)


# The tabs.
NUMBER, CELLS = 0, 1


class MovieLayout(Dock):
    """The parts and their layout; `image_layers` gives the layers to choose from."""

    def __init__(self, image_layers: Callable[[], list[Any]]) -> None:
        super().__init__()
        self.form = MovieForm(image_layers)
        form = self.form.container.native
        self.buttons = RunButtons(say("forms.run"), say("forms.cancel"))
        self.run_button, self.cancel_button = self.buttons.start, self.buttons.stop
        self.open_button = QPushButton(say("forms.open-earlier"))
        self._form_area = AsHigh(form)
        self.fold = Fold(say("forms.movie-form"), self._form_area)
        self.status = StatusLine()
        self.panel = ResultPanel()
        self.tabs = QTabWidget()
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)  # whoever clicks a tab has the cells' keys
        self.cell_viewer = CellViewer(keys_in=self)
        self.tabs.addTab(scrolling(self.panel), say("forms.result-tab"))
        self.tabs.addTab(scrolling(self.cell_viewer), say("forms.cells-tab"))
        folding = QHBoxLayout()
        folding.addWidget(self.fold)
        folding.addStretch(1)
        folding.addWidget(self.open_button)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.setSpacing(4)
        outer.addWidget(self.buttons)
        outer.addLayout(folding)
        for widget in (self._form_area, self.message, self.status):
            outer.addWidget(widget)
        outer.addWidget(self.tabs, 1)
        form.show()
        for name in (self.form.patient, self.form.sample):
            name.changed.connect(lambda *_: self._name_run())

    def _name_run(self) -> None:
        self.run_button.show_patient(self.form.patient.value, self.form.sample.value)


BUSY_MS = 100
IDLE_MS = 500


class MovieWidget(MovieLayout):
    """Form, Run and Cancel, the number, and the cells one by one.

    The analysis goes on in a process of its own, a layer is copied and a session read in a thread; one
    timer polls them in the interface's thread. Taken out of its dock, or with its window closed, it stops
    what goes on and waits for the session. `ended` is emitted when an analysis has ended in whatever way:
    its layers are shown, or `message` says why not. The viewer gets an Image, a Tracks and three Points
    layers at the end of the first analysis.
    """

    ended = Signal()

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self.layers = ResultLayers(viewer)
        self._banner = Banner(viewer)
        super().__init__(self._image_layers)
        self._settings = load_settings()
        self.job = MovieJob(show_unreliable=self._settings.show_unreliable)
        self._again = False
        self._stale = False
        self._next: Path | None = None
        self._own_layer: Any = None
        self.form.load(self._settings)
        self._choose_active_layer()
        if self._settings.remark:
            self.message.say(mild=[self._settings.remark])
        self._connect()
        self.take_drops(Path.exists, self._take_dropped)
        self._events = ViewerEvents(
            viewer, self._report_errors(self.form.refresh_layers), self._report_errors(self._show_clicked)
        )
        self._events.listen()
        self._show_state()
        # Not through `self`, which is then half gone.
        job, events = self.job, self._events
        self.destroyed.connect(lambda: events.stop())
        self.destroyed.connect(lambda: job.close())
        if (app := QApplication.instance()) is not None:
            app.aboutToQuit.connect(job.close)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._report_errors(self._tick))
        self._timer.start(IDLE_MS)
        self._built = True

    def _connect(self) -> None:
        self.run_button.clicked.connect(self._report_errors(self._run_pressed))
        self.cancel_button.clicked.connect(self._report_errors(self.cancel))
        self.open_button.clicked.connect(self._report_errors(self._open_pressed))
        # The first thing chosen: the networks are loaded while the rest is filled in.
        self.form.container.changed.connect(self._report_errors(lambda *_: self.job.wake()))
        self.panel.offer_check(self._viewer, self._report_errors)
        self.cell_viewer.jump.connect(self._report_errors(self._go_to))
        self.cell_viewer.changed.connect(self._report_errors(lambda *_: self._label_changed()))
        self.tabs.currentChanged.connect(self._report_errors(self._tab_chosen))

    # ------------------------------------------------------------------ run and cancel

    def _run_pressed(self) -> None:
        self.message.clear()
        if busy():  # two runs on a clinic's laptop, and the live one would lose frames
            raise BadInput("forms.live-run-going")
        numbers, series = self.form.numbers(), self.form.chosen_series()
        layer = self.form.chosen_layer
        source = self.form.chosen_path if layer is None else frames_of_layer(layer)
        order = MovieOrder(source, self.form.new_folder(), self.form.run_settings(), **numbers, series=series)
        sessions_folder = Path(self.form.folder.line_edit.value.strip())
        self._keep(sessions_folder=sessions_folder, flow=self.form.flow.value)
        self.job.start(order)
        self._own_layer = layer
        self._started(order.settings.patient, order.settings.sample)

    def cancel(self) -> None:
        """End the analysis; what was done until then stays in its session, marked as stopped."""
        if self.job.stage in (Stage.COPYING, Stage.RUNNING):
            self.job.cancel()
            self.status.say(say("forms.cancelling"))
            self.buttons.allow(start=False, stop=False)

    def show_session(self, folder: Path) -> None:
        """Show an earlier session: its number, layers and cells."""
        self.message.clear()
        self.job.show(folder)
        self._own_layer = None
        self._started("", "")

    def open_session(self, folder: Path) -> None:
        """Come up and show a session that a person opened in napari itself, after one that is being read."""
        self.come_up()
        if self.job.stage is Stage.READING:
            self._next = folder
        elif self.job.busy:
            raise BadInput("viewer.session-after-analysis")
        else:
            self.show_session(folder)

    def _take_dropped(self, paths: list[Path]) -> None:
        """Show the session that was dropped, or choose the movie."""
        folder = session_of(paths[0])
        if (folder / RUN_FILE).is_file():
            self.open_session(folder)
        elif not self.job.busy:
            self.form.choose_path(paths[0])
            self.fold.setChecked(True)

    def choose_layer(self, layer: Any) -> None:
        """Come up with an open movie chosen, so that Run is all that is left to press."""
        self.come_up()
        if not self.job.busy and layer in self._image_layers():
            self.form.refresh_layers()
            self.form.source.value = LAYER
            self.form.layer.value = layer

    def make_way(self, opened: Path) -> None:
        """Show no session any more, where something else was `opened` over its picture."""
        if self.job.busy or self.panel.links.folder in (opened, opened.parent):
            return
        self.job.result = None
        self.cell_viewer.clear()
        self.panel.clear()
        self._banner.hide()
        self.layers.hide()
        hide_others(self._viewer, opened, live_goes_on=busy())

    def closing_stops(self) -> str:
        """Say that a movie is being analysed."""
        going = self.job.stage in (Stage.COPYING, Stage.RUNNING)
        return say("forms.close-movie") if going else ""

    def shut_down(self) -> None:
        """Stop what goes on and wait until its session is closed; a later Run wakes everything up again.

        May be called more than once, and where Qt's side of this is gone already.
        """
        self._events.stop()
        self.job.close()
        self._banner.hide()
        with suppress(RuntimeError):  # the buttons are gone with their window
            self.status.say("")
            self._show_state()

    def put_back(self) -> None:
        """Listen to the viewer again."""
        self._events.listen()

    def _open_pressed(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, say("forms.choose-session"), str(self._settings.sessions_folder)
        )
        if folder:
            self.show_session(Path(folder))

    def _started(self, patient: str, sample: str) -> None:
        self._again = self._stale = False
        self.layers.hide()
        self.cell_viewer.clear()
        self.tabs.setCurrentIndex(NUMBER)
        self.panel.clear()
        self.panel.show_starting(patient, sample)
        self._leave_fields()
        self.fold.setChecked(False)
        self.status.say(say("forms.opening-movie"))
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
            done, frames = job.copied
            reading = say("forms.reading-layer", done=done, frames=frames)
            share = done / frames if frames else None
            self.status.say(reading if frames else say("forms.checking-layer"), share=share)
        if job.stage is Stage.RUNNING and run is job.run and run is not None:
            self._show_progress()
        if job.stage is Stage.READING and not self._again:
            self.status.say(say("forms.reading-session"))
            self.buttons.allow(start=False, stop=False)
        if not job.busy:
            self._finish()

    def _show_progress(self) -> None:
        run = self.job.run
        if run is None or self.job.cancelled:
            return
        _, counted = run.take()
        if run.snapshot is None:
            self.status.say(self.job.step or say("forms.opening-movie"))
        else:
            self.status.say("")
            self.panel.show_simulated(run.info is not None and run.info.simulated)
            self.panel.show_progress(run.snapshot.progress, counted, run.snapshot.warnings)

    def _finish(self) -> None:
        """Show what came of a job; once, whatever goes wrong on the way."""
        again, self._again = self._again, False
        stale, self._stale = self._stale, False
        following, self._next = self._next, None
        self._timer.start(IDLE_MS)
        self.status.say("")
        try:
            if following is not None:
                self.show_session(following)
            elif self.job.sentence:
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
            self.status.say(breakable(sentence), going=False)
        else:
            self._show_error(sentence)
            if run is not None and run.key == "sources.several-series":
                self.form.ask_series()
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
            placed=result.placed,
            own_layer=None if result.placed is None else self._own_layer,
            live_goes_on=busy(),
        )
        self._banner.show_for(result.session.conclusion.simulated)
        self.panel.show_by_hand(result.figure_by_hand)

    def _show_state(self) -> None:
        """Let only what can be done now be pressed."""
        going = self.job.busy
        cancellable = self.job.stage in (Stage.COPYING, Stage.RUNNING)
        self.buttons.allow(start=not going, stop=cancellable)
        self.open_button.setEnabled(not going)
        self.form.container.enabled = not going

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
            self.come_up()

    # ------------------------------------------------------------------ layers

    def _image_layers(self) -> list[Any]:
        mine = self.layers.all
        return [layer for layer in self._viewer.layers if may_be_movie(layer) and layer not in mine]

    def _choose_active_layer(self) -> None:
        """Where a movie is open already, choose that."""
        active = self._viewer.layers.selection.active
        if active is not None and active in self._image_layers():
            self.form.source.value = LAYER
            self.form.layer.value = active
