"""What a person chooses before a recorded movie is analysed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, LineEdit, SpinBox

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline.settings import MOST_LEAST_FRAMES, RunSettings
from napari_rbcflow.sources.base import check_settings
from napari_rbcflow.tracking.settings import Direction
from napari_rbcflow.types import LEAST_FRAMES
from napari_rbcflow.widgets.live.camera_form import LEAST_FRAMES_HELP
from napari_rbcflow.widgets.live.flow_fields import FLOW_FIELDS, FLOW_HELP, flow_from
from napari_rbcflow.widgets.live.session_names import new_session
from napari_rbcflow.widgets.settings.remembered import Settings

RING_SECONDS = 1.0
"""As in `run.analysis`: the movie itself lies on disk."""
FILE, FOLDER, LAYER = "a file", "a folder: Zarr, TIFFs, session", "an open image layer"
_AS_THE_FILE_SAYS = "as the file says"
FLOWS: list[tuple[str, Direction]] = [
    ("left to right", "left-to-right"),
    ("right to left", "right-to-left"),
]
_BACKGROUNDS: list[tuple[str, Literal["movie", "sliding"]]] = [
    ("of the whole movie", "movie"),
    ("of the last seconds", "sliding"),
]


class MovieForm:
    """The form, made with magicgui.

    Parameters
    ----------
    layers : callable
        Gives the open Image layers.

    Attributes
    ----------
    container : Container
        `container.native` is the Qt widget.
    """

    def __init__(self, layers: Callable[[], list[Any]]) -> None:
        self.source = ComboBox(label="Movie", choices=[FILE, FOLDER, LAYER], value=FILE)
        self.file = FileEdit(label="", mode=FileDialogMode.EXISTING_FILE)
        self.layer = ComboBox(label="", choices=lambda _: [(layer.name, layer) for layer in layers()])
        self.patient = LineEdit(label="Patient")
        self.sample = LineEdit(label="Sample")
        self.fps = LineEdit(label="Frames per second")
        self.pixel_size_um = LineEdit(label="Pixel size, µm")
        self.flow = ComboBox(label="Cells flow", choices=FLOWS, value="left-to-right")
        self.set_flow = {
            name: LineEdit(label=words, tooltip=FLOW_HELP[name]) for name, (words, _) in FLOW_FIELDS.items()
        }
        self.background = ComboBox(label="Background", choices=_BACKGROUNDS, value="movie")
        self.least_frames = SpinBox(
            label="Least frames",
            value=LEAST_FRAMES,
            min=LEAST_FRAMES,
            max=MOST_LEAST_FRAMES,
            tooltip=LEAST_FRAMES_HELP,
        )
        self.folder = FileEdit(label="Folder for sessions", mode=FileDialogMode.EXISTING_DIRECTORY)
        self.background.tooltip = (
            "What stands still in the picture: the median of frames over the whole movie. "
            "Take the last seconds where the light changes in the course of the movie."
        )
        for number in (self.fps, self.pixel_size_um):
            number.native.setPlaceholderText(_AS_THE_FILE_SAYS)
        for name, (_, usual) in FLOW_FIELDS.items():
            self.set_flow[name].native.setPlaceholderText(usual)
        # Added one after the other: given to the constructor, their labels are not aligned.
        self.container: Container[Any] = Container()
        self.container.extend(
            [
                self.source,
                self.file,
                self.layer,
                self.patient,
                self.sample,
                self.fps,
                self.pixel_size_um,
                self.flow,
                *self.set_flow.values(),
                self.background,
                self.least_frames,
                self.folder,
            ]
        )
        self.container.margins = (0, 0, 0, 0)
        self.source.changed.connect(self._source_changed)
        self._source_changed()

    def load(self, settings: Settings) -> None:
        """Take over what is remembered from the day before."""
        self.folder.value = settings.sessions_folder
        self.flow.value = settings.flow

    def refresh_layers(self) -> None:
        """List the layers that are open now."""
        self.layer.reset_choices()

    def set_enabled(self, enabled: bool) -> None:
        """Let nothing be changed while an analysis goes on."""
        self.container.enabled = enabled

    # ------------------------------------------------------------------ out

    @property
    def chosen_layer(self) -> Any | None:
        """The layer, where one is to be analysed; None where a path is.

        Raises
        ------
        BadInput
            Where no Image layer is open.
        """
        if self.source.value != LAYER:
            return None
        if self.layer.value is None:
            raise BadInput("No image layer is open: open a movie in napari, or choose a file.")
        return self.layer.value

    @property
    def chosen_path(self) -> Path:
        """The file or folder.

        Raises
        ------
        BadInput
            Where there is none.
        """
        text = self.file.line_edit.value.strip()
        if not text:
            raise BadInput("No movie is chosen: choose a file, a folder or an open image layer.")
        path = Path(text).expanduser()
        if not path.exists():
            raise BadInput(f"{path} does not exist: choose the movie again.")
        return path

    def numbers(self) -> dict[str, float | None]:
        """Return `fps` and `pixel_size_um`, None where the file decides.

        Raises
        ------
        BadInput
            For what is no number, or what no microscope has.
        """
        said = {"fps": number_in(self.fps), "pixel_size_um": number_in(self.pixel_size_um)}
        check_settings(fps=said["fps"], pixel_size_um=said["pixel_size_um"])
        return said

    def run_settings(self) -> RunSettings:
        """Return what was chosen for the run.

        Raises
        ------
        BadInput
            For a flow that is no number, or that no chamber has.
        """
        return RunSettings(
            patient=self.patient.value.strip(),
            sample=self.sample.value.strip(),
            background=self.background.value,
            flow=self.flow.value,
            ring_seconds=RING_SECONDS,
            least_frames=self.least_frames.value,
            set_flow=flow_from({name: field.value for name, field in self.set_flow.items()}),
        )

    def new_folder(self) -> Path:
        """Return the path of a session that does not exist yet.

        Raises
        ------
        BadInput
            Where sessions cannot be kept there.
        """
        text = self.folder.line_edit.value.strip()
        if not text:
            raise BadInput("There is no folder for sessions: choose one.")
        return new_session(Path(text), self.patient.value, self.sample.value)

    def _source_changed(self, _: Any = None) -> None:
        what = self.source.value
        self.file.visible = what != LAYER
        self.layer.visible = what == LAYER
        folder, file = FileDialogMode.EXISTING_DIRECTORY, FileDialogMode.EXISTING_FILE
        self.file.mode = folder if what == FOLDER else file


def number_in(field: LineEdit) -> float | None:
    """Return what stands in a field, None where nothing does.

    Raises
    ------
    BadInput
        Where it is no number.
    """
    text = field.value.strip().replace(",", ".")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{field.label}: {field.value!r} is not a number.") from None
