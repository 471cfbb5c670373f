"""A dock of ours: how it comes, where it stands, what a wheel and a drop do in it, and how it closes."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import ref

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import (
    QDragEnterEvent,
    QDropEvent,
    QHideEvent,
    QShowEvent,
)
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDockWidget,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMessageBox,
    QScrollBar,
    QSplitter,
    QTabBar,
    QWidget,
)

from napari_rbcflow.errors import BadInput, RbcflowError, sentence_of
from napari_rbcflow.sentences import say
from napari_rbcflow.session import RUN_FILE
from napari_rbcflow.widgets.panel import WarningBox
from napari_rbcflow.widgets.remembered import PLUGIN, load_settings, save_settings

log = logging.getLogger(__name__)


def report_error(error: Exception, where: str, show: Callable[[str], None]) -> None:
    """Log an error, with its traceback where it is none of ours, and show its sentence."""
    if isinstance(error, RbcflowError):
        log.warning("%s", error)
    else:
        log.error("%s", where, exc_info=error)
    show(sentence_of(error))


def report_errors(slot: Callable[..., None], where: str, show: Callable[[str], None]) -> Callable[..., None]:
    """Let a slot end in a sentence at worst, never in a traceback window."""

    def call(*given: Any) -> None:
        try:
            slot(*given)
        except Exception as error:
            report_error(error, where, show)

    return call


_TURNED_BY_WHEEL = (QAbstractSpinBox, QComboBox, QAbstractSlider, QTabBar)


class WheelGuard(QObject):
    """Lets the mouse wheel turn only the field that has the focus; over any other it scrolls the panel."""

    def watch(self, panel: QWidget) -> None:
        """Guard all fields of a panel; called again, those that were added too."""
        for kind in _TURNED_BY_WHEEL:
            for field in panel.findChildren(kind):
                if isinstance(field, QScrollBar):
                    continue
                if (
                    field.focusPolicy() == Qt.FocusPolicy.WheelFocus
                ):  # the wheel itself would give it the focus
                    field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                field.installEventFilter(self)

    def eventFilter(self, field: QObject, event: QEvent) -> bool:
        """Pass a wheel on to what the field is in."""
        if event.type() != QEvent.Type.Wheel or not isinstance(field, QWidget) or field.hasFocus():
            return False
        event.ignore()
        return True


class CloseGuard(QObject):
    """Asks before a person closes a dock by its x, or the window, where `Dock.closing_stops` says something.

    A program that closes the viewer is not asked.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        # Nothing here may keep a window that napari has let go of.
        self._frame: ref[QDockWidget] | None = None
        self._window: ref[QMainWindow] | None = None

    def watch(self) -> None:
        """Watch what the dock is in now."""
        frame, window = frame_of(self.dock)
        if window is not None and (self._window is None or self._window() is not window):
            self._window = ref(window)
            window.installEventFilter(self)
        if frame is not None and (self._frame is None or self._frame() is not frame):
            self._frame = ref(frame)
            # What napari's x calls; the button itself is made anew whenever the dock is moved.
            if hasattr(frame, "destroyOnClose"):
                frame.destroyOnClose = partial(_close_if_wanted, ref(frame), ref(self))

    def eventFilter(self, window: QObject, event: QEvent) -> bool:
        """Keep the window where a person wants to go on."""
        if event.type() != QEvent.Type.Close or not isinstance(window, QMainWindow):
            return False
        if frame_of(self.dock)[1] is not window or _closed_by_program(window) or self.may_close():
            return False
        event.ignore()
        return True

    def may_close(self) -> bool:
        """Ask a person, where there is something to ask."""
        question = self.dock.closing_stops()
        return not question or stop_wanted(self.dock, question)


def _close_if_wanted(frame: ref[Any], guard: ref[CloseGuard]) -> None:
    closing, asking = frame(), guard()
    if closing is not None and (asking is None or asking.may_close()):
        type(closing).destroyOnClose(closing)
        if asking is not None:
            # napari only takes it out of its window. Its slots hold it, and it the viewer, until Qt ends it.
            asking.dock.deleteLater()


def stop_wanted(parent: QWidget, question: str) -> bool:
    """Ask a person whether to stop what goes on; Enter and Escape keep it running."""
    box = QMessageBox(QMessageBox.Icon.Warning, "napari-rbcflow", question, parent=parent)
    stop = box.addButton(say("forms.close-stop"), QMessageBox.ButtonRole.DestructiveRole)
    keep = box.addButton(say("forms.close-keep"), QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.setEscapeButton(keep)
    box.exec()
    wanted = box.clickedButton() == stop
    box.deleteLater()
    return wanted


def _closed_by_program(window: QMainWindow) -> bool:
    """Whether napari's ``viewer.close()`` is under way: it closes the canvas before the window."""
    centre = window.centralWidget()
    canvases = [] if centre is None else centre.findChildren(QSplitter)
    return bool(canvases) and not any(canvas.isVisible() for canvas in canvases)


def is_folder_or_run(path: Path) -> bool:
    """Say whether a path is a folder, or the run.json of a session."""
    return path.is_dir() or path.name == RUN_FILE


def session_of(path: Path) -> Path:
    """Return the folder of a session, given that or its run.json."""
    return path.parent if path.name == RUN_FILE else path


def frame_of(widget: QWidget) -> tuple[QDockWidget | None, QMainWindow | None]:
    """Return the dock and the window that a widget is in, each None where there is none."""
    frame: QDockWidget | None = None
    around = widget.parentWidget()
    while around is not None and not isinstance(around, QMainWindow):
        if isinstance(around, QDockWidget) and frame is None:
            frame = around
        around = around.parentWidget()
    return frame, around


def even_labels(panel: QWidget) -> None:
    """Let the fields of a form begin at one line: magicgui measures their labels before they have a font."""
    forms: dict[QWidget | None, list[QLabel]] = {}
    for label in panel.findChildren(QLabel):
        row = label.parentWidget()
        layout = None if row is None else row.layout()
        if row is not None and isinstance(layout, QHBoxLayout) and layout.indexOf(label) == 0:
            label.ensurePolished()
            forms.setdefault(row.parentWidget(), []).append(label)
    for labels in forms.values():
        width = max(label.sizeHint().width() for label in labels)
        for label in labels:
            label.setMinimumWidth(width)


def shorten_tab(dock: QDockWidget) -> None:
    """Let a tab say "Live", not "Live (n..."; the Window menu goes on naming the plugin."""
    whole = dock.windowTitle()
    if whole.endswith(_OF_PLUGIN):
        dock.setWindowTitle(whole.removesuffix(_OF_PLUGIN))
        dock.toggleViewAction().setText(whole)


def _collect_soon() -> None:
    """Free what a dock that is gone leaves in circles: its plots' menus, magicgui's filters, a timer.

    Python would do so at any time and in any thread, where Qt ends the program or waits for ever.
    """
    for ms in (0, 1000):  # again, where a slot or a thread still held some of it
        QTimer.singleShot(ms, lambda: gc.collect())


_OF_PLUGIN = f" ({PLUGIN})"
# Several docks one above the other must not make the window higher than a laptop's screen.
_LEAST_HEIGHT = 160
# napari's lists of layers are 320 x 500: on less than this they leave no room for the picture or the number.
_SMALL_SCREEN = QSize(1100, 600)
_NAPARIS_DOCKS = ("layer controls", "layer list")


class Dock(QWidget):
    """A dock that shows errors as sentences in `message`, and shuts down when it is taken away.

    It comes as a tab beside our other docks. A wheel turns only the field that has the focus.
    """

    _built = False  # Qt may call `event` before there is anything to shut down

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumWidth(400)
        self.message = WarningBox()
        self._wheel, self._closing = WheelGuard(self), CloseGuard(self)
        self._place = QTimer(self)
        self._place.setSingleShot(True)
        self._place.timeout.connect(self._report_errors(self._stand_beside))
        self._placed = False
        self.destroyed.connect(_collect_soon)

    def sizeHint(self) -> QSize:
        """Wide enough for the number."""
        return QSize(430, 900)

    def minimumSizeHint(self) -> QSize:
        """Low: whatever is in it is scrolled."""
        least = super().minimumSizeHint()
        return QSize(least.width(), min(least.height(), _LEAST_HEIGHT))

    def shut_down(self) -> None:
        """Stop what goes on; may be called more than once. Here there is nothing."""

    def put_back(self) -> None:
        """Go on in a dock again."""

    def closing_stops(self) -> str:
        """Return a sentence that says what closing this dock would stop; empty where nothing goes on."""
        return ""

    def take_drops(self, fits: Callable[[Path], bool], take: Callable[[list[Path]], None]) -> None:
        """Let what `fits` be dropped on the whole dock; anything else is left to napari."""
        self._fits, self._take = fits, self._report_errors(take)
        self.setAcceptDrops(True)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take what fits."""
        if self._dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Use what was dropped."""
        event.acceptProposedAction()
        self._take(self._dropped(event))

    def _dropped(self, event: QDropEvent) -> list[Path]:
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        return list(filter(self._fits, paths))

    def come_up(self) -> None:
        """Be seen: in front of the tabs beside it, and not hidden."""
        frame, _ = frame_of(self)
        if frame is not None:
            frame.show()
            frame.raise_()

    def _stand_beside(self) -> None:
        """Become a tab beside our other docks on this side: a laptop has no height for two."""
        dock, window = frame_of(self)
        if dock is None or window is None:
            return
        shorten_tab(dock)
        if dock.isFloating():
            return
        side = window.dockWidgetArea(dock)
        beside = [
            other
            for other in window.findChildren(QDockWidget)
            if other is not dock
            and not other.isHidden()
            and not other.isFloating()
            and window.dockWidgetArea(other) == side
            and other.findChild(Dock) is not None
        ]
        if not beside:
            self._make_room(window)
        elif not window.tabifiedDockWidgets(dock):
            window.tabifyDockWidget(beside[0], dock)
            self.come_up()

    def _make_room(self, window: QMainWindow) -> None:
        """On a small or much enlarged screen, hide napari's own docks, and say how they come back."""
        room = window.screen().availableSize()
        if room.width() >= _SMALL_SCREEN.width() and room.height() >= _SMALL_SCREEN.height():
            return
        found = [window.findChild(QDockWidget, name) for name in _NAPARIS_DOCKS]
        there = [dock for dock in found if dock is not None and not dock.isHidden()]
        for dock in there:
            dock.hide()
        if there:
            if (layout := window.layout()) is not None:
                layout.activate()  # it is as low as what is left in it from now on
            window.resize(window.size().boundedTo(room))
            self.message.say(grave=self.message.grave, mild=[*self.message.mild, say("forms.docks-hidden")])

    def _leave_fields(self) -> None:
        """Take the focus out of the fields and buttons in here: no key and no wheel may change one unseen."""
        focus = QApplication.focusWidget()
        if focus is not None and self.isAncestorOf(focus):
            self.setFocus()

    def event(self, event: QEvent) -> bool:
        """Notice the dock's x, and `remove_dock_widget`: both take the widget out of its dock."""
        handled = bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange and self._built:
            self._placed = self._placed and self.parent() is not None
            self._report_errors(self.shut_down if self.parent() is None else self.put_back)()
        return handled

    def showEvent(self, event: QShowEvent) -> None:
        """Find a place, at the first time."""
        super().showEvent(event)
        self._wheel.watch(self)
        self._closing.watch()
        even_labels(self)
        if not self._placed:
            self._placed = True
            self._place.start(0)

    def hideEvent(self, event: QHideEvent) -> None:
        """Notice the window being closed. A dock that is only hidden lets the run go on."""
        super().hideEvent(event)
        _, window = frame_of(self)
        if window is not None and not event.spontaneous() and not window.isVisible():
            self._report_errors(self.shut_down)()

    def _report_errors(self, slot: Callable[..., None]) -> Callable[..., None]:
        return report_errors(slot, type(self).__name__, self._show_error)

    def _show_error(self, sentence: str) -> None:
        self.message.say(grave=[sentence])

    def _keep(self, **changed: Any) -> None:
        """Save settings; a run does not wait for a folder that may not be written."""
        # Others write there too: read again, and only what is ours is changed.
        before = load_settings()
        after = replace(before, **changed)
        if after == before:
            return
        try:
            save_settings(after)
        except BadInput as error:
            self.message.say(mild=[str(error)])
