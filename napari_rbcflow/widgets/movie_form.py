"""What a person chooses before a recorded movie is analysed: a file, or an open layer."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, LineEdit
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.pipeline import MOST_LEAST_FRAMES, RunSettings
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import FrameArray, check_settings, open_frames
from napari_rbcflow.types import LEAST_FRAMES, SIMULATED_MARK
from napari_rbcflow.widgets.layers import is_of_live_picture
from napari_rbcflow.widgets.panel import FIELD_LABELS
from napari_rbcflow.widgets.record_form import RecordForm
from napari_rbcflow.widgets.remembered import Settings, load_settings, read_number
from napari_rbcflow.widgets.run_form import FLOW_HELP, FLOW_USUAL, FLOWS, TURNS, flow_from, new_session

_BIG_TIFF_BYTES = 3_500_000_000
# Bytes that a copy leaves free on its disk.
_ROOM_LEFT = 200 << 20
_PLACES_COMPARED = 3


class Cancelled(Exception):
    """A person wants the copy no longer."""


@dataclass(frozen=True, eq=False)
class LayerFrames:
    """What the analysis needs of a layer, taken in the interface's thread; no thread touches the layer."""

    name: str
    data: Any  # array-like, shape (n, height, width) or (n, height, width, 3 or 4)
    path: Path | None  # the file that the layer says it came from
    placed: dict[str, Any]  # the layer's scale, translate, units and axis_labels, for what is drawn upon it
    simulated: bool = False  # as the layer says


def may_be_movie(layer: Any) -> bool:
    """Whether a layer is worth offering: an image of several pictures, and not a live picture's."""
    from napari.layers import Image

    # `ndim` leaves colour out.
    return isinstance(layer, Image) and layer.ndim > 2 and not is_of_live_picture(layer)


def frames_of_layer(layer: Any) -> LayerFrames:
    """Return what a layer holds, or refuse it; in the interface's thread, and reads no frame."""
    from napari.layers import Image

    name = layer.name
    if not isinstance(layer, Image):
        raise BadInput("forms.layer-wrong-kind", layer=name, kind=type(layer).__name__)
    data = layer.data[0] if layer.multiscale else layer.data
    shape, dtype = tuple(data.shape), np.dtype(data.dtype)
    own = shape[:-1] if layer.rgb else shape
    if len(own) == 2:
        raise BadInput("forms.layer-single-image", layer=name)
    if len(own) != 3:
        raise BadInput("forms.layer-wrong-axes", layer=name, axes=len(own), shape=" x ".join(map(str, own)))
    if own[0] < 2:
        raise BadInput("forms.layer-single-frame", layer=name)
    if dtype.kind not in "ui":
        raise BadInput("forms.layer-wrong-type", layer=name, type=dtype.name)
    path = layer.source.path
    if isinstance(data, FrameArray):
        path = data.path
    placed = {key: tuple(getattr(layer, key))[-3:] for key in ("scale", "translate", "units", "axis_labels")}
    simulated = layer.metadata.get(SIMULATED_MARK) is True
    return LayerFrames(name, data, Path(path) if path else None, placed, simulated)


def file_of(frames: LayerFrames) -> Path | None:
    """Return the file whose frames the layer shows; None where there is none, or it shows something else.

    The shape must agree, and so must some frames, pixel by pixel: a layer may have been worked on.
    """
    if frames.path is None or not frames.path.exists():
        return None
    if isinstance(frames.data, FrameArray):
        return frames.path
    try:
        movie = open_frames(frames.path)
    except (RbcflowError, OSError):
        return None
    try:
        n = len(movie)
        if tuple(frames.data.shape[:3]) != movie.shape:
            return None
        for place in np.linspace(0, n - 1, _PLACES_COMPARED).astype(int).tolist():
            if not _same(np.asarray(frames.data[place]), movie.frame(place)):
                return None
    except RbcflowError:
        return None
    finally:
        movie.close()
    return frames.path


def copy_frames(
    frames: LayerFrames, folder: Path, *, cancelled: threading.Event, progress: Callable[[int, int], None]
) -> Path:
    """Write a layer's frames into a TIFF, one after the other; may run in any thread.

    `progress` is called with (frames written, frames in all). Raises `Cancelled` before the next frame.
    """
    data, n = frames.data, int(frames.data.shape[0])
    wide = np.dtype(data.dtype) != np.uint8
    shape = (n, *(int(k) for k in data.shape[1:]))
    size = int(np.prod(shape)) * (2 if wide else 1)
    free = shutil.disk_usage(folder).free
    if size + _ROOM_LEFT > free:
        raise BadInput(
            "forms.layer-no-room", layer=frames.name, folder=folder, gigabytes=size / 1e9, free=free / 1e9
        )

    def images() -> Iterator[NDArray[Any]]:
        for k in range(n):
            if cancelled.is_set():
                raise Cancelled
            yield _as_stored(np.asarray(data[k]), wide, frames.name)
            progress(k + 1, n)

    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in frames.name)[:60].strip(".-") or "layer"
    path = folder / f"{safe}.tif"
    try:
        tifffile.imwrite(
            path,
            images(),
            shape=shape,
            dtype=np.uint16 if wide else np.uint8,
            bigtiff=size > _BIG_TIFF_BYTES,
            photometric="rgb" if len(shape) == 4 else "minisblack",
            metadata={"axes": "TYX" if len(shape) == 3 else "TYXS", SIMULATED_MARK: frames.simulated},
        )
    except OSError as error:
        raise BadInput(
            "forms.layer-not-written", layer=frames.name, folder=folder, why=error.strerror or error
        ) from error
    return path


def _as_stored(image: NDArray[Any], wide: bool, name: str) -> NDArray[Any]:
    if not wide:
        return np.ascontiguousarray(image, dtype=np.uint8)
    if image.dtype != np.uint16 and (int(image.min()) < 0 or int(image.max()) > 65535):
        raise BadInput("forms.layer-beyond-16-bit", layer=name)
    return np.ascontiguousarray(image, dtype=np.uint16)


def new_copy_folder() -> Path:
    """Make a folder for one copy."""
    return Path(tempfile.mkdtemp(prefix="rbcflow-layer-"))


def _same(shown: NDArray[Any], grey: NDArray[np.uint8]) -> bool:
    """Whether a layer's frame is the file's, up to how the file's depth or colour became grey."""
    if shown.ndim == 3:
        if not (
            np.array_equal(shown[..., 0], shown[..., 1]) and np.array_equal(shown[..., 0], shown[..., 2])
        ):
            return False
        shown = shown[..., 0]
    if shown.dtype.itemsize == 1:
        return np.array_equal(shown, grey)
    return any(np.array_equal(np.minimum(shown >> bits, 255), grey) for bits in (0, 2, 4, 6, 8))


# As in `pipeline.analysis`: the movie itself is on disk.
RING_SECONDS = 1.0
FILE, FOLDER, LAYER = say("forms.movie-is-file"), say("forms.movie-is-folder"), say("forms.movie-is-layer")
_BACKGROUNDS: list[tuple[str, Literal["movie", "sliding"]]] = [
    (say("forms.whole-movie"), "movie"),
    (say("forms.last-seconds"), "sliding"),
]


class AnalysisForm:
    """What is chosen for every analysis of recorded movies; `container.native` is the Qt widget.

    `which` are the fields above, for which movies; `folder` is where the results go.
    """

    def __init__(self, which: Sequence[Any], folder: FileEdit) -> None:
        self.folder = folder
        self.patient = LineEdit(label=FIELD_LABELS["patient"])
        self.sample = LineEdit(label=FIELD_LABELS["sample"])
        self.fps = LineEdit(label=FIELD_LABELS["fps"])
        self.pixel_size_um = LineEdit(label=FIELD_LABELS["pixel_size_um"])
        # Shown by `ask_series`: almost every file holds one movie.
        self.series = LineEdit(label=FIELD_LABELS["series"], visible=False)
        self.flow = ComboBox(label=FIELD_LABELS["flow"], choices=FLOWS, value="left-to-right")
        self.rotate = ComboBox(
            label=FIELD_LABELS["rotate"], choices=TURNS, value=0, tooltip=say("cli.rotate")
        )
        self.set_flow = {
            name: LineEdit(label=FIELD_LABELS[name], tooltip=help_) for name, help_ in FLOW_HELP.items()
        }
        self.background = ComboBox(
            label=FIELD_LABELS["background"],
            choices=_BACKGROUNDS,
            value="movie",
            tooltip=say("forms.background-help"),
        )
        self.least_frames = LineEdit(
            label=FIELD_LABELS["least_frames"], tooltip=say("forms.least-frames-help")
        )
        self.least_frames.native.setPlaceholderText(str(LEAST_FRAMES))
        for number in (self.fps, self.pixel_size_um):
            number.native.setPlaceholderText(say("forms.as-the-file-says"))
        for name, usual in FLOW_USUAL.items():
            self.set_flow[name].native.setPlaceholderText(usual)
        # Added one after the other: given to the constructor, their labels are not aligned.
        self.container: Container[Any] = Container()
        self.container.extend(
            [
                *which,
                self.patient,
                self.sample,
                self.fps,
                self.pixel_size_um,
                self.series,
                self.rotate,
                self.flow,
                *self.set_flow.values(),
                self.background,
                self.least_frames,
                self.folder,
            ]
        )
        self.container.margins = (0, 0, 0, 0)
        self.record = RecordForm()
        self.container.native.layout().addWidget(self.record)
        self.patient.changed.connect(lambda _: self.record.forget_sample())
        self.folder.line_edit.native.setAcceptDrops(False)  # what is dropped is for the whole dock

    def numbers(self) -> dict[str, float | None]:
        """Return `fps` and `pixel_size_um`, None where the file decides."""
        numbers = {
            "fps": read_number("fps", self.fps.value),
            "pixel_size_um": read_number("pixel_size_um", self.pixel_size_um.value),
        }
        check_settings(**numbers)
        return numbers

    def settings(self, *, complete: bool = True) -> dict[str, Any]:
        """Return what else was chosen, as `analyze` calls it; `complete` if all of the record is here."""
        return {
            "patient": self.patient.value.strip(),
            "sample": self.sample.value.strip(),
            "run_record": self.record.record(complete=complete),
            "background": self.background.value,
            "flow": self.flow.value,
            "rotate": self.rotate.value,
            "least_frames": read_number(
                "least_frames",
                self.least_frames.value,
                whole=True,
                within=(LEAST_FRAMES, MOST_LEAST_FRAMES),
            )
            or LEAST_FRAMES,
            "set_flow": flow_from({name: field.value for name, field in self.set_flow.items()}),
            "calibration": load_settings().calibration_file,
        }


class MovieForm(AnalysisForm):
    """The form for one movie; `layers` gives the open ones."""

    def __init__(self, layers: Callable[[], list[Any]]) -> None:
        self.source = ComboBox(label=say("forms.movie-file"), choices=[FILE, FOLDER, LAYER], value=FILE)
        self.file = FileEdit(label="", mode=FileDialogMode.EXISTING_FILE)
        self.layer = ComboBox(label="", choices=lambda _: [(layer.name, layer) for layer in layers()])
        super().__init__([self.source, self.file, self.layer], folder_field("sessions_folder"))
        self.file.line_edit.native.setAcceptDrops(False)
        self.source.changed.connect(self._source_changed)
        self._source_changed()

    def load(self, settings: Settings) -> None:
        """Show what is remembered."""
        self.folder.value = settings.sessions_folder
        self.flow.value = settings.flow

    def choose_path(self, path: Path) -> None:
        """Choose a file, or a folder."""
        self.source.value = FOLDER if path.is_dir() else FILE
        self.file.value = path

    def refresh_layers(self) -> None:
        """List the layers that are open now."""
        self.layer.reset_choices()

    # ------------------------------------------------------------------ out

    @property
    def chosen_layer(self) -> Any | None:
        """The layer, where one is to be analysed; None where a path is."""
        if self.source.value != LAYER:
            return None
        if self.layer.value is None:
            raise BadInput("forms.no-layer-open")
        return self.layer.value

    @property
    def chosen_path(self) -> Path:
        """The file or folder."""
        text = self.file.line_edit.value.strip()
        if not text:
            raise BadInput("forms.no-movie")
        path = Path(text).expanduser()
        if not path.exists():
            raise BadInput("forms.movie-gone", path=path)
        return path

    def ask_series(self) -> None:
        """Show the field for which movie of a file is meant: the last one given holds several."""
        self.series.visible = True

    def chosen_series(self) -> int | None:
        """Return which movie of the file is meant, counted from 0; None where nobody chose."""
        series: int | None = read_number("series", self.series.value, whole=True)
        return series if self.series.visible else None

    def run_settings(self) -> RunSettings:
        """Return what was chosen for the run."""
        return RunSettings(**self.settings(), ring_seconds=RING_SECONDS)

    def new_folder(self) -> Path:
        """Return the path of a session that does not exist yet."""
        return new_session(self.folder.line_edit.value, self.patient.value, self.sample.value)

    def _source_changed(self, _: Any = None) -> None:
        what = self.source.value
        self.file.visible = what != LAYER
        self.layer.visible = what == LAYER
        folder, file = FileDialogMode.EXISTING_DIRECTORY, FileDialogMode.EXISTING_FILE
        self.file.mode = folder if what == FOLDER else file
        self.file.choose_btn.text = say("forms.browse")  # which the mode has changed


def folder_field(setting: str) -> FileEdit:
    """Return a field for a folder."""
    edit = FileEdit(label=FIELD_LABELS[setting], mode=FileDialogMode.EXISTING_DIRECTORY)
    edit.choose_btn.text = say("forms.browse")
    return edit
