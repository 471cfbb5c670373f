"""When a run stops by itself."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QLabel, QSpinBox, QWidget

from napari_rbcflow.estimate import StopRules
from napari_rbcflow.estimate.stopping import USUAL_RELIABLE


class StopForm(QWidget):
    """A tick box and a value for every stop rule. Without a tick, only a person stops the run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.by_reliable, self.by_halfwidth = (
            QCheckBox("Stop at reliable cells"),
            QCheckBox("Stop at half-width, ± %"),
        )
        self.by_seconds = QCheckBox("Stop after seconds")
        self.reliable = QSpinBox()
        self.reliable.setRange(1, 1_000_000)
        self.halfwidth = QDoubleSpinBox()
        self.halfwidth.setRange(0.1, 49.9)
        self.halfwidth.setDecimals(2)
        self.seconds = QDoubleSpinBox()
        self.seconds.setRange(0.1, 1_000_000)
        self.seconds.setDecimals(1)
        self.note = QLabel("both must hold")
        self.note.setWordWrap(True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        for row, (tick, value) in enumerate(
            (
                (self.by_reliable, self.reliable),
                (self.by_halfwidth, self.halfwidth),
                (self.by_seconds, self.seconds),
            )
        ):
            grid.addWidget(tick, row, 0)
            grid.addWidget(value, row, 1)
            tick.toggled.connect(value.setEnabled)
            tick.toggled.connect(self._ticked)
            value.setEnabled(False)
        grid.addWidget(self.note, 3, 0, 1, 2)
        grid.setColumnStretch(1, 1)
        self.reliable.setValue(USUAL_RELIABLE)
        self.halfwidth.setValue(5.0)
        self.seconds.setValue(60.0)
        self.by_reliable.setChecked(True)

    def rules(self) -> StopRules:
        """Return the rules."""
        return StopRules(
            reliable=self.reliable.value() if self.by_reliable.isChecked() else None,
            halfwidth=self.halfwidth.value() / 100 if self.by_halfwidth.isChecked() else None,
            seconds=self.seconds.value() if self.by_seconds.isChecked() else None,
        )

    def fill(self, rules: StopRules) -> None:
        """Show rules."""
        self.by_reliable.setChecked(rules.reliable is not None)
        self.by_halfwidth.setChecked(rules.halfwidth is not None)
        self.by_seconds.setChecked(rules.seconds is not None)
        if rules.reliable is not None:
            self.reliable.setValue(rules.reliable)
        if rules.halfwidth is not None:
            self.halfwidth.setValue(100 * rules.halfwidth)
        if rules.seconds is not None:
            self.seconds.setValue(rules.seconds)

    def _ticked(self) -> None:
        by_cells = [self.by_reliable.isChecked(), self.by_halfwidth.isChecked()]
        if not any(by_cells) and not self.by_seconds.isChecked():
            said = "only you stop the run"
        elif all(by_cells):
            said = "cells and half-width must both hold"
        else:
            said = ""
        self.note.setText(said)
        self.note.setVisible(bool(said))
