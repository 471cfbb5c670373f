"""Which cells to look at, and in which order: a few small controls in one row, and one more with limits."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.sentences import say
from napari_rbcflow.session import BY_TIME, KINDS, MEASURES, CellQuery
from napari_rbcflow.widgets.label_styles import CHIPS
from napari_rbcflow.widgets.panel import set_text

_SORTS = {
    BY_TIME: say("viewer.sort-last-frame"),
    "p_reliable": say("viewer.sort-p-reliable"),
    "p_tank_treading": say("viewer.sort-p-tank-treading"),
    "speed_um_per_s": say("viewer.sort-speed-um-per-s"),
    "frames": say("viewer.sort-frames"),
}
_LIMITS = {
    "p_reliable": say("viewer.limit-p-reliable"),
    "p_tank_treading": say("viewer.limit-p-tank-treading"),
    "speed_um_per_s": say("viewer.limit-speed-um-per-s"),
    "frames": say("viewer.limit-frames"),
}
# After the last key in a field: a number is seldom one key.
_TYPED_MS = 300


class CellQueryRow(QWidget):
    """Kind, order and limits of the cells to go through, and a place for a button beside them."""

    changed = Signal()
    entered = Signal()  # Enter in a field: the keys are for the cells again

    def __init__(self, beside: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.kind = _narrow(QComboBox())
        self.kind.addItems(list(KINDS))
        self.kind.setToolTip(say("viewer.kind-help"))
        self.sort = _narrow(QComboBox())
        for column, words in _SORTS.items():
            self.sort.addItem(words, column)
        self.sort.setToolTip(say("viewer.sort-help"))
        self.descending = QToolButton()
        self.descending.setCheckable(True)
        self.descending.setText("▲")
        self.descending.setToolTip(say("viewer.sort-direction-help"))
        self.unfold = QPushButton(say("viewer.limits"))
        self.unfold.setCheckable(True)
        self.unfold.setToolTip(say("viewer.limits-help"))
        self.limits = {
            measure: (_field("viewer.limit-least"), _field("viewer.limit-greatest")) for measure in MEASURES
        }
        self._clear = QPushButton(say("viewer.limits-clear"))
        self._clear.setToolTip(say("viewer.limits-clear-help"))
        self._fault = QLabel()
        self._fault.setWordWrap(True)
        self._fault.setStyleSheet(CHIPS["note"].css)
        self._typed = QTimer(self)
        self._typed.setSingleShot(True)
        self._typed.setInterval(_TYPED_MS)
        self._lay_out(beside)
        self.kind.currentTextChanged.connect(lambda *_: self.changed.emit())
        self.sort.currentTextChanged.connect(lambda *_: self.changed.emit())
        self.descending.toggled.connect(self._turn)
        self.unfold.toggled.connect(self._folded.setVisible)
        self._clear.clicked.connect(self.clear)
        self._typed.timeout.connect(self._limits_changed)
        for fields in self.limits.values():
            for field in fields:
                field.textChanged.connect(lambda *_: self._typed.start())
                field.editingFinished.connect(self._finish_typing)
                field.returnPressed.connect(self.entered)
        # Buttons and lists are clicked; the keys are for the cells.
        for widget in (self.kind, self.sort, self.descending, self.unfold, self._clear):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def _lay_out(self, beside: QWidget) -> None:
        row = QHBoxLayout()
        row.setSpacing(3)
        row.addWidget(self.kind, 3)
        row.addWidget(self.sort, 3)
        for widget in (self.descending, self.unfold, beside):
            row.addWidget(widget)
        self._folded = QWidget()
        grid = QGridLayout(self._folded)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        for column, (measure, fields) in enumerate(self.limits.items()):
            name = QLabel(_LIMITS[measure])
            font = name.font()
            font.setPointSizeF(max(7.0, 0.85 * font.pointSizeF()) if font.pointSizeF() > 0 else 9.0)
            name.setFont(font)
            name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
            grid.addWidget(name, 0, 2 * column, 1, 2)
            for at, field in enumerate(fields):
                grid.addWidget(field, 1, 2 * column + at)
                field.setAccessibleName(f"{_LIMITS[measure]}, {field.placeholderText()}")
        grid.addWidget(self._clear, 1, 2 * len(self.limits))
        grid.addWidget(self._fault, 2, 0, 1, 2 * len(self.limits) + 1)
        set_text(self._fault, "")
        self._folded.hide()
        both = QVBoxLayout(self)
        both.setContentsMargins(0, 0, 0, 0)
        both.setSpacing(3)
        both.addLayout(row)
        both.addWidget(self._folded)

    @property
    def query(self) -> CellQuery:
        """What is chosen; a limit that is no number is none."""
        pairs = {name: (_number(low), _number(high)) for name, (low, high) in self.limits.items()}
        return CellQuery(
            kind=str(self.kind.currentText()),
            sort_by=str(self.sort.currentData()),
            descending=bool(self.descending.isChecked()),
            limits={name: pair for name, pair in pairs.items() if pair != (None, None)},
        )

    def clear(self, *_: object) -> None:
        """Remove all limits."""
        if not any(field.text() for fields in self.limits.values() for field in fields):
            return
        for fields in self.limits.values():
            for field in fields:
                with QSignalBlocker(field):
                    field.clear()
        self._limits_changed()

    def _turn(self, descending: bool) -> None:
        self.descending.setText("▼" if descending else "▲")
        self.changed.emit()

    def _finish_typing(self) -> None:
        if self._typed.isActive():
            self._limits_changed()

    def _limits_changed(self) -> None:
        self._typed.stop()
        fields = [field for pair in self.limits.values() for field in pair]
        wrong = [field.text() for field in fields if field.text().strip() and _number(field) is None]
        set_text(self._fault, say("viewer.limit-not-a-number", text=wrong[0]) if wrong else "")
        # Also while they are folded away, nobody may take some cells for all.
        n = sum(_number(field) is not None for field in fields)
        self.unfold.setText(say("viewer.limits-set", n=n) if n else say("viewer.limits"))
        self.changed.emit()


def _number(field: QLineEdit) -> float | None:
    try:
        return float(field.text().strip().replace(",", "."))
    except ValueError:
        return None


def _field(placeholder: str) -> QLineEdit:
    field = QLineEdit()
    field.setPlaceholderText(say(placeholder))
    field.setMinimumWidth(30)
    return field


def _narrow(box: Any) -> Any:
    """Let a list be narrower than its longest entry."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    return box
