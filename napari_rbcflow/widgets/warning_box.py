"""Sentences that a person must read."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rbcflow.widgets.labels import breakable, wrapping_label
from napari_rbcflow.widgets.theme import FAULT_COLOUR, WARNING_COLOUR

__all__ = ["WarningBox", "breakable", "wrapping_label"]

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
    "--stop-halfwidth": "“Stop at half-width”",
    "--stop-seconds": "“Stop after seconds”",
    "--stop-tracks": "“Stop at tracks”",
    "--stop-baseline": "“Stop off the baseline”",
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
