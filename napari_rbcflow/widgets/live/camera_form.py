"""What a person chooses before a run: camera, patient, when to stop, where it goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline.messages import Camera, MovieFile, Order
from napari_rbcflow.pipeline.settings import MOST_LEAST_FRAMES, RunSettings
from napari_rbcflow.sources.camera_settings import roi_text
from napari_rbcflow.tracking.settings import Direction
from napari_rbcflow.types import LEAST_FRAMES
from napari_rbcflow.widgets.live.camera_choices import CHOICES, CameraChoice, choice_of
from napari_rbcflow.widgets.live.camera_fields import CameraFields
from napari_rbcflow.widgets.live.flow_fields import FLOW_FIELDS, FLOW_HELP, flow_from, texts_of
from napari_rbcflow.widgets.live.session_names import new_session
from napari_rbcflow.widgets.live.stop_form import StopForm
from napari_rbcflow.widgets.settings.remembered import Settings

LEAST_FRAMES_HELP = (
    "Cells seen in fewer frames are kept but not counted. "
    "In a long track a stiff cell shows its flip more surely."
)
_REMEMBERED = ("exposure_ms", "fps", "pixel_size_um", "binning", "roi", "pixel_type", "port")
"""What a camera is asked for that `Settings` keeps."""
_FLOWS: tuple[tuple[str, Direction], ...] = (
    ("left to right", "left-to-right"),
    ("right to left", "right-to-left"),
)


class CameraForm(QWidget):
    """The form; an empty field leaves it to the camera or to the file.

    What an order holds beside what the form shows (device, interval, ...) is kept from the order that it
    was filled from, as long as the camera stays the same.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.patient, self.sample = QLineEdit(), QLineEdit()
        self.camera = QComboBox()
        self.camera.addItems([choice.name for choice in CHOICES])
        # A long name must not widen the dock.
        self.camera.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.camera.setMinimumContentsLength(12)
        self.camera.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.file, self.mm_path, self.folder = QLineEdit(), QLineEdit(), QLineEdit()
        self.mm_path.setPlaceholderText("found by itself")
        self.flow = QComboBox()
        self.flow.addItems([words for words, _ in _FLOWS])
        self.set_flow = {name: QLineEdit() for name in FLOW_FIELDS}
        self.stop = StopForm()
        self.least_frames = QSpinBox()
        self.least_frames.setRange(LEAST_FRAMES, MOST_LEAST_FRAMES)
        self.least_frames.setToolTip(LEAST_FRAMES_HELP)
        self.browse_file = _browse(self._choose_file)
        self.browse_folder = _browse(lambda: _choose_folder(self.folder))
        self._form = form = QFormLayout(self)
        form.setContentsMargins(4, 4, 4, 4)
        form.setVerticalSpacing(4)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        form.addRow("Patient", self.patient)
        form.addRow("Sample", self.sample)
        form.addRow("Camera", self.camera)
        self._file_row = _row(self.file, self.browse_file)
        form.addRow("File", self._file_row)
        self._mm_row = _row(self.mm_path, _browse(lambda: _choose_folder(self.mm_path)))
        form.addRow("Micro-Manager in", self._mm_row)
        self.fields = CameraFields(form)
        self.numbers = self.fields.numbers
        form.addRow("Cells flow", self.flow)
        for name, (words, placeholder) in FLOW_FIELDS.items():
            self.set_flow[name].setPlaceholderText(placeholder)
            self.set_flow[name].setToolTip(FLOW_HELP[name])
            form.addRow(words, self.set_flow[name])
        form.addRow(self.stop)
        form.addRow("Least frames", self.least_frames)
        form.addRow("Sessions go to", _row(self.folder, self.browse_folder))
        self._settings = RunSettings()
        self._hidden_options: dict[str, Any] = {}
        self.camera.currentIndexChanged.connect(self._choice_changed)
        self._choice_changed()
        self.load(Settings())

    @property
    def choice(self) -> CameraChoice:
        """The camera chosen."""
        return CHOICES[self.camera.currentIndex()]

    # ------------------------------------------------------------------ out

    def order(self) -> Order:
        """Return what was chosen, with the path of a session that does not exist yet.

        Raises
        ------
        BadInput
            Where a field cannot be used.
        """
        options = self._options()
        spec = self._spec()
        settings = self.run_settings()
        folder = self.folder.text().strip()
        if not folder:
            raise BadInput("There is no folder for sessions: choose one.")
        path = new_session(Path(folder), settings.patient, settings.sample)
        return Order(Camera(spec, options), path, settings)

    def run_settings(self) -> RunSettings:
        """Return what was chosen for the run itself; errors as `order`."""
        return replace(
            self._settings,
            patient=self.patient.text().strip(),
            sample=self.sample.text().strip(),
            flow=_FLOWS[self.flow.currentIndex()][1],
            set_flow=flow_from(
                {name: field.text() for name, field in self.set_flow.items()}, self._settings.set_flow
            ),
            stop=self.stop.rules(),
            least_frames=self.least_frames.value(),
            background="sliding",
        )

    def settings(self, before: Settings) -> Settings:
        """Return what shall be remembered, with the rest as it was; errors as `order`."""
        asked = self._options()
        has = self.choice.options
        return replace(
            before,
            **{
                name: _as_kept(name, asked.get(name)) if name in has else getattr(before, name)
                for name in _REMEMBERED
            },
            sessions_folder=Path(self.folder.text().strip()).expanduser(),
            camera=self._spec(),
            mm_path=self.mm_path.text().strip(),
            flow=_FLOWS[self.flow.currentIndex()][1],
        )

    def _spec(self) -> str:
        choice = self.choice
        if choice.spec:
            return choice.spec
        path = self.file.text().strip()
        if not path:
            raise BadInput(f"There is no {choice.file_words.lower()}: choose a file with Browse.")
        path = str(Path(path).expanduser())
        if choice_of(path) is not choice:
            raise BadInput(f"{path} is no file for “{choice.name}”: choose another file or another camera.")
        return path

    def _options(self) -> dict[str, Any]:
        """Return what the camera is asked for; what is left out, it decides."""
        options = self._hidden_options | self.fields.options(self.choice)
        if "mm_path" in self.choice.options and (path := self.mm_path.text().strip()):
            options["mm_path"] = Path(path).expanduser()
        return options

    # ------------------------------------------------------------------ in

    def load(self, settings: Settings) -> None:
        """Show what was remembered."""
        self._fill_camera(settings.camera)
        self.mm_path.setText(settings.mm_path)
        self.fields.fill({name: getattr(settings, name) for name in _REMEMBERED})
        self._fill_flow(settings.flow)
        self.folder.setText(str(settings.sessions_folder))

    def fill(self, order: Order) -> None:
        """Show an order."""
        source, settings = order.source, order.settings
        options: dict[str, Any]
        if isinstance(source, MovieFile):
            self._fill_camera(str(source.path))
            options = {"fps": source.fps, "pixel_size_um": source.pixel_size_um}
        else:
            self._fill_camera(source.spec)
            options = dict(source.options)
        self.mm_path.setText(str(options.pop("mm_path", None) or ""))
        self.fields.fill(options)
        self._hidden_options = {k: v for k, v in options.items() if k not in self.numbers and v is not None}
        self._settings = settings
        self.patient.setText(settings.patient)
        self.sample.setText(settings.sample)
        self._fill_flow(settings.flow)
        for name, text in texts_of(settings.set_flow).items():
            self.set_flow[name].setText(text)
        self.stop.fill(settings.stop)
        self.least_frames.setValue(settings.least_frames)
        self.folder.setText(str(order.folder.absolute().parent))

    def _fill_camera(self, spec: str) -> None:
        choice = choice_of(spec)
        self.camera.setCurrentIndex(CHOICES.index(choice))
        self.file.setText("" if choice.spec else spec)
        self._choice_changed()

    def _fill_flow(self, flow: Direction) -> None:
        self.flow.setCurrentIndex([value for _, value in _FLOWS].index(flow))

    # ------------------------------------------------------------------ rows

    def _choice_changed(self) -> None:
        """Show the rows that this camera has."""
        choice = self.choice
        self._hidden_options = {}
        self._settings = RunSettings()
        self._form.setRowVisible(self._file_row, bool(choice.files))
        self._form.setRowVisible(self._mm_row, "mm_path" in choice.options)
        self.fields.show_for(choice)
        label = self._form.labelForField(self._file_row)
        if label is not None and choice.file_words:
            label.setText(choice.file_words)  # type: ignore[attr-defined]

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, self.choice.file_words, str(Path(self.file.text()).parent), self.choice.files
        )
        if path:
            self.file.setText(path)


def _as_kept(name: str, value: Any) -> Any:
    """Return a value as `Settings` keeps it: texts, also none, as texts."""
    if name == "roi":
        return roi_text(value)
    return value or "" if name == "pixel_type" else value


def _row(field: QWidget, button: QWidget) -> QWidget:
    widget = QWidget()
    row = QHBoxLayout(widget)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(field, 1)
    row.addWidget(button)
    return widget


def _browse(chosen: Any) -> QPushButton:
    button = QPushButton("Browse")
    button.setAutoDefault(False)
    button.clicked.connect(lambda: chosen())
    return button


def _choose_folder(field: QLineEdit) -> None:
    path = QFileDialog.getExistingDirectory(field, "Folder", field.text())
    if path:
        field.setText(path)
