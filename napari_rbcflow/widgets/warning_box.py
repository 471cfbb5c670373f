"""Sentences that a person must read."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_rbcflow.widgets.theme import FAULT_COLOUR, WARNING_COLOUR

_STYLES = {
    "grave": f"background: {FAULT_COLOUR}; color: black; font-size: 17px; font-weight: 600;"
    " border-radius: 4px; padding: 8px;",
    "mild": f"border: 2px solid {WARNING_COLOUR}; font-size: 14px; border-radius: 4px; padding: 6px;",
}
_LEAST_WIDTH = 340
_OPENINGS = {"grave": "⚠ ", "mild": "▲ Note. "}


class WarningBox(QWidget):
    """Grave sentences on a red ground, milder ones in a yellow frame; takes no room without any."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        self._labels = {kind: wrapping_label(style) for kind, style in _STYLES.items()}
        for label in self._labels.values():
            label.hide()
            column.addWidget(label)
        self._said: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.hide()

    def say(self, *, grave: Iterable[str] = (), mild: Iterable[str] = ()) -> None:
        """Show these sentences instead of those before."""
        said = (tuple(dict.fromkeys(grave)), tuple(dict.fromkeys(mild)))
        if said == self._said:
            return
        self._said = said
        for kind, sentences in zip(_STYLES, said, strict=True):
            rows = "<br>".join(_OPENINGS[kind] + breakable(sentence) for sentence in sentences)
            self._labels[kind].setText(rows)
            self._labels[kind].setVisible(bool(sentences))
        self.setVisible(any(said))

    def clear(self) -> None:
        """Say nothing."""
        self.say()

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that is said, grave ones first."""
        return self._said[0] + self._said[1]

    @property
    def grave(self) -> tuple[str, ...]:
        """The grave ones."""
        return self._said[0]


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
