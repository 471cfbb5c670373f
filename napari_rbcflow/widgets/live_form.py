"""What a person chooses of the camera: which one, and what it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    QWidget,
)

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import MOST_LEAST_FRAMES, Camera, MovieFile, RunRequest, RunSettings
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import USUAL_PIXEL_TYPES, CameraSettings, parse_roi, roi_text
from napari_rbcflow.tracking import Direction
from napari_rbcflow.types import LEAST_FRAMES
from napari_rbcflow.widgets.panel import FIELD_LABELS
from napari_rbcflow.widgets.record_form import RecordForm
from napari_rbcflow.widgets.remembered import Settings, load_settings, read_number
from napari_rbcflow.widgets.run_form import (
    FLOW_HELP,
    FLOW_USUAL,
    FLOWS,
    TURNS,
    StopForm,
    WholeBox,
    flow_from,
    new_session,
    texts_of,
)

_OF_ANY_CAMERA = frozenset({"exposure_ms", "fps", "pixel_size_um"})
_OF_MICRO_MANAGER = _OF_ANY_CAMERA | {"binning", "roi", "pixel_type"}


@dataclass(frozen=True)
class CameraChoice:
    """One entry of the list of cameras."""

    name: str  # for a person
    spec: str = ""  # as `open_source` takes it; empty where a file is to be chosen
    options: frozenset[str] = _OF_ANY_CAMERA  # what `open_source` may ask of it
    files: str = ""  # what the file dialogue shows; empty where no file is needed
    file_label: str = ""
    endings: frozenset[str] = frozenset()  # of its files; empty for all that no other choice names
    simulated: bool = False  # shows no patient's cells as they flow now


CHOICES: tuple[CameraChoice, ...] = (
    CameraChoice(
        say("forms.simulated-chamber"),
        "simulated",
        _OF_ANY_CAMERA | {"seed", "tank_fraction", "cells_per_frame"},
        simulated=True,
    ),
    CameraChoice(say("forms.demo-camera"), "demo", _OF_MICRO_MANAGER, simulated=True),
    CameraChoice(
        say("forms.configured-camera"),
        options=_OF_MICRO_MANAGER | {"mm_path"},
        files=say("forms.configuration-files"),
        file_label=say("forms.configuration-file"),
        endings=frozenset({".cfg"}),
    ),
    CameraChoice(say("forms.running-micro-manager"), "running", _OF_MICRO_MANAGER | {"port"}),
    CameraChoice(
        say("forms.movie-as-camera"),
        options=frozenset({"fps", "pixel_size_um"}),
        files=say("forms.movie-files"),
        file_label=say("forms.movie-file"),
        simulated=True,
    ),
)
NO_CHOICE = CameraChoice("", options=frozenset())
"""While a person has yet to choose."""


def choice_of(spec: str) -> CameraChoice:
    """Return the choice that a camera's name or a file belongs to."""
    for choice in CHOICES:
        if choice.spec == spec:
            return choice
    ending = Path(spec).suffix.lower()
    with_files = [choice for choice in CHOICES if choice.files]
    return next((c for c in with_files if ending in c.endings), with_files[-1])


_FOLD = "text-align: left; background: transparent; border: none; padding: 3px 0px;"
# Characters of a detail that the folded title has room for.
_SHORT = 24


@dataclass(frozen=True)
class _Row:
    """How one field is read and shown."""

    empty: str  # what an empty field stands for
    read: Callable[[str], Any] | None = None  # None for a number
    whole: bool = False
    percent: bool = False  # a share, written in percent
    help: str = ""
    folded: bool = False
    detail: str = ""  # the sentence in which the folded title says it; empty for the bare value


_AS_SET, _AS_CAMERA_SAYS = say("forms.as-the-camera-is-set"), say("forms.as-the-camera-says")
_ROWS: dict[str, _Row] = {
    "exposure_ms": _Row(_AS_SET),
    "fps": _Row(_AS_CAMERA_SAYS),
    "pixel_size_um": _Row(_AS_CAMERA_SAYS),
    "binning": _Row(
        _AS_SET, whole=True, help=say("forms.binning-help"), folded=True, detail="forms.detail-binning"
    ),
    "roi": _Row(_AS_SET, parse_roi, help=say("forms.roi-help"), folded=True, detail="forms.detail-roi"),
    "pixel_type": _Row(_AS_SET, str, help=say("forms.pixel-type-help"), folded=True),
    "port": _Row("4827", whole=True, folded=True, detail="forms.detail-port"),
    "seed": _Row("0", whole=True, folded=True, detail="forms.detail-seed"),
    "tank_fraction": _Row("80", percent=True, folded=True, detail="forms.detail-tank-fraction"),
    "cells_per_frame": _Row("115", folded=True, detail="forms.detail-cells-per-frame"),
}


class CameraFields:
    """The rows of what a camera is asked for, added to a form; an empty one leaves it to the camera.

    `numbers` are the fields, by the names of `open_source`'s options. `fold` shows and hides the details,
    and its title tells those that are filled in while they are hidden.
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
            form.addRow(FIELD_LABELS[name], self._widgets[name])

    def show_for(self, choice: CameraChoice) -> None:
        """Show the rows that this camera has."""
        self._choice = choice
        self._show_rows()

    def options(self, choice: CameraChoice) -> dict[str, Any]:
        """Return what this camera is asked for; a field that cannot be used is unfolded."""
        options: dict[str, Any] = {}
        for name, row in _ROWS.items():
            text = self.numbers[name].text().strip()
            if name not in choice.options or not text:
                continue
            try:
                options[name] = _value(name, text)
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

    def _show_rows(self) -> None:
        has = self._choice.options if self._choice is not None else frozenset()
        self._form.setRowVisible(self.fold, any(row.folded and name in has for name, row in _ROWS.items()))
        for name, row in _ROWS.items():
            shown = name in has and (not row.folded or self.fold.isChecked())
            self._form.setRowVisible(self._widgets[name], shown)
        self._name_fold()

    def _name_fold(self) -> None:
        has = self._choice.options if self._choice is not None else frozenset()
        given = []
        for name, row in _ROWS.items():
            text = self.numbers[name].text().strip()
            if row.folded and name in has and text:
                text = text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
                given.append(say(row.detail, value=text) if row.detail else text)
        details = ", ".join(given)
        title = say("forms.camera-details-given", details=details) if given else say("forms.camera-details")
        self.fold.setText(f"{'▾' if self.fold.isChecked() else '▸'} {title}")
        self.fold.setToolTip(details)


def _field(name: str) -> tuple[QWidget, QLineEdit]:
    if name != "pixel_type":
        edit = QLineEdit()
        return edit, edit
    box = QComboBox()
    box.setEditable(True)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.addItems(["", *USUAL_PIXEL_TYPES])
    edit = box.lineEdit()  # type: ignore[assignment]
    return box, edit


def _value(name: str, text: str) -> Any:
    row = _ROWS[name]
    if row.read is not None:
        return row.read(text)
    value = read_number(name, text, whole=row.whole, within=(0, 100) if row.percent else None)
    return value / 100 if row.percent else value


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if _ROWS[name].percent:
        value = 100.0 * value
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


# What a camera is asked for that `Settings` keeps.
_REMEMBERED = ("exposure_ms", "fps", "pixel_size_um", "binning", "roi", "pixel_type", "port")


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
        self.camera.setPlaceholderText(say("forms.choose-a-camera"))
        self.camera.setToolTip(say("forms.camera-choice-help"))
        # A long name must not widen the dock.
        self.camera.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.camera.setMinimumContentsLength(12)
        self.camera.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.file, self.mm_path, self.folder = QLineEdit(), QLineEdit(), QLineEdit()
        self.mm_path.setPlaceholderText(say("forms.found-automatically"))
        self.flow = QComboBox()
        self.flow.addItems([words for words, _ in FLOWS])
        self.rotate = QComboBox()
        self.rotate.addItems([words for words, _ in TURNS])
        self.rotate.setToolTip(say("cli.rotate"))
        self.set_flow = {name: QLineEdit() for name in FLOW_HELP}
        self.stop = StopForm()
        self.least_frames = WholeBox(LEAST_FRAMES, MOST_LEAST_FRAMES, LEAST_FRAMES)
        self.least_frames.setToolTip(say("forms.least-frames-help"))
        self._form = form = QFormLayout(self)
        form.setContentsMargins(4, 4, 4, 4)
        form.setVerticalSpacing(4)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        form.addRow(FIELD_LABELS["patient"], self.patient)
        form.addRow(FIELD_LABELS["sample"], self.sample)
        form.addRow(FIELD_LABELS["camera"], self.camera)
        self._file_row = _with_browse(self.file, self._choose_file)
        form.addRow(say("forms.movie-file"), self._file_row)
        self._mm_row = _with_browse(self.mm_path, lambda: _choose_folder(self.mm_path))
        form.addRow(FIELD_LABELS["mm_path"], self._mm_row)
        self.fields = CameraFields(form)
        self.numbers = self.fields.numbers
        form.addRow(FIELD_LABELS["rotate"], self.rotate)
        form.addRow(FIELD_LABELS["flow"], self.flow)
        for name, help_ in FLOW_HELP.items():
            self.set_flow[name].setPlaceholderText(FLOW_USUAL[name])
            self.set_flow[name].setToolTip(help_)
            form.addRow(FIELD_LABELS[name], self.set_flow[name])
        form.addRow(self.stop)
        form.addRow(FIELD_LABELS["least_frames"], self.least_frames)
        self.record = RecordForm()
        form.addRow(self.record)
        folder_row = _with_browse(self.folder, lambda: _choose_folder(self.folder))
        form.addRow(FIELD_LABELS["sessions_folder"], folder_row)
        self._settings = RunSettings()
        self._hidden_options: dict[str, Any] = {}
        self.camera.currentIndexChanged.connect(self._choice_changed)
        self.patient.textChanged.connect(self._patient_changed)
        self._choice_changed()
        self.load(Settings())

    @property
    def choice(self) -> CameraChoice:
        """The camera chosen, or `NO_CHOICE`."""
        at = self.camera.currentIndex()
        return NO_CHOICE if at < 0 else CHOICES[at]

    # ------------------------------------------------------------------ out

    def order(self) -> RunRequest:
        """Return what was chosen, with the path of a session that does not exist yet."""
        options = self._options()
        spec = self._spec()
        settings = self.run_settings()
        path = new_session(self.folder.text(), settings.patient, settings.sample)
        return RunRequest(Camera(spec, options), path, settings)

    def run_settings(self) -> RunSettings:
        """Return what was chosen for the run itself."""
        return replace(
            self._settings,
            patient=self.patient.text().strip(),
            sample=self.sample.text().strip(),
            run_record=self.record.record(),
            flow=FLOWS[self.flow.currentIndex()][1],
            rotate=TURNS[self.rotate.currentIndex()][1],
            set_flow=flow_from(
                {name: field.text() for name, field in self.set_flow.items()}, self._settings.set_flow
            ),
            stop=self.stop.rules(),
            least_frames=self.least_frames.value(),
            background="sliding",
            calibration=self._settings.calibration or load_settings().calibration_file,
        )

    def to_remember(self) -> dict[str, Any]:
        """Return what shall be remembered, by the names of `Settings`: nothing of a simulated camera."""
        folder = {"sessions_folder": Path(self.folder.text().strip()).expanduser()}
        if self.choice.simulated:
            return folder
        asked = self._options()
        has = self.choice.options
        return (
            folder
            | {name: _as_kept(name, asked.get(name)) for name in _REMEMBERED if name in has}
            | {
                "camera": self._spec(),
                "mm_path": self.mm_path.text().strip(),
                "flow": FLOWS[self.flow.currentIndex()][1],
            }
        )

    def _spec(self) -> str:
        choice = self.choice
        if choice is NO_CHOICE:
            raise BadInput("forms.camera-not-chosen")
        if choice.spec:
            return choice.spec
        path = self.file.text().strip()
        if not path:
            raise BadInput("forms.no-file")
        path = str(Path(path).expanduser())
        if choice_of(path) is not choice:
            raise BadInput("forms.wrong-file", path=path, camera=choice.name)
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
        # A movie that an earlier version remembered is not the microscope's camera.
        replays = choice_of(settings.camera) is CHOICES[-1]
        self._fill_camera(Settings().camera if replays else settings.camera)
        self.mm_path.setText(settings.mm_path)
        self.fields.fill({name: getattr(settings, name) for name in _REMEMBERED})
        self._fill_flow(settings.flow)
        self.folder.setText(str(settings.sessions_folder))

    def fill(self, order: RunRequest) -> None:
        """Show an order."""
        source, settings = order.source, order.settings
        self.patient.setText(settings.patient)  # first: it takes a simulated camera away
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
        self.sample.setText(settings.sample)
        self.record.fill(settings.run_record)
        self._fill_flow(settings.flow)
        self.rotate.setCurrentIndex(settings.rotate // 90)
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
        self.flow.setCurrentIndex([value for _, value in FLOWS].index(flow))

    def _patient_changed(self) -> None:
        """Take a simulated camera away: a person must choose it for this patient, or another."""
        self.record.forget_sample()
        if self.choice.simulated and self.patient.text().strip():
            self.camera.setCurrentIndex(-1)

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
        if label is not None and choice.file_label:
            label.setText(choice.file_label)  # type: ignore[attr-defined]

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, self.choice.file_label, str(Path(self.file.text()).parent), self.choice.files
        )
        if path:
            self.file.setText(path)


def _as_kept(name: str, value: Any) -> Any:
    """Return a value as `Settings` keeps it: texts, also none, as texts."""
    if name == "roi":
        return roi_text(value)
    return value or "" if name == "pixel_type" else value


def _with_browse(field: QLineEdit, choose: Callable[[], None]) -> QWidget:
    button = QPushButton(say("forms.browse"))
    button.setAutoDefault(False)
    button.clicked.connect(lambda: choose())
    widget = QWidget()
    row = QHBoxLayout(widget)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(field, 1)
    row.addWidget(button)
    return widget


def _choose_folder(field: QLineEdit) -> None:
    path = QFileDialog.getExistingDirectory(field, say("forms.choose-folder"), field.text())
    if path:
        field.setText(path)
