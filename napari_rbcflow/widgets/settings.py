"""The settings for camera and display, to be edited in a dock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, FloatSpinBox, LineEdit
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.widgets.dock import WarningBox, breakable, wrapping_label
from napari_rbcflow.widgets.movie_form import FLOWS, number_in
from napari_rbcflow.widgets.remembered import (
    PICTURE_DELAY_RANGE_S,
    PICTURE_HZ_RANGE,
    Settings,
    load_settings,
    save_settings,
    settings_path,
)

_AS_SAID = "as the camera or file says"


class SettingsWidget(QWidget):
    """Shows what is kept, and keeps what is changed when Save is pressed.

    Attributes
    ----------
    message : WarningBox
        Why nothing was kept.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumWidth(400)
        folder = FileDialogMode.EXISTING_DIRECTORY
        self.sessions_folder = FileEdit(label="Folder for sessions", mode=folder)
        self.person = LineEdit(label="Who changes labels")
        self.camera = LineEdit(label="Camera")
        self.mm_path = FileEdit(label="Micro-Manager's folder", mode=folder)
        self.exposure_ms = LineEdit(label="Exposure, ms")
        self.fps = LineEdit(label="Frames per second")
        self.pixel_size_um = LineEdit(label="Pixel size, µm")
        self.binning, self.roi = LineEdit(label="Binning"), LineEdit(label="Field")
        self.pixel_type = LineEdit(label="Pixel type")
        self.port = LineEdit(label="Micro-Manager's port")
        self.flow = ComboBox(label="Cells flow", choices=FLOWS)
        self.picture_mode = ComboBox(
            label="Picture shows",
            choices=[("cells, and how they are judged", "cells"), ("the newest frame", "newest")],
        )
        low, high = PICTURE_HZ_RANGE
        self.picture_hz = FloatSpinBox(label="Pictures a second, at most", min=low, max=high, step=1.0)
        low, high = PICTURE_DELAY_RANGE_S
        self.picture_delay_s = FloatSpinBox(label="Picture stands behind by, s", min=low, max=high, step=0.5)
        self.show_unreliable = CheckBox(text="Mark unreliable cells too")
        self.container: Container[Any] = Container()
        self.container.extend(
            [
                self.sessions_folder,
                self.person,
                self.camera,
                self.mm_path,
                self.exposure_ms,
                self.fps,
                self.pixel_size_um,
                self.binning,
                self.roi,
                self.pixel_type,
                self.port,
                self.flow,
                self.picture_mode,
                self.picture_hz,
                self.picture_delay_s,
                self.show_unreliable,
            ]
        )
        self.container.margins = (0, 0, 0, 0)
        self.camera.tooltip = "simulated, demo, running (a Micro-Manager that is open), or a FILE.cfg"
        self.camera.native.setPlaceholderText("simulated, demo, running or FILE.cfg")
        self.person.native.setPlaceholderText(Settings().who)
        self.mm_path.line_edit.native.setPlaceholderText("found by itself")
        for spin, empty in (
            (self.exposure_ms, _AS_SAID),
            (self.fps, _AS_SAID),
            (self.pixel_size_um, _AS_SAID),
            (self.binning, "as the camera is set"),
            (self.roi, "x,y,width,height; as the camera is set"),
            (self.pixel_type, "as the camera is set"),
            (self.port, "4827"),
        ):
            spin.native.setPlaceholderText(empty)
        self.save_button, self.defaults_button = QPushButton("Save"), QPushButton("Defaults")
        self.message = WarningBox()
        self.status = wrapping_label("font-size: 14px;")
        self.save_button.clicked.connect(self._save)
        self.defaults_button.clicked.connect(lambda: self._show(Settings()))
        buttons = QHBoxLayout()
        buttons.addWidget(self.save_button)
        buttons.addWidget(self.defaults_button)
        column = QVBoxLayout(self)
        column.addWidget(self.container.native)
        column.addLayout(buttons)
        column.addWidget(self.message)
        column.addWidget(self.status)
        column.addStretch(1)
        settings = load_settings()
        if settings.remark:
            self.message.say(mild=[settings.remark])
        self._show(settings)
        self.status.setText(f"Kept in {breakable(str(settings_path()))}; they take effect after a restart.")

    def _show(self, settings: Settings) -> None:
        self.sessions_folder.value = settings.sessions_folder
        self.person.value = settings.person
        self.camera.value = settings.camera
        self.mm_path.line_edit.value = settings.mm_path
        for spin, value in (
            (self.exposure_ms, settings.exposure_ms),
            (self.fps, settings.fps),
            (self.pixel_size_um, settings.pixel_size_um),
            (self.binning, settings.binning),
            (self.port, settings.port),
        ):
            spin.value = "" if value is None else f"{value:.10g}"
        self.roi.value, self.pixel_type.value = settings.roi, settings.pixel_type
        self.flow.value = settings.flow
        self.picture_mode.value = settings.picture_mode
        self.picture_hz.value = settings.picture_hz
        self.picture_delay_s.value = settings.picture_delay_s
        self.show_unreliable.value = settings.show_unreliable

    def _said(self) -> Settings:
        folder = self.sessions_folder.line_edit.value.strip()
        if not folder:
            raise BadInput("There is no folder for sessions: choose one.")
        return replace(
            load_settings(),  # what others have kept meanwhile, and what a newer version knows
            sessions_folder=Path(folder).expanduser(),
            person=self.person.value.strip(),
            camera=self.camera.value.strip(),
            mm_path=self.mm_path.line_edit.value.strip(),
            exposure_ms=number_in(self.exposure_ms),
            fps=number_in(self.fps),
            pixel_size_um=number_in(self.pixel_size_um),
            binning=_whole(number_in(self.binning)),
            roi=self.roi.value.strip(),
            pixel_type=self.pixel_type.value.strip(),
            port=_whole(number_in(self.port)),
            flow=self.flow.value,
            picture_mode=self.picture_mode.value,
            picture_hz=float(self.picture_hz.value),
            picture_delay_s=float(self.picture_delay_s.value),
            show_unreliable=bool(self.show_unreliable.value),
            remark="",
        )

    def _save(self) -> None:
        try:
            save_settings(self._said())
        except RbcflowError as error:
            self.message.say(grave=[str(error)])
            self.status.setText("Nothing was kept.")
            return
        self.message.clear()
        self.status.setText(f"Kept in {breakable(str(settings_path()))}; they take effect after a restart.")


def _whole(number: float | None) -> Any:
    """Return a whole number as one; another is left to `Settings` to refuse."""
    return int(number) if number is not None and number.is_integer() else number
