"""What a person chooses of a run: when it stops, how the flow was set, where it goes."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from qtpy.QtCore import QLocale
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import USUAL_RELIABLE, StopRules
from napari_rbcflow.pipeline import Camera, RunRequest
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import not_as_asked_line, source_line, source_lines
from napari_rbcflow.tracking import Direction
from napari_rbcflow.types import SourceInfo
from napari_rbcflow.widgets.label_styles import EDGES
from napari_rbcflow.widgets.panel import FIELD_LABELS, set_text, wrapping_label
from napari_rbcflow.widgets.remembered import read_number

_LONGEST_PART = 40


def session_name(patient: str, sample: str) -> str:
    """Return a folder's name: date, time, patient and sample, without what a file name cannot hold."""
    parts = [time.strftime("%Y%m%d-%H%M%S"), _safe(patient), _safe(sample)]
    return "_".join(part for part in parts if part)


def new_session(folder: str, patient: str, sample: str) -> Path:
    """Return the path of a session that does not exist yet, in a folder that is made where it is missing."""
    if not folder.strip():
        raise BadInput("forms.no-sessions-folder")
    parent = Path(folder.strip()).expanduser()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise BadInput("forms.sessions-folder-unusable", folder=parent, why=error.strerror or error) from None
    path = parent / session_name(patient, sample)
    names = [path, *(path.with_name(f"{path.name}-{k}") for k in range(2, 100))]
    return next((name for name in names if not name.exists()), path)


def _safe(text: str) -> str:
    """Keep letters and digits of any script; everything else becomes a hyphen."""
    return re.sub(r"[^\w]+|_", "-", text).strip("-")[:_LONGEST_PART].rstrip("-")


FLOWS: list[tuple[str, Direction]] = [
    (say("forms.left-to-right"), "left-to-right"),
    (say("forms.right-to-left"), "right-to-left"),
]
TURNS = [
    (say("forms.rotate-by", degrees=degrees) if degrees else say("forms.rotate-none"), degrees)
    for degrees in (0, 90, 180, 270)
]
USUAL_FLOW = SetFlow()
# What a form asks of `SetFlow`, each with its tooltip.
FLOW_HELP = {
    "shear_rate_per_s": say("forms.shear-rate-help"),
    "focus_height_um": say("forms.focus-height-help"),
}
# What an empty field stands for.
FLOW_USUAL = {name: f"{getattr(USUAL_FLOW, name):g}" for name in FLOW_HELP}


def flow_from(texts: Mapping[str, str], before: SetFlow = USUAL_FLOW) -> SetFlow:
    """Return the flow that is written in a form; what the form does not ask is as `before`."""
    values = {name: read_number(name, texts[name]) for name in FLOW_HELP}
    return replace(before, **{k: getattr(USUAL_FLOW, k) if v is None else v for k, v in values.items()})


def texts_of(flow: SetFlow) -> dict[str, str]:
    """Return the texts of a form's fields for a flow, empty where it is the usual one."""
    values = {name: float(getattr(flow, name)) for name in FLOW_HELP}
    return {k: "" if value == getattr(USUAL_FLOW, k) else f"{value:g}" for k, value in values.items()}


class WholeBox(QSpinBox):
    """A whole number; what is typed with a point or a comma is refused.

    Qt's own takes one of them for a thousands separator, whichever the language: 10,5 becomes 105.
    """

    def __init__(self, least: int, most: int, value: int) -> None:
        super().__init__()
        self.setLocale(QLocale.c())
        self.setRange(least, most)
        self.setValue(value)

    def validate(self, text: str, at: int) -> Any:
        """Leave a point or a comma in the field, where it gives no number."""
        if "," in text or "." in text:
            return QValidator.State.Intermediate, text, at
        return super().validate(text, at)

    def fixup(self, text: str) -> str:
        """Put back the number of before, instead of leaving the comma out."""
        return text


class DecimalBox(QDoubleSpinBox):
    """A number with a decimal point or comma, whatever the language: Qt's own makes 5 of 0,5 or of 0.5."""

    def __init__(self, least: float, most: float, decimals: int, value: float) -> None:
        super().__init__()
        self.setLocale(QLocale.c())
        self.setRange(least, most)
        self.setDecimals(decimals)
        self.setValue(value)

    def validate(self, text: str, at: int) -> Any:
        """Take a comma for a point."""
        return super().validate(text.replace(",", "."), at)

    def valueFromText(self, text: str) -> float:
        """Take a comma for a point."""
        return super().valueFromText(text.replace(",", "."))

    def fixup(self, text: str) -> str:
        """Put back the number of before, instead of leaving the comma out."""
        return text


_MANY = 1_000_000


class StopForm(QWidget):
    """A tick box and a value for every stop rule. Without a tick, only a person stops the run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.by_reliable = QCheckBox(FIELD_LABELS["stop_reliable"])
        self.by_halfwidth = QCheckBox(FIELD_LABELS["stop_halfwidth"])
        self.by_seconds = QCheckBox(FIELD_LABELS["stop_seconds"])
        self.by_tracks = QCheckBox(FIELD_LABELS["stop_tracks"])
        self.by_baseline = QCheckBox(FIELD_LABELS["stop_baseline"])
        self.by_baseline.setToolTip(say("forms.stop-baseline-help"))
        self.reliable, self.tracks = WholeBox(1, _MANY, USUAL_RELIABLE), WholeBox(1, _MANY, 10_000)
        self.halfwidth = DecimalBox(0.1, 49.9, 2, 5.0)
        self.seconds = DecimalBox(0.1, _MANY, 1, 60.0)
        self.baseline = DecimalBox(0.1, 99.9, 1, 86.0)
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
        note = ""
        if not any(tick.isChecked() for tick in self._ticks):
            note = say("viewer.goes-on")
        elif self.by_reliable.isChecked() and self.by_halfwidth.isChecked():
            note = say("forms.stop-needs-both")
        set_text(self.note, note)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


_SMALL = "font-size: 13px; padding: 0px 4px;"
_DIFFERS = f"font-size: 15px; border: 2px solid {EDGES['caution']}; border-radius: 4px; padding: 4px;"


class CameraLine(QWidget):
    """Field of view, rate, exposure, binning and pixels as read back; what is not as asked stands out."""

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
        """Show nothing."""
        set_text(self.took, "")
        set_text(self.differs, "")
        self.hide()

    def show_info(self, info: SourceInfo) -> None:
        """Show what a source that is open does."""
        set_text(self.took, escape(source_line(info)))
        self.setToolTip("\n".join(source_lines(info)))
        amiss = not_as_asked_line(info)
        set_text(self.differs, f"▲ {escape(amiss)}" if amiss else "")
        self.show()


def ending_live_mode(wanted: RunRequest, refused: RunRequest) -> RunRequest:
    """Return the order, with Live mode ended: what was refused, unless the form says something else now."""
    # Where only the folder differs, nothing was made: the name refused is still free.
    same = (wanted.source, wanted.settings) == (refused.source, refused.settings)
    order = refused if same else wanted
    assert isinstance(order.source, Camera)
    options = {**order.source.options, "end_live_mode": True}
    return replace(order, source=replace(order.source, options=options))
