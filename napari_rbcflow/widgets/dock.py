"""What every dock is made of: colours, sentences, warnings, and slots that end in a sentence at worst."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_rbcflow.errors import RbcflowError, sentence_of
from napari_rbcflow.types import Label

__all__ = ["WarningBox", "breakable", "wrapping_label"]


NOT_YET = "not yet"
STRUCK_OUT = "struck-out"


@dataclass(frozen=True)
class LabelStyle:
    """One label's colour and mark.

    Attributes
    ----------
    colour : str
        Of Okabe and Ito's palette, bright enough for a grey picture and for a dark panel.
    symbol : str
        Of napari's Points.
    sign : str
        One character, for where there is only text.
    words : str
        For a person.
    """

    colour: str
    symbol: str
    sign: str
    words: str


LABEL_STYLES: dict[str, LabelStyle] = {
    NOT_YET: LabelStyle("#e8e8e8", "disc", "○", "not judged yet"),
    Label.TANK_TREADING: LabelStyle("#56b4e9", "ring", "◉", "tank-treading"),
    Label.FLIPPING: LabelStyle("#e69f00", "diamond", "◆", "flipping"),
    Label.UNRELIABLE: LabelStyle("#d0d0d0", "cross", "✕", "unreliable"),
    Label.TOO_SHORT: LabelStyle("#d0d0d0", "cross", "✕", "too short"),
    Label.UNCOUNTED: LabelStyle("#d0d0d0", "cross", "–", "not counted"),
    STRUCK_OUT: LabelStyle("#cc79a7", "cross", "⌫", "excluded by hand"),
}
WARNING_COLOUR = "#f0e442"
FAULT_COLOUR = "#ff6b5e"


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


def set_text(label: QLabel, text: str) -> None:
    """Set a label's text if it is another one; a label without text takes no room."""
    if label.text() != text:
        label.setText(text)
    if label.isHidden() == bool(text):
        label.setVisible(bool(text))


log = logging.getLogger(__name__)


def report_errors(slot: Callable[..., None], whose: str, say: Callable[[str], None]) -> Callable[..., None]:
    """Let a slot end in a sentence at worst, never in a traceback window.

    Parameters
    ----------
    slot : callable
    whose : str
        For the log, where the error is none of ours.
    say : callable
        Shows the sentence.
    """

    def call(*given: Any) -> None:
        try:
            slot(*given)
        except Exception as error:
            if isinstance(error, RbcflowError):
                log.warning("%s", error)
            else:
                log.error("%s", whose, exc_info=error)
            say(sentence_of(error))

    return call


_STYLES = {
    "grave": f"background: {FAULT_COLOUR}; color: black; font-size: 17px; font-weight: 600;"
    " border-radius: 4px; padding: 8px;",
    "mild": f"border: 2px solid {WARNING_COLOUR}; font-size: 14px; border-radius: 4px; padding: 6px;",
}
_OPENINGS = {"grave": "⚠ ", "mild": "▲ Note. "}

# The core's sentences name the options of the command line; in a form they have other names.
_FIELDS = {
    "--mm-path": "the field “Micro-Manager in”",
    "--stop-reliable": "“Stop at reliable cells”",
    "--stop-halfwidth": "“Stop when precise to ±”",
    "--stop-seconds": "“Stop after seconds”",
    "--stop-tracks": "“Stop at tracks”",
    "--stop-baseline": "“Stop when clearly off the baseline”",
    "--exposure-ms": "“Exposure”",
    "--fps": "“Frames per second”",
    "--pixel-size-um": "“Pixel size”",
    "--pixel-type": "“Pixel type”",
    "--roi": "“Field”",
    "--end-live-mode": "“End Live mode there and start”",
    "--shear-rate": "“Shear rate”",
    "--focus-height-um": "“Focus height”",
    "--device cpu": "the processor as device",
}


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
        said = (tuple(dict.fromkeys(map(in_form, grave))), tuple(dict.fromkeys(map(in_form, mild))))
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


def in_form(sentence: str) -> str:
    """Return the sentence with the names of a form's fields for those of the command line's options."""
    for option, field in _FIELDS.items():
        sentence = sentence.replace(option, field)
    return sentence


_LEAST_BUTTON_WIDTH = 110
_BESIDE_TEXT = 24
"""Pixels that padding and frame take of the width."""
_BETWEEN = " · "


class PatientButton(QPushButton):
    """What it does and for whom, "Run: PATIENT · SAMPLE".

    A form that is still filled in for the patient before is so seen before the run is begun. Names are
    shortened, each by itself, to what there is room for; whole they are in the tip.

    Parameters
    ----------
    what : str
        What it does; stands alone where nobody is named.
    parent : QWidget, optional
    """

    def __init__(self, what: str, parent: QWidget | None = None) -> None:
        super().__init__(what, parent)
        self._what = what
        self._names: tuple[str, ...] = ()
        # A long name must not widen the dock.
        self.setMinimumWidth(_LEAST_BUTTON_WIDTH)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_whose(self, patient: str, sample: str) -> None:
        """Say whose run the next one is."""
        self._names = tuple(said for part in (patient, sample) if (said := " ".join(part.split())))
        self.setToolTip(f"{self._what}: {_BETWEEN.join(self._names)}" if self._names else "")
        self._write()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Shorten to the new width."""
        super().resizeEvent(event)
        self._write()

    def changeEvent(self, event: QEvent) -> None:
        """Shorten for the new font."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._write()

    def _write(self) -> None:
        text = f"{self._what}: {_BETWEEN.join(self._shown())}" if self._names else self._what
        text = text.replace("&", "&&")  # which is else a shortcut's mark
        if text != self.text():
            self.setText(text)

    def _shown(self) -> tuple[str, ...]:
        metrics = self.fontMetrics()
        room = self.width() - _BESIDE_TEXT - metrics.horizontalAdvance(f"{self._what}: ")
        if metrics.horizontalAdvance(_BETWEEN.join(self._names)) <= room:
            return self._names
        room -= metrics.horizontalAdvance(_BETWEEN) * (len(self._names) - 1)
        widths = [metrics.horizontalAdvance(name) for name in self._names]
        half = room // len(self._names)
        # What a short name leaves is for the other.
        rooms = [max(half, room - (sum(widths) - width)) for width in widths]
        middle = Qt.TextElideMode.ElideMiddle
        return tuple(
            metrics.elidedText(name, middle, width) for name, width in zip(self._names, rooms, strict=True)
        )
