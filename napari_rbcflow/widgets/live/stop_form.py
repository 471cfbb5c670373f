"""When a run stops by itself."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QLabel, QSpinBox, QWidget

from napari_rbcflow.estimate import StopRules
from napari_rbcflow.estimate.stopping import USUAL_RELIABLE


class StopForm(QWidget):
    """A tick box and a value for every stop rule. Without a tick, only a person stops the run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.by_reliable = QCheckBox("Stop at reliable cells")
        self.by_halfwidth = QCheckBox("Stop at half-width, ± %")
        self.by_seconds = QCheckBox("Stop after seconds")
        self.by_tracks = QCheckBox("Stop at tracks")
        self.by_baseline = QCheckBox("Stop off the baseline, %")
        self.by_baseline.setToolTip(
            "Stops when the fraction surely lies below or above this, such as the limit that the trend names."
        )
        self.reliable, self.tracks = _whole(USUAL_RELIABLE), _whole(10_000)
        self.halfwidth = _decimal(0.1, 49.9, 2, 5.0)
        self.seconds = _decimal(0.1, 1_000_000, 1, 60.0)
        self.baseline = _decimal(0.1, 99.9, 1, 86.0)
        self.note = QLabel()
        self.note.setWordWrap(True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        rows = (
            (self.by_reliable, self.reliable),
            (self.by_halfwidth, self.halfwidth),
            (self.by_seconds, self.seconds),
            (self.by_tracks, self.tracks),
            (self.by_baseline, self.baseline),
        )
        for row, (tick, value) in enumerate(rows):
            grid.addWidget(tick, row, 0)
            grid.addWidget(value, row, 1)
            tick.toggled.connect(value.setEnabled)
            tick.toggled.connect(self._ticked)
            value.setEnabled(False)
        grid.addWidget(self.note, len(rows), 0, 1, 2)
        grid.setColumnStretch(1, 1)
        self._ticks = [tick for tick, _ in rows]
        self.by_reliable.setChecked(True)

    def rules(self) -> StopRules:
        """Return the rules."""
        return StopRules(
            reliable=self.reliable.value() if self.by_reliable.isChecked() else None,
            halfwidth=self.halfwidth.value() / 100 if self.by_halfwidth.isChecked() else None,
            seconds=self.seconds.value() if self.by_seconds.isChecked() else None,
            tracks=self.tracks.value() if self.by_tracks.isChecked() else None,
            baseline=self.baseline.value() / 100 if self.by_baseline.isChecked() else None,
        )

    def fill(self, rules: StopRules) -> None:
        """Show rules."""
        for tick, field, value in (
            (self.by_reliable, self.reliable, rules.reliable),
            (self.by_halfwidth, self.halfwidth, _percent(rules.halfwidth)),
            (self.by_seconds, self.seconds, rules.seconds),
            (self.by_tracks, self.tracks, rules.tracks),
            (self.by_baseline, self.baseline, _percent(rules.baseline)),
        ):
            tick.setChecked(value is not None)
            if value is not None:
                field.setValue(value)  # type: ignore[arg-type]

    def _ticked(self) -> None:
        if not any(tick.isChecked() for tick in self._ticks):
            said = "only you stop the run"
        elif self.by_reliable.isChecked() and self.by_halfwidth.isChecked():
            said = "cells and half-width must both hold"
        else:
            said = ""
        self.note.setText(said)
        self.note.setVisible(bool(said))


def _whole(value: int) -> QSpinBox:
    box = QSpinBox()
    box.setRange(1, 1_000_000)
    box.setValue(value)
    return box


def _decimal(least: float, most: float, decimals: int, value: float) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(least, most)
    box.setDecimals(decimals)
    box.setValue(value)
    return box


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
