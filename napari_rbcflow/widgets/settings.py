"""The settings for camera and display, to be edited in a dock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, LineEdit
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.sentences import say
from napari_rbcflow.widgets.dock import Dock
from napari_rbcflow.widgets.movie_form import folder_field
from napari_rbcflow.widgets.panel import FIELD_LABELS, breakable, scrolling, wrapping_label
from napari_rbcflow.widgets.picture import MODES
from napari_rbcflow.widgets.remembered import (
    Settings,
    load_settings,
    read_number,
    save_settings,
    settings_path,
)
from napari_rbcflow.widgets.run_form import FLOWS

_OF_THE_CAMERA = ("exposure_ms", "fps", "pixel_size_um", "binning", "port")
# An empty field stands for the usual number.
_USUAL = ("picture_hz", "picture_delay_s")


class SettingsWidget(Dock):
    """Shows the settings, and saves what is changed when Save is pressed; `message` says why not."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions_folder = folder_field("sessions_folder")
        self.person = _line("person", "", say("forms.person-help"))
        self.calibration = FileEdit(
            label=FIELD_LABELS["calibration"],
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.json",
            tooltip=say("forms.calibration-help"),
        )
        self.record_template = FileEdit(
            label=FIELD_LABELS["record_template"],
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.toml *.json",
            tooltip=say("forms.record-template-help"),
        )
        for edit in (self.calibration, self.record_template):
            edit.choose_btn.text = say("forms.browse")
        self.camera = _line("camera", say("forms.cameras"), say("forms.camera-help"))
        self.mm_path = folder_field("mm_path")
        self.mm_path.line_edit.native.setPlaceholderText(say("forms.found-automatically"))
        as_set, as_camera_says = say("forms.as-the-camera-is-set"), say("forms.as-the-camera-says")
        self.exposure_ms = _line("exposure_ms", as_set)
        self.fps = _line("fps", as_camera_says)
        self.pixel_size_um = _line("pixel_size_um", as_camera_says)
        self.binning = _line("binning", as_set, say("forms.binning-help"))
        self.roi = _line("roi", say("forms.roi-example"), say("forms.roi-help"))
        self.pixel_type = _line("pixel_type", as_set, say("forms.pixel-type-help"))
        self.port = _line("port", "4827")
        self.flow = ComboBox(label=FIELD_LABELS["flow"], choices=FLOWS)
        self.picture_mode = ComboBox(
            label=FIELD_LABELS["picture_mode"],
            choices=MODES,
        )
        usual = Settings()
        self.picture_hz = _line("picture_hz", f"{usual.picture_hz:g}", say("forms.picture-hz-help"))
        self.picture_delay_s = _line(
            "picture_delay_s", f"{usual.picture_delay_s:g}", say("forms.picture-delay-help")
        )
        self.show_unreliable = CheckBox(text=FIELD_LABELS["show_unreliable"])
        self.container: Container[Any] = Container()
        self.container.extend(
            [
                self.sessions_folder,
                self.person,
                self.calibration,
                self.record_template,
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
        self.save_button = QPushButton(say("forms.save"))
        self.defaults_button = QPushButton(say("forms.defaults"))
        self.status = wrapping_label("font-size: 14px;")
        self.save_button.clicked.connect(self._save)
        self.defaults_button.clicked.connect(lambda: self._show(Settings()))
        buttons = QHBoxLayout()
        buttons.addWidget(self.save_button)
        buttons.addWidget(self.defaults_button)
        column = QVBoxLayout(self)
        column.addWidget(scrolling(self.container.native), 1)
        column.addLayout(buttons)
        column.addWidget(self.message)
        column.addWidget(self.status)
        settings = load_settings()
        if settings.remark:
            self.message.say(mild=[settings.remark])
        self._show(settings)
        self._say_where()

    def shut_down(self) -> None:
        """Nothing goes on here."""

    def _say_where(self) -> None:
        self.status.setText(say("forms.settings-saved", path=breakable(str(settings_path()))))

    def _show(self, settings: Settings) -> None:
        self.sessions_folder.value = settings.sessions_folder
        self.person.value = settings.person
        self.calibration.line_edit.value = settings.calibration
        self.record_template.line_edit.value = settings.record_template
        self.camera.value = settings.camera
        self.mm_path.line_edit.value = settings.mm_path
        for name in (*_OF_THE_CAMERA, *_USUAL):
            value = getattr(settings, name)
            getattr(self, name).value = "" if value is None else f"{value:.10g}"
        self.roi.value, self.pixel_type.value = settings.roi, settings.pixel_type
        self.flow.value = settings.flow
        self.picture_mode.value = settings.picture_mode
        self.show_unreliable.value = settings.show_unreliable

    def _read(self) -> Settings:
        folder = self.sessions_folder.line_edit.value.strip()
        if not folder:
            raise BadInput("forms.no-sessions-folder")
        return replace(
            load_settings(),  # what others have saved meanwhile, and what a newer version knows
            sessions_folder=Path(folder).expanduser(),
            person=self.person.value.strip(),
            calibration=self.calibration.line_edit.value.strip(),
            record_template=self.record_template.line_edit.value.strip(),
            camera=self.camera.value.strip(),
            mm_path=self.mm_path.line_edit.value.strip(),
            exposure_ms=read_number("exposure_ms", self.exposure_ms.value),
            fps=read_number("fps", self.fps.value),
            pixel_size_um=read_number("pixel_size_um", self.pixel_size_um.value),
            binning=read_number("binning", self.binning.value, whole=True),
            roi=self.roi.value.strip(),
            pixel_type=self.pixel_type.value.strip(),
            port=read_number("port", self.port.value, whole=True),
            flow=self.flow.value,
            picture_mode=self.picture_mode.value,
            picture_hz=self._number("picture_hz"),
            picture_delay_s=self._number("picture_delay_s"),
            show_unreliable=bool(self.show_unreliable.value),
            remark="",
        )

    def _number(self, name: str) -> float:
        value = read_number(name, getattr(self, name).value)
        return getattr(Settings(), name) if value is None else value  # type: ignore[no-any-return]

    def _save(self) -> None:
        try:
            save_settings(self._read())
        except RbcflowError as error:
            self.message.say(grave=[str(error)])
            self.status.setText(say("forms.settings-not-saved"))
            return
        self.message.clear()
        self._say_where()


def _line(setting: str, empty: str, tooltip: str = "") -> LineEdit:
    """Return a field with what an empty one stands for."""
    line = LineEdit(label=FIELD_LABELS[setting], tooltip=tooltip or None)
    line.native.setPlaceholderText(empty)
    return line
