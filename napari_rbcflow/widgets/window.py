"""napari opened by the command line, with the live widget in it and a run under way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

# Here, before anybody catches signals: a Ctrl-C while napari is imported needs no window to be closed.
import napari
import napari.viewer

from napari_rbcflow.pipeline import Phase

if TYPE_CHECKING:
    from napari_rbcflow.pipeline import Order, WorkerRun
    from napari_rbcflow.widgets.live import LiveWidget


log = logging.getLogger(__name__)


def watch(order: Order) -> WorkerRun:
    """Open napari and run the order in the live widget; returns when the window is closed.

    Closing the window stops the run; its session is closed when this returns.
    """
    viewer = napari.Viewer(title="napari-rbcflow")
    widget = docked(viewer)
    try:
        run = widget.open_with(order)
        napari.run()
    finally:
        widget.shut_down()
    # One that was refused, and begun anew in the window, is the one that is meant.
    return widget.run if run.phase is Phase.REFUSED and widget.run is not None else run


def docked(viewer: napari.viewer.Viewer) -> LiveWidget:
    """Dock the live widget as napari's menu does, so that the menu makes no second one."""
    from napari_rbcflow.widgets.live import LiveWidget

    try:
        _, widget = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Live")
    except KeyError:
        log.warning("napari does not know its plugin napari-rbcflow (switched off?): the menu has no Live")
        widget = LiveWidget(viewer)
        viewer.window.add_dock_widget(widget, area="right", name="Red blood cell flow, live")
    assert isinstance(widget, LiveWidget)
    return widget


def close_windows() -> None:
    """Close the windows that `watch` waits for; may be called from a signal handler."""
    from qtpy.QtCore import QTimer

    # Not in here: whatever slot was running just now would find its widgets gone.
    QTimer.singleShot(0, _close_all)


def _close_all() -> None:
    from qtpy.QtWidgets import QApplication

    QApplication.closeAllWindows()
    QApplication.quit()
