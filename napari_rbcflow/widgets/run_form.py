"""What a person chooses of a run: when it stops, how the flow was set, where it goes."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput, LiveModeOn
from napari_rbcflow.estimate import USUAL_RELIABLE, StopRules
from napari_rbcflow.pipeline import Camera, Order
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.sources import amiss_words, took_lines, took_words
from napari_rbcflow.types import SourceInfo
from napari_rbcflow.widgets.dock import WARNING_COLOUR, set_text, wrapping_label

_LONGEST_PART = 40


def session_name(patient: str, sample: str) -> str:
    """Return a folder's name: date, time, patient and sample, without what a file name cannot hold."""
    parts = [time.strftime("%Y%m%d-%H%M%S"), _safe(patient), _safe(sample)]
    return "_".join(part for part in parts if part)


def new_session(folder: Path, patient: str, sample: str) -> Path:
    """Return the path of a session that does not exist yet, in a folder that may be written.

    Parameters
    ----------
    folder : Path
        Where all sessions are; made where it is missing.
    patient, sample : str

    Raises
    ------
    BadInput
        Where that folder cannot be made or written.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            f"Sessions cannot be kept in {folder} ({error.strerror or error}): choose another folder for"
            " sessions."
        ) from None
    path = folder / session_name(patient, sample)
    names = [path, *(path.with_name(f"{path.name}-{k}") for k in range(2, 100))]
    return next((name for name in names if not name.exists()), path)


def _safe(text: str) -> str:
    """Keep letters and digits of any script; everything else becomes a hyphen."""
    return re.sub(r"[^\w]+|_", "-", text).strip("-")[:_LONGEST_PART].rstrip("-")


USUAL = SetFlow()
FLOW_FIELDS = {
    "shear_rate_per_s": ("Shear rate, 1/s", f"{USUAL.shear_rate_per_s:g}"),
    "focus_height_um": ("Focus height, µm", f"{USUAL.focus_height_um:g}"),
}
"""Each attribute of `SetFlow` that is asked for: what it is called, and what holds for an empty field."""
FLOW_HELP = {
    "shear_rate_per_s": "At the wall, as the pump is set. The cells' speed is compared with it.",
    "focus_height_um": "Travel of the objective from the wall to the focus. "
    "The cells' speed is compared with it.",
}


def flow_from(texts: Mapping[str, str], before: SetFlow = USUAL) -> SetFlow:
    """Return the flow that is written in a form.

    Parameters
    ----------
    texts : mapping of str to str
        By the names of `FLOW_FIELDS`; an empty one is the usual value.
    before : SetFlow
        For what a form does not ask.

    Raises
    ------
    BadInput
        For what is no number, or what no chamber has.
    """
    values = {}
    for name, (words, _) in FLOW_FIELDS.items():
        text = texts[name].strip().replace(",", ".")
        try:
            values[name] = float(text) if text else float(getattr(USUAL, name))
        except ValueError:
            raise BadInput(f"{words}: {text!r} is not a number; write one or leave it empty.") from None
    return replace(before, **values)


def texts_of(flow: SetFlow) -> dict[str, str]:
    """Return what stands in a form's fields for a flow; nothing where it is the usual one."""
    values = {name: float(getattr(flow, name)) for name in FLOW_FIELDS}
    return {name: "" if value == getattr(USUAL, name) else f"{value:g}" for name, value in values.items()}


class StopForm(QWidget):
    """A tick box and a value for every stop rule. Without a tick, only a person stops the run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.by_reliable = QCheckBox("Stop at reliable cells")
        self.by_halfwidth = QCheckBox("Stop when precise to ± %")
        self.by_seconds = QCheckBox("Stop after seconds")
        self.by_tracks = QCheckBox("Stop at tracks")
        self.by_baseline = QCheckBox("Stop when clearly off the baseline, %")
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


_SMALL = "font-size: 13px; padding: 0px 4px;"
_DIFFERS = f"font-size: 15px; border: 2px solid {WARNING_COLOUR}; border-radius: 4px; padding: 4px;"


class CameraLine(QWidget):
    """Field, rate, exposure, binning and pixels as read back; what is not as asked stands out.

    Attributes
    ----------
    took, differs : QLabel
    """

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
        """Say nothing."""
        set_text(self.took, "")
        set_text(self.differs, "")
        self.hide()

    def show_info(self, info: SourceInfo) -> None:
        """Say what a source that is open does."""
        set_text(self.took, escape(took_words(info)))
        self.setToolTip("\n".join(took_lines(info)))
        amiss = amiss_words(info)
        set_text(self.differs, f"▲ {escape(amiss)}" if amiss else "")
        self.show()


WORDS = "End Live mode there and start"
_STYLE = "font-size: 17px; font-weight: 600; padding: 8px; background: #1b6fa8; color: white;"


class LiveModeOffer(QPushButton):
    """A button under the refusal; seen only where Live mode was why."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(WORDS, parent)
        self.setStyleSheet(_STYLE)
        self.setToolTip("Micro-Manager's Live window stops, as with its own button; the run then begins.")
        self.hide()

    def show_for(self, code: str) -> None:
        """Show it if this is why a run was refused."""
        self.setVisible(code == LiveModeOn.KEY)


def ending_live_mode(wanted: Order, refused: Order) -> Order:
    """Return the order that may end Live mode.

    Parameters
    ----------
    wanted : Order
        What the form says now.
    refused : Order
        What was refused. It is meant if only the folder differs: nothing was made, so its name is free.
    """
    same = (wanted.source, wanted.settings) == (refused.source, refused.settings)
    order = refused if same else wanted
    assert isinstance(order.source, Camera)
    options = {**order.source.options, "end_live_mode": True}
    return replace(order, source=replace(order.source, options=options))
