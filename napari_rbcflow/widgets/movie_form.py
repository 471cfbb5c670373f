"""What a person chooses before a recorded movie is analysed: a file, or an open layer."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, LineEdit, SpinBox
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.pipeline import MOST_LEAST_FRAMES, RunSettings
from napari_rbcflow.sources import FrameArray, check_settings, open_frames
from napari_rbcflow.tracking import Direction
from napari_rbcflow.types import LEAST_FRAMES
from napari_rbcflow.widgets.layers import is_of_live_picture
from napari_rbcflow.widgets.live_form import LEAST_FRAMES_HELP
from napari_rbcflow.widgets.remembered import Settings
from napari_rbcflow.widgets.run_form import FLOW_FIELDS, FLOW_HELP, flow_from, new_session

_BIG_TIFF_BYTES = 3_500_000_000
_ROOM_LEFT = 200 << 20
"""Bytes that a copy leaves free on its disk."""
_PLACES_COMPARED = 3


class Cancelled(Exception):
    """A person wants the copy no longer."""


@dataclass(frozen=True, eq=False)
class LayerFrames:
    """What of a layer the analysis needs, taken in the interface's thread; no thread touches the layer.

    Attributes
    ----------
    name : str
    data : array-like, shape (n, height, width) or (n, height, width, 3 or 4)
    path : Path or None
        The file that the layer says it came from.
    scale, translate : tuple of float, length 3
        Of the layer, for what is drawn upon it.
    """

    name: str
    data: Any
    path: Path | None
    scale: tuple[float, ...]
    translate: tuple[float, ...]


def may_be_movie(layer: Any) -> bool:
    """Tell whether a layer is worth offering: an image of several pictures, and not a live picture's."""
    from napari.layers import Image

    # `ndim` leaves colour out.
    return isinstance(layer, Image) and layer.ndim > 2 and not is_of_live_picture(layer)


def frames_of_layer(layer: Any) -> LayerFrames:
    """Look at a layer, in the interface's thread; reads no frame.

    Raises
    ------
    BadInput
        If it is no movie in grey or colour.
    """
    from napari.layers import Image

    name = layer.name
    if not isinstance(layer, Image):
        kind = type(layer).__name__
        raise BadInput(f"The layer {name!r} is a {kind} layer: choose an Image layer that holds a movie.")
    data = layer.data[0] if layer.multiscale else layer.data
    shape, dtype = tuple(data.shape), np.dtype(data.dtype)
    own = shape[:-1] if layer.rgb else shape
    if len(own) == 2:
        raise BadInput(
            f"The layer {name!r} is a single image: choose a movie, with frames along its first axis."
        )
    if len(own) != 3:
        said = " x ".join(map(str, own))
        raise BadInput(
            f"The layer {name!r} has {len(own)} axes ({said}): choose a movie of one channel and one plane, "
            "with the axes frame, y, x."
        )
    if own[0] < 2:
        raise BadInput(f"The layer {name!r} holds a single frame: choose a movie.")
    if dtype.kind not in "ui":
        raise BadInput(
            f"The layer {name!r} holds {dtype.name} values: convert it to 8- or 16-bit grey first."
        )
    path = layer.source.path
    if isinstance(data, FrameArray):
        path = data.path
    spatial = slice(-3, None)
    return LayerFrames(
        name,
        data,
        Path(path) if path else None,
        tuple(float(s) for s in layer.scale[spatial]),
        tuple(float(t) for t in layer.translate[spatial]),
    )


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

    Parameters
    ----------
    frames : LayerFrames
    folder : Path
        Where to write; see `new_copy_folder`.
    cancelled : Event
        Asked before each frame.
    progress : callable
        Called with (frames written, frames in all), in this thread.

    Raises
    ------
    Cancelled
    BadInput
        For values beyond 16 bits, or a disk without room.
    """
    data, n = frames.data, int(frames.data.shape[0])
    wide = np.dtype(data.dtype) != np.uint8
    shape = (n, *(int(k) for k in data.shape[1:]))
    bytes_ = int(np.prod(shape)) * (2 if wide else 1)
    free = shutil.disk_usage(folder).free
    if bytes_ + _ROOM_LEFT > free:
        raise BadInput(
            f"The frames of the layer {frames.name!r} need {bytes_ / 1e9:.1f} GB in {folder}, which has "
            f"{free / 1e9:.1f} GB free: save the layer as a file on another disk, and give that file."
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
            bigtiff=bytes_ > _BIG_TIFF_BYTES,
            photometric="rgb" if len(shape) == 4 else "minisblack",
            metadata={"axes": "TYX" if len(shape) == 3 else "TYXS"},
        )
    except OSError as error:
        raise BadInput(
            f"The frames of the layer {frames.name!r} cannot be written to {folder} "
            f"({error.strerror or error}): save the layer as a file, and give that file."
        ) from error
    return path


def new_copy_folder() -> Path:
    """Make a folder for one copy."""
    return Path(tempfile.mkdtemp(prefix="rbcflow-layer-"))


def _as_stored(image: NDArray[Any], wide: bool, name: str) -> NDArray[Any]:
    if not wide:
        return np.ascontiguousarray(image, dtype=np.uint8)
    if image.dtype != np.uint16 and (int(image.min()) < 0 or int(image.max()) > 65535):
        raise BadInput(
            f"The layer {name!r} holds values beyond 16-bit grey: convert it to 8- or 16-bit first."
        )
    return np.ascontiguousarray(image, dtype=np.uint16)


def _same(shown: NDArray[Any], grey: NDArray[np.uint8]) -> bool:
    """Tell whether a layer's frame is the file's, up to how the file's depth or colour became grey."""
    if shown.ndim == 3:
        if not (
            np.array_equal(shown[..., 0], shown[..., 1]) and np.array_equal(shown[..., 0], shown[..., 2])
        ):
            return False
        shown = shown[..., 0]
    if shown.dtype.itemsize == 1:
        return np.array_equal(shown, grey)
    return any(np.array_equal(np.minimum(shown >> bits, 255), grey) for bits in (0, 2, 4, 6, 8))


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
            label="Minimum frames per cell",
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
