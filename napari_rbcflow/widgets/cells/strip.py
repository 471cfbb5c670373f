"""The cells judged last, as a strip of crops; a click chooses one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QEvent, QPoint, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_rbcflow.pipeline.status import JudgedCell
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.cells.crop_tiles import CropTiles

REMEMBERED = 200
"""Cells of each kind; older ones lie in the session."""
COUNTED_EVERY_MS = 500
ALL_EVERY_MS = 500
"""All judged cells come a hundred a second: more often, nobody could look at one, let alone click it."""
_COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
_JUDGED = (*_COUNTED, Label.UNRELIABLE)


class CellStrip(QWidget):
    """The last judged cells, newest first; stands still while the pointer is on it.

    Lifecycle: reusable for any number of runs, `clear` between them. Nothing is queued: what no
    longer fits is forgotten, and a hidden strip draws nothing.

    Signals
    -------
    chosen : int
        The cell that was clicked.
    """

    chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._counted: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._judged: deque[JudgedCell] = deque(maxlen=REMEMBERED)
        self._n = {True: 0, False: 0}
        self._n_shown = 0

        self.choice = QComboBox()
        self.choice.addItems(["counted cells", "all judged cells"])
        self.choice.setToolTip(
            "Counted: tank-treading and flipping. All: unreliable cells too, the newest only."
        )
        self.choice.currentIndexChanged.connect(self._refresh)
        self._said = QLabel()
        self._tiles = CropTiles()
        self._tiles.chosen.connect(self.chosen)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setWidget(self._tiles)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.viewport().installEventFilter(self)
        self._held = False
        # Single shots: nothing ticks where nothing new comes.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._refresh)

        head = QHBoxLayout()
        head.addWidget(QLabel("Last"))
        head.addWidget(self.choice)
        head.addWidget(self._said, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(head)
        layout.addWidget(self._area, 1)
        self._refresh()

    @property
    def cells(self) -> list[int]:
        """The cells on show, newest first."""
        return [cell.cell for cell in self._tiles.cells]

    @property
    def all_judged(self) -> bool:
        """Whether unreliable cells are shown too."""
        return self.choice.currentIndex() == 1

    def clear(self) -> None:
        """Forget all cells and marks."""
        self._counted.clear()
        self._judged.clear()
        self._n = {True: 0, False: 0}
        self._tiles.forget()
        self._refresh(even_if_held=True)

    def add(self, judged: Sequence[JudgedCell]) -> None:
        """Take newly judged cells in, oldest first; cheap, whatever their number.

        Parameters
        ----------
        judged : sequence of JudgedCell
            Cells that were not judged (too short, uncounted) are passed over.
        """
        counted = [cell for cell in judged if cell.label in _COUNTED]
        some = [cell for cell in judged if cell.label in _JUDGED]
        self._counted.extend(counted)
        self._judged.extend(some)
        self._n[False] += len(counted)
        self._n[True] += len(some)
        if (some if self.all_judged else counted) and self.isVisible() and not self._timer.isActive():
            self._timer.start(ALL_EVERY_MS if self.all_judged else COUNTED_EVERY_MS)

    def draw_now(self) -> None:
        """Show what waits, beside something else in the window that is drawn anyway."""
        if self._timer.isActive():
            self._timer.stop()
            self._refresh()

    def mark(self, cell: int, label: str | None) -> None:
        """Show that a person gave a cell another label.

        Parameters
        ----------
        cell : int
        label : str or None
            The present label; None, or the machine's own, takes the mark away.
        """
        self._tiles.mark(cell, label)

    def select(self, cell: int | None) -> None:
        """Show which cell is looked at elsewhere."""
        self._tiles.select(cell)

    def place_of(self, cell: int) -> QPoint | None:
        """Return the middle of a cell's crop in `tiles`' coordinates, or None where it is not shown."""
        return self._tiles.place_of(cell)

    @property
    def tiles(self) -> QWidget:
        """The widget that the crops are painted on."""
        return self._tiles

    def showEvent(self, event: Any) -> None:
        """Catch up with what came while hidden."""
        super().showEvent(event)
        self._refresh()

    def hideEvent(self, event: Any) -> None:
        """Stop."""
        self._timer.stop()
        self._held = False
        super().hideEvent(event)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Hold still while the pointer is on the crops: nobody can click what moves."""
        if event.type() == QEvent.Type.Enter:
            self._held = True
            self._say()
        elif event.type() == QEvent.Type.Leave:
            self._held = False
            self._refresh()
        return bool(super().eventFilter(watched, event))

    def _refresh(self, *_: object, even_if_held: bool = False) -> None:
        if self._held and not even_if_held and self.sender() is not self.choice:
            self._say()
            return
        self._n_shown = self._n[self.all_judged]
        self._tiles.show_cells(list(reversed(self._judged if self.all_judged else self._counted)))
        self._say()

    def _say(self) -> None:
        newer = self._n[self.all_judged] - self._n_shown
        if not self._tiles.cells:
            said = "none yet"
        elif self._held:
            said = f"stands still for the pointer; {newer} newer" if newer else "stands still for the pointer"
        else:
            said = "newest first"
        if said != self._said.text():
            self._said.setText(said)
