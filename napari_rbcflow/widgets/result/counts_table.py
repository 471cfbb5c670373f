"""Cells by label and frames by fate, in figures."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_rbcflow.quality.monitor import explained, lost_words
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.labels import breakable, say, wrapping_label
from napari_rbcflow.widgets.theme import LOOKS, NOT_YET, WARNING_COLOUR

_FIGURE = "font-size: 15px; font-weight: 600; padding: 0px;"
_WORD = "font-size: 14px; padding: 0px;"
_BAD = f"font-size: 14px; background: {WARNING_COLOUR}; color: black; border-radius: 3px; padding: 1px 4px;"
_SEEN, _RELIABLE = "seen", "reliable"
# Two columns: what is counted stands left.
_PLACES = (
    (_SEEN, 0, 0),
    (_RELIABLE, 1, 0),
    (Label.TANK_TREADING, 2, 0),
    (Label.FLIPPING, 3, 0),
    (NOT_YET, 0, 3),
    (Label.UNRELIABLE, 1, 3),
    (Label.TOO_SHORT, 2, 3),
    (Label.UNCOUNTED, 3, 3),
)
_WORDS = {_SEEN: "seen in all", _RELIABLE: "reliable"}


class CountsTable(QWidget):
    """How many cells of each kind, and what became of the frames."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(6)
        grid = QGridLayout()
        grid.setHorizontalSpacing(5)
        grid.setVerticalSpacing(2)
        self.figures: dict[str, QLabel] = {}
        for name, row, place in _PLACES:
            figure = QLabel()
            figure.setStyleSheet(_FIGURE)
            figure.setAlignment(Qt.AlignmentFlag.AlignRight)
            self.figures[str(name)] = figure
            grid.addWidget(_word(name), row, place)
            grid.addWidget(figure, row, place + 1)
        grid.setColumnStretch(1, 1)
        grid.setColumnMinimumWidth(2, 10)
        grid.setColumnStretch(4, 1)
        column.addLayout(grid)
        self.rate, self.dropped, self.missed = QLabel(), QLabel(), QLabel()
        frames = QHBoxLayout()
        frames.setSpacing(12)
        for label in (self.rate, self.dropped, self.missed):
            label.setStyleSheet(_WORD)
            frames.addWidget(label)
        frames.addStretch(1)
        column.addLayout(frames)
        self.reasons = wrapping_label(_WORD)
        column.addWidget(self.reasons)
        self.clear()

    def clear(self) -> None:
        """Show no figures."""
        for label in (*self.figures.values(), self.rate, self.dropped, self.missed):
            label.setText("")
        say(self.reasons, "")
        self.hide()

    def show_counts(self, cells: Mapping[str, int], reliable: int, in_picture: int) -> None:
        """Show cells.

        Parameters
        ----------
        cells : mapping
            By label, named as in ``run.json``.
        reliable : int
            Cells counted.
        in_picture : int
            Cells followed now, not judged yet.
        """
        self.show()
        figures = {_SEEN: cells.get("tracked", 0), _RELIABLE: reliable, NOT_YET: in_picture}
        for name, label in self.figures.items():
            n = figures[name] if name in figures else cells.get(name.replace("-", "_"), 0)
            _say(label, f"{n:,}")

    def show_frames(
        self,
        frames_per_s: float | None,
        dropped: int,
        missed: int,
        *,
        dropped_by: Mapping[str, int],
        missed_by: Mapping[str, int],
    ) -> None:
        """Show frames a second (None once the run has ended) and the frames lost, in all and by reason."""
        self.show()
        _say(self.rate, "" if frames_per_s is None else f"{frames_per_s:.0f} frames/s")
        self.rate.setVisible(frames_per_s is not None)
        for label, word, n in ((self.dropped, "dropped", dropped), (self.missed, "missed", missed)):
            _say(label, f"{'⚠ ' if n else ''}{n:,} {word}")
            style = _BAD if n else _WORD
            if label.styleSheet() != style:
                label.setStyleSheet(style)
        say(self.reasons, breakable(lost_words(dropped=dropped_by, missed=missed_by)))
        for label, counts in ((self.dropped, dropped_by), (self.missed, missed_by)):
            if label.toolTip() != (meant := explained(counts)):
                label.setToolTip(meant)
        both = "\n".join(filter(None, (self.missed.toolTip(), self.dropped.toolTip())))
        if self.reasons.toolTip() != both:
            self.reasons.setToolTip(both)


def _word(name: str) -> QLabel:
    label = QLabel(_WORDS.get(name) or f"{LOOKS[name].sign} {LOOKS[name].words}")
    # Grey ones in the theme's own colour: they are made for dark pictures.
    colour = f" color: {LOOKS[name].colour};" if name in (Label.TANK_TREADING, Label.FLIPPING) else ""
    label.setStyleSheet(_WORD + colour)
    return label


def _say(label: QLabel, text: str) -> None:
    if label.text() != text:
        label.setText(text)
