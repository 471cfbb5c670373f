"""What the camera really took, in a line."""

from __future__ import annotations

from html import escape

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rbcflow.sources.base import amiss_words, took_lines, took_words
from napari_rbcflow.types import SourceInfo
from napari_rbcflow.widgets.labels import say, wrapping_label
from napari_rbcflow.widgets.theme import WARNING_COLOUR

_SMALL = "font-size: 13px; padding: 0px 4px;"
_DIFFERS = f"font-size: 15px; border: 2px solid {WARNING_COLOUR}; border-radius: 4px; padding: 4px;"


class CameraLine(QWidget):
    """Field, rate, exposure, binning and pixels as read back; what is not as asked stands out.

    Attributes
    ----------
    took, differs : QLabel
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.took, self.differs = wrapping_label(_SMALL), wrapping_label(_DIFFERS)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.took)
        column.addWidget(self.differs)
        self.clear()

    def clear(self) -> None:
        """Say nothing."""
        say(self.took, "")
        say(self.differs, "")
        self.hide()

    def show_info(self, info: SourceInfo) -> None:
        """Say what a source that is open does."""
        say(self.took, escape(took_words(info)))
        self.setToolTip("\n".join(took_lines(info)))
        amiss = amiss_words(info)
        say(self.differs, f"▲ {escape(amiss)}" if amiss else "")
        self.show()
