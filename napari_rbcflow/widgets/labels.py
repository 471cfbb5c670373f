"""Labels that hold sentences."""

from __future__ import annotations

from html import escape

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

_LEAST_WIDTH = 340


def wrapping_label(style: str = "") -> QLabel:
    """Return a label that wraps its text, can be copied from, and never widens what it stands in."""
    label = QLabel()
    label.setWordWrap(True)
    label.setIndent(0)
    # The height that a layout asks for is that at the least width: much less than this and it is absurd.
    label.setMinimumWidth(_LEAST_WIDTH)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setTextFormat(Qt.TextFormat.RichText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    if style:
        label.setStyleSheet(style)
    return label


def breakable(text: str) -> str:
    """Return text as HTML in which long paths may be broken."""
    said = escape(text)
    for mark in ("/", "\\", "_"):
        said = said.replace(mark, mark + "\u200b")
    return said


def say(label: QLabel, text: str) -> None:
    """Set a label's text if it is another one; a label without text takes no room."""
    if label.text() != text:
        label.setText(text)
    if label.isHidden() == bool(text):
        label.setVisible(bool(text))
