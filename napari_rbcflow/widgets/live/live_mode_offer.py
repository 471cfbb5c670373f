"""The way out where a running Micro-Manager is in Live mode."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtWidgets import QPushButton, QWidget

from napari_rbcflow.errors import LiveModeOn
from napari_rbcflow.pipeline.messages import Camera, Order

WORDS = "End Live mode there and start"
_STYLE = "font-size: 17px; font-weight: 600; padding: 8px; background: #1b6fa8; color: white;"


class LiveModeOffer(QPushButton):
    """A button under the refusal; seen only where Live mode was why."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(WORDS, parent)
        self.setStyleSheet(_STYLE)
        self.setToolTip("Micro-Manager's Live window stops, as with its own button; the run then begins.")
        self.hide()

    def show_for(self, code: str) -> None:
        """Show it if this is why a run was refused."""
        self.setVisible(code == LiveModeOn.code)


def ending_live_mode(wanted: Order, refused: Order) -> Order:
    """Return the order that may end Live mode.

    Parameters
    ----------
    wanted : Order
        What the form says now.
    refused : Order
        What was refused. It is meant if only the folder differs: nothing was made, so its name is free.
    """
    same = (wanted.source, wanted.settings) == (refused.source, refused.settings)
    order = refused if same else wanted
    assert isinstance(order.source, Camera)
    options = {**order.source.options, "end_live_mode": True}
    return replace(order, source=replace(order.source, options=options))
