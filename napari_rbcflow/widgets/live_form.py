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
    QSpinBox,
    QWidget,
)

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import MOST_LEAST_FRAMES, Camera, MovieFile, Order, RunSettings
from napari_rbcflow.sources import USUAL, CameraSettings, parse_roi, roi_text
from napari_rbcflow.tracking import Direction
from napari_rbcflow.types import LEAST_FRAMES
from napari_rbcflow.widgets.remembered import Settings
from napari_rbcflow.widgets.run_form import FLOW_FIELDS, FLOW_HELP, StopForm, flow_from, new_session, texts_of

_OF_ANY_CAMERA = frozenset({"exposure_ms", "fps", "pixel_size_um"})
_OF_MICRO_MANAGER = _OF_ANY_CAMERA | {"binning", "roi", "pixel_type"}


@dataclass(frozen=True)
class CameraChoice:
    """One entry of the list.

    Attributes
    ----------
    name : str
        For a person.
    spec : str
        As after ``--camera``; empty where a file is to be chosen.
    options : frozenset of str
        What it can be asked for, as `sources.opening.open_source` names it.
    files : str
        What the file dialogue shows; empty where no file is needed.
    file_words : str
        What the field for the file is called.
    endings : frozenset of str
        Of the files that are meant; empty stands for all that no other choice names.
    folders : bool
        Whether the file may be a folder.
    """

    name: str
    spec: str = ""
    options: frozenset[str] = _OF_ANY_CAMERA
    files: str = ""
    file_words: str = ""
    endings: frozenset[str] = frozenset()
    folders: bool = False


CHOICES: tuple[CameraChoice, ...] = (
    CameraChoice(
        "Simulated chamber",
        "simulated",
        _OF_ANY_CAMERA | {"seed", "tank_fraction", "cells_per_frame"},
    ),
    CameraChoice("DemoCamera (Micro-Manager's test camera)", "demo", _OF_MICRO_MANAGER),
    CameraChoice(
        "Camera with a Micro-Manager configuration",
        options=_OF_MICRO_MANAGER | {"mm_path"},
        files="Micro-Manager configurations (*.cfg);;All files (*)",
        file_words="Configuration",
        endings=frozenset({".cfg"}),
    ),
    CameraChoice("Micro-Manager that is already open", "running", _OF_MICRO_MANAGER | {"port"}),
    CameraChoice(
        "Movie file, played as a camera",
        options=frozenset({"fps", "pixel_size_um"}),
        files="Movies (*.avi *.tif *.tiff *.zarr *.mp4);;All files (*)",
        file_words="Movie",
        folders=True,
    ),
)


def choice_of(spec: str) -> CameraChoice:
    """Return the choice that what stands after ``--camera`` belongs to."""
    for choice in CHOICES:
        if choice.spec == spec:
            return choice
    ending = Path(spec).suffix.lower()
    with_files = [choice for choice in CHOICES if choice.files]
    return next((c for c in with_files if ending in c.endings), with_files[-1])


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
        form.addRow("Minimum frames per cell", self.least_frames)
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
