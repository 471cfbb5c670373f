"""napari opened by the command line, with the live widget in it and a run under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_rbcflow.worker import Order, WorkerRun


def watch(order: Order) -> WorkerRun:
    """Open napari and run the order in the live widget; returns when the window is closed.

    Closing the window stops the run; its session is closed when this returns.
    """
    import napari

    from napari_rbcflow.widgets.live.widget import LiveWidget

    viewer = napari.Viewer(title="napari-rbcflow")
    widget = LiveWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right", name="Red blood cell flow, live")
    try:
        run = widget.open_with(order)
        napari.run()
    finally:
        widget.shut_down()
    return run


def close_windows() -> None:
    """Close the windows that `watch` waits for; may be called from a signal handler."""
    from qtpy.QtWidgets import QApplication

    QApplication.closeAllWindows()
    QApplication.quit()
