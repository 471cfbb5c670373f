"""What a form asks a camera for: a row for each, the rarely used ones folded away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QPushButton, QSizePolicy, QWidget

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.camera_settings import CameraSettings, parse_roi
from napari_rbcflow.sources.grey import USUAL
from napari_rbcflow.widgets.live.camera_choices import CameraChoice

_AS_SET = "as the camera is set"
_FOLD = "text-align: left; background: transparent; border: none; padding: 3px 0px;"
_SHORT = 24
"""Characters of a detail that the folded title has room for."""


@dataclass(frozen=True)
class _Row:
    """One row.

    Attributes
    ----------
    words : str
        What it is called.
    empty : str
        What holds where nothing is written.
    read : callable
        Makes what is written what `open_source` takes; raises ValueError.
    kind : str
        What must be written, for a person.
    help : str
    folded : bool
        Whether it belongs to the details.
    unit : str
        With which a detail is said in the folded title.
    """

    words: str
    empty: str
    read: Callable[[str], Any] = float
    kind: str = "a number"
    help: str = ""
    folded: bool = False
    unit: str = "{}"


def _share(text: str) -> float:
    return float(text) / 100


_WHOLE: dict[str, Any] = {"read": int, "kind": "a whole number", "folded": True}
_ROWS: dict[str, _Row] = {
    "exposure_ms": _Row("Exposure, ms", _AS_SET),
    "fps": _Row("Frames per second", "as the camera or file says"),
    "pixel_size_um": _Row("Pixel size, µm", "as the camera or file says"),
    "binning": _Row(
        "Binning",
        _AS_SET,
        help="1, 2, 4, ...: so many pixels of the sensor, each way, make one.",
        unit="binning {}",
        **_WHOLE,
    ),
    "roi": _Row(
        "Field",
        _AS_SET,
        read=parse_roi,
        help="The part of the picture that is taken: x, y, width, height, in pixels after binning.",
        folded=True,
        unit="field {}",
    ),
    "pixel_type": _Row(
        "Pixel type",
        _AS_SET,
        read=str,
        help="8 bits in grey do, and are the fastest; all others are made 8-bit grey.",
        folded=True,
    ),
    "port": _Row("Port of its server", "4827", unit="port {}", **_WHOLE),
    "seed": _Row("Seed", "0", unit="seed {}", **_WHOLE),
    "tank_fraction": _Row("Tank-treading, %", "80", read=_share, folded=True, unit="{} % tank-treading"),
    "cells_per_frame": _Row("Cells a frame", "115", folded=True, unit="{} cells"),
}


class CameraFields:
    """The rows, in somebody's form.

    Parameters
    ----------
    form : QFormLayout
        Gets the rows at its end.

    Attributes
    ----------
    numbers : dict of str to QLineEdit
        By the names of `open_source`'s options; what is empty is left to the camera.
    fold : QPushButton
        Shows and hides the details; says what is asked for in them also while they are hidden.
    """

    def __init__(self, form: QFormLayout) -> None:
        self._form = form
        self._choice: CameraChoice | None = None
        self.numbers: dict[str, QLineEdit] = {}
        self._widgets: dict[str, QWidget] = {}
        self.fold = QPushButton()
        self.fold.setCheckable(True)
        self.fold.setAutoDefault(False)
        self.fold.setStyleSheet(_FOLD)
        # A long title is cut, and must not widen the dock.
        self.fold.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.fold.toggled.connect(self._show_rows)
        for name, row in _ROWS.items():
            if row.folded and self.fold.parent() is None:
                form.addRow(self.fold)
            self._widgets[name], self.numbers[name] = _field(name)
            self.numbers[name].setPlaceholderText(row.empty)
            self._widgets[name].setToolTip(row.help)
            self.numbers[name].textChanged.connect(self._name_fold)
            form.addRow(row.words, self._widgets[name])

    def show_for(self, choice: CameraChoice) -> None:
        """Show the rows that this camera has."""
        self._choice = choice
        self._show_rows()

    def options(self, choice: CameraChoice) -> dict[str, Any]:
        """Return what this camera is asked for; what is left out, it decides.

        Raises
        ------
        BadInput
            Where a field cannot be used; it can be seen then.
        """
        options: dict[str, Any] = {}
        for name, row in _ROWS.items():
            text = self.numbers[name].text().strip()
            if name not in choice.options or not text:
                continue
            try:
                options[name] = self._value(name, text)
            except BadInput:
                if row.folded:
                    self.fold.setChecked(True)
                raise
        asked = {name: options[name] for name in CameraSettings.__dataclass_fields__ if name in options}
        CameraSettings(**asked).check()
        return options

    def fill(self, options: Mapping[str, Any]) -> None:
        """Show what is asked for; rows that are not named become empty."""
        for name, field in self.numbers.items():
            field.setText(_text(name, options.get(name)))

    def _value(self, name: str, text: str) -> Any:
        row = _ROWS[name]
        if row.read is parse_roi or row.read is str:
            return row.read(text)
        try:
            value = row.read(text.replace(",", "."))
        except ValueError:
            raise BadInput(f"{row.words}: {text!r} is not {row.kind}; write one or leave it empty.") from None
        if row.read is _share and not 0 <= value <= 1:
            raise BadInput(f"{row.words}: {text} is not possible; give 0 to 100.")
        return value

    def _show_rows(self) -> None:
        has = self._choice.options if self._choice is not None else frozenset()
        self._form.setRowVisible(self.fold, any(row.folded and name in has for name, row in _ROWS.items()))
        for name, row in _ROWS.items():
            shown = name in has and (not row.folded or self.fold.isChecked())
            self._form.setRowVisible(self._widgets[name], shown)
        self._name_fold()

    def _name_fold(self) -> None:
        has = self._choice.options if self._choice is not None else frozenset()
        texts = {n: self.numbers[n].text().strip() for n, row in _ROWS.items() if row.folded and n in has}
        said = [_ROWS[name].unit.format(_short(text)) for name, text in texts.items() if text]
        mark = "▾" if self.fold.isChecked() else "▸"
        self.fold.setText(f"{mark} Camera details" + (f": {', '.join(said)}" if said else ""))
        self.fold.setToolTip(", ".join(said))


def _field(name: str) -> tuple[QWidget, QLineEdit]:
    if name != "pixel_type":
        edit = QLineEdit()
        return edit, edit
    box = QComboBox()
    box.setEditable(True)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.addItems(["", *USUAL])
    edit = box.lineEdit()  # type: ignore[assignment]
    return box, edit


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if _ROWS[name].read is _share:
        value = 100.0 * value
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
