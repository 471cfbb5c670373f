"""napari opened by the command line, with the live widget in it and a run under way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

# Here, before signals are caught: a Ctrl-C while napari is imported needs no window to be closed.
import napari
import napari.viewer

from napari_rbcflow.pipeline import Phase
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from napari_rbcflow.pipeline import RunRequest, WorkerRun
    from napari_rbcflow.widgets.live import LiveWidget


log = logging.getLogger(__name__)


def watch(order: RunRequest) -> WorkerRun:
    """Open napari and run the order in the live widget, until the window and the session are closed."""
    viewer = napari.Viewer(title="napari-rbcflow")
    widget = docked(viewer)
    try:
        run = widget.open_with(order)
        napari.run()
    finally:
        widget.shut_down()
    # A run that was refused may have been started again in the window.
    return widget.run if run.phase is Phase.REFUSED and widget.run is not None else run


def docked(viewer: napari.viewer.Viewer) -> LiveWidget:
    """Dock the live widget as napari's menu does, so that the menu makes no second one."""
    from napari_rbcflow.widgets.live import LiveWidget

    try:
        _, widget = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Live")
    except KeyError:
        log.warning(say("forms.plugin-off"))
        widget = LiveWidget(viewer)
        viewer.window.add_dock_widget(widget, area="right", name=say("forms.live-title"))
    assert isinstance(widget, LiveWidget)
    return widget


def close_windows() -> None:
    """Close the windows that `watch` waits for, also from a signal handler."""
    from qtpy.QtCore import QTimer

    # Not in here: whatever slot was running just now would find its widgets gone.
    QTimer.singleShot(0, _close_all)


def _close_all() -> None:
    from qtpy.QtWidgets import QApplication

    from napari_rbcflow.widgets.dock import Dock

    # Who pressed Ctrl-C is not asked whether the run shall stop.
    for widget in QApplication.allWidgets():
        if isinstance(widget, Dock):
            widget.shut_down()
    QApplication.closeAllWindows()
    QApplication.quit()
